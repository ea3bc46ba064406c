"""The look at production as a Prefect flow, for the schedule of `windvane up`; `windvane monitor` does the same without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.flows.standing import Clock
from windvane.flows.watch import watch
from windvane.ledger import versions


@flow(name="monitor", persist_result=False, validate_parameters=False)
def monitor(root: str, clock: Clock = "wall") -> dict[str, Any]:
    """One pass; what it decided is the run's artifact, with a link to the report."""
    project = Project(Path(root))
    if versions.last_promotion(project.ledger, project.name) is None:
        # A schedule runs from the first day on: that there is nothing to watch yet is no failure.
        return {"decision": "wait", "reason": f"{project.name} has no champion yet"}
    told = watch(project, Console(), clock=clock)
    create_markdown_artifact(_said(told), key="watch", description="What the watch saw, and what it decided")
    return told


def _said(told: dict[str, Any]) -> str:
    window, drift = told["window"], told["drift"]
    lines = [f"## {told['decision']}: {told['diagnosis']}", "", told["reason"], ""]
    if window["rows"]:
        moved = ", ".join(drift["columns"]) if drift["alarm"] else "no alarm"
        lines += [f"Window {window['from'][:10]} to {window['to'][:10]}, {window['rows']:,} rows; drift: {moved}.", ""]
    if told["report"]:
        lines.append(f"[Report]({Path(told['report']).resolve().as_uri()})")
    return "\n".join(lines)
