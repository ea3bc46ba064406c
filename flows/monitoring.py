"""`windvane monitor`: checks the newest windows, decides, acts, and reports.

A check is in the ledger before anything follows from it. Imports neither pandas nor Prefect where nothing has
changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from windvane.flows import model_promotion
from windvane.flows.model_promotion import VersionDeleted, VersionUnfit, reconcile_model_registry, require_champion
from windvane.flows.services import up_state
from windvane.ledger import decisions, laps, versions, windows
from windvane.ledger.decisions import ACKNOWLEDGED_NOTE, DecisionRecord
from windvane.ledger.versions import ChampionMoved, Version
from windvane.ledger.windows import WindowRecord
from windvane.monitoring.records import Clock, WindowAssessment
from windvane.monitoring.watch import notifications
from windvane.monitoring.watch.production import WATCH_FOLDER, Production, evidently_report_path, page_path
from windvane.monitoring.watch.window_checks import MonitoringPass, copy_through_json, find_window_decision
from windvane.tasks.console import Console, SilentConsole
from windvane.tasks.errors import WindvaneError
from windvane.tasks.io import read_cache, write_json
from windvane.tasks.project import Project

if TYPE_CHECKING:
    from windvane.monitoring.interval_coverage import StoredIntervals

# The event in Prefect that starts the lap of a decision.
RETRAIN_EVENT = "windvane.retrain"
RetrainingState = Literal["done", "queued", "no"]
# (project, version, cause, reason): makes it champion, and records that.
RollbackAction = Callable[[Project, int, str, str], object]
# Between two polls for the end of a lap that runs elsewhere.
LAP_POLL_SECONDS = 1.0


def act_on_decision(
    project: Project, entry: DecisionRecord, console: Console, put_back: RollbackAction | None = None
) -> None:
    """Do at once what no lap has to do. A retraining waits for its lap. `put_back`: makes an earlier version champion."""
    if not entry.open:
        return
    if entry.action == "rollback":
        _roll_back_champion(project, entry, console, put_back)
    elif entry.action == "stop":
        decisions.record_announcement(project.ledger, entry.id)


def finish_started_actions(project: Project, console: Console) -> None:
    """Put a champion back that a killed pass had decided to put back, and bring MLflow up to date."""
    for entry in decisions.list_decisions(project.ledger, project.name, acting=True):
        if entry.action == "rollback" and entry.open:
            _roll_back_champion(project, entry, console)
    last = versions.find_last_promotion(project.ledger, project.name)
    if last is not None and not last.told and laps.find_living_token(project.ledger, project.name) is None:
        try:
            reconcile_model_registry(project)
        except WindvaneError as e:
            console.print(f"  note: the alias in MLflow follows later: {e}")


def run_pending_retraining(project: Project, console: Console, wait: bool) -> RetrainingState:
    """See to it that the pending retraining takes place: through the automation where `up` runs, else here and now."""
    pending = decisions.find_pending_retraining(project.ledger, project.name)
    if pending is None:
        return "no"
    if up_state.read_running_up(project.home) is not None:
        if pending.state == "recorded":
            _announce_decision(project, pending, console)
        if wait:
            return _wait_for_lap(project, pending, console)
        return "queued"
    from windvane.flows.lap import lap_runner

    decisions.record_announcement(project.ledger, pending.id)
    lap_runner.run_lap(project, "watch", "refit", console, decision=pending.id)
    return _read_retraining_state(project, pending)


def make_resource_id(project: str) -> str:
    """The id of a project as a resource of Prefect's events."""
    return f"windvane.project.{project}"


def emit_retrain_event(project: str, decision: str, reason: str) -> None:
    """Notify Prefect that a decision to retrain is in the ledger. Raises whatever keeps the event from being taken.

    The environment must name the server before Prefect is imported (flows/orchestration/server.py), so it is imported here, not at the top.
    """
    from prefect.events import Event
    from prefect.events.clients import get_events_client

    async def emit() -> None:
        # Each event is acknowledged before this returns.
        async with get_events_client(reconnection_attempts=1, checkpoint_every=1) as client:
            about = {"prefect.resource.id": make_resource_id(project), "prefect.resource.name": project}
            payload = {"decision": decision, "reason": reason, "cause": f"watch: {reason}"[:200]}
            await client.emit(Event(event=RETRAIN_EVENT, resource=about, payload=payload))

    asyncio.run(emit())


