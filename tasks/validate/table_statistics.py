"""Statistics of a whole table in a few streaming scans with polars: counts per column, samples, and rows that repeat
exactly or nearly. The checks decide what is too much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from polars import selectors

from windvane.tasks.ingest import table_io

ValueShape = Literal["number", "boolean", "date", "words"]
# Up to here different values are counted exactly. Beyond, only where a sample shows at most FEW_DISTINCT_VALUES of them; HyperLogLog
# estimates the others within ten percent or so: memory stays bounded, and nothing hangs on the digits of such a count.
EXACT_COUNT_ROWS = 1_000_000
FEW_DISTINCT_VALUES = 10_000
# The words of a text are counted in so many different values.
_MAX_COUNTED_TEXTS = 10_000
# A check reads so many rows, evenly spaced, wherever the whole table is not needed.
CHECK_SAMPLE_ROWS = 50_000
# Whether values are few shows in more of them.
DISTINCT_SAMPLE_ROWS = 2 * CHECK_SAMPLE_ROWS


@dataclass(frozen=True)
class ColumnCounts:
    """One column over all rows. `low`, `high`: finite numbers, dates as they are, None for words; `words`: blanks + 1
    in an average value of words, 0 where they were not counted. `values`: the different words, where they were listed.
    """

    name: str
    shape: ValueShape
    missing: int
    distinct: int
    low: Any
    high: Any
    infinite: int
    words: float
    values: frozenset[str] | None = None

    @property
    def constant(self) -> bool:
        """A missing value counts as a value of its own."""
        return self.distinct + (self.missing > 0) <= 1


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan beforehand: its rows, some of them (evenly spaced), and the file that holds just these rows,
    if a stage wrote one: it states what its columns hold.
    """

    rows: int
    sample: pl.DataFrame
    file: Path | None


