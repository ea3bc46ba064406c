"""`windvane status`: what serves and why, how the last lap ended, what the watch saw and decided, what runs next.

Reads the ledger only.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from windvane.flows import standing
from windvane.flows.console import Console, number
from windvane.flows.project import Project
from windvane.ledger import decisions, laps, versions, windows
from windvane.tasks import addresses


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
    lapped = None
    if lap is not None:
        outcome = lap.outcome or {}
        lapped = {"lap": lap.id, "cause": lap.cause, "state": lap.state, "started": lap.started, "ended": lap.ended}
        lapped |= {"verdict": outcome.get("verdict"), "reason": outcome.get("reason")}
        said = f": {outcome['verdict']}: {outcome['reason']}" if outcome else ""
        console.say(f"  last lap: {lap.cause}, {lap.started[:19]}Z, {lap.state}{said}")
    up = standing.running(project.home)
    stands = {} if up is None else {name: at for name, at in up.services.items() if at is not None}
    if up is not None:
        console.say(f"  up: {', '.join(f'{name} {at}' for name, at in stands.items())}; process {up.holder.pid}")
    services = {
        "ledger": "WINDVANE_LEDGER_URL" if os.environ.get("WINDVANE_LEDGER_URL") else str(project.home / "ledger.db"),
        "mlflow": stands.get("mlflow") or addresses.shown(project.tracking_uri or str(project.home / "mlflow.db")),
        "prefect": stands.get("prefect") or os.environ.get("PREFECT_API_URL") or "started by each lap",
        "serving": _serving(project, console),
    }
    return {
        "champion": shown,
        "last_lap": lapped,
        "last_window": _window(project, console),
        "last_decision": _decision(project, console),
        "next": _next(project, console),
        "services": services,
    }


def _window(project: Project, console: Console) -> dict[str, Any] | None:
    """The window that was looked at last."""
    seen = windows.newest(project.ledger, project.name)
    if seen is None:
        return None
    alarm, note = seen.look["drift"]["alarm"], seen.look["drift"]["note"]
    columns = list(dict.fromkeys(f["column"] for f in seen.look["drift"]["findings"] if f["alarm"]))
    console.say(
        f"  last window: {seen.start[:10]} to {seen.end[:10]}{'' if seen.closed else ' (still open)'}, {seen.rows:,} rows, "
        f"version {seen.version}: {note if alarm is None else seen.look['diagnosis']['change']}"
        + (f", alarm in {', '.join(columns)}" if alarm else "")
    )
    told = {"version": seen.version, "from": seen.start, "to": seen.end, "rows": seen.rows, "labelled": seen.labelled}
    return told | {"closed": seen.closed, "alarm": alarm, "columns": columns, "note": note, "looked": seen.looked}


def _decision(project: Project, console: Console) -> dict[str, Any] | None:
    """What the watch decided last, and what came of it."""
    one = decisions.last(project.ledger, project.name)
    if one is None:
        return None
    came = f" ({one.state}{f': {one.note}' if one.note else ''})" if one.action != "wait" else ""
    console.say(f"  last decision: {one.action}, {one.recorded[:19]}Z{came}: {one.reason}")
    names = ("id", "action", "reason", "state", "note", "at", "recorded", "version", "depth", "remedy", "gain", "cost")
    return {name: getattr(one, name) for name in (*names, "realised", "known_until", "made")}


def _next(project: Project, console: Console) -> dict[str, Any]:
    """What runs next by itself: what is owed, and the schedules, where `windvane up` runs."""
    from cronsim import CronSim

    up = standing.running(project.home)
    owed, schedule = decisions.pending(project.ledger, project.name), project.settings.schedule
    told: dict[str, Any] = {"up": up is not None, "owed": None if owed is None else owed.id}
    for name, cron in (("monitor", schedule.monitor), ("train", schedule.train)):
        told[name] = None
        if up is not None and cron is not None:
            told[name] = cron if up.clock == "events" else next(CronSim(cron, datetime.now(UTC))).isoformat()
    said = [f"a retraining is owed ({owed.state})"] if owed is not None else []
    said += [f"{name} {told[name]}" for name in ("monitor", "train") if told[name]]
    if up is None:
        said.append("nothing by itself; windvane monitor looks now, windvane up looks on schedule")
    console.say(f"  next: {'; '.join(said)}")
    return told


def _serving(project: Project, console: Console) -> Any:
    """What a running scoring service said last; None when none runs on this machine."""
    from windvane.serving.state import read

    told = read(project.home / "serving")
    if told is not None:
        console.say(
            f"  service: version {told['version']} answers since {str(told['since'])[:19]}Z, process {told['pid']}"
        )
        if told["refused"]:
            console.say(f"    it refused version {told['refused']['version']}: {told['refused']['reason']}")
    return told
