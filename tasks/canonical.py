"""From a file's cells to canonical columns: numbers, booleans, text, dates. Owns types; wants no particular column.

Canonical: int64 or float64, bool or boolean (with gaps), str, datetime64[us] without zone, in UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import InputError
from tasks.readers import Slips, mixed
from tasks.sources import Source

if TYPE_CHECKING:
    import pandas as pd

# From this share on, a column is meant to be numbers (or dates) and the rest are slips...
_MOSTLY = 0.9
# ...unless the rest are many different words: then these are codes, such as 85048 and 85123A.
_CODES = 20
_SAMPLE = 1000
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_FORMATTED = r"^[$€£]?\s?[+-]?\d[\d.,']*\s?[%€$£]?$"
_ISO = r"^\d{4}-\d{1,2}(-\d{1,2}([T ]\d.*)?)?$"
_DATE_LIKE = r"^(\d{1,4}[/. -]|[A-Z][a-z]{2,8} \d)"
_DAYS = ("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
_EITHER = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")


def frame(source: Source, ignore: tuple[str, ...] = ()) -> pd.DataFrame:
    """All readable columns with canonical dtypes, in the file's order; rows likewise.

    A column in `ignore` that cannot be read is dropped; any other raises InputError, all of them in one message.
    """
    read, problems = attempt(source, ignore)
    if problems:
        raise InputError("; ".join(problems.values()))
    return read


def attempt(source: Source, ignore: tuple[str, ...] = ()) -> tuple[pd.DataFrame, dict[str, str]]:
    """The readable columns, and what is wrong with each of the others that is not in `ignore`."""
    import pandas as pd

    columns: dict[str, pd.Series] = {}
    problems: dict[str, str] = {}
    for name in source.table.column_names:
        try:
            columns[name] = _column(source, name, name in ignore)
        except InputError as e:
            if name not in ignore:
                problems[name] = str(e)
    return pd.DataFrame(columns), problems


def _column(source: Source, name: str, ignored: bool) -> pd.Series:
    import pyarrow as pa
    import pyarrow.types as at

    if name.startswith("_"):
        raise InputError(
            f"{source.path}: column {name!r}: names that start with '_' are Windvane's own. Rename it, or add it to "
            "problem.ignore"
        )
    array = source.table.column(name)
    kind = array.type
    if at.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if array.null_count == len(array):
        return _all_missing(len(array))
    if at.is_string(kind) or at.is_large_string(kind) or at.is_string_view(kind):
        return _text(source, name, array.cast(pa.large_string()), ignored)
    if at.is_boolean(kind):
        series = array.to_pandas()
        return series.astype("boolean") if array.null_count else series.astype("bool")
    if at.is_integer(kind) or at.is_floating(kind) or at.is_decimal(kind):
        return _number(array)
    if at.is_timestamp(kind) or at.is_date(kind):
        # Arrow keeps instants in UTC beside their zone: dropping the zone leaves UTC.
        return array.cast(pa.timestamp("us"), safe=False).to_pandas().astype("datetime64[us]")
    if at.is_time(kind) or at.is_duration(kind):
        return _seconds(array)
    raise InputError(
        f"{source.path}: column {name!r} holds {kind}, which no model here can read. Flatten it, or add {name!r} to "
        "problem.ignore"
    )


def _all_missing(rows: int) -> pd.Series:
    import numpy as np
    import pandas as pd

    return pd.Series(np.full(rows, np.nan))


def _number(array: Any) -> pd.Series:
    import pyarrow as pa
    import pyarrow.types as at

    if at.is_integer(array.type) and not array.null_count:
        try:
            return array.cast(pa.int64()).to_pandas()
        except pa.ArrowInvalid:  # unsigned, past int64
            pass
    return array.cast(pa.float64(), safe=False).to_pandas().astype("float64")


def _seconds(array: Any) -> pd.Series:
    import pyarrow as pa

    per_second = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[array.type.unit]
    whole = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return whole.cast(pa.float64(), safe=False).to_pandas() / per_second


def _text(source: Source, name: str, array: Any, ignored: bool) -> pd.Series:
    """A column of words: what they mean, if they mean numbers (in a CSV), true/false or dates; else the words."""
    import pyarrow.compute as pc

    if not source.typed:
        array = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(array, ""), None, array)
        if array.null_count == len(array):
            return _all_missing(len(array))
        plain = _booleans(array)
        plain = plain if plain is not None else _numbers(array)
        if plain is not None:
            return plain
    words = array.to_pandas().astype("str")
    present = words.dropna()
    try:
        dates = _dates(words, present)
        if dates is not None:
            return dates
        if not source.typed:
            _refuse_numbers(source, name, present)
    except _Slip as slip:
        if not ignored:
            row = present.index[slip.odd][0]
            first, count = repr(present[row]), int(slip.odd.sum())
            slips = Slips(slip.what, count, len(present), first, source.where(row))
            raise InputError(mixed(source.path, name, slips)) from None
    except InputError:
        if not ignored:
            raise
    return words


class _Slip(Exception):
    """A column that is mostly `what`; `odd` marks the present values that are not."""

    def __init__(self, what: str, odd: Any) -> None:
        super().__init__(what)
        self.what, self.odd = what, odd


def _booleans(array: Any) -> pd.Series | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    words = {"true", "false"}
    if not set(pc.utf8_lower(array.slice(0, _SAMPLE).drop_null().unique()).to_pylist()) <= words:
        return None
    if not set(pc.utf8_lower(array.drop_null().unique()).to_pylist()) <= words:
        return None
    series = pc.utf8_lower(array).cast(pa.bool_()).to_pandas()
    return series.astype("boolean") if array.null_count else series.astype("bool")


def _numbers(array: Any) -> pd.Series | None:
    import pyarrow as pa

    try:
        if not array.null_count:
            return array.cast(pa.int64()).to_pandas()
    except pa.ArrowInvalid:
        pass
    try:
        return array.cast(pa.float64()).to_pandas().astype("float64")
    except pa.ArrowInvalid:
        return None


def _refuse_numbers(source: Source, name: str, present: pd.Series) -> None:
    """Raise where a column of words was meant to be numbers."""
    if present.head(_SAMPLE).str.match(_FORMATTED).mean() < _MOSTLY / 2:
        return
    plain = present.str.match(_NUMBER)
    if plain.mean() >= _MOSTLY:
        if present[~plain].nunique() <= _CODES:
            raise _Slip("numbers", ~plain.to_numpy(dtype=bool))
        return
    marked = ~plain & present.str.match(_FORMATTED) & present.str.contains("[,%$€£]")
    if (plain | marked).mean() >= _MOSTLY:
        row = present.index[marked][0]
        raise InputError(
            f"{source.path}: column {name!r} holds numbers that read as words, such as {present[row]!r} on "
            f"{source.where(row)}. "
            f"Write 1234.5: no thousands marks, no decimal comma, no % or currency; or add {name!r} to problem.ignore"
        )


def _dates(words: pd.Series, present: pd.Series) -> pd.Series | None:
    """Dates, if the words are: ISO 8601, or one other form that fits all and cannot be read two ways."""
    import pandas as pd

    head = present.head(_SAMPLE)
    if head.str.match(_ISO).mean() >= _MOSTLY:
        read = pd.to_datetime(words, format="ISO8601", utc=True, errors="coerce")
        odd = read[present.index].isna().to_numpy()
        if odd.mean() > 1 - _MOSTLY:
            return None
        if odd.any():
            raise _Slip("dates", odd)
        return read.dt.tz_localize(None).astype("datetime64[us]")
    forms = date_forms(present)
    return pd.to_datetime(words, format=forms[0]).astype("datetime64[us]") if len(forms) == 1 else None


def date_forms(present: pd.Series) -> list[str]:
    """Every strptime form that reads all of the words; two of them: the order of day and month cannot be told."""
    import pandas as pd

    head = present.head(_SAMPLE).drop_duplicates()
    if not head.str.match(_DATE_LIKE).all():
        return []
    clock = ":" in head.iloc[0]
    all_forms = [day + hour for day in (*_DAYS, *_EITHER) for hour in _CLOCKS if bool(hour) == clock]
    fit = [form for form in all_forms if pd.to_datetime(head, format=form, errors="coerce").notna().all()]
    return [form for form in fit if pd.to_datetime(present, format=form, errors="coerce").notna().all()]
