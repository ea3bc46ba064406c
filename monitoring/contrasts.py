"""Where record and window differ: in inputs, labels, labels given inputs, inputs given labels. Measures, concludes nothing.

Each contrast is the largest of many differences of means, in units of its standard error, and is told in nats: half its square (or,
where the error rests on few blocks, the log-likelihood of Student's t) less the logarithm of how many were looked at. Rows of one
block of time, or of one group, count together (tasks/paired.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.inputs import Column
from windvane.tasks.paired import MIN_BLOCKS, Blocks, Floats, paired
from windvane.tasks.resampling import quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Words of a category that are looked at one by one; bins of a label that stand for its value.
_WORDS, _BINS = 8, 10
_CONFIDENCE = 0.975


@dataclass(frozen=True)
class Contrast:
    """`nats` speak for a difference (0: none); `columns` show it, loudest first."""

    nats: float = 0.0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sides:
    """Rows of record (n) and window (m), with the blocks in which they depend on each other."""

    record: tuple[Blocks, ...]
    window: tuple[Blocks, ...]
    rows: tuple[int, int]

    def apart(self, record: Floats, window: Floats) -> Floats:
        """Differences of means (k,) of (n, k) and (m, k) values, in standard errors."""
        gap = window.mean(axis=0) - record.mean(axis=0)
        error = np.hypot(_error(record, self.record), _error(window, self.window))
        return np.asarray(np.where(error > 0, gap / np.where(error > 0, error, 1), 0.0))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the errors: of the side with fewer blocks."""
        counts = [parts[0].count for parts in (self.record, self.window)]
        return max(min([c for c in counts if c >= MIN_BLOCKS], default=min(self.rows)) - 1.0, 1.0)

    def nats(self, scores: Floats) -> Floats:
        """What differences in standard errors say, before their number is paid for."""
        return np.asarray((self.freedom + 1) / 2 * np.log1p(scores**2 / self.freedom))

    def split(self, both: Floats) -> tuple[Floats, Floats]:
        """Values of record and window that stand one below the other."""
        return both[: self.rows[0]], both[self.rows[0] :]


def _error(values: Floats, parts: tuple[Blocks, ...]) -> Floats:
    """Standard errors (k,) of means of (n, k) values; with dependent rows as the paired test has it."""
    plain = values.std(axis=0) / np.sqrt(max(len(values) - 1, 1))
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS:
        return np.asarray(plain)
    wide = paired(values.T, parts, _CONFIDENCE)
    return np.asarray(np.maximum((wide.mean - wide.low) / quantile(parts[0].count - 1, 0.95), plain))


@dataclass(frozen=True)
class Features:
    """Inputs as numbers (rows, k) between -1 and 1, and the column that each comes from."""

    values: Floats
    names: tuple[str, ...]

    def drop(self, columns: tuple[str, ...]) -> Features:
        """Without those of some columns."""
        kept = [i for i, name in enumerate(self.names) if name not in columns]
        return Features(self.values[:, kept], tuple(self.names[i] for i in kept))


def features(columns: tuple[Column, ...], rows: int) -> Features:
    """Of a number its rank, how far that is from the middle, and whether it is missing; of a category its frequent words."""
    found: list[Floats] = []
    names: list[str] = []
    for column in columns:
        for values in _numbers(column.both) if column.number else _words(column):
            if values.min(initial=0) < values.max(initial=0):
                found.append(values)
                names.append(column.name)
    return Features(np.column_stack(found) if found else np.zeros((rows, 0)), tuple(names))


