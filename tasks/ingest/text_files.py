"""Tables as text, CSV and TSV and JSON lines: their header, their cells as a stream, and what is wrong with a line.

Leaves what cells mean to column_types.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pyarrow.types as at

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.ingest.cell_reading import (
    NumberForm,
    TableStart,
    call_column,
    detect_delimiter,
    find_table_start,
    format_delimited_rows,
    has_data_in_header,
    has_quoted_names,
    may_be_total,
    name_columns,
    suggest_start_keys,
)
from windvane.tasks.ingest.packed_files import open_unpacked
from windvane.tasks.settings.data_section import PLAIN_FORMAT, FormatSettings

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class CsvDialect:
    """How a file parts its cells and lines, its columns' names, and the header as it is written.

    `notes`: what was assumed of the header. `unheaded`: that it may be none. `added`: so many lines more than in the file that people
    know.
    """

    delimiter: str
    header: tuple[str, ...]
    end: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unheaded: str = ""
    added: int = 0

    @property
    def unnamed(self) -> bool:
        """Whether columns can be known by their place only."""
        return not all(map(str.strip, self.header)) or len(set(self.header)) < len(self.header)


# A table begins in them.
_START_LINES = 500


def read_start_lines(path: Path, called: Path) -> list[str]:
    """The first lines of a text table with their ends; `called`: the file's name for people. Raises InputError."""
    try:
        with io.TextIOWrapper(open_unpacked(path), encoding="utf-8-sig", newline="") as f:
            lines = list(islice(f, _START_LINES))
            if lines and lines[0].count('"') % 2 and len(lines) == _START_LINES:
                lines += f  # a header may take many lines
    except UnicodeDecodeError:
        check_utf8(path, called)
        raise
    return lines


def detect_dialect(path: Path, called: Path, format: FormatSettings = PLAIN_FORMAT) -> CsvDialect:
    """Delimiter and column names; a byte order mark is passed over. `called`: the file's name for people. Raises InputError."""
    return _read_start(path, called, format)[1]


def _read_start(path: Path, called: Path, format: FormatSettings) -> tuple[TableStart, CsvDialect]:
    lines = read_start_lines(path, called)
    try:
        start = find_table_start(lines, format.header, format.comment, format.skip_rows)
    except csv.Error as e:
        raise InputError(f"{called}: line 1: the header cannot be read ({e}). Fix its quotes") from None
    if start is None:
        raise InputError(f"{called}: is empty. Export the table again, with a header and rows")
    first = lines[start.above]
    if format.header is True and (keys := suggest_start_keys(start, lines)):
        written = ", ".join(f"{key}: {value!r}" for key, value in keys.items())
        raise InputError(
            f"{called}: line {start.above + 1}, {first.strip()[:60]!r}, is no header. Set data.format: {{{written}}} in params.yaml, "
            "or delete what is above the header"
        )
    header, notes, unheaded = start.header, list[str](), ""
    if start.labels:
        header = ("", *header) if start.labels == "first" else (*header, "")
        notes.append(
            f"its rows have one cell more than its header, at the {'front' if start.labels == 'first' else 'end'} (likely)"
        )
    if start.hinted:
        notes.append(f"{start.delimiter!r} parts its cells, as its first line has it for Excel (sure)")
    names = name_columns(header)
    if nameless := [repr(name) for name, cell in zip(names, header, strict=True) if not cell.strip()]:
        notes.append(f"{', '.join(nameless)} has no name in the header (sure)")
    if has_quoted_names(header):
        notes.append("its names are in single quotes, which are left out (sure)")
    if format.header is True and has_data_in_header(start):
        unheaded = f"line {start.above + 1}, {first.strip()[:60]!r}, looks like a row and no header"
    how = CsvDialect(start.delimiter, header, "\r" if first.endswith("\r") else "\n", names, tuple(notes), unheaded)
    return start, how


