"""Ground truth in a file: CSV, Parquet or JSON lines with columns id, label and perhaps at. Owns its reading, line by line.

Leaves what a label may be to tasks/statements.py, and what becomes of it to the ledger. Reads the whole file before it
gives anything away: a file with one bad line is not handed in at all.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from windvane.ledger.labels import Statement
from windvane.tasks import statements
from windvane.tasks.errors import InputError
from windvane.tasks.settings import Kind

COLUMNS = ("id", "label", "at")
_LINES = (".jsonl", ".ndjson", ".json")
_TEXT = (".csv", ".tsv")
# Rows of Parquet held in memory at a time.
_PIECE = 50_000


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    id: Any
    label: Any
    at: Any


def read(path: Path, kind: Kind) -> list[Statement]:
    """All statements of a file. Raises InputError that names the first line with something wrong, and how many more."""
    suffix = path.suffix.lower()
    if suffix not in (*_LINES, *_TEXT, ".parquet"):
        raise InputError(
            f"{path}: is neither CSV, Parquet nor JSON lines. Let its name end in .csv, .parquet or .jsonl"
        )
    if not path.is_file():
        raise InputError(f"{path}: not found. Name a CSV, Parquet or JSON-lines file with the columns id and label")
    rows = _csv(path) if suffix in _TEXT else _json(path) if suffix in _LINES else _parquet(path)
    found, wrong, count = list[Statement](), "", 0
    for row in rows:
        try:
            found.append(statements.statement(kind, row.id, row.label, row.at, written=suffix in _TEXT))
        except ValueError as e:
            wrong, count = wrong or f"{row.where}: {e}", count + 1
    if count:
        more = f"; so have {count - 1:,} more" if count > 1 else ""
        raise InputError(f"{path}: {wrong}{more}. Nothing was handed in: mend the file, then hand it in again")
    return found


def _named(path: Path, names: list[str]) -> None:
    """Raise unless these are the columns; one that is misspelt would be overlooked."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name!r} stands twice. Keep one of them")
        if name not in COLUMNS and (near := difflib.get_close_matches(name.strip().lower(), COLUMNS, n=1, cutoff=0.5)):
            raise InputError(f"{path}: labels have no column {name[:60]!r}. Did you mean {near[0]!r}?")
    for name in COLUMNS[:2]:
        if name not in names:
            raise InputError(f"{path}: has no column {name!r}, only {', '.join(map(repr, names)) or 'nothing'}. Add it")
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"{path}: labels have no column {name[:60]!r}. Keep id, label and at")


def _csv(path: Path) -> Iterator[_Row]:
    lines = _lines(path)
    head = next((line for _, line in lines if line.strip()), None)
    if head is None:
        raise InputError(f"{path}: is empty. Write a header (id,label) and a line for each label")
    delimiter = max(",;\t|", key=head.count)
    names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
    _named(path, names)
    last = 1

    def told() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    begins, reader = last, csv.reader(told(), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            # A quoted cell may span lines: a row is named by its first.
            where, begins = f"line {begins + 1 if last > begins + 1 else last}", last
            if not cells:
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{path}: {where} has {len(cells)} cells where the header names {len(names)} columns. Mend it; a cell "
                    f"that holds {delimiter!r} needs quotes around it"
                )
            row = dict(zip(names, cells, strict=True))
            yield _Row(where, row["id"], row["label"], row.get("at"))
    except csv.Error as e:
        raise InputError(f"{path}: line {last}: {e}. Mend that line") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1. Raises InputError naming one that is not UTF-8."""
    with path.open("rb") as f:
        for number, line in enumerate(f, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{path}: line {number} is not UTF-8 text. Save the file as UTF-8") from None


def _json(path: Path) -> Iterator[_Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as e:
            raise InputError(f"{path}: line {number} is broken JSON ({e.msg}). Mend or delete that line") from None
        if not isinstance(row, dict) or not {"id", "label"} <= set(row) <= set(COLUMNS):
            raise InputError(
                f'{path}: line {number} is no label. Write one a line: {{"id": "a", "label": 1}}, and "at" where it is known'
            )
        yield _Row(f"line {number}", row["id"], row["label"], row.get("at"))


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            _named(path, names)
            number = 0
            for batch in file.iter_batches(_PIECE, columns=names):
                columns = {name: batch.column(name).to_pylist() for name in names}
                for i in range(len(batch)):
                    number += 1
                    at = columns["at"][i] if "at" in columns else None
                    yield _Row(f"row {number}", columns["id"][i], columns["label"][i], at)
    except (pa.ArrowException, OSError) as e:
        reason = str(e).split(". ")[0].strip()
        raise InputError(f"{path}: is damaged, or no Parquet file ({reason}). Export or copy it again") from None