def ranks(values: Floats) -> Floats:
    """Places from -1 to 1, ties in their middle; 0 where missing."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    out = np.zeros(len(values))
    if known.any():
        out[known] = (2 * rankdata(values[known]) - 1) / known.sum() - 1
    return out


def _numbers(values: Floats) -> list[Floats]:
    place = ranks(values)
    return [place, np.abs(place) - 0.5, np.isnan(values).astype(np.float64)]


def _words(column: Column) -> list[Floats]:
    codes = column.both.astype(int)
    counts = np.bincount(codes + 1, minlength=len(column.words) + 1)
    common = [i - 1 for i in np.argsort(-counts, kind="stable")[:_WORDS] if counts[i]]
    return [(codes == c).astype(np.float64) for c in common] + [(~np.isin(codes, common)).astype(np.float64)]


def without(values: Floats, basis: Floats) -> Floats:
    """What (rows, k) values hold beyond a linear basis (rows, b)."""
    q, _ = np.linalg.qr(basis)
    return np.asarray(values - q @ (q.T @ values))


def of_number(values: Floats) -> Floats:
    """A basis (rows, b) for a number: bins of its ranks, and a line within."""
    place = ranks(values)
    bins = np.minimum(((place + 1) / 2 * _BINS).astype(int), _BINS - 1)
    return np.column_stack([np.eye(_BINS)[bins][:, np.bincount(bins, minlength=_BINS) > 0], place, place**3])


def of_class(codes: NDArray[np.int64]) -> Floats:
    """A basis (rows, k) for classes."""
    return np.eye(int(codes.max(initial=0)) + 1)[codes]


def inputs_moved(found: Features, sides: Sides, domain: Floats | None) -> Contrast:
    """P(x). domain: see Domain; its score tells of changes that no column shows alone."""
    scored = sides.apart(*sides.split(found.values))
    one = _loudest(scored, found.names, sides)
    if domain is None or not len(found.names):
        return one
    (joint,) = sides.apart(*sides.split(ranks(domain)[:, None]))
    nats = float(sides.nats(np.maximum(joint, 0.0)))
    return Contrast(max(one.nats, nats - 1), one.columns) if nats > 3 else one


def moved_given(found: Features, basis: Floats, sides: Sides) -> Contrast:
    """P(x | what the basis holds): features freed of it, and of how it tells window from record (Frisch & Waugh)."""
    free = without(found.values, basis)
    side = np.repeat([0.0, 1.0], sides.rows)
    told = side - without(side[:, None], basis)[:, 0]
    return _loudest(_augmented(free, told, sides), found.names, sides)


def answers_moved(errors: Floats, found: Features, more: Floats, told: Floats, sides: Sides) -> Contrast:
    """P(y | x). errors: (rows, e) that have mean 0 whatever x is, as long as P(y | x) is as in the record. more: (rows, f)
    what they may depend on beside the inputs. told: (rows,) chance of each row to be of the window, by its inputs.

    Where inputs moved too, (window - told) * error keeps mean 0 if either is right (doubly robust scores: Robins & Rotnitzky,
    J. American Statistical Association 90, 1995).
    """
    levels = np.column_stack([np.ones(len(told)), more])
    products = [errors * level[:, None] for level in levels.T]
    plain = _augmented(np.column_stack(products), told, sides)
    # Freed of what the answer tells: else each column that the answer depends on would seem to be the place.
    free = without(found.values, levels)
    by_column = _augmented(np.column_stack([e[:, None] * free for e in errors.T]), told, sides)
    names = found.names * errors.shape[1]
    whole, parts = _loudest(plain, ("",) * len(plain), sides), _loudest(by_column, names, sides)
    return Contrast(max(whole.nats, parts.nats), parts.columns)


def _augmented(values: Floats, told: Floats, sides: Sides) -> Floats:
    """Scores sum(window - told) * values as differences of two means in standard errors."""
    n, m = sides.rows
    side = np.repeat([0.0, 1.0], sides.rows)
    weighed = values * np.abs(side - told)[:, None]
    record, window = weighed[:n] * n, weighed[n:] * m
    scale = n + m
    gap = (window.sum(axis=0) / m - record.sum(axis=0) / n) / scale
    error = np.hypot(_error(record, sides.record), _error(window, sides.window)) / scale
    return np.asarray(np.where(error > 0, gap / np.where(error > 0, error, 1), 0.0))


def labels_moved(labels: Floats, sides: Sides, *, number: bool) -> Contrast:
    """P(y). labels: (rows, 1) a number, or (rows, k) a class each."""
    values = np.column_stack(_numbers(labels[:, 0])[:2]) if number else labels
    return Contrast(_loudest(sides.apart(*sides.split(values)), ("",) * values.shape[1], sides).nats)


def _loudest(scores: Floats, names: tuple[str, ...], sides: Sides) -> Contrast:
    if not len(scores):
        return Contrast()
    nats = sides.nats(scores) - np.log(len(scores))
    order = np.argsort(-nats, kind="stable")
    loud = [names[i] for i in order if nats[i] > max(2.0, 0.2 * nats[order[0]])]
    return Contrast(max(float(nats[order[0]]), 0.0), tuple(dict.fromkeys(loud)))
