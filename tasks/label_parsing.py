"""Labels from files and requests: which ids, labels and times are valid, and reading them from CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from windvane.ledger.database import NUMBER_PATTERN, to_timestamp
from windvane.ledger.labels import MAX_LABEL_CHARACTERS, LabelStatement
from windvane.ledger.predictions import InvalidPrediction, check_prediction_id
from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import (
    CSV_ENDINGS,
    JSON_ENDINGS,
    KNOWN_ENDINGS,
    UNPACK_ERRORS,
    describe_endings,
    detect_delimiter,
    find_packing,
    open_unpacked,
    read_ending,
)
from windvane.tasks.settings.project_params import ProblemKind

_WHOLE = re.compile(r"([+-]?\d+)\.0+")


def parse_label(kind: ProblemKind, id: Any, label: Any, at: Any = None, written: bool = False) -> LabelStatement:
    """One statement from plain values. `written`: they are text from a file, where a number looks like a word.

    Raises ValueError naming which of the three is wrong, and how.
    """
    moment = None if at is None or (written and not at.strip()) else _parse_label_time(at)
    name = parse_label_id(id)
    return LabelStatement(
        name, parse_amount(label, written) if kind == "regression" else parse_class_name(label), moment
    )


def parse_label_id(value: Any) -> str:
    """An id as predictions carry it: text without blanks around it; 12 and 12.0 are `12`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"id {value!r} is neither text nor a whole number" if value is not None else "there is no id")
    if isinstance(value, float | Decimal) and (not math.isfinite(value) or value != int(value)):
        raise ValueError(f"id {value!r} is no whole number")
    text = value.strip() if isinstance(value, str) else str(int(value))
    if not text:
        raise ValueError("there is no id")
    try:
        check_prediction_id(text)
    except InvalidPrediction as e:
        raise ValueError(str(e)) from None
    return text


def parse_amount(value: Any, written: bool = False) -> float:
    """A finite number; with `written` also as text (1234.5). Raises ValueError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("there is no label")
    if written and isinstance(value, str) and NUMBER_PATTERN.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"label {_short(value)} is no number (problem.kind: regression). Write 1234.5")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"label {_short(value)} is no finite number")
    return number


def parse_class_name(value: Any) -> str:
    """A class by name: 1, 1.0 and "1" are `1`, True and "True" are `true`, as in the table. Raises ValueError."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        value = None
    if value is None or not isinstance(value, str | int | float | Decimal):
        raise ValueError("there is no label" if value is None else f"label {_short(value)} is no class's name")
    text = str(value).strip()
    if whole := _WHOLE.fullmatch(text):
        text = whole[1]
    if text.lower() in {"true", "false"}:
        text = text.lower()
    if not text:
        raise ValueError("there is no label")
    if len(text) > MAX_LABEL_CHARACTERS or "\0" in text:
        raise ValueError(
            f"label {_short(text)} is no class's name: more than {MAX_LABEL_CHARACTERS} characters, or not text"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"label {_short(text)} is no Unicode text") from None
    return text


