"""Sizes of memory as people write them in params.yaml: 512MB, 2GB."""

from __future__ import annotations

import re

_UNITS = {"MB": 10**6, "GB": 10**9}


def parse(text: str) -> int:
    """The bytes that `text` names. Raises ValueError for anything else, and for none at all."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?) ?(MB|GB)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{text!r} is no size. Write megabytes or gigabytes, such as 512MB or 2GB")
    return round(float(found[1]) * _UNITS[found[2]])


def shown(size: float) -> str:
    """Bytes for people: 380 MB, 1.4 GB."""
    return f"{size / 10**9:.1f} GB" if size >= 999_500_000 else f"{max(1, size / 10**6):.0f} MB"
