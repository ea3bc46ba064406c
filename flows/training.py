"""A lap: from a source to a decided model. Order and decisions; the work stands in tasks/, its wiring in the files beside."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from prefect import flow
from prefect.context import TagsContext
from prefect.runtime import flow_run

from windvane.flows import loading, steps
from windvane.flows.closing import close_abandoned
from windvane.flows.console import Console
from windvane.flows.data import nothing_to_learn
from windvane.flows.deploying import adopted, deleted, reconcile
from windvane.flows.lap import CURRENT, Depth, Lap, claimed, finish, opened, recorded, unchanged
from windvane.flows.outcome import Outcome
from windvane.flows.project import Project
from windvane.flows.teaching import lesson
from windvane.flows.telling import begin, conclude, summary
from windvane.ledger import laps, versions
from windvane.ledger.versions import Version
from windvane.tasks.errors import WindvaneError
from windvane.tasks.estimators import one_thread
from windvane.tasks.smoke import Tester


@flow(name="lap", flow_run_name="{cause}", persist_result=False, validate_parameters=False)
def lap(root: str, cause: str = "scheduled", depth: Depth = "search", decision: str | None = None) -> Outcome | None:
    """One pass from source to a decided model; a schedule calls it as it stands, the command line under its own lease.

    `decision`: what it carries out, from the ledger, which then says depth and cause; None comes back where that has ended.
    """
    if (current := CURRENT.get()) is not None:
        # The lap's tag is for its flow run: of a tagged task run Prefect asks the server for a concurrency slot first, and
        # after a long step that call fails on a connection gone stale and is tried again seconds later.
        with TagsContext(current_tags=set()):
            return _run(current)
    with opened(Project(Path(root)), cause, depth, Console()) as current:
        if not claimed(current, decision):
            return None
        with recorded(current):
            return _run(current)


def _run(lap: Lap) -> Outcome:
    laps.note(lap.project.ledger, lap.id, prefect_run=str(flow_run.id))
    close_abandoned(lap)
    if note := reconcile(lap.project):
        lap.console.say(f"  note: {note}")
    steps.fetch(lap)
    outcome = unchanged(lap)
    if outcome is None:
        data_version = refresh(lap)
        if (known := nothing_to_learn(lap)) is not None:
            finish(lap, known)
            return known
        loading.load(lap.project)
        mark = lap.fingerprint(data_version)
        challenger = versions.built_from(lap.project.ledger, lap.project.name, mark) or adopted(lap, mark)
        if challenger is not None and challenger.collected is not None:
            raise deleted(challenger)
        outcome = decide(lap, challenger or teach(lap, data_version, mark))
        lap.clear(mark)
    if lap.project.settings.data.remote is not None:
        steps.push(lap)
    finish(lap, outcome)
    return outcome


def refresh(lap: Lap) -> str:
    """ingest -> validate -> split, each only if DVC says that it must; the data version."""
    steps.ingest(lap)
    steps.validate(lap)
    return str(steps.split(lap))


def teach(lap: Lap, data_version: str, mark: str) -> Version:
    """A challenger: its rows looked at, searched, evaluated once, stored, tried in a process of its own, explained, registered."""
    taught = lesson(lap, data_version, mark)
    begin(lap, taught)
    # Steps run side by side from here on, and a limit that two of them set and lift in turn would hold for neither.
    with closing(Tester()) as tester, one_thread():
        # Beside the search, which leaves a core idle while it boosts.
        looked = steps.inspect.submit(lap, taught)
        try:
            found = steps.search(lap, taught)
        finally:
            looked.result()  # rows that the look stops are not judged; what the search says of them comes second
        held = steps.evaluate(lap, taught, found.best.spec)
        # Beside explain: the stored model is tried in a process of its own.
        built = steps.build.submit(lap, taught, found.best.spec, held)
        smoke = steps.smoke.submit(lap, built, tester)
        told = steps.explain(lap, taught, found, held)
        stored = built.result()  # asked first: of a failed build, smoke would only say that it never began
        smoke.result()
    return steps.register(lap, taught, stored, found.best.spec, summary(lap, found, held, told))


def decide(lap: Lap, challenger: Version) -> Outcome:
    """Judge the challenger; verdict and promotion enter the ledger together, then MLflow is told."""
    verdict, against = steps.judge(lap, challenger)
    outcome, move = conclude(lap, challenger, verdict, against)
    if move is not None:
        try:
            steps.promote(lap, move)
        except WindvaneError as e:  # the promotion is done: the ledger has it
            lap.console.say(f"  note: the alias in MLflow follows at the next lap: {e}")
    return outcome
