"""How far a prediction may be off: intervals of numbers and sets of classes, by split conformal prediction on held-out rows.

The scores of rows that the evaluated model was not fitted on show how rarely a score of a size is exceeded; what a prediction may be is
everything with a smaller one (Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005). A number's score is its distance
from the prediction over the distance that is usual for such rows, so that intervals are wide where the model is often far off (Lei et
al., Journal of the American Statistical Association 2018); a class's is what its probability lacks to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windvane.serving.compiled.engine import (
    CompiledEngine,
    EnginePredictions,
    PlainColumns,
    PredictionEngine,
    start_trees,
)
from windvane.serving.compiled.explanations import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from windvane.tasks.evaluation.adaptive_levels import LevelHistory
    from windvane.tasks.models.problem_types.definitions import Predictions

# The files that intervals are made from: scores, and trees of the usual distance where there are rows enough for them.
SCORES_FILE, DISTANCE_FILE = "interval.npz", "interval.onnx"
# With fewer held-out rows a usual distance of all is surer than one of such rows; half of them learn it, the other half are scored.
MIN_DISTANCE_ROWS = 400
# The newest scores, of which the level's share is taken; more change nothing.
MAX_SCORES = 20_000
# No row is expected to be nearer than this share of the mean distance: scores stay finite.
_LEAST_DISTANCE = 0.05
# Small trees: how far a model is off is smooth beside what it predicts.
_DISTANCE_TREES = {"max_iter": 60, "max_leaf_nodes": 8, "min_samples_leaf": 30, "learning_rate": 0.1}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutRows:
    """n rows that the evaluated model was not fitted on, oldest first: inputs as the engine takes them, predictions, and what was true."""

    columns: PlainColumns
    predictions: Predictions
    truth: NDArray[Any]


@dataclass(frozen=True)
class PredictionBounds:
    """What n predictions may be at a level such as 0.9: low and high (n,) of numbers, or the classes that may be right, likeliest
    first. adjusted: the level that late labels showed to keep this one, by which they were made; None: there are no such labels.
    """

    level: float
    low: Array | None = None
    high: Array | None = None
    sets: list[list[Any]] | None = None
    adjusted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, a row a prediction."""
        levels = {"level": self.level} | ({} if self.adjusted is None else {"adjusted": self.adjusted})
        if self.sets is not None:
            return {**levels, "sets": self.sets}
        assert self.low is not None
        assert self.high is not None
        return {**levels, "bounds": np.stack([self.low, self.high], axis=1).tolist()}

    def list_columns(self) -> dict[str, Any]:
        """The same as columns (n,) of a table: interval_low and interval_high, or classes with a blank and a bar between them."""
        if self.sets is not None:
            return {"interval_classes": [" | ".join(map(str, names)) for names in self.sets]}
        return {"interval_low": self.low, "interval_high": self.high}


@dataclass(frozen=True)
class LabelMeasures:
    """Labels of n predictions beside the intervals at a level. needed (n,): an interval holds the label at levels above it (the set
    of a class may hold it sooner, since it holds what was predicted); inside (n,): this one does; widths (n,): in the target's
    unit, or how many classes. scores: by how many held-out rows intervals are made.
    """

    needed: Array
    inside: NDArray[np.bool_]
    widths: Array
    scores: int


class TooFewScores(ValueError):
    """So few rows were held out that this level cannot be promised; the text names one that can."""


