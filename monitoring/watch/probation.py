"""The probation of a new champion: is it worse than the version it replaced would have been on the same rows? Afterwards
the same comparison shows what the retraining saved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.ledger import decisions, versions, windows
from windvane.ledger.versions import Version
from windvane.ledger.windows import WindowRecord
from windvane.monitoring import window_frames, window_loss
from windvane.monitoring.records import DecisionLimits, ProbationResult
from windvane.monitoring.watch.production import Production
from windvane.monitoring.watch.windows import WindowSpan, find_calendar_start
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation.intervals import MIN_UNITS, estimate_standard_error, find_resampling_units
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.gate.block_test import MIN_BLOCKS, bound_paired_difference
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS
from windvane.tasks.models import own_metrics
from windvane.tasks.models.features import conform_frame
from windvane.tasks.settings.problem_section import ProblemSettings


def compare_on_probation(production: Production, seen: WindowRecord, limits: DecisionLimits) -> ProbationResult | None:
    """The comparison over the champion's windows up to `seen`; None: it is not on probation (any more)."""
    project = production.project
    promotion = versions.find_last_promotion(project.ledger, project.name)
    # A version that is put back has proved itself before.
    if promotion is None or promotion.cause != "lap" or promotion.from_version is None or not limits.probation:
        return None
    mine = [s for s in windows.list_windows(project.ledger, project.name, seen.version) if s.start <= seen.start]
    if sum(s.closed for s in mine[:-1]) >= limits.probation:
        return None
    old = versions.find_version(project.ledger, project.name, promotion.from_version)
    if old is None:
        return None
    # As many checks as windows, and about one more each while it is open.
    level = limits.false_alarms / (2 * limits.probation)
    found, saved = _compare_versions(production, mine, old, level)
    if saved is not None and sum(s.closed for s in mine) >= limits.probation:
        for one in decisions.list_decisions(project.ledger, project.name, acting=True):
            if one.made == seen.version and one.realised is None:
                decisions.record_realized_gain(project.ledger, one.id, saved * len(mine))
    return found


def estimate_reference_errors(production: Production) -> tuple[float | None, float | None]:
    """Of the champion's loss on its own held-out rows: the mean's standard error, and by how much windows differ there.

    None each where it is unknown; the second needs five windows on the calendar.
    """
    record, settings = production.record, production.project.settings
    (loss,) = window_frames.weigh_losses(settings.problem, (record, record[LOSS_COLUMN].to_numpy(dtype="float64")))
    if not len(loss):
        return None, None
    units = find_resampling_units(record, loss, settings.problem)
    mean = estimate_standard_error((loss - loss.mean()) / len(loss), units)
    time, cut = settings.problem.time, settings.monitor.cut
    if time is None or cut.rows is not None:
        return mean, None
    starts = [find_calendar_start(t, cut) for t in record[time].tolist()]
    means = pd.Series(loss).groupby(starts).mean()
    return mean, float(means.std()) if len(means) >= MIN_UNITS else None


def _compare_versions(
    production: Production, seen: list[WindowRecord], old: Version, level: float
) -> tuple[ProbationResult, float | None]:
    """New against old on the labelled rows of some windows; and what a row saved, in mean losses of the old one's record."""
    problem = production.project.settings.problem
    kind = own_metrics.load_measured_problem_type(problem, problem.positive)
    counts = [production.count(WindowSpan(s.start, s.end, s.closed)) for s in seen]
    frame = pd.concat([production.frame(count) for count in counts], ignore_index=True)
    frame = frame[window_frames.mask_labelled(frame, problem.target)].reset_index(drop=True)
    if len(frame) < MIN_JUDGED_ROWS:
        return ProbationResult(old.version, len(frame), None, None, "too few labelled rows"), None
    new = window_frames.compute_frame_losses(frame, production.record, kind, problem)
    theirs, how = _compute_old_losses(production, frame, old, kind)
    record = production.project.record(old)
    # Computed again: metric or loss may have changed since it was recorded.
    known = window_frames.compute_frame_losses(record, record, kind, problem)
    if theirs is None:
        return _compare_with_record(problem, (frame, new), (record, known), old, how)
    parts = window_frames.form_frame_blocks(frame, problem)
    if parts[0].count < MIN_BLOCKS or theirs.mean() <= 0:
        return ProbationResult(old.version, len(frame), None, None, "too few independent rows"), None
    theirs, before = window_frames.weigh_losses(problem, (frame, theirs), (record, known))
    new, _ = window_frames.weigh_losses(problem, (frame, new), (record, before))
    bound = bound_paired_difference(new - theirs, parts, 1 - level)
    scale, own = float(theirs.mean()), float(before.mean())
    saved = -float(bound.mean) / own if own else None
    return ProbationResult(old.version, len(frame), float(bound.mean) / scale, float(bound.low) / scale, how), saved


def _compute_old_losses(
    production: Production, frame: pd.DataFrame, old: Version, kind: Any
) -> tuple[NDArray[np.float64] | None, str]:
    """What the old version would have lost on the same rows; None where their inputs are not all stored."""
    project, problem = production.project, production.project.settings.problem
    columns = window_frames.read_version_columns(old.facts, ())
    readable = set(frame) - set(production.hidden)
    if not set(columns.names) <= readable or not frame[window_frames.INPUTS_STORED_COLUMN].all():
        return None, "against its own record, since the inputs are not stored"
    try:
        predictions = kind.predict(project.model(old), conform_frame(frame, columns, "the window"))
    except InputError:
        return None, "against its own record, since it cannot read the inputs"
    return kind.loss(kind.truth(frame[problem.target]), predictions, problem.headline), "on the same inputs"


def _compare_with_record(
    problem: ProblemSettings,
    window: tuple[pd.DataFrame, NDArray[np.float64]],
    reference: tuple[pd.DataFrame, NDArray[np.float64]],
    old: Version,
    how: str,
) -> tuple[ProbationResult, float | None]:
    """The new version's losses on a window's labelled rows against those of the old one's record, each with its frame."""
    new, own = window_frames.weigh_losses(problem, window, reference)
    frame = window[0]
    blocks = (window_frames.form_frame_blocks(side, problem) for side in (frame, reference[0]))
    low, _ = window_loss.bound_mean_difference(new, own, *blocks)
    scale = float(own.mean())
    excess = float(new.mean()) / scale - 1 if scale > 0 else None
    found = ProbationResult(old.version, len(frame), excess, None if low is None else low / scale, how)
    return found, None if excess is None else -excess