def _announce_decision(project: Project, pending: DecisionRecord, console: Console) -> None:
    """Notify the automation. Where that fails the reconciler finds the decision in the ledger."""
    from windvane.flows.orchestration import libraries, server

    with server.use_prefect_server(project.home / "prefect"):
        libraries.silence_prefect()
        try:
            emit_retrain_event(project.name, pending.id, pending.reason)
        except Exception as e:  # noqa: BLE001 (whatever it is, the reconciler runs every minute)
            console.print(
                f"  note: Prefect was not notified ({type(e).__name__}); `windvane up` finds the decision within a minute"
            )
            return
    decisions.record_announcement(project.ledger, pending.id)


def _wait_for_lap(project: Project, pending: DecisionRecord, console: Console) -> RetrainingState:
    while (now := decisions.find_decision(project.ledger, pending.id)) is not None and now.open:
        console.working(f"waiting for the lap: {now.state}")
        lost = up_state.read_running_up(project.home) is None
        if lost and laps.find_living_token(project.ledger, project.name) is None:
            return run_pending_retraining(project, console, wait=False)
        time.sleep(LAP_POLL_SECONDS)
    return _read_retraining_state(project, pending)


def _read_retraining_state(project: Project, pending: DecisionRecord) -> RetrainingState:
    now = decisions.find_decision(project.ledger, pending.id)
    return "queued" if now is not None and now.open else "done" if now is not None and now.state == "done" else "no"


def _roll_back_champion(
    project: Project, entry: DecisionRecord, console: Console, put_back: RollbackAction | None = None
) -> None:
    """Put the version before back. Recorded in MLflow; what keeps MLflow from being updated is repaired by the next lap or check."""
    engine, name = project.ledger, project.name
    champion = versions.find_champion(engine, name)
    earlier = versions.find_previous_champion(engine, name, entry.version)
    if champion is not None and champion.version == earlier:  # a pass was killed after it had done so
        decisions.close_decision(engine, entry.id, "done", f"version {earlier} serves again")
        return
    if champion is None or champion.version != entry.version or earlier is None:
        decisions.close_decision(engine, entry.id, "skipped", "the champion has changed since")
        return
    try:
        (put_back or model_promotion.promote_manually)(project, earlier, "probation", entry.reason)
    except ChampionMoved:
        decisions.close_decision(engine, entry.id, "skipped", "the champion has changed since")
        return
    except (VersionDeleted, VersionUnfit) as e:
        decisions.close_decision(engine, entry.id, "skipped", str(e))
        console.print(f"  note: version {entry.version} goes on, though {entry.reason}: {e}")
        return
    decisions.close_decision(engine, entry.id, "done", f"version {earlier} serves again")
    console.print(f"  version {earlier} serves again: {entry.reason}")


def log_check_run(
    project: Project, seen: WindowRecord, check: WindowAssessment, entry: DecisionRecord, page: Path
) -> None:
    """A run for a check that found something, with what caused it, its figures and its page."""
    tracker = project.tracker
    said = ", ".join(check.drift.columns[:3])
    name = f"watch: {entry.action}: {check.diagnosis.change}" + (f" in {said}" if said else "")
    result = {"watch": seen.start, "cause": entry.reason, "decision": entry.id, "action": entry.action}
    result |= {"diagnosis": check.diagnosis.change, "version": str(seen.version)}
    tags = {f"windvane.{name}": value for name, value in result.items()}
    tags["mlflow.source.name"] = "windvane monitor"
    tags["mlflow.note.content"] = (
        f"**{entry.action}**: {entry.reason}\n\n{check.diagnosis.change}: {check.diagnosis.why}"
    )
    run = tracker.start(name[:250], f"watch-{entry.id}", tags)
    figures = {
        "rows": float(seen.rows),
        "labelled": float(seen.labelled),
        "drift_statistic": check.drift.statistic,
        "drift_limit": check.drift.limit,
        "drift_p": check.drift.p,
        "loss": check.quality.loss,
        "loss_reference": check.quality.reference,
        "loss_estimated": None if check.estimate is None else check.estimate.loss,
        "interval_coverage": None if check.coverage is None else check.coverage.share,
        "gain_expected": entry.gain,
    }
    tracker.log(run, metrics=figures)
    tracker.store(run, page, "watch")
    tracker.end(run)
    windows.record_window_run(project.ledger, project.name, seen, run)


