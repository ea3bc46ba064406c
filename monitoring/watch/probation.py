"""The probation of a new champion: is it worse than the version it replaced would have been on the same rows?
Afterwards the same comparison says what the retraining saved.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from windvane.ledger import decisions, versions, windows
from windvane.ledger.versions import Version
from windvane.ledger.windows import WindowRecord
from windvane.monitoring.records import DecisionLimits, ProbationResult
from windvane.monitoring.watch.production import Production

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

# Moves of the champion that a version has to prove itself after; one that is put back has done so before.
_PROBATION_CAUSES = ("lap",)


def compare_on_probation(production: Production, seen: WindowRecord, limits: DecisionLimits) -> ProbationResult | None:
    """The comparison over the champion's windows up to `seen`; None: it is not on probation (any more)."""
    project = production.project
    promotion = versions.find_last_promotion(project.ledger, project.name)
    if (
        promotion is None
        or promotion.cause not in _PROBATION_CAUSES
        or promotion.from_version is None
        or not limits.probation
    ):
        return None
    mine = [s for s in windows.list_windows(project.ledger, project.name, seen.version) if s.start <= seen.start]
    if sum(s.closed for s in mine[:-1]) >= limits.probation:
        return None
    old = versions.find_version(project.ledger, project.name, promotion.from_version)
    if old is None:
        return None
    # As many looks as windows, and about one more at each while it is open.
    level = limits.false_alarms / (2 * limits.probation)
    found, saved = _compare_versions(production, mine, old, level)
    if saved is not None and sum(s.closed for s in mine) >= limits.probation:
        _record_realised_gain(production, seen.version, saved * len(mine))
    return found


def estimate_reference_errors(production: Production) -> tuple[float | None, float | None]:
    """Of the champion's loss on its own held-out rows: the mean's standard error, and by how much windows differ there.

    None each where it cannot be told; the second needs five windows on the calendar.
    """
    from windvane.ledger.database import to_timestamp
    from windvane.tasks.evaluation.intervals import MIN_UNITS, estimate_standard_error, find_resampling_units
    from windvane.tasks.evaluation.scores import LOSS_COLUMN
    from windvane.tasks.split import time_windows

    record, settings = production.record, production.project.settings
    loss = record[LOSS_COLUMN].to_numpy(dtype="float64")
    if not len(loss):
        return None, None
    mean = estimate_standard_error(
        (loss - loss.mean()) / len(loss), find_resampling_units(record, loss, settings.problem)
    )
    time, cut = settings.problem.time, settings.monitor.cut
    if time is None or cut.rows is not None:
        return mean, None
    starts = [
        time_windows.find_window_start(datetime.fromisoformat(to_timestamp(t)), cut) for t in record[time].tolist()
    ]
    means = record[LOSS_COLUMN].groupby(starts).mean()
    return mean, float(means.std()) if len(means) >= MIN_UNITS else None


def _compare_versions(
    production: Production, seen: list[WindowRecord], old: Version, level: float
) -> tuple[ProbationResult, float | None]:
    """New against old on the labelled rows of some windows; and what a row saved, in mean losses of the old one's record."""
    import pandas as pd

    from windvane.monitoring import window_frames
    from windvane.monitoring.watch.windows import WindowSpan
    from windvane.tasks.gate.block_test import MIN_BLOCKS, bound_paired_difference
    from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS
    from windvane.tasks.models.problem_types import definitions

    problem = production.project.settings.problem
    kind = definitions.load_problem_type(problem.kind)
    counts = [production.count(WindowSpan(s.start, s.end, s.closed)) for s in seen]
    frame = pd.concat([production.frame(count) for count in counts], ignore_index=True)
    frame = frame[window_frames.mask_labelled(frame, problem.target)].reset_index(drop=True)
    if len(frame) < MIN_JUDGED_ROWS:
        return ProbationResult(old.version, len(frame), None, None, "too few labelled rows"), None
    new = window_frames.compute_frame_losses(frame, production.record, kind, problem)
    theirs, how = _compute_old_losses(production, frame, old, kind)
    if theirs is None:
        return _compare_with_record(production, frame, new, old, how)
    parts = window_frames.form_frame_blocks(frame, problem)
    if parts[0].count < MIN_BLOCKS or theirs.mean() <= 0:
        return ProbationResult(old.version, len(frame), None, None, "too few independent rows"), None
    bound = bound_paired_difference(new - theirs, parts, 1 - level)
    scale, own = float(theirs.mean()), _read_mean_loss(production, old)
    saved = -float(bound.mean) / own if own else None
    return ProbationResult(old.version, len(frame), float(bound.mean) / scale, float(bound.low) / scale, how), saved


def _compute_old_losses(
    production: Production, frame: pd.DataFrame, old: Version, kind: Any
) -> tuple[NDArray[np.float64] | None, str]:
    """What the old version would have lost on the same rows; None where their inputs are not all stored."""
    from windvane.monitoring import window_frames
    from windvane.tasks.errors import InputError
    from windvane.tasks.models.features import conform_frame

    project, problem = production.project, production.project.settings.problem
    columns = window_frames.read_version_columns(old.facts, ())
    if (
        not set(columns.names) <= set(frame)
        or set(columns.names) & set(production.hidden)
        or not frame[window_frames.INPUTS_STORED_COLUMN].all()
    ):
        return None, "against its own record, since the inputs are not stored"
    try:
        said = kind.predict(project.model(old), conform_frame(frame, columns, "the window"))
    except InputError:
        return None, "against its own record, since it cannot read the inputs"
    return kind.loss(kind.truth(frame[problem.target]), said, problem.headline), "on the same inputs"


def _compare_with_record(
    production: Production, frame: pd.DataFrame, new: NDArray[np.float64], old: Version, how: str
) -> tuple[ProbationResult, float | None]:
    from windvane.monitoring import window_frames
    from windvane.monitoring.performance import measured_loss
    from windvane.tasks.evaluation.scores import LOSS_COLUMN

    problem = production.project.settings.problem
    record = production.project.record(old)
    own = record[LOSS_COLUMN].to_numpy(dtype="float64")
    low, _ = measured_loss.bound_mean_difference(
        new, own, window_frames.form_frame_blocks(frame, problem), window_frames.form_frame_blocks(record, problem)
    )
    scale = float(own.mean())
    excess = float(new.mean()) / scale - 1 if scale > 0 else None
    return ProbationResult(
        old.version, len(frame), excess, None if low is None else low / scale, how
    ), None if excess is None else -excess


def _read_mean_loss(production: Production, version: Version) -> float:
    from windvane.tasks.evaluation.scores import LOSS_COLUMN

    return float(production.project.record(version)[LOSS_COLUMN].mean())


def _record_realised_gain(production: Production, version: int, gain: float) -> None:
    engine, name = production.project.ledger, production.project.name
    for one in decisions.list_decisions(engine, name, acting=True):
        if one.made == version and one.realised is None:
            decisions.record_realized_gain(engine, one.id, gain)
