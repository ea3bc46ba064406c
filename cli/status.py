"""`windvane status` and `windvane versions`: what serves and why, the last lap, the last check, what runs next, and
every version. Reads the ledger only.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from windvane.flows.services import up_state
from windvane.ledger import decisions, laps, versions, windows
from windvane.ledger.versions import GateJudgement, Version
from windvane.monitoring.records import WindowAssessment
from windvane.tasks.console import Console, format_metric, format_table
from windvane.tasks.project import Project
from windvane.tasks.settings.monitoring_section import find_next_tick
from windvane.tasks.settings.problem_section import name_metric
from windvane.tasks.stores import mlflow_store
from windvane.tasks.stores.mlflow_client import CHALLENGER_ALIAS, CHAMPION_ALIAS


def show_status(project: Project, console: Console) -> dict[str, Any]:
    """The project's state as plain values, and as a few lines for people."""
    engine, name = project.ledger, project.name
    champion, last = versions.find_champion(engine, name), versions.find_last_promotion(engine, name)
    lap = laps.find_newest_lap(engine, name)
    shown: dict[str, Any] | None = None
    if champion is not None and last is not None:
        age = datetime.now(UTC) - datetime.fromisoformat(last.promoted)
        summary = champion.facts.summary
        shown = {
            "version": champion.version,
            "since": last.promoted,
            "age_days": round(age.total_seconds() / 86400, 2),
            "cause": last.cause,
            "reason": last.reason,
            "taught_until": champion.taught_until,
            "data_version": champion.data_version,
            "run_id": champion.run_id,
            "metric": champion.facts.metric,
            "positive": champion.facts.positive,
            "test": summary["test"],
            "candidate": summary["chosen"],
        }
        console.print(
            f"  champion: version {champion.version} ({summary['chosen']}), since {last.promoted[:19]}Z, {last.cause}"
        )
        console.print(f"    why: {last.reason}")
        low, high = summary["interval"]
        interval = f"(95 % interval {format_metric(low)} to {format_metric(high)})"
        metric = name_metric(champion.facts.metric, champion.facts.positive)
        console.print(f"    test {metric}: {format_metric(summary['test'])} {interval}")
        until = f", trained until {champion.taught_until}" if champion.taught_until else ""
        console.print(f"    data version {champion.data_version}{until}")
    else:
        console.print("  no champion yet; next: windvane train")
    lapped = None
    if lap is not None:
        outcome = lap.outcome or {}
        state = "interrupted" if laps.is_lap_interrupted(engine, name, lap) else lap.state
        lapped = {"lap": lap.id, "cause": lap.cause, "state": state, "started": lap.started, "ended": lap.ended}
        lapped |= {"verdict": outcome.get("verdict"), "reason": outcome.get("reason")}
        parts = f": {outcome['verdict']}: {outcome['reason']}" if outcome else ""
        if state == "interrupted":
            parts = ": its process is gone; next: windvane train, which goes on from the trials that were finished"
        console.print(f"  last lap: {lap.cause}, {lap.started[:19]}Z, {state}{parts}")
    up = up_state.read_running_up(project.home)
    running = {} if up is None else {name: at for name, at in up.services.items() if at is not None}
    if up is not None:
        console.print(
            f"  up: {', '.join([*(f'{name} {at}' for name, at in running.items()), f'process {up.holder.pid}'])}"
        )
    services = {
        "ledger": "WINDVANE_LEDGER_URL" if os.environ.get("WINDVANE_LEDGER_URL") else str(project.home / "ledger.db"),
        "mlflow": running.get("mlflow")
        or mlflow_store.redact_address(project.tracking_uri or str(project.home / "mlflow.db")),
        "prefect": running.get("prefect") or os.environ.get("PREFECT_API_URL") or "started by each lap",
        "serving": _show_service(project, console),
    }
    return {
        "champion": shown,
        "last_lap": lapped,
        "last_window": _show_last_window(project, console),
        "last_decision": _show_last_decision(project, console),
        "next": _show_next_runs(project, console),
        "services": services,
    }


def _show_last_window(project: Project, console: Console) -> dict[str, Any] | None:
    """The window that was checked last."""
    seen = windows.find_newest_window(project.ledger, project.name)
    if seen is None:
        return None
    check = WindowAssessment.from_json(seen.look)
    alarm, note, columns = check.drift.alarm, check.drift.note, list(check.drift.columns)
    console.print(
        f"  last window: {seen.start[:10]} to {seen.end[:10]}{'' if seen.closed else ' (still open)'}, {seen.rows:,} rows, "
        f"version {seen.version}: {check.drift.unknown or check.diagnosis.change}"
        + (f", alarm in {', '.join(columns)}" if alarm else "")
    )
    facts = {"version": seen.version, "from": seen.start, "to": seen.end, "rows": seen.rows, "labelled": seen.labelled}
    facts["labelled_estimated"] = check.stretch.labelled_estimated
    return facts | {"closed": seen.closed, "alarm": alarm, "columns": columns, "note": note, "looked": seen.looked}


