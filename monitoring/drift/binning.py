"""Columns cut into bins: of reference and window together, so that exchanging rows is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring.records import DriftAspect

# Between the tails of a number every cell holds this share of all rows; in the tails cells halve down to single rows.
_BIN_SHARE = 1 / 16
# So many categories have a cell each; rarer ones share cells with those of like frequency.
_MAX_OWN_BINS = 40
# How the names of cells begin that rare categories share, and the name of the one whose categories have one row each.
RARE = "(categories of "
ONE_ROW = f"{RARE}one row)"
# Longer words are cut where they are shown.
_LONGEST = 60
# Codes of rows without a value, and of rows whose value cannot be read as the column's type.
MISSING_BIN, UNREADABLE_BIN = -1, -2


@dataclass(frozen=True)
class BinnedColumn:
    """A column of reference and window (n + m rows): `codes` (n + m,) holds each row's cell, 0 .. size-1, or MISSING or
    UNREADABLE. Numbers: cells rise, and `gaps` (size,) is how far the distribution functions stay apart as at a cell's upper edge.
    Categories: `single` (size,) holds how many rows a category in this cell has; 0 where a cell holds several of many rows.
    `stands_for` (size,) is what a report shows for each cell: the middle of a number's cell, the words of a category's.
    `scale`: the standard deviation in which gaps are counted.
    """

    name: str
    aspect: DriftAspect
    kind: Literal["number", "category"]
    codes: NDArray[np.int32]
    size: int
    gaps: NDArray[np.float64]
    single: NDArray[np.float64]
    stands_for: NDArray[Any]
    scale: float = 1.0


def bin_numbers(
    name: str, aspect: DriftAspect, values: NDArray[np.float64], unreadable: NDArray[np.bool_]
) -> BinnedColumn:
    """Cells of a number: (n + m,) values of both samples, NaN = missing."""
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    edges = _find_edges(ordered)
    codes = np.where(known, np.searchsorted(edges, values), MISSING_BIN).astype(np.int32)
    codes[unreadable] = UNREADABLE_BIN
    steps = np.diff(edges)
    whole = len(edges) < 2 or int((np.diff(ordered) > 0).sum()) + 1 == len(edges)
    # Every value has its cell: the distance is exact. Else the difference at an edge stands for half a cell on each side.
    rising, falling = np.append(steps, 0.0)[: len(edges)], np.append(0.0, steps)[: len(edges)]
    gaps = rising if whole else (rising + falling) / 2
    scale = (float(ordered.std()) if len(ordered) else 0.0) or 1.0
    # Values that lie as far apart as the distance takes their cells to be: the middles of cells, or the values themselves.
    middles = edges[:1] + np.append(0.0, np.cumsum(gaps))[: len(edges)]
    return BinnedColumn(name, aspect, "number", codes, len(edges), gaps / scale, np.zeros(len(edges)), middles, scale)


def _find_edges(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper edges of cells. A value that several rows share has a cell of its own: what lies just below it has another."""
    at = _find_edge_ranks(len(ordered))
    first = np.searchsorted(ordered, ordered[at])
    below = first[(first < at) & (first > 0)] - 1
    return np.unique(ordered[np.concatenate([at, below])])


def _find_edge_ranks(rows: int) -> NDArray[np.int64]:
    """Ranks of the upper edges: 1, 2, 4 ... rows from either end, and even shares between."""
    tail = 2 ** np.arange(int(np.log2(max(rows * _BIN_SHARE, 1))) + 1) - 1
    middle = np.round(np.arange(_BIN_SHARE, 1, _BIN_SHARE) * rows).astype(np.int64)
    found = np.unique(np.concatenate([tail, middle, rows - 1 - tail, [rows - 1]]))
    return found[(found >= 0) & (found < rows)]


def bin_categories(name: str, aspect: DriftAspect, values: pd.Series, unreadable: NDArray[np.bool_]) -> BinnedColumn:
    """Cells of a category: values of both samples (n + m rows), missing where pandas has it so."""
    codes, found = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    # By frequency, then by name: never by the order of rows.
    order = np.lexsort((np.argsort(np.argsort(np.asarray(found).astype(str))), -counts))
    common, rest = order[:_MAX_OWN_BINS], order[_MAX_OWN_BINS:]
    classes, at = np.unique(np.log2(np.maximum(counts[rest], 1)).astype(int), return_inverse=True)
    cell = np.full(len(found) + 1, MISSING_BIN, dtype=np.int32)  # the last is that of code -1
    cell[common] = np.arange(len(common))
    cell[rest] = len(common) + at
    placed = cell[codes]
    placed[unreadable] = UNREADABLE_BIN
    # In the cell of single rows every window row is a category that the reference has not.
    single = np.concatenate([counts[common], np.where(classes == 0, 1.0, 0.0)]).astype(np.float64)
    size = len(common) + len(classes)
    words = distinct([found[i] for i in common])
    words += [ONE_ROW if c == 0 else f"{RARE}{2**c:,} rows or more)" for c in classes]
    return BinnedColumn(name, aspect, "category", placed, size, np.zeros(size), single, np.array(words, dtype=object))


def distinct(values: Sequence[Any]) -> list[str]:
    """Different values as different words that any page can show: short, possible in UTF-8, and without marks of HTML."""
    found: list[str] = []
    for value in values:
        word = str(value).encode("utf-8", "replace").decode().replace("<", "‹")
        word = word if len(word) <= _LONGEST else f"{word[:_LONGEST]}…"
        while word in found or word.startswith(RARE):
            word = f"'{word}'"
        found.append(word)
    return found