def open_text_table(path: Path, called: Path, scratch: Path, format: FormatSettings) -> tuple[Path, CsvDialect]:
    """A text table whose first filled line is its header, and how it is written. Raises InputError.

    Where `path` has other lines above it, comments, or a header that does not name each cell or begins as packed files do, that is a copy
    in the folder `scratch`, in which empty lines keep the numbers of the others.
    """
    start, how = _read_start(path, called, format)
    blank = start.above and not any(line.strip() for line in read_start_lines(path, called)[: start.above])
    totals = find_total_rows(path, how) if format.total_rows == "drop" else None
    with path.open("rb") as f:
        disguised = f.read(2) in _PACKED_STARTS
    odd = totals or start.labels or format.comment or (start.above and (how.unnamed or not blank))
    if start.lines and not (odd or disguised):
        return path, how
    check_utf8(path, called)
    target, added = scratch / f"{len(list(scratch.iterdir()))}.table", 0
    header = format_delimited_rows([how.names], how.delimiter)[0]
    with (
        path.open(encoding="utf-8-sig", newline="") as f,
        target.open("w", encoding="utf-8-sig" if disguised else "utf-8", newline="") as out,
    ):
        above = [_keep_end(line) for line in islice(f, start.above)]
        if start.lines == 0 and not above:
            above, added = [how.end], 1
        if start.lines == 0:
            above[-1] = header + above[-1]
        out.writelines(above)
        lines = list(islice(f, start.lines))
        if start.lines and (start.labels or how.unnamed):
            lines = [header + _keep_end(lines[0]), *map(_keep_end, lines[1:])]
        out.writelines(lines)
        if format.comment is None:
            shutil.copyfileobj(f, out, _BLOCK_BYTES)
        else:
            out.writelines(_blank_comments(f, format.comment))
    if totals is not None:
        with target.open("rb+") as out_bytes:
            out_bytes.truncate(target.stat().st_size - totals.size)
    return target, replace(how, header=how.names, added=added)


_TAIL_BYTES, _HEAD_BYTES = 1 << 16, 1 << 12
# polars takes what begins so for packed, and a header may: x^2. A byte order mark before it, in a copy, shows that it is text.
_PACKED_STARTS = (b"x\x01", b"x^", b"x\x9c", b"x\xda")


@dataclass(frozen=True)
class TotalRows:
    """Rows at the end of a text table that are called as totals are, from the first of them: their cells, and their bytes with all that
    is behind. `above`: the cells of the row above them.
    """

    cells: tuple[tuple[str, ...], ...]
    size: int
    above: tuple[str, ...]


def find_total_rows(path: Path, how: CsvDialect) -> TotalRows | None:
    """The totals at the end of a text table; None: there are none."""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = f.read().splitlines(keepends=True)[1:]  # the first is the header, or a part of a line
    found, size, behind = list[tuple[str, ...]](), 0, 0
    for line in reversed(lines):
        text, behind = line.decode("utf-8", "replace"), behind + len(line)
        if not text.strip(f' "\r\n{how.delimiter}'):
            continue
        cells = tuple(next(csv.reader([text], delimiter=how.delimiter)))
        if not may_be_total(cells):
            return TotalRows(tuple(found), size, cells) if found else None
        found.insert(0, cells)
        size = behind
    return None


def _keep_end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _blank_comments(lines: Iterable[str], comment: str) -> Iterator[str]:
    """The lines, each comment as an empty one. Within quotes is none."""
    quoted = False
    for line in lines:
        if not quoted and line.startswith(comment):
            yield _keep_end(line)
        else:
            quoted ^= line.count('"') % 2 == 1
            yield line


def scan_csv(path: Path, how: CsvDialect, types: tuple[Any, ...], absent: Collection[str] = ()) -> pl.LazyFrame:
    """The cells, with a polars type for each column in its order.

    `absent`: words that mean no value in any column; the empty cell always does. Trust the rows only if even() agrees.
    """
    header = how.names if how.unnamed else how.header
    cells = pl.scan_csv(
        path,
        separator=how.delimiter,
        eol_char=how.end,
        has_header=not how.unnamed,
        skip_rows=int(how.unnamed),
        schema=dict(zip(header, types, strict=True)),
        glob=False,
        null_values=sorted(absent) or None,
    )
    return cells.rename(dict(zip(header, how.names, strict=True)))