def _show_last_decision(project: Project, console: Console) -> dict[str, Any] | None:
    """What monitoring decided last, and what came of it."""
    one = decisions.find_last_decision(project.ledger, project.name)
    if one is None:
        return None
    came = f" ({one.state}{f': {one.note}' if one.note else ''})" if one.action != "wait" else ""
    console.print(f"  last decision: {one.action}, {one.recorded[:19]}Z{came}: {one.reason}")
    names = ("id", "action", "reason", "state", "note", "at", "recorded", "version", "depth", "remedy", "gain", "cost")
    return {name: getattr(one, name) for name in (*names, "realised", "known_until", "made")}


def _show_next_runs(project: Project, console: Console) -> dict[str, Any]:
    """What runs next by itself: what is pending, and the schedules, where `windvane up` runs."""
    up = up_state.read_running_up(project.home)
    pending, schedule = decisions.find_pending_retraining(project.ledger, project.name), project.settings.schedule
    facts: dict[str, Any] = {"up": up is not None, "owed": None if pending is None else pending.id}
    facts["timezone"] = schedule.timezone
    for name, cron in (("monitor", schedule.monitor), ("train", schedule.train)):
        facts[name] = None
        if up is not None and cron is not None:
            tick = find_next_tick(cron, datetime.now(UTC), schedule.zone)
            facts[name] = cron if up.clock == "events" else tick.isoformat()
    parts = [f"a retraining is pending ({pending.state})"] if pending is not None else []
    parts += [f"{name} {facts[name]} ({schedule.timezone})" for name in ("monitor", "train") if facts[name]]
    if up is None:
        parts.append("nothing by itself; windvane monitor checks now, windvane up checks on schedule")
    console.print(f"  next: {'; '.join(parts)}")
    return facts


def _show_service(project: Project, console: Console) -> Any:
    """The last state of a running scoring service; None when none runs on this machine."""
    from windvane.serving.service_state import read_service_state

    facts = read_service_state(project.home / "serving")
    if facts is not None:
        serving = "waits for a champion; next: windvane train"
        if facts["version"] is not None:
            since = f" since {facts['since'][:19]}Z" if facts["since"] else ""
            serving = f"version {facts['version']} serving{since}"
        elif facts["refused"]:
            serving = "serves nothing"
        console.print(f"  service: {serving}, process {facts['pid']}")
        if facts["refused"]:
            console.print(f"    it refused version {facts['refused']['version']}: {facts['refused']['reason']}")
    return facts


# Characters of a cause on the screen; the JSON has all of it.
CAUSE_WIDTH_CHARACTERS = 44


def show_versions(project: Project, console: Console) -> dict[str, Any]:
    """All versions of the project, the newest last, as plain values and as a table for people."""
    engine, name = project.ledger, project.name
    known, moves = versions.list_versions(engine, name), versions.list_promotions(engine, name)
    judged, causes = versions.read_newest_judgements(engine, name), laps.read_lap_causes(engine, name)
    # When each version was promoted last.
    promoted = {move.to_version: move.promoted for move in moves}
    # As MLflow's aliases show: the newest version is challenger until it is promoted.
    serving = {known[-1].version: CHALLENGER_ALIAS} if known and known[-1].version not in promoted else {}
    if moves:
        serving[moves[-1].to_version] = CHAMPION_ALIAS
    content = [
        {
            **_describe_version(one, judged.get(one.version)),
            "serves": serving.get(one.version),
            "cause": causes.get(one.run_id),
            "promoted": promoted.get(one.version),
        }
        for one in known
    ]
    if content:
        some_deleted = any(one["collected"] for one in content)
        console.print(format_table([_row(one, some_deleted) for one in content]))
    else:
        console.print("  no version yet; next: windvane train")
    return {"versions": content}


def _describe_version(version: Version, judgement: GateJudgement | None) -> dict[str, Any]:
    summary = version.facts.summary
    low, high = summary["interval"]
    verdict = {} if judgement is None else judgement.verdict
    return {
        "version": version.version,
        "verdict": None if judgement is None else "promoted" if judgement.accepted else "refused",
        "reason": verdict.get("outcome", {}).get("reason") or verdict.get("reason"),
        "candidate": summary["chosen"],
        "metric": version.facts.metric,
        "positive": version.facts.positive,
        "value": summary["test"],
        "low": low,
        "high": high,
        "registered": version.registered,
        "collected": version.collected,
        "data_version": version.data_version,
        "run_id": version.run_id,
    }


def _row(one: dict[str, Any], some_deleted: bool) -> dict[str, Any]:
    cause = one["cause"] or "-"
    files = {"model files": "deleted" if one["collected"] else "kept"} if some_deleted else {}
    return {
        "version": one["version"],
        "serves": one["serves"] or "",
        "verdict": one["verdict"] or "not judged",
        "candidate": one["candidate"],
        "metric": name_metric(one["metric"], one["positive"]),
        "value": format_metric(one["value"]),
        "low": format_metric(one["low"]),
        "high": format_metric(one["high"]),
        "registered": f"{one['registered'][:19]}Z",
        **files,
        "cause": cause if len(cause) <= CAUSE_WIDTH_CHARACTERS else cause[: CAUSE_WIDTH_CHARACTERS - 1] + "…",
    }