class PredictionIntervals:
    """Intervals of one version's predictions. scores: the bytes of SCORES_FILE; distances: those of DISTANCE_FILE, None without one.

    engine None: the version has no compiled form, and one usual distance serves all rows.
    """

    def __init__(
        self, engine: PredictionEngine | None, classes: Sequence[Any] | None, scores: bytes, distances: bytes | None
    ) -> None:
        self._engine, self._classes, self._stored, self._trees = engine, classes, scores, distances

    @property
    def needs_inputs(self) -> bool:
        """Whether a prediction's interval depends on its inputs."""
        return self._trees is not None and isinstance(self._engine, CompiledEngine)

    def find_bounds(
        self, columns: PlainColumns, predictions: EnginePredictions, level: float, history: LevelHistory | None = None
    ) -> PredictionBounds:
        """predictions: the engine's for these columns. history: late labels, by which the level is adjusted. Raises TooFewScores."""
        limit, adjusted = self.find_limit(level), self.adjust_level(level, history)
        if adjusted is not None:
            limit = self.find_limit(adjusted)
        if self._classes is None:
            values, width = np.array(predictions.values, dtype="float64"), limit * self._distances(columns)
            return PredictionBounds(level, values - width, values + width, adjusted=adjusted)
        assert predictions.proba is not None
        proba, classes = predictions.proba, self._classes
        order = np.argsort(-proba, axis=1, kind="stable")
        sets = [
            [classes[i] for i in places if shares[i] >= 1 - limit or classes[i] == called]
            for places, shares, called in zip(order.tolist(), proba.tolist(), predictions.values, strict=True)
        ]
        return PredictionBounds(level, sets=sets, adjusted=adjusted)

    def adjust_level(self, level: float, history: LevelHistory | None) -> float | None:
        """The level that keeps this one, by the labels of the windows so far; None without any."""
        if history is None or not history.windows:
            return None
        scores = len(self._scores["scores"])
        return history.adjust(level, scores / (scores + 1))

    def measure_labels(
        self, columns: PlainColumns | None, predictions: Predictions, truth: NDArray[Any], level: float
    ) -> LabelMeasures:
        """Labels (n,) beside the intervals of predictions (n,) at a level. columns: the inputs, None where needs_inputs is False.

        Raises TooFewScores.
        """
        limit, stored = self.find_limit(level), self._scores["scores"]
        if predictions.proba is not None:
            assert predictions.classes is not None
            classes, scores = predictions.classes[None, :], _score_classes(predictions, truth)
            sets = (predictions.proba >= 1 - limit) | (classes == predictions.value[:, None])
            inside, widths = (sets & (classes == truth[:, None])).any(axis=1), sets.sum(axis=1).astype("float64")
        else:
            usual = self._distances(columns or [[0.0] * len(truth)])
            scores = _measure_errors(predictions, truth) / usual
            inside, widths = scores <= limit, 2 * limit * usual
        needed = np.searchsorted(stored, scores) / (len(stored) + 1)
        return LabelMeasures(needed, np.asarray(inside), widths, len(stored))

    def find_limit(self, level: float) -> float:
        """The score that a share of `level` of all rows to come keeps, if they are like the held-out ones. Raises TooFewScores."""
        scores = self._scores["scores"]
        place = max(1, int(np.ceil((len(scores) + 1) * level - 1e-9)))
        if place > len(scores):
            most = len(scores) / (len(scores) + 1)
            raise TooFewScores(
                f"the scores of {len(scores):,} held-out rows can promise at most {np.floor(most * 1000) / 1000:g}"
            )
        return float(scores[place - 1])

    @cached_property
    def _scores(self) -> dict[str, Array]:
        return unpack_arrays(self._stored)

    @cached_property
    def _distances(self) -> Callable[[PlainColumns], Array]:
        mean = float(self._scores["mean"])
        if self._trees is None or not isinstance(self._engine, CompiledEngine):
            return lambda columns: np.full(len(columns[0]), mean)
        matrix, raw = self._engine.matrix, _run_trees(self._trees, float(self._scores["baseline"]))
        return lambda columns: np.maximum(raw(matrix(columns)), _LEAST_DISTANCE * mean)


def build_interval_files(engine: CompiledEngine | None, held: HeldOutRows) -> dict[str, bytes]:
    """The files for a version. engine None: it has no compiled form, and one usual distance serves all rows."""
    predictions, rows = held.predictions, len(held.truth)
    if predictions.proba is not None:
        scores = _score_classes(predictions, held.truth)
        return {SCORES_FILE: pack_arrays({"scores": np.sort(scores[-MAX_SCORES:])})}
    off = _measure_errors(predictions, held.truth)
    mean = max(float(off.mean()), 1e-12)
    if engine is None or rows < MIN_DISTANCE_ROWS:
        return {SCORES_FILE: pack_arrays({"scores": np.sort(off[-MAX_SCORES:] / mean), "mean": np.float64(mean)})}
    trees, baseline = _fit_distances(engine, held.columns, off, mean)
    usual = np.maximum(_run_trees(trees, baseline)(engine.matrix(held.columns)), _LEAST_DISTANCE * mean)
    scores = (off / usual)[1::2]
    packed = {"scores": np.sort(scores[-MAX_SCORES:]), "mean": np.float64(mean), "baseline": np.float64(baseline)}
    return {SCORES_FILE: pack_arrays(packed), DISTANCE_FILE: trees}


def _score_classes(predictions: Predictions, truth: NDArray[Any]) -> Array:
    assert predictions.proba is not None
    assert predictions.classes is not None
    right = truth[:, None] == predictions.classes[None, :]
    return np.asarray(1 - np.where(right, predictions.proba, 0.0).sum(axis=1))


def _measure_errors(predictions: Predictions, truth: NDArray[Any]) -> Array:
    return np.abs(truth.astype("float64") - predictions.value.astype("float64"))


def _fit_distances(engine: CompiledEngine, columns: PlainColumns, off: Array, mean: float) -> tuple[bytes, float]:
    """Trees of how far a row is usually off, from every other row; the rows between are scored."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    from windvane.serving.compiled.onnx_trees import build_onnx_model, read_boosting_tree

    inputs = engine.matrix(columns)
    model: Any = HistGradientBoostingRegressor(**_DISTANCE_TREES, early_stopping=False, random_state=0)
    model.fit(inputs[::2], off[::2] / mean)
    trees = [read_boosting_tree(predictor, 0) for (predictor,) in model._predictors]
    for tree in trees:
        tree.weights[:] *= mean
    return build_onnx_model(trees, inputs.shape[1], 1), float(np.ravel(model._baseline_prediction)[0]) * mean


def _run_trees(trees: bytes, baseline: float) -> Callable[[Array], Array]:
    run = start_trees(trees)
    return lambda inputs: np.asarray(run(inputs)[:, 0] + baseline)
