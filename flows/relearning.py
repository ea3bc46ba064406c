"""A lap in a rehearsal: that of flows/training.py, with the rows, sides, fits and gate of a real one, and its entries in the ledger.

For what DVC, MLflow and Prefect do in a real lap there are stand-ins here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from windvane.flows import data, deploying, fetching, inspecting, judging, loading, sharing, teaching, telling, training
from windvane.flows.console import Silent
from windvane.flows.judging import Judged
from windvane.flows.lap import Depth, Lap, claimed, clear, compute_fingerprint, finish, nothing_new, unchanged
from windvane.flows.outcome import Outcome
from windvane.flows.rehearsal import Rehearsal
from windvane.flows.runner import Direct
from windvane.flows.teaching import JUDGED_BEFORE, Evaluated, Lesson, cores, refit, taught_rows
from windvane.ledger import decisions, versions
from windvane.ledger.decisions import Entry
from windvane.ledger.leases import Lease
from windvane.ledger.store import now
from windvane.ledger.versions import Version
from windvane.monitoring.history.story import Ending
from windvane.tasks import estimators, evaluation, features, fingerprint, history, problems, profile, sampling
from windvane.tasks import partition as parting
from windvane.tasks import search as searching
from windvane.tasks import split as splitting
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import Spec
from windvane.tasks.fetch import Fetched
from windvane.tasks.scores import LOSS
from windvane.tasks.tables import ROW

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.evaluation import HeldOut


@dataclass(frozen=True)
class Ended:
    """What a lap came to, why, how many models were fitted, and by which share its model was better where it was judged."""

    ending: Ending
    reason: str
    fits: int = 0
    better: float | None = None


def lap(past: Rehearsal, lease: Lease, owed: Entry | None, depth: Depth, first: Spec) -> Ended:
    """Train on what is known at the rehearsal's present, judge, and promote or refuse. `owed`: what it carries out; None: the
    first lap of all, whose configuration is `first` unless it searches.
    """
    one: Lap | None = Lap(past, lease, "replay", depth, Silent())
    if owed is not None:
        decisions.tell(past.ledger, owed.id)
        one = claimed(one, owed.id) if one is not None else None
    assert one is not None
    one = replace(one, depth=depth, on_record=True)
    try:
        outcome = training.run_lap(one, Direct(_Steps(past, first).instead()))
    except InputError as e:  # as in a real lap: what was decided ends here
        decisions.finish(past.ledger, lease, one.id, "skipped", f"the lap stopped: {e}")
        if owed is None:
            raise
        return Ended("skipped", f"the lap stopped: {e}")
    finally:
        past.work.clear()
    if outcome.verdict == "unchanged":
        return Ended("skipped", outcome.reason)
    judged = versions.judged(past.ledger, past.name, outcome.version, fingerprint.gate(past.settings))
    assert judged is not None
    verdict = judged.verdict
    better = (
        None
        if verdict["too_few"] or not verdict["reference"]
        else (verdict["difference"] or 0.0) / verdict["reference"]
    )
    return Ended("promoted" if judged.accepted else "refused", verdict["reason"], outcome.fits, better)


@dataclass(frozen=True, kw_only=True)
class _Lesson(Lesson):
    """With the rows that judge, all that train the model that would serve, and all that have a label."""

    test: pd.DataFrame
    final: pd.DataFrame
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Built:
    """The evaluated model: the one that would serve is fitted only if it may (judge)."""

    held: HeldOut
    fits: int = 0


@dataclass(frozen=True)
class _Steps:
    """The stand-ins. What a real lap keeps in files, in the work folder and in MLflow, the rehearsal keeps in memory."""

    past: Rehearsal
    first: Spec

    def instead(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Step -> what is called in its place; the ledger's part is the same."""
        idle: tuple[Callable[..., Any], ...] = (
            training.repair,
            unchanged,
            data.ingest,
            data.validate,
            loading.load,
            deploying.registered,
            inspecting.inspect,
            teaching.smoke,
            teaching.explain,
            telling.close_run,
            deploying.promote,
            sharing.push,
        )
        return {
            **dict.fromkeys(idle, _nothing),
            fetching.fetch: lambda *_: Fetched(False, 0, 0, None),
            data.split: lambda _: "",
            data.nothing_to_learn: self.nothing_to_learn,
            compute_fingerprint: self.fingerprint,
            teaching.lesson: self.lesson,
            telling.begin: lambda _, lesson: lesson,
            teaching.tester: nullcontext,
            teaching.search: self.search,
            teaching.evaluate: self.evaluate,
            teaching.build: lambda _lap, _lesson, _spec, held: _Built(held),
            telling.summary: _summary,
            deploying.register: self.register,
            judging.judge: self.judge,
            telling.conclude: telling.conclude,
            clear: lambda _, mark: self.past.work.pop(mark),
            finish: _finish,
        }

    def nothing_to_learn(self, lap: Lap) -> Outcome | None:
        """The end of a lap where no row is new to the champion; else None."""
        rows, champion = self.past.learned()[1], versions.champion(self.past.ledger, self.past.name)
        if champion is None or len(rows) > champion.facts["rows"]:
            return None
        until = str(splitting.taught_until(rows, self.past.settings))
        return nothing_new(lap, champion) if until <= str(champion.facts["taught_until"]) else None

    def fingerprint(self, _: Lap, __: str) -> str:
        """A name of its own for each version."""
        return f"rehearsal-{len(self.past.records) + 1}"

    def lesson(self, _: Lap, data_version: str, mark: str) -> _Lesson:
        """The sides that a lap would cut of what has come, large ones sampled as it samples them."""
        past, settings = self.past, self.past.settings
        come, labelled = past.learned()
        rows, champion = labelled.reset_index(drop=True), versions.champion(past.ledger, past.name)
        parted = parting.divide(rows, settings, champion.facts["taught_until"] if champion else None)

        def taken(side: pd.DataFrame, judging: bool) -> pd.DataFrame:
            import polars as pl

            most, side = sampling.most(settings, judging=judging), side.reset_index(drop=True)
            if most is None or len(side) <= most:
                return side
            known = pl.from_pandas(side[sampling.columns(settings)])
            return side.iloc[sampling.pick(known, settings, most, newest=not judging)].reset_index(drop=True)

        train = history.recent(taken(rows[parted.train], False), settings)
        validation, test = taken(rows[parted.validation], True), taken(rows[parted.test], True)
        columns, kind = features.columns(settings, profile.of(come)), problems.of(settings.problem.kind)
        by_time = settings.split.strategy == "time"
        lesson = Lesson(mark, data_version, past.home, train, validation, columns, kind, cores())
        final = history.recent(taken(rows, False), settings) if by_time else taught_rows(lesson)
        past.work[mark] = _Lesson(**vars(lesson), test=test, final=final, rows=labelled)
        return past.work[mark]

    def search(self, lap: Lap, lesson: _Lesson, _: Callable[[], None]) -> searching.Found:
        """A search as it is, or the configuration to refit, which nothing has to be fitted for."""
        settings = self.past.settings
        if lap.depth == "search":
            journal = self.past.home / f"{lap.id}.log"
            return searching.search(
                settings, lesson.kind, lesson.columns, lesson.train, lesson.validation, journal, lesson.cores, _nothing
            )
        champion, spec = versions.champion(self.past.ledger, self.past.name), self.first
        if champion is not None:
            before = Spec.from_json(champion.facts["spec"])
            spec, _said = refit(settings, lesson.kind, taught_rows(lesson), before, labels=lap.remedy == "labels")
        only = searching.Result(spec.candidate, spec, {}, {}, (), 0.0)
        return searching.Found((only,), only, None, 0)

    def evaluate(self, _: Lap, lesson: _Lesson, spec: Spec) -> Evaluated:
        """The held-out record, with how often its rows have judged before."""
        held = evaluation.held_out(
            self.past.settings,
            lesson.kind,
            lesson.columns,
            spec,
            lesson.train,
            lesson.validation,
            lambda: lesson.test,
            lesson.cores,
        )
        keys = held.record[ROW].tolist()
        held.record.insert(0, JUDGED_BEFORE, [self.past.judged[row] for row in keys])
        self.past.judged.update(keys)
        return Evaluated(held, 1)

    def register(self, lap: Lap, lesson: _Lesson, built: _Built, spec: Spec, summary: dict[str, Any]) -> Version:
        """A version in the rehearsal's ledger; its record and model in memory."""
        past, settings = self.past, self.past.settings
        until, number = splitting.taught_until(lesson.final, settings), len(past.records) + 1
        facts = {
            "spec": spec.to_json(),
            "columns": asdict(lesson.columns),
            "taught_until": until,
            "sides": {**settings.split.model_dump(exclude={"folds"}), "group": settings.problem.group, "key": []},
            "metric": settings.problem.headline,
            "kind": settings.problem.kind,
            "rows": len(lesson.rows),
            "summary": summary,
        }
        taught_until = None if until is None else str(until)
        version = Version(number, lesson.mark, lesson.mark, "", "", "", lesson.mark, taught_until, facts, now())
        past.records[number], past.models[number] = built.held.record, built.held.model
        versions.add(past.ledger, lap.lease, version)
        return version

    def judge(self, lap: Lap, challenger: Version) -> Judged:
        """The gate's word, on the evidence of a real lap; and then the model that will serve."""
        past, lesson, number = self.past, self.past.work[challenger.fingerprint], challenger.version
        against, record = judging.opponent(lap, challenger), past.record(challenger)

        def refitted() -> tuple[NDArray[np.float64], int]:
            assert against is not None
            if against.facts["spec"] == challenger.facts["spec"]:
                return record[LOSS].to_numpy(dtype="float64"), 0
            model = self._fit(lesson, Spec.from_json(against.facts["spec"]), taught_rows(lesson))
            return judging.losses(past.settings.problem, model, lesson.columns, record), 1

        bench = judging.compared(past, challenger, against, record, refitted)
        verdict, fits = judging.verdict(past.settings, lap.depth, record, bench, challenger, against), bench.fits
        if not verdict.accepted:
            del past.models[number]
        elif past.settings.split.strategy == "time":  # only now: of the others nobody would ever ask
            past.models[number] = self._fit(lesson, Spec.from_json(challenger.facts["spec"]), lesson.final)
            fits += 1
        return Judged(verdict, None if against is None else against.version, fits)

    def _fit(self, lesson: Lesson, spec: Spec, rows: pd.DataFrame) -> Any:
        return estimators.taught(self.past.settings, spec, lesson.kind, lesson.columns, rows, lesson.cores)


def _nothing(*_: Any) -> None:
    """A step that has nothing to do in a rehearsal."""


def _summary(_lap: Lap, _lesson: Lesson, found: searching.Found, *_: Any) -> dict[str, Any]:
    """The part of an outcome that nobody reads here."""
    return {"candidates": [], "chosen": found.best.candidate, "test": None, "interval": [None, None], "fit": ""}


def _finish(lap: Lap, outcome: Outcome) -> None:
    """The end of a decision for which there was nothing to learn."""
    if lap.decision is not None:
        decisions.finish(lap.project.ledger, lap.lease, lap.id, "skipped", f"no new rows: {outcome.reason}")
