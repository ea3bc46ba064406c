"""Monitoring and batch scoring as Prefect flows, for schedules; `windvane monitor` and `windvane score` do the same without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from windvane.flows import scoring
from windvane.flows.monitoring import monitor_production
from windvane.ledger import versions
from windvane.monitoring.records import Clock
from windvane.tasks.console import Console
from windvane.tasks.project import Project


@flow(name="monitor", persist_result=False, validate_parameters=False)
def monitor_flow(root: str, clock: Clock = "wall") -> dict[str, Any]:
    """One pass; what it decided is the run's artifact, with a link to the report."""
    project = Project(Path(root))
    if versions.find_last_promotion(project.ledger, project.name) is None:
        # A schedule runs from the first day on: that there is nothing to watch yet is no failure.
        return {"decision": "wait", "reason": f"{project.name} has no champion yet"}
    result = monitor_production(project, Console(), clock=clock)
    create_markdown_artifact(
        _format_summary(result), key="watch", description="What monitoring found, and what it decided"
    )
    return result


def _format_summary(result: dict[str, Any]) -> str:
    window, drift = result["window"], result["drift"]
    lines = [f"## {result['decision']}: {result['diagnosis']}", "", result["reason"], ""]
    if window["rows"]:
        moved = ", ".join(drift["columns"]) if drift["alarm"] else drift.get("undecided") or "no alarm"
        lines += [f"Window {window['from'][:10]} to {window['to'][:10]}, {window['rows']:,} rows; drift: {moved}.", ""]
    if result["report"]:
        lines.append(f"[Report]({Path(result['report']).resolve().as_uri()})")
    return "\n".join(lines)


@flow(name="score", flow_run_name="{target}", persist_result=False, retries=2, retry_delay_seconds=60)
def score_flow(root: str, source: str, target: str, log: bool = False) -> dict[str, Any]:
    """Predictions for a file; what a failed try finished is not done again."""
    return scoring.score_file(
        Project(Path(root)), Path(root) / source, Path(root) / target, scoring.ScoringOptions(log), Console()
    )
