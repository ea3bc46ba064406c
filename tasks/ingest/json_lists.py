"""A JSON list of objects, as many programs export a table, read as JSON lines: item after item, never the whole in memory."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from windvane.tasks.errors import InputError
from windvane.tasks.ingest.packed_files import open_unpacked

_BLOCK_CHARACTERS = 1 << 20
_START_BYTES = 1 << 10
_BLANKS = re.compile(r"[ \t\r\n]*")
_BREAKS = re.compile(r"\r\n|\r|\n")
# A text that ends within a word such as true, or within an escaped letter, is refused so many characters before its end.
_CUT_WORD = 12


def is_json_list(path: Path) -> bool:
    """Whether a file of JSON, packed or not, begins as a list. Raises UNPACK_ERRORS."""
    with open_unpacked(path) as file:
        return file.read(_START_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def write_json_lines(path: Path, called: Path, target: Path) -> None:
    """The items of a list, one a line, each on the line where it begins if the lines before it leave room. Raises InputError."""
    at = 1
    with path.open("rb") as file, target.open("w", encoding="utf-8", newline="") as out:
        for line, item in read_json_list(file, called):
            out.write("\n" * max(0, line - at) + item + "\n")
            at = max(at, line) + 1


def read_json_list(file: IO[bytes], called: Path) -> Iterator[tuple[int, str]]:
    """Each item's text without line breaks, and the number of the line where it begins. Raises InputError."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    decoder, buffer, at, line, items = json.JSONDecoder(), "", 0, 1, 0

    def refuse(what: str) -> InputError:
        return InputError(f"{called}: line {line}: {what}. Export it again, as a list of objects or one object a line")

    def read_more(characters: int) -> str:
        try:
            return text.read(characters)
        except UnicodeDecodeError:
            raise InputError(f"{called}: is not UTF-8 text. Save the file as UTF-8") from None

    def next_sign() -> str:
        """The next character that is no blank; "": the file ends."""
        nonlocal buffer, at, line
        while True:
            end = _BLANKS.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing too
            line += len(_BREAKS.findall(buffer, at, end))
            at = end
            if at < len(buffer):
                return buffer[at]
            buffer, at = read_more(_BLOCK_CHARACTERS), 0
            if not buffer:
                return ""

    next_sign()
    at += 1  # the list's bracket
    while (sign := next_sign()) != "]":
        if items:
            if sign != ",":
                raise refuse("the list ends within an item" if not sign else "a comma is missing between two items")
            at += 1
            sign = next_sign()
        if sign != "{":
            raise refuse("the file ends within the list" if not sign else "the list holds an item that is no object")
        while True:
            try:
                _, end = decoder.raw_decode(buffer, at)
                break
            except json.JSONDecodeError as e:
                cut = e.pos >= len(buffer) - _CUT_WORD or e.msg.startswith("Unterminated string")
                more = read_more(max(_BLOCK_CHARACTERS, len(buffer))) if cut else ""
                if not more:
                    raise refuse(f"item {items + 1} is broken JSON ({e.msg})") from None
                buffer, at = buffer[at:] + more, 0
            except (ValueError, RecursionError):  # Python's own limits: 4,300 digits, 1,000 brackets
                raise refuse(
                    f"item {items + 1} holds a number of thousands of digits, or thousands of brackets in one another"
                ) from None
        item, items = buffer[at:end], items + 1
        yield line, _BREAKS.sub(" ", item)
        line += len(_BREAKS.findall(item))
        at = end
    at += 1
    if next_sign():
        raise refuse("there is more behind the list")
