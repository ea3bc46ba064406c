"""Spans of time as people write them in params.yaml: 12h, 7d, 2w."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse(text: str) -> timedelta:
    """The span that `text` names. Raises ValueError for anything else, and for none at all (0d)."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"{text!r} is no span of time. Write hours, days or weeks, such as 12h, 365d or 52w")
    return int(found[1]) * _UNITS[found[2]]
