"""The evidence about the kind of a change, gathered from record and window before it is weighed (explanations.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import window_frames
from windvane.monitoring.diagnosis import broken_columns, contrasts, window_states
from windvane.monitoring.diagnosis.broken_columns import BrokenColumn
from windvane.monitoring.diagnosis.contrasts import Contrast, ContrastFeatures, SampleBlocks
from windvane.monitoring.diagnosis.window_states import SeasonMatch, WindowState
from windvane.monitoring.performance import estimated_loss
from windvane.tasks.evaluation.intervals import compute_t_quantile
from windvane.tasks.gate.block_test import MIN_BLOCKS, bound_paired_difference
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.performance.estimated_loss import LossModel
    from windvane.tasks.gate.block_test import RowBlocks
    from windvane.tasks.models.features import FeatureColumns
    from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType
    from windvane.tasks.settings.project_params import ProblemSettings

# An error of a prediction beyond so many expected ones counts as this many: one odd row must not be a concept.
_MAX_ERROR = 4.0
_MAX_CLASSES = 5
# No row is surer than this to be of the window: its odds are a number.
_MAX_CHANCE = 1 - 1e-12
# More rows of a window are sampled, by what they hold.
_MAX_WINDOW_ROWS = 20_000


@dataclass(frozen=True)
class ChangeEvidence:
    """What moved, each in nats: inputs P(x), and what is left of that without broken columns; labels P(y); labels given inputs
    P(y | x); inputs given labels P(x | y), and given the champion's answer, which stands for labels that have not come.

    labelled: rows whose labels have come and count (0: too few, and three contrasts are empty). seasons: the window beside
    each known state. classes: labels are classes, not numbers.
    """

    rows: int
    labelled: int
    inputs: Contrast
    rest: Contrast
    labels: Contrast
    answers: Contrast
    given_labels: Contrast
    given_answers: Contrast
    broken: tuple[BrokenColumn, ...]
    seasons: tuple[SeasonMatch, ...]
    classes: bool


def gather_evidence(
    record: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    kind: ProblemType,
    problem: ProblemSettings,
    model: LossModel,
    known: Sequence[WindowState],
    seed: int,
) -> ChangeEvidence:
    """Look at a window (m rows) beside the champion's record (n rows), at most 20,000 of each; see Clues."""
    record, window = record.iloc[model.at], window.iloc[estimated_loss.order_by_content(window)[:_MAX_WINDOW_ROWS]]
    thin = estimate_row_weight(record, window, model, problem)
    read = window_frames.pair_columns(record, window, columns)
    found = contrasts.build_contrast_features(read, len(record) + len(window))
    all_rows = SampleBlocks(
        window_frames.form_frame_blocks(record, problem),
        window_frames.form_frame_blocks(window, problem),
        (len(record), len(window)),
    )
    made = [window_frames.read_frame_predictions(side, record, kind, problem.target) for side in (record, window)]
    told = _estimate_chances(record, window, columns, made, all_rows, seed)
    broken = broken_columns.find_broken_columns(
        read, thin, all_rows.record[0].label if all_rows.record[0].kind == "time" else None
    )
    sound = found.drop(tuple(b.column for b in broken))
    moved = contrasts.contrast_inputs(found, all_rows, told)
    rest = contrasts.contrast_inputs(sound, all_rows, None) if broken else moved
    by_answer = contrasts.contrast_inputs_given(found, _build_prediction_basis(made, kind), all_rows)
    labels = given = drifted = Contrast()
    came = window_frames.mask_labelled(window, problem.target)
    if came.sum() >= MIN_JUDGED_ROWS:
        labels, drifted, given = _contrast_labelled_rows(record, window, came, found, told, made, kind, problem, model)
    seen, own = (window_states.read_state_values(side, record, columns, kind, problem) for side in (window, record))
    return ChangeEvidence(
        len(window),
        int(came.sum()) if came.sum() >= MIN_JUDGED_ROWS else 0,
        moved,
        rest,
        labels,
        drifted,
        given,
        by_answer,
        broken,
        tuple(window_states.match_season(state, seen, own, thin) for state in known),
        not kind.continuous,
    )


def estimate_row_weight(
    record: pd.DataFrame, window: pd.DataFrame, model: LossModel, problem: ProblemSettings
) -> float:
    """As how many independent rows each row counts: 1, or less where rows of a block or group resemble each other."""
    own = 1 / model.widening
    parts = window_frames.form_frame_blocks(window, problem)
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS or not model.folds:
        return own
    expected = model.rows(window)
    bound = bound_paired_difference(expected[None], parts, 0.975)
    margin, alone = (
        float(bound.mean[0] - bound.low[0]),
        compute_t_quantile(len(window) - 1, 0.95) * float(expected.std()),
    )
    return float(min(own, (alone / np.sqrt(len(window)) / margin) ** 2)) if margin > 0 else own


def _estimate_chances(
    record: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    made: list[Predictions],
    sides: SampleBlocks,
    seed: int,
) -> NDArray[np.float64]:
    """Chance of each row to be of the window, by its inputs; folds are blocks or groups where rows depend."""
    rank = _get_prediction_number(made[0])
    encode = window_frames.fit_input_encoder(record, columns, rank)
    side = np.repeat([False, True], sides.rows)
    fold = np.concatenate(
        [_assign_folds(frame, parts) for frame, parts in ((record, sides.record), (window, sides.window))]
    )
    return contrasts.estimate_window_chances(np.concatenate([encode(record), encode(window)]), side, fold, seed)


