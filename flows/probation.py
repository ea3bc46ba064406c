"""A new champion's probation: is it worse than the version that it replaced would have been on the same rows?

Once the probation is over, the same comparison says what the retraining really saved.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from windvane.flows.production import Production
from windvane.ledger import decisions, versions, windows
from windvane.ledger.versions import Version
from windvane.ledger.windows import Seen
from windvane.monitoring.limits import Limits, Probation

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

# Moves of the champion that a version has to prove itself after; one that is put back has done so before.
_ON_TRIAL = ("lap",)


def so_far(production: Production, seen: Seen, limits: Limits) -> Probation | None:
    """The comparison over the champion's windows up to `seen`; None: it is not on probation (any more)."""
    project = production.project
    promotion = versions.last_promotion(project.ledger, project.name)
    if promotion is None or promotion.cause not in _ON_TRIAL or promotion.from_version is None or not limits.probation:
        return None
    mine = [s for s in windows.of(project.ledger, project.name, seen.version) if s.start <= seen.start]
    if sum(s.closed for s in mine[:-1]) >= limits.probation:
        return None
    old = versions.numbered(project.ledger, project.name, promotion.from_version)
    if old is None:
        return None
    # As many looks as windows, and about one more at each while it is open.
    level = limits.false_alarms / (2 * limits.probation)
    found, saved = _compared(production, mine, old, level)
    if saved is not None and sum(s.closed for s in mine) >= limits.probation:
        _realise(production, seen.version, saved * len(mine))
    return found


def errors(production: Production) -> tuple[float | None, float | None]:
    """Of the champion's loss on its own held-out rows: the mean's standard error, and by how much windows differ there.

    None each where it cannot be told; the second needs five windows on the calendar.
    """
    from windvane.ledger.moments import moment
    from windvane.tasks import history
    from windvane.tasks.resampling import FEWEST, spread, units
    from windvane.tasks.scores import LOSS

    record, settings = production.record, production.project.settings
    loss = record[LOSS].to_numpy(dtype="float64")
    if not len(loss):
        return None, None
    mean = spread((loss - loss.mean()) / len(loss), units(record, loss, settings.problem))
    time, cut = settings.problem.time, settings.monitor.cut
    if time is None or cut.rows is not None:
        return mean, None
    starts = [history.begin(datetime.fromisoformat(moment(t)), cut) for t in record[time].tolist()]
    means = record[LOSS].groupby(starts).mean()
    return mean, float(means.std()) if len(means) >= FEWEST else None


def _compared(production: Production, seen: list[Seen], old: Version, level: float) -> tuple[Probation, float | None]:
    """New against old on the labelled rows of some windows; and what a row saved, in mean losses of the old one's record."""
    import pandas as pd

    from windvane.monitoring import answers
    from windvane.monitoring.windows import Place
    from windvane.tasks import problems
    from windvane.tasks.gate import MIN_ROWS
    from windvane.tasks.paired import MIN_BLOCKS, paired

    problem = production.project.settings.problem
    kind = problems.of(problem.kind)
    counts = [production.count(Place(s.start, s.end, s.closed)) for s in seen]
    frame = pd.concat([production.frame(count) for count in counts], ignore_index=True)
    frame = frame[answers.labelled(frame, problem.target)].reset_index(drop=True)
    if len(frame) < MIN_ROWS:
        return Probation(old.version, len(frame), None, None, "too few labelled rows"), None
    new = answers.losses(frame, production.record, kind, problem)
    theirs, how = _old_losses(production, frame, old, kind)
    if theirs is None:
        return _against_record(production, frame, new, old, how)
    parts = answers.parts(frame, problem)
    if parts[0].count < MIN_BLOCKS or theirs.mean() <= 0:
        return Probation(old.version, len(frame), None, None, "too few independent rows"), None
    bound = paired(new - theirs, parts, 1 - level)
    scale, own = float(theirs.mean()), _own_loss(production, old)
    saved = -float(bound.mean) / own if own else None
    return Probation(old.version, len(frame), float(bound.mean) / scale, float(bound.low) / scale, how), saved


def _old_losses(
    production: Production, frame: pd.DataFrame, old: Version, kind: Any
) -> tuple[NDArray[np.float64] | None, str]:
    """What the old version would have lost on the same rows; None where their inputs are not all stored."""
    from windvane.monitoring import frames
    from windvane.tasks.errors import InputError
    from windvane.tasks.features import conform

    project, problem = production.project, production.project.settings.problem
    columns = frames.columns_of(old.facts, ())
    if (
        not set(columns.names) <= set(frame)
        or set(columns.names) & set(production.hidden)
        or not frame[frames.STORED].all()
    ):
        return None, "against its own record, since the inputs are not stored"
    try:
        said = kind.predict(project.model(old), conform(frame, columns, "the window"))
    except InputError:
        return None, "against its own record, since it cannot read the inputs"
    return kind.loss(kind.truth(frame[problem.target]), said, problem.headline), "on the same inputs"


def _against_record(
    production: Production, frame: pd.DataFrame, new: NDArray[np.float64], old: Version, how: str
) -> tuple[Probation, float | None]:
    from windvane.monitoring import answers, quality
    from windvane.tasks.scores import LOSS

    problem = production.project.settings.problem
    record = production.project.record(old)
    own = record[LOSS].to_numpy(dtype="float64")
    low, _ = quality.difference(new, own, answers.parts(frame, problem), answers.parts(record, problem))
    scale = float(own.mean())
    excess = float(new.mean()) / scale - 1 if scale > 0 else None
    return Probation(
        old.version, len(frame), excess, None if low is None else low / scale, how
    ), None if excess is None else -excess


def _own_loss(production: Production, version: Version) -> float:
    from windvane.tasks.scores import LOSS

    return float(production.project.record(version)[LOSS].mean())


def _realise(production: Production, version: int, gain: float) -> None:
    engine, name = production.project.ledger, production.project.name
    for one in decisions.listed(engine, name, acting=True):
        if one.made == version and one.realised is None:
            decisions.realise(engine, one.id, gain)