class CheckActions:
    """What follows a check: its page, the action that was decided, its run in MLflow, and the notice."""

    def __init__(self, production: Production, console: Console) -> None:
        self._production, self._console = production, console
        self._project = production.project
        self._away = False

    def act_and_report(self, seen: WindowRecord, check: WindowAssessment, entry: DecisionRecord) -> None:
        """Write the page, act, and notify, in this order, once a decision is on record."""
        report = self.report(seen)
        act_on_decision(self._project, entry, self._console)
        if entry.action != "wait" or check.drift.alarm is not False:
            self._log(seen, check, entry, report)
        notifications.notify_of_check(self._project, check, entry)

    def _log(self, seen: WindowRecord, check: WindowAssessment, entry: DecisionRecord, page: Path) -> None:
        """A run in MLflow, as long as that responds: checks and decisions are in the ledger without it."""
        if self._away:
            return
        try:
            log_check_run(self._project, seen, check, entry, page)
        except WindvaneError as e:
            self._away = True
            self._console.print(f"  note: checks of this pass are not in MLflow: {e}")

    def report(self, seen: WindowRecord) -> Path:
        """Write a check's page, with Evidently's report behind ours; where. Pages before it that had nothing to report let theirs go."""
        mine = windows.list_windows(self._project.ledger, self._project.name, seen.version)
        for earlier in mine:
            kept = evidently_report_path(self._project, earlier.version, earlier.start)
            if earlier.start >= seen.start or not kept.exists():
                continue
            if WindowAssessment.from_json(earlier.look).drift.alarm is False:
                kept.unlink()
                self._write(earlier, mine)
        return self._write(seen, mine)

    def _write(self, seen: WindowRecord, mine: tuple[WindowRecord, ...]) -> Path:
        from windvane.monitoring.watch import report

        path = page_path(self._project, seen.version, seen.start)
        page = report.render_window_report(
            WindowAssessment.from_json(seen.look),
            find_window_decision(self._project.ledger, self._project.name, seen),
            self._project.name,
            seen.origin,
            self._production.hidden if seen.origin == "ledger" else (),
            [WindowAssessment.from_json(s.look) for s in mine if s.start < seen.start],
            evidently_report_path(self._project, seen.version, seen.start),
        )
        report.write_window_report(path, page)
        return path


_END_OF_TIME = "9999"
_LOCK_FILE = "watch.lock"


def monitor_production(
    project: Project, console: Console, *, clock: Clock = "wall", wait: bool = False, acknowledge: bool = False
) -> dict[str, Any]:
    """One pass over what is new; what it saw, decided and did. While another one checks, it ends at once and reports why."""
    champion = require_champion(project)
    lock = FileLock(project.home / _LOCK_FILE)
    try:
        # What a person acknowledges must not be lost: that waits.
        lock.acquire(timeout=-1 if acknowledge else 0)
    except Timeout:
        result = _make_empty_result(champion.version, "another pass checks production already; it sees the same rows")
        _print_result(result, console)
        return {**result, "retrained": "no"}
    try:
        result = _check_and_decide(project, champion, console, clock, acknowledge)
    finally:
        lock.release()
    _print_result(result, console)
    result = {**result, "retrained": run_pending_retraining(project, console, wait)}
    notifications.send_notices(project)
    return result


def _check_and_decide(
    project: Project, champion: Version, console: Console, clock: Clock, acknowledge: bool
) -> dict[str, Any]:
    """Check new windows and decide. The caller holds watch.lock."""
    promotion = versions.find_last_promotion(project.ledger, project.name)
    assert promotion is not None
    if acknowledge:
        _acknowledge_stops(project, console)
    finish_started_actions(project, console)
    refits = project.with_settings(project.watch_settings(champion))
    production = Production(refits, champion, promotion, clock, console)
    path = project.home / WATCH_FOLDER / "last.json"
    known = read_cache(path, lambda c: (c["state"], str(c["until"]), _validate_kept_result(c["told"])))
    same = known is not None and known[0] == copy_through_json(production.state) and production.now < known[1]
    if known is not None and same and known[2]["drift"]["alarm"] is not None:
        result: dict[str, Any] = known[2]
        console.print("  nothing new since the last check")
        return result
    actions = CheckActions(production, console)
    intervals = partial(_load_intervals, project, champion)
    found = MonitoringPass(production, console, actions.act_and_report, intervals).run()
    if found is None:
        trained = f" until {champion.taught_until}" if champion.taught_until else ""
        result = _make_empty_result(
            champion.version, f"no rows yet since version {champion.version} was trained{trained}"
        )
    else:
        result = _make_result(*found, production, str(actions.report(found[0])))
    until = min((p.end for p in production.places() if not p.closed), default=_END_OF_TIME)
    write_json({"state": production.state, "until": until, "told": result}, path)
    return result