def _assign_folds(frame: pd.DataFrame, parts: tuple[RowBlocks, ...]) -> NDArray[np.int64]:
    return np.arange(len(frame), dtype=np.int64) if parts[0].kind == "row" else parts[0].label


def _get_prediction_number(made: Predictions) -> NDArray[np.float64]:
    """The answer as one number: itself, or the last class's probability."""
    return np.asarray(made.value if made.proba is None else np.asarray(made.proba)[:, -1], dtype=np.float64)


def _build_prediction_basis(made: list[Predictions], kind: ProblemType) -> NDArray[np.float64]:
    """The answers of both sides as a basis: of a number, or of each class's probability."""
    if kind.continuous:
        return contrasts.build_number_basis(np.concatenate([m.value for m in made]))
    proba = np.concatenate([np.asarray(m.proba, dtype=np.float64) for m in made])
    each = [contrasts.rank_values(p) for p in proba.T[:_MAX_CLASSES]]
    return np.column_stack([np.ones(len(proba)), proba[:, :-1], *each, *(r**2 for r in each), *(r**3 for r in each)])


def _contrast_labelled_rows(
    record: pd.DataFrame,
    window: pd.DataFrame,
    came: NDArray[np.bool_],
    found: ContrastFeatures,
    told: NDArray[np.float64],
    made: list[Predictions],
    kind: ProblemType,
    problem: ProblemSettings,
    model: LossModel,
) -> tuple[Contrast, Contrast, Contrast]:
    """P(y), P(y | x), P(x | y) from the rows whose labels have come."""
    late = window[came]
    rows = np.concatenate([np.ones(len(record), dtype=bool), came])
    sides = SampleBlocks(
        window_frames.form_frame_blocks(record, problem),
        window_frames.form_frame_blocks(late, problem),
        (len(record), len(late)),
    )
    some = ContrastFeatures(found.values[rows], found.names)
    sure = np.minimum(told[rows], _MAX_CHANCE)
    odds = sure / (1 - sure) * came.mean()
    truth = [kind.truth(side[problem.target]) for side in (record, late)]
    answer = np.concatenate([_get_prediction_number(made[0]), _get_prediction_number(made[1])[came]])
    if kind.continuous:
        y = np.concatenate(truth)
        scale = np.concatenate([model.record, model.rows(late)]) if model.folds else np.ones(len(y))
        if problem.headline != "mae":
            scale = np.sqrt(np.maximum(scale, 0))
        errors, basis = _compute_residuals(y, answer, scale, len(record)), contrasts.build_number_basis(y)
        labels = contrasts.contrast_labels(y[:, None], sides, number=True)
    else:
        errors, classes = _compute_class_residuals(record, late, kind, problem)
        basis = contrasts.build_class_basis(classes)
        labels = contrasts.contrast_labels(basis, sides, number=False)
    place = contrasts.rank_values(answer)
    more = np.column_stack([place, np.abs(place) - 0.5])
    if not kind.continuous:
        logs = np.concatenate([estimated_loss.compute_log_probabilities(m) for m in made])[rows]
        logs = logs[:, : 1 if logs.shape[1] == 2 else _MAX_CLASSES]
        more = logs - logs.mean(axis=0)
    drifted = contrasts.contrast_labels_given_inputs(errors, some, more, odds / (1 + odds), sides)
    return labels, drifted, contrasts.contrast_inputs_given(some, basis, sides)


def _compute_residuals(
    y: NDArray[np.float64], answer: NDArray[np.float64], scale: NDArray[np.float64], record: int
) -> NDArray[np.float64]:
    """Errors in units of the loss expected, and by how much they are larger than in the record: (rows, 2)."""
    floor = 0.1 * float(scale[:record].mean()) or 1.0
    z = (y - answer) / np.maximum(scale, floor)
    z = np.clip(z, -_MAX_ERROR, _MAX_ERROR)
    return np.column_stack([z - z[:record].mean(), np.abs(z) - np.abs(z[:record]).mean()])


def _compute_class_residuals(
    record: pd.DataFrame, late: pd.DataFrame, kind: ProblemType, problem: ProblemSettings
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Per class whether it came less its calibrated chance, (rows, k or 1 of two); and classes as whole numbers."""
    made = [window_frames.read_frame_predictions(side, record, kind, problem.target) for side in (record, late)]
    came = [
        estimated_loss.encode_true_classes(side, m, kind, problem) for side, m in zip((record, late), made, strict=True)
    ]
    chance = estimated_loss.fit_calibrated_probabilities(
        estimated_loss.compute_log_probabilities(made[0]), came[0].astype(np.float64)
    )
    count = np.asarray(made[0].proba).shape[1]
    codes = np.concatenate(came)
    chances = np.concatenate([chance(estimated_loss.compute_log_probabilities(m)) for m in made])
    gap = (codes[:, None] == np.arange(count)) - chances
    # A class that the champion never met is one more.
    return gap[:, :1] if count == 2 else gap[:, :_MAX_CLASSES], np.where(codes < 0, count, codes)
