"""Exchanging rows between a reference and a window: the counts that an unchanged world would have given.

If nothing changed, which rows came as reference and which as window is an accident: every exchange of rows was as likely
(Pitman, Supplement to the JRSS 4 (1937)). That holds at any two sizes, for whole rows and so for columns that hang together, and
counts the sampling error of both sides. Rows that follow each other in time are exchanged in contiguous blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.cells import MISSING, Cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from windvane.monitoring.distances import Floats

# Up to so many rows of the smaller side change sides one by one. More do so in handfuls, which make about so many blocks of both
# sides: summing rows costs more than finer blocks would tell.
ONE_BY_ONE, BLOCKS = 500, 1500
# Correlations are looked at between the first so many numbers; their pairs grow with the square.
CORRELATED = 50
# A column counts in correlations if at least so many rows of the smaller side are expected off its commonest value.
_VARIES = 10.0


@dataclass(frozen=True)
class Sums:
    """What the statistics of `draws` exchanges are made from, for one side of `rows` rows.

    numbers (draws, columns, cells + 2) and categories (draws, columns, cells + 2): counts, then missing, then unreadable.
    cross (draws, c, c): products of rank scores summed over rows, the first score being constant 1.
    """

    numbers: Floats
    categories: Floats
    cross: Floats


class Exchange:
    """Both samples as cells, and as many random exchanges of their rows as are asked for. Frozen once made."""

    def __init__(
        self, cells: Sequence[Cells], reference: int, window: int, seed: int, run: int | None = None, before: int = 0
    ) -> None:
        """The cells hold `before` rows of an earlier past, which are never exchanged, then `reference`, then `window` rows.

        `run`: so many rows follow each other in a block. None: rows tell nothing of each other, and blocks are handfuls of
        random rows that save time alone.
        """
        self.reference, self.window, self.before = reference, window, before
        self.numbers = [c for c in cells if c.kind == "number"]
        self.categories = [c for c in cells if c.kind == "category"]
        self._widths = [max((c.size for c in group), default=0) + 2 for group in (self.numbers, self.categories)]
        self._codes = self._placed()
        self._rng = np.random.default_rng(seed)
        self._scores = self._rank_scores()
        smaller = min(reference, window)
        handful = 1 if smaller <= ONE_BY_ONE else max((reference + window) // BLOCKS, smaller // ONE_BY_ONE, 1)
        block = run or handful
        self._blocks = None if block == 1 else self._blocked(block, shuffled=run is None)
        self.total = self.stretch(before, before + reference + window)
        self.observed = self.stretch(before + reference, before + reference + window)

    def rest(self, side: Sums, total: Sums | None = None) -> Sums:
        """The other side of an exchange; of another `total` than both samples together, if one is given."""
        whole = total or self.total
        return Sums(whole.numbers - side.numbers, whole.categories - side.categories, whole.cross - side.cross)

    def stretch(self, start: int, end: int) -> Sums:
        """The rows start .. end - 1."""
        return self._of_rows(np.arange(start, end)[None])

    @property
    def rank_scores(self) -> NDArray[np.float32]:
        """(rows, c) each correlated number's mid-rank in standard deviations, 0 where it has no value; with the rows before."""
        return self._scores[:, 1:]

    @property
    def kept(self) -> Sums:
        """All of the reference."""
        return self.rest(self.observed)

    @property
    def stretches(self) -> int:
        """How many stretches as long as the window lie before it: in the reference, and in the past before that."""
        return self.reference // self.window + self.before // self.window

    def earlier(self, count: int) -> Iterator[tuple[Sums, bool]]:
        """The newest `count` of them, newest first, and whether each is part of the reference."""
        for i in range(count):
            within = self.reference // self.window
            own = i < within
            end = self.before + self.reference - i * self.window if own else self.before - (i - within) * self.window
            yield self.stretch(end - self.window, end), own

    def draw(self, times: int) -> Sums:
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

    def varies(self, cells: Cells) -> float:
        """Rows expected on the smaller side that differ from the column's commonest value."""
        codes = cells.codes[self.before :]
        counts = np.bincount(codes[codes >= 0], minlength=1)
        off = float(counts.sum() - counts.max())
        return off * min(self.reference, self.window) / (self.reference + self.window)

    def _hangs(self, cells: Cells) -> bool:
        """Whether a correlation with the column means anything: it varies, and it fell silent on neither side."""
        known = cells.codes[self.before :] >= 0
        filled = min(known[: self.reference].sum(), known[self.reference :].sum())
        return self.varies(cells) >= _VARIES and bool(filled >= _VARIES)

    def _placed(self) -> NDArray[np.int32]:
        """(rows, columns) places of each row's cells in one long row of counts."""
        rows = self.before + self.reference + self.window
        start, placed = 0, [np.empty((rows, 0), dtype=np.int32)]
        for group, width in zip((self.numbers, self.categories), self._widths, strict=True):
            for cells in group:
                special = np.where(cells.codes == MISSING, width - 2, width - 1)
                placed.append(np.where(cells.codes >= 0, cells.codes, special) + np.int32(start))
                start += width
        self._length = start
        return np.column_stack(placed).astype(np.int32)

    def _rank_scores(self) -> NDArray[np.float32]:
        """(rows, 1 + c): 1, and each correlated number's mid-rank in standard deviations; 0 where it has no value."""
        self.correlated = [c for c in self.numbers if c.aspect == "numbers" and self._hangs(c)][:CORRELATED]
        columns = [np.ones(len(self._codes), dtype=np.float32)]
        for cells in self.correlated:
            known = cells.codes >= 0
            counts = np.bincount(cells.codes[known], minlength=cells.size)
            middle = np.cumsum(counts) - counts / 2
            centred = middle / counts.sum() - 0.5
            centred /= np.sqrt((counts * centred**2).sum() / counts.sum())
            columns.append(np.where(known, centred[np.maximum(cells.codes, 0)], 0).astype(np.float32))
        return np.column_stack(columns)

    def _blocked(self, block: int, *, shuffled: bool) -> tuple[Floats, Floats, int, int]:
        """Sums of blocks: counts (blocks, length), cross (blocks, c * c), then c, and how many blocks make a window."""
        starts, window, order = [np.zeros(1, dtype=np.int64)], 0, [np.arange(0)]
        for first, length in ((0, self.reference), (self.reference, self.window)):
            window = max(length // block, 1)
            side = self.before + first + np.arange(length)
            order.append(self._rng.permutation(side) if shuffled else side)
            # What is left over is spread: no block is much shorter than the others.
            starts.append(first + length * np.arange(1, window + 1) // window)
        rows, cuts = np.concatenate(order), np.concatenate(starts)
        blocks = len(cuts) - 1
        place = np.repeat(np.arange(blocks), np.diff(cuts))[:, None] * self._length + self._codes[rows]
        counts = np.bincount(place.ravel(), minlength=blocks * self._length).reshape(blocks, self._length)
        scores, size = self._scores[rows], self._scores.shape[1]
        cross = np.empty((blocks, size * size), dtype=np.float32)
        for i, (start, end) in enumerate(pairwise(cuts)):
            cross[i] = (scores[start:end].T @ scores[start:end]).ravel()
        return counts.astype(np.float32), cross, size, window

    def _of_rows(self, rows: NDArray[np.int64]) -> Sums:
        """Sums over rows (draws, k)."""
        counts = np.stack([np.bincount(self._codes[r].ravel(), minlength=self._length) for r in rows])
        cross = np.stack([(part := self._scores[r]).T @ part for r in rows])
        return self._unpacked(counts.astype(np.float32), cross)

    def _unpacked(self, counts: Floats, cross: Floats) -> Sums:
        cut = len(self.numbers) * self._widths[0]
        return Sums(
            counts[:, :cut].reshape(len(counts), len(self.numbers), self._widths[0]),
            counts[:, cut:].reshape(len(counts), len(self.categories), self._widths[1]),
            cross,
        )
