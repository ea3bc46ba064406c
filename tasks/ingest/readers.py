"""Readers of file formats: a path becomes a stream of cells, or an InputError that names line and column.

Parquet checksums are verified.
"""

from __future__ import annotations

import math
import re
import shutil
import zoneinfo
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as at

from windvane.tasks.errors import InputError, join_messages
from windvane.tasks.ingest import json_lists, table_io, text_files, text_parsing, workbooks
from windvane.tasks.ingest.cell_reading import (
    JSON_ENDINGS,
    MISSING_WORDS,
    PARQUET_ENDINGS,
    SHEET_ENDINGS,
    TEXT_ENDINGS,
    UNNAMED,
    NumberForm,
    call_column,
    find_packing,
    read_ending,
)
from windvane.tasks.ingest.text_files import CsvDialect
from windvane.tasks.settings.data_section import PLAIN_FORMAT, FormatSettings
from windvane.tasks.sources import table_files

# A field of type i32 that follows the one before it, in Thrift's compact protocol.
_NEXT_INT = 0x15


def verify_parquet_checksums(path: Path) -> None:
    """Read the whole file where its pages carry checksums, as Spark writes them. Raises pyarrow's errors, OSError."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if not _has_checksums(file, path):
            return
        for _ in file.iter_batches():
            pass


def _has_checksums(file: object, path: Path) -> bool:
    """Whether the first page's header has its fourth field, crc (parquet-format, parquet.thrift: PageHeader)."""
    meta = file.metadata  # type: ignore[attr-defined]
    if not meta.num_row_groups or not meta.num_columns:
        return False
    column = meta.row_group(0).column(0)
    with path.open("rb") as f:
        f.seek(column.dictionary_page_offset or column.data_page_offset)
        head = iter(f.read(64))
    for _ in range(3):  # type, uncompressed and compressed size
        if next(head, None) != _NEXT_INT:
            return False
        while next(head, 0) & 0x80:
            pass
    return next(head, None) == _NEXT_INT


# A zone by its distance from UTC, and one of other than whole hours.
_OFFSET = r"[+-]\d\d:[0-5]\d"
_ODD_OFFSET = r"[+-]\d\d:(?!00)[0-5]\d"


@dataclass(frozen=True)
class FileCells:
    """A file's cells: `scan` has distinct names without blanks around them, and at least one row.

    `path`: as people know it; `plain`: where it lies unpacked. With a `dialect` the file is text, and nothing in it
    names which cells are numbers. `format`: data.format, how cells are read where the table does not show it. `faults`: what is wrong
    with the names of columns, which are then called by their places, or its last rows, `totals`.
    """

    path: Path
    plain: Path
    names: tuple[str, ...]
    scan: pl.LazyFrame
    dialect: CsvDialect | None = None
    format: FormatSettings = PLAIN_FORMAT
    faults: tuple[str, ...] = ()
    totals: str = ""

    @property
    def typed(self) -> bool:
        """Whether the file names which cells are numbers."""
        return self.dialect is None

    def where(self, row: int) -> str:
        """Where people find data row `row` (from 0) in the file: "line 7", or "row 6" where there are no lines."""
        if read_ending(self.path) in PARQUET_ENDINGS:
            return f"row {row + 1}"
        added = self.dialect.added if self.dialect else 0
        if read_ending(self.path) in SHEET_ENDINGS:
            return f"row {text_files.find_line_number(self.plain, row, header=True, rows=True) - added}"
        return f"line {text_files.find_line_number(self.plain, row, header=not self.typed) - added}"


def open_cells(
    path: Path, scratch: Path, ignore: tuple[str, ...] = (), format: FormatSettings = PLAIN_FORMAT
) -> FileCells:
    """Open CSV, TSV, a workbook, Parquet or JSON lines, packed or not, by its ending. `scratch`: a folder for what must be
    written to be read in a stream.

    `ignore`: columns that may hold a mixture (kept as text); `format`: see FileCells.
    Raises InputError naming file, line and remedy.
    """
    plain, kind = open_plain_file(path, scratch, format.sheet), read_ending(path)
    if kind in TEXT_ENDINGS:
        opened = _delimited(path, plain, scratch, format)
    elif kind in PARQUET_ENDINGS:
        opened = _parquet(path, plain, scratch)
    else:
        names, scan = text_files.scan_json_lines(plain, path, scratch, ignore)
        _require_names(path, names)
        opened = FileCells(path, plain, names, scan)
    if opened.typed:
        bare = tuple(call_column(name) for name in opened.names)
        opened = replace(opened, names=bare, scan=opened.scan.rename(dict(zip(opened.names, bare, strict=True))))
    return replace(opened, format=format)


