"""`windvane status`: what serves, since when and why, and how the last lap ended. Reads the ledger only."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from flows.console import Console, number
from flows.project import Project
from ledger import laps, versions


def status(project: Project, console: Console) -> dict[str, Any]:
    """The project's state as plain values, and as a few lines for people."""
    engine, name = project.ledger, project.name
    champion, last, lap = (
        versions.champion(engine, name),
        versions.last_promotion(engine, name),
        laps.newest(engine, name),
    )
    shown: dict[str, Any] | None = None
    if champion is not None and last is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(last.promoted)
        summary = champion.facts["summary"]
        shown = {
            "version": champion.version,
            "since": last.promoted,
            "age_days": round(age.total_seconds() / 86400, 2),
            "cause": last.cause,
            "reason": last.reason,
            "taught_until": champion.taught_until,
            "data_version": champion.data_version,
            "run_id": champion.run_id,
            "metric": champion.facts["metric"],
            "test": summary["test"],
            "candidate": summary["chosen"],
        }
        console.say(
            f"  champion: version {champion.version} ({summary['chosen']}), since {last.promoted[:19]}Z, {last.cause}"
        )
        console.say(f"    why: {last.reason}")
        low, high = summary["interval"]
        console.say(
            f"    test {shown['metric']}: {number(summary['test'])} (95 % interval {number(low)} to {number(high)})"
        )
        console.say(
            f"    data version {champion.data_version}"
            + (f", taught until {champion.taught_until}" if champion.taught_until else "")
        )
    else:
        console.say("  no champion yet; next: windvane train")
    decision = None
    if lap is not None:
        outcome = lap.outcome or {}
        decision = {"lap": lap.id, "cause": lap.cause, "state": lap.state, "started": lap.started, "ended": lap.ended}
        decision |= {"verdict": outcome.get("verdict"), "reason": outcome.get("reason")}
        said = f": {outcome['verdict']}: {outcome['reason']}" if outcome else ""
        console.say(f"  last lap: {lap.cause}, {lap.started[:19]}Z, {lap.state}{said}")
    services = {
        "ledger": "WINDVANE_LEDGER_URL" if os.environ.get("WINDVANE_LEDGER_URL") else str(project.home / "ledger.db"),
        "mlflow": project.tracking_uri or str(project.home / "mlflow.db"),
        "prefect": os.environ.get("PREFECT_API_URL") or "started by each lap",
        "serving": _serving(project, console),
    }
    return {"champion": shown, "last_decision": decision, "services": services}


def _serving(project: Project, console: Console) -> Any:
    """What a running scoring service said last; None when none runs on this machine."""
    from serving.state import read

    told = read(project.home / "serving")
    if told is not None:
        console.say(
            f"  service: version {told['version']} answers since {str(told['since'])[:19]}Z, process {told['pid']}"
        )
        if told["refused"]:
            console.say(f"    it refused version {told['refused']['version']}: {told['refused']['reason']}")
    return told
