"""Which rows and columns of reference and window are compared, and how their values are read."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring.drift.binning import bin_categories, bin_numbers
from windvane.monitoring.drift.permutation import RowPermutation
from windvane.monitoring.records import DriftAspect, DriftFinding
from windvane.tasks.evaluation.scores import PREDICTION_COLUMN, PROBABILITY_PREFIX
from windvane.tasks.models.features import FeatureColumns

# Squares of values stay finite.
_LARGEST_VALUE = 1e150
# Of more classes than this the first ones' probabilities are compared.
_MAX_CLASSES = 10
_CERTAIN_SCORE = 37.0
# More rows than this of a side are sampled; with time, of which a reference holds many windows, more than the other.
MAX_SAMPLE_ROWS, MAX_TIMED_SAMPLE_ROWS = 20_000, 100_000
# With time, a window is exchanged in about so many blocks of rows that follow each other.
_WINDOW_BLOCKS = 10


@dataclass(frozen=True)
class ComparedColumn:
    """A column to be compared, and how it is read."""

    name: str
    aspect: DriftAspect
    read: Literal["number", "category", "date"]


def list_compared_columns(reference: pd.DataFrame, columns: FeatureColumns, time: str | None) -> list[ComparedColumn]:
    """The feature columns (without the clock) and the model's predictions."""
    found = [ComparedColumn(name, "numbers", "number") for name in columns.numbers]
    found += [ComparedColumn(name, "categories", "category") for name in columns.booleans + columns.low + columns.high]
    found += [ComparedColumn(name, "numbers", "date") for name in columns.dates]
    chances = [n for n in reference.columns if str(n).startswith(PROBABILITY_PREFIX) and n not in columns.names]
    if PREDICTION_COLUMN in reference:
        found.append(ComparedColumn(PREDICTION_COLUMN, "prediction", "category" if chances else "number"))
    # The second of two probabilities repeats the first one.
    kept = chances[1:] if len(chances) == 2 else chances[:_MAX_CLASSES]
    return [c for c in found if c.name != time] + [ComparedColumn(n, "prediction", "number") for n in kept]


def find_absent_columns(
    reference: pd.DataFrame, window: pd.DataFrame, wanted: list[ComparedColumn]
) -> list[DriftFinding]:
    """Columns that appear twice in the window, or are gone from it."""
    twice = set(window.columns[window.columns.duplicated()])
    found = []
    for name in (column.name for column in wanted):
        if name in twice:
            note = "the window has this column twice; the first one was compared"
            found.append(DriftFinding(name, "type", _CERTAIN_SCORE, 0.0, True, note))
        if name not in window and name in reference:
            note = "the column is gone from the window"
            found.append(DriftFinding(name, "silent", _CERTAIN_SCORE, 0.0, True, note))
    return found


def read_compared_values(
    parts: list[pd.DataFrame], column: ComparedColumn, time: str | None
) -> tuple[Any, NDArray[np.bool_]]:
    """The column's values in all parts, one below the other, and which cannot be read. A part without it: all missing.

    Dates count as days before or after the row's own time where there is one: dates themselves always move on.
    """
    name = column.name
    sides: list[pd.Series] = [p[name] if name in p else pd.Series(np.nan, index=p.index) for p in parts]
    if column.read == "category":
        joined = pd.concat([_read_categories(side) for side in sides], ignore_index=True)
        return joined, np.zeros(len(joined), dtype=bool)
    read = [(_read_dates if column.read == "date" else _read_numbers)(side) for side in sides]
    numbers = np.concatenate([numbers for numbers, _ in read])
    if column.read == "date" and time is not None:
        numbers = numbers - read_clock(parts, time)
    return numbers, np.concatenate([unreadable for _, unreadable in read])


