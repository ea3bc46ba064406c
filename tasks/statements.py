"""What an id, a label and a moment may be, whichever way they come in: in a file, or in a request to the service.

Owns their one written form, so that a label and the prediction that it judges are the same word. Knows nothing of files.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from windvane.ledger.labels import LONGEST_LABEL, Statement
from windvane.ledger.moments import NUMBER, moment
from windvane.ledger.predictions import BadPrediction, check_id
from windvane.tasks.settings import Kind

_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def statement(kind: Kind, id: Any, label: Any, at: Any = None, written: bool = False) -> Statement:
    """One statement from plain values. `written`: they are text from a file, where a number looks like a word.

    Raises ValueError saying which of the three is wrong, and how.
    """
    moment_of = None if at is None or (written and not at.strip()) else _at(at)
    return Statement(as_id(id), amount(label, written) if kind == "regression" else class_name(label), moment_of)


def as_id(value: Any) -> str:
    """An id as predictions carry it: text without blanks around it; 12 and 12.0 are `12`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"id {value!r} is neither text nor a whole number" if value is not None else "there is no id")
    if isinstance(value, float | Decimal) and (not math.isfinite(value) or value != int(value)):
        raise ValueError(f"id {value!r} is no whole number")
    text = value.strip() if isinstance(value, str) else str(int(value))
    if not text:
        raise ValueError("there is no id")
    try:
        check_id(text)
    except BadPrediction as e:
        raise ValueError(str(e)) from None
    return text


def amount(value: Any, written: bool = False) -> float:
    """A finite number; with `written` also as text (1234.5). Raises ValueError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("there is no label")
    if written and isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"label {_short(value)} is no number (problem.kind: regression). Write 1234.5")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"label {_short(value)} is no finite number")
    return number


def class_name(value: Any) -> str:
    """A class by name: 1, 1.0 and "1" are `1`, True and "True" are `true`, as in the table. Raises ValueError."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        value = None
    if value is None or not isinstance(value, str | int | float | Decimal):
        raise ValueError("there is no label" if value is None else f"label {_short(value)} is no class's name")
    text = str(value).strip()
    if whole := _WHOLE.fullmatch(text):
        text = whole[1]
    if text.lower() in {"true", "false"}:
        text = text.lower()
    if not text:
        raise ValueError("there is no label")
    if len(text) > LONGEST_LABEL or "\0" in text:
        raise ValueError(f"label {_short(text)} is no class's name: more than {LONGEST_LABEL} characters, or not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"label {_short(text)} is no Unicode text") from None
    return text


def _at(value: Any) -> str:
    """A moment: a date, or ISO 8601 text; a bare number could be anything. Raises ValueError."""
    bare = isinstance(value, str) and NUMBER.fullmatch(value.strip())
    if bare or not (isinstance(value, str | datetime) or hasattr(value, "timetuple")):
        raise ValueError(f"at {_short(value)} is no moment. Write it in ISO 8601, such as 2026-01-31T12:00:00Z")
    try:
        return moment(value)
    except ValueError as e:
        raise ValueError(f"at {e}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
