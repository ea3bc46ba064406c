"""Readers of file formats, one a format: a path becomes an Arrow table, or an InputError that names line and column.

Leaves the choice of the reader to tasks/sources.py, and what cells mean to tasks/canonical.py.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# Cells that people and programs write for "no value"; pandas' own list, without the ones that could be a word.
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A"]
_HEAD = 1 << 16


def delimited(path: Path, _: tuple[str, ...]) -> pa.Table:
    """CSV or TSV: every cell text or null. Names may repeat (then there are no rows): the caller refuses them."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    delimiter, names = _header(path)
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    text = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=MISSING, strings_can_be_null=True
    )
    clean = [name.strip() for name in names]
    if len(set(clean)) != len(clean):
        return pa.table([pa.nulls(0)] * len(clean), names=clean)
    try:
        table = pacsv.read_csv(path, parse_options=parse, convert_options=text)
    except pa.ArrowInvalid as e:
        _check_utf8(path)
        _check_ragged(path, parse, text)
        raise InputError(f"{path}: cannot be read as CSV: {e}. Export it again") from None
    return table.rename_columns(clean)


def _header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and column names; a byte order mark is passed over."""
    with path.open("rb") as f:
        head = f.read(_HEAD)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in head:
        raise InputError(
            f"{path}: line 1: is not UTF-8 text; it looks like UTF-16. Save it as UTF-8: iconv -f UTF-16 -t UTF-8"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            first = next((line for line in f if line.strip()), "")
            if not first:
                raise InputError(f"{path}: is empty. Export the table again, with a header and rows")
            # A header names columns: the mark that stands there most often parts them. Ties go to the comma.
            delimiter = max(",;\t|", key=first.count)
            names = next(csv.reader([first, *f] if first.count('"') % 2 else [first], delimiter=delimiter))
    except UnicodeDecodeError:
        _check_utf8(path)
        raise
    return delimiter, names


def _check_utf8(path: Path) -> None:
    with path.open("rb") as f:
        start = 0
        for number, line in enumerate(f, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as e:
                byte = line[e.start : e.start + 1]
                looks = f"Windows-1252, where it is {byte.decode('cp1252', 'replace')!r}"
                raise InputError(
                    f"{path}: line {number}{_cell(path, line, e.start)}: byte {start + e.start} is not UTF-8; it "
                    f"looks like {looks}. "
                    f"Save the file as UTF-8: iconv -f WINDOWS-1252 -t UTF-8"
                ) from None
            start += len(line)


def _cell(path: Path, line: bytes, at: int) -> str:
    """The column in which byte `at` of a line stands, as ", column 'x'"; nothing for the header."""
    with path.open("rb") as f:
        header = f.readline()
    if header == line:
        return " (the header)"
    names = header.decode("latin-1").removeprefix("ï»¿").strip("\r\n")
    delimiter = max(",;\t|", key=names.count)
    index = len(next(csv.reader([line[: at + 1].decode("latin-1")], delimiter=delimiter))) - 1
    parts = next(csv.reader([names], delimiter=delimiter))
    return f", column {parts[index].strip()!r}" if index < len(parts) else ""


def _check_ragged(path: Path, parse: Any, text: Any) -> None:
    import pyarrow.csv as pacsv

    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    parse.invalid_row_handler = note
    # Without threads the reader knows line numbers.
    pacsv.read_csv(path, read_options=pacsv.ReadOptions(use_threads=False), parse_options=parse, convert_options=text)
    if bad:
        line, more = (
            line_of(path, bad[0].number - 2, header=True),
            f", and {len(bad) - 1} more such lines" if len(bad) > 1 else "",
        )
        raise InputError(
            f"{path}: line {line} has {bad[0].actual_columns} cells where the header names {bad[0].expected_columns} "
            f"columns{more}. "
            f"Mend it; a cell that holds {parse.delimiter!r} needs quotes around it"
        )


def line_of(path: Path, row: int, header: bool) -> int:
    """Line number (from 1) at which data row `row` (from 0) starts: blank lines do not count, quoted cells may span
    lines.
    """
    record = -2 if header else -1
    quoted = False
    with path.open(encoding="utf-8", errors="replace") as f:
        for number, line in enumerate(f, 1):
            if not quoted and line.strip():
                record += 1
            if record == row:
                return number
            quoted ^= header and line.count('"') % 2 == 1
    return row + 1 + header


def parquet(path: Path, _: tuple[str, ...]) -> pa.Table:
    """Parquet, with the types it declares."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as e:
        reason = str(e).split(". ")[0].strip()
        raise InputError(f"{path}: is damaged, or no Parquet file ({reason}). Export or copy it again") from None
    # pandas writes its unnamed row labels as a column: they are no data.
    labels = [name for name in table.column_names if name.startswith("__index_level_")]
    return table.drop_columns(labels)


def json_lines(path: Path, ignore: tuple[str, ...]) -> pa.Table:
    """One JSON object a line; an absent name is a missing value. Mixtures in `ignore` become text."""
    import pyarrow as pa

    rows = _objects(path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            arrays[name] = _mixture(path, name, values, name in ignore)
    return pa.table(arrays)


def _objects(path: Path) -> list[dict[str, Any]]:
    _check_utf8(path)
    rows = []
    with path.open(encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise InputError(
                    f"{path}: line {number} is broken JSON ({e.msg} at character {e.pos + 1}). Mend or delete that line"
                ) from None
            if not isinstance(row, dict):
                raise InputError(
                    f'{path}: line {number} holds no JSON object. Write one row a line: {{"price": 1, ...}}'
                )
            rows.append(row)
    return rows


def _mixture(path: Path, name: str, values: list[Any], ignored: bool) -> pa.Array:
    import pyarrow as pa

    def word(value: Any) -> str:
        return {str: "text", bool: "true/false", int: "numbers", float: "numbers"}.get(type(value), "nested values")

    kinds = [None if v is None else word(v) for v in values]
    found = sorted({k for k in kinds if k}, key=kinds.count, reverse=True)
    if found == ["numbers"]:
        return pa.array([None if v is None else float(v) for v in values])
    if ignored:
        return pa.array([None if v is None else str(v) for v in values])
    odd = next(i for i, k in enumerate(kinds) if k == found[1])
    line = line_of(path, odd, header=False)
    raise InputError(
        mixed(path, name, Slips(found[0], kinds.count(found[1]), len(values), repr(values[odd]), f"line {line}"))
    )


@dataclass(frozen=True)
class Slips:
    """A column that is mostly `what`: how many of how many values are not, the first of these and where it stands."""

    what: str
    odd: int
    total: int
    first: str
    where: str


def mixed(path: Path, name: str, slips: Slips) -> str:
    """What to say of a column that is mostly one thing and partly another."""
    return (
        f"{path}: column {name!r} mixes types: {slips.what}, and {slips.odd} of {slips.total} values that are not, "
        f"the first {slips.first} on {slips.where}. Mend them, leave the cells empty, or add {name!r} to problem.ignore"
    )
