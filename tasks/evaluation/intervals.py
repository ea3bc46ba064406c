"""Figures with intervals: which rows move together (rows, groups, blocks of time), and the bootstrap over them.

Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, isfinite, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from threadpoolctl import threadpool_limits

from windvane.tasks.models.problem_types.class_labels import find_positive_class
from windvane.tasks.models.problem_types.classification import encode_labels
from windvane.tasks.models.problem_types.definitions import Metric, Predictions, ProblemType
from windvane.tasks.settings.problem_section import ProblemSettings

INTERVAL_CONFIDENCE = 0.95
# Below this many units, the spread between them is not reliable.
MIN_UNITS = 5
# Fewer distinct times than this cannot be cut into blocks.
MIN_TIMES = 8


@dataclass(frozen=True)
class ResamplingUnits:
    """The pieces that are drawn whole: `of_row` (n,) holds the number of each row's unit, 0 .. count-1."""

    of_row: NDArray[np.int64]
    count: int
    said: str

    def take(self, rows: NDArray[Any]) -> ResamplingUnits:
        """The units of some of the rows (positions or a mask), numbered anew."""
        found, of_row = np.unique(self.of_row[rows], return_inverse=True)
        return ResamplingUnits(of_row.astype(np.int64), len(found), self.said)


@dataclass(frozen=True)
class ScoreInterval:
    """A figure with its interval; None where it is not defined, and then `reason` explains why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def resample_by_row(rows: int) -> ResamplingUnits:
    """Every row on its own: rows that are independent."""
    return ResamplingUnits(np.arange(rows, dtype=np.int64), rows, f"{rows:,} rows, one by one")


def find_resampling_units(frame: pd.DataFrame, loss: NDArray[np.float64], problem: ProblemSettings) -> ResamplingUnits:
    """The units in which rows of `frame` (n rows, per-row `loss` (n,)) depend on each other.

    With problem.group: the groups. With problem.time: contiguous blocks of times. With both: whichever are fewer,
    the more cautious. Otherwise each row. Rows of one time are never parted.
    """
    found = [resample_by_row(len(frame))]
    if problem.group is not None and problem.group in frame:
        found.append(_groups(frame[problem.group], problem.group))
    if problem.time is not None and problem.time in frame and (blocks := _blocks(frame[problem.time], loss)):
        found.append(blocks)
    return min(found[1:], key=lambda u: u.count) if len(found) > 1 else found[0]


def _groups(column: pd.Series, name: str) -> ResamplingUnits:
    codes = column.factorize()[0].astype(np.int64)
    alone = codes < 0  # rows of no group stand for themselves
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    count = len(np.unique(codes))
    return ResamplingUnits(codes, count, f"{count:,} groups of {name}")


def _blocks(times: pd.Series, loss: NDArray[np.float64]) -> ResamplingUnits | None:
    codes, distinct = pd.factorize(times, sort=True)
    if len(distinct) < MIN_TIMES:
        return None
    codes = np.where(codes < 0, len(distinct) - 1, codes).astype(np.int64)
    known = np.where(np.isfinite(loss), loss, 0.0)
    sums, counts = (np.bincount(codes, weights, len(distinct)) for weights in (known, None))
    length = estimate_block_length(sums / counts.clip(1))
    count = max(len(distinct) // length, 1)
    # The remainder joins the last block: a short one would weigh as much as a whole one.
    of_row = np.minimum(codes // length, count - 1)
    return ResamplingUnits(of_row, count, f"{count:,} blocks of {length:,} consecutive times")


def estimate_block_length(series: NDArray[np.float64]) -> int:
    """Length of the blocks, in steps, for a series (t,) of mean losses in time order.

    Politis & White, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004), as
    corrected by Patton, Politis & White, ibid. 28 (2009): circular blocks, flat-top window. At least t^(1/3), the rate
    of Hall, Horowitz & Jing, Biometrika 82 (1995); at most t/8, so that blocks remain to be drawn.
    """
    steps = len(series)
    least, most = max(round(steps ** (1 / 3)), 1), max(steps // MIN_TIMES, 1)
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 2 * steps)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:steps] / steps
    if steps < 2 * MIN_TIMES or covariance[0] <= 1e-12 * max(float(np.mean(series**2)), 1e-300):
        return min(least, most)
    quiet = np.abs(covariance[1:] / covariance[0]) < 2 * sqrt(np.log10(steps) / steps)
    run = max(5, ceil(sqrt(np.log10(steps))))
    sums = np.convolve(quiet, np.ones(run), "valid")
    last = int(np.argmax(sums == run)) if (sums == run).any() else steps // 2
    width = min(2 * max(last, 1), steps - 1)
    lags = np.arange(1, width + 1)
    window = np.clip(2 * (1 - lags / width), 0, 1)
    spread = covariance[0] + 2 * np.sum(window * covariance[1 : width + 1])
    slope = 2 * np.sum(window * lags * covariance[1 : width + 1])
    best = (1.5 * slope**2 / spread**2 * steps) ** (1 / 3) if spread > 0 else most
    return int(min(max(ceil(best) if isfinite(best) else most, least), most))


def draw_bootstrap_samples(units: ResamplingUnits, times: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`times` bootstrap samples: how often each unit (count,) is drawn, whole numbers as floats."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield np.bincount(rng.integers(units.count, size=units.count), minlength=units.count).astype(np.float64)


def estimate_mean(
    values: NDArray[np.float64], units: ResamplingUnits, confidence: float = INTERVAL_CONFIDENCE
) -> ScoreInterval:
    """Mean of `values` (n,) with an interval that allows for the units; see estimate_standard_error()."""
    if not len(values) or not np.isfinite(values).all():
        return ScoreInterval(None, None, None, "there are no rows" if not len(values) else "a row has no defined loss")
    centre = float(values.mean())
    error = estimate_standard_error((values - centre) / len(values), units)
    if error is None:
        return ScoreInterval(centre, None, None, f"only {units.count} independent pieces")
    margin = error * compute_t_quantile(units.count - 1, confidence)
    return ScoreInterval(centre, centre - margin, centre + margin)


def estimate_standard_error(influence: NDArray[np.float64], units: ResamplingUnits) -> float | None:
    """Standard error from the rows' influence (n,), summed within units; None with fewer than five units.

    The cluster-robust variance of Liang & Zeger, Biometrika 73 (1986), with the usual count / (count - 1).
    """
    if units.count < MIN_UNITS:
        return None
    sums = np.bincount(units.of_row, weights=influence, minlength=units.count)
    return sqrt(float(sums @ sums) * units.count / (units.count - 1))


def compute_t_quantile(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's t."""
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))


