"""Codes among the numbers of a text file: 00123, which a reader of numbers takes for 123. Owns the look for them.

The first rows say what a column means; a zero that means something may stand far below them. All bytes are looked at for
one, beside the reading, at some gigabytes a second; only if a cell has one, the columns of numbers are read as words.
"""

from __future__ import annotations

import re
from pathlib import Path

from windvane.tasks import delimited, numerals
from windvane.tasks.delimited import Dialect

_BLOCK = 1 << 21


def possible(path: Path, how: Dialect) -> bool:
    """Whether any cell may be digits that begin with a zero: False is sure."""
    if how.end != "\n":
        return True
    # polars' engine for patterns is made for long texts: a piece of the file is one.
    mark = re.escape(how.delimiter)
    code = rf'(?-u)[{mark}\n"]0[0-9]+[{mark}\r\n"]'
    # Whole lines, with the end of the one before: what is left of the last one moves to the front.
    text, filled = bytearray(b"\n" + bytes(_BLOCK)), 1
    with path.open("rb", buffering=0) as f:
        while got := f.readinto(memoryview(text)[filled:]):
            filled += got
            last = text.rfind(b"\n", 0, filled)
            if _found(text, last + 1, code):
                return True
            text[: filled - last] = text[last:filled]
            filled -= last
            if filled == len(text):  # a line of many bytes
                text += bytes(len(text))
    return _found(text[:filled] + b"\n", filled + 1, code)


def _found(text: bytearray, length: int, pattern: str) -> bool:
    """Whether the pattern stands anywhere in so many bytes, or they are no text. Nothing is copied."""
    import polars as pl
    import pyarrow as pa

    offsets = pa.array([0, length], pa.int64()).buffers()[1]
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(text)])
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return bool(pl.Series(values=whole).str.contains(pattern)[0])


def columns(path: Path, how: Dialect, names: tuple[str, ...]) -> set[str]:
    """Which of these columns hold a code."""
    import polars as pl

    if not names:
        return set()
    scan = delimited.stream(path, how, (pl.String,) * len(how.names), missing=False)
    zeros = {name: pl.col(name).filter(pl.col(name).str.starts_with("0")) for name in names}
    looks = [cells.str.contains(numerals.CODE).any().alias(name) for name, cells in zeros.items()]
    found = scan.select(looks).collect(engine="streaming").row(0, named=True)
    return {name for name, yes in found.items() if yes}