def open_plain_file(path: Path, scratch: Path, sheet: str | None = None) -> Path:
    """A table's file, unpacked in the folder `scratch` where it is packed, if it is what its name means; of a workbook the sheet that
    is named, as text; a JSON list as JSON lines. Raises InputError.
    """
    table_files.require_table_file(path)
    plain = _unpacked(path, scratch) if find_packing(path) else path
    if read_ending(path) in SHEET_ENDINGS:
        target = scratch / f"{len(list(scratch.iterdir()))}.sheet"
        target.write_text(
            workbooks.render_sheet(plain, path, workbooks.require_sheet(plain, path, sheet)), encoding="utf-8"
        )
        return target
    check_file_signature(plain, path, read_ending(path))
    if read_ending(path) in JSON_ENDINGS and json_lists.is_json_list(plain):
        target = scratch / f"{len(list(scratch.iterdir()))}.jsonl"
        text_files.check_utf8(plain, path)
        json_lists.write_json_lines(plain, path, target)
        return target
    return plain


# Rows whose words are counted, and the share of them from which on such a word may well be a value.
_COUNTED_ROWS, _COMMON_SHARE = 100_000, 0.01


def find_missing_words(file: FileCells, columns: tuple[str, ...]) -> dict[str, str]:
    """Columns of text in which words such as NA are common though they are read as no value: which words, and how common."""
    schema, found = file.scan.collect_schema(), dict[str, str]()
    asked = [n for n in columns if n not in file.format.keep_words and schema.get(n) == pl.String]
    try:
        head = file.scan.head(_COUNTED_ROWS).select(asked).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return {}  # only the careful reader can read it, and this is a hint
    for words in head.iter_columns():
        bare = words.str.strip_chars()
        missing = bare.filter(bare.is_in(MISSING_WORDS[1:]))
        if len(missing) >= _COMMON_SHARE * len(words):
            found[words.name] = f"{', '.join(missing.unique().sort())} ({len(missing) / len(words):.1%})"
    return found


def _delimited(path: Path, plain: Path, scratch: Path, format: FormatSettings) -> FileCells:
    plain, how = text_files.open_text_table(plain, path, scratch, format)
    if faults := tuple(_find_name_faults(path, how.names)):
        how = replace(how, names=tuple(UNNAMED.format(place) for place in range(len(how.names))))
        faults = (
            *faults,
            *([f"{path}: {how.unheaded}. If so, set data.format: {{header: false}}"] if how.unheaded else []),
        )
    scan = text_files.scan_csv(plain, how, (pl.String,) * len(how.names))
    try:
        rows = scan.head(1).collect().height
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        rows = 1  # the careful reader reports what is wrong
    _check_rows(path, rows)
    file = FileCells(path, plain, how.names, scan, how, format, faults)
    if format.total_rows is None and (total := _describe_totals(file)):
        file = replace(
            file, totals=total, faults=(*faults, f"{path}: {total}. Set data.format: {{total_rows: drop}}, or keep")
        )
    return file


def _describe_totals(file: FileCells) -> str:
    """That the last rows of a text table are totals: named so, and with fewer cells than others or the sum of those above; "": they are
    not.
    """
    assert file.dialect is not None
    totals = text_files.find_total_rows(file.plain, file.dialect)
    if totals is None:
        return ""
    last = totals.cells[-1]
    fewer = sum(1 for cell in last if cell.strip()) < sum(1 for cell in totals.above if cell.strip())
    if not (fewer or any(_is_sum(file, place, len(totals.cells)) for place in range(len(last)))):
        return ""
    return f"the last row, {file.dialect.delimiter.join(last)[:60]!r}, looks like a total"


def _is_sum(file: FileCells, place: int, totals: int) -> bool:
    """Whether the last number of a column is the sum or the mean of those above."""
    assert file.dialect is not None
    form = file.format.numbers or NumberForm()
    try:
        words = file.scan.select(file.names[place]).collect().to_series().str.strip_chars()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, IndexError):
        return False  # the careful reader reports what is wrong
    numbers = text_parsing.read_numbers(words, form).drop_nulls()
    above, last = numbers.head(max(0, len(numbers) - totals)).to_numpy(), numbers.tail(1).sum()
    return (
        above.size > 1
        and np.ptp(above) > 0
        and any(math.isclose(last, x, rel_tol=1e-6) for x in (above.sum(), above.mean()))
    )


def _parquet(path: Path, plain: Path, scratch: Path) -> FileCells:
    try:
        with pq.ParquetFile(plain) as file:
            _check_types(path, file.schema_arrow)
            # pandas writes its unnamed row labels as a column: they are no data.
            names = tuple(n for n in file.schema_arrow.names if not n.startswith("__index_level_"))
            rows = file.metadata.num_rows
            offsets = [field.name for field in file.schema_arrow if _odd_offset(field.type)]
        _require_names(path, names)
        _check_rows(path, rows)
        verify_parquet_checksums(plain)
        if offsets:
            plain = _in_utc(plain, offsets, scratch)
        scan = table_io.scan_parquet(plain).select(names)
        scan.collect_schema()
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise build_damaged_file_error(path, e) from None
    return FileCells(path, plain, names, scan)


