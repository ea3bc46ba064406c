"""A lap: from a source to a decided model, told once. Order and decisions; the work stands in the files that are named here.

`run` calls each step: as a plain function where the command line looks whether there is anything to do, as a task of Prefect in
every lap that works (flows/steps.py), as its stand-in where history is replayed (flows/relearning.py). A step returns what it
finds out, and later ones are given it. Up to `train` nothing here imports Prefect, MLflow or scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windvane.flows import fetching, sharing
from windvane.flows.lap import Lap, clear, compute_fingerprint, finish, unchanged
from windvane.flows.outcome import Outcome
from windvane.flows.runner import Runner
from windvane.ledger import versions
from windvane.tasks.errors import WindvaneError
from windvane.tasks.fetch import Fetched

if TYPE_CHECKING:
    from windvane.flows.judging import Judged
    from windvane.ledger.versions import Version


@dataclass(frozen=True)
class Challenger:
    """A registered version that wants to serve. run_id and fits: this lap's run in MLflow and fitted models for it; None and 0
    where an earlier lap made it.
    """

    version: Version
    run_id: str | None = None
    fits: int = 0


def run_lap(lap: Lap, run: Runner, fetched: Fetched | None = None) -> Outcome:
    """One pass from the source to a decided model. `fetched`: by the command line, which looks before it starts Prefect."""
    run(repair, lap)
    _, outcome = look(lap, run, fetched)
    return train(lap, run) if outcome is None else end(lap, run, outcome)


def repair(lap: Lap) -> None:
    """Close what a killed lap left running, and bring MLflow's aliases and the ledger together."""
    from windvane.flows.closing import close_abandoned
    from windvane.flows.deploying import reconcile

    close_abandoned(lap)
    if note := reconcile(lap.project):
        lap.console.say(f"  note: {note}")


def look(lap: Lap, run: Runner, fetched: Fetched | None = None) -> tuple[Fetched, Outcome | None]:
    """fetch, and the earlier outcome where data, params, code and gate are as they were then; None: there is something to do."""
    fetched = run(fetching.fetch, lap, fetched)
    return fetched, run(unchanged, lap)


def train(lap: Lap, run: Runner) -> Outcome:
    """ingest -> validate -> split, each only if DVC says that it must; then a challenger, and what becomes of it."""
    from windvane.flows import data, deploying, loading

    run(data.ingest, lap)
    run(data.validate, lap)
    data_version = run(data.split, lap)
    if (outcome := run(data.nothing_to_learn, lap)) is not None:
        return end(lap, run, outcome)
    run(loading.load, lap.project)
    mark = run(compute_fingerprint, lap, data_version)
    known = run(deploying.registered, lap, mark)
    challenger = make_challenger(lap, run, data_version, mark) if known is None else Challenger(known)
    outcome = decide(lap, run, challenger)
    run(clear, lap, mark)
    return end(lap, run, outcome, challenger.run_id)


def make_challenger(lap: Lap, run: Runner, data_version: str, mark: str) -> Challenger:
    """search -> evaluate -> build -> register: searched, evaluated once, stored, tried in a process of its own, explained."""
    from windvane.flows import deploying, inspecting, teaching, telling
    from windvane.tasks.estimators import one_thread

    lesson = run(telling.begin, lap, run(teaching.lesson, lap, data_version, mark))
    # Steps run side by side from here on, and a limit that two of them set and lift in turn would hold for neither.
    with run(teaching.tester) as tester, one_thread():
        # Beside the search, which leaves a core idle while it boosts. Rows that it refuses end the search at its next trial.
        inspected = run.beside(inspecting.inspect, lap, lesson)
        try:
            found = run(teaching.search, lap, lesson, lambda: inspecting.refuse(lap, lesson))
        finally:
            inspected.result()  # its refusal comes first; what the search says of such rows comes second
        spec = found.best.spec
        evaluated = run(teaching.evaluate, lap, lesson, spec)
        # Beside explain: the stored model is tried in a process of its own.
        building = run.beside(teaching.build, lap, lesson, spec, evaluated.held)
        tested = run.beside(teaching.smoke, lap, building, tester)
        explained = run(teaching.explain, lap, lesson, found, evaluated.held)
        built = building.result()  # asked first: of a failed build, smoke would only say that it never began
        tested.result()
    fits = found.fits + evaluated.fits + built.fits
    summary = run(telling.summary, lap, lesson, found, evaluated.held, explained, fits)
    return Challenger(run(deploying.register, lap, lesson, built, spec, summary), lesson.run_id, fits)


def decide(lap: Lap, run: Runner, challenger: Challenger) -> Outcome:
    """The gate: may the challenger serve?"""
    from windvane.flows import judging

    judged = run(judging.judge, lap, challenger.version)
    return (promote if judged.verdict.accepted else refuse)(lap, run, challenger, judged)


def refuse(lap: Lap, run: Runner, challenger: Challenger, judged: Judged) -> Outcome:
    """A refused challenger does not serve: the champion serves on, or nothing does where there is none yet.

    The ledger keeps the verdict with its reason, and the decision that this lap carried out ends with it. The challenger stays
    registered, and its run in MLflow says why: `windvane promote` may still let it serve, another gate judges it again without a
    fit, and as long as nothing changes laps are `unchanged`. Its model files go with `windvane clean` or retention.versions.
    """
    from windvane.flows import telling

    outcome = run(telling.conclude, lap, challenger.version, judged, None, challenger.fits, run.seconds)
    run(telling.close_run, lap, outcome)
    return outcome


def promote(lap: Lap, run: Runner, challenger: Challenger, judged: Judged) -> Outcome:
    """An accepted challenger serves from the moment at which the ledger has verdict and promotion; then MLflow is told."""
    from windvane.flows import deploying, telling

    champion, new = versions.champion(lap.project.ledger, lap.project.name), challenger.version.version
    move = None  # it serves already, and was judged once more
    if champion is None or champion.version != new:
        move = versions.promotion(champion.version if champion else None, new, "lap", judged.verdict.reason)
    outcome = run(telling.conclude, lap, challenger.version, judged, move, challenger.fits, run.seconds)
    run(telling.close_run, lap, outcome)
    if move is not None:
        try:
            run(deploying.promote, lap, move)
        except WindvaneError as e:  # the promotion is done: the ledger has it
            lap.console.say(f"  note: the alias in MLflow follows at the next lap: {e}")
    return outcome


def end(lap: Lap, run: Runner, outcome: Outcome, run_id: str | None = None) -> Outcome:
    """Push the data where data.remote asks for it, and close the lap in the ledger if it stands there."""
    if lap.project.settings.data.remote is not None:
        run(sharing.push, lap, run_id)
    if lap.on_record:
        run(finish, lap, outcome)
    return outcome
