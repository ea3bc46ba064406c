"""The evidence about the type of a change, gathered from record and window before it is weighed (explanations.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring import window_frames, window_loss
from windvane.monitoring.diagnosis import broken_columns, contrasts, window_states
from windvane.monitoring.diagnosis.broken_columns import BrokenColumn
from windvane.monitoring.diagnosis.contrasts import Contrast, ContrastFeatures, SampleBlocks
from windvane.monitoring.diagnosis.window_states import SeasonMatch, WindowState
from windvane.monitoring.drift.compared_rows import read_clock, rises_with_clock
from windvane.monitoring.window_loss import LossModel
from windvane.tasks.evaluation.intervals import compute_t_quantile
from windvane.tasks.gate.block_test import MIN_BLOCKS, bound_paired_difference
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType
from windvane.tasks.settings.problem_section import ProblemSettings

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
    P(y | x); inputs given labels P(x | y), and given the champion's prediction, which represents labels that have not come.

    labelled: rows whose labels have come and count (0: too few, and three contrasts are empty). seasons: the window beside
    each known state. classes: labels are classes, not numbers. moved: drift's alarm, which "nothing changed" does not explain.
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
    moved: bool = False


@dataclass(frozen=True)
class DiagnosisCase:
    """A window (m rows) beside the champion's record (n rows); frames as in monitoring/window_frames.py.

    model: what a row costs by the record (window_loss.fit_loss_model).
    """

    record: pd.DataFrame
    window: pd.DataFrame
    columns: FeatureColumns
    kind: ProblemType
    problem: ProblemSettings
    model: LossModel
    known_states: Sequence[WindowState] = ()
    seed: int = 0

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """The loss (m,) that the model expects of the window's rows."""
        return self.model.rows(self.window)


def gather_evidence(case: DiagnosisCase) -> ChangeEvidence:
    """Inspect the rows of a case, at most 20,000 of each side; see ChangeEvidence."""
    columns, kind, problem, model = case.columns, case.kind, case.problem, case.model
    newest = window_loss.order_by_content(case.window)[:_MAX_WINDOW_ROWS]
    case = replace(case, record=case.record.iloc[model.at], window=case.window.iloc[newest])
    record, window = case.record, case.window
    thin = _estimate_row_weight(case)
    read = window_frames.pair_columns(record, window, columns)
    found = contrasts.build_contrast_features(read, len(record) + len(window))
    all_rows = _form_sample_blocks(record, window, problem)
    made = [window_frames.read_frame_predictions(side, record, kind, problem.target) for side in (record, window)]
    estimates = _estimate_chances(case, made, all_rows)
    blocks = all_rows.record[0]
    # What rises with the clock is another value in each window by nature.
    clock = None if problem.time is None or problem.time not in record else read_clock([record, window], problem.time)
    still = tuple(
        c for c in read
        if not c.number or clock is None or not rises_with_clock(np.concatenate([c.record, c.window]), clock)
    )  # fmt: skip
    broken = broken_columns.find_broken_columns(still, thin, blocks.label if blocks.kind == "time" else None)
    sound = found.drop(tuple(b.column for b in broken))
    moved = contrasts.contrast_inputs(found, all_rows, estimates)
    rest = contrasts.contrast_inputs(sound, all_rows, None) if broken else moved
    by_prediction = contrasts.contrast_inputs_given(found, _build_prediction_basis(made, kind), all_rows)
    labels = given = drifted = Contrast()
    came = window_frames.mask_labelled(window, problem.target)
    labelled = int(came.sum()) if came.sum() >= MIN_JUDGED_ROWS else 0
    if labelled:
        labels, drifted, given = _contrast_labelled_rows(case, came, found, estimates, made)
    seen, own = (window_states.read_state_values(side, record, columns, kind, problem) for side in (window, record))
    seasons = tuple(window_states.match_season(state, seen, own, thin) for state in case.known_states)
    moves = (moved, rest, labels, drifted, given, by_prediction)
    return ChangeEvidence(len(window), labelled, *moves, broken, seasons, not kind.continuous)


def _form_sample_blocks(record: pd.DataFrame, window: pd.DataFrame, problem: ProblemSettings) -> SampleBlocks:
    before, now = (window_frames.form_frame_blocks(side, problem) for side in (record, window))
    return SampleBlocks(before, now, (len(record), len(window)))


def _estimate_row_weight(case: DiagnosisCase) -> float:
    """As how many independent rows each row counts: 1, or less where rows of a block or group resemble each other."""
    own = 1 / case.model.widening
    parts = window_frames.form_frame_blocks(case.window, case.problem)
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS or not case.model.folds:
        return own
    bound = bound_paired_difference(case.expected[None], parts, 0.975)
    margin = float(bound.mean[0] - bound.low[0])
    alone = compute_t_quantile(len(case.window) - 1, 0.95) * float(case.expected.std())
    return float(min(own, (alone / np.sqrt(len(case.window)) / margin) ** 2)) if margin > 0 else own


