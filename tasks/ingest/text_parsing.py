"""Numbers, dates and codes that are written as words: which form they have, and reading them.

Codes such as 00123 are no numbers.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from windvane.tasks.ingest import text_files
from windvane.tasks.ingest.cell_reading import CODE_PATTERN, DATE_FORMS, PERIOD_PATTERNS, NumberForm, read_period
from windvane.tasks.ingest.text_files import CsvDialect

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_FORMATTED = r"^[$€£]?\s?[+-]?\d[\d.,']*\s?[%€$£]?$"
# Thousands parted by blanks of any width, as French has them; a telephone number begins with a zero.
_SPACED = r"^[+-]?[1-9]\d{0,2}(\s\d{3})+([.,]\d+)?$"
_WHOLE = r"^[+-]?[0-9]+$"


def fold_spelling(word: str) -> str:
    """A word without regard to case, blanks, and the form in which Unicode has its letters."""
    return " ".join(unicodedata.normalize("NFC", word).split()).casefold()


def infer_number_kind(words: pl.Series) -> Literal["int", "float", "text"] | None:
    """What words are that can all be read as numbers; None: some cannot. Codes and ids are text for all that."""
    if words.cast(pl.Float64, strict=False).null_count():
        return None
    if words.str.contains(CODE_PATTERN).any():
        return "text"
    if words.cast(pl.Int64, strict=False).null_count():
        # Whole numbers past int64 are ids and hashes: as floats many would be equal.
        return "text" if words.str.contains(_WHOLE).all() else "float"
    return "int"


def match_plain_numbers(words: pl.Series) -> pl.Series:
    """Which words are numbers as programs write them."""
    return words.str.contains(_NUMBER)


def match_digits(words: pl.Series) -> pl.Series:
    """Which words are digits alone: numbers or names."""
    return words.str.contains(_WHOLE)


def match_formatted_numbers(words: pl.Series) -> pl.Series:
    """Which words are numbers as people write them: with thousands marks, a decimal comma, % or a currency."""
    return (words.str.contains(_FORMATTED) & words.str.contains("[,%$€£]")) | words.str.contains(_SPACED)


def read_numbers(words: pl.Series, form: NumberForm) -> pl.Series:
    """Words as float64, as form.read() reads each; None where one is no number of this form."""
    parts = words.str.extract_groups(form.pattern).struct.unnest().get_columns()
    there = [(part.fill_null("") != "").cast(pl.Int8) for part in parts]
    digits = parts[4] if form.mark_pattern is None else parts[4].str.replace_all(form.mark_pattern, "")
    read = digits.str.replace(",", ".", literal=True).cast(pl.Float64)
    minus = (parts[1] + parts[3]).is_in(["-", "\u2212"]) | (there[0] + there[6] > 0)
    return read.zip_with(~minus.fill_null(False), -read).set(~form.is_sound(there), None).alias(words.name)


def measure_number_share(words: pl.Series) -> float:
    """The share of words that look like numbers of either form."""
    return cast("float", (words.str.contains(_FORMATTED) | words.str.contains(_SPACED)).mean())


# Any mixture of ISO 8601 without a time zone, and with one, read by pandas. Not both in one column: which clock the
# times without a zone are from is unknown.
ISO_FORM, ZONED_ISO_FORM = "ISO8601", "ISO8601 with a time zone"
_ZONE = r"[T ]\d.*(Z|[+-]\d{2}(:?\d{2})?)$"
# ISO as most files write it: one form and one length throughout, which polars reads in a stream.
_EXACT = {"%Y-%m-%d": 10, "%Y-%m-%d %H:%M:%S": 19, "%Y-%m-%dT%H:%M:%S": 19, "%Y-%m-%d %H:%M": 16}
_ISO_LIKE = r"^\d{4}-\d{1,2}(-\d{1,2}([T ]\d.*)?)?$"
_DATE_LIKE = r"^(\d{1,4}[/. -]|\d{4}[QqWwMm]\d{1,2}$|[Qq][1-4]|FY|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .-]\d)"


def measure_iso_share(words: pl.Series) -> float:
    """The share of words that look like ISO 8601."""
    return cast("float", words.str.contains(_ISO_LIKE).mean())


def find_iso_form(words: pl.Series) -> str:
    """The one form in which polars reads all of these words, else ISO or ZONED, whichever more of them are."""
    for form in _EXACT:
        read = parse_dates(words, form)
        if not read.null_count():
            return form
    return ZONED_ISO_FORM if cast("float", words.str.contains(_ZONE).mean()) >= 0.5 else ISO_FORM


def describe_date_form(form: str, odd: pl.Series) -> str:
    """What people call dates of this form, given the words of their column that are of another."""
    other = ISO_FORM if form == ZONED_ISO_FORM else ZONED_ISO_FORM
    if parse_dates(odd, other).null_count():
        return "dates"
    return "dates with a time zone" if form == ZONED_ISO_FORM else "dates without a time zone"


def find_date_forms(words: pl.Series) -> list[str]:
    """Every strptime form other than ISO that reads all of the words; two: the order of day and month is unknown."""
    words = words.unique(maintain_order=True)
    if not len(words) or not words.str.contains(_DATE_LIKE).all():
        return []
    clock = ":" in words[0]
    fitting = [form for form in DATE_FORMS if (":" in form) == clock and not parse_dates(words, form).null_count()]
    # May is a month's short name, and its long one.
    return [form for form in fitting if "%B" not in form or form.replace("%B", "%b") not in fitting]


def parse_dates(words: pl.Series, form: str) -> pl.Series:
    """Words as datetime[us] in UTC, without a zone; None where a word is not of this form."""
    if form in (ISO_FORM, ZONED_ISO_FORM):
        other = words.str.contains(_ZONE) ^ (form == ZONED_ISO_FORM)
        return _by_pandas(words.set(other, None), ISO_FORM)
    if form in PERIOD_PATTERNS:
        return _read_periods(words, form)
    if form not in _EXACT:
        return _by_pandas(words, form)
    # Neither polars, which takes a month of one digit, nor pyarrow knows how long a word must be.
    plain = words.to_arrow(compat_level=pl.CompatLevel.oldest())
    fits = pc.equal(pc.binary_length(plain), _EXACT[form])
    if not pc.all(fits).as_py():
        plain = pc.if_else(fits, plain, None)
    try:  # in half of polars' time, T and blank alike
        return pl.Series(words.name, plain.cast(pa.timestamp("us")), dtype=pl.Datetime("us"))
    except pa.ArrowInvalid:
        return pl.Series(words.name, plain).str.to_datetime(form, time_unit="us", strict=False)


def _read_periods(words: pl.Series, form: str) -> pl.Series:
    """The first day of each period."""
    days: dict[str, datetime] = {}
    for word in words.drop_nulls().unique(maintain_order=True):
        with suppress(ValueError):
            days[word] = read_period(word, form)
    return words.replace_strict(list(days), list(days.values()), default=None, return_dtype=pl.Datetime("us"))


def _by_pandas(words: pl.Series, form: str) -> pl.Series:
    read = pd.to_datetime(pd.Series(words.to_list(), dtype="str"), format=form, utc=True, errors="coerce")
    plain = read.dt.tz_localize(None).astype("datetime64[us]")
    return pl.Series(words.name, plain.to_numpy(), dtype=pl.Datetime("us"), nan_to_null=True)


_SCAN_BLOCK_BYTES = 1 << 19


def may_hold_codes(path: Path, how: CsvDialect) -> bool:
    """Whether any cell may be digits that begin with a zero: False is sure."""
    if how.end != "\n":
        return True
    delimiter = re.escape(how.delimiter)
    # polars' engine for patterns is made for long texts: many lines are one.
    code = rf'[{delimiter}\n"]0[0-9]+[{delimiter}\r\n"]'
    with path.open("rb") as f:
        while lines := f.read(_SCAN_BLOCK_BYTES) + f.readline():
            try:
                text = lines.decode()
            except UnicodeDecodeError:
                return True
            if pl.Series([f"\n{text}\n"]).str.contains(code)[0]:
                return True
    return False


def find_code_columns(path: Path, how: CsvDialect, names: tuple[str, ...]) -> set[str]:
    """Which of these columns hold a code."""
    if not names:
        return set()
    scan = text_files.scan_csv(path, how, (pl.String,) * len(how.names))
    zeros = {name: pl.col(name).filter(pl.col(name).str.starts_with("0")) for name in names}
    expressions = [cells.str.contains(CODE_PATTERN).any().alias(name) for name, cells in zeros.items()]
    found = scan.select(expressions).collect(engine="streaming").row(0, named=True)
    return {name for name, yes in found.items() if yes}
