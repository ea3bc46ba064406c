"""Spans of time as people write them in params.yaml: 12h, 7d, 2w; where the calendar counts also months, 1mo."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse(text: str, *, none: bool = False) -> timedelta:
    """The span that `text` names. Raises ValueError for anything else; for none at all (0d) unless `none` allows it."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    if found is None or (int(found[1]) == 0 and not none):
        raise ValueError(f"{text!r} is no span of time. Write hours, days or weeks, such as 12h, 365d or 52w")
    return int(found[1]) * _UNITS[found[2]]


def months(text: str) -> int | None:
    """How many calendar months `text` names (1mo, 3mo), or None: they have no one length."""
    found = re.fullmatch(r"([1-9]\d{0,2})mo", text.strip())
    return None if found is None else int(found[1])
