"""Judging a challenger against the champion on rows that neither was fitted or tuned on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from windvane.flows.lap import Depth, Lap
from windvane.flows.project import Project
from windvane.flows.teaching import JUDGED_BEFORE, cores, lesson, taught_rows
from windvane.ledger import versions
from windvane.ledger.failpoints import reached
from windvane.ledger.versions import Version
from windvane.tasks import estimators, features, gate, problems, split
from windvane.tasks.errors import WindvaneError
from windvane.tasks.gate import Evidence, Verdict
from windvane.tasks.scores import BASELINE_LOSS, LOSS
from windvane.tasks.tables import ROW, read_parquet, write_parquet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.settings import Problem, Settings


@dataclass(frozen=True)
class Judged:
    """The gate's verdict, the version that the challenger was compared with (None: the baseline), and fits for the comparison."""

    verdict: Verdict
    against: int | None
    fits: int = 0


@dataclass(frozen=True)
class Bench:
    """The losses to compare with: per record row (n,), on which rows they count, and how they came about."""

    loss: NDArray[np.float64]
    common: NDArray[np.bool_]
    how: str
    # Models fitted for it now.
    fits: int = 0


def judge(lap: Lap, challenger: Version) -> Judged:
    """The gate's verdict on a registered version."""
    lap.console.working("judge")
    reached("judge: begin")
    try:
        record = lap.project.record(challenger)
    except FileNotFoundError as e:
        raise WindvaneError(
            f"version {challenger.version} cannot be judged: its held-out predictions are gone ({e}). Restore them from a backup"
        ) from None
    against = opponent(lap, challenger)
    bench = _remembered(lap, challenger, against, record)
    if bench is None:
        bench = compared(
            lap.project,
            challenger,
            against,
            record,
            lambda: _refitted(lap, challenger, cast("Version", against), record),
        )
    reached("judge: compared")
    _remember(lap, challenger, against, record, bench)
    reached("judge: remembered")
    told = verdict(lap.project.settings, lap.depth, record, bench, challenger, against)
    return Judged(told, against.version if against else None, bench.fits)


def verdict(
    settings: Settings, depth: Depth, record: pd.DataFrame, bench: Bench, challenger: Version, against: Version | None
) -> Verdict:
    """What the gate says of a challenger's record (n rows) beside a bench."""
    rows, problem = record[bench.common], settings.problem
    evidence = Evidence(
        challenger=rows[LOSS].to_numpy(dtype="float64"),
        reference=bench.loss[bench.common],
        keys=rows[ROW].to_numpy(dtype="int64"),
        time=rows[problem.time].to_numpy() if problem.time else None,
        group=rows[problem.group].to_numpy() if problem.group else None,
        slices={name: rows[name].to_numpy() for name in settings.gate.slices},
        loss=problems.of(problem.kind).loss_name(problem.headline),
        champion=against is not None,
    )
    rule = gate.resolve(settings.gate.rule, depth)
    told = gate.judge(evidence, rule, settings.gate.confidence, settings.gate.margin)
    return replace(told, reason="; ".join([told.reason, *_how(bench, rows, challenger, against)]))


def opponent(lap: Lap, challenger: Version) -> Version | None:
    """Whom the challenger must beat: the champion; if it serves itself, the one that it took over from."""
    engine, name = lap.project.ledger, lap.project.name
    champion = versions.champion(engine, name)
    if champion is None or champion.version != challenger.version:
        return champion
    earlier = versions.before(engine, name, challenger.version)
    return None if earlier is None else versions.numbered(engine, name, earlier)


def compared(
    project: Project,
    challenger: Version,
    against: Version | None,
    record: pd.DataFrame,
    refitted: Callable[[], tuple[NDArray[np.float64], int]],
) -> Bench:
    """The losses of whom the challenger is compared with; `refitted`: those of its configuration on the challenger's rows, and
    how many models were fitted for them.
    """
    import numpy as np

    if against is None:
        return Bench(record[BASELINE_LOSS].to_numpy(dtype="float64"), np.ones(len(record), dtype=bool), "")
    problem = project.settings.problem
    common = _unseen(challenger, against, record, problem.time)
    learned = features.Columns(**{k: tuple(v) for k, v in against.facts["columns"].items()})
    if int(common.sum()) >= gate.MIN_ROWS and set(learned.names) <= set(record.columns):
        return Bench(losses(problem, project.model(against), learned, record), common, "rows new to both")
    loss, fits = refitted()
    how = "both configurations refitted on the same rows, too few being new to both"
    return Bench(loss, np.ones(len(record), dtype=bool), how, fits)


