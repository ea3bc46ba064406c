"""Values that stand for something else: numbers that mean "missing", dates that nobody can have meant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

from windvane.tasks.checks import Evidence
from windvane.tasks.digest import numbers, seconds
from windvane.tasks.findings import Finding, Level

if TYPE_CHECKING:
    import polars as pl

CHECKS = {
    "sentinel": "no numbers such as -999 that mean a missing value",
    "dates": "no placeholder dates such as 1900-01-01 or 9999-12-31",
    "date_words": "no dates with an unclear order of day and month",
}
# Written by programs where nothing was known.
_CODES = (-1.0, *(sign * float("9" * digits) for digits in range(2, 10) for sign in (-1, 1)))
_MOMENTS = ("0001-01-01", "1753-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1970-01-01", "2099-12-31")
# A code stands apart: so many times the spread of all other values (their 1st to 99th percentile) from the nearest.
_APART = 0.5
_FAR = 2.0
# Fewer cells are an odd value, not a code.
_LEAST = 3
# Dates may lie so far from the newest row, in years, where the bulk of the column does not.
_YEARS = 100
_DAY = 86400.0
_YEAR = 365.25 * _DAY
# From here on a date is a word for "open", however often it comes.
_END = 7000 * _YEAR
_DATE_WORD = r"^\d{1,2}[/-]\d{1,2}[/-]\d{4}\b"
_MOST = 0.9


def find(e: Evidence) -> Iterator[Finding]:
    """Numbers and dates of the columns that matter, and the time itself."""
    for name in e.watched:
        if e.counts[name].shape == "number" and e.counts[name].distinct > 2:
            yield from _sentinel(e, name)
    # What a column holds counts even where no model sees it: problem.time decides which rows judge.
    dated = [name for name, c in e.counts.items() if c.shape == "date" and name not in e.problem.ignore]
    for name in dated:
        yield from _dates(e, name)
    for name in e.features:
        if e.counts[name].shape == "words" and e.counts[name].distinct:
            yield from _date_words(e.sample[name].drop_nulls(), name)


def _date_words(words: pl.Series, name: str) -> Iterator[Finding]:
    share = float(words.str.contains(_DATE_WORD).mean() or 0.0)  # type: ignore[arg-type]
    if share >= _MOST:
        text = (
            f"{name!r} holds dates with an unclear order of day and month, such as {words[0]!r}, so it is read as "
            "words. Write dates as 2024-12-31"
        )
        yield Finding("date_words", "warn", name, share, _MOST, text)


def _sentinel(e: Evidence, name: str) -> Iterator[Finding]:
    counts, values = e.counts[name], numbers(e.sample[name]).drop_nulls()
    for code in {counts.low, counts.high} & set(_CODES):
        others = values.filter(values != code)
        if len(others) < _LEAST or not _stands_apart(code, others):
            continue
        cells = _count(e.labelled, name, code)
        if cells < _LEAST:
            continue
        yield Finding(
            "sentinel",
            "warn",
            name,
            cells / e.profile.rows,
            0.0,
            f"{name!r} is {code:g} in {cells} rows ({cells / e.profile.rows:.1%}), far from its other values "
            f"({_number(others.min())} to {_number(others.max())}): a sign for a missing value? Empty these cells if it is",
        )


def _number(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def _stands_apart(code: float, others: pl.Series) -> bool:
    low, high = others.quantile(0.01, "nearest"), others.quantile(0.99, "nearest")
    nearest = others.min() if code < 0 else others.max()
    assert low is not None
    assert high is not None
    assert isinstance(nearest, float)
    if code == -1.0:  # one step below amounts that are all positive: a code only where zero is never used
        return nearest > 1.0
    away = abs(code - nearest)
    return away > _APART * (high - low) and away > _FAR * max(abs(low), abs(high)) * (0.5 if code < 0 else 1)


def _count(scan: pl.LazyFrame, name: str, value: object) -> int:
    import polars as pl

    return int(scan.select((pl.col(name) == pl.lit(value)).sum()).collect(engine="streaming").item())


def _dates(e: Evidence, name: str) -> Iterator[Finding]:
    import polars as pl

    counts, values = e.counts[name], numbers(e.sample[name]).drop_nulls()
    values = values.filter(values < _END)
    if len(values) < _LEAST:
        return
    early, late = values.quantile(0.05, "nearest"), values.quantile(0.95, "nearest")
    assert early is not None
    assert late is not None
    span = late - early
    column = pl.col(name).dt.epoch("us").cast(pl.Float64) / 1e6
    spots = [_second(moment) for moment in _MOMENTS]
    # A moment that the bulk of the column surrounds is a day like any other.
    coded = [spot for spot in spots if not early - span - _YEAR <= spot <= late + span + _YEAR]
    reach = max(3 * span, _YEARS * _YEAR / 4)
    low, high = seconds(counts.low), seconds(counts.high)
    if low >= early - reach and high <= late + reach and not any(low - _DAY < spot <= high for spot in coded):
        return
    odd = (
        (column < early - reach)
        | (column > late + reach)
        | ((column // _DAY * _DAY).is_in(coded) if coded else pl.lit(False))
    )
    cells = e.labelled.select(odd.sum()).collect(engine="streaming").item()
    if cells:
        end = counts.low if _gap(counts.low, early) > _gap(counts.high, late) else counts.high
        level: Level = "stop" if name == e.problem.time else "warn"
        prefix = "problem.time: " if level == "stop" else ""
        yield Finding(
            "dates",
            level,
            name,
            cells,
            0,
            f"{prefix}column {name!r} holds {cells} dates that cannot be, such as {end:%Y-%m-%d}, while most lie between "
            f"{_on(early)} and {_on(late)}. Fix these cells, or empty them where the date is not known",
        )


def _second(day: str) -> float:
    return (dt.datetime.fromisoformat(day) - dt.datetime(1970, 1, 1)).total_seconds()


def _gap(moment: dt.datetime, second: float) -> float:
    return abs((moment - dt.datetime(1970, 1, 1)).total_seconds() - second)


def _on(second: float) -> str:
    return f"{dt.datetime(1970, 1, 1) + dt.timedelta(seconds=second):%Y-%m-%d}"
