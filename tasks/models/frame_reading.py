"""A frame from anywhere, as a model expects it. Knows pandas and numpy alone: each stored model carries a copy of this file and of
cell_reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from windvane.tasks.ingest.cell_reading import ABSENT_WORDS, NumberForm, read_written_dates

FrameColumnType = Literal["number", "boolean", "category", "date"]

_TRUE = {"true", "yes", "y", "t", "1", "1.0", "on"}
_FALSE = {"false", "no", "n", "f", "0", "0.0", "off"}
_WHOLE = re.compile(r"-?\d+\.0+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class UnreadableFrame(ValueError):
    """Columns that are missing, appear twice or cannot be read, by name, and what to do about it."""


def read_frame(
    frame: pd.DataFrame,
    wanted: Mapping[str, FrameColumnType],
    known: Mapping[str, Collection[str]] | None = None,
    dates: str | None = None,
    numbers: NumberForm | None = None,
    missing_words: Collection[str] = (),
) -> pd.DataFrame:
    """The wanted columns (n, len(wanted)) by their types, in that order; others are left out, the index is kept.

    Numbers and booleans float64 (NaN = missing; infinite = missing), categories object (str, NaN = missing), dates
    datetime64[us], naive UTC. known: the words of categories that training saw; a category that came as a number or a truth value
    is the word that reads so, 1067 the "01067". dates: see cell_reading.read_written_dates, by which a column may be
    written besides ISO 8601; numbers: the form in which they may be written in words; missing_words: words that mean no value,
    beside those that pandas knows. Raises UnreadableFrame.
    """
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise UnreadableFrame(f"column {_list_names(absent)} is missing. Add it; leave its values empty where unknown")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise UnreadableFrame(f"column {_list_names([str(n) for n in twice])} appears twice. Rename or drop one")
    readers: dict[FrameColumnType, Callable[[pd.Series], Any]] = {
        "number": lambda values: _number(values, numbers),
        "boolean": _boolean,
        "category": _category,
        "date": lambda values: _date(values, dates),
    }
    if missing_words:
        frame = frame[list(wanted)].apply(lambda values: values.mask(_is_one_of(values, missing_words)))
    columns = {name: readers[kind](frame[name]) for name, kind in wanted.items()}
    for name, words in (known or {}).items():
        if wanted[name] == "category" and not types.is_string_dtype(frame[name]):
            columns[name] = _restore_words(columns[name], words)
    return pd.DataFrame(columns, index=frame.index)


def _is_one_of(values: pd.Series, words: Collection[str]) -> NDArray[np.bool_]:
    return np.array([isinstance(value, str) and value.strip() in words for value in values], dtype=bool)


def list_plain_values(
    frame: pd.DataFrame, wanted: Mapping[str, FrameColumnType]
) -> list[list[float | str | int | None]]:
    """What read_frame() gave as a list of plain values per column; dates in microseconds since 1970, None = missing."""
    plain: list[list[float | str | int | None]] = []
    for name, kind in wanted.items():
        values = frame[name]
        numbers = values.to_numpy().astype("datetime64[us]").astype("int64") if kind == "date" else values
        plain.append([None if gone else v for gone, v in zip(values.isna(), numbers.tolist(), strict=True)])
    return plain


def _restore_words(read: NDArray[Any], words: Collection[str]) -> NDArray[Any]:
    """Categories read from numbers or truth values, each as the one known word that reads so; as they are where none or several do."""
    alike: dict[float | str, list[str]] = {}
    for word in words:
        alike.setdefault(_reduce_word(word), []).append(word)
    known = set(words)

    def restore(word: Any) -> Any:
        if not isinstance(word, str) or word in known:
            return word
        found = alike.get(_reduce_word(word), [])
        return found[0] if len(found) == 1 else word

    return np.array([restore(word) for word in read], dtype=object)


def _reduce_word(word: str) -> float | str:
    return float(word) if _NUMBER.fullmatch(word) else word.casefold()


def _number(values: pd.Series, form: NumberForm | None) -> NDArray[Any]:
    if types.is_numeric_dtype(values) or types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype="float64", na_value=np.nan)
    elif types.is_timedelta64_dtype(values):
        numbers = values.dt.total_seconds().to_numpy()
    elif types.infer_dtype(values, skipna=True) == "time":
        # A time of day counts in seconds, as ingest reads it (tasks/ingest/column_types.py).
        numbers = pd.to_timedelta(values.astype("str")).dt.total_seconds().to_numpy()
    elif types.is_datetime64_any_dtype(values):
        raise _unreadable(values, values.notna(), "number")
    elif form is not None:
        numbers = _written_numbers(values, form)
    else:
        read = pd.to_numeric(values.replace("", None), errors="coerce")
        if (bad := read.isna() & values.notna() & (values != "")).any():
            raise _unreadable(values, bad, "number")
        # float(), because pandas reads text a bit off at times, and that can be the other side of a tree's threshold.
        numbers = np.array([float(v) if known else np.nan for v, known in zip(values, read.notna(), strict=True)])
    return np.where(np.isinf(numbers), np.nan, numbers)


def _written_numbers(values: pd.Series, form: NumberForm) -> NDArray[Any]:
    """Words as the form reads them; numbers among them are numbers."""
    words = [value.strip() if isinstance(value, str) else value for value in values]
    absent = [word in ABSENT_WORDS if isinstance(word, str) else bool(pd.isna(word)) for word in words]
    read = [
        None if gone else form.read(w) if isinstance(w, str) else float(w)
        for w, gone in zip(words, absent, strict=True)
    ]
    bad = pd.Series([n is None and not gone for n, gone in zip(read, absent, strict=True)], index=values.index)
    if bad.any():
        raise _unreadable(values, bad, f"number, written as {form.describe()}")
    return np.array([np.nan if number is None else number for number in read])


def _boolean(values: pd.Series) -> NDArray[Any]:
    if types.is_bool_dtype(values) and values.dtype != object:
        return values.to_numpy(dtype="float64", na_value=np.nan)
    words = values.astype("str").str.strip().str.lower()
    missing = values.isna() | (words == "")
    if (bad := ~missing & ~words.isin(_TRUE | _FALSE)).any():
        raise _unreadable(values, bad, "true or false")
    return np.where(missing, np.nan, words.isin(_TRUE).to_numpy(dtype="float64"))


def _category(values: pd.Series) -> NDArray[Any]:
    # Without blanks around them, as ingest reads them (tasks/ingest/column_types.py).
    words = values.astype("str").str.strip().to_numpy(dtype=object)
    if not types.is_string_dtype(values):
        # A column of whole numbers turns into floats as soon as one is missing: 98001.0 is still the category "98001".
        words = np.array([_name_number(v, w) for v, w in zip(values, words, strict=True)], object)
    words[(values.isna() | (words == "")).to_numpy()] = np.nan
    return words


def _name_number(value: Any, word: Any) -> Any:
    """The category that a number stands for, as a request's number is read; what came as a word stays."""
    if isinstance(value, str) or not isinstance(word, str) or not _WHOLE.fullmatch(word):
        return word
    name = word.split(".")[0]
    return "0" if name == "-0" else name


def _date(values: pd.Series, dates: str | None) -> pd.Series:
    if not types.is_datetime64_any_dtype(values):
        if types.is_numeric_dtype(values) and values.notna().any():
            raise _unreadable(values, values.notna(), "date")
        words = values.astype("str").str.strip()
        given = values.notna() & ~words.isin(ABSENT_WORDS)
        read = pd.to_datetime(words, errors="coerce", utc=True, format="ISO8601")
        if (bad := read.isna() & given).any():
            written = read_written_dates(words.where(given, None).tolist(), dates)
            if written is None:
                raise _unreadable(values, bad, "date (write 2024-05-31 or 2024-05-31T12:00:00Z)")
            read = pd.Series(written, index=values.index, dtype="datetime64[us]")
        values = read
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values.astype("datetime64[us]")


def _unreadable(values: pd.Series, bad: pd.Series, wanted: str) -> UnreadableFrame:
    where = np.flatnonzero(bad.to_numpy())
    return UnreadableFrame(
        f"column {values.name!r} has {len(where)} value(s) that cannot be read as a {wanted}, the first is "
        f"{values.iloc[where[0]]!r} in row {where[0] + 1}. Fix the file, or leave the value empty"
    )


def _list_names(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