def scan_as_written(path: Path, format: FormatSettings) -> pl.LazyFrame:
    """The cells of a text table as text, without a copy and without checks. Raises InputError, or polars' errors later."""
    start, how = _read_start(path, path, format)
    if start.lines and not (start.above or format.comment or start.labels):
        return scan_csv(path, how, (pl.String,) * len(how.names))
    return pl.scan_csv(
        path,
        separator=how.delimiter,
        eol_char=how.end,
        has_header=False,
        skip_lines=start.above + start.lines,
        comment_prefix=format.comment,
        schema=dict.fromkeys(how.names, pl.String),
        glob=False,
    )


def has_even_rows(path: Path, how: CsvDialect, rows: int) -> bool:
    """Whether the file surely has a delimiter less than columns on each of the `rows` lines below the header.

    polars refuses lines with more cells; so where there are as many in all, no line has fewer, and none is blank.
    """
    found, separator = 0, how.delimiter.encode()
    with path.open("rb") as f:
        while block := f.read(_BLOCK_BYTES):
            if b'"' in block:  # a delimiter between quotes parts nothing
                return False
            found += block.count(separator)
    return found == (rows + 1) * (len(how.names) - 1)


def rewrite_as_parquet(path: Path, how: CsvDialect, target: Path, called: Path) -> None:
    """Write all cells as text to the Parquet file `target`, in a stream. Raises InputError that names the line."""
    parse = pacsv.ParseOptions(delimiter=how.delimiter, newlines_in_values=True)
    text = pacsv.ConvertOptions(
        column_types=dict.fromkeys(how.header, pa.string()), null_values=[""], strings_can_be_null=True
    )
    schema = pa.schema([(name, pa.string()) for name in how.names])
    read = pacsv.ReadOptions(block_size=_BLOCK_BYTES)
    try:
        with pacsv.open_csv(path, read, parse, text) as batches, pq.ParquetWriter(target, schema) as writer:
            for batch in batches:
                writer.write_batch(batch.rename_columns(list(how.names)))
    except (pa.ArrowInvalid, UnicodeDecodeError) as e:
        check_utf8(path, called)
        _check_ragged(path, parse, read, text, called, how.added)
        raise InputError(f"{called}: cannot be read as CSV: {e}. Export it again") from None


def check_width(called: Path, head: bytes) -> None:
    """Raise InputError for text of two or four bytes a letter, which is full of NULs; in UTF-8 one is a fault. `head`: its first bytes."""
    wide = None
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        wide = "UTF-32"
    # In a table most characters are ASCII: where they take two bytes, one of each two is NUL.
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(b"\x00") > len(head) / 4:
        wide = "UTF-16"
    if wide is not None:
        raise InputError(
            f"{called}: line 1: is not UTF-8 text; it looks like {wide}. Save it as UTF-8: iconv -f {wide} -t UTF-8"
        )
    if b"\x00" in head:
        line = head.count(b"\n", 0, head.index(b"\x00")) + 1
        raise InputError(f"{called}: line {line} holds a NUL byte: no text has one. Fix that line, or export it again")


