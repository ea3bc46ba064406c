"""Readers of file formats: a path becomes a stream of cells, or an InputError that names line and column.

Leaves which files there are to tasks/sources.py, lines of text to tasks/delimited.py, JSON to tasks/json_lines.py, and
what cells mean to tasks/canonical.py.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import checksums, delimited, json_lines, signatures, sources, tables
from windvane.tasks.delimited import Dialect
from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

# MLflow takes no key of more than 250 letters, and what is longer is a cell that slipped into the header.
LONGEST_NAME = 200
# A zone by its distance from UTC, and one of other than whole hours.
_OFFSET = r"[+-]\d\d:[0-5]\d"
_ODD_OFFSET = r"[+-]\d\d:(?!00)[0-5]\d"


@dataclass(frozen=True)
class Cells:
    """A file's cells: `scan` has distinct names and at least one row.

    `path`: as people know it; `plain`: where it lies unpacked. With a `dialect` the file is text, and nothing in it
    says which cells are numbers.
    """

    path: Path
    plain: Path
    names: tuple[str, ...]
    scan: pl.LazyFrame
    dialect: Dialect | None = None

    @property
    def typed(self) -> bool:
        """Whether the file says which cells are numbers."""
        return self.dialect is None

    def where(self, row: int) -> str:
        """Where people find data row `row` (from 0) in the file: "line 7", or "row 6" where there are no lines."""
        if sources.ending(self.path) in sources.PARQUET:
            return f"row {row + 1}"
        return f"line {delimited.line_of(self.plain, row, header=not self.typed)}"


def cells(path: Path, scratch: Path, ignore: tuple[str, ...] = ()) -> Cells:
    """Open CSV, TSV, Parquet or JSON lines, packed or not, by its ending. `scratch`: a folder for what must be
    written to be read in a stream.

    `ignore`: columns that may hold a mixture (kept as text). Raises InputError naming file, line and remedy.
    """
    sources.require(path)
    plain = _unpacked(path, scratch) if sources.packed(path) else path
    kind = sources.ending(path)
    signatures.check(plain, path, kind)
    if kind in sources.CSV:
        return _delimited(path, plain)
    if kind in sources.PARQUET:
        return _parquet(path, plain, scratch)
    names, scan = json_lines.scan(plain, path, scratch, ignore)
    _check_names(path, names)
    return Cells(path, plain, names, scan)


def _delimited(path: Path, plain: Path) -> Cells:
    import polars as pl

    how = delimited.dialect(plain, path)
    _check_names(path, how.names)
    scan = delimited.stream(plain, how, (pl.String,) * len(how.names), missing=False)
    try:
        rows = scan.head(1).collect().height
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        rows = 1  # the careful reader will say what is wrong
    _check_rows(path, rows)
    return Cells(path, plain, how.names, scan, how)


def _parquet(path: Path, plain: Path, scratch: Path) -> Cells:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(plain) as file:
            _check_types(path, file.schema_arrow)
            # pandas writes its unnamed row labels as a column: they are no data.
            names = tuple(n for n in file.schema_arrow.names if not n.startswith("__index_level_"))
            rows = file.metadata.num_rows
            offsets = [field.name for field in file.schema_arrow if _odd_offset(field.type)]
        _check_names(path, names)
        _check_rows(path, rows)
        checksums.verify(plain)
        if offsets:
            plain = _in_utc(plain, offsets, scratch)
        scan = tables.scan(plain).select(names)
        scan.collect_schema()
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise damaged(path, e) from None
    return Cells(path, plain, names, scan)


def _check_types(path: Path, schema: pa.Schema) -> None:
    """What polars gives up on, and with it on the whole file, is named first."""
    import zoneinfo

    import pyarrow.types as at

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
    import pyarrow.types as at

    return at.is_timestamp(kind) and kind.tz is not None and re.fullmatch(_ODD_OFFSET, kind.tz) is not None


def _in_utc(plain: Path, names: list[str], scratch: Path) -> Path:
    """The same instants under the name UTC, in a file of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = scratch / f"{len(list(scratch.iterdir()))}.utc"
    with pq.ParquetFile(plain) as file:
        fields = [
            field.with_type(pa.timestamp(field.type.unit, "UTC")) if field.name in names else field
            for field in file.schema_arrow
        ]
        schema = pa.schema(fields)
        with pq.ParquetWriter(target, schema, compression="lz4") as writer:
            for batch in file.iter_batches(tables.ROW_GROUP // 4):
                writer.write_batch(batch.cast(schema))
    return target


def damaged(path: Path, error: Exception) -> InputError:
    """What to say of a Parquet file that cannot be read to its end."""
    reason = str(error).split(". ")[0].split("\n")[0].strip()[:200]
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return InputError(f"{path}: is damaged, or no Parquet file ({reason}). Export or copy it again")


def _unpacked(path: Path, scratch: Path) -> Path:
    import pyarrow as pa

    target = scratch / f"{len(list(scratch.iterdir()))}.unpacked"
    kind = {".gz": "gzip", ".zst": "zstd"}[path.suffix.lower()]
    try:
        with pa.input_stream(str(path), compression=kind) as packed, target.open("wb") as plain:
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


def _check_names(path: Path, names: tuple[str, ...]) -> None:
    """Each column can be told from the others by its name, also by people, and the name means nothing but itself."""
    bare = [name.strip() for name in names]
    twice = sorted({name for name in bare if bare.count(name) > 1} - {""})
    if twice:
        raise InputError(
            f"{path}: column {twice[0]!r} stands {bare.count(twice[0])} times. Give each column a name of its own"
        )
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise InputError(f"{path}: column {number} has no name. Give it one in the header, or delete it")
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"{path}: column {number} has a name of {len(name):,} letters, which begins {name[:30]!r}. Give it one of at "
                f"most {LONGEST_NAME}"
            )
        if "\x00" in name:
            raise InputError(f"{path}: column {number}, {name!r}, has a NUL byte in its name. Rename it")
        if name == "*" or (name.startswith("^") and name.endswith("$")):
            raise InputError(f"{path}: column {name!r} has a name that stands for other columns. Rename it")
