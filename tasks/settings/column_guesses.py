"""What the columns of a table may be: problem type, positive class, time, id, and what a model should not see. Each guess is one
line that names how sure it is, and the option or key that overrides it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io, text_parsing
from windvane.tasks.ingest.cell_reading import UNNAMED
from windvane.tasks.models.problem_types import class_labels
from windvane.tasks.validate.checks import target_checks
from windvane.tasks.validate.table_profile import ColumnProfile

# Less than this of the target is shown by chance, too.
_NO_SIGNAL = 0.1
# Of two classes about as common as this, the name decides which is positive.
_BALANCED_SHARE = 0.45

# Of more classes a column that indicates one of them shows little.
_MOST_INDICATED_CLASSES = 20
# Rows of classes that are too rare to learn are set aside up to this share of all: beyond it the table is another one without them.
_SET_ASIDE_SHARE = 0.1

# Whole numbers of so many values are taken for classes, of more only where the name implies classes; else they are counts.
_FEW_CLASSES, _MOST_CLASSES = 3, 10
_CLASS_NAME = re.compile(
    r"class|categor|label|target|type|kind|rating|grade|quality|stars?$|species|cluster|segment|group|status|stage|level|code|"
    r"flag|digit|outcome|result|^is_|^has_",
    re.IGNORECASE,
)
# So many different times make a time, and so many calendar years.
_TIMES, _YEARS = 10, 4
_RISING_SHARE = 0.95
# Years of one place or product after the other still rise in most steps: of _YEARS each in three of four.
_YEARS_RISING_SHARE = 0.72
# A number that falls back into this lowest part of its range starts anew.
_START_SHARE = 0.1

_TIME_NAME = re.compile(
    r"^(ts|t|dt|at|when|time|date|day|datetime|timestamp|epoch|seq|sequence|step|year|yr|month|period|week|quarter)$"
    r"|(time|date|timestamp|_ts|_at|_on|_dt)$|^(date|time)_"
)
_YEAR_NAME = re.compile(r"^(year|yr|yyyy)$|(^|_)year$", re.IGNORECASE)
_OTHER_TIME = re.compile(
    r"birth|dob|born|built|model|renov|expir|due|until|deadline|end|arriv|deliver|clos", re.IGNORECASE
)
# Seconds from 1970 to 2000 and to 2040.
_EPOCH = (946_684_800, 2_208_988_800)
# What is in the words of dates in any form: a year, three parts, or the name of a month.
_DATE_SHAPE = re.compile(
    r"(?<!\d)(?:19|20)\d\d(?!\d)|\d{1,2}[./-]\d{1,2}[./-]\d{2}|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ ,.-]"
)
# Parts of a time, the coarsest first.
_TIME_PARTS = {
    "year": _YEAR_NAME,
    "month": re.compile(r"^(month|mon|mnth|mm)$|(^|_)month$|month_of_year", re.IGNORECASE),
    "day": re.compile(r"^(day|dd|mday|dayofmonth)$|(day|date)_?of_?month$", re.IGNORECASE),
}
# A number that is named as an id is one with at most so many rows to each on average; fewer and larger groups may differ for good.
_ID_SHARE = 0.1
_ROW_NUMBER = "counts the rows one by one: a row number, not a cause; --time names it if it is the time"
ID_NAME = re.compile(
    r"^(id|uuid|guid|key|index|[Uu]nnamed: \d+|row[_.]?(number|num|id|names?))$|(_id|_uuid|_guid|_key)$|[a-z](Id|ID|UUID)$"
)


@dataclass(frozen=True)
class StoredTable:
    """A canonical table on disk, of which one column at a time is read."""

    path: Path

    def __getitem__(self, name: str) -> pd.Series:
        """All values of a column."""
        return table_io.read_parquet(self.path, [name])[name]

    def __len__(self) -> int:
        """Number of rows."""
        return table_io.count_parquet_rows(self.path)


@dataclass(frozen=True)
class InspectedTable:
    """The whole table, evenly spaced rows of it, and the columns as they are in those rows of these that have a label."""

    frame: StoredTable
    sample: pd.DataFrame
    columns: dict[str, ColumnProfile]
    target: str
    file: str


def describe_guess(what: str, sure: str, option: str) -> str:
    """The line of a guess."""
    return f"{what} ({sure}); {option} overrides it"


def guess_problem_kind(inspected: InspectedTable, notes: list[str]) -> str:
    """Regression for numbers with many values and for counts, else classification."""
    column, name = inspected.columns[inspected.target], repr(inspected.target)
    if column.distinct == 0:
        raise InputError(f"--target: {inspected.file}: column {name} is empty. Name another column")
    if column.type in ("date", "text"):
        raise InputError(
            f"--target: {inspected.file}: column {name} holds {'dates' if column.type == 'date' else 'free text or names'}. Name a "
            "number or a class"
        )
    values = inspected.sample[inspected.target].dropna()
    if column.type != "number":
        kind, sure, what = "classification", "sure", "values"
    else:
        whole, named, what = bool((values % 1 == 0).all()), _CLASS_NAME.search(inspected.target) is not None, "numbers"
        few = whole and column.distinct <= (_MOST_CLASSES if named else _FEW_CLASSES)
        kind = "classification" if few else "regression"
        clear = column.distinct > 2 * _MOST_CLASSES or column.distinct == 2
        sure = "sure" if clear else "a guess: counts" if whole and not few else "likely"
    notes.append(describe_guess(f"{kind}: {name} has {column.distinct:,} different {what}", sure, "--kind"))
    return kind


def choose_positive_class(inspected: InspectedTable, given: str | None, notes: list[str]) -> bool | int | str | None:
    """Of two classes the `given` one, else the rarer, or of two about as common the one that is named as positive; None: there are
    not two. Raises InputError where no class is called as given.
    """
    counts, _ = count_classes(inspected)
    classes = class_labels.convert_to_target_classes(counts.index.to_numpy())
    order = np.argsort(classes, kind="stable")
    classes, shares = classes[order], counts.to_numpy(dtype="float64")[order] / counts.sum()
    if given is not None:
        named: list[bool | int | str] = [c.item() for c in classes if str(c).casefold() == given.casefold()]
        if not named:
            raise InputError(
                f"--positive: {inspected.file}: column {inspected.target!r} has no class {given!r}. Name one of "
                f"{', '.join(map(str, classes[:12]))}"
            )
        return named[0]
    if len(classes) != 2:
        return None
    rarer = int(shares.argmin())
    at = rarer if shares[rarer] < _BALANCED_SHARE else class_labels.find_positive_class(classes)
    found: bool | int | str = classes[at].item()
    notes.append(
        describe_guess(
            f"{found!r} is the positive class of {inspected.target!r}: precision, recall, f1 and the threshold are of it",
            f"likely: {shares[at]:.1%} of the rows",
            "--positive",
        )
    )
    return found


def count_classes(inspected: InspectedTable) -> tuple[pd.Series, pd.Series]:
    """Rows of each class, the commonest first: of the classes to learn, and of those with so few rows that they are to be set aside:
    only where these are a small part of the table, and two others remain.
    """
    counts = inspected.frame[inspected.target].dropna().value_counts()
    few = counts < target_checks.MIN_CLASS_ROWS
    aside = counts[few].sum() <= _SET_ASIDE_SHARE * counts.sum() and (~few).sum() >= 2
    return (counts[~few], counts[few]) if aside else (counts, counts.head(0))


def describe_set_aside(few: pd.Series, target: str) -> str:
    """The line on classes that are set aside."""
    listed = ", ".join(f"{value!r} ({count})" for value, count in few.head(5).items()) + (
        ", ..." if len(few) > 5 else ""
    )
    return (
        f"attention: {few.sum()} rows are of classes of {target!r} with fewer than {target_checks.MIN_CLASS_ROWS} rows, and set aside: "
        f"{listed}; accept in schema.yaml overrides it"
    )


def guess_time_column(inspected: InspectedTable, why: dict[str, str], notes: list[str]) -> str | None:
    """The column that has the time at which a row was observed: by type, name and order; never one that has gaps."""
    ranked: list[tuple[tuple[bool, bool, bool, int], str]] = []
    for name, column in inspected.columns.items():
        if name in why or name == inspected.target or _OTHER_TIME.search(name):
            continue
        if column.type not in ("date", "number"):
            continue
        named = is_time_name(name)
        rises = _measure_rise(inspected.sample[name])
        if not _is_time(inspected.sample[name], column, named, rises) or inspected.frame[name].isna().any():
            continue
        ranked.append(((column.type == "date", rises >= _RISING_SHARE, named, column.distinct), name))
    best = max(ranked, key=lambda column: column[0]) if ranked else None
    found = None if best is None else best[1]
    if best is None:
        notes.append("no column has the time at which a row was observed; --time names one")
    else:
        sure = "sure" if all(best[0][:3]) else "likely"
        notes.append(
            f"{found!r} has the time at which a row was observed ({sure}); --time names another, problem.time: null none"
        )
    notes.extend(_warn_of_hidden_times(inspected, found, why))
    return found


def _is_time(values: pd.Series, column: ColumnProfile, named: bool, rises: float) -> bool:
    """A date that the file follows or that is named so. Of numbers: calendar ones, or such that are named so and never begin again."""
    rising = rises >= _RISING_SHARE
    if column.type == "date":
        return column.distinct >= _TIMES and (rising or named)
    unit = _name_calendar_unit(values, column.name, named=named)
    if unit == "year":  # in no order it is a property of the row, such as the year of a car
        return column.distinct >= _YEARS and rises >= _YEARS_RISING_SHARE
    if unit is not None:
        return column.distinct >= _TIMES and (rising or named)
    return column.distinct >= _TIMES and named and rising and not _begins_again(values)


def _name_calendar_unit(values: pd.Series, name: str, *, named: bool) -> str | None:
    """What numbers count on the calendar: "year", "month" (200501), "day" (20050131), of a column that is named as a time "epoch" (seconds
    since 1970, or thousandths, ...); None: something else.
    """
    known = values.dropna()
    if not len(known):
        return None
    if _YEAR_NAME.search(name) and known.between(1800, 2200).all():
        return "year"
    if not (known % 1 == 0).all():
        return None
    if named and any(known.between(_EPOCH[0] * part, _EPOCH[1] * part).all() for part in (1, 10**3, 10**6, 10**9)):
        return "epoch"
    for unit, form, low, high in (("month", "%Y%m", 180_001, 220_012), ("day", "%Y%m%d", 18_000_101, 22_001_231)):
        if known.between(low, high).all():
            words = known.drop_duplicates().astype("int64").astype("str")
            if pd.to_datetime(words, format=form, errors="coerce").notna().all():
                return unit
    return None


def _measure_rise(values: pd.Series) -> float:
    """The share of steps that go up, or stay."""
    steps = values.diff().dropna()
    return float((steps >= steps.iloc[0] * 0).mean()) if len(steps) else 0.0


def _begins_again(values: pd.Series) -> bool:
    """Whether a number falls back to the start of its range: a day of the month, an hour, a step of an episode."""
    start, steps = values.min() + _START_SHARE * (values.max() - values.min()), values.diff()
    return bool(((steps < values.min() - start) & (values <= start)).any())


def _warn_of_hidden_times(inspected: InspectedTable, found: str | None, why: dict[str, str]) -> Iterator[str]:
    """What may be a time, and was not taken for one: dates that can be read in two ways, and parts of a time in several columns."""
    rest = [name for name in inspected.columns if name not in (found, inspected.target, *why)]
    for name in rest:
        if example := find_ambiguous_date(inspected.sample[name], inspected.columns[name]):
            yield (
                f"attention: {name!r} holds dates of which day and month cannot be distinguished, such as {example!r}: read as words. "
                "--dates day_first or --dates month_first decides"
            )
        elif example := _find_unread_date(inspected.sample[name], inspected.columns[name]):
            yield (
                f"attention: {name!r} seems to hold dates in a form that is not read, such as {example!r}: read as words, and rows are "
                "split without them. Write them as 2024-12-31 in the source"
            )
    parts = {part: name for part, form in _TIME_PARTS.items() for name in inspected.columns if form.search(name)}
    dated = found is not None and inspected.columns[found].type == "date"
    if not dated and "year" in parts and len(parts) > 1:
        split = f"rows are split by {found!r} alone" if found else "rows are split without a time"
        yield (
            f"attention: {', '.join(map(repr, parts.values()))} together are a time: {split}. Add one column of them to the source, "
            "such as 2024-12-31, and name it with --time"
        )


def find_ambiguous_date(values: pd.Series, column: ColumnProfile) -> str | None:
    """A date of a column of words that can be read in two ways, or None."""
    if column.type not in ("text", "category"):
        return None
    words = pl.Series(values.dropna().head(1000).astype("str").tolist(), dtype=pl.String)
    return str(words[0]) if len(text_parsing.find_date_forms(words)) > 1 else None


def _find_unread_date(values: pd.Series, column: ColumnProfile) -> str | None:
    """A word of a column that is named as a time, or whose words have the shape of dates, and of which pandas would make dates; or None."""
    if column.type not in ("text", "category") or column.distinct < _TIMES:
        return None
    words = values.dropna().drop_duplicates().head(1000).astype("str")
    if not is_time_name(column.name) and words.str.contains(_DATE_SHAPE).mean() < _RISING_SHARE:
        return None
    with warnings.catch_warnings():  # pandas reports each form that it guesses
        warnings.simplefilter("ignore")
        read = pd.to_datetime(words, format="mixed", errors="coerce", utc=True)
    return str(words.iloc[0]) if read.notna().mean() >= _RISING_SHARE else None


def is_time_name(name: str) -> bool:
    """Whether a column is called as a time is."""
    return _TIME_NAME.search(re.sub(r"\W", "_", name.lower())) is not None


def guess_id_column(inspected: InspectedTable, taken: set[str | None], notes: list[str]) -> str | None:
    """A column that names each row, different in all of them."""
    for name in inspected.columns:
        # A column without a name numbers the rows of one export, and the next one anew.
        if (
            name == inspected.target
            or name in taken
            or name.startswith(UNNAMED.format(""))
            or not _is_id(name, inspected)
        ):
            continue
        if inspected.frame[name].is_unique and inspected.frame[name].notna().all():
            notes.append(f"{name!r} names a row for good (likely); --id names another, problem.id: null none")
            return name
    return None


def _is_id(name: str, inspected: InspectedTable) -> bool:
    """A column of names: named so and mostly distinct, or words without blanks that are all distinct."""
    column, values = inspected.columns[name], inspected.sample[name]
    if find_ambiguous_date(values, column):
        return False
    if column.type in ("number", "text") and ID_NAME.search(name if name != name.upper() else name.lower()):
        whole = column.type == "text" or bool((values.dropna() % 1 == 0).all())
        return whole and (column.type == "text" or values.nunique() > _ID_SHARE * len(values))
    return column.type == "text" and values.is_unique and not values.str.contains(r"\s").any()


def propose_ignored_columns(
    inspected: InspectedTable, kind: str, taken: set[str | None], notes: list[str]
) -> dict[str, str]:
    """Columns that a model should not see, each with the reason."""
    free = [name for name in inspected.columns if name not in taken]
    why = {name: reason for name in free if (reason := _plain_reason(name, inspected))}
    classes, inputs = kind == "classification", [name for name in free if name not in why]
    rows, target = target_checks.leave_out_blank_rows(inspected.sample[inputs], inspected.sample[inspected.target])
    leaks = target_checks.explain_leaks(rows, target, classes)
    texts = {name: "free text or a name: not learned from" for name in inputs if inspected.columns[name].type == "text"}
    why |= texts | leaks.why
    if not classes:
        why |= _find_deciding_columns(rows[[name for name in inputs if name not in why]], target)
    if leaks.outage:
        notes.append(
            f"attention: {target_checks.describe_outage(leaks.outage, inspected.target)}; --ignore leaves one out"
        )
    notes.extend(_warn_of_lost_signal(inspected, why, free, classes))
    if classes:
        notes.extend(_warn_of_class_indicators(inspected, [name for name in inputs if name not in why]))
    return why


def _find_deciding_columns(inputs: pd.DataFrame, target: pd.Series) -> dict[str, str]:
    """Inputs for which `check` would stop a lap: each decides an amount in whatever order, such as a subject measured again."""
    step = -(-len(inputs) // target_checks.LEAK_SAMPLE_ROWS) or 1
    return {
        name: f"alone decides {target.name!r}: known only afterwards, or rows of one {name!r} belong together (problem.group)"
        for name in inputs
        if target_checks.measure_explained_share(inputs[name].iloc[::step], target.iloc[::step])
        >= target_checks.CERTAIN_LEAK_SCORE
    }


def _warn_of_class_indicators(inspected: InspectedTable, inputs: list[str]) -> Iterator[str]:
    """A line for each input of two values that only shows whether a row is of one of the classes."""
    target = inspected.sample[inspected.target]
    if not 3 <= inspected.columns[inspected.target].distinct <= _MOST_INDICATED_CLASSES:
        return
    for name in inputs:
        if inspected.columns[name].distinct != 2:
            continue
        pairs = pd.crosstab(inspected.sample[name], target)
        alone = (pairs > 0).sum(axis=1) == 1
        for value in pairs.index[alone]:
            label = pairs.columns[pairs.loc[value] > 0][0]
            if (pairs[label] > 0).sum() == 1:
                yield (
                    f"attention: {name!r} is {value!r} in just the rows whose {inspected.target!r} is {label!r}: if it is made from it, "
                    "leave it out with --ignore"
                )


def _warn_of_lost_signal(
    inspected: InspectedTable, why: dict[str, str], free: list[str], classes: bool
) -> Iterator[str]:
    """A line for each ignored column that alone shows more of the target than every column that is kept. A row number shows only
    how the file is sorted.
    """
    sample = inspected.sample.iloc[:: -(-len(inspected.sample) // target_checks.LEAK_SAMPLE_ROWS) or 1]
    shown = {
        name: target_checks.measure_signal(sample[name], sample[inspected.target], classes)
        for name in free
        if inspected.columns[name].type != "text"
        and not inspected.columns[name].constant
        and why.get(name) != _ROW_NUMBER
    }
    kept = max((signal for name, signal in shown.items() if name not in why), default=0.0)
    for name, signal in shown.items():
        if name in why and signal > max(kept, _NO_SIGNAL):
            yield (
                f"attention: {name!r} is ignored, and alone shows more of {inspected.target!r} than any column that is kept ({signal:.2f} "
                f"of 1 beside {kept:.2f}): if it is known before {inspected.target!r} is, take it out of problem.ignore"
            )


def _plain_reason(name: str, inspected: InspectedTable) -> str | None:
    column = inspected.columns[name]
    if column.distinct == 0:
        return "empty in every row that has a label"
    if column.constant:
        return "the same in every row that has a label"
    if _is_id(name, inspected):
        once = inspected.frame[name].is_unique
        return "an id, not a cause" if once else "an id that repeats: not a cause, and no name for a row"
    if column.type == "number" and _counts_rows(name, inspected):
        return _ROW_NUMBER
    return None


def _counts_rows(name: str, inspected: InspectedTable) -> bool:
    """Whether numbers are 0, 1, 2, ... or 1, 2, 3, ... in the order of the file, as programs write them before each row."""
    some = inspected.sample[name]
    if len(some) < 3 or some.iloc[0] not in (0, 1) or not some.is_unique:
        return False
    return bool((inspected.frame[name].diff().iloc[1:] == 1).all())
