"""What the held-out record shows: metrics with intervals, confusion, calibration, and the slices where the model errs
most. Fits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from windvane.tasks.evaluation.intervals import (
    INTERVAL_CONFIDENCE,
    MIN_UNITS,
    ResamplingUnits,
    ScoreInterval,
    bootstrap_metrics,
    compute_t_quantile,
    estimate_standard_error,
    find_resampling_units,
    resample_by_row,
)
from windvane.tasks.models.problem_types.class_labels import find_positive_class
from windvane.tasks.models.problem_types.definitions import ClassLabel, Predictions, ProblemType
from windvane.tasks.models.row_weights import read_row_weights
from windvane.tasks.settings.project_params import Settings

PREDICTION_COLUMN, LOSS_COLUMN, BASELINE_LOSS_COLUMN = "_prediction", "_loss", "_baseline_loss"
PROBABILITY_PREFIX = "_p_"
# Of a record that holds more than test rows: 0, or the fold whose models did not know the row (tasks/evaluation/out_of_fold.py).
FOLD_COLUMN = "_held_out_fold"

CALIBRATION_BINS = 10
MIN_CALIBRATION_BIN_ROWS = 20


@dataclass(frozen=True)
class ConfusionTable:
    """Counts (true class, predicted class), classes in the model's order, then classes that the model never met."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of like predicted probability: its mean, the share that came true, and that share's 95 % interval."""

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class CalibrationCurve:
    """Reliability: bins of equal size; `error`: expected calibration error; `of`: which probability is meant."""

    of: str
    error: float
    bins: tuple[CalibrationBin, ...]


def read_predictions(record: pd.DataFrame, truth: NDArray[Any], positive: ClassLabel | None = None) -> Predictions:
    """The predictions that a record holds; classes have the type of `truth` (n,)."""
    value = record[PREDICTION_COLUMN].to_numpy()
    # Whatever the table's own columns are called, these stand behind the last one that Windvane always writes.
    names = list(record.columns[list(record.columns).index(BASELINE_LOSS_COLUMN) + 1 :])
    if not names:
        return Predictions(value)
    readers: dict[str, Callable[[str], Any]] = {"b": lambda name: name == "True", "i": int, "f": float}
    read = readers.get(truth.dtype.kind, str)
    classes = np.array([read(name.removeprefix(PROBABILITY_PREFIX)) for name in names])
    return Predictions(value, record[names].to_numpy(dtype=np.float64), classes, positive)


def name_class_column(value: Any) -> str:
    """A class as it is in a column's name."""
    return str(value)


def compute_scores(kind: ProblemType, record: pd.DataFrame, settings: Settings, seed: int) -> dict[str, ScoreInterval]:
    """Every metric of the problem type on the record, with a 95 % bootstrap interval; see bootstrap_metrics().

    Resampled by block of time or by group where the problem names a time or a group, else by row (tasks/evaluation/intervals.py).
    """
    truth = kind.truth(record[settings.problem.target])
    pieces = find_resampling_units(record, record[LOSS_COLUMN].to_numpy(dtype="float64"), settings.problem)
    weights = read_row_weights(record, settings.problem.weight)
    made = read_predictions(record, truth, kind.positive)
    return bootstrap_metrics(kind, truth, made, pieces, seed, kind.metrics, weights)


def count_confusion(truth: NDArray[Any], made: Predictions) -> ConfusionTable | None:
    """Who is taken for whom; None where there are no classes."""
    if made.classes is None:
        return None
    names, true, called = ([name_class_column(v) for v in values] for values in (made.classes, truth, made.value))
    classes = [*names, *sorted(set(true) - set(names))]
    counts = confusion_matrix(true, called, labels=classes)
    return ConfusionTable(tuple(classes), tuple(tuple(row) for row in counts.tolist()))


