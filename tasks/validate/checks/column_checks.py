"""Columns and values that are not what they seem: empty, constant, infinite, ids, free text, numbers among words,
codes for missing, impossible dates.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from windvane.tasks.validate import table_statistics
from windvane.tasks.validate.findings import CheckInput, FindingLevel, TableFinding, format_cell, format_example
from windvane.tasks.validate.table_profile import convert_to_moment, convert_to_numbers, convert_to_seconds
from windvane.tasks.validate.table_statistics import ColumnCounts

COLUMN_CHECKS = {
    "empty": "no empty columns",
    "infinite": "no numbers that are infinite or too large to compute with",
    "constant": "no constant columns",
    "text": "no free text",
    "identifier": "no ids among the features",
    "mixed": "no column mixes numbers and words",
    "formula": "no cells that a spreadsheet would run",
    "renamed": "no column under two names",
}
# An id is different in nearly every row...
_ID_DISTINCT_SHARE = 0.98
# ...and rises with the rows, or lies so dense that numbers drawn by chance would repeat (of n drawn from 10 n, 5 % do), or bears
# the name. Counts and amounts of money are whole and nearly all different, too: they are spread wide.
_RISING_SHARE = 0.999
_DENSE = 10
# Few rows are all different by chance.
_MIN_ID_ROWS = 200
# Numbers with words among them: at least so many of the values are numbers, and the words are few and come back, as
# "n/a" does. Codes such as 85123A are a language of their own.
_MOSTLY = 0.5
_FEW_WORDS = 20
# Trees compute in float32; above its range a number is infinite to them, and squares overflow float64 soon after.
LARGEST_NUMBER = 3.4e38
# What a spreadsheet takes for a formula; not "+49 170 ..." or "@name".
_FORMULA = r"^(=[\w(+-]|@[A-Z]+\()"
# Fewer rows with the one or the other are chance.
_MIN_FILLED_ROWS = 20
_ID_NAME = re.compile(r"(^|[^a-z])(id|uuid|guid|key|nr|no|number|index)$", re.IGNORECASE)


def find_column_faults(e: CheckInput) -> Iterator[TableFinding]:
    """All columns that a model would see, one after the other."""
    types = {c.name: c.type for c in e.profile.columns}
    for name in e.features:
        counts = e.counts[name]
        different = table_statistics.describe_distinct(counts.distinct, e.profile.rows)
        if counts.distinct == 0:
            text = (
                f"data.source: column {name!r} is empty in every row that has a label. Fill it in, or add {name!r} "
                "to problem.ignore"
            )
            yield TableFinding("empty", "stop", name, 1.0, 0.0, text)
        elif holds_infinite_values(counts):
            yield describe_infinite_values(
                counts, f"data.source: column {name!r}", f", or add {name!r} to problem.ignore"
            )
        elif counts.constant:
            text = f"{name!r} has the same value in every row: it is not learned from. Add it to problem.ignore"
            yield TableFinding("constant", "warn", name, 1, 2, text)
        elif name != e.problem.time and _is_id(e.sample[name], counts, e.profile.rows):
            example = format_example(e.sample[name].drop_nulls()[0])
            text = (
                f"{name!r} looks like an id ({different} different values, such as {example}): it names rows and has no "
                f"information on new ones. Add it to problem.ignore, or set problem.id: {name!r}"
            )
            share = counts.distinct / max(e.profile.rows - counts.missing, 1)
            yield TableFinding("identifier", "warn", name, share, _ID_DISTINCT_SHARE, text)
        elif types[name] == "text":
            text = (
                f"{name!r} is free text or a name ({different} different values): it is not learned from. Add it "
                "to problem.ignore, or make columns of what it contains"
            )
            yield TableFinding("text", "warn", name, counts.distinct, None, text)
        if counts.shape == "words":
            yield from _mixed(e.sample[name], name)
            yield from _formulas(e.sample[name], name)

    yield from _find_split_columns(e)


def _find_split_columns(e: CheckInput) -> Iterator[TableFinding]:
    """Pairs of columns of one type of which each row has exactly one: their parts come from different files, perhaps."""
    known: dict[tuple[str, bytes], str] = {}
    for name in e.features:
        missing = e.sample[name].is_null().to_numpy()
        if min(missing.sum(), len(missing) - missing.sum()) < _MIN_FILLED_ROWS:
            continue
        shape = e.counts[name].shape
        other = known.get((shape, (~missing).tobytes()))
        if other is not None:
            text = (
                f"{name!r} is filled exactly where {other!r} is empty: one column under two names? Rename one of them in the "
                "source, or leave it so if they are two"
            )
            yield TableFinding("renamed", "warn", name, None, None, text)
        known.setdefault((shape, missing.tobytes()), name)


def holds_infinite_values(counts: ColumnCounts) -> bool:
    """Whether values of a column are infinite or leave the range in which models compute."""
    if counts.infinite:
        return True
    return counts.shape == "number" and counts.low is not None and max(-counts.low, counts.high) > LARGEST_NUMBER


def describe_infinite_values(counts: ColumnCounts, subject: str, remedy: str) -> TableFinding:
    """The finding on such a column, which `subject` names; `remedy`: what else may be done than to fix the cells."""
    fix = f"Fix or empty these cells{remedy}"
    if counts.infinite:
        text = f"{subject} holds {counts.infinite} infinite values. {fix}"
        return TableFinding("infinite", "stop", counts.name, counts.infinite, 0, text)
    text = f"{subject} holds values from {counts.low:g} to {counts.high:g}, too large to compute with. {fix}"
    return TableFinding("infinite", "stop", counts.name, max(-counts.low, counts.high), LARGEST_NUMBER, text)


def _formulas(values: pl.Series, name: str) -> Iterator[TableFinding]:
    cells = values.cast(str).filter(values.cast(str).str.contains(_FORMULA))
    if len(cells):
        text = (
            f"{name!r} holds formulas, such as {format_example(cells[0])}: a spreadsheet that opens the scored file would run them. "
            "Export values, not formulas"
        )
        yield TableFinding("formula", "warn", name, len(cells) / len(values), 0.0, text)


def _is_id(values: pl.Series, counts: ColumnCounts, rows: int) -> bool:
    """Words of one piece, or whole numbers, that are different in nearly every row."""
    present = values.drop_nulls()
    n = len(present)
    if (
        n < _MIN_ID_ROWS
        or present.n_unique() < _ID_DISTINCT_SHARE * n
        or counts.distinct < _ID_DISTINCT_SHARE * (rows - counts.missing) * 0.9
    ):
        return False
    if counts.shape == "words":
        return not present.str.contains(r"\s").mean() > 0.01  # type: ignore[operator]
    if counts.shape != "number" or not bool((present.cast(float) % 1 == 0).all()):
        return False
    along = np.corrcoef(present.rank().to_numpy(), np.arange(n))[0, 1]
    dense = counts.high - counts.low + 1 <= _DENSE * counts.distinct
    return bool(abs(along) >= _RISING_SHARE) or dense or _ID_NAME.search(counts.name) is not None


def _mixed(values: pl.Series, name: str) -> Iterator[TableFinding]:
    present = values.drop_nulls()
    if not len(present) or present.dtype != pl.String:
        return
    number = present.str.strip_chars().cast(pl.Float64, strict=False).is_not_null()
    share, words = float(number.mean()), present.filter(~number)  # type: ignore[arg-type]
    if _MOSTLY <= share < 1 and words.n_unique() <= _FEW_WORDS:
        text = (
            f"{name!r} holds numbers and words: {share:.1%} of its values are numbers, the others such as "
            f"{format_example(words[0])}, so all of it is read as words. Empty the cells that are no numbers, or leave it so if "
            "they are codes"
        )
        yield TableFinding("mixed", "warn", name, 1 - share, 0.0, text)


VALUE_CHECKS = {
    "sentinel": "no numbers such as -999 that mean a missing value",
    "dates": "no placeholder dates such as 1900-01-01 or 9999-12-31",
    "date_words": "no dates with an unclear order of day and month",
}
# Written by programs where nothing was known.
_MISSING_CODES = (-1.0, *(sign * float("9" * digits) for digits in range(2, 10) for sign in (-1, 1)))
_PLACEHOLDER_DATES = ("0001-01-01", "1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1970-01-01", "2099-12-31")
# A code lies apart: so many times the spread of all other values (their 1st to 99th percentile) from the nearest.
_APART = 0.5
_FAR = 2.0
# Fewer cells are an odd value, not a code.
_MIN_CODE_ROWS = 3
# Dates may lie so far from the newest row, in years, where the bulk of the column does not.
_MAX_YEARS_APART = 100
_DAY_SECONDS = 86400.0
_YEAR_SECONDS = 365.25 * _DAY_SECONDS
# From here on a date is a word for "open", however often it comes.
_LATEST_SECONDS = 7000 * _YEAR_SECONDS
_DATE_WORD = r"^\d{1,2}[/-]\d{1,2}[/-]\d{4}\b"
_MOST = 0.9


def find_value_faults(e: CheckInput) -> Iterator[TableFinding]:
    """Numbers and dates of the columns that matter, and the time itself."""
    for name in e.watched:
        if e.counts[name].shape == "number" and e.counts[name].distinct > 2:
            yield from _sentinel(e, name)
    # What a column holds counts even where no model sees it: problem.time decides which rows judge.
    for name, counts in e.counts.items():
        if counts.shape == "date" and name not in e.problem.ignore:
            yield from _dates(e, name)
    for name in e.features:
        if e.counts[name].shape == "words" and e.counts[name].distinct:
            yield from _date_words(e.sample[name].drop_nulls(), name)


def _date_words(words: pl.Series, name: str) -> Iterator[TableFinding]:
    share = float(words.str.contains(_DATE_WORD).mean() or 0.0)  # type: ignore[arg-type]
    if share >= _MOST:
        text = (
            f"{name!r} holds dates with an unclear order of day and month, such as {words[0]!r}, so it is read as "
            "words. Write dates as 2024-12-31"
        )
        yield TableFinding("date_words", "warn", name, share, _MOST, text)


def _sentinel(e: CheckInput, name: str) -> Iterator[TableFinding]:
    counts, values = e.counts[name], convert_to_numbers(e.sample[name]).drop_nulls()
    for code in {counts.low, counts.high} & set(_MISSING_CODES):
        others = values.filter(values != code)
        if len(others) < _MIN_CODE_ROWS or not _is_apart(code, others):
            continue
        cells = e.labelled.select((pl.col(name) == code).sum()).collect(engine="streaming").item()
        if cells < _MIN_CODE_ROWS:
            continue
        text = (
            f"{name!r} is {code:g} in {cells} rows ({cells / e.profile.rows:.1%}), far from its other values "
            f"({format_cell(others.min())} to {format_cell(others.max())}): a sign for a missing value? Empty these cells if it is"
        )
        yield TableFinding("sentinel", "warn", name, cells / e.profile.rows, 0.0, text)


def _is_apart(code: float, others: pl.Series) -> bool:
    low, high = others.quantile(0.01, "nearest"), others.quantile(0.99, "nearest")
    nearest = others.min() if code < 0 else others.max()
    assert low is not None
    assert high is not None
    assert isinstance(nearest, float)
    if code == -1.0:  # one step below amounts that are all positive: a code only where zero is never used
        return nearest > 1.0
    away = abs(code - nearest)
    return away > _APART * (high - low) and away > _FAR * max(abs(low), abs(high)) * (0.5 if code < 0 else 1)


def _dates(e: CheckInput, name: str) -> Iterator[TableFinding]:
    counts, values = e.counts[name], convert_to_numbers(e.sample[name]).drop_nulls()
    values = values.filter(values < _LATEST_SECONDS)
    if len(values) < _MIN_CODE_ROWS:
        return
    early, late = values.quantile(0.05, "nearest"), values.quantile(0.95, "nearest")
    assert early is not None
    assert late is not None
    span = late - early
    column = pl.col(name).dt.epoch("us").cast(pl.Float64) / 1e6
    spots = [convert_to_seconds(dt.datetime.fromisoformat(day)) for day in _PLACEHOLDER_DATES]
    # A moment that the bulk of the column surrounds is a day like any other.
    coded = [spot for spot in spots if not early - span - _YEAR_SECONDS <= spot <= late + span + _YEAR_SECONDS]
    reach = max(3 * span, _MAX_YEARS_APART * _YEAR_SECONDS / 4)
    low, high = convert_to_seconds(counts.low), convert_to_seconds(counts.high)
    if low >= early - reach and high <= late + reach and not any(low - _DAY_SECONDS < spot <= high for spot in coded):
        return
    odd = ~column.is_between(early - reach, late + reach)
    if coded:
        odd |= (column // _DAY_SECONDS * _DAY_SECONDS).is_in(coded)
    cells = e.labelled.select(odd.sum()).collect(engine="streaming").item()
    if cells:
        end = counts.low if abs(low - early) > abs(high - late) else counts.high
        level: FindingLevel = "stop" if name == e.problem.time else "warn"
        prefix = "problem.time: " if level == "stop" else ""
        text = (
            f"{prefix}column {name!r} holds {cells} dates that cannot be, such as {end:%Y-%m-%d}, while most lie "
            f"between {convert_to_moment(early):%Y-%m-%d} and {convert_to_moment(late):%Y-%m-%d}. Fix these cells, or "
            "empty them where the date is not known"
        )
        yield TableFinding("dates", level, name, cells, 0, text)