def _read_categories(side: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(side):
        side = side.replace([np.inf, -np.inf], np.nan)
    return side.astype(object)


def _read_numbers(values: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values (n,) as floats, NaN where missing, infinite or not to be read, and which rows could not be read."""
    if pd.api.types.is_numeric_dtype(values):
        numbers: NDArray[Any] = values.to_numpy(dtype="float64", na_value=np.nan)
        unreadable = np.zeros(len(values), dtype=bool)
    elif pd.api.types.is_datetime64_any_dtype(values):
        numbers, unreadable = np.full(len(values), np.nan), values.notna().to_numpy()
    else:
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
        unreadable = np.isnan(numbers) & values.notna().to_numpy() & (values.astype("str").str.strip() != "").to_numpy()
    return np.where(np.isfinite(numbers), np.clip(numbers, -_LARGEST_VALUE, _LARGEST_VALUE), np.nan), unreadable


def _read_dates(values: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Dates (n,) as days since 1970 in UTC; see _read_numbers()."""
    given = values
    if not pd.api.types.is_datetime64_any_dtype(values):
        values = pd.to_datetime(values.astype("str"), errors="coerce", utc=True, format="ISO8601")
    elif values.dt.tz is not None:
        values = values.dt.tz_convert("UTC")
    if values.dt.tz is not None:
        values = values.dt.tz_localize(None)
    unreadable = (values.isna() & given.notna()).to_numpy()
    return ((values - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy(dtype="float64"), unreadable


def read_clock(parts: list[pd.DataFrame], time: str) -> NDArray[np.float64]:
    """The times of all rows, (n,): days since 1970, or the numbers that only order the rows; NaN where there is none."""
    if all(pd.api.types.is_numeric_dtype(part[time]) for part in parts):
        return np.concatenate([part[time].to_numpy(dtype="float64", na_value=np.nan) for part in parts])
    return np.concatenate([_read_dates(part[time])[0] for part in parts])


@dataclass(frozen=True)
class SampledRows:
    """The rows to compare, in order: `past` before the reference (may be empty), reference, window."""

    past: pd.DataFrame
    reference: pd.DataFrame
    window: pd.DataFrame
    time: str | None
    seed: int

    @property
    def parts(self) -> list[pd.DataFrame]:
        """All three, oldest first."""
        return [self.past, self.reference, self.window]

    def labelled(self, target: str) -> SampledRows:
        """Only the rows whose label has come."""
        past, reference, window = (p[p[target].notna()] if target in p else p.iloc[:0] for p in self.parts)
        return SampledRows(past, reference, window, self.time, self.seed)


def sample_rows(
    past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, time: str | None, seed: int
) -> tuple[SampledRows, list[str]]:
    """The rows that are compared, of columns with the same name the first; and notes about what was left out.

    With time every k-th of all parts, so that stretches as long as the window stay so.
    """
    parts = [frame.loc[:, ~frame.columns.duplicated()] for frame in (past, reference, window)]
    if time is None:
        rng = np.random.default_rng(seed)
        kept = [
            p if len(p) <= MAX_SAMPLE_ROWS else p.iloc[np.sort(rng.choice(len(p), MAX_SAMPLE_ROWS, replace=False))]
            for p in parts
        ]
    else:
        every = max(-(-len(reference) // MAX_TIMED_SAMPLE_ROWS), -(-len(window) // MAX_SAMPLE_ROWS), 1)
        kept = [part.sort_values(time, kind="stable").iloc[::every] for part in parts]
        kept[0] = kept[0].iloc[-MAX_TIMED_SAMPLE_ROWS:]
    notes = [
        f"{len(k):,} of {len(p):,} rows of the {name} were compared"
        for name, p, k in zip(("past", "reference", "window"), parts, kept, strict=True)
        if len(k) < len(p)
    ]
    return SampledRows(kept[0], kept[1], kept[2], time, seed), notes


def measure_span(rows: SampledRows) -> float | None:
    """Days from the first row before the window to the last; None: the time only orders rows, and has no unit."""
    if rows.time is None or not all(
        pd.api.types.is_datetime64_any_dtype(part[rows.time]) for part in rows.parts if len(part)
    ):
        return None
    clock = read_clock([part for part in rows.parts[:2] if len(part)], rows.time)
    return float(np.ptp(clock[np.isfinite(clock)])) if np.isfinite(clock).any() else None


def find_rising_columns(rows: SampledRows, wanted: list[ComparedColumn]) -> list[str]:
    """Number columns that never fall and do rise along the clock: a year, a counter. No window is ever like the reference in them."""
    if rows.time is None:
        return []
    clock = read_clock(rows.parts, rows.time)
    numbers = [column for column in wanted if column.read == "number" and column.aspect == "numbers"]
    values = {column.name: read_compared_values(rows.parts, column, None)[0] for column in numbers}
    return sorted(name for name, one in values.items() if rises_with_clock(one, clock))


def rises_with_clock(numbers: NDArray[np.float64], clock: NDArray[np.float64]) -> bool:
    """Whether numbers (n,) never fall and do rise along the clock (n,)."""
    known = np.isfinite(numbers) & np.isfinite(clock)
    steps = np.diff(numbers[known][np.lexsort((numbers[known], clock[known]))])
    return bool((steps >= 0).all() and (steps > 0).any())


def build_permutation(rows: SampledRows, wanted: Sequence[ComparedColumn]) -> RowPermutation:
    """The columns as cells, in an order of rows that neither the table's order nor the columns' order decides."""
    cut = []
    for column in sorted(wanted, key=lambda c: c.name):
        bin_values = bin_categories if column.read == "category" else bin_numbers
        cut.append(bin_values(column.name, column.aspect, *read_compared_values(rows.parts, column, rows.time)))
    past, reference, window = (len(part) for part in rows.parts)
    key = np.zeros(past + reference + window, dtype=np.uint64)
    for cells in cut:
        weight = np.uint64(zlib.crc32(cells.name.encode()) * 0x9E3779B97F4A7C15 % 2**64 | 1)
        key += (cells.codes.astype(np.int64).view(np.uint64) + np.uint64(3)) ** np.uint64(3) * weight
    side = np.repeat([0, 1, 2], [past, reference, window])
    order = np.lexsort((key, side) if rows.time is None else (key, read_clock(rows.parts, rows.time), side))
    ordered = [replace(cells, codes=cells.codes[order]) for cells in cut]
    run = None if rows.time is None else max(window // _WINDOW_BLOCKS, 1)
    return RowPermutation(ordered, reference, window, rows.seed, run, before=past)
