"""Text tables, CSV and TSV: their header, their cells as a stream, and what is wrong with a line.

Two readers. polars is fast, but fills up short lines in silence; where it cannot be trusted, pyarrow reads every cell
as text and knows the line that is broken. Leaves what cells mean to tasks/canonical.py.
"""

from __future__ import annotations

import contextlib
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    import polars as pl

# Cells that people and programs write for "no value"; pandas' own list, without the ones that could be a word.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A")
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Dialect:
    """How a file parts its cells and lines, and what stands in its header."""

    delimiter: str
    header: tuple[str, ...]
    end: str

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, trimmed."""
        return tuple(name.strip() for name in self.header)


def dialect(path: Path, called: Path) -> Dialect:
    """Delimiter and column names; a byte order mark is passed over. `called`: the file's name for people."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            first = next((line for line in f if line.strip()), "")
            if not first:
                raise InputError(f"{called}: is empty. Export the table again, with a header and rows")
            if first.lower().startswith("sep="):
                raise InputError(f"{called}: line 1 is Excel's {first.strip()!r}, no header. Delete that line")
            delimiter = _delimiter(first)
            names = next(csv.reader([first, *f] if first.count('"') % 2 else [first], delimiter=delimiter))
            second = next((line for line in f if line.strip()), "") if len(names) == 1 else ""
    except UnicodeDecodeError:
        check_utf8(path, called)
        raise
    except csv.Error as e:
        raise InputError(f"{called}: line 1: the header cannot be read ({e}). Mend its quotes") from None
    if cells := second.count(_delimiter(second)):
        raise InputError(
            f"{called}: line 2 has {cells + 1} cells, but line 1, {first.strip()[:60]!r}, names one column. Delete what stands "
            "above the header"
        )
    return Dialect(delimiter, tuple(names), "\r" if first.endswith("\r") else "\n")


def _delimiter(header: str) -> str:
    """A header names columns: the mark that stands there most often parts them. Ties go to the comma."""
    return max(",;\t|", key=header.count)


def stream(path: Path, how: Dialect, types: tuple[Any, ...], missing: bool) -> pl.LazyFrame:
    """The cells, with a polars type for each column in its order.

    `missing`: whether MISSING stand for no value; the empty cell always does. Trust the rows only if even() agrees.
    """
    import polars as pl

    cells = pl.scan_csv(
        path,
        separator=how.delimiter,
        eol_char=how.end,
        schema=dict(zip(how.header, types, strict=True)),
        glob=False,
        null_values=list(MISSING) if missing else None,
    )
    return cells.rename(dict(zip(how.header, how.names, strict=True)))


def even(path: Path, how: Dialect, rows: int) -> bool:
    """Whether the file surely has a delimiter less than columns on each of the `rows` lines below the header.

    polars refuses lines with more cells; so where as many stand in all, no line has fewer, and none is blank.
    """
    found, mark, quotes = 0, how.delimiter.encode(), 0
    with path.open("rb") as f:
        while block := f.read(_BLOCK):
            found += block.count(mark)
            quotes += block.count(b'"')
            if quotes:  # a delimiter between quotes parts nothing
                return False
    return found == (rows + 1) * (len(how.names) - 1)


def rewrite(path: Path, how: Dialect, target: Path, called: Path) -> None:
    """Write all cells as text to the Parquet file `target`, in a stream. Raises InputError that names the line."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    parse = pacsv.ParseOptions(delimiter=how.delimiter, newlines_in_values=True)
    text = pacsv.ConvertOptions(
        column_types=dict.fromkeys(how.header, pa.string()), null_values=list(MISSING), strings_can_be_null=True
    )
    schema = pa.schema([(name, pa.string()) for name in how.names])
    read = pacsv.ReadOptions(block_size=_BLOCK)
    try:
        with pacsv.open_csv(path, read, parse, text) as batches, pq.ParquetWriter(target, schema) as writer:
            for batch in batches:
                writer.write_batch(batch.rename_columns(list(how.names)))
    except (pa.ArrowInvalid, UnicodeDecodeError) as e:
        check_utf8(path, called)
        _check_ragged(path, parse, read, text, called)
        raise InputError(f"{called}: cannot be read as CSV: {e}. Export it again") from None


def check_utf8(path: Path, called: Path) -> None:
    """Raise InputError naming line, column and byte where the file is not UTF-8."""
    with path.open("rb") as f:
        start = 0
        for number, line in enumerate(f, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as e:
                byte = line[e.start : e.start + 1]
                looks = f"Windows-1252, where it is {byte.decode('cp1252', 'replace')!r}"
                raise InputError(
                    f"{called}: line {number}{_cell(path, line, e.start)}: byte {start + e.start} is not UTF-8; it "
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
    delimiter = _delimiter(names)
    try:
        index = len(next(csv.reader([line[: at + 1].decode("latin-1")], delimiter=delimiter))) - 1
        parts = next(csv.reader([names], delimiter=delimiter))
    except csv.Error:  # so broken that only the line can be told
        return ""
    return f", column {parts[index].strip()!r}" if index < len(parts) else ""


def _check_ragged(path: Path, parse: Any, read: Any, text: Any, called: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    parse.invalid_row_handler = note
    read.use_threads = False  # without threads the reader knows line numbers
    # What is broken in another way, or gone since, is said elsewhere.
    with contextlib.suppress(pa.ArrowInvalid), pacsv.open_csv(path, read, parse, text) as batches:
        for _ in batches:
            pass
    if bad:
        line, more = (
            line_of(path, bad[0].number - 2, header=True),
            f", and {len(bad) - 1} more such lines" if len(bad) > 1 else "",
        )
        raise InputError(
            f"{called}: line {line} has {bad[0].actual_columns} cells where the header names {bad[0].expected_columns} "
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
