"""A lap in a rehearsal: the rows, sides, fits and gate of a real one, and its entries in the ledger; no DVC, MLflow or Prefect."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from windvane.flows import judging
from windvane.flows.lap import Depth
from windvane.flows.rehearsal import Rehearsal
from windvane.flows.teaching import JUDGED_BEFORE, cores, refit
from windvane.ledger import decisions, versions
from windvane.ledger.decisions import Entry
from windvane.ledger.leases import Lease
from windvane.ledger.store import now
from windvane.ledger.versions import Judgement, Version
from windvane.monitoring.history.story import Ending
from windvane.tasks import estimators, evaluation, features, history, problems, profile, sampling, search
from windvane.tasks import partition as parting
from windvane.tasks import split as splitting
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import Spec
from windvane.tasks.scores import LOSS
from windvane.tasks.tables import ROW

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.evaluation import HeldOut
    from windvane.tasks.features import Columns
    from windvane.tasks.gate import Verdict
    from windvane.tasks.problems import Kind


@dataclass(frozen=True)
class Ended:
    """What a lap came to, why, how many models were fitted, and by which share its model was better where it was judged."""

    ending: Ending
    reason: str
    fits: int = 0
    better: float | None = None


@dataclass(frozen=True)
class Sides:
    """Rows that teach, tune and judge, and all that teach in the end."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    final: pd.DataFrame


def lap(past: Rehearsal, lease: Lease, owed: Entry | None, depth: Depth, first: Spec) -> Ended:
    """Teach on what is known at the rehearsal's present, judge, and promote or refuse. `owed`: what it carries out; None: the
    first lap of all, whose configuration is `first` unless it searches.
    """
    engine, id_ = past.ledger, uuid4().hex
    if owed is not None:
        decisions.tell(engine, owed.id)
        claimed = decisions.claim(engine, lease, owed.id, id_)
        assert claimed is not None
    champion = versions.champion(engine, past.name)
    try:
        come, rows = past.learned()
        if champion is not None and _nothing_new(rows, champion, past):
            said = f"no new rows since version {champion.version} was taught"
            decisions.finish(engine, lease, id_, "skipped", f"no new rows: {said}")
            return Ended("skipped", said)
        taught = _Lesson(past, come, rows, _sides(past, rows, champion))
        spec, fits = first if champion is None else taught.again(champion, owed), 1
        if depth == "search":
            found = taught.search(past.home / f"{id_}.log")
            spec, fits = found.best.spec, found.fits + 1
        challenger, held = _evaluated(taught, spec)
        versions.add(engine, lease, challenger)
        verdict = _judged(taught, challenger, champion, depth)
        if verdict.accepted:  # only now is the model fitted that will serve: of the others nobody would ever ask
            refits = past.settings.split.strategy == "time"
            past.models[challenger.version] = taught.fit(spec, taught.sides.final) if refits else held.model
            fits += refits
        _conclude(past, lease, id_, challenger, verdict, champion)
    except InputError as e:  # as in a real lap: what was decided ends here
        decisions.finish(engine, lease, id_, "skipped", f"the lap stopped: {e}")
        if champion is None:
            raise
        return Ended("skipped", f"the lap stopped: {e}")
    better = None if verdict.too_few or not verdict.reference else (verdict.difference or 0.0) / verdict.reference
    return Ended("promoted" if verdict.accepted else "refused", verdict.reason, fits, better)


@dataclass(frozen=True)
class _Lesson:
    """What a challenger is taught from: all rows that have come, those with a label, and their sides."""

    past: Rehearsal
    come: pd.DataFrame
    rows: pd.DataFrame
    sides: Sides

    @cached_property
    def kind(self) -> Kind:
        return problems.of(self.past.settings.problem.kind)

    @cached_property
    def columns(self) -> Columns:
        return features.columns(self.past.settings, profile.of(self.come))

    def fit(self, spec: Spec, taught: pd.DataFrame) -> Any:
        return estimators.taught(self.past.settings, spec, self.kind, self.columns, taught, cores())

    def again(self, champion: Version, owed: Entry | None) -> Spec:
        """The champion's configuration, as a real lap refits it."""
        spec, labels = Spec.from_json(champion.facts["spec"]), owed is not None and owed.remedy == "labels"
        rows = _together(self.sides.train, self.sides.validation)
        return refit(self.past.settings, self.kind, rows, spec, labels=labels)[0]

    def search(self, journal: Path) -> search.Found:
        train, validation = self.sides.train, self.sides.validation
        return search.search(
            self.past.settings, self.kind, self.columns, train, validation, journal, cores(), lambda progress: None
        )


