"""Moments as ledger text, and ids that sort by the moment at which they were made."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from windvane.ledger.store import stamp

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of a UUID: 48 bits of milliseconds, then chance.
_CHANCE = 10


def make_id() -> str:
    """A new id, 32 hexadecimal digits: 48 bits of time, so that neighbours share a page, and 80 that nobody can guess."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(_CHANCE).hex()}"


def make_ids(number: int) -> list[str]:
    """So many of them at once, all of this millisecond."""
    at, chance = f"{time.time_ns() // 1_000_000:012x}", os.urandom(_CHANCE * number).hex()
    return [at + chance[i : i + 2 * _CHANCE] for i in range(0, len(chance), 2 * _CHANCE)]


def moment(value: Any) -> str:
    """Ledger text of a date (naive: UTC), of ISO 8601 text, or of a number, so that text order is theirs.

    A number that only orders the rows, also one in text, is written as so many seconds since 1970. Raises ValueError for anything else.
    """
    if isinstance(value, datetime):
        return _dated(value)
    if isinstance(value, str):
        return moment(float(value) if NUMBER.fullmatch(value.strip()) else _read(value))
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no moment. Write a date such as 2026-01-31T12:00:00Z")
    if hasattr(value, "astype"):  # numpy's datetime64 and numbers
        return moment(value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item())
    if hasattr(value, "timetuple"):  # a date without a clock
        return stamp(datetime(value.year, value.month, value.day, tzinfo=UTC))
    try:
        return stamp(_EPOCH + timedelta(seconds=float(value)))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no moment between the years 1 and 9999. Write a date") from None


@lru_cache(4096)  # rows of a request are of the same days
def _dated(value: datetime) -> str:
    return stamp(value if value.tzinfo else value.replace(tzinfo=UTC))


def _read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no moment. Write it in ISO 8601, such as 2026-01-31T12:00:00Z") from None
