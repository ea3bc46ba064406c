"""A lap in a rehearsal: the rows, sides, fits and gate of a real one, and its entries in the ledger; no DVC, MLflow or Prefect."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from flows import judging
from flows.lap import Depth
from flows.rehearsal import Rehearsal
from flows.teaching import JUDGED_BEFORE, cores, refit
from ledger import decisions, versions
from ledger.decisions import Entry
from ledger.leases import Lease
from ledger.store import now
from ledger.versions import Judgement, Version
from monitoring.history.story import Ending
from tasks import estimators, evaluation, features, history, problems, profile, sampling, search
from tasks import partition as parting
from tasks import split as splitting
from tasks.errors import InputError
from tasks.estimators import Spec
from tasks.scores import LOSS
from tasks.tables import ROW

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.gate import Verdict


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

    @property
    def taught(self) -> pd.DataFrame:
        """What the evaluated model is fitted on."""
        import pandas as pd

        return pd.concat([self.train, self.validation], ignore_index=True) if len(self.validation) else self.train


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
        sides = _sides(past, rows, champion)
        spec = first if champion is None else _again(past, sides, champion, owed)
        return _judged(past, lease, id_, come, rows, sides, depth, spec, champion)
    except InputError as e:  # as in a real lap: what was decided ends here
        decisions.finish(engine, lease, id_, "skipped", f"the lap stopped: {e}")
        if champion is None:
            raise
        return Ended("skipped", f"the lap stopped: {e}")


def _again(past: Rehearsal, sides: Sides, champion: Version, owed: Entry | None) -> Spec:
    """The champion's configuration, as a real lap refits it."""
    spec, kind = Spec.from_json(champion.facts["spec"]), problems.of(past.settings.problem.kind)
    labels = owed is not None and owed.remedy == "labels"
    return refit(past.settings, kind, sides.taught, spec, labels=labels)[0]


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
    made = Sides(train, validation, test, train)
    timed = settings.split.strategy == "time"
    return Sides(train, validation, test, history.recent(taken(rows, False), settings) if timed else made.taught)


def _judged(
    past: Rehearsal,
    lease: Lease,
    id_: str,
    come: pd.DataFrame,
    rows: pd.DataFrame,
    sides: Sides,
    depth: Depth,
    spec: Spec,
    champion: Version | None,
) -> Ended:
    """A challenger and its verdict; the model that would serve is only fitted where it will."""
    settings = past.settings
    problem, seed = settings.problem, settings.split.seed
    kind, columns = problems.of(problem.kind), features.columns(settings, profile.of(come))
    fits = 0
    if depth == "search":
        journal = past.home / f"{id_}.log"
        found = search.search(
            settings, kind, columns, sides.train, sides.validation, journal, cores(), lambda progress: None
        )
        spec, fits = found.best.spec, found.fits
    held = evaluation.held_out(
        settings, kind, columns, spec, sides.train, sides.validation, lambda: sides.test, cores()
    )
    number = len(past.records) + 1
    record = held.record
    record.insert(0, JUDGED_BEFORE, [past.judged[row] for row in record[ROW].tolist()])
    past.judged.update(record[ROW].tolist())
    past.records[number] = record
    challenger = _version(past, number, spec, columns, rows, splitting.taught_until(sides.final, settings))
    versions.add(past.ledger, lease, challenger)

    def fit(spec: Spec, taught: pd.DataFrame) -> object:
        return estimators.fit(spec, kind, columns, taught, problem.target, seed, cores(), problem.group, problem.time)

    def refitted() -> NDArray[np.float64]:
        assert champion is not None
        if champion.facts["spec"] == challenger.facts["spec"]:
            return record[LOSS].to_numpy(dtype="float64")
        return judging.losses(problem, fit(Spec.from_json(champion.facts["spec"]), sides.taught), columns, record)

    bench = judging.compared(past, challenger, champion, record, refitted)
    verdict = judging.verdict(settings, depth, record, bench, challenger, champion)
    if verdict.accepted:
        past.models[number] = fit(spec, sides.final) if settings.split.strategy == "time" else held.model
        fits += settings.split.strategy == "time"
    _conclude(past, lease, id_, challenger, verdict, champion)
    better = None if verdict.too_few or not verdict.reference else (verdict.difference or 0.0) / verdict.reference
    return Ended("promoted" if verdict.accepted else "refused", verdict.reason, fits + 1, better)


def _conclude(
    past: Rehearsal, lease: Lease, id_: str, challenger: Version, verdict: Verdict, champion: Version | None
) -> None:
    """Into the ledger: the verdict, the promotion that follows, and the end of the decision."""
    against = None if champion is None else champion.version
    judgement = Judgement(challenger.version, against, "rehearsal", verdict.accepted, verdict.to_json(), now())
    move = versions.promotion(against, challenger.version, "lap", verdict.reason) if verdict.accepted else None
    versions.decide(past.ledger, lease, judgement, move, id_)


def _version(
    past: Rehearsal, number: int, spec: Spec, columns: features.Columns, rows: pd.DataFrame, until: parting.Time
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