def _nothing_new(rows: pd.DataFrame, champion: Version, past: Rehearsal) -> bool:
    until = str(champion.facts["taught_until"])
    return len(rows) <= champion.facts["rows"] and str(splitting.taught_until(rows, past.settings)) <= until


def _sides(past: Rehearsal, rows: pd.DataFrame, champion: Version | None) -> Sides:
    """The sides that a lap would cut, large ones sampled as it samples them."""
    settings, rows = past.settings, rows.reset_index(drop=True)
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
    if settings.split.strategy == "time":
        return Sides(train, validation, test, history.recent(taken(rows, False), settings))
    return Sides(train, validation, test, _together(train, validation))


def _together(train: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """What the evaluated model is fitted on."""
    import pandas as pd

    return pd.concat([train, validation], ignore_index=True) if len(validation) else train


def _evaluated(taught: _Lesson, spec: Spec) -> tuple[Version, HeldOut]:
    """A challenger with its held-out record, not yet in the ledger."""
    past, sides = taught.past, taught.sides
    held = evaluation.held_out(
        past.settings, taught.kind, taught.columns, spec, sides.train, sides.validation, lambda: sides.test, cores()
    )
    keys = held.record[ROW].tolist()
    held.record.insert(0, JUDGED_BEFORE, [past.judged[row] for row in keys])
    past.judged.update(keys)
    number = len(past.records) + 1
    past.records[number] = held.record
    until = splitting.taught_until(sides.final, past.settings)
    return _version(past, number, spec, taught.columns, taught.rows, until), held


def _judged(taught: _Lesson, challenger: Version, champion: Version | None, depth: Depth) -> Verdict:
    """The gate's word, on the evidence of a real lap."""
    past = taught.past
    record = past.record(challenger)

    def refitted() -> NDArray[np.float64]:
        assert champion is not None
        if champion.facts["spec"] == challenger.facts["spec"]:
            return record[LOSS].to_numpy(dtype="float64")
        rows = _together(taught.sides.train, taught.sides.validation)
        model = taught.fit(Spec.from_json(champion.facts["spec"]), rows)
        return judging.losses(past.settings.problem, model, taught.columns, record)

    bench = judging.compared(past, challenger, champion, record, refitted)
    return judging.verdict(past.settings, depth, record, bench, challenger, champion)


def _conclude(
    past: Rehearsal, lease: Lease, id_: str, challenger: Version, verdict: Verdict, champion: Version | None
) -> None:
    """Into the ledger: the verdict, the promotion that follows, and the end of the decision."""
    against = None if champion is None else champion.version
    judgement = Judgement(challenger.version, against, "rehearsal", verdict.accepted, verdict.to_json(), now())
    move = versions.promotion(against, challenger.version, "lap", verdict.reason) if verdict.accepted else None
    versions.decide(past.ledger, lease, judgement, move, id_)


def _version(
    past: Rehearsal, number: int, spec: Spec, columns: Columns, rows: pd.DataFrame, until: parting.Time
) -> Version:
    settings = past.settings
    facts = {
        "spec": spec.to_json(),
        "columns": asdict(columns),
        "taught_until": until,
        "sides": {**settings.split.model_dump(exclude={"folds"}), "group": settings.problem.group, "key": []},
        "kind": settings.problem.kind,
        "rows": len(rows),
    }
    mark = f"rehearsal-{number}"
    return Version(number, mark, mark, "", "", "", mark, None if until is None else str(until), facts, now())
