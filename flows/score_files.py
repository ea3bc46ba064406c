"""Files of `windvane score`: pieces of rows in, and the same rows with predictions behind out.

A text file's rows are written as they were read, byte for byte; what is added comes behind.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import json_lists, readers, text_files
from windvane.tasks.ingest.cell_reading import (
    JSON_ENDINGS,
    KNOWN_ENDINGS,
    PARQUET_ENDINGS,
    TEXT_ENDINGS,
    WRITTEN_ENDINGS,
    RaggedRow,
    describe_endings,
    find_packing,
    format_delimited_rows,
    read_delimited_rows,
    read_ending,
)
from windvane.tasks.ingest.text_files import CsvDialect
from windvane.tasks.settings.data_section import PLAIN_FORMAT, FormatSettings

# Rows held in memory at a time.
PIECE_ROWS = 50_000


@dataclass(frozen=True)
class RowPiece:
    """Rows of a file: `table` has their cells, of a text table as text; `lines` a text file's rows as they are written."""

    table: pa.Table
    lines: list[str] | None = None


@dataclass(frozen=True)
class ScoredFile:
    """A file that is scored. `plain`: where it lies unpacked; `dialect`: of a text table; `format`: how cells are read; `header`: its
    first row as written; `listed`: it is a JSON list, of which `plain` has a line for each object.
    """

    path: Path
    plain: Path
    ending: str
    dialect: CsvDialect | None = None
    format: FormatSettings = PLAIN_FORMAT
    header: str = field(default="", repr=False)
    listed: bool = False

    @property
    def end(self) -> str:
        """How its lines end."""
        return self.header[len(self.header.rstrip("\r\n")) :] or "\n"


def check_score_files(source: Path, target: Path) -> None:
    """Raise InputError where a file is missing, or its name gives no format that is read and written here."""
    for path, endings in ((source, KNOWN_ENDINGS), (target, WRITTEN_ENDINGS)):
        if read_ending(path) not in endings:
            raise InputError(
                f"{path}: is neither CSV, Parquet nor JSON lines. Let its name end in {describe_endings(endings)}"
            )
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: is the file that is scored. Name another for the predictions")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}. Make it first, or name another place")
    if not source.exists():
        raise InputError(f"{source}: not found. Name a table with the columns that the model was trained on")


def open_scored_file(source: Path, scratch: Path, format: FormatSettings) -> ScoredFile:
    """A file by its ending, as ingest opens it. `scratch`: a folder to unpack it in. Raises InputError."""
    plain, ending = readers.open_plain_file(source, scratch, format.sheet), read_ending(source)
    if ending not in TEXT_ENDINGS:
        listed = ending in JSON_ENDINGS and json_lists.is_json_list(source)
        return ScoredFile(source, plain, ending, format=format, listed=listed)
    with plain.open("rb") as f:
        bom = f.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    plain, dialect = text_files.open_text_table(plain, source, scratch, format)
    header, _ = next(_read_text_rows(plain, source, dialect))
    return ScoredFile(source, plain, ending, dialect, format, "\ufeff" * bom + header)


def read_pieces(file: ScoredFile, scratch: Path) -> Iterator[RowPiece]:
    """The rows in their order, at least one, in pieces of one schema. Raises InputError."""
    rows = 0
    for piece in _read_text_pieces(file, file.dialect) if file.dialect else _read_typed_pieces(file, scratch):
        rows += piece.table.num_rows
        yield piece
    if not rows:
        raise InputError(f"{file.path}: has no rows. Export it again, with its rows")


def _read_text_pieces(file: ScoredFile, dialect: CsvDialect) -> Iterator[RowPiece]:
    rows = islice(_read_text_rows(file.plain, file.path, dialect), 1, None)
    while piece := list(islice(rows, PIECE_ROWS)):
        columns = zip(*(cells for _, cells in piece), strict=True)
        arrays = [pa.array([cell or None for cell in column], pa.string()) for column in columns]
        yield RowPiece(pa.table(arrays, list(dialect.names)), [written for written, _ in piece])


