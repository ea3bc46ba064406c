"""The champion's loss on a window, with its interval: measured on labelled rows against its own record, or expected without
labels, from a loss model of that record. The latter follows a change of the inputs; concept drift shows in labels alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from windvane.monitoring import window_frames
from windvane.monitoring.records import ESTIMATE_BLIND_SPOT, PerformanceResult
from windvane.tasks.evaluation.intervals import compute_t_quantile
from windvane.tasks.evaluation.scores import LOSS_COLUMN, PREDICTION_COLUMN
from windvane.tasks.gate.block_test import MIN_BLOCKS, RowBlocks, bound_paired_difference
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import limit_to_one_thread
from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType
from windvane.tasks.models.row_weights import spread_weights
from windvane.tasks.settings.problem_section import ProblemSettings

# Fewer rows train no loss model that beats the mean; more bring nothing that a mean over a window would show.
_MIN_RECORD_ROWS, _MAX_RECORD_ROWS = 100, 20_000
_FOLDS = 10
_CONFIDENCE = 0.95
_MIN_PROBABILITY = 1e-6

FrameReader = Callable[[pd.DataFrame], NDArray[np.float64]]
LossPredictor = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class LossModel:
    """Expected losses. `see`: frame -> what the models read; `folds`: one model per fold, fitted without it.

    at: (n,) the record's rows that were trained on, by position; `record` (n,): the loss expected of each by the model that has not
    seen it; `loss` (n,): what it really was; weights (n,): how much each counts (None: alike).
    """

    see: FrameReader
    folds: tuple[LossPredictor, ...]
    of_fold: NDArray[np.int64]
    at: NDArray[np.int64]
    record: NDArray[np.float64]
    loss: NDArray[np.float64]
    widening: float
    problem: ProblemSettings
    how: str
    weights: NDArray[np.float64] | None = None

    def rows(self, window: pd.DataFrame) -> NDArray[np.float64]:
        """Expected loss (m,) of the rows of a window: the mean of the models."""
        seen = self.see(window)
        return np.asarray(np.mean([model(seen) for model in self.folds], axis=0))

    def estimate(self, window: pd.DataFrame) -> PerformanceResult:
        """Expected mean loss of a window, and where its labels will put the difference to the record, at 95 %.

        The interval adds up three errors: of the models together with the record's mean, by leaving out one fold at a time
        (jackknife; folds are blocks of time or whole groups where rows depend); of the window's draw of rows; and of the
        noise of its losses around what is expected of them.
        """
        counts = window_frames.read_frame_weights(self.problem, window)
        ours = None if counts is None else self.weights
        counts = None if ours is None else counts
        loss = spread_weights(self.loss, ours)
        reference = float(loss.mean())
        if not self.folds or not len(window):
            why = self.how if len(window) else "the window has no rows"
            return PerformanceResult(None, reference, None, None, len(window), True, why)
        seen, count = self.see(window), len(self.folds)
        each = np.stack([spread_weights(model(seen), counts) for model in self.folds])
        expected, total = each.mean(axis=0), float(each.mean())
        apart = each.mean(axis=1) - np.array([float(loss[self.of_fold != k].mean()) for k in range(count)])
        model_error = float(((apart - apart.mean()) ** 2).sum()) * (count - 1) / count
        noise = float(np.var(self.loss - self.record)) * max(total / reference, 1e-3) ** 2 if reference > 0 else 0.0
        margin = compute_t_quantile(count - 1, _CONFIDENCE) * np.sqrt(model_error + noise * self.widening / len(window))
        parts = window_frames.form_frame_blocks(window, self.problem)
        drawn = margin
        if parts[0].count >= MIN_BLOCKS:
            drawn = total - float(bound_paired_difference(expected[None], parts, (1 + _CONFIDENCE) / 2).low[0])
        margin = float(np.hypot(margin, drawn))
        excess = total - reference
        how = f"{self.how}; {ESTIMATE_BLIND_SPOT}"
        return PerformanceResult(total, reference, excess - margin, excess + margin, len(window), True, how)


def fit_loss_model(
    record: pd.DataFrame, columns: FeatureColumns, kind: ProblemType, problem: ProblemSettings, seed: int
) -> LossModel:
    """Learn from the champion's record what a row costs.

    Classes: its probabilities, calibrated on other folds (multinomial logistic regression on their logarithms: Platt, Advances
    in Large Margin Classifiers, 1999), show how likely each class is, and so which loss to expect: confidence-based performance
    estimation (NannyML's documentation; Garg et al., ICLR 2022, on its limits). Numbers: a boosted Poisson regression of the loss
    on inputs and prediction (direct loss estimation, ibid.), shrunk to the mean by the slope that its held-out rows show.
    """
    loss = record[LOSS_COLUMN].to_numpy(dtype=np.float64)
    known = np.flatnonzero(np.isfinite(loss))
    if len(known) > _MAX_RECORD_ROWS:
        known = np.sort(np.random.default_rng(seed).choice(known, _MAX_RECORD_ROWS, replace=False))
    at = known[order_by_content(record.iloc[known])]
    record, loss = record.iloc[at].reset_index(drop=True), loss[at]
    of_fold = _assign_folds(record, problem, seed)
    count = int(of_fold.max(initial=-1)) + 1
    if len(record) < _MIN_RECORD_ROWS or count < MIN_BLOCKS or loss.min() < 0:
        why = f"no estimate: the record has {len(record):,} rows, and {_MIN_RECORD_ROWS} in {MIN_BLOCKS} blocks are needed"
        return LossModel(lambda frame: np.empty(0), (), of_fold, at, loss, loss, 1.0, problem, why)
    learn = _fit_number_loss if kind.continuous else _fit_class_loss
    if kind.continuous:
        see, truth = _make_input_reader(record, columns), loss
    else:
        made = window_frames.read_frame_predictions(record, record, kind, problem.target)
        codes = encode_true_classes(record, made, kind, problem)
        see, truth = _make_probability_reader(record, kind, problem), codes.astype(np.float64)
    seen, held = see(record), np.empty(len(record))
    with limit_to_one_thread():
        folds = tuple(learn(seen[of_fold != k], truth[of_fold != k], seed) for k in range(count))
        for k, model in enumerate(folds):
            held[of_fold == k] = model(seen[of_fold == k])
    how = "expected from calibrated probabilities"
    if kind.continuous:
        folds, held, how = _shrink_models(folds, held, loss)
    widening = _compute_widening(record, loss - held, problem)
    weights = window_frames.read_frame_weights(problem, record)
    return LossModel(see, folds, of_fold, at, held, loss, widening, problem, how, weights)


def order_by_content(frame: pd.DataFrame) -> NDArray[np.int64]:
    """An order of rows that follows from what they hold, so that their place in the table does not matter."""
    return np.argsort(pd.util.hash_pandas_object(frame, index=False).to_numpy(), kind="stable")


def _assign_folds(record: pd.DataFrame, problem: ProblemSettings, seed: int) -> NDArray[np.int64]:
    """Blocks of time, or groups, in ten folds; else rows at random."""
    part = window_frames.form_frame_blocks(record, problem)[0]
    label = np.random.default_rng(seed).permutation(len(record)) if part.kind == "row" else part.label
    return np.asarray(label % _FOLDS, dtype=np.int64)


def _make_probability_reader(record: pd.DataFrame, kind: ProblemType, problem: ProblemSettings) -> FrameReader:
    """Frame -> centred logarithms of k probabilities, then the loss if the class is the first, the second, ..."""

    def see(frame: pd.DataFrame) -> NDArray[np.float64]:
        made = window_frames.read_frame_predictions(frame, record, kind, problem.target)
        costs = [kind.loss(np.full(len(frame), c), made, problem.headline) for c in np.asarray(made.classes)]
        return np.column_stack([compute_log_probabilities(made), *costs])

    return see


def compute_log_probabilities(made: Predictions) -> NDArray[np.float64]:
    """Centred logarithms (n, k) of probabilities."""
    logs = np.log(np.clip(np.asarray(made.proba, dtype=np.float64), _MIN_PROBABILITY, 1))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def encode_true_classes(
    frame: pd.DataFrame, made: Predictions, kind: ProblemType, problem: ProblemSettings
) -> NDArray[np.int64]:
    """Each labelled row's class (n,) as its place among the probabilities, -1 if it has none."""
    at = {str(c): i for i, c in enumerate(np.asarray(made.classes))}
    return np.array([at.get(str(v), -1) for v in kind.truth(frame[problem.target])], dtype=np.int64)


def _fit_class_loss(seen: NDArray[np.float64], codes: NDArray[np.float64], seed: int) -> LossPredictor:
    """Expected loss from calibrated probabilities of the classes."""
    count = seen.shape[1] // 2
    chance = fit_calibrated_probabilities(seen[:, :count], codes)
    return lambda rows: np.asarray((chance(rows[:, :count]) * rows[:, count:]).sum(axis=1))


def fit_calibrated_probabilities(logs: NDArray[np.float64], codes: NDArray[np.float64]) -> LossPredictor:
    """Learn (n, k) centred logarithms of probabilities -> probabilities (m, k) that come true; a class without a row keeps 0."""
    known = codes >= 0
    count = logs.shape[1]
    if len(np.unique(codes[known])) < 2:
        only = np.zeros(count)
        only[codes[known].astype(int)[:1]] = 1.0
        return lambda rows: np.tile(only, (len(rows), 1))
    model = LogisticRegression(max_iter=200).fit(logs[known], codes[known].astype(int))

    def chance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.zeros((len(rows), count))
        out[:, model.classes_] = model.predict_proba(rows)
        return out

    return chance


def _make_input_reader(record: pd.DataFrame, columns: FeatureColumns) -> FrameReader:
    """Frame -> inputs and prediction."""
    encode = window_frames.fit_input_encoder(record, columns, record[PREDICTION_COLUMN].to_numpy(dtype=np.float64))
    return lambda frame: np.column_stack([encode(frame), frame[PREDICTION_COLUMN].to_numpy(dtype=np.float64)])


def _fit_number_loss(seen: NDArray[np.float64], loss: NDArray[np.float64], seed: int) -> LossPredictor:
    """Expected loss of a number's prediction."""
    scale = float(loss.mean())
    if scale <= 0:
        return lambda rows: np.zeros(len(rows))
    trees = {
        "max_iter": 60,
        "learning_rate": 0.08,
        "max_leaf_nodes": 8,
        "min_samples_leaf": 20,
        "l2_regularization": 5.0,
    }
    model = HistGradientBoostingRegressor(loss="poisson", early_stopping=False, random_state=seed, **trees)
    model.fit(window_frames.fill_empty_columns(seen), loss / scale)

    def expected(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        with limit_to_one_thread():
            return np.asarray(model.predict(rows) * scale)

    return expected


def _shrink_models(
    folds: tuple[LossPredictor, ...], held: NDArray[np.float64], loss: NDArray[np.float64]
) -> tuple[tuple[LossPredictor, ...], NDArray[np.float64], str]:
    """As much of a loss model as its held-out rows bear out."""
    varies, centre, mean = float(np.var(held)), float(held.mean()), float(loss.mean())
    slope = float(np.clip(np.cov(held, loss, bias=True)[0, 1] / varies, 0, 1)) if varies > 0 else 0.0

    def shrunk(model: LossPredictor) -> LossPredictor:
        return lambda rows: mean + slope * (model(rows) - centre)

    how = f"expected by a loss model of inputs and prediction, shrunk to {slope:.0%}"
    return tuple(map(shrunk, folds)), mean + slope * (held - centre), how


def _compute_widening(record: pd.DataFrame, noise: NDArray[np.float64], problem: ProblemSettings) -> float:
    """How many times larger the variance of a mean of the noise is than of independent rows."""
    parts = window_frames.form_frame_blocks(record, problem)
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS:
        return 1.0
    margin = float(noise.mean() - bound_paired_difference(noise[None], parts, (1 + _CONFIDENCE) / 2).low[0])
    alone = compute_t_quantile(len(noise) - 1, _CONFIDENCE) * float(noise.std()) / np.sqrt(len(noise))
    return max(1.0, (margin / alone) ** 2) if alone > 0 else 1.0


def measure_window_loss(
    record: pd.DataFrame,
    window: pd.DataFrame,
    kind: ProblemType,
    problem: ProblemSettings,
    *,
    known_until: str | None = None,
) -> PerformanceResult:
    """Mean loss of a window's labelled rows, and by how much it lies above the record's, with a 95 % interval.

    record: the champion's held-out rows (see monitoring/window_frames.py). window: rows with its predictions, target missing where
    no label has come. Both sides' sampling error counts. Each side has its bounds by blocks of time or group where rows
    depend on each other (tasks/gate/block_test.py); the bounds of the difference follow by MOVER (Zou & Donner, Statistics in
    Medicine 27, 2008): squared distances of both sides from their bounds add up. So a skewed loss keeps a skewed interval.
    Rows are weighted by problem.weight where both sides have it.
    `loss` is None below 30 labelled rows; `low` and `high` are None where a side has fewer than five blocks.
    """
    own = record[LOSS_COLUMN].to_numpy(dtype=np.float64)
    known = window[window_frames.mask_labelled(window, problem.target)]
    loss = window_frames.compute_frame_losses(known, record, kind, problem) if len(known) else np.zeros(0)
    loss, own = window_frames.weigh_losses(problem, (known, loss), (record, own))
    reference = float(own.mean()) if len(own) else float("nan")
    share = f"labels of {len(known):,} of {len(window):,} rows"
    if min(len(known), len(own)) < MIN_JUDGED_ROWS:
        few = share if len(known) < MIN_JUDGED_ROWS else f"a record of {len(own):,} rows"
        how = f"{few}: at least {MIN_JUDGED_ROWS} are needed"
        return PerformanceResult(None, reference, None, None, len(known), False, how, known_until)
    sides = (window_frames.form_frame_blocks(known, problem), window_frames.form_frame_blocks(record, problem))
    low, high = bound_mean_difference(loss, own, *sides)
    how = f"{share}; {_describe_blocks(sides[0])} against {_describe_blocks(sides[1])}"
    if low is None:
        how += f": an interval needs at least {MIN_BLOCKS}"
    return PerformanceResult(float(loss.mean()), reference, low, high, len(known), False, how, known_until)


def bound_mean_difference(
    window: NDArray[np.float64],
    record: NDArray[np.float64],
    of_window: tuple[RowBlocks, ...],
    of_record: tuple[RowBlocks, ...],
) -> tuple[float | None, float | None]:
    """95 % bounds of mean(window (m,)) - mean(record (n,)), each side resting on its blocks; None with too few."""
    if min(of_window[0].count, of_record[0].count) < MIN_BLOCKS:
        return None, None
    a, b = _bound_mean(window, of_window), _bound_mean(record, of_record)
    centre = float(window.mean() - record.mean())
    below, above = (
        np.hypot(window.mean() - a[0], b[1] - record.mean()),
        np.hypot(a[1] - window.mean(), record.mean() - b[0]),
    )
    return centre - float(below), centre + float(above)


def _bound_mean(loss: NDArray[np.float64], blocks: tuple[RowBlocks, ...]) -> tuple[float, float]:
    """Two one-sided bounds of a mean: the lower one of the losses, and of their negatives."""
    one_sided = (1 + _CONFIDENCE) / 2
    both = bound_paired_difference(np.stack([loss, -loss]), blocks, one_sided).low
    return float(both[0]), -float(both[1])


def _describe_blocks(blocks: tuple[RowBlocks, ...]) -> str:
    unit = {"time": "blocks of time", "group": "bins of groups", "row": "rows"}
    return " and ".join(f"{b.count:,} {unit[b.kind]}" for b in blocks)
