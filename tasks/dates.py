"""Dates that are written as words: which form they have, and reading them. Owns the forms; knows of no column's role."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import polars as pl

# Any mixture of ISO 8601 without a time zone, and with one, read by pandas. Not both in one column: whoever wrote the
# times without a zone looked at a clock that nobody knows.
ISO, ZONED = "ISO8601", "ISO8601 with a time zone"
_ZONE = r"[T ]\d.*(Z|[+-]\d{2}(:?\d{2})?)$"
# ISO as most files write it: one form and one length throughout, which polars reads in a stream.
_EXACT = {"%Y-%m-%d": 10, "%Y-%m-%d %H:%M:%S": 19, "%Y-%m-%dT%H:%M:%S": 19, "%Y-%m-%d %H:%M": 16}
_ISO_LIKE = r"^\d{4}-\d{1,2}(-\d{1,2}([T ]\d.*)?)?$"
_DATE_LIKE = r"^(\d{1,4}[/. -]|[A-Z][a-z]{2,8} \d)"
_DAYS = ("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
_EITHER = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")


def iso_share(words: pl.Series) -> float:
    """The share of words that look like ISO 8601."""
    return cast("float", words.str.contains(_ISO_LIKE).mean())


def iso_form(words: pl.Series) -> str:
    """The one form in which polars reads all of these words, else ISO or ZONED, whichever more of them are."""
    for form in _EXACT:
        read = parse(words, form)
        if not read.null_count():
            return form
    return ZONED if cast("float", words.str.contains(_ZONE).mean()) >= 0.5 else ISO


def called(form: str, odd: pl.Series) -> str:
    """What people call dates of this form, given the words of their column that are of another."""
    other = ISO if form == ZONED else ZONED
    if parse(odd, other).null_count():
        return "dates"
    return "dates with a time zone" if form == ZONED else "dates without a time zone"


def forms(words: pl.Series) -> list[str]:
    """Every strptime form other than ISO that reads all of the words; two: the order of day and month cannot be told."""
    words = words.unique(maintain_order=True)
    if not len(words) or not words.str.contains(_DATE_LIKE).all():
        return []
    clock = ":" in words[0]
    every = [day + hour for day in (*_DAYS, *_EITHER) for hour in _CLOCKS if bool(hour) == clock]
    return [form for form in every if not parse(words, form).null_count()]


def parse(words: pl.Series, form: str) -> pl.Series:
    """Words as datetime[us] in UTC, without a zone; None where a word is not of this form."""
    import polars as pl

    if form in (ISO, ZONED):
        other = words.str.contains(_ZONE).fill_null(False) ^ (form == ZONED)
        return _by_pandas(words.set(other, None) if other.any() else words, ISO)
    if form not in _EXACT:
        return _by_pandas(words, form)
    if (read := _by_arrow(words, _EXACT[form])) is not None:
        return read
    # polars would take a month of one digit, which pandas' ISO does not.
    fit = words.str.len_bytes() == _EXACT[form]
    whole = words if fit.all() else words.set(~fit, None)
    # Times seldom come back: looking each up in polars' cache costs as much again as reading it.
    return whole.str.to_datetime(form, time_unit="us", strict=False, cache=False).cast(pl.Datetime("us"))


def _by_arrow(words: pl.Series, length: int) -> pl.Series | None:
    """ISO 8601 of one length without a zone, T and blank alike, in half of polars' time; None where a word is not."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = words.to_arrow(compat_level=pl.CompatLevel.oldest())
    ends = pc.min_max(pc.binary_length(plain)).as_py()
    if ends["min"] != length or ends["max"] != length:
        return None
    try:
        return pl.Series(words.name, plain.cast(pa.timestamp("us")), dtype=pl.Datetime("us"))
    except pa.ArrowInvalid:
        return None


def _by_pandas(words: pl.Series, form: str) -> pl.Series:
    import pandas as pd
    import polars as pl

    read = pd.to_datetime(pd.Series(words.to_list(), dtype="str"), format=form, utc=True, errors="coerce")
    plain = read.dt.tz_localize(None).astype("datetime64[us]")
    return pl.Series(words.name, plain.to_numpy(), dtype=pl.Datetime("us"), nan_to_null=True)
