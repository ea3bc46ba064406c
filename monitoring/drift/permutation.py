"""Permutation of rows between reference and window, in blocks where rows follow in time; comparable scores of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from windvane.monitoring.drift import distances
from windvane.monitoring.drift.binning import MISSING_BIN, BinnedColumn
from windvane.monitoring.drift.count_tests import MAX_SCORE, CountTests, pad_cells
from windvane.monitoring.drift.distances import Distances
from windvane.monitoring.records import DriftMeasure
from windvane.tasks.gate.block_test import FloatArray

# Up to so many rows of the smaller part are exchanged one by one. More are in handfuls, which make about so many blocks of both
# parts: summing rows costs more than finer blocks would gain.
MAX_SINGLE_ROW_BLOCKS, MAX_PERMUTATION_BLOCKS = 500, 1500
# Correlations are measured between the first so many numbers; their pairs grow with the square.
MAX_CORRELATED_COLUMNS = 50
# A column counts in correlations if at least so many rows of the smaller side are expected off its commonest value.
_MIN_VARYING_ROWS = 10.0


@dataclass(frozen=True)
class SampleSums:
    """What the statistics of `draws` exchanges are made from, for one side of `rows` rows.

    numbers (draws, columns, cells + 2) and categories (draws, columns, cells + 2): counts, then missing, then unreadable.
    cross (draws, c, c): products of rank scores summed over rows, the first score being constant 1.
    """

    numbers: FloatArray
    categories: FloatArray
    cross: FloatArray


class RowPermutation:
    """Both samples as cells, and as many random exchanges of their rows as are requested. Frozen once made."""

    def __init__(
        self,
        cells: Sequence[BinnedColumn],
        reference: int,
        window: int,
        seed: int,
        run: int | None = None,
        before: int = 0,
    ) -> None:
        """The cells hold `before` rows of an earlier past, which are never exchanged, then `reference`, then `window` rows.

        `run`: so many rows follow each other in a block. None: rows are independent, and blocks are handfuls of
        random rows that save time alone.
        """
        self.reference, self.window, self.before = reference, window, before
        self.numbers = [c for c in cells if c.kind == "number"]
        self.categories = [c for c in cells if c.kind == "category"]
        self._widths = [max((c.size for c in group), default=0) + 2 for group in (self.numbers, self.categories)]
        self._codes = self._placed()
        self._rng = np.random.default_rng(seed)
        self._scores = self._rank_scores()
        block, smaller = run or 1, min(reference, window)
        if run is None and smaller > MAX_SINGLE_ROW_BLOCKS:
            block = max((reference + window) // MAX_PERMUTATION_BLOCKS, smaller // MAX_SINGLE_ROW_BLOCKS)
        self._blocks = None if block == 1 else self._blocked(block, shuffled=run is None)
        self.total = self.stretch(before, before + reference + window)
        self.observed = self.stretch(before + reference, before + reference + window)
        self.kept = self.rest(self.observed)

    def rest(self, side: SampleSums, total: SampleSums | None = None) -> SampleSums:
        """The other side of an exchange; of another `total` than both samples together, if one is given."""
        whole = total or self.total
        return SampleSums(whole.numbers - side.numbers, whole.categories - side.categories, whole.cross - side.cross)

    def stretch(self, start: int, end: int) -> SampleSums:
        """The rows start .. end - 1."""
        return self._of_rows(np.arange(start, end)[None])

    @property
    def rank_scores(self) -> NDArray[np.float32]:
        """(rows, c) see _rank_scores(); with the rows before."""
        return self._scores[:, 1:]

    @property
    def stretches(self) -> int:
        """How many stretches as long as the window lie before it: in the reference, and in the past before that."""
        return self.reference // self.window + self.before // self.window

    def earlier(self, count: int) -> Iterator[tuple[SampleSums, bool]]:
        """The newest `count` of them, newest first, and whether each is part of the reference."""
        within = self.reference // self.window
        for i in range(count):
            own = i < within
            end = self.before + self.reference - i * self.window if own else self.before - (i - within) * self.window
            yield self.stretch(end - self.window, end), own

    def draw(self, times: int) -> SampleSums:
        """So many exchanges: what the window's side would hold."""
        if self._blocks is None:
            fewer = min(self.reference, self.window)
            # Not a permutation of all rows: that costs what the larger side has.
            both = self.reference + self.window
            rows = [self._rng.choice(both, fewer, replace=False, shuffle=False) for _ in range(times)]
            drawn = self._of_rows(self.before + np.stack(rows))
            return drawn if fewer == self.window else self.rest(drawn)
        counts, cross, size, taken = self._blocks
        chosen = np.zeros((times, len(counts)), dtype=np.float32)
        for row in chosen:
            row[self._rng.permutation(len(counts))[:taken]] = 1
        return self._unpacked(chosen @ counts, (chosen @ cross).reshape(times, size, size))

    def varies(self, cells: BinnedColumn) -> float:
        """Rows expected on the smaller side that differ from the column's commonest value."""
        codes = cells.codes[self.before :]
        counts = np.bincount(codes[codes >= 0], minlength=1)
        off = float(counts.sum() - counts.max())
        return off * min(self.reference, self.window) / (self.reference + self.window)

    def _hangs(self, cells: BinnedColumn) -> bool:
        """Whether a correlation with the column means anything: it varies, and it fell silent on neither side."""
        known = cells.codes[self.before :] >= 0
        filled = min(known[: self.reference].sum(), known[self.reference :].sum())
        return bool(min(self.varies(cells), filled) >= _MIN_VARYING_ROWS)

    def _placed(self) -> NDArray[np.int32]:
        """(rows, columns) places of each row's cells in one long row of counts."""
        rows = self.before + self.reference + self.window
        start, placed = 0, [np.empty((rows, 0), dtype=np.int32)]
        for group, width in zip((self.numbers, self.categories), self._widths, strict=True):
            for cells in group:
                special = np.where(cells.codes == MISSING_BIN, width - 2, width - 1)
                placed.append(np.where(cells.codes >= 0, cells.codes, special) + np.int32(start))
                start += width
        self._length = start
        return np.column_stack(placed).astype(np.int32)

    def _rank_scores(self) -> NDArray[np.float32]:
        """(rows, 1 + c): 1, and each correlated number's mid-rank in standard deviations; 0 where it has no value."""
        self.correlated = [c for c in self.numbers if c.aspect == "numbers" and self._hangs(c)][:MAX_CORRELATED_COLUMNS]
        columns = [np.ones(len(self._codes), dtype=np.float32)]
        for cells in self.correlated:
            known = cells.codes >= 0
            counts = np.bincount(cells.codes[known], minlength=cells.size)
            middle = np.cumsum(counts) - counts / 2
            centred = middle / counts.sum() - 0.5
            centred /= np.sqrt((counts * centred**2).sum() / counts.sum())
            columns.append(np.where(known, centred[np.maximum(cells.codes, 0)], 0).astype(np.float32))
        return np.column_stack(columns)

    def _blocked(self, block: int, *, shuffled: bool) -> tuple[FloatArray, FloatArray, int, int]:
        """Sums of blocks: counts (blocks, length), cross (blocks, c * c), then c, and how many blocks make a window."""
        window, cuts, order = 0, [0], list[NDArray[np.int64]]()
        for first, length in ((0, self.reference), (self.reference, self.window)):
            window = max(length // block, 1)
            side = self.before + first + np.arange(length)
            order.append(self._rng.permutation(side) if shuffled else side)
            # What is left over is spread: no block is much shorter than the others.
            cuts += [first + length * k // window for k in range(1, window + 1)]
        rows, blocks = np.concatenate(order), len(cuts) - 1
        place = np.repeat(np.arange(blocks), np.diff(cuts))[:, None] * self._length + self._codes[rows]
        counts = np.bincount(place.ravel(), minlength=blocks * self._length).reshape(blocks, self._length)
        scores, size = self._scores[rows], self._scores.shape[1]
        cross = np.empty((blocks, size * size), dtype=np.float32)
        for i, (start, end) in enumerate(pairwise(cuts)):
            cross[i] = (scores[start:end].T @ scores[start:end]).ravel()
        return counts.astype(np.float32), cross, size, window

    def _of_rows(self, rows: NDArray[np.int64]) -> SampleSums:
        """Sums over rows (draws, k)."""
        counts = np.stack([np.bincount(self._codes[r].ravel(), minlength=self._length) for r in rows])
        cross = np.stack([(part := self._scores[r]).T @ part for r in rows])
        return self._unpacked(counts.astype(np.float32), cross)

    def _unpacked(self, counts: FloatArray, cross: FloatArray) -> SampleSums:
        parts = np.split(counts, [len(self.numbers) * self._widths[0]], axis=1)
        numbers, categories = (part.reshape(len(counts), -1, w) for part, w in zip(parts, self._widths, strict=True))
        return SampleSums(numbers, categories, cross)


# A column off its commonest value in fewer rows of the smaller side than this is scored by counting those rows.
COUNTED = 3.0
# By so much may a measured distance exceed a limit that it only meets: two ways of adding up differ in their last digits.
_ROUNDING = 1e-6
# The least standard deviation that Evidently divides by; and a limit that no distance exceeds.
_EVIDENTLYS_FLOOR, NEVER = 0.001, np.inf


@dataclass(frozen=True)
class Demand:
    """What measures must exceed to speak: scores `limits` (measures,), counted in `slack` (measures,) times the usual variance."""

    limits: FloatArray
    slack: FloatArray


class PermutationScorer:
    """Exchanges -> scores (draws, measures). `learn` is shown exchanges that are not used for the limit."""

    def __init__(self, exchange: RowPermutation, by: Distances = distances) -> None:
        self.exchange, self._by = exchange, by
        numbers, categories, total = exchange.numbers, exchange.categories, exchange.total
        off = {c.name for c in numbers + categories if exchange.varies(c) < COUNTED}
        self._counted = (
            CountTests(numbers, total.numbers[0], exchange.window, off),
            CountTests(categories, total.categories[0], exchange.window, off),
        )
        self._gaps = pad_cells([c.gaps for c in numbers], total.numbers.shape[2] - 2)
        shaped = [DriftMeasure(c.name, c.aspect, how) for how in ("wasserstein", "ks") for c in numbers]
        shaped += [DriftMeasure(c.name, c.aspect, how) for how in ("jensenshannon", "share") for c in categories]
        self._weights = _compute_bin_weights(total.categories[0, :, :-2], min(exchange.reference, exchange.window))
        self._kept = np.array([m.column not in off for m in shaped], dtype=bool)
        self._hanging = len(exchange.correlated) > 1
        self.measures = tuple(
            [m for m, kept in zip(shaped, self._kept, strict=True) if kept]
            + [DriftMeasure(c.name, "correlation", "correlation") for c in exchange.correlated if self._hanging]
            + [m for counted in self._counted for m in counted.measures]
        )

    def learn(self, sides: SampleSums) -> None:
        """The usual size, spread and skewness of every distance, from exchanges."""
        found = self.shaped(sides, self.exchange.rest(sides))
        self._centre, spread = found.mean(axis=0), found.std(axis=0)
        centred = (found - self._centre) / np.maximum(spread, 1e-300)
        self._skew = np.clip((centred**3).mean(axis=0), 0.2, 6)
        self._spread = np.maximum(spread, 1e-12 + 1e-9 * self._centre)

    def __call__(self, sides: SampleSums, slack: FloatArray | float = 1.0) -> FloatArray:
        """(draws, measures) scores of what exchanges gave to the window's side.

        `slack` (measures,): so many times the variance that exchanges show is usual for each measure.
        """
        rest = self.exchange.rest(sides)
        return self.scores(self.shaped(sides, rest), self._counts(sides, rest, self._counted), slack)

    def values(self) -> FloatArray:
        """(measures,) the window in Evidently's units: distances, and numbers of rows."""
        seen, rest, (numbers, categories) = self.exchange.observed, self.exchange.kept, self._counted
        counts = numbers.count(seen.numbers, rest.numbers)[0], categories.count(seen.categories, rest.categories)[0]
        return np.concatenate([np.sqrt(self.shaped(seen, rest)[0]) * self._units(), *counts])

    def bounds(self, demands: Sequence[Demand]) -> tuple[FloatArray, FloatArray]:
        """The least and the most (measures,), in Evidently's units, at which a measure is quiet: one demand that it misses is enough."""
        cut = len(self._skew)
        most = np.max([self._distances_at(d.limits[:cut], d.slack[:cut]) for d in demands], axis=0) * self._units()
        least, end = [np.full(cut, -np.inf)], cut
        highest = [most * (1 + _ROUNDING) + _ROUNDING]
        for counted in self._counted:
            start, end = end, end + len(counted.measures)
            low, high = counted.bounds([(d.limits[start:end], d.slack[start:end]) for d in demands])
            least.append(low)
            highest.append(high)
        return np.concatenate(least), np.concatenate(highest)

    def _distances_at(self, limits: FloatArray, slack: FloatArray) -> FloatArray:
        """Distances whose scores are these: scores() backwards."""
        shape = 8 / self._skew**2
        root = np.maximum(limits * np.sqrt(2 / (9 * shape)) + 1 - 2 / (9 * shape), 0)
        squared = slack * (self._centre + (shape * root**3 - shape) * self._spread / np.sqrt(2 * shape))
        return np.asarray(np.where(limits >= MAX_SCORE, NEVER, np.sqrt(np.maximum(squared, 0))))

    def _units(self) -> FloatArray:
        """(distances,) what one of ours is in Evidently's units: that divides by the standard deviation of the reference alone."""
        units = {c.name: c.scale / self._reference_spread(c) for c in self.exchange.numbers}
        cut = self.measures[: len(self._skew)]
        return np.array([units[m.column] if m.how == "wasserstein" else 1.0 for m in cut])

    def _reference_spread(self, cells: BinnedColumn) -> float:
        known = cells.codes[self.exchange.before :][: self.exchange.reference]
        return max(float(np.std(cells.stands_for[known[known >= 0]])) if (known >= 0).any() else 0.0, _EVIDENTLYS_FLOOR)

    def counts_of_past(self, side: SampleSums, rest: SampleSums) -> FloatArray:
        """(draws, measures that count) scores of two samples of which neither is the window; all draws are of one total."""
        numbers, categories = self._counted
        counted = (
            numbers.among((side.numbers + rest.numbers)[0]),
            categories.among((side.categories + rest.categories)[0]),
        )
        return self._counts(side, rest, counted)

    def spread(self, shaped: FloatArray, counts: FloatArray) -> FloatArray:
        """(draws, measures) squared distances of two samples in units of what exchanges show: 1 on average if chance alone moves them."""
        return np.concatenate([shaped / np.maximum(self._centre, 1e-12), 2 * np.maximum(counts, 0) ** 2], axis=1)

    def scores(self, shaped: FloatArray, counts: FloatArray, slack: FloatArray | float) -> FloatArray:
        """(draws, measures) scores from what shaped() and counting give; `slack`: (measures,) or (draws, measures)."""
        shape = 8 / self._skew**2
        slack = np.broadcast_to(slack, (len(shaped), len(self.measures)))
        cut = len(shape)
        at = np.maximum(shape + np.sqrt(2 * shape) * (shaped / slack[:, :cut] - self._centre) / self._spread, 0)
        # A chi-square with three moments of the null (Imhof, Biometrika 48 (1961)), made normal (Wilson & Hilferty, PNAS 17 (1931)).
        scores = ((at / shape) ** (1 / 3) - (1 - 2 / (9 * shape))) / np.sqrt(2 / (9 * shape))
        return np.concatenate([np.minimum(scores, MAX_SCORE), counts / np.sqrt(slack[:, cut:])], axis=1)

    def _counts(self, sides: SampleSums, rest: SampleSums, counted: tuple[CountTests, CountTests]) -> FloatArray:
        numbers, categories = counted
        found = numbers(sides.numbers, rest.numbers), categories(sides.categories, rest.categories)
        return np.concatenate(found, axis=1)

    def shaped(self, sides: SampleSums, rest: SampleSums) -> FloatArray:
        """(draws, measures) squared distances of distributions and correlations: their null is close to a chi-square."""
        before, after = _shares(rest.numbers[..., :-2], sides.numbers[..., :-2])
        one, other = _shares(rest.categories[..., :-2], sides.categories[..., :-2])
        shaped = [
            self._by.compute_wasserstein(before, after, self._gaps[: before.shape[1]]),
            self._by.compute_kolmogorov_smirnov(before, after),
            self._by.compute_jensen_shannon(one, other),
            np.abs((one - other) * self._weights).max(axis=-1, initial=0),
        ]
        found = [np.concatenate(shaped, axis=1)[:, self._kept]]
        if self._hanging:
            found.append(
                _find_largest_change(np.abs(compute_correlations(sides.cross) - compute_correlations(rest.cross)))
            )
        return np.concatenate(found, axis=1) ** 2


def _shares(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Counts (..., cells) of two samples as shares of their sums; both 0 where one has no value: that is a matter of what is missing."""
    sums = [side.sum(axis=-1, keepdims=True, dtype=np.float64) for side in (one, other)]
    known = (sums[0] > 0) & (sums[1] > 0)
    return one * (known / np.maximum(sums[0], 1)), other * (known / np.maximum(sums[1], 1))


def _compute_bin_weights(counts: FloatArray, rows: int) -> FloatArray:
    """One over the standard deviation of a row's being in a cell (columns, cells); 0 where `rows` rows hold hardly any."""
    share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    common = np.minimum(share, 1 - share) * rows >= COUNTED
    return np.where(common, 1 / np.sqrt(np.maximum(share * (1 - share), 1e-9)), 0)


def compute_correlations(cross: FloatArray) -> FloatArray:
    """(draws, c, c) Fisher-transformed correlations of rank scores within one side."""
    rows = np.maximum(cross[:, :1, :1], 1)
    mean = cross[:, 1:, :1] / rows
    covariance = cross[:, 1:, 1:] / rows - mean * mean.transpose(0, 2, 1)
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-9))
    return np.asarray(np.arctanh(np.clip(covariance / (spread[:, :, None] * spread[:, None, :]), -0.999, 0.999)))


def _find_largest_change(apart: FloatArray) -> FloatArray:
    """(draws, c) the pair of each column that moved most."""
    apart[:, np.arange(apart.shape[1]), np.arange(apart.shape[1])] = 0
    return np.asarray(apart.max(axis=-1))
