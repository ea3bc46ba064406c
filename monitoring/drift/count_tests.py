"""Exact tests of counted rows: missing, unreadable, new categories, range. Knows no limit."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaln, ndtri, ndtri_exp

from windvane.monitoring.drift.binning import BinnedColumn
from windvane.monitoring.records import DriftAspect, DriftMeasure
from windvane.tasks.gate.block_test import FloatArray

# No score lies above: rarer than that has no value in double precision.
MAX_SCORE = 37.0


class CountTests:
    """Columns (cells) of one type. Counts come as (draws, columns, cells + 2): the last two are missing and unreadable."""

    def __init__(self, group: list[BinnedColumn], total: FloatArray, drawn: int, off: set[str]) -> None:
        """`total` (columns, cells + 2): counts of both samples together; `drawn` rows of them are the window's.

        `off`: columns that are nearly constant, whose rows off the commonest value are counted.
        """
        self._group, self._drawn = group, drawn
        picked: list[tuple[DriftMeasure, int, NDArray[np.int64]]] = []
        for i, cells in enumerate(group):
            for aspect, how, places in _list_counted_aspects(cells, total[i], cells.name in off):
                if 0 < total[i, places].sum() < total[i].sum():
                    picked.append((DriftMeasure(cells.name, aspect, how), i, places))
        self._picked = [(i, places) for _, i, places in picked]
        self.measures = [measure for measure, *_ in picked]
        for cells in group:
            named: DriftAspect = "range" if cells.kind == "number" else "new categories"
            new = named if cells.aspect in ("numbers", "categories") else cells.aspect
            self.measures.append(DriftMeasure(cells.name, new, named))
        self._tabulate(total)

    def among(self, total: FloatArray) -> CountTests:
        """The same measures of as many rows drawn from another total."""
        other = copy(self)
        other._tabulate(total)
        return other

    def _tabulate(self, total: FloatArray) -> None:
        self._total, rows = total, round(float(total[:1].sum()))
        self._share = self._drawn / max(rows, 1)
        counts = [round(float(total[i, places].sum())) for i, places in self._picked]
        self._tables = [_score_hypergeometric(rows, count, self._drawn) for count in counts]

    def __call__(self, window: FloatArray, rest: FloatArray) -> FloatArray:
        """(draws, measures) scores."""
        return self._scores(self.count(window, rest))

    def count(self, window: FloatArray, rest: FloatArray) -> FloatArray:
        """(draws, measures) rows."""
        found = [np.rint(window[:, i, places].sum(axis=-1)) for i, places in self._picked]
        return np.column_stack([*found, *self._new(window, rest).T]) if self.measures else np.zeros((len(window), 0))

    def bounds(self, demands: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
        """The fewest and the most rows (measures,) that miss a demand: a score's limit (measures,), and slack (measures,)."""
        rows = np.arange(self._drawn + 1.0)
        scores = self._scores(np.repeat(rows[:, None], len(self.measures), axis=1))
        quiet = np.any([scores / np.sqrt(slack) <= limits for limits, slack in demands], axis=0)
        some = quiet.any(axis=0)
        # No number of rows is quiet: the fewest are more than the most.
        first, last = quiet.argmax(axis=0), len(rows) - 1 - quiet[::-1].argmax(axis=0)
        return np.where(some, first, 1.0), np.where(some, last, -1.0)

    def _scores(self, counts: FloatArray) -> FloatArray:
        """(draws, measures) scores of counts of the same shape."""
        cut = len(self._picked)
        places = np.clip(counts[:, :cut], 0, [len(table) - 1 for table in self._tables]).astype(np.int64)
        found = [table[place] for table, place in zip(self._tables, places.T, strict=True)]
        numeric = bool(self._group) and self._group[0].kind == "number"
        new = counts[:, cut:]
        scores = _score_range(new, self._share) if numeric else self._score_new(new)
        return np.column_stack([*found, *scores.T]) if self.measures else np.zeros((len(counts), 0))

    def _new(self, window: FloatArray, rest: FloatArray) -> FloatArray:
        """(draws, columns): rows of the window in categories that the rest has not, or beyond one end of all that it has."""
        inside, outside = window[..., :-2], rest[..., :-2]
        if self._group and self._group[0].kind == "category":
            single = pad_cells([c.single for c in self._group], inside.shape[-1])
            return np.asarray(np.where((single == 1) | ((outside == 0) & (single > 0)), inside, 0).sum(axis=-1))
        ends = ((inside[..., ::step], outside[..., ::step]) for step in (1, -1))
        return np.maximum(*(np.where(np.cumsum(other, axis=-1) > 0, 0, own).sum(axis=-1) for own, other in ends))

    def _score_new(self, new: FloatArray) -> FloatArray:
        """Scores of `new` (draws, columns). A category of c rows lies wholly in the window with a chance of share ** c.

        Poisson, over-dispersed because the rows of a category come at once.
        """
        total = self._total
        single = pad_cells([c.single for c in self._group], total.shape[-1] - 2)
        whole = np.where(single > 0, self._share**single, 0)
        mean = (whole * total[:, :-2]).sum(axis=-1)
        variance = (whole * (1 - whole) * total[:, :-2] * np.maximum(single, 1)).sum(axis=-1)
        spread = np.maximum(variance / np.maximum(mean, 1e-300), 1)
        tail = gammainc(np.maximum(new, 1e-3) / spread, np.maximum(mean, 1e-9) / spread)
        return np.asarray(np.where(new > 0, np.minimum(-ndtri(np.clip(tail, 1e-300, 1 - 1e-3)), MAX_SCORE), -3.0))


def _list_counted_aspects(
    cells: BinnedColumn, total: FloatArray, off: bool
) -> list[tuple[DriftAspect, str, NDArray[np.int64]]]:
    found: list[tuple[DriftAspect, str, NDArray[np.int64]]] = [("type", "unreadable", np.array([len(total) - 1]))]
    if cells.aspect != "target":  # which labels have come shows no drift
        found.append(("missing", "missing", np.array([len(total) - 2])))
    if off:
        common = int(total[: cells.size].argmax()) if cells.size else 0
        found.append((cells.aspect, "off", np.flatnonzero(np.arange(cells.size) != common)))
    return found


def pad_cells(columns: Sequence[FloatArray], width: int) -> FloatArray:
    """Values of each column's cells (columns, width), one row of zeros without a column."""
    return np.stack([np.pad(cells, (0, width - len(cells))) for cells in columns] or [np.zeros(width)])


def _score_hypergeometric(rows: int, count: int, drawn: int) -> FloatArray:
    """Scores (count + 1,) of finding so many of `count` marked rows among `drawn` of `rows`: too many or too few."""

    def ways(n: Any, k: Any) -> Any:
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    found = np.arange(max(0, count - rows + drawn), min(count, drawn) + 1)
    chance = np.exp(ways(count, found) + ways(rows - count, drawn - found) - ways(rows, drawn))
    # Each tail is summed from its thin end.
    tail = np.minimum(np.cumsum(chance), np.cumsum(chance[::-1])[::-1])
    table = np.full(count + 1, MAX_SCORE)
    table[found] = np.minimum(-ndtri(np.clip(2 * tail, 1e-300, 1 - 1e-3)), MAX_SCORE)
    return table


def _score_range(beyond: FloatArray, share: float) -> FloatArray:
    """So many rows beyond one end of the reference have a chance of share ** rows; there are two ends."""
    return np.minimum(-ndtri_exp(np.minimum(np.log(2) + beyond * np.log(share), -1e-3)), MAX_SCORE)