def _check_types(path: Path, schema: pa.Schema) -> None:
    """What polars gives up on, and with it on the whole file, is named first."""
    for field in schema:
        zone = field.type.tz if at.is_timestamp(field.type) else None
        if zone is not None and not re.fullmatch(_OFFSET, zone) and zone not in zoneinfo.available_timezones():
            raise InputError(
                f"{path}: column {field.name!r} has the time zone {zone!r}, which has no name that is known here. Write its "
                "times in UTC"
            )
        if at.is_decimal256(field.type):
            raise InputError(
                f"{path}: column {field.name!r} holds {field.type}, of more digits than can be computed with. Write it as "
                "decimal128 or double"
            )


def _odd_offset(kind: pa.DataType) -> bool:
    """Whether times are so many hours and minutes from UTC: polars knows whole hours only."""
    return at.is_timestamp(kind) and kind.tz is not None and re.fullmatch(_ODD_OFFSET, kind.tz) is not None


def _in_utc(plain: Path, names: list[str], scratch: Path) -> Path:
    """The same instants under the name UTC, in a file of their own."""
    target = scratch / f"{len(list(scratch.iterdir()))}.utc"
    with pq.ParquetFile(plain) as file:
        fields = [
            field.with_type(pa.timestamp(field.type.unit, "UTC")) if field.name in names else field
            for field in file.schema_arrow
        ]
        schema = pa.schema(fields)
        with pq.ParquetWriter(target, schema, compression="lz4") as writer:
            for batch in file.iter_batches(table_io.ROW_GROUP_ROWS // 4):
                writer.write_batch(batch.cast(schema))
    return target


def build_damaged_file_error(path: Path, error: Exception) -> InputError:
    """The message about a Parquet file that cannot be read to its end."""
    first = str(error).split(". ")[0].split("\n")[0].strip()[:200]
    reason = "".join(letter if letter.isprintable() else "?" for letter in first)
    return InputError(f"{path}: is damaged, or no Parquet file ({reason}). Export or copy it again")


def _unpacked(path: Path, scratch: Path) -> Path:
    target = scratch / f"{len(list(scratch.iterdir()))}.unpacked"
    try:
        with pa.input_stream(str(path), compression=find_packing(path)) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, pa.ArrowException) as e:
        raise InputError(
            f"{path}: cannot be unpacked ({str(e).strip().rstrip('.')}). Copy it again, or pack it anew"
        ) from None
    if target.stat().st_size == 0:
        raise InputError(f"{path}: is empty. Export the table again, with a header and rows")
    return target


def _check_rows(path: Path, rows: int) -> None:
    if rows == 0:
        raise InputError(f"{path}: has column names and no rows. Export the table again, with its rows")


def _require_names(path: Path, names: tuple[str, ...]) -> None:
    """Raise InputError with all that is wrong with the names."""
    if faults := list(_find_name_faults(path, names)):
        raise InputError(join_messages(faults))


def _find_name_faults(path: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Each column can be distinguished from the others by its name, also by people, and the name means nothing but itself."""
    for name, count in Counter(map(call_column, names)).items():
        if name and count > 1:
            yield f"{path}: column {name!r} appears {count} times. Give each column a name of its own"
    for number, name in enumerate(names, 1):
        if not name.strip():
            yield f"{path}: column {number} has no name. Give it one in the header, or delete it"
        if "\x00" in name:
            yield f"{path}: column {number}, {name!r}, has a NUL byte in its name. Rename it"
        if name == "*" or (name.startswith("^") and name.endswith("$")):
            yield f"{path}: column {name!r} has a name that stands for other columns. Rename it"


_HEAD_BYTES = 1 << 16
_UNZIP = "Unpack it, and name the table in it; a workbook is read if its name ends in .xlsx"
_SHEET = "Rename it to end in .xls"
_DOWNLOAD = "it may be the error message of a failed download. Download the table again"
# First bytes (Wikipedia's list of file signatures), what such a file is, and what to do.
_KNOWN_SIGNATURES = (
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


def check_file_signature(path: Path, called: Path, ending: str) -> None:
    """Raise InputError where the file is not what its `ending` (".csv", ".parquet", ...) means, or is text that is not
    UTF-8 for a reason that its first bytes show. `called`: the file's name for people.
    """
    with path.open("rb") as f:
        head = f.read(_HEAD_BYTES)
    parquet = ending == ".parquet"
    for magic, what, remedy in (*_KNOWN_SIGNATURES, *(() if parquet else (_PARQUET,))):
        if head.startswith(magic):
            raise InputError(f"{called}: is {what}, despite its name. {remedy}")
    text = head.removeprefix(b"\xef\xbb\xbf")
    for form, name in ((_HTML, "HTML"), (_XML, "XML")):
        if form.match(text):
            raise InputError(f"{called}: is {name}, no table: {_DOWNLOAD}")
    if parquet:
        return
    if ending in (".csv", ".tsv") and _JSON.match(text):
        raise InputError(f"{called}: is JSON, despite its name. Rename it to end in .jsonl, one row a line")
    text_files.check_width(called, head)
