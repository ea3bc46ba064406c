"""Which column is what: kind of problem, time, id, columns to ignore. Guesses from names, types and order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import leaks, tables
from windvane.tasks.errors import InputError
from windvane.tasks.profile import Column

if TYPE_CHECKING:
    import pandas as pd

# Up to as many different whole numbers are taken for classes: ratings, flags, codes.
_FEW_CLASSES = 10
_TIMES = 10

_TIME_NAME = re.compile(
    r"^(ts|t|dt|time|date|day|datetime|timestamp|epoch|seq|sequence|step)$|(time|date|timestamp|_ts|_at|_on|_dt)$|^(date|time)_"
)
_OTHER_TIME = re.compile(r"birth|dob|born|built|expir|due|until|deadline|end|arriv|deliver|clos", re.IGNORECASE)
_ID_NAME = re.compile(
    r"^(id|uuid|guid|key|index|unnamed: 0|row_?(number|num|id))$|(_id|_uuid|_guid|_key)$|[a-z](Id|ID|UUID)$"
)


@dataclass(frozen=True)
class Whole:
    """A canonical table on disk, of which one column at a time is looked at."""

    path: Path

    def __getitem__(self, name: str) -> pd.Series:
        """All values of a column."""
        return tables.read_parquet(self.path, [name])[name]

    def __len__(self) -> int:
        """Number of rows."""
        return tables.rows(self.path)


@dataclass(frozen=True)
class Look:
    """The whole table, evenly spaced rows of it, and the columns as they are in those rows of these that have a
    label.
    """

    frame: Whole
    sample: pd.DataFrame
    columns: dict[str, Column]
    target: str
    file: str


def kind_of(look: Look, notes: list[str]) -> str:
    """Regression for numbers with many values, else classification."""
    column, name = look.columns[look.target], repr(look.target)
    if column.distinct == 0:
        raise InputError(f"--target: {look.file}: column {name} is empty. Name another column")
    if column.type in ("date", "text"):
        raise InputError(
            f"--target: {look.file}: column {name} holds {'dates' if column.type == 'date' else 'free text or names'}. Name a "
            "number or a class"
        )
    values = look.sample[look.target].dropna()
    whole = column.type != "number" or bool((values % 1 == 0).all())
    few = column.type != "number" or (column.distinct <= _FEW_CLASSES and whole)
    kind = "classification" if few else "regression"
    notes.append(
        f"{kind}: {name} has {column.distinct:,} different {'numbers' if column.type == 'number' else 'values'}; "
        "--kind says otherwise"
    )
    return kind


def time_of(look: Look, why: dict[str, str], notes: list[str]) -> str | None:
    """The column that says when a row was observed: by type, name and order; never one that has gaps."""
    best: tuple[bool, bool, bool, int] | None = None
    found = None
    for name, column in look.columns.items():
        named = _TIME_NAME.search(re.sub(r"\W", "_", name.lower())) is not None
        dated = column.type == "date"
        if (
            name in why
            or name == look.target
            or column.distinct < _TIMES
            or not (dated or (named and column.type == "number"))
        ):
            continue
        rising = _rising(look.sample[name])
        # A number is a time only if the file follows it; a date also if it bears the name.
        plausible = (named or rising) if dated else rising
        if not plausible or _OTHER_TIME.search(name) or look.frame[name].isna().any():
            continue
        if best is None or (dated, rising, named, column.distinct) > best:
            best, found = (dated, rising, named, column.distinct), name
    if found is None:
        notes.append("no column says when a row was observed; --time names one")
    else:
        notes.append(f"{found!r} says when a row was observed; --time names another, problem.time: null none")
    return found


def _rising(values: pd.Series) -> bool:
    steps = values.diff().dropna()
    zero = steps.iloc[:1] * 0
    return len(steps) > 0 and bool((steps >= zero.iloc[0]).mean() >= 0.95)


def id_of(look: Look, taken: set[str | None], notes: list[str]) -> str | None:
    """A column that names each row, different in all of them."""
    for name in look.columns:
        if name == look.target or name in taken or not _is_id(name, look):
            continue
        if look.frame[name].is_unique and look.frame[name].notna().all():
            notes.append(f"{name!r} names a row for good; --id names another, problem.id: null none")
            return name
    return None


def _is_id(name: str, look: Look) -> bool:
    """A column of names: named so and mostly distinct, or words without blanks that are all distinct."""
    column, values = look.columns[name], look.sample[name]
    if column.type in ("number", "text") and _ID_NAME.search(name if name != name.upper() else name.lower()):
        return (
            bool((values.dropna() % 1 == 0).all()) and values.nunique() > 0.5 * len(values)
            if column.type == "number"
            else True
        )
    return column.type == "text" and values.is_unique and not values.str.contains(r"\s").any()


def ignored(look: Look, kind: str, taken: set[str | None]) -> dict[str, str]:
    """Columns that a model should not see, each with the reason."""
    why: dict[str, str] = {}
    for name, column in look.columns.items():
        if name in taken:
            continue
        reason = _plain_reason(name, look) or leaks.giveaway(
            look.sample[name], look.sample[look.target], kind == "classification"
        )
        if reason is not None:
            why[name] = reason
        elif column.type == "text":
            why[name] = "free text or a name: not learned from"
    return why


def _plain_reason(name: str, look: Look) -> str | None:
    column = look.columns[name]
    if column.distinct == 0:
        return "empty in every row that has a label"
    if column.constant:
        return "the same in every row that has a label"
    if _is_id(name, look):
        return (
            "an id, not a cause"
            if look.frame[name].is_unique
            else "an id that repeats: not a cause, and no name for a row"
        )
    return None
