"""The paired test of two models: rows in blocks that hardly depend on each other, and a lower bound from them.
benchmarks/gate.py measures how often it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
CodeArray = NDArray[np.int64]

# With four degrees of freedom a 95 % bound is already 30 % wider than with many.
MIN_BLOCKS = 5
# Long blocks bridge dependence, and up to 14 of them may vary unequally at 95 % (see `paired`). Their thirds show how
# far neighbours hang together: finer ones miss slow movement under noise, coarser ones are too few to measure it.
_TIME_BLOCKS, _FINE_TIME_BLOCKS = 10, 30
# Small groups share a bin, or one large group would weigh against many tiny ones.
_GROUP_BLOCKS = 30
# Equal rows share a key, hence a bin. More bins change nothing measurable.
_ROW_BLOCKS = 100
# Beyond this no test separates a lasting gain from one long run; without an end, no model would ever beat a dummy on a
# seasonal table. Together they widen a 95 % bound to about three times.
_MAX_CORRELATION, _MIN_FREEDOM = 0.85, 3.0


@dataclass(frozen=True)
class RowBlocks:
    """Rows put into exchangeable blocks. `label`: (n,) 0..count-1.

    Of time only: `fine`, (n,) shorter stretches within the blocks, and how many different `points` in time there are.
    """

    kind: Literal["time", "group", "row", "fold"]
    label: CodeArray
    fine: CodeArray | None = None
    points: int | None = None

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return int(self.label.max()) + 1 if len(self.label) else 0

    def at(self, rows: NDArray[np.bool_]) -> RowBlocks:
        """The same blocks, of some rows only; empty ones are gone."""
        fine = None if self.fine is None else _encode_values(self.fine[rows])
        return RowBlocks(self.kind, _encode_values(self.label[rows]), fine, self.points)


@dataclass(frozen=True)
class LowerBound:
    """Mean of a difference and its lower confidence bound; shape (...) where bound_paired_difference() was given (..., n)."""

    mean: FloatArray
    low: FloatArray
    independent: FloatArray  # how many equal, independent blocks the rows are worth


def form_blocks(
    keys: CodeArray,
    time: NDArray[Any] | None = None,
    group: NDArray[Any] | None = None,
    fold: NDArray[Any] | None = None,
) -> tuple[RowBlocks, ...]:
    """The ways in which (n,) rows depend on each other, one or two; the first must have enough blocks for a test.

    time: ten contiguous stretches of about equally many rows; rows of one timestamp are never parted. group: whole
    groups in up to thirty bins. Both given, both count (where there are enough groups): a panel depends on itself both
    ways. fold: each is a block, in place of groups: rows of one fold share their model, and folds hold whole groups. None of
    these: up to a hundred bins by row key. Nothing is drawn: a row's block follows from the table alone.
    """
    found: list[RowBlocks] = []
    if time is not None:
        points = _encode_values(time)
        fine = _cut_in_order(points, _FINE_TIME_BLOCKS)
        count = len(np.unique(points))
        found.append(
            RowBlocks("time", _encode_values(fine * _TIME_BLOCKS // _FINE_TIME_BLOCKS), _encode_values(fine), count)
        )
    if fold is not None:
        found.append(RowBlocks("fold", _encode_values(fold)))
    elif group is not None:
        bins = RowBlocks("group", _pack_groups(_encode_values(group), _GROUP_BLOCKS))
        if not found or bins.count >= MIN_BLOCKS:
            found.append(bins)
    if not found:
        # Mixed first: a sticky split cuts by key, so the keys that are left here need not be spread evenly.
        mixed = np.asarray(keys, dtype=np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        found.append(RowBlocks("row", _encode_values(_cut_in_order(_encode_values(mixed), _ROW_BLOCKS))))
    return tuple(found)


def bound_paired_difference(difference: FloatArray, parts: tuple[RowBlocks, ...], confidence: float) -> LowerBound:
    """Lower confidence bound of the mean of (..., n) differences, dependent within the given blocks of rows.

    The mean is the plain mean over rows. Its error is the delete-one-block jackknife: for equal blocks the t-statistic
    on block means of Ibragimov & Müller (J. Business & Economic Statistics 28, 2010; at 95 % valid for up to 14 blocks
    of unequal variance), with the degrees of freedom of as many equal blocks (Kish, Survey Sampling, 1965). Measured
    wrong promotions required three more things:
    - time: neighbouring blocks are correlated when runs are long. The correlation of adjacent thirtieths, freed of its
      small-sample bias (Marriott & Pope, Biometrika 41, 1954) and half a standard error up, shows by how much an AR(1)
      process widens the error, and how many independent stretches are left as degrees of freedom.
    - blocks of two types: their variances add, less what both count (Cameron, Gelbach & Miller, J. Business & Economic
      Statistics 29, 2011).
    - skewness towards disaster moves the quantile (first Edgeworth term, Johnson, J. American Statistical Association
      73, 1978); skewness the other way would tighten the bound, and is left out.
    """
    n = difference.shape[-1]
    mean = np.asarray(difference.mean(axis=-1))
    centred = difference - mean[..., None]
    total, largest, skewness = np.zeros_like(mean), np.zeros_like(mean), np.zeros_like(mean)
    freedom, independent = np.full_like(mean, np.inf), np.full_like(mean, np.inf)
    for part in parts:
        share = np.bincount(part.label) / n
        pulls = _sums(centred, part.label) / n / (1 - share)
        square = (pulls**2).sum(axis=-1)
        skewness = np.minimum(skewness, (pulls**3).sum(axis=-1) / np.where(square > 0, square, 1) ** 1.5)
        variance, equal = square * (part.count - 1) / part.count, np.full_like(mean, 1 / (share**2).sum())
        if part.fine is not None:
            widening, stretches = _dependence(_sums(centred, part.fine), part.count)
            variance, equal = variance * widening, np.minimum(equal, stretches)
        total, largest = total + variance, np.maximum(largest, variance)
        freedom = np.minimum(freedom, np.clip(equal - 1, _MIN_FREEDOM, part.count - 1))
        independent = np.minimum(independent, equal)
    if len(parts) > 1:
        total = np.maximum(largest, total - (centred**2).sum(axis=-1) / n / (n - 1))
    quantile = stdtrit(freedom, confidence)
    quantile = quantile - skewness * (1 + 2 * quantile**2) / 6
    return LowerBound(mean, np.asarray(mean - quantile * np.sqrt(total)), independent)


def _dependence(stretches: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """How much wider the variance is, and how many stretches are independent, from (..., S) sums in `count` blocks."""
    size = stretches.shape[-1]
    centred = stretches - stretches.mean(axis=-1, keepdims=True)
    square = (centred**2).sum(axis=-1)
    raw = (centred[..., 1:] * centred[..., :-1]).sum(axis=-1) / np.where(square > 0, square, 1)
    lifted = raw + (1 + 4 * raw) / size + 0.5 * np.sqrt((1 - raw**2) / size)
    r = np.where(square > 0, np.clip(lifted, 0, _MAX_CORRELATION), 0)

    def variance(length: float) -> FloatArray:
        """Of the mean of `length` values of an AR(1) process of variance 1."""
        return np.asarray(((1 + r) / (1 - r) - 2 * r * (1 - r**length) / (length * (1 - r) ** 2)) / length)

    whole, within = variance(size), variance(size / count)
    return np.maximum(1, whole * (count - 1) / (within - whole)), np.asarray(size * (1 - r) / (1 + r))


def mask_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of (n,) values of any type are missing."""
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    if values.dtype.kind in "mM":
        return np.asarray(np.isnat(values))
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    # Pandas is not imported for this: its own missing values are known by their type's name.
    empty = ("NoneType", "NAType", "NaTType")
    return np.array([type(v).__name__ in empty or (isinstance(v, float) and isnan(v)) for v in values], dtype=bool)


