"""Columns of reference and window, read as their own type and cut into bins.

Bins are cut from both samples together, so that exchanging rows is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from windvane.monitoring.records import DriftFinding
from windvane.tasks.evaluation.scores import PREDICTION_COLUMN, PROBABILITY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.records import DriftAspect
    from windvane.tasks.models.features import FeatureColumns

# Between the tails of a number every cell holds this share of all rows; in the tails cells halve down to single rows.
_BIN_SHARE = 1 / 16
# So many categories have a cell each; rarer ones share cells with those of like frequency.
_MAX_OWN_BINS = 40
# Squares of values stay finite.
_LARGEST_VALUE = 1e150
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
    Categories: `single` (size,) says how many rows a category in this cell has; 0 where a cell holds several of many rows.
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
    # Every value has its cell: the distance is exact. Else the difference at an edge stands for half a cell to both sides.
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
    tail = 2 ** np.arange(max(int(np.log2(max(rows * _BIN_SHARE, 1))) + 1, 1)) - 1
    middle = np.round(np.arange(_BIN_SHARE, 1, _BIN_SHARE) * rows).astype(np.int64)
    found = np.unique(np.concatenate([tail, middle, rows - 1 - tail, [rows - 1]]))
    return found[(found >= 0) & (found < rows)]


def bin_categories(name: str, aspect: DriftAspect, values: pd.Series, unreadable: NDArray[np.bool_]) -> BinnedColumn:
    """Cells of a category: values of both samples (n + m rows), missing where pandas says so."""
    import pandas as pd

    codes, found = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    # By frequency, then by name: never by the order of rows.
    order = np.lexsort((np.argsort(np.argsort(np.asarray(found).astype(str))), -counts))
    common = order[:_MAX_OWN_BINS]
    rest = order[_MAX_OWN_BINS:]
    cell = np.empty(len(found), dtype=np.int32)
    cell[common] = np.arange(len(common))
    classes, at = np.unique(np.log2(np.maximum(counts[rest], 1)).astype(int), return_inverse=True)
    cell[rest] = len(common) + at
    placed = np.where(codes >= 0, cell[np.maximum(codes, 0)] if len(found) else MISSING_BIN, MISSING_BIN).astype(
        np.int32
    )
    placed[unreadable] = UNREADABLE_BIN
    # In the cell of single rows every window row is a category that the reference has not.
    single = np.concatenate([counts[common], np.where(classes == 0, 1.0, 0.0)]).astype(np.float64)
    size = len(common) + len(classes)
    words = distinct([found[i] for i in common]) + [
        ONE_ROW if c == 0 else f"{RARE}{2**c:,} rows or more)" for c in classes
    ]
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


def read_numbers(values: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values (n,) as floats, NaN where missing, infinite or not to be read, and which rows could not be read."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values):
        numbers: NDArray[Any] = values.to_numpy(dtype="float64", na_value=np.nan)
        unreadable = np.zeros(len(values), dtype=bool)
    elif pd.api.types.is_datetime64_any_dtype(values):
        numbers, unreadable = np.full(len(values), np.nan), values.notna().to_numpy()
    else:
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
        unreadable = np.isnan(numbers) & values.notna().to_numpy() & (values.astype("str").str.strip() != "").to_numpy()
    return np.where(np.isfinite(numbers), np.clip(numbers, -_LARGEST_VALUE, _LARGEST_VALUE), np.nan), unreadable


def read_dates(values: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Dates (n,) as days since 1970 in UTC; see read_numbers()."""
    import pandas as pd

    given = values
    if not pd.api.types.is_datetime64_any_dtype(values):
        values = pd.to_datetime(values.astype("str"), errors="coerce", utc=True, format="ISO8601")
    elif values.dt.tz is not None:
        values = values.dt.tz_convert("UTC")
    if values.dt.tz is not None:
        values = values.dt.tz_localize(None)
    unreadable = (values.isna() & given.notna()).to_numpy()
    return ((values - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy(dtype="float64"), unreadable


# Of more classes than this the first ones' probabilities are compared.
_MAX_CLASSES = 10
_CERTAIN_SCORE = 37.0


@dataclass(frozen=True)
class ComparedColumn:
    """A column to be compared: `read` is how it is read: number, category or date."""

    name: str
    aspect: DriftAspect
    read: str


def list_compared_columns(reference: pd.DataFrame, columns: FeatureColumns, time: str | None) -> list[ComparedColumn]:
    """The feature columns (without the clock) and the model's answers."""
    named = {
        "number": columns.numbers,
        "category": columns.booleans + columns.low + columns.high,
        "date": columns.dates,
    }
    found = [
        ComparedColumn(n, "numbers" if read != "category" else "categories", read)
        for read, ns in named.items()
        for n in ns
    ]
    chances = [n for n in reference.columns if str(n).startswith(PROBABILITY_PREFIX) and n not in columns.names]
    if PREDICTION_COLUMN in reference:
        found.append(ComparedColumn(PREDICTION_COLUMN, "prediction", "category" if chances else "number"))
    # The second of two probabilities says what the first one did.
    kept = chances[1:] if len(chances) == 2 else chances[:_MAX_CLASSES]
    return [c for c in found if c.name != time] + [ComparedColumn(n, "prediction", "number") for n in kept]


def drop_repeated_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Of columns with the same name the first."""
    return frame.loc[:, ~frame.columns.duplicated()]


def find_absent_columns(
    reference: pd.DataFrame, window: pd.DataFrame, wanted: list[ComparedColumn]
) -> list[DriftFinding]:
    """Columns that stand twice in the window, or are gone from it."""
    twice = set(window.columns[window.columns.duplicated()])
    found = []
    for column in wanted:
        if column.name in twice:
            said = "the window has this column twice; the first one was compared"
            found.append(DriftFinding(column.name, "type", _CERTAIN_SCORE, 0.0, True, said))
        if column.name not in window and column.name in reference:
            found.append(
                DriftFinding(column.name, "silent", _CERTAIN_SCORE, 0.0, True, "the column is gone from the window")
            )
    return found


def read_compared_values(
    parts: list[pd.DataFrame], column: ComparedColumn, time: str | None
) -> tuple[Any, NDArray[np.bool_]]:
    """The column's values in all parts, one below the other, and which cannot be read. A part without it: all missing.

    Dates count as days before or after the row's own time where there is one: dates themselves always move on.
    """
    import pandas as pd

    sides: list[pd.Series] = [
        part[column.name] if column.name in part else pd.Series(np.nan, index=part.index) for part in parts
    ]
    if column.read == "category":
        joined = pd.concat([_read_categories(side) for side in sides], ignore_index=True)
        return joined, np.zeros(len(joined), dtype=bool)
    reader = read_dates if column.read == "date" else read_numbers
    read = [reader(side) for side in sides]
    numbers = np.concatenate([numbers for numbers, _ in read])
    if column.read == "date" and time is not None:
        numbers = numbers - np.concatenate([read_dates(part[time])[0] for part in parts])
    return numbers, np.concatenate([unreadable for _, unreadable in read])


def _read_categories(side: pd.Series) -> pd.Series:
    import pandas as pd

    if pd.api.types.is_float_dtype(side):
        side = side.replace([np.inf, -np.inf], np.nan)
    return side.astype(object)


def bin_column(parts: list[pd.DataFrame], column: ComparedColumn, time: str | None) -> BinnedColumn:
    """The column as cells."""
    found, unreadable = read_compared_values(parts, column, time)
    of = bin_categories if column.read == "category" else bin_numbers
    return of(column.name, column.aspect, found, unreadable)


def rises_with_clock(clock: NDArray[np.float64], numbers: NDArray[np.float64]) -> bool:
    """Whether numbers (n,) never fall and do rise along the clock (n,): a year, a date, a counter. They always move on."""
    order = np.lexsort((numbers, clock))
    steps = np.diff(numbers[order])
    return bool(len(steps)) and bool((steps >= 0).all()) and bool((steps > 0).any())
