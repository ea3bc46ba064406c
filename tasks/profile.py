"""What each column of a table is: vocabulary of validate, features and init. Knows nothing of which columns are
wanted.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tasks import tables
from tasks.errors import InputError
from tasks.settings import Problem

if TYPE_CHECKING:
    import pandas as pd

TABLE = Path("data/table.parquet")
PROFILE = Path("data/profile.json")

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
class Finding:
    """Something about the table that does not stop a lap but should be known."""

    check: str
    level: Literal["warn"]
    column: str | None
    message: str


@dataclass(frozen=True)
class Profile:
    """A table at a glance: `rows` that can be learned from, the columns hashed into the row key, columns, findings."""

    rows: int
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of data/profile.json."""
        return {
            "rows": self.rows,
            "key": list(self.key),
            "columns": {c.name: _column_json(c) for c in self.columns},
            "findings": [vars(finding) for finding in self.findings],
        }


def read(path: Path) -> Profile:
    """The profile that validate wrote."""
    content = tables.read_json(path)
    return Profile(
        rows=content["rows"],
        key=tuple(content["key"]),
        columns=tuple(_column_of(name, c) for name, c in content["columns"].items()),
        findings=tuple(Finding(**finding) for finding in content["findings"]),
    )


def of(frame: pd.DataFrame, key: tuple[str, ...] = (), findings: tuple[Finding, ...] = ()) -> Profile:
    """Profile of a frame with canonical dtypes (see tasks/ingest.py); the row key itself is left out."""
    names = [name for name in frame.columns if name != tables.ROW]
    return Profile(len(frame), key, tuple(column(frame[name]) for name in sorted(names)), findings)


def column(values: pd.Series) -> Column:
    """One column's type and counts."""
    missing = int(values.isna().sum())
    distinct = int(values.nunique())
    kind = infer(values, distinct)
    low, high = _range(values, kind) if distinct else (None, None)
    return Column(str(values.name), kind, missing, distinct, distinct + (missing > 0) <= 1, low, high)


def infer(values: pd.Series, distinct: int) -> Type:
    """Type of a column with a canonical dtype; `distinct` counts its values without missing."""
    from pandas.api import types

    if types.is_bool_dtype(values):
        return "boolean"
    if types.is_numeric_dtype(values):
        return "number"
    if types.is_datetime64_any_dtype(values):
        return "date"
    present = len(values) - int(values.isna().sum())
    if distinct > _MOSTLY_DISTINCT * present:
        return "text"
    # The words are counted once per distinct value: cheap, and a text that comes back is still one text.
    varied = distinct > _VARIED * present
    return "text" if varied and _words(values.drop_duplicates()) >= _SENTENCE_WORDS else "category"


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
    return f"It has {', '.join(names[:12])}{', …' if len(names) > 12 else ''}. Name one of them"


def _words(values: pd.Series) -> float:
    return float(values.dropna().head(10_000).str.count(" ").mean()) + 1


def _range(values: pd.Series, kind: Type) -> tuple[float | str | None, float | str | None]:
    import numpy as np

    if kind == "date":
        return str(values.min().isoformat()), str(values.max().isoformat())
    if kind != "number":
        return None, None
    finite = values.astype("float64")
    finite = finite[np.isfinite(finite)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (None, None)


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
