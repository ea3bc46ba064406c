"""A version's signature: its columns with their types, and how a JSON or CSV value is read. Refuses values, and never shows them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Literal

from windvane.ledger.labels import BOOLEAN_WORDS
from windvane.serving.compiled import engine

PlainValue = engine.PlainValue
InputType = Literal["number", "boolean", "category", "date"]

# scikit-learn's trees compare in single precision; what does not fit there has no side of a threshold.
_LARGEST_SINGLE_FLOAT = 3.4e38
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SHORT_DATE = re.compile(r"\d{4}(-\d{2})?")
# pandas reads these as missing in a CSV file, and so training read them.
_MISSING_WORDS = ",#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
_MISSING_CELLS = frozenset(_MISSING_WORDS.split(","))


class RequestRefused(Exception):
    """A request that cannot be served: its sender's fault. The text may be shown: it holds no value of the request."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class InputColumn:
    """A column that the model sees; missing: training saw it without a value, so that it may be left empty."""

    name: str
    type: InputType
    missing: bool


@dataclass(frozen=True)
class ModelSignature:
    """A version's inputs in the model's order, and its classes (None: it predicts numbers)."""

    inputs: tuple[InputColumn, ...]
    classes: tuple[Any, ...] | None = None

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns' names."""
        return frozenset(column.name for column in self.inputs)

    @cached_property
    def from_json(self) -> tuple[InputReader, ...]:
        """A reader of JSON values per column."""
        return tuple(
            InputReader(c.name, _refuse_missing(c, _JSON_READERS[c.type]), _BULK_READERS.get(c.type))
            for c in self.inputs
        )

    @cached_property
    def from_text(self) -> tuple[InputReader, ...]:
        """A reader of a CSV file's cells per column."""
        return tuple(InputReader(c.name, _refuse_missing(c, _TEXT_READERS[c.type]), None) for c in self.inputs)


@dataclass(frozen=True)
class InputReader:
    """Reads a column's values: `one` a single one, `at_once` many that are all as they should be (else it gives None)."""

    name: str
    one: Callable[[Any], PlainValue]
    at_once: Callable[[Sequence[Any]], list[PlainValue] | None] | None

    def read(self, values: Sequence[Any]) -> list[PlainValue]:
        """The plain values. Raises RequestRefused naming the column and the row."""
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
            raise RequestRefused(f"column {quote_safely(self.name)!r}, row {len(read) + 1}: {e}") from None
        return read


def quote_safely(text: object, longest: int = 60) -> str:
    """Something of a request as it may be in a response: short, printable, nothing that a browser would obey."""
    cut = str(text)[:longest]
    return html.escape("".join(c if c.isprintable() else "?" for c in cut)) + ("…" if len(str(text)) > longest else "")


def _refuse_missing(column: InputColumn, read: Callable[[Any], PlainValue]) -> Callable[[Any], PlainValue]:
    """The reader, which refuses a missing value where training never saw one."""
    if column.missing:
        return read

    def complete(value: Any) -> PlainValue:
        plain = read(value)
        if plain is None:
            raise ValueError("is missing, and training never saw it missing")
        return plain

    return complete


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


def _read_words_at_once(values: Sequence[Any]) -> list[PlainValue] | None:
    """Texts, none of which is empty; None where that is not so."""
    return list(values) if set(map(type, values)) == {str} and "" not in values else None


def _read_boolean(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) in (bool, int, float) and value in (0, 1):
        return float(value)
    if type(value) is str:
        return _read_boolean_word(value)
    raise ValueError(f"must be true or false, not {_describe_type(value)}")


def _read_boolean_word(text: str) -> float | None:
    word = text.strip().lower()
    if word == "":
        return None
    if (found := BOOLEAN_WORDS.get(word)) is None:
        raise ValueError("must be true or false")
    return float(found)


def _read_category(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return value or None
    if value is None:
        return None
    if kind is int:
        return str(value)
    if kind is float:
        # A column of whole numbers turns into floats as soon as one is missing: 98001.0 is still the category "98001".
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else str(value)
    raise ValueError(f"must be text, not {_describe_type(value)}")


def _read_date(value: Any) -> int | None:
    if type(value) is str:
        return _parse_date(value.strip())
    if value is None:
        return None
    raise ValueError(f"must be a date as text (2024-05-31 or 2024-05-31T12:00:00Z), not {_describe_type(value)}")


@lru_cache(4096)
def _parse_date(text: str) -> int | None:
    if text == "":
        return None
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
    if text in _MISSING_CELLS:
        return None
    try:
        read = float(text)
        if "_" in text or not text.isascii():  # what Python reads, but no table
            raise ValueError
    except ValueError:
        raise ValueError("must be a number") from None
    return None if math.isinf(read) else _read_number(read)


def _describe_type(value: Any) -> str:
    names = {str: "text", bool: "true or false", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


def _unless_missing(read: Callable[[str], PlainValue]) -> Callable[[str], PlainValue]:
    return lambda text: None if text in _MISSING_CELLS else read(text)


_JSON_READERS: dict[InputType, Callable[[Any], PlainValue]] = {
    "number": _read_number,
    "boolean": _read_boolean,
    "category": _read_category,
    "date": _read_date,
}
_TEXT_READERS: dict[InputType, Callable[[str], PlainValue]] = {
    "number": _read_number_text,
    "boolean": _unless_missing(_read_boolean_word),
    "category": _unless_missing(lambda text: text or None),
    "date": _unless_missing(lambda text: _parse_date(text.strip())),
}
_BULK_READERS: dict[InputType, Callable[[Sequence[Any]], list[PlainValue] | None]] = {
    "number": _read_numbers_at_once,
    "category": _read_words_at_once,
}
