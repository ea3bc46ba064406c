"""A lap from top to bottom: from a source to a promoted or refused model.

Order and decisions; flows/lap/ has the steps.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from prefect import flow
from prefect.context import TagsContext
from prefect.runtime import flow_run

from windvane.flows import steps
from windvane.flows.lap.context import (
    CURRENT_LAP,
    LapContext,
    LapDepth,
    claim_lap_decision,
    find_unchanged_outcome,
    finish_lap,
    open_lap,
    track_lap,
)
from windvane.flows.lap.data_steps import find_no_new_rows_outcome
from windvane.flows.lap.model_steps import load_training_data
from windvane.flows.lap.run_records import log_lap_summary, record_lap_verdict, start_lap_run
from windvane.flows.model_promotion import adopt_registered_version, explain_deleted_version, reconcile_model_registry
from windvane.flows.orchestration import libraries
from windvane.flows.orchestration.reconciliation import close_abandoned_laps
from windvane.ledger import laps, versions
from windvane.ledger.versions import Version
from windvane.tasks.console import Console
from windvane.tasks.errors import WindvaneError
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.models.model_pipeline import limit_to_one_thread
from windvane.tasks.project import Project
from windvane.tasks.stores.model_files import SmokeTester


@flow(name="lap", flow_run_name="{cause}", persist_result=False, validate_parameters=False)
def lap_flow(
    root: str, cause: str = "scheduled", depth: LapDepth = "search", decision: str | None = None
) -> LapOutcome | None:
    """One pass from source to a decided model; a schedule calls it as it stands, the command line under its own lease.

    `decision`: what it carries out, from the ledger, which then says depth and cause; None comes back where that has ended.
    """
    if (current := CURRENT_LAP.get()) is not None:
        # The lap's tag is for its flow run: of a tagged task run Prefect asks the server for a concurrency slot first, and
        # after a long step that call fails on a connection gone stale and is tried again seconds later.
        with TagsContext(current_tags=set()):
            return _run_steps(current)
    with open_lap(Project(Path(root)), cause, depth, Console()) as current:
        if not claim_lap_decision(current, decision):
            return None
        with track_lap(current):
            return _run_steps(current)


def _run_steps(lap: LapContext) -> LapOutcome:
    laps.record_lap_runs(lap.project.ledger, lap.id, prefect_run=str(flow_run.id))
    close_abandoned_laps(lap)
    if note := reconcile_model_registry(lap.project):
        lap.console.say(f"  note: {note}")
    steps.fetch(lap)
    outcome = find_unchanged_outcome(lap)
    if outcome is None:
        data_version = refresh_data(lap)
        if (known := find_no_new_rows_outcome(lap)) is not None:
            finish_lap(lap, known)
            return known
        libraries.import_heavy_modules(lap.project)
        mark = lap.fingerprint(data_version)
        challenger = versions.find_version_by_fingerprint(
            lap.project.ledger, lap.project.name, mark
        ) or adopt_registered_version(lap, mark)
        if challenger is not None and challenger.collected is not None:
            raise explain_deleted_version(challenger)
        outcome = decide_promotion(lap, challenger or train_challenger(lap, data_version, mark))
        lap.clear(mark)
    if lap.project.settings.data.remote is not None:
        steps.push(lap)
    finish_lap(lap, outcome)
    return outcome


def refresh_data(lap: LapContext) -> str:
    """ingest -> validate -> split, each only if DVC says that it must; the data version."""
    steps.ingest(lap)
    steps.validate(lap)
    return str(steps.split(lap))


def train_challenger(lap: LapContext, data_version: str, mark: str) -> Version:
    """A challenger: its rows looked at, searched, evaluated once, stored, tried in a process of its own, explained, registered."""
    taught = load_training_data(lap, data_version, mark)
    start_lap_run(lap, taught)
    # Steps run side by side from here on, and a limit that two of them set and lift in turn would hold for neither.
    with closing(SmokeTester()) as tester, limit_to_one_thread():
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
    return steps.register(lap, taught, stored, found.best.spec, log_lap_summary(lap, found, held, told))


def decide_promotion(lap: LapContext, challenger: Version) -> LapOutcome:
    """Judge the challenger; verdict and promotion enter the ledger together, then MLflow is told."""
    verdict, against = steps.judge(lap, challenger)
    outcome, move = record_lap_verdict(lap, challenger, verdict, against)
    if move is not None:
        try:
            steps.promote(lap, move)
        except WindvaneError as e:  # the promotion is done: the ledger has it
            lap.console.say(f"  note: the alias in MLflow follows at the next lap: {e}")
    return outcome
