"""A version's signature: its columns with their types, and how a value of a request or a file is read. Refuses values, and
never shows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Literal

from windvane.ledger.labels import BOOLEAN_WORDS
from windvane.serving.compiled import engine
from windvane.tasks.ingest.cell_reading import ABSENT_IF_KEPT, ABSENT_WORDS, NumberForm, read_written_dates

PlainValue = engine.PlainValue
InputType = Literal["number", "boolean", "category", "date"]

# scikit-learn's trees compare in single precision; what does not fit there has no side of a threshold.
_LARGEST_SINGLE_FLOAT = 3.4e38
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SHORT_DATE = re.compile(r"\d{4}(-\d{2})?")


class RequestRefused(Exception):
    """A request that cannot be served: its sender's fault. The text may be shown: it holds no value of the request."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class CellRefused(Exception):
    """A value that the model cannot be given: its column, its row (from 1), and why. Holds no value."""

    def __init__(self, column: str, row: int, reason: str) -> None:
        super().__init__(column, row, reason)
        self.column, self.row, self.reason = column, row, reason


@dataclass(frozen=True)
class InputColumn:
    """A column that the model sees, and what training decided about its cells.

    missing: its table has rows without a value, so that it may be left empty. keep_words: words such as NA are values.
    code_width: see cell_reading.find_code_width; a number means the code of so many digits, with 0 none.
    dates: see cell_reading.choose_date_forms. numbers: how they are written in words; None: as programs write them.
    missing_words: words beside the usual ones that mean no value (data.format).
    """

    name: str
    type: InputType
    missing: bool
    keep_words: bool = False
    code_width: int | None = None
    dates: str | None = None
    numbers: NumberForm | None = None
    missing_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSignature:
    """A version's inputs in the model's order, its classes (None: it predicts numbers), and all columns of its table."""

    inputs: tuple[InputColumn, ...]
    classes: tuple[Any, ...] | None = None
    table: tuple[str, ...] = ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns' names."""
        return frozenset(column.name for column in self.inputs)

    @cached_property
    def unread(self) -> frozenset[str]:
        """Columns of the table that the model does not see: the target, ignored ones, text."""
        return frozenset(self.table) - self.names

    @cached_property
    def from_json(self) -> tuple[InputReader, ...]:
        """A reader of JSON values per column."""
        bulk: dict[InputType, BulkReader] = {"number": _read_numbers_at_once}
        return tuple(
            _make_word_reader(c)
            if c.type == "category"
            else InputReader(c, _unless_missing(c, _read_written(c.numbers, _JSON_READERS[c.type])), bulk.get(c.type))
            for c in self.inputs
        )

    @cached_property
    def from_text(self) -> tuple[InputReader, ...]:
        """A reader of a text file's cells per column."""
        return tuple(
            _make_word_reader(c)
            if c.type == "category"
            else InputReader(
                c, _unless_missing(c, _read_written(c.numbers, _unless_absent(_TEXT_READERS[c.type]))), None
            )
            for c in self.inputs
        )


BulkReader = Callable[[Sequence[Any]], list[PlainValue] | None]