def _load_intervals(project: Project, champion: Version) -> StoredIntervals | None:
    from windvane.flows import stored_intervals

    return stored_intervals.load_stored_intervals(project, champion)


def _validate_kept_result(result: Any) -> dict[str, Any]:
    """What a pass came to, as it was kept. Raises KeyError or TypeError where it is damaged: what cannot be printed."""
    _print_result(result, SilentConsole())
    _ = result["quality"], result["version"], result["drift"]["columns"], result["coverage"]
    return dict(result)


def _make_empty_result(version: int, reason: str) -> dict[str, Any]:
    return {
        "window": {"rows": 0, "from": None, "to": None},
        "drift": {"alarm": False, "columns": []},
        "quality": None,
        "coverage": None,
        "diagnosis": "none",
        "decision": "wait",
        "reason": reason,
        "report": None,
        "version": version,
    }


def _make_result(seen: WindowRecord, entry: DecisionRecord, production: Production, report: str) -> dict[str, Any]:
    check = WindowAssessment.from_json(seen.look)
    quality = check.quality if check.quality.loss is not None or check.estimate is None else check.estimate
    window = {"rows": seen.rows, "from": seen.start, "to": seen.end, "closed": seen.closed, "labelled": seen.labelled}
    window["labelled_estimated"] = check.stretch.labelled_estimated
    drift = {name: getattr(check.drift, name) for name in ("alarm", "p", "level", "note", "undecided")}
    hidden = [] if seen.origin == "source" else list(production.hidden)
    return {
        "window": window,
        "drift": {**drift, "columns": list(check.drift.columns), "left_out": hidden},
        "quality": asdict(quality),
        "coverage": None if check.coverage is None else check.coverage.to_json(),
        "diagnosis": check.diagnosis.change,
        "why": check.diagnosis.why,
        "decision": entry.action,
        "reason": entry.reason,
        "known_until": entry.known_until,
        "gain": entry.gain,
        "cost": entry.cost,
        "report": report,
        "version": seen.version,
    }


def _print_result(result: dict[str, Any], console: Console) -> None:
    window, drift = result["window"], result["drift"]
    if window["rows"]:
        about = "about " if window["labelled_estimated"] else ""
        console.print(
            f"  window {window['from'][:10]} to {window['to'][:10]}{'' if window['closed'] else ' (still open)'}: "
            f"{window['rows']:,} rows, {about}{window['labelled']:,} labelled; version {result['version']}"
        )
        moved = f"alarm: {', '.join(drift['columns'])}" if drift["alarm"] else drift["note"] or "no alarm"
        console.print(f"  drift: {moved}")
        if drift.get("undecided"):
            console.print(f"    {drift['undecided']}")
        if drift.get("left_out"):
            console.print(f"    left out, as the ledger does not keep them: {', '.join(drift['left_out'])}")
        console.print(f"  {describe_quality(result['quality'])}")
        if result["coverage"] is not None:
            console.print(f"  intervals: {result['coverage']['text']}")
        console.print(f"  diagnosis: {result['diagnosis']}: {result['why']}")
    console.print(f"  decision: {result['decision']}: {result['reason']}")
    if result["report"]:
        console.print(f"  report: {result['report']}")


def describe_quality(quality: dict[str, Any]) -> str:
    """A PerformanceResult as plain values in one line: the loss against the champion's own held-out rows, and how it is known."""
    what = "estimated loss" if quality["estimated"] else "loss"
    if quality["loss"] is None or not quality["reference"]:
        return f"{what}: unknown: {quality['how']}"
    return f"{what}: {quality['loss'] / quality['reference'] - 1:+.1%} against its own held-out rows; {quality['how']}"


def _acknowledge_stops(project: Project, console: Console) -> None:
    acting = decisions.list_decisions(project.ledger, project.name, acting=True)
    stops = [one for one in acting if one.action == "stop" and one.open]
    for one in stops:
        decisions.close_decision(project.ledger, one.id, "done", ACKNOWLEDGED_NOTE)
        console.print(f"  acknowledged: {one.reason}")
    if not stops:
        console.print("  nothing to acknowledge")
    (project.home / WATCH_FOLDER / "last.json").unlink(missing_ok=True)