def _parse_label_time(value: Any) -> str:
    """A moment: a date, or ISO 8601 text; a bare number could be anything. Raises ValueError."""
    bare = isinstance(value, str) and NUMBER_PATTERN.fullmatch(value.strip())
    if bare or not (isinstance(value, str | datetime) or hasattr(value, "timetuple")):
        raise ValueError(f"at {_short(value)} is no moment. Write it in ISO 8601, such as 2026-01-31T12:00:00Z")
    try:
        return to_timestamp(value)
    except ValueError as e:
        raise ValueError(f"at {e}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


LABEL_COLUMNS = ("id", "label", "at")
# Rows of Parquet held in memory at a time.
_PIECE = 50_000


# Line, id, label, and when it became known.
_Row = tuple[str, Any, Any, Any]


def read_label_file(path: Path, kind: ProblemKind) -> list[LabelStatement]:
    """All statements of a file. Raises InputError that names the first line with something wrong, and how many more."""
    ending = read_ending(path)
    if ending not in KNOWN_ENDINGS:
        raise InputError(f"{path}: is neither CSV, Parquet nor JSON lines. Let its name end in {describe_endings()}")
    if not path.is_file():
        raise InputError(f"{path}: not found. Name a CSV, Parquet or JSON-lines file with the columns id and label")
    rows = _csv(path) if ending in CSV_ENDINGS else _json(path) if ending in JSON_ENDINGS else _parquet(path)
    found, wrong, count = list[LabelStatement](), "", 0
    try:
        for where, id, label, at in rows:
            try:
                found.append(parse_label(kind, id, label, at, written=ending in CSV_ENDINGS))
            except ValueError as e:
                wrong, count = wrong or f"{where}: {e}", count + 1
    except UNPACK_ERRORS as e:
        if not find_packing(path):
            raise
        raise InputError(f"{path}: cannot be unpacked ({e}). Copy it again, or pack it anew") from None
    if count:
        more = f"; so have {count - 1:,} more" if count > 1 else ""
        raise InputError(f"{path}: {wrong}{more}. Nothing was recorded: fix the file, then send it again")
    return found


def _check_label_columns(path: Path, names: list[str]) -> None:
    """Raise unless these are the columns; one that is misspelt would be overlooked."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name!r} appears twice. Keep one of them")
        if name not in LABEL_COLUMNS and (
            near := difflib.get_close_matches(name.strip().lower(), LABEL_COLUMNS, n=1, cutoff=0.5)
        ):
            raise InputError(f"{path}: labels have no column {name[:60]!r}. Did you mean {near[0]!r}?")
    for name in LABEL_COLUMNS[:2]:
        if name not in names:
            raise InputError(f"{path}: has no column {name!r}, only {', '.join(map(repr, names)) or 'nothing'}. Add it")
    for name in names:
        if name not in LABEL_COLUMNS:
            raise InputError(f"{path}: labels have no column {name[:60]!r}. Keep id, label and at")


def _csv(path: Path) -> Iterator[_Row]:
    lines = _lines(path)
    above, head = next(((number, line) for number, line in lines if line.strip()), (0, ""))
    if not head:
        raise InputError(f"{path}: is empty. Write a header (id,label) and a line for each label")
    delimiter = detect_delimiter(head)
    names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
    _check_label_columns(path, names)
    begins, reader = above, csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            # A quoted cell may span lines: a row is named by its first.
            where, begins = f"line {begins + 1}", above + reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{path}: {where} has {len(cells)} cells where the header names {len(names)} columns. Fix it; a cell "
                    f"that holds {delimiter!r} needs quotes around it"
                )
            row = dict(zip(names, cells, strict=True))
            yield where, row["id"], row["label"], row.get("at")
    except csv.Error as e:
        raise InputError(f"{path}: line {above + reader.line_num}: {e}. Fix that line") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1. Raises InputError naming one that is not UTF-8."""
    with open_unpacked(path) as f:
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
            raise InputError(f"{path}: line {number} is broken JSON ({e.msg}). Fix or delete that line") from None
        if not isinstance(row, dict) or not {"id", "label"} <= set(row) <= set(LABEL_COLUMNS):
            raise InputError(
                f'{path}: line {number} is no label. Write one a line: {{"id": "a", "label": 1}}, and "at" where it is known'
            )
        yield f"line {number}", row["id"], row["label"], row.get("at")


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = io.BytesIO(open_unpacked(path).read()) if find_packing(path) else path
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            _check_label_columns(path, names)
            number = 0
            for batch in file.iter_batches(_PIECE, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row["id"], row["label"], row.get("at")
    except (pa.ArrowException, OSError) as e:
        reason = str(e).split(". ")[0].strip()
        raise InputError(f"{path}: is damaged, or no Parquet file ({reason}). Export or copy it again") from None