def _unseen(challenger: Version, champion: Version, record: pd.DataFrame, time: str | None) -> NDArray[np.bool_]:
    """Which record rows the champion was neither fitted nor tuned on. In doubt: none."""
    import numpy as np
    import pandas as pd

    mine, theirs = challenger.facts["sides"], champion.facts["sides"]
    until = champion.facts["taught_until"]
    if theirs["strategy"] != "time" and mine == theirs:
        return np.ones(len(record), dtype=bool)  # sticky sides: a test row was a test row then
    if time is None or until is None or champion.facts["sides"]["strategy"] != "time":
        return np.zeros(len(record), dtype=bool)
    limit = pd.Timestamp(until) if isinstance(until, str) else until
    return (record[time] > limit).to_numpy(dtype=bool)


def losses(problem: Problem, model: Any, columns: features.Columns, rows: pd.DataFrame) -> NDArray[np.float64]:
    """A model's loss (n,) on held-out rows."""
    kind = problems.of(problem.kind)
    said = kind.predict(model, features.conform(rows, columns, "the held-out rows"))
    return kind.loss(kind.truth(rows[problem.target]), said, problem.headline)


def _refitted(
    lap: Lap, challenger: Version, champion: Version, record: pd.DataFrame
) -> tuple[NDArray[np.float64], int]:
    """The champion's configuration and history, fitted on the rows that the challenger's evaluation had before it."""
    settings = lap.project.settings
    history = champion.facts.get("history", settings.retrain.history)  # versions before this fact: as now
    if champion.facts["spec"] == challenger.facts["spec"] and history == settings.retrain.history:
        return record[LOSS].to_numpy(dtype="float64"), 0  # the same configuration on the same rows is the same model
    taught = lesson(lap, challenger.data_version, challenger.fingerprint)
    theirs = settings.model_copy(update={"retrain": settings.retrain.model_copy(update={"history": history})})
    train, validation = split.sides(taught.root, theirs)
    rows = taught_rows(replace(taught, train=train, validation=validation))
    spec = estimators.Spec.from_json(champion.facts["spec"])
    model = estimators.taught(theirs, spec, taught.kind, taught.columns, rows, cores())
    return losses(settings.problem, model, taught.columns, record), 1


def _how(bench: Bench, rows: pd.DataFrame, challenger: Version, against: Version | None) -> list[str]:
    """Which rows judged, for the sentence of the verdict."""
    again = int((rows[JUDGED_BEFORE] > 0).sum())
    told = [f"compared with version {against.version} on {bench.how}"] if against else []
    if (newest := challenger.facts["spec"].get("balance", {}).get("newest")) is not None:
        told.append(f"its classes are weighted as frequent as in the newest window of labels ({newest})")
    return told + ([f"{again:,} of the rows judged earlier laps too"] if again else [])


def _name(against: Version | None) -> str:
    return f"judgement-against-{against.version if against else 'baseline'}.parquet"


def _remember(lap: Lap, challenger: Version, against: Version | None, record: pd.DataFrame, bench: Bench) -> None:
    """Keep the paired losses with the challenger's run: another gate judges them again without refitting."""
    kept = record[[ROW, LOSS, JUDGED_BEFORE]].assign(_reference_loss=bench.loss, _common=bench.common, _how=bench.how)
    path = lap.folder(challenger.fingerprint) / _name(against)
    write_parquet(kept, path)
    lap.project.tracker.store(challenger.run_id, path)


def _remembered(lap: Lap, challenger: Version, against: Version | None, record: pd.DataFrame) -> Bench | None:
    """The paired losses of an earlier judgement against the same champion, or None."""
    if not lap.project.tracker.holds(challenger.run_id, _name(against)):
        return None
    kept = read_parquet(lap.project.artifact(challenger, _name(against)))
    if not kept[ROW].equals(record[ROW]):
        return None
    return Bench(kept["_reference_loss"].to_numpy(), kept["_common"].to_numpy(dtype=bool), str(kept["_how"].iloc[0]))