def _read_text_rows(plain: Path, called: Path, how: CsvDialect) -> Iterator[tuple[str, list[str]]]:
    try:
        with plain.open(encoding="utf-8-sig", newline="") as f:
            yield from read_delimited_rows(f, how.delimiter, how.added)
    except RaggedRow as e:
        raise InputError(f"{called}: {e}") from None
    except UnicodeDecodeError:
        text_files.check_utf8(plain, called)
        raise


def _read_typed_pieces(file: ScoredFile, scratch: Path) -> Iterator[RowPiece]:
    plain, lines = file.plain, None
    if file.ending in JSON_ENDINGS:
        plain = scratch / "cells.parquet"
        text_files.write_json_cells(file.plain, file.path, plain, None, file.format.numbers)
        lines = _read_json_lines(file.plain)
    try:
        readers.verify_parquet_checksums(plain)
        with pq.ParquetFile(plain) as cells:
            for batch in cells.iter_batches(PIECE_ROWS):
                yield RowPiece(pa.table(batch), list(islice(lines, len(batch))) if lines else None)
    except (pa.ArrowException, OSError) as e:
        raise readers.build_damaged_file_error(file.path, e) from None


def _read_json_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as f:
        yield from (line for line in f if line.strip())


ScoredPieces = Iterable[tuple[RowPiece, pa.Table]]


def write_pieces(file: ScoredFile, pieces: ScoredPieces, part: Path, target: Path) -> None:
    """Write the pieces, each with the columns that are added to it, to `part` in the format that `target` names.

    Columns of the file that are called as one that is added are left out.
    """
    with pa.output_stream(str(part), compression=find_packing(target)) as out:
        if read_ending(target) in PARQUET_ENDINGS:
            _write_parquet(pieces, out)
        elif read_ending(target) in JSON_ENDINGS:
            _write_json(file, pieces, out, listed=file.listed and read_ending(target) == ".json")
        else:
            _write_delimited(file, pieces, out, read_ending(target))


def _write_parquet(pieces: ScoredPieces, out: Any) -> None:
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for piece, added in pieces:
            table = _drop_replaced(piece.table, added)
            for name in added.column_names:
                table = table.append_column(name, added[name])
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(out, table.schema, compression="zstd"))
            writer.write_table(table)


def _write_json(file: ScoredFile, pieces: ScoredPieces, out: Any, *, listed: bool) -> None:
    """An object a line, `listed` as the items of one list."""
    before, between, end = (b"[\n", b",\n", b"\n]\n") if listed else (b"", b"\n", b"\n")
    for piece, added in pieces:
        table = _drop_replaced(piece.table, added)
        if file.ending in JSON_ENDINGS and piece.lines and len(table.column_names) == len(piece.table.column_names):
            lines = [line.strip() for line in piece.lines]
        else:
            lines = [orjson.dumps(row, default=str).decode() for row in table.to_pylist()]
        behind = (orjson.dumps(row).decode() for row in added.to_pylist())
        out.write(before + between.join(map(_append_values, lines, behind)))
        before = between
    out.write(end)


def _append_values(line: str, more: str) -> bytes:
    """An object with what comes behind it: {"size": 1 | , | "prediction": 2}."""
    start = line[:-1].rstrip()
    return f"{start}{'' if start == '{' else ', '}{more[1:]}".encode()


def _write_delimited(file: ScoredFile, pieces: ScoredPieces, out: Any, ending: str) -> None:
    like = file.dialect if file.ending == ending else None
    delimiter = like.delimiter if like else {".tsv": "\t"}.get(ending, ",")
    first = True
    for piece, added in pieces:
        table = _drop_replaced(piece.table, added)
        if like and piece.lines and len(table.column_names) == len(piece.table.column_names):
            lines = [line.rstrip("\r\n") for line in (*([file.header] if first else []), *piece.lines)]
        else:
            lines = format_delimited_rows(_list_rows(table, first), delimiter)
        behind = format_delimited_rows(_list_rows(added, first), delimiter)
        joined = (f"{line}{delimiter}{more}{file.end}" for line, more in zip(lines, behind, strict=True))
        out.write("".join(joined).encode())
        first = False


def _list_rows(table: pa.Table, header: bool) -> Iterator[Sequence[Any]]:
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return chain([table.column_names], rows) if header else rows


def _drop_replaced(table: pa.Table, added: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name in added.column_names])
