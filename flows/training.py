"""A lap from top to bottom: from a source to a promoted or refused model.

Order and decisions; flows/lap/ has the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windvane.flows.lap.context import (
    LapContext,
    Runner,
    clear,
    compute_fingerprint,
    find_stopped_outcome,
    find_unchanged_outcome,
    finish_lap,
    run_fetch_step,
)
from windvane.ledger import versions
from windvane.ledger.versions import Version
from windvane.tasks.errors import WindvaneError
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.sources.fetch import FetchResult

if TYPE_CHECKING:
    from windvane.flows.lap.gate_step import Judged


@dataclass(frozen=True)
class Challenger:
    """A registered version that wants to serve. run_id and fits: this lap's run in MLflow and fitted models for it; None and 0
    where an earlier lap made it.
    """

    version: Version
    run_id: str | None = None
    fits: int = 0


def run_lap(lap: LapContext, run: Runner, fetched: FetchResult | None = None) -> LapOutcome:
    """One pass from the source to a decided model. `fetched`: by the command line, which checks before it starts Prefect."""
    run(repair, lap)
    _, outcome = check_source(lap, run, fetched)
    return train(lap, run) if outcome is None else end(lap, run, outcome)


def repair(lap: LapContext) -> None:
    """Close what a killed lap left running, and bring MLflow's aliases and the ledger together."""
    from windvane.flows.model_promotion import reconcile_model_registry
    from windvane.flows.orchestration.reconciliation import close_abandoned_laps

    close_abandoned_laps(lap)
    if note := reconcile_model_registry(lap.project):
        lap.console.print(f"  note: {note}")


def check_source(
    lap: LapContext, run: Runner, fetched: FetchResult | None = None
) -> tuple[FetchResult, LapOutcome | None]:
    """fetch, and the earlier outcome where data, params, code and gate are as they were then; None: there is something to do."""
    fetched = run(run_fetch_step, lap, fetched)
    return fetched, run(find_stopped_outcome, lap) or run(find_unchanged_outcome, lap)


def train(lap: LapContext, run: Runner) -> LapOutcome:
    """ingest -> validate -> split, each only if DVC finds that its inputs changed; then a challenger, and what becomes of it."""
    from windvane.flows import model_promotion
    from windvane.flows.lap import data_steps
    from windvane.flows.orchestration import libraries

    run(data_steps.run_ingest_step, lap)
    run(data_steps.run_validate_step, lap)
    data_version = run(data_steps.run_split_step, lap)
    if (outcome := run(data_steps.find_no_new_rows_outcome, lap)) is not None:
        return end(lap, run, outcome)
    run(libraries.import_heavy_modules, lap.project)
    fingerprint = run(compute_fingerprint, lap, data_version)
    known = run(model_promotion.find_known_version, lap, fingerprint)
    challenger = make_challenger(lap, run, data_version, fingerprint) if known is None else Challenger(known)
    outcome = decide_promotion(lap, run, challenger)
    run(clear, lap, fingerprint)
    return end(lap, run, outcome, challenger.run_id)


def make_challenger(lap: LapContext, run: Runner, data_version: str, fingerprint: str) -> Challenger:
    """search -> evaluate -> build -> register: searched, evaluated once, stored, tried in a process of its own, explained."""
    from windvane.flows import model_promotion
    from windvane.flows.lap import model_steps, run_records
    from windvane.tasks.models.model_pipeline import limit_to_one_thread

    data = run(run_records.start_lap_run, lap, run(model_steps.load_training_data, lap, data_version, fingerprint))
    # Steps run side by side from here on, and a limit that two of them set and lift in turn would hold for neither.
    with run(model_steps.start_smoke_tester) as tester, limit_to_one_thread():
        # Beside the search, which leaves a core idle while it boosts.
        inspected = run.submit(model_steps.run_inspect_step, lap, data)
        try:
            found = run(model_steps.run_search_step, lap, data)
        finally:
            inspected.result()  # no step outlives the lap
        spec = found.best.spec
        evaluated = run(model_steps.run_evaluate_step, lap, data, spec)
        # Beside explain: the stored model is tried in a process of its own.
        building = run.submit(model_steps.run_build_step, lap, data, spec, evaluated.held)
        tested = run.submit(model_steps.run_smoke_step, lap, building, tester)
        explained = run(model_steps.run_explain_step, lap, data, found, evaluated.held)
        built = building.result()  # read first: of a failed build, smoke reports only that it never started
        tested.result()
    fits = found.fits + evaluated.fits + built.fits
    summary = run(run_records.log_lap_summary, lap, data, found, evaluated.held, explained, fits)
    return Challenger(run(model_promotion.run_register_step, lap, data, built, spec, summary), data.run_id, fits)


def decide_promotion(lap: LapContext, run: Runner, challenger: Challenger) -> LapOutcome:
    """The gate: may the challenger serve?"""
    from windvane.flows.lap import gate_step

    judged = run(gate_step.run_judge_step, lap, challenger.version)
    return (promote if judged.verdict.accepted else refuse)(lap, run, challenger, judged)


def refuse(lap: LapContext, run: Runner, challenger: Challenger, judged: Judged) -> LapOutcome:
    """A refused challenger does not serve: the champion serves on, or nothing does where there is none yet.

    The ledger keeps the verdict with its reason, and the decision that this lap carried out ends with it. The challenger stays
    registered, and its run in MLflow explains why: `windvane promote` may still let it serve, another gate judges it again without a
    fit, and as long as nothing changes laps are `unchanged`. Its model files go once `retention.versions` newer versions exist.
    From the second refusal on, each doubles the windows until the next retraining (monitoring/policy/decision.py).
    """
    from windvane.flows.lap import run_records

    outcome = run(run_records.record_lap_verdict, lap, challenger.version, judged, None, challenger.fits, run.seconds)
    run(run_records.close_run, lap, outcome)
    return outcome


def promote(lap: LapContext, run: Runner, challenger: Challenger, judged: Judged) -> LapOutcome:
    """An accepted challenger serves from the moment at which the ledger has verdict and promotion; then MLflow is updated."""
    from windvane.flows import model_promotion
    from windvane.flows.lap import run_records

    champion, new = versions.find_champion(lap.project.ledger, lap.project.name), challenger.version.version
    move = None  # it serves already, and was judged once more
    if champion is None or champion.version != new:
        move = versions.make_promotion(champion.version if champion else None, new, "lap", judged.verdict.reason)
    outcome = run(run_records.record_lap_verdict, lap, challenger.version, judged, move, challenger.fits, run.seconds)
    run(run_records.close_run, lap, outcome)
    if move is not None:
        try:
            run(model_promotion.run_promote_step, lap, move)
        except WindvaneError as e:  # the promotion is done: the ledger has it
            lap.console.print(f"  note: the alias in MLflow follows at the next lap: {e}")
    return outcome


def end(lap: LapContext, run: Runner, outcome: LapOutcome, run_id: str | None = None) -> LapOutcome:
    """Push the data where data.remote is set, and close the lap in the ledger if it is there."""
    if lap.project.settings.data.remote is not None:
        from windvane.flows.lap import push_step

        run(push_step.run_push_step, lap, run_id)
    if lap.on_record:
        run(finish_lap, lap, outcome)
    return outcome
