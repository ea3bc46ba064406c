"""What each column of a table is: vocabulary of validate, features and init. Knows nothing of which columns are
wanted.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from windvane.tasks import measure, tables
from windvane.tasks.errors import InputError
from windvane.tasks.places import DATA
from windvane.tasks.settings import Problem

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

TABLE = DATA / "table.parquet"
PROFILE = DATA / "profile.json"

Type = Literal["number", "boolean", "category", "date", "text"]

# A category speaks by coming back. Past this share of distinct values each row says something of its own: free text
# or a name.
_MOSTLY_DISTINCT = 0.5
# Sentences also repeat (canned answers), yet are not categories: this many words on average make a text, if values
# vary much.
_SENTENCE_WORDS = 5
_VARIED = 0.05


@dataclass(frozen=True)
class Column:
    """One column. `minimum` and `maximum`: numbers (finite values only), dates as ISO strings; None for other types.

    `constant` counts a missing value as a value of its own, so an all-missing column is constant
    and a column of one value with gaps is not.
    """

    name: str
    type: Type
    missing: int
    distinct: int
    constant: bool
    minimum: float | str | None = None
    maximum: float | str | None = None


@dataclass(frozen=True)
class Profile:
    """A table at a glance: `rows` that can be learned from, the columns hashed into the row key, columns."""

    rows: int
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of profile.json."""
        return {
            "rows": self.rows,
            "key": list(self.key),
            "columns": {c.name: _column_json(c) for c in self.columns},
        }


def read(path: Path) -> Profile:
    """The profile that validate wrote."""
    return tables.read_record(
        path,
        lambda content: Profile(
            rows=int(content["rows"]),
            key=tuple(content["key"]),
            columns=tuple(_column_of(name, c) for name, c in content["columns"].items()),
        ),
    )


def of(frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame, key: tuple[str, ...] = ()) -> Profile:
    """Profile of a frame with canonical dtypes (see tasks/ingest.py); the row key itself is left out."""
    return counted(*measure.counts(measure.lazy(frame)), key)


def counted(rows: int, counts: tuple[measure.Counts, ...], key: tuple[str, ...] = ()) -> Profile:
    """Profile from counts that were already taken."""
    return Profile(rows, key, tuple(_column(c, rows) for c in counts))


def column(values: pd.Series) -> Column:
    """One column's type and counts."""
    return of(values.to_frame()).columns[0]


def _column(c: measure.Counts, rows: int) -> Column:
    low, high = (None, None) if c.shape == "boolean" else (_end(c.low), _end(c.high))
    return Column(c.name, infer(c, rows), c.missing, c.distinct, c.constant, low, high)


def _end(value: Any) -> float | str | None:
    if value is None:
        return None
    return str(value.isoformat()) if hasattr(value, "isoformat") else float(value)


def infer(c: measure.Counts, rows: int) -> Type:
    """Type of a column from its counts over `rows`."""
    if c.shape != "words":
        return c.shape
    present = rows - c.missing
    if c.distinct > _MOSTLY_DISTINCT * present:
        return "text"
    return "text" if c.distinct > _VARIED * present and c.words >= _SENTENCE_WORDS else "category"


def row_key(problem: Problem, names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that make a row's key: problem.id where there is one, else all. Then a row whose content changes is a
    new row.
    """
    return (problem.id,) if problem.id else tuple(sorted(name for name in names if name != tables.ROW))


def named(problem: Problem) -> tuple[tuple[str, str], ...]:
    """Every (key of params.yaml, column it names)."""
    roles = (("target", problem.target), ("time", problem.time), ("id", problem.id), ("group", problem.group))
    ignored = tuple(("ignore", name) for name in problem.ignore)
    return tuple((f"problem.{role}", name) for role, name in (*roles, *ignored) if name is not None)


def require(wanted: tuple[tuple[str, str], ...], names: tuple[str, ...], file: str) -> None:
    """Raise one InputError for all (key, column) pairs whose column is not in `names`, each with the nearest right
    name.
    """
    gone = [f"{key}: {file} has no column {name!r}. {_hint(name, names)}" for key, name in wanted if name not in names]
    if gone:
        raise InputError("; ".join(gone))


def _hint(name: str, names: tuple[str, ...]) -> str:
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    if near:
        return f"Did you mean {lower[near[0]]!r}?"
    shown = [name if name.isprintable() else repr(name) for name in names[:12]]
    return f"It has {', '.join(shown)}{', …' if len(names) > 12 else ''}. Name one of them"


def _column_json(c: Column) -> dict[str, Any]:
    content = {"type": c.type, "missing": c.missing, "distinct": c.distinct, "constant": c.constant}
    return content if c.minimum is None else {**content, "min": c.minimum, "max": c.maximum}


def _column_of(name: str, content: dict[str, Any]) -> Column:
    return Column(
        name,
        cast("Type", content["type"]),
        content["missing"],
        content["distinct"],
        content["constant"],
        content.get("min"),
        content.get("max"),
    )