@dataclass(frozen=True)
class InputReader:
    """Reads a column's values: `one` a single one, `at_once` many that are all as they should be (else it gives None)."""

    column: InputColumn
    one: Callable[[Any], PlainValue]
    at_once: BulkReader | None

    def read(self, values: Sequence[Any]) -> list[PlainValue]:
        """The plain values. Raises CellRefused."""
        if (
            self.at_once is not None
            and len(values) >= engine.MIN_BULK_VALUES
            and (plain := self.at_once(values)) is not None
        ):
            return plain
        one = self.one
        read: list[PlainValue] = []
        try:
            for value in values:
                read.append(one(value))
        except ValueError as e:
            words = self.column.missing_words
            known = [None if isinstance(value, str) and value.strip() in words else value for value in values]
            dates = read_written_dates(known, self.column.dates) if self.column.type == "date" else None
            if dates is None:
                raise CellRefused(self.column.name, len(read) + 1, str(e)) from None
            read = [None if date is None else (date - _EPOCH) // _MICROSECOND for date in dates]
        return self.require_values(read)

    def require_values(self, plain: list[PlainValue]) -> list[PlainValue]:
        """The same values. Raises CellRefused where one is missing and the table never lacked one: the model knows nothing of it."""
        if not self.column.missing and None in plain:
            raise CellRefused(self.column.name, plain.index(None) + 1, "is missing, and training never saw it missing")
        return plain


def quote_safely(text: object, longest: int = 60) -> str:
    """Something of a request as it may be in a message: short and printable. What writes the message escapes it."""
    cut = str(text)[:longest]
    return "".join(c if c.isprintable() else "?" for c in cut) + ("…" if len(str(text)) > longest else "")


def _read_number(value: Any) -> float | None:
    kind = type(value)
    if kind is float or kind is int:
        if -_LARGEST_SINGLE_FLOAT <= value <= _LARGEST_SINGLE_FLOAT:
            return float(value)
        if math.isnan(value):
            return None
        raise ValueError("is a number beyond what can be counted with")
    if value is None:
        return None
    raise ValueError(f"must be a number, not {_describe_type(value)}")


def _read_numbers_at_once(values: Sequence[Any]) -> list[PlainValue] | None:
    """Numbers, none of which is missing or far out; None where that is not so."""
    if (
        set(map(type, values)) <= {float, int}
        and min(values) >= -_LARGEST_SINGLE_FLOAT
        and max(values) <= _LARGEST_SINGLE_FLOAT
    ):
        return list(map(float, values))
    return None


def _read_boolean(value: Any) -> float | None:
    if value is None or (type(value) is float and math.isnan(value)):
        return None
    if type(value) in (bool, int, float) and value in (0, 1):
        return float(value)
    if type(value) is str:
        return None if (word := value.strip()) in ABSENT_WORDS else _read_boolean_word(word)
    raise ValueError(f"must be true or false, not {_describe_type(value)}")


def _read_boolean_word(word: str) -> float:
    if (found := BOOLEAN_WORDS.get(word.lower())) is None:
        raise ValueError("must be true or false")
    return float(found)


def _make_word_reader(column: InputColumn) -> InputReader:
    """Categories: words without blanks around them, as ingest reads them (column_types.strip_words), and numbers by name."""
    absent = (ABSENT_IF_KEPT if column.keep_words else ABSENT_WORDS) | frozenset(column.missing_words)
    width = column.code_width

    def read(value: Any) -> str | None:
        kind = type(value)
        if kind is str:
            word: str = value.strip()
            return None if word in absent else word
        if value is None or (kind is float and math.isnan(value)):
            return None
        if kind is float and value.is_integer() and abs(value) < 1e16:
            # A column of whole numbers turns into floats as soon as one is missing: 98001.0 is still the category "98001".
            value = int(value)
        elif kind is not int and kind is not float:
            raise ValueError(f"must be text, not {_describe_type(value)}")
        if width == 0:
            raise ValueError("holds codes in which zeros count, such as 01067: send it as text")
        return str(value) if width is None else str(value).zfill(width)

    def read_at_once(values: Sequence[Any]) -> list[PlainValue] | None:
        if set(map(type, values)) != {str}:
            return None
        words: list[PlainValue] = list(map(str.strip, values))
        return words if absent.isdisjoint(words) else None

    return InputReader(column, read, read_at_once)


def _read_date(value: Any) -> int | None:
    if type(value) is str:
        return None if (word := value.strip()) in ABSENT_WORDS else _parse_date(word)
    if value is None:
        return None
    raise ValueError(f"must be a date as text (2024-05-31 or 2024-05-31T12:00:00Z), not {_describe_type(value)}")


@lru_cache(4096)
def _parse_date(text: str) -> int:
    if _SHORT_DATE.fullmatch(text):
        text += "-01" if len(text) == 7 else "-01-01"
    try:
        read = datetime.fromisoformat(text)
        if read.tzinfo is not None:
            read = read.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise ValueError("is not a date: write 2024-05-31 or 2024-05-31T12:00:00Z") from None
    return (read - _EPOCH) // _MICROSECOND


def _read_number_text(text: str) -> float | None:
    try:
        read = float(text)
        if "_" in text or not text.isascii():  # what Python reads, but no table
            raise ValueError
    except ValueError:
        raise ValueError("must be a number") from None
    return None if math.isinf(read) else _read_number(read)


def _read_written(form: NumberForm | None, otherwise: Callable[[Any], PlainValue]) -> Callable[[Any], PlainValue]:
    """The reader of a column whose numbers may be written in words of one form; anything but words is read `otherwise`."""
    if form is None:
        return otherwise

    def read(value: Any) -> PlainValue:
        if type(value) is not str:
            return otherwise(value)
        if (word := value.strip()) in ABSENT_WORDS:
            return None
        if (number := form.read(word)) is None:
            raise ValueError(f"must be a number, written as data.format has it: {form.describe()}")
        return None if math.isinf(number) else _read_number(number)

    return read


def _unless_missing(column: InputColumn, read: Callable[[Any], PlainValue]) -> Callable[[Any], PlainValue]:
    """The reader of a column that knows the table's own words for no value."""
    words = frozenset(column.missing_words)
    if not words:
        return read
    return lambda value: None if type(value) is str and value.strip() in words else read(value)


def _describe_type(value: Any) -> str:
    names = {str: "text", bool: "true or false", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


def _unless_absent(read: Callable[[str], PlainValue]) -> Callable[[str], PlainValue]:
    """The reader of a cell without blanks around it; None where it has no value."""
    return lambda text: None if (word := text.strip()) in ABSENT_WORDS else read(word)


_JSON_READERS: dict[InputType, Callable[[Any], PlainValue]] = {
    "number": _read_number,
    "boolean": _read_boolean,
    "date": _read_date,
}
_TEXT_READERS: dict[InputType, Callable[[str], PlainValue]] = {
    "number": _read_number_text,
    "boolean": _read_boolean_word,
    "date": _parse_date,
}