def check_utf8(path: Path, called: Path) -> None:
    """Raise InputError naming line, column and byte where the file is not UTF-8."""
    with path.open("rb") as f:
        check_width(called, f.read(_HEAD_BYTES))
        f.seek(0)
        start = 0
        for number, line in enumerate(f, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as e:
                byte = line[e.start : e.start + 1]
                guess = f"Windows-1252, where it is {byte.decode('cp1252', 'replace')!r}"
                raise InputError(
                    f"{called}: line {number}{_locate_byte(path, line, e.start)}: byte {start + e.start} is not UTF-8; it "
                    f"looks like {guess}. "
                    f"Save the file as UTF-8: iconv -f WINDOWS-1252 -t UTF-8"
                ) from None
            start += len(line)


def _locate_byte(path: Path, line: bytes, at: int) -> str:
    """The column in which byte `at` of a line is, as ", column 'x'"; nothing for the header."""
    with path.open("rb") as f:
        header = f.readline()
    if header == line:
        return " (the header)"
    names = header.decode("latin-1").removeprefix("ï»¿").strip("\r\n")
    delimiter = detect_delimiter(names)
    try:
        index = len(next(csv.reader([line[: at + 1].decode("latin-1")], delimiter=delimiter))) - 1
        parts = next(csv.reader([names], delimiter=delimiter))
    except csv.Error:  # so broken that only the line is known
        return ""
    return f", column {parts[index].strip()!r}" if index < len(parts) else ""


def _check_ragged(path: Path, parse: Any, read: Any, text: Any, called: Path, added: int) -> None:
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    parse.invalid_row_handler = note
    read.use_threads = False  # without threads the reader knows line numbers
    # What is broken otherwise, or gone since, is reported elsewhere.
    with contextlib.suppress(pa.ArrowInvalid), pacsv.open_csv(path, read, parse, text) as batches:
        for _ in batches:
            pass
    if bad:
        line = find_line_number(path, bad[0].number - 2, header=True) - added
        more = f", and {len(bad) - 1} more such lines" if len(bad) > 1 else ""
        raise InputError(
            f"{called}: line {line} has {bad[0].actual_columns} cells where the header names {bad[0].expected_columns} "
            f"columns{more}. "
            f"Fix it; a cell that holds {parse.delimiter!r} needs quotes around it"
        )


def find_line_number(path: Path, row: int, header: bool, rows: bool = False) -> int:
    """Line number (from 1) at which data row `row` (from 0) starts: blank lines do not count, quoted cells may span lines. rows: the
    number of its row instead, however many lines the cells above it take.
    """
    record = -2 if header else -1
    quoted, within = False, 0
    with path.open(encoding="utf-8", errors="replace") as f:
        for number, line in enumerate(f, 1):
            if not quoted and line.strip():
                record += 1
            within += rows and quoted
            if record == row:
                return number - within
            quoted ^= header and line.count('"') % 2 == 1
    return row + 1 + header


# Lines held in memory at once.
_CHUNK_LINES = 50_000


def describe_mixed_column(path: Path, name: str, most: str, odd: int, total: int, first: str) -> str:
    """The message about a column that is mostly one thing, `most`, and in `odd` of `total` values another; `first`: the
    first of these and where it is.
    """
    return (
        f"{path}: column {name!r} mixes types: {most}, and {odd} of {total} values that are not, the first {first}. "
        f"Fix them, leave the cells empty, or add {name!r} to problem.ignore"
    )


def scan_json_lines(
    path: Path, called: Path, scratch: Path, ignore: tuple[str, ...]
) -> tuple[tuple[str, ...], pl.LazyFrame]:
    """Names and cells of a file with one JSON object a line, which are written as Parquet below `scratch`."""
    target = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    return write_json_cells(path, called, target, ignore), table_io.scan_parquet(target)


def write_json_cells(
    path: Path, called: Path, target: Path, ignore: tuple[str, ...] | None, numbers: NumberForm | None = None
) -> tuple[str, ...]:
    """Write the cells of a file with one JSON object a line as Parquet; their columns' names. An absent name is a missing value.

    Mixtures in `ignore` (None: all of them) become text, their numbers written as `numbers` has them. The file is read twice: once
    for what each column holds.
    """
    check_utf8(path, called)
    found, rows = _kinds(path, called)
    if not rows:
        raise InputError(f"{called}: is empty. Export the table again, with a header and rows")
    if rows == 1 and all(set(seen) == {_NESTED_KIND} for seen in found.values()):
        raise InputError(
            f"{called}: holds one object with all values of each column, and no rows. Export it as a list of objects: in pandas "
            "to_json(orient='records')"
        )
    for name, seen in found.items():
        if ignore is not None and len(_count_plain_kinds(seen)) > 1 and call_column(name) not in ignore:
            raise InputError(_mixture(path, called, name, _count_plain_kinds(seen), rows))
    schema = pa.schema([(name, _choose_arrow_type(seen)) for name, seen in found.items()])
    with pq.ParquetWriter(target, schema) as writer:
        rows_left = _rows(path, called)
        while chunk := list(islice(rows_left, _CHUNK_LINES)):
            arrays = [
                pa.array([_convert_json_cell(row.get(f.name), f.type, numbers) for row in chunk], f.type)
                for f in schema
            ]
            writer.write_table(pa.table(arrays, schema=schema))
    return tuple(found)


def _kinds(path: Path, called: Path) -> tuple[dict[str, Counter[str]], int]:
    """How often each column holds each type of value, and the number of rows."""
    found: dict[str, Counter[str]] = {}
    rows = 0
    for row in _rows(path, called):
        rows += 1
        for name, value in row.items():
            seen = found.setdefault(name, Counter())
            if value is not None:
                seen[_json_kind(value)] += 1
    return found, rows


_NESTED_KIND = "nested values"


def _json_kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Whole numbers that 64 bits do not hold are numbers all the same.
        return "whole" if -(2**63) <= value < 2**63 else "numbers"
    return {str: "text", bool: "true/false", float: "numbers"}.get(type(value), _NESTED_KIND)


def _count_plain_kinds(seen: Counter[str]) -> Counter[str]:
    """Types as people know them: whole numbers are numbers."""
    words: Counter[str] = Counter()
    for kind, count in seen.items():
        words["numbers" if kind == "whole" else kind] += count
    return words


def _choose_arrow_type(seen: Counter[str]) -> Any:
    """The Arrow type of a column that holds values of the given types."""
    if len(_count_plain_kinds(seen)) > 1:
        return pa.string()
    if len(seen) > 1:
        return pa.float64()
    types = {"text": pa.string(), "true/false": pa.bool_(), "whole": pa.int64(), "numbers": pa.float64()}
    # Nested values are refused by their type, or ignored: an exact type is not needed.
    return types.get(next(iter(seen)), pa.list_(pa.string())) if seen else pa.null()


def _convert_json_cell(value: Any, kind: pa.DataType, numbers: NumberForm | None) -> Any:
    if value is None or at.is_nested(kind):
        return None
    if at.is_string(kind):
        return numbers.write(value) if numbers is not None and isinstance(value, float) else str(value)
    if not at.is_floating(kind):
        return value
    try:
        return float(value)
    except OverflowError:  # a whole number past the range of float64
        return math.inf if value > 0 else -math.inf


def _mixture(path: Path, called: Path, name: str, words: Counter[str], rows: int) -> str:
    (most, _), (odd, count), *_ = words.most_common()
    values = (row.get(name) for row in _rows(path, called))
    at, first = next(
        (i, v) for i, v in enumerate(values) if v is not None and _json_kind(v).replace("whole", "numbers") == odd
    )
    line = find_line_number(path, at, header=False)
    return describe_mixed_column(called, name, most, count, rows, f"{first!r} on line {line}")


def _rows(path: Path, called: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                yield _object(line, number, called)


def _object(line: str, number: int, called: Path) -> dict[str, Any]:

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Python keeps the last of the values that an object gives to one key, in silence."""
        found = dict(pairs)
        if len(found) < len(pairs):
            name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise InputError(f"{called}: line {number} has the key {name!r} twice. Fix or delete that line")
        return found

    try:
        row = json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as e:
        raise InputError(
            f"{called}: line {number} is broken JSON ({e.msg} at character {e.pos + 1}). Fix or delete that line"
        ) from None
    except (ValueError, RecursionError):  # Python's own limits: 4,300 digits, 1,000 brackets
        raise InputError(
            f"{called}: line {number} holds a number of thousands of digits, or thousands of brackets in one another. Fix or "
            "delete that line"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f'{called}: line {number} holds no JSON object. Write one row a line: {{"price": 1, ...}}')
    if "\\u" in line:
        _check_text(row, number, called)
    return row


def _check_text(row: dict[str, Any], number: int, called: Path) -> None:
    """JSON can write half of a letter that takes two codes; no text can hold it."""
    for name, value in row.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{called}: line {number}: column {name!r} holds half a letter ({value!r}). Fix or delete that line"
            ) from None
