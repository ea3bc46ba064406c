"""Which rows move together when chance is measured: rows, groups or blocks of time. Knows no model and no metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.settings import Problem

CONFIDENCE = 0.95
# Fewer units than this and the spread between them says nothing reliable.
FEWEST = 5
# Fewer distinct times than this cannot be cut into blocks.
FEWEST_TIMES = 8


@dataclass(frozen=True)
class Units:
    """The pieces that are drawn whole: `of_row` (n,) holds the number of each row's unit, 0 .. count-1."""

    of_row: NDArray[np.int64]
    count: int
    said: str

    def take(self, rows: NDArray[Any]) -> Units:
        """The units of some of the rows (positions or a mask), numbered anew."""
        import numpy as np

        found, of_row = np.unique(self.of_row[rows], return_inverse=True)
        return Units(of_row.astype(np.int64), len(found), self.said)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; None where it is not defined, and then `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def by_row(rows: int) -> Units:
    """Every row on its own: rows that tell nothing of each other."""
    import numpy as np

    return Units(np.arange(rows, dtype=np.int64), rows, f"{rows:,} rows, one by one")


def units(frame: pd.DataFrame, loss: NDArray[np.float64], problem: Problem) -> Units:
    """The units in which rows of `frame` (n rows, per-row `loss` (n,)) depend on each other.

    With problem.group: the groups. With problem.time: contiguous blocks of times. With both: whichever are fewer,
    the more cautious. Otherwise each row. Rows of one time are never parted.
    """
    found = [by_row(len(frame))]
    if problem.group is not None and problem.group in frame:
        found.append(_groups(frame[problem.group], problem.group))
    if problem.time is not None and problem.time in frame:
        blocks = _blocks(frame[problem.time], loss)
        if blocks is not None:
            found.append(blocks)
    return min(found[1:], key=lambda u: u.count) if len(found) > 1 else found[0]


def _groups(column: pd.Series, name: str) -> Units:
    import numpy as np

    codes = column.factorize()[0].astype(np.int64)
    alone = codes < 0  # rows of no group stand for themselves
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    count = len(np.unique(codes))
    return Units(codes, count, f"{count:,} groups of {name}")


def _blocks(times: pd.Series, loss: NDArray[np.float64]) -> Units | None:
    import numpy as np
    import pandas as pd

    codes, distinct = pd.factorize(times, sort=True)
    if len(distinct) < FEWEST_TIMES:
        return None
    codes = np.where(codes < 0, len(distinct) - 1, codes).astype(np.int64)
    known = np.where(np.isfinite(loss), loss, 0.0)
    mean = np.bincount(codes, weights=known, minlength=len(distinct)) / np.bincount(
        codes, minlength=len(distinct)
    ).clip(1)
    length = block_length(mean)
    count = max(len(distinct) // length, 1)
    # The remainder joins the last block: a short one would weigh as much as a whole one.
    return Units(np.minimum(codes // length, count - 1), count, f"{count:,} blocks of {length:,} consecutive times")


def block_length(series: NDArray[np.float64]) -> int:
    """Length of the blocks, in steps, for a series (t,) of mean losses in time order.

    Politis & White, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004), as
    corrected by Patton, Politis & White, ibid. 28 (2009): circular blocks, flat-top window. At least t^(1/3), the rate
    of Hall, Horowitz & Jing, Biometrika 82 (1995); at most t/8, so that blocks remain to be drawn.
    """
    import numpy as np

    steps = len(series)
    least, most = max(round(steps ** (1 / 3)), 1), max(steps // FEWEST_TIMES, 1)
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 2 * steps)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:steps] / steps
    if steps < 2 * FEWEST_TIMES or covariance[0] <= 1e-12 * max(float(np.mean(series**2)), 1e-300):
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


def draws(units: Units, times: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`times` bootstrap samples: how often each unit (count,) is drawn, whole numbers as floats."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for _ in range(times):
        yield np.bincount(rng.integers(units.count, size=units.count), minlength=units.count).astype(np.float64)


def mean(values: NDArray[np.float64], units: Units, confidence: float = CONFIDENCE) -> Interval:
    """Mean of `values` (n,) with an interval that allows for the units; see spread()."""
    import numpy as np

    if not len(values) or not np.isfinite(values).all():
        return Interval(None, None, None, "there are no rows" if not len(values) else "a row has no defined loss")
    centre = float(values.mean())
    error = spread((values - centre) / len(values), units)
    if error is None:
        return Interval(centre, None, None, f"only {units.count} independent pieces")
    margin = error * quantile(units.count - 1, confidence)
    return Interval(centre, centre - margin, centre + margin)


def spread(influence: NDArray[np.float64], units: Units) -> float | None:
    """Standard error from the rows' influence (n,), summed within units; None with fewer than five units.

    The cluster-robust variance of Liang & Zeger, Biometrika 73 (1986), with the usual count / (count - 1).
    """
    import numpy as np

    if units.count < FEWEST:
        return None
    sums = np.bincount(units.of_row, weights=influence, minlength=units.count)
    return sqrt(float(sums @ sums) * units.count / (units.count - 1))


def quantile(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(freedom, 0.5 + confidence / 2))
