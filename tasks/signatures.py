"""What a file is by its first bytes, whatever its name says. Owns signatures and encodings; reads no cells."""

from __future__ import annotations

import re
from pathlib import Path

from windvane.tasks.errors import InputError

_HEAD = 1 << 16
_UNZIP = "Unpack it, and name the table in it; of a workbook, save the sheet as CSV (UTF-8)"
_SHEET = "Open it and save the sheet as CSV (UTF-8)"
_DOWNLOAD = "it may be the error message of a failed download. Download the table again"
# First bytes (Wikipedia's list of file signatures), what such a file is, and what to do.
_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive, as Excel's .xlsx is too", _UNZIP),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", _SHEET),
    (b"\x1f\x8b", "packed with gzip", "Rename it to end in .gz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Rename it to end in .zst, or unpack it"),
    (b"%PDF-", "a PDF document", "Export the table behind it as CSV"),
    (b"SQLite format 3\x00", "an SQLite database", "Export the table in it as CSV"),
    (b"version https://git-lfs.github.com", "a Git LFS pointer, not the file", "Fetch the file: git lfs pull"),
)
_PARQUET = (b"PAR1", "a Parquet file", "Rename it to end in .parquet")
_HTML = re.compile(rb"\s*(<!doctype html|<html[\s>])", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\s")
_JSON = re.compile(rb'\s*(\[\s*)?\{\s*"[^"]*"\s*:')


def check(path: Path, called: Path, ending: str) -> None:
    """Raise InputError where the file is not what its `ending` (".csv", ".parquet", ...) says, or is text that is not
    UTF-8 for a reason that its first bytes show. `called`: the file's name for people.
    """
    with path.open("rb") as f:
        head = f.read(_HEAD)
    parquet = ending == ".parquet"
    for magic, what, remedy in (*_MAGIC, *(() if parquet else (_PARQUET,))):
        if head.startswith(magic):
            raise InputError(f"{called}: is {what}, whatever its name says. {remedy}")
    text = head.removeprefix(b"\xef\xbb\xbf")
    for form, name in ((_HTML, "HTML"), (_XML, "XML")):
        if form.match(text):
            raise InputError(f"{called}: is {name}, no table: {_DOWNLOAD}")
    if parquet:
        return
    if ending in (".csv", ".tsv") and _JSON.match(text):
        raise InputError(f"{called}: is JSON, whatever its name says. Rename it to end in .jsonl, one row a line")
    _check_width(called, head)


def _check_width(called: Path, head: bytes) -> None:
    """Text of two or four bytes a letter is full of NULs; in UTF-8 a NUL is a fault."""
    wide = _wide(head)
    if wide is not None:
        raise InputError(
            f"{called}: line 1: is not UTF-8 text; it looks like {wide}. Save it as UTF-8: iconv -f {wide} -t UTF-8"
        )
    if b"\x00" in head:
        line = head.count(b"\n", 0, head.index(b"\x00")) + 1
        raise InputError(f"{called}: line {line} holds a NUL byte: no text has one. Mend that line, or export it again")


def _wide(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    # In a table most letters are digits and marks: where they take two bytes, one of each two is NUL.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(b"\x00") > len(head) / 4:
        return "UTF-16"
    return None
