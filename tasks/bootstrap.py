"""Metrics with intervals, by a bootstrap over rows, groups or blocks. Owns the loop; the kinds own the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

from windvane.tasks.resampling import CONFIDENCE, FEWEST, Interval, Units, draws, quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from windvane.tasks.problems import Kind, Predictions

# Rows times bootstrap samples: bounds the time on large records.
BUDGET = 30_000_000
MOST_SAMPLES, FEWEST_SAMPLES = 500, 200
# As many samples give a standard error (Efron & Tibshirani 1993, chapter 6.4); quantiles need the number above.
FEWEST_FOR_ERROR = 50
# As many as 16 bits hold.
RANKS = 65_536


def bootstrap(
    kind: Kind, truth: NDArray[Any], made: Predictions, pieces: Units, seed: int, names: Iterable[str]
) -> dict[str, Interval]:
    """Metrics with percentile intervals from a bootstrap over whole units.

    Rows: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Groups: the cluster bootstrap, Field
    & Welsh, JRSS B 69 (2007). Time: blocks, Kuensch, Annals of Statistics 17 (1989), fixed ones after Carlstein, ibid.
    14 (1986). 200 to 500 samples, fewer on many rows; a metric that must see every row of every sample (ROC-AUC, average precision) gets
    down to 50 there, and then its standard error makes the interval. A sample in which a metric is not defined is left
    out; if half are, so is the interval. With few units the quantiles are moved outwards to where Student's t would
    have them (the expanded percentile interval, Hesterberg, The American Statistician 69, 2015). An interval is widened
    to hold the estimate, which a biased metric can leave.
    """
    from threadpoolctl import threadpool_limits

    values = {
        name: float(kind.metrics[name].score(truth, made, None)) if len(truth) else float("nan") for name in names
    }
    if pieces.count < FEWEST:
        return {
            name: _interval(value, [], pieces.count, f"only {pieces.count} independent pieces")
            for name, value in values.items()
        }
    samples = min(max(BUDGET // len(truth), FEWEST_SAMPLES), MOST_SAMPLES)
    classes = made.proba.shape[1] if made.proba is not None else 1
    slow = min(max(BUDGET // (2 * len(truth) * classes), FEWEST_FOR_ERROR), samples)
    ways = {name: _way(kind, name, truth, made, value, pieces) for name, value in values.items() if isfinite(value)}
    found: dict[str, list[float]] = {name: [] for name in values}
    # Sums this short gain nothing from threads, and beside a busy neighbour lose ten times their time.
    with threadpool_limits(limits=1):
        for number, drawn in enumerate(draws(pieces, samples, seed)):
            for name, way in ways.items():
                if way.quick or number < slow:
                    found[name].append(way.score(drawn))
    return {name: _interval(value, found[name], pieces.count) for name, value in values.items()}


@dataclass(frozen=True)
class _Way:
    """How a metric is worked out from the multiplicities of the units; `quick`: without a look at every row."""

    quick: bool
    score: Callable[[NDArray[np.float64]], float]


def _way(kind: Kind, name: str, truth: NDArray[Any], made: Predictions, value: float, pieces: Units) -> _Way:
    """The cheapest exact way, found by trying: a short cut counts if it gives the metric's own `value` on all rows."""
    import numpy as np

    metric = kind.metrics[name]
    loss = kind.loss(truth, made, name)
    sizes = np.bincount(pieces.of_row, minlength=pieces.count).astype(np.float64)
    sums = np.bincount(pieces.of_row, weights=loss, minlength=pieces.count)
    if _same(float(loss.mean()), value):
        return _Way(True, lambda drawn: float(drawn @ sums / (drawn @ sizes)))
    if _same(sqrt(loss.mean()), value):
        return _Way(True, lambda drawn: sqrt(float(drawn @ sums / (drawn @ sizes))))
    if made.proba is not None:
        true, hard, cell = _cells(truth, made)
        if _same(metric.score(true, hard, np.bincount(cell).astype(np.float64)), value):
            return _Way(
                True, lambda drawn: metric.score(true, hard, np.bincount(cell, drawn[pieces.of_row], len(true)))
            )
        true, ranked = _ranked(truth, made)
        if _same(metric.score(true, ranked, None), value, 1e-12 if len(truth) <= RANKS else 1e-4):
            return _Way(False, lambda drawn: metric.score(true, ranked, drawn[pieces.of_row]))
    return _Way(False, lambda drawn: metric.score(truth, made, drawn[pieces.of_row]))


def _same(one: float, other: float, within: float = 1e-12) -> bool:
    return abs(one - other) <= within * abs(other)


def _cells(truth: NDArray[Any], made: Predictions) -> tuple[NDArray[Any], Predictions, NDArray[np.int64]]:
    """One row per cell of the confusion (true class, sure prediction), and each row's cell: all that accuracy needs."""
    import numpy as np

    from windvane.tasks.problems.classification import positions

    classes = np.asarray(made.classes)
    known, code = np.unique(truth, return_inverse=True)
    cells, cell = np.unique(code * len(classes) + positions(made.value, made), return_inverse=True)
    guess = cells % len(classes)
    sure = replace(made, value=classes[guess], proba=np.eye(len(classes))[guess])
    return known[cells // len(classes)], sure, cell


def _ranked(truth: NDArray[Any], made: Predictions) -> tuple[NDArray[Any], Predictions]:
    """Ranks for probabilities and numbers for classes: all that ROC-AUC and average precision need, and several times faster to sort.

    Above 65,536 rows neighbouring ranks fall together; the estimate itself never comes from here.
    """
    import numpy as np

    from windvane.tasks.problems.classification import positive

    classes = list(np.asarray(made.classes))
    numbers = np.arange(len(classes))
    # Of two classes the one that is called 1 is looked for.
    numbers = 1 - numbers if len(classes) == 2 and positive(np.asarray(made.classes)) == 0 else numbers
    known, code = np.unique(truth, return_inverse=True)
    given = np.array([numbers[classes.index(k)] if k in classes else len(classes) for k in known])
    ranks = np.empty(np.asarray(made.proba).shape, dtype=np.uint16)
    for i, column in enumerate(np.asarray(made.proba).T):
        rank = np.unique(column, return_inverse=True)[1]
        ranks[:, i] = rank * (RANKS - 1) // max(int(rank.max()), RANKS - 1)
    return given[code], replace(made, proba=ranks, classes=numbers)


def _interval(value: float, sampled: list[float], count: int, reason: str | None = None) -> Interval:
    import numpy as np
    from scipy import special

    if not isfinite(value):
        return Interval(None, None, None, "not defined on these rows (one class, no spread, or no rows)")
    known = np.array([s for s in sampled if isfinite(s)])
    if reason is not None or not len(known) or 2 * len(known) < len(sampled):
        return Interval(value, None, None, reason or "not defined on half of the bootstrap samples")
    if len(sampled) < FEWEST_SAMPLES:
        margin = quantile(len(known) - 1, CONFIDENCE) * float(known.std(ddof=1))
        return Interval(value, value - margin, value + margin)
    tail = float(special.ndtr(-sqrt(count / (count - 1)) * quantile(count - 1, CONFIDENCE)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))