def measure_calibration(truth: NDArray[Any], made: Predictions) -> CalibrationCurve | None:
    """Whether probabilities come true; None where there are none.

    Two classes: the probability of the positive one. More: of the predicted class (Guo et al., ICML 2017). The error is
    the mean distance between predicted and observed (Naeini, Cooper & Hauskrecht, AAAI 2015), in bins of equal size
    (Nixon et al., CVPR workshops 2019). Intervals: Wilson, JASA 22 (1927).
    """
    if made.proba is None or made.classes is None or not len(truth):
        return None
    if len(made.classes) == 2:
        at = find_positive_class(made.classes, made.positive)
        of, predicted = f"P({name_class_column(made.classes[at])})", made.proba[:, at]
        came_true = truth == made.classes[at]
    else:
        of, predicted = "P(predicted class)", made.proba.max(axis=1)
        came_true = truth == made.classes[made.proba.argmax(axis=1)]
    order = np.argsort(predicted, kind="stable")
    bins = []
    for part in np.array_split(order, min(CALIBRATION_BINS, max(len(order) // MIN_CALIBRATION_BIN_ROWS, 1))):
        share = binomtest(int(came_true[part].sum()), len(part)).proportion_ci(method="wilson")
        observed = float(came_true[part].mean())
        bins.append(CalibrationBin(float(predicted[part].mean()), observed, share.low, share.high, len(part)))
    error = sum(abs(b.predicted - b.observed) * b.rows for b in bins) / len(order)
    return CalibrationCurve(of, float(error), tuple(bins))


# A slice below twenty rows, or below a hundredth of all, is an anecdote.
MIN_SLICE_ROWS = 20
MIN_SLICE_SHARE = 0.01
SLICE_BINS = 5
MAX_SLICE_VALUES = 50


@dataclass(frozen=True)
class SliceScore:
    """One slice: mean loss there and elsewhere, by how much it is worse, with an interval; `clear`: surely worse."""

    column: str
    value: str
    rows: int
    loss: float
    rest: float
    excess: float
    low: float
    high: float
    clear: bool


def find_worst_slices(
    record: pd.DataFrame,
    columns: Sequence[str],
    units: ResamplingUnits,
    group: str | None = None,
    weight: str | None = None,
) -> tuple[SliceScore, ...]:
    """All slices of `record` by `columns` (and `group`), worst first: the clearly worse, then others, by the excess.

    The column `weight` holds how much a row counts.

    Numbers and dates are cut into fifths of the rows, missing values are a slice of their own, categories are as they
    are (the fifty most frequent). A slice needs 20 rows, a hundredth of all, and five independent units, and so does
    the rest. The intervals hold for all slices at once: each at 1 - 5 % / number of slices checked (Bonferroni; Dunn,
    JASA 56, 1961), so finding one `clear` slice by mere chance has a probability of at most about one in twenty.
    """
    losses = record[LOSS_COLUMN].to_numpy(dtype=np.float64)
    weights = read_row_weights(record, weight)
    weights = np.ones(len(losses)) if weights is None else weights
    if not len(losses) or not np.isfinite(losses).all():
        return ()
    named = [c for c in dict.fromkeys([*columns, *([group] if group else [])]) if c in record]
    # Within one group there is one unit: a slice by the group itself is measured over its rows.
    units_by_column = {c: resample_by_row(len(record)) if c == group else units for c in named}
    slices = [
        (column, value, mask)
        for column in named
        for value, mask in _cut_column(record[column])
        if _has_enough_rows(mask, units_by_column[column])
    ]
    level = 1 - (1 - INTERVAL_CONFIDENCE) / max(len(slices), 1)
    found = [
        SliceScore(column, value, *_compare(losses, weights, mask, units_by_column[column], level))
        for column, value, mask in slices
    ]
    return tuple(sorted(found, key=lambda s: (not s.clear, -s.excess, s.column, s.value)))


def _has_enough_rows(mask: NDArray[np.bool_], units: ResamplingUnits) -> bool:
    least = max(MIN_SLICE_ROWS, MIN_SLICE_SHARE * len(mask))
    inside = int(mask.sum())
    if min(inside, len(mask) - inside) < least:
        return False
    here = len(np.unique(units.of_row[mask]))
    return here >= MIN_UNITS and len(np.unique(units.of_row[~mask])) >= MIN_UNITS


def _compare(
    losses: NDArray[np.float64],
    weights: NDArray[np.float64],
    mask: NDArray[np.bool_],
    units: ResamplingUnits,
    level: float,
) -> tuple[int, float, float, float, float, float, bool]:
    """Rows of the slice, mean loss there and elsewhere, by how much it is worse with both ends, and whether clearly."""
    inside, outside = float(weights[mask].sum()), float(weights[~mask].sum())
    if not inside or not outside:  # rows that count nothing
        return int(mask.sum()), 0.0, 0.0, 0.0, 0.0, 0.0, False
    here, rest = float(weights[mask] @ losses[mask]) / inside, float(weights[~mask] @ losses[~mask]) / outside
    influence = weights * np.where(mask, (losses - here) / inside, -(losses - rest) / outside)
    pieces = min(len(np.unique(units.of_row[mask])), len(np.unique(units.of_row[~mask])))
    margin = (estimate_standard_error(influence, units) or 0.0) * compute_t_quantile(pieces - 1, level)
    excess = here - rest
    # A spread of exactly nothing (all losses alike) must not turn rounding into a finding.
    clear = excess - margin > 1e-12 * max(abs(here), abs(rest))
    return int(mask.sum()), here, rest, excess, excess - margin, excess + margin, clear


def _cut_column(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(label, mask) of each part of a column, missing values as a part of their own."""
    missing = column.isna().to_numpy()
    if missing.any():
        yield "missing", missing
    ordered = types.is_datetime64_any_dtype(column) or (
        types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    )
    if not ordered or column.nunique() <= SLICE_BINS:
        for value in column.value_counts().index[:MAX_SLICE_VALUES]:
            yield _label(value), ((column == value).fillna(False).to_numpy(dtype=bool)) & ~missing
        return
    present = column[~missing]
    edges = present.quantile(np.linspace(0, 1, SLICE_BINS + 1)[1:-1], interpolation="lower").unique()
    code = np.searchsorted(edges, column.to_numpy(), side="left")
    for number in np.unique(code[~missing]):
        mask = (code == number) & ~missing
        part = column[mask]
        low, high = _label(part.min()), _label(part.max())
        yield (low if low == high else f"{low} to {high}"), mask


def _label(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)