def _encode_values(values: NDArray[Any]) -> CodeArray:
    """(n,) values of any type as 0..k-1 in their order; what is missing is one value."""
    if values.dtype.kind == "O":
        values = np.array(["" if a else f"={v}" for v, a in zip(values, mask_missing(values), strict=True)], dtype=str)
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _cut_in_order(codes: CodeArray, count: int) -> CodeArray:
    """Ordered units 0..k-1 in at most `count` stretches of about equally many rows; a unit goes where its middle is."""
    sizes = np.bincount(codes)
    middle = np.cumsum(sizes) - sizes / 2
    return np.asarray((middle * count / max(1, len(codes))).astype(np.int64)[codes])


def _pack_groups(codes: CodeArray, count: int) -> CodeArray:
    """Whole groups in at most `count` bins of about equally many rows: the largest first, each into the emptiest."""
    sizes = np.bincount(codes)
    load = np.zeros(min(count, len(sizes)))
    place = np.zeros(len(sizes), dtype=np.int64)
    for one in np.argsort(-sizes, kind="stable"):
        place[one] = load.argmin()
        load[place[one]] += sizes[one]
    return np.asarray(place[codes])


def _sums(values: FloatArray, label: CodeArray) -> FloatArray:
    """(..., n) values summed over each label -> (..., count)."""
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(int(label.max()) + 1))
    return np.asarray(np.add.reduceat(values[..., order], starts, axis=-1))
