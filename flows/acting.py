"""What follows from a decision: a lap, a champion put back, a person told. Whatever is done stands in the ledger before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from windvane.flows import standing
from windvane.flows.console import Console
from windvane.flows.deploying import VersionGone
from windvane.flows.project import Project
from windvane.ledger import decisions, leases, versions, windows
from windvane.ledger.decisions import Entry
from windvane.ledger.versions import ChampionMoved
from windvane.ledger.windows import Seen
from windvane.tasks.errors import WindvaneError

if TYPE_CHECKING:
    from windvane.monitoring.evidence import Look

Retrained = Literal["done", "queued", "no"]
# (project, version, cause, reason): makes it champion, and records that.
PutBack = Callable[[Project, int, str, str], object]
# Between two looks whether a lap that runs elsewhere has ended.
POLL = 1.0


def _by_hand(project: Project, version: int, cause: str, reason: str) -> object:
    from windvane.flows import deploying

    return deploying.by_hand(project, version, cause, reason)


def act(project: Project, entry: Entry, console: Console, put_back: PutBack = _by_hand) -> None:
    """Do at once what no lap has to do. A retraining waits for retrain(). `put_back`: makes an earlier version champion."""
    if not entry.open:
        return
    if entry.action == "rollback":
        _roll_back(project, entry, console, put_back)
    elif entry.action == "stop":
        decisions.tell(project.ledger, entry.id)


def finish_what_was_begun(project: Project, console: Console) -> None:
    """Put a champion back that a killed pass had decided to put back, and tell MLflow what it has not been told."""
    for entry in decisions.listed(project.ledger, project.name, acting=True):
        if entry.action == "rollback" and entry.open:
            _roll_back(project, entry, console)
    last = versions.last_promotion(project.ledger, project.name)
    if last is not None and not last.told and leases.living(project.ledger, project.name) is None:
        from windvane.flows.deploying import reconcile

        try:
            reconcile(project)
        except WindvaneError as e:
            console.say(f"  note: the alias in MLflow follows later: {e}")


def retrain(project: Project, console: Console, wait: bool) -> Retrained:
    """See to it that the retraining that is owed takes place: through the automation where `up` runs, else here and now."""
    owed = decisions.pending(project.ledger, project.name)
    if owed is None:
        return "no"
    if standing.running(project.home) is not None:
        if owed.state == "recorded":
            _announce(project, owed, console)
        if wait:
            return _awaited(project, owed, console)
        return "queued"
    from windvane.flows import flying

    decisions.tell(project.ledger, owed.id)
    flying.fly(project, "watch", "refit", console, decision=owed.id)
    return _ended(project, owed)


def _announce(project: Project, owed: Entry, console: Console) -> None:
    """Tell the automation. Where that fails the reconciler finds the decision in the ledger."""
    from windvane.flows import quiet, schedule, server

    with server.running(project.home / "prefect"):
        quiet.hush()
        try:
            schedule.announce(project.name, owed.id, owed.reason)
        except Exception as e:  # noqa: BLE001 (whatever it is, the reconciler looks every minute)
            console.say(
                f"  note: Prefect was not told ({type(e).__name__}); `windvane up` finds the decision within a minute"
            )
            return
    decisions.tell(project.ledger, owed.id)


def _awaited(project: Project, owed: Entry, console: Console) -> Retrained:
    while (now := decisions.numbered(project.ledger, owed.id)) is not None and now.open:
        console.working(f"waiting for the lap: {now.state}")
        if standing.running(project.home) is None and leases.living(project.ledger, project.name) is None:
            return retrain(project, console, wait=False)
        time.sleep(POLL)
    return _ended(project, owed)


def _ended(project: Project, owed: Entry) -> Retrained:
    now = decisions.numbered(project.ledger, owed.id)
    return "queued" if now is not None and now.open else "done" if now is not None and now.state == "done" else "no"


def _roll_back(project: Project, entry: Entry, console: Console, put_back: PutBack = _by_hand) -> None:
    """Put the version before back. Told to MLflow; what keeps that from being told is repaired by the next lap or look."""
    engine, name = project.ledger, project.name
    champion = versions.champion(engine, name)
    earlier = versions.before(engine, name, entry.version)
    if champion is not None and champion.version == earlier:  # a pass was killed after it had done so
        decisions.close(engine, entry.id, "done", f"version {earlier} serves again")
        return
    if champion is None or champion.version != entry.version or earlier is None:
        decisions.close(engine, entry.id, "skipped", "the champion has changed since")
        return
    try:
        put_back(project, earlier, "probation", entry.reason)
    except ChampionMoved:
        decisions.close(engine, entry.id, "skipped", "the champion has changed since")
        return
    except VersionGone as e:
        decisions.close(engine, entry.id, "skipped", str(e))
        console.say(f"  note: version {entry.version} goes on, though {entry.reason}: {e}")
        return
    decisions.close(engine, entry.id, "done", f"version {earlier} serves again")
    console.say(f"  version {earlier} serves again: {entry.reason}")


def tell_mlflow(project: Project, seen: Seen, look: Look, entry: Entry, pages: Sequence[Path]) -> None:
    """A run for a look that found something, with what caused it, its figures and its pages."""
    tracker = project.tracker
    said = ", ".join(look.drift.columns[:3])
    name = f"watch: {entry.action}: {look.diagnosis.change}" + (f" in {said}" if said else "")
    tags = {
        "windvane.watch": seen.start,
        "windvane.cause": entry.reason,
        "windvane.decision": entry.id,
        "windvane.action": entry.action,
        "windvane.diagnosis": look.diagnosis.change,
        "windvane.version": str(seen.version),
        "mlflow.note.content": f"**{entry.action}**: {entry.reason}\n\n{look.diagnosis.change}: {look.diagnosis.why}",
    }
    run = tracker.start(name[:250], f"watch-{entry.id}", tags)
    figures = {
        "rows": float(seen.rows),
        "labelled": float(seen.labelled),
        "drift_statistic": look.drift.statistic,
        "drift_limit": look.drift.limit,
        "drift_p": look.drift.p,
        "loss": look.quality.loss,
        "loss_reference": look.quality.reference,
        "loss_estimated": None if look.estimate is None else look.estimate.loss,
        "gain_expected": entry.gain,
    }
    tracker.log(run, metrics=figures)
    for page in pages:
        tracker.store(run, page, "watch")
    tracker.end(run)
    windows.note(project.ledger, project.name, seen, run)
