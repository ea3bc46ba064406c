"""What each column of a table is (profile.json), and its distribution in a few kilobytes (digest.json), with which the
next table is compared.
"""

from __future__ import annotations

import datetime as dt
import difflib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from windvane.tasks import io
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings.problem_section import ProblemSettings
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate import table_statistics

TABLE_FILE = DATA_FOLDER / "table.parquet"
PROFILE_FILE = DATA_FOLDER / "profile.json"

ColumnType = Literal["number", "boolean", "category", "date", "text"]

# A category repeats. Past this share of distinct values each row has a value of its own: free text
# or a name.
_MOSTLY_DISTINCT = 0.5
# Sentences also repeat (fixed replies), yet are not categories: this many words on average make a text, if values
# vary much.
_MIN_SENTENCE_WORDS = 5
_VARIED_SHARE = 0.05


@dataclass(frozen=True)
class ColumnProfile:
    """One column. `minimum` and `maximum`: numbers (finite values only), dates as ISO strings; None for other types.

    `constant` counts a missing value as a value of its own, so an all-missing column is constant
    and a column of one value with gaps is not.
    """

    name: str
    type: ColumnType
    missing: int
    distinct: int
    constant: bool
    minimum: float | str | None = None
    maximum: float | str | None = None


@dataclass(frozen=True)
class TableProfile:
    """A table at a glance: `rows` with a label, the columns hashed into the row key, columns, and the classes of the target whose
    rows are set aside: no split holds them.
    """

    rows: int
    key: tuple[str, ...]
    columns: tuple[ColumnProfile, ...]
    set_aside: tuple[Any, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of profile.json."""
        content = {"rows": self.rows, "key": list(self.key), "columns": {c.name: _column_json(c) for c in self.columns}}
        return content | ({"set_aside": list(self.set_aside)} if self.set_aside else {})


def read_profile(path: Path) -> TableProfile:
    """The profile that validate wrote."""

    def profile(content: dict[str, Any]) -> TableProfile:
        columns = tuple(_column_of(name, c) for name, c in content["columns"].items())
        return TableProfile(int(content["rows"]), tuple(content["key"]), columns, tuple(content.get("set_aside", ())))

    return io.read_record(path, profile)


def profile_table(frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame, key: tuple[str, ...] = ()) -> TableProfile:
    """Profile of a frame with canonical dtypes (see tasks/ingest/ingestion.py); the row key itself is left out."""
    return profile_counts(*table_statistics.count_columns(table_statistics.scan_frame(frame)), key)


def profile_counts(
    rows: int, counts: tuple[table_statistics.ColumnCounts, ...], key: tuple[str, ...] = ()
) -> TableProfile:
    """Profile from counts that were already taken."""
    return TableProfile(rows, key, tuple(_profile_column_counts(c, rows) for c in counts))


def profile_column(values: pd.Series) -> ColumnProfile:
    """One column's type and counts."""
    return profile_table(values.to_frame()).columns[0]


def _profile_column_counts(c: table_statistics.ColumnCounts, rows: int) -> ColumnProfile:
    low, high = (None, None) if c.shape == "boolean" else (_format_column_end(c.low), _format_column_end(c.high))
    return ColumnProfile(c.name, infer_column_type(c, rows), c.missing, c.distinct, c.constant, low, high)


def _format_column_end(value: Any) -> float | str | None:
    if value is None:
        return None
    return str(value.isoformat()) if hasattr(value, "isoformat") else float(value)


def infer_column_type(c: table_statistics.ColumnCounts, rows: int) -> ColumnType:
    """Type of a column from its counts over `rows`."""
    if c.shape != "words":
        return c.shape
    present = rows - c.missing
    if c.distinct > _MOSTLY_DISTINCT * present:
        return "text"
    return "text" if c.distinct > _VARIED_SHARE * present and c.words >= _MIN_SENTENCE_WORDS else "category"


def choose_key_columns(problem: ProblemSettings, names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that make a row's key: problem.id where there is one, else all. Then a row whose content changes is a new row."""
    return (problem.id,) if problem.id else tuple(sorted(name for name in names if name != table_io.ROW_KEY))


def list_named_columns(problem: ProblemSettings) -> tuple[tuple[str, str], ...]:
    """Every (key of params.yaml, column it names)."""
    roles = tuple((role, getattr(problem, role)) for role in ("target", "time", "id", "group", "weight"))
    ignored = tuple(("ignore", name) for name in problem.ignore)
    return tuple((f"problem.{role}", name) for role, name in (*roles, *ignored) if name is not None)


def require_columns(wanted: tuple[tuple[str, str], ...], names: tuple[str, ...], file: str) -> None:
    """Raise one InputError for all (key, column) pairs whose column is not in `names`, each with the nearest right name."""
    gone = [(key, name) for key, name in wanted if name not in names]
    if gone:
        raise InputError(
            "; ".join(f"{key}: {file} has no column {name!r}. {_suggest_column(name, names)}" for key, name in gone)
        )


def require_slice_columns(settings: Settings, names: tuple[str, ...]) -> None:
    """Raise InputError for columns of gate.slices that are not in `names`, those of the table."""
    sliced = tuple(("gate.slices", name) for name in settings.gate.slices)
    require_columns(sliced, names, settings.data.where)


def _suggest_column(name: str, names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return (
            f"It has one column, {names[0]!r}: cells are parted by ',', ';', a tab or '|'. Export it with one of these"
        )
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    if near:
        return f"Did you mean {lower[near[0]]!r}?"
    shown = [name if name.isprintable() else repr(name) for name in names[:12]]
    return f"It has {', '.join(shown)}{', …' if len(names) > 12 else ''}. Name one of them"


def _column_json(c: ColumnProfile) -> dict[str, Any]:
    content = {"type": c.type, "missing": c.missing, "distinct": c.distinct, "constant": c.constant}
    return content if c.minimum is None else {**content, "min": c.minimum, "max": c.maximum}


def _column_of(name: str, content: dict[str, Any]) -> ColumnProfile:
    fields = {"min": "minimum", "max": "maximum"}
    return ColumnProfile(name, **{fields.get(key, key): value for key, value in content.items()})


SUMMARY_FILE = DATA_FOLDER / "digest.json"

# A hundred steps: two distributions of one table's size differ by more than their rounding.
QUANTILE_STEPS = 100
# Values kept of a category, most frequent first; the rest is one share.
MAX_KEPT_VALUES = 60
# Stretches in row order that show how far a column wanders by itself.
TABLE_STRETCHES = 5
_KEPT_DIGITS = 6


@dataclass(frozen=True)
class ColumnSummary:
    """One column. `missing`: share. `quantiles`: 0, 1, ..., 100 % of numbers and dates (seconds since 1970), else empty.

    `values`: share of each frequent value among the rows that have one, of words, booleans and few-valued whole numbers.
    `wander`: the largest distance (0 to 1) of one stretch of rows from all rows before it.
    """

    type: ColumnType
    missing: float
    distinct: int
    quantiles: tuple[float, ...]
    values: dict[str, float]
    wander: float

    @property
    def silent(self) -> bool:
        """Holds no information: one value, or none."""
        return self.distinct <= 1


@dataclass(frozen=True)
class TableSummary:
    """A table: `rows` with a label, the newest problem.time (seconds, or a number), its columns."""

    rows: int
    until: float | None
    columns: dict[str, ColumnSummary]
    notes: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The content of digest.json."""
        return asdict(self)


def summarize_table(
    profile: TableProfile, sample: pl.DataFrame, time: str | None, names: tuple[str, ...], notes: dict[str, float]
) -> TableSummary:
    """Digest of the named columns. `sample`: rows in the table's order; `notes`: shares that later tables are held to."""
    known = {c.name: c for c in profile.columns}
    columns = {}
    for name in names:
        c, summary = known[name], _summarize_column(sample[name], known[name].type)
        columns[name] = replace(summary, missing=c.missing / max(profile.rows, 1), distinct=c.distinct)
    until = None
    if time is not None and known[time].maximum is not None:
        until = float(convert_to_seconds(sample[time].max()))
    return TableSummary(profile.rows, until, columns, notes)


def summarize_newer_rows(
    past: TableSummary, now: TableSummary, sample: pl.DataFrame, time: str | None, least: int
) -> TableSummary:
    """`now`, or the part of it that is newer than `past` if it holds at least `least` rows of the sample.

    A table that grows hides what is wrong with its newest rows behind all the old ones.
    """
    if time is None or past.until is None:
        return now
    fresh = sample.filter(convert_to_numbers(sample[time]) > past.until)
    if not least <= len(fresh) < len(sample):
        return now
    columns = {name: _summarize_column(fresh[name], summary.type) for name, summary in now.columns.items()}
    return TableSummary(round(now.rows * len(fresh) / len(sample)), now.until, columns, now.notes)


def _summarize_column(values: pl.Series, kind: ColumnType) -> ColumnSummary:
    present = values.drop_nulls()
    few = kind in ("category", "boolean", "text") or (kind == "number" and present.n_unique() <= MAX_KEPT_VALUES)
    shares = _shares(present) if few else {}
    points: tuple[float, ...] = ()
    if kind in ("number", "date") and len(present):
        points = tuple(_rounded(float(v)) for v in _quantiles(convert_to_numbers(present)))
    missing = 1 - len(present) / max(len(values), 1)
    return ColumnSummary(kind, missing, present.n_unique(), points, shares, _rounded(_measure_own_drift(present, kind)))


def convert_to_numbers(values: pl.Series) -> pl.Series:
    """Numbers as they are, dates as seconds since 1970; float64, infinite ones as missing."""
    if values.dtype.is_temporal():
        return values.dt.epoch("us").cast(pl.Float64) / 1e6
    floats = values.cast(pl.Float64)
    return floats.set(floats.is_infinite(), None)


def convert_to_moment(seconds: float) -> dt.datetime:
    """A date from its seconds since 1970."""
    return dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)


def convert_to_seconds(value: Any) -> float:
    """A time as a number: a date as seconds since 1970."""
    return float(convert_to_numbers(pl.Series([value])).item())


def _quantiles(values: pl.Series) -> NDArray[np.float64]:
    finite = np.sort(values.drop_nulls().to_numpy())
    # Values that were seen, none between two: a column of whole numbers stays one. Ten times as fast as numpy's quantile.
    places = np.rint(np.linspace(0, 1, QUANTILE_STEPS + 1) * (len(finite) - 1)).astype(np.int64)
    return finite[places] if len(finite) else np.empty(0)


def _shares(values: pl.Series) -> dict[str, float]:
    counted = values.cast(pl.String).rename("value").value_counts(sort=False)
    top = counted.sort(["count", "value"], descending=[True, False]).head(MAX_KEPT_VALUES)
    return {value: _rounded(count / len(values)) for value, count in top.iter_rows()}


def _measure_own_drift(values: pl.Series, kind: ColumnType) -> float:
    """The largest distance of one of the later stretches from all rows before it."""
    size = len(values) // TABLE_STRETCHES
    if size < 50 or kind == "text":
        return 0.0
    pairs = [(values.slice(0, i * size), values.slice(i * size, size)) for i in range(1, TABLE_STRETCHES)]
    if kind in ("category", "boolean"):
        return max(measure_share_distance(_shares(before), _shares(stretch)) for before, stretch in pairs)
    return max(
        measure_quantile_distance(*(tuple(_quantiles(convert_to_numbers(part))) for part in pair)) for pair in pairs
    )


def measure_quantile_distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Kolmogorov and Smirnov's distance of two columns, from their quantiles; 0 where one is empty."""
    if not a or not b:
        return 0.0
    points = np.union1d(a, b)
    share_a, share_b = (np.searchsorted(q, points, side="right") / len(q) for q in (np.asarray(a), np.asarray(b)))
    return float(np.abs(share_a - share_b).max())


def measure_share_distance(a: dict[str, float], b: dict[str, float]) -> float:
    """Half the summed differences of shares: the least part of rows that would have to change value."""
    rest_a, rest_b = 1 - sum(a.values()), 1 - sum(b.values())
    return 0.5 * (sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in {*a, *b}) + abs(rest_a - rest_b))


def _rounded(value: float) -> float:
    """As many figures as survive another order of summation."""
    return float(f"{value:.{_KEPT_DIGITS}g}") if abs(value) < 1e6 else float(f"{value:.12g}")


def write_summary(digest: TableSummary | None, path: Path) -> None:
    """Write a digest, or that there is none."""
    io.write_json(None if digest is None else digest.to_json(), path)


def read_summary(path: Path) -> TableSummary | None:
    """What write_summary() wrote; None also where the file is absent."""
    return io.read_record(path, parse_summary) if path.exists() else None


def parse_summary(content: dict[str, Any] | None) -> TableSummary | None:
    """From what to_json() gave."""
    if content is None:
        return None
    columns = {
        name: ColumnSummary(**{**c, "quantiles": tuple(c["quantiles"])}) for name, c in content["columns"].items()
    }
    return TableSummary(**{**content, "columns": columns})