def _estimate_chances(case: DiagnosisCase, made: list[Predictions], sides: SampleBlocks) -> NDArray[np.float64]:
    """Chance of each row to be of the window, by its inputs; folds are blocks or groups where rows depend."""
    encode = window_frames.fit_input_encoder(case.record, case.columns, _get_prediction_number(made[0]))
    fold = np.concatenate([parts[0].label for parts in (sides.record, sides.window)])
    rows = np.concatenate([encode(case.record), encode(case.window)])
    return contrasts.estimate_window_chances(rows, np.repeat([False, True], sides.rows), fold, case.seed)


def _get_prediction_number(made: Predictions) -> NDArray[np.float64]:
    """The prediction as one number: itself, or the last class's probability."""
    return np.asarray(made.value if made.proba is None else np.asarray(made.proba)[:, -1], dtype=np.float64)


def _build_prediction_basis(made: list[Predictions], kind: ProblemType) -> NDArray[np.float64]:
    """The predictions of both sides as a basis: of a number, or of each class's probability."""
    if kind.continuous:
        return contrasts.build_number_basis(np.concatenate([m.value for m in made]))
    proba = np.concatenate([np.asarray(m.proba, dtype=np.float64) for m in made])
    each = [contrasts.rank_values(p) for p in proba.T[:_MAX_CLASSES]]
    return np.column_stack([np.ones(len(proba)), proba[:, :-1], *each, *(r**2 for r in each), *(r**3 for r in each)])


def _contrast_labelled_rows(
    case: DiagnosisCase,
    came: NDArray[np.bool_],
    found: ContrastFeatures,
    estimates: NDArray[np.float64],
    made: list[Predictions],
) -> tuple[Contrast, Contrast, Contrast]:
    """P(y), P(y | x), P(x | y) from the rows whose labels have come."""
    record, window, kind, problem, model = case.record, case.window, case.kind, case.problem, case.model
    late = window[came]
    rows = np.concatenate([np.ones(len(record), dtype=bool), came])
    sides = _form_sample_blocks(record, late, problem)
    some = ContrastFeatures(found.values[rows], found.names)
    sure = np.minimum(estimates[rows], _MAX_CHANCE)
    odds = sure / (1 - sure) * came.mean()
    truth = [kind.truth(side[problem.target]) for side in (record, late)]
    prediction = np.concatenate([_get_prediction_number(side) for side in made])[rows]
    if kind.continuous:
        y = np.concatenate(truth)
        scale = np.concatenate([model.record, case.expected[came]]) if model.folds else np.ones(len(y))
        if problem.loss is not None:  # whatever its unit is, it is not the target's
            scale = np.ones(len(y))
        elif problem.built_in_metric != "mae":
            scale = np.sqrt(np.maximum(scale, 0))
        errors, basis = _compute_residuals(y, prediction, scale, len(record)), contrasts.build_number_basis(y)
        labels = contrasts.contrast_labels(y[:, None], sides, number=True)
    else:
        errors, classes = _compute_class_residuals(record, late, kind, problem)
        basis = contrasts.build_class_basis(classes)
        labels = contrasts.contrast_labels(basis, sides, number=False)
    place = contrasts.rank_values(prediction)
    more = np.column_stack([place, np.abs(place) - 0.5])
    if not kind.continuous:
        logs = np.concatenate([window_loss.compute_log_probabilities(m) for m in made])[rows]
        logs = logs[:, : 1 if logs.shape[1] == 2 else _MAX_CLASSES]
        more = logs - logs.mean(axis=0)
    drifted = contrasts.contrast_labels_given_inputs(errors, some, more, odds / (1 + odds), sides)
    return labels, drifted, contrasts.contrast_inputs_given(some, basis, sides)


def _compute_residuals(
    y: NDArray[np.float64], prediction: NDArray[np.float64], scale: NDArray[np.float64], record: int
) -> NDArray[np.float64]:
    """Errors in units of the loss expected, and by how much they are larger than in the record: (rows, 2)."""
    floor = 0.1 * float(scale[:record].mean()) or 1.0
    z = np.clip((y - prediction) / np.maximum(scale, floor), -_MAX_ERROR, _MAX_ERROR)
    return np.column_stack([z - z[:record].mean(), np.abs(z) - np.abs(z[:record]).mean()])


def _compute_class_residuals(
    record: pd.DataFrame, late: pd.DataFrame, kind: ProblemType, problem: ProblemSettings
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Per class whether it came less its calibrated chance, (rows, k or 1 of two); and classes as whole numbers."""
    sides = (record, late)
    made = [window_frames.read_frame_predictions(side, record, kind, problem.target) for side in sides]
    came = [window_loss.encode_true_classes(*one, kind, problem) for one in zip(sides, made, strict=True)]
    logs = [window_loss.compute_log_probabilities(one) for one in made]
    chance = window_loss.fit_calibrated_probabilities(logs[0], came[0].astype(np.float64))
    count, codes, chances = logs[0].shape[1], np.concatenate(came), np.concatenate([chance(one) for one in logs])
    gap = (codes[:, None] == np.arange(count)) - chances
    # A class that the champion never met is one more.
    return gap[:, :1] if count == 2 else gap[:, :_MAX_CLASSES], np.where(codes < 0, count, codes)