# Rows times bootstrap samples: bounds the time on large records.
MAX_RESAMPLED_ROWS = 30_000_000
MAX_BOOTSTRAP_SAMPLES, MIN_BOOTSTRAP_SAMPLES = 500, 200
# As many samples give a standard error (Efron & Tibshirani 1993, chapter 6.4); quantiles need the number above.
MIN_STANDARD_ERROR_SAMPLES = 50
# As many as 16 bits hold.
MAX_RANKS = 65_536


def bootstrap_metrics(
    kind: ProblemType,
    truth: NDArray[Any],
    made: Predictions,
    pieces: ResamplingUnits,
    seed: int,
    names: Iterable[str],
    weights: NDArray[np.float64] | None = None,
) -> dict[str, ScoreInterval]:
    """Metrics with percentile intervals from a bootstrap over whole units; a row counts `weights` (n,) times as often as it is drawn.

    Rows: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Groups: the cluster bootstrap, Field
    & Welsh, JRSS B 69 (2007). Time: blocks, Kuensch, Annals of Statistics 17 (1989), fixed ones after Carlstein, ibid.
    14 (1986). 200 to 500 samples, fewer on many rows; a metric that must see every row of every sample (ROC-AUC, average precision) gets
    down to 50 there, and then its standard error makes the interval. A sample in which a metric is not defined is left
    out; if half are, so is the interval. With few units the quantiles are moved outwards to where Student's t would
    have them (the expanded percentile interval, Hesterberg, The American Statistician 69, 2015). An interval is widened
    to hold the estimate, which a biased metric can leave.
    """
    values = {name: float(kind.metrics[name].score(truth, made, weights)) if len(truth) else nan for name in names}
    if pieces.count < MIN_UNITS:
        few = f"only {pieces.count} independent pieces"
        return {name: _interval(value, [], pieces.count, few) for name, value in values.items()}
    samples = min(max(MAX_RESAMPLED_ROWS // len(truth), MIN_BOOTSTRAP_SAMPLES), MAX_BOOTSTRAP_SAMPLES)
    classes = made.proba.shape[1] if made.proba is not None else 1
    slow = min(max(MAX_RESAMPLED_ROWS // (2 * len(truth) * classes), MIN_STANDARD_ERROR_SAMPLES), samples)
    known = {name: value for name, value in values.items() if isfinite(value)}
    rows = _WeightedRows(truth, made, pieces, np.ones(len(truth)) if weights is None else weights)
    ways = {name: _choose_metric_method(kind, name, rows, value) for name, value in known.items()}
    found: dict[str, list[float]] = {name: [] for name in values}
    # Sums this short gain nothing from threads, and beside a busy neighbour lose ten times their time.
    with threadpool_limits(limits=1):
        for number, drawn in enumerate(draw_bootstrap_samples(pieces, samples, seed)):
            for name, way in ways.items():
                if way.quick or number < slow:
                    found[name].append(way.score(drawn))
    return {name: _interval(value, found[name], pieces.count) for name, value in values.items()}


@dataclass(frozen=True)
class _MetricMethod:
    """How a metric is worked out from the multiplicities of the units; `quick`: without reading every row."""

    quick: bool
    score: Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True)
class _WeightedRows:
    """Truth, predictions, units and weights of n rows."""

    truth: NDArray[Any]
    made: Predictions
    pieces: ResamplingUnits
    weights: NDArray[np.float64]

    def drawn(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much each row counts in a sample that holds the units so often."""
        return np.asarray(units[self.pieces.of_row] * self.weights)


def _choose_metric_method(kind: ProblemType, name: str, rows: _WeightedRows, value: float) -> _MetricMethod:
    """The cheapest exact way, found by trying: a short cut counts if it gives the metric's own `value` on all rows."""
    metric, truth, made, pieces = kind.metrics[name], rows.truth, rows.made, rows.pieces
    loss = kind.loss(truth, made, name)
    sizes = np.bincount(pieces.of_row, rows.weights, pieces.count)
    sums = np.bincount(pieces.of_row, rows.weights * loss, pieces.count)
    mean = float(sums.sum() / sizes.sum())
    if _same(mean, value):
        return _MetricMethod(True, lambda drawn: float(drawn @ sums / (drawn @ sizes)))
    if _same(sqrt(mean), value):
        return _MetricMethod(True, lambda drawn: sqrt(float(drawn @ sums / (drawn @ sizes))))
    if not metric.weighted:  # rows that count twice are there twice
        return _MetricMethod(False, lambda drawn: _score_repeated(metric, rows, drawn))
    if made.proba is not None and not metric.own:
        true, hard, cell = _cells(truth, made)
        if _same(metric.score(true, hard, np.bincount(cell, rows.weights)), value):
            return _MetricMethod(
                True, lambda drawn: metric.score(true, hard, np.bincount(cell, rows.drawn(drawn), len(true)))
            )
        true, ranked = _ranked(truth, made)
        if _same(metric.score(true, ranked, rows.weights), value, 1e-12 if len(truth) <= MAX_RANKS else 1e-4):
            return _MetricMethod(False, lambda drawn: metric.score(true, ranked, rows.drawn(drawn)))
    return _MetricMethod(False, lambda drawn: metric.score(truth, made, rows.drawn(drawn)))


def _score_repeated(metric: Metric, rows: _WeightedRows, drawn: NDArray[np.float64]) -> float:
    """A metric that takes no weights, on a sample of whole units."""
    at = np.repeat(np.arange(len(rows.truth)), drawn[rows.pieces.of_row].astype(int))
    made = rows.made
    proba = None if made.proba is None else made.proba[at]
    return metric.score(rows.truth[at], replace(made, value=made.value[at], proba=proba), None)


def _same(one: float, other: float, within: float = 1e-12) -> bool:
    return abs(one - other) <= within * abs(other)


def _cells(truth: NDArray[Any], made: Predictions) -> tuple[NDArray[Any], Predictions, NDArray[np.int64]]:
    """One row per cell of the confusion (true class, sure prediction), and each row's cell: all that accuracy needs."""
    classes = np.asarray(made.classes)
    known, code = np.unique(truth, return_inverse=True)
    cells, cell = np.unique(code * len(classes) + encode_labels(made.value, made), return_inverse=True)
    guess = cells % len(classes)
    sure = replace(made, value=classes[guess], proba=np.eye(len(classes))[guess])
    return known[cells // len(classes)], sure, cell


def _ranked(truth: NDArray[Any], made: Predictions) -> tuple[NDArray[Any], Predictions]:
    """Ranks for probabilities and numbers for classes: all that ROC-AUC and average precision need, and several times faster to sort.

    Above 65,536 rows neighbouring ranks fall together; the estimate itself never comes from here.
    """
    classes = list(np.asarray(made.classes))
    numbers = np.arange(len(classes))
    # Of two classes the one that is called 1 is looked for.
    if len(classes) == 2 and find_positive_class(np.asarray(made.classes), made.positive) == 0:
        numbers = 1 - numbers
    known, code = np.unique(truth, return_inverse=True)
    given = np.array([numbers[classes.index(k)] if k in classes else len(classes) for k in known])
    ranks = np.empty(np.asarray(made.proba).shape, dtype=np.uint16)
    for i, column in enumerate(np.asarray(made.proba).T):
        rank = np.unique(column, return_inverse=True)[1]
        ranks[:, i] = rank * (MAX_RANKS - 1) // max(int(rank.max()), MAX_RANKS - 1)
    return given[code], replace(made, proba=ranks, classes=numbers, positive=None)


def _interval(value: float, sampled: list[float], count: int, reason: str | None = None) -> ScoreInterval:
    if not isfinite(value):
        return ScoreInterval(None, None, None, "not defined on these rows (one class, no spread, or no rows)")
    known = np.array([s for s in sampled if isfinite(s)])
    if reason is not None or not len(known) or 2 * len(known) < len(sampled):
        return ScoreInterval(value, None, None, reason or "not defined on half of the bootstrap samples")
    if len(sampled) < MIN_BOOTSTRAP_SAMPLES:
        margin = compute_t_quantile(len(known) - 1, INTERVAL_CONFIDENCE) * float(known.std(ddof=1))
        return ScoreInterval(value, value - margin, value + margin)
    tail = float(special.ndtr(-sqrt(count / (count - 1)) * compute_t_quantile(count - 1, INTERVAL_CONFIDENCE)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return ScoreInterval(value, min(float(low), value), max(float(high), value))