def scan_frame(frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Any frame with canonical types as a scan, NaN as missing."""
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        frame = pl.from_pandas(frame)
    scan = frame.lazy()
    floats = [name for name, kind in scan.collect_schema().items() if kind.is_float()]
    return scan.with_columns(pl.col(floats).fill_nan(None)) if floats else scan


def count_columns(scan: pl.LazyFrame, facts: ScanFacts | None = None) -> tuple[int, tuple[ColumnCounts, ...]]:
    """Rows of the scan, and the counts of every column but the row key, by name. Memory does not grow with the rows.

    `facts`: what need not be looked up again.
    """
    schema = {name: kind for name, kind in scan.collect_schema().items() if name != table_io.ROW_KEY}
    rows = facts.rows if facts else scan.select(pl.len()).collect(engine="streaming").item()
    file = facts.file if facts else None
    ends = table_io.read_column_ends(file) if file else _find_ends(scan, schema)
    listed: dict[str, frozenset[str]] = {}
    if rows <= EXACT_COUNT_ROWS:
        distinct = _compute_values(scan, {name: pl.col(name).drop_nulls().n_unique() for name in schema})
    else:
        sample = facts.sample if facts else sample_evenly(scan, rows, DISTINCT_SAMPLE_ROWS)
        distinct, listed = _distinct(scan, schema, ends, rows, sample, file)
    return rows, tuple(
        replace(_counts(scan, name, schema[name], rows, ends[name], distinct[name]), values=listed.get(name))
        for name in sorted(schema)
    )


def describe_distinct(distinct: int, rows: int) -> str:
    """How many different values count_columns() found in `rows` rows, in words: an estimate is named as one."""
    if rows <= EXACT_COUNT_ROWS or distinct <= FEW_DISTINCT_VALUES:
        return f"{distinct:,}"
    return f"about {float(f'{distinct:.2g}'):,.0f}"


def get_value_shape(kind: Any) -> ValueShape:
    """What a canonical polars type holds."""
    if kind == pl.Boolean:
        return "boolean"
    if kind.is_numeric():
        return "number"
    return "date" if kind.is_temporal() else "words"


def _compute_values(scan: pl.LazyFrame, wanted: dict[Any, Any]) -> dict[Any, Any]:
    """The value of each expression. Names are the user's: positions cannot clash."""
    expressions = [expression.alias(str(i)) for i, expression in enumerate(wanted.values())]
    return (
        dict(zip(wanted, scan.select(expressions).collect(engine="streaming").row(0), strict=True))
        if expressions
        else {}
    )


def _find_ends(scan: pl.LazyFrame, schema: dict[str, Any]) -> dict[str, table_io.ColumnEnds]:
    wanted = {(name, "missing"): pl.col(name).null_count() for name in schema}
    for name, kind in schema.items():
        if kind != pl.Null and get_value_shape(kind) != "words":
            wanted |= {(name, "low"): pl.col(name).min(), (name, "high"): pl.col(name).max()}
    got = _compute_values(scan, wanted)
    return {n: table_io.ColumnEnds(got[n, "missing"], got.get((n, "low")), got.get((n, "high"))) for n in schema}


def _distinct(
    scan: pl.LazyFrame,
    schema: dict[str, Any],
    ends: dict[str, table_io.ColumnEnds],
    rows: int,
    sample: pl.DataFrame,
    file: Path | None,
) -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    """Different values of each column of many rows, an estimate where the sample has many; few words by name."""
    found, many, few = {}, [], []
    for name, kind in schema.items():
        e = ends[name]
        if e.missing == rows or (e.low is not None and e.low == e.high) or get_value_shape(kind) == "boolean":
            found[name] = 0 if e.missing == rows else 1 if e.low == e.high else 2
            continue
        seen = sample[name].drop_nulls().n_unique()
        if seen > FEW_DISTINCT_VALUES:
            many.append(name)
        # Of whole numbers all that lie between the ends may have been seen: then there are no others.
        elif kind.is_integer() and e.high - e.low + 1 == seen:
            found[name] = seen
        else:
            few.append(name)
    words = tuple(name for name in few if get_value_shape(schema[name]) == "words")
    listed = table_io.read_distinct_words(file, words) if file else {}
    few = [name for name in few if name not in listed]
    # One scan a column, side by side: a scan of one column keeps one core busy.
    scans = [scan.select(pl.col(name).drop_nulls()).group_by(name).agg() for name in few]
    scans += [scan.select(pl.col(name).approx_n_unique()) for name in many]
    got = dict(zip([*few, *many], pl.collect_all(scans, engine="streaming"), strict=True))
    listed |= {name: frozenset(got[name][name]) for name in few if name in words}
    found |= {name: len(values) for name, values in listed.items()} | {name: len(got[name]) for name in few}
    for name in many:
        # HyperLogLog counts a missing value as one more.
        found[name] = min(got[name].item() - (ends[name].missing > 0), rows - ends[name].missing)
    return found, {name: values for name, values in listed.items() if len(values) <= FEW_DISTINCT_VALUES}


def _counts(
    scan: pl.LazyFrame, name: str, kind: Any, rows: int, ends: table_io.ColumnEnds, distinct: int
) -> ColumnCounts:
    low, high, infinite = ends.low, ends.high, 0
    if kind.is_float() and low is not None and (math.isinf(low) or math.isinf(high)):
        infinite, low, high = _finite(scan, name)
    words = _words(scan, name, rows) if get_value_shape(kind) == "words" and distinct else 0.0
    return ColumnCounts(name, get_value_shape(kind), ends.missing, distinct, low, high, infinite, words)


def _finite(scan: pl.LazyFrame, name: str) -> tuple[int, Any, Any]:
    """How many infinite values there are, and the ends of the others."""
    column = pl.col(name)
    values = column.filter(column.is_finite())
    expressions = (column.is_infinite().sum().alias("infinite"), values.min().alias("low"), values.max().alias("high"))
    return scan.select(expressions).collect(engine="streaming").row(0)


def _words(scan: pl.LazyFrame, name: str, rows: int) -> float:
    """Each value counts once: a text that comes back is still one text."""
    some = scan.select(pl.col(name).drop_nulls())
    if rows > EXACT_COUNT_ROWS:
        some = some.head(DISTINCT_SAMPLE_ROWS)
    values = some.unique(maintain_order=True).head(_MAX_COUNTED_TEXTS)
    return float(values.select(pl.col(name).str.count_matches(" ", literal=True).mean()).collect().item() or 0) + 1


def sample_evenly(scan: pl.LazyFrame, rows: int, most: int = CHECK_SAMPLE_ROWS) -> pl.DataFrame:
    """At most `most` rows, evenly spaced over the scan's `rows`, in their order."""
    if rows <= most:
        return scan.collect(engine="streaming")
    step = -(-rows // most)
    index = "_position in the scan"
    kept = scan.with_row_index(index).filter(pl.col(index) % step == 0).drop(index)
    return kept.collect(engine="streaming")


def sample_evenly_and_where(
    scan: pl.LazyFrame, rows: int, most: int, also: pl.Expr | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What sample_evenly() gives, and the rows of which `also` holds (None: all), in one reading."""
    if also is None:
        every = scan.collect(engine="streaming")
        return sample_evenly(every.lazy(), rows, most), every
    index = "_position in the scan"
    even = pl.col(index) % -(-rows // most) == 0
    kept = scan.with_row_index(index).filter(even | also).collect(engine="streaming")
    return kept.filter(even).drop(index), kept.filter(also).drop(index)


# Up to so many rows all are compared. Of more, those whose value in one column falls into one bucket: rows that are
# alike are in the same one.
MAX_COMPARED_ROWS = 100_000
# How many values a column has shows in so many stretches of so many rows.
_SAMPLED_STRETCHES, _STRETCH_ROWS = 4, 2_500
# Two measured values agree by chance in fewer digits.
_COMPARED_DIGITS = 4
# Uninformative rows agree by chance. What is compared must be rare enough that less than this share of rows would find
# a twin if the columns had nothing to do with each other.
_MAX_CHANCE_SHARE = 1e-4


@dataclass(frozen=True)
class DuplicateRows:
    """`exact`: rows that repeat one before. `near`: share of rows that repeat another nearly, not wholly; `how`: in
    which way most of them do.
    """

    exact: int
    near: float
    how: str


def choose_comparable_rows(scan: pl.LazyFrame, names: list[str], rows: int) -> pl.Expr | None:
    """Which of the scan's `rows` rows are in the part that speaks for all; None: all do. By the one of the named columns
    that has the most values in a few stretches of rows: what is alike is in the same part.
    """
    if rows <= MAX_COMPARED_ROWS or not names:
        return None
    stretches = [scan.slice(rows * i // _SAMPLED_STRETCHES, _STRETCH_ROWS) for i in range(_SAMPLED_STRETCHES)]
    some = pl.concat([part.collect(engine="streaming") for part in stretches])
    by = max(names, key=lambda name: (some[name].n_unique(), name))
    return pl.col(by).hash(seed=0) % -(-rows // MAX_COMPARED_ROWS) == 0


def count_duplicate_rows(some: pl.DataFrame, rows: int, id: str | None) -> DuplicateRows:
    """Compares whole rows, all but the id. `some`: of a table of `rows` rows all, or what choose_comparable_rows() chose."""
    names = tuple(sorted(name for name in some.columns if name not in (id, table_io.ROW_KEY)))
    # The key of a row without an id is its content.
    keyed = id is None and table_io.ROW_KEY in some.columns
    exact = len(some) - (some[table_io.ROW_KEY] if keyed else some.select(names)).n_unique()
    share, how = measure_near_duplicates(some.select(names))
    return DuplicateRows(round(exact * rows / max(len(some), 1)), share, how)


def measure_near_duplicates(frame: pl.DataFrame) -> tuple[float, str]:
    """Share of rows that repeat another one of `frame` but for rounding, blanks and case, or but for one column."""
    if len(frame) < 2 or not frame.width:
        return 0.0, ""
    exact, coarse = _hashes(frame), _hashes(_round_values(frame))
    first = np.unique(exact.sum(axis=1), return_index=True)[1]  # of rows alike to the letter, one
    coarse = coarse[first]
    counted = [np.unique(column, return_counts=True)[1] / len(coarse) for column in coarse.T]
    agree = [float((shares**2).sum()) for shares in counted]  # the chance that two rows agree in a column
    whole, by_chance = coarse.sum(axis=1), len(coarse) * np.prod(agree)
    found = _mask_repeated(whole) if by_chance < _MAX_CHANCE_SHARE else np.zeros(len(coarse), dtype=bool)
    most, how = int(found.sum()), "but for rounding, blanks or case"
    for j, name in enumerate(frame.columns):
        if by_chance / agree[j] >= _MAX_CHANCE_SHARE:
            continue
        but = _mask_repeated(whole - coarse[:, j])
        if (differing := int((but & ~found).sum())) > most:
            most, how = differing, f"in all columns but {name!r}"
        found |= but
    return float(found.sum()) / 2 / len(frame), how


def _mask_repeated(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Rows whose key another row has too."""
    order = np.sort(keys)
    return np.isin(keys, order[1:][order[1:] == order[:-1]])


def _hashes(frame: pl.DataFrame) -> NDArray[np.uint64]:
    """(n, columns) hashes of cells: their sum over columns is a hash of the row that a column can be taken out of."""
    return np.column_stack([frame[name].hash(seed=j).to_numpy() for j, name in enumerate(frame.columns)])


def _round_values(frame: pl.DataFrame) -> pl.DataFrame:
    words = selectors.string().str.strip_chars().str.replace_all(r"\s+", " ").str.to_lowercase()
    return frame.with_columns(words, selectors.float().round_sig_figs(_COMPARED_DIGITS))
