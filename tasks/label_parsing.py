"""Labels from files and requests: which ids, labels and times are valid, and reading them from CSV, Parquet or JSON."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import orjson

from windvane.ledger.database import NUMBER_PATTERN, format_timestamp, to_timestamp
from windvane.ledger.labels import MAX_LABEL_CHARACTERS, LabelStatement
from windvane.ledger.predictions import InvalidPrediction, check_prediction_id
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import json_lists
from windvane.tasks.ingest.cell_reading import (
    ABSENT_WORDS,
    CSV_ENDINGS,
    JSON_ENDINGS,
    KNOWN_ENDINGS,
    SHEET_ENDINGS,
    UNPACK_ERRORS,
    NumberForm,
    call_column,
    describe_endings,
    detect_delimiter,
    find_packing,
    read_ending,
    strip_quoted_names,
)
from windvane.tasks.ingest.packed_files import open_unpacked
from windvane.tasks.settings.problem_section import ProblemKind
from windvane.tasks.settings.project_params import Settings

_WHOLE = re.compile(r"([+-]?\d+)\.0+")
# How far ahead a sender's clock may be, and a time that is written without an offset: no place is further ahead of UTC.
_CLOCK_TOLERANCE, _LARGEST_OFFSET = timedelta(minutes=5), timedelta(hours=14)


@dataclass(frozen=True)
class LabelRules:
    """What a project's labels are: the problem type, the columns of its table that hold the id and the target, how its numbers are
    written in words, whether words such as None are classes (data.format.keep_words), and which others mean no value.
    """

    kind: ProblemKind
    id: str | None = None
    target: str | None = None
    numbers: NumberForm | None = None
    keep_words: bool = False
    missing_words: tuple[str, ...] = ()


def choose_label_rules(settings: Settings) -> LabelRules:
    """The rules of a project."""
    problem, written = settings.problem, settings.data.format
    kept = problem.target in written.keep_words
    return LabelRules(problem.kind, problem.id, problem.target, written.numbers, kept, written.missing_words)


@dataclass(frozen=True)
class ReceivedLabels:
    """What a request states, and how many of its rows have no label yet."""

    statements: list[LabelStatement]
    empty: int


class LabelsRefused(ValueError):
    """Labels of which none is taken. The text: where, what, and what to do."""


# Where it is written, id, label, and when it became known.
_Row = tuple[str, Any, Any, Any]


@dataclass
class LabelStream:
    """Statements, each read when it is taken. `empty`: how many rows have no label yet, known at the end, as what is wrong is."""

    source: Generator[LabelStatement, None, int]
    empty: int = 0

    def __iter__(self) -> Iterator[LabelStatement]:
        self.empty = yield from self.source


def parse_labels(rules: LabelRules, rows: Iterable[_Row], written: bool = False) -> ReceivedLabels:
    """All statements of rows at once. Raises LabelsRefused as _parse_rows."""
    stream = LabelStream(_parse_rows(rules, rows, written))
    return ReceivedLabels(list(stream), stream.empty)


def _parse_rows(rules: LabelRules, rows: Iterable[_Row], written: bool) -> Generator[LabelStatement, None, int]:
    """Statements, then how many rows have no label yet. `written`: the values are text, where a number looks like a word.

    Raises LabelsRefused behind the last row: it names the first with something wrong, and how many more.
    """
    empty, wrong, count = 0, "", 0
    for where, id, label, at in rows:
        if _is_empty(label, rules, written):
            empty += 1
            continue
        try:
            statement = parse_label(rules.kind, id, _read_written_amount(label, rules), at, written)
        except ValueError as e:
            wrong, count = wrong or f"{where}: {e}", count + 1
        else:
            yield statement
    if count:
        raise LabelsRefused(wrong + (f"; so have {count - 1:,} more" if count > 1 else ""))
    return empty


def _is_empty(label: Any, rules: LabelRules, written: bool) -> bool:
    """Whether a cell holds no label yet: nothing, blanks, NaN, one of rules.missing_words, or in a text file any word for it."""
    if isinstance(label, str):
        text = label.strip()
        return not text or text in rules.missing_words or (written and not rules.keep_words and text in ABSENT_WORDS)
    return label is None or label != label  # noqa: PLR0124 (NaN and NaT)


def parse_label(kind: ProblemKind, id: Any, label: Any, at: Any = None, written: bool = False) -> LabelStatement:
    """One statement from plain values; `written`: they are text from a file. Raises ValueError naming which is wrong, and how."""
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


def _read_written_amount(label: Any, rules: LabelRules) -> Any:
    """The number that a word is where the table's numbers have a form; anything else as it is."""
    if rules.numbers is None or rules.kind != "regression" or not isinstance(label, str):
        return label
    if (number := rules.numbers.read(label.strip())) is None:
        raise ValueError(
            f"label {_short(label)} is no number as data.format has it. Write it so: {rules.numbers.describe()}"
        )
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
    """A moment that has come: a date, or ISO 8601 text; a bare number could be anything. Raises ValueError.

    One in the future, a slip of a digit, would outweigh every later correction.
    """
    bare = isinstance(value, str) and NUMBER_PATTERN.fullmatch(value.strip())
    if bare or not (isinstance(value, str | datetime) or hasattr(value, "timetuple")):
        raise ValueError(f"at {_short(value)} is no moment. Write it in ISO 8601, such as 2026-01-31T12:00:00Z")
    try:
        moment = to_timestamp(value)
    except ValueError as e:
        raise ValueError(f"at {e}") from None
    now = datetime.now(UTC)
    if moment > format_timestamp(now + _CLOCK_TOLERANCE):
        read = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        local = getattr(read, "tzinfo", None) is None
        if not local or moment > format_timestamp(now + _LARGEST_OFFSET):
            raise ValueError(
                f"at {_short(str(value))} is in the future: a label is known by now. Fix it, or leave at empty: then it is now"
            )
    return moment


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


LABEL_COLUMNS = ("id", "label", "at")
# Rows of Parquet held in memory at a time.
_PIECE = 50_000


def read_label_file(path: Path, rules: LabelRules) -> LabelStream:
    """The statements of a file. Raises InputError; behind the last, one that names the first wrong line, and how many more."""
    ending = read_ending(path)
    if ending not in KNOWN_ENDINGS:
        raise InputError(f"{path}: is neither CSV, Parquet nor JSON lines. Let its name end in {describe_endings()}")
    if not path.is_file():
        raise InputError(
            f"{path}: not found. Name a CSV, Parquet, JSON-lines or Excel file with the columns id and label"
        )
    return LabelStream(_parse_file(path, ending, rules))


def _parse_file(path: Path, ending: str, rules: LabelRules) -> Generator[LabelStatement, None, int]:
    try:
        if ending in SHEET_ENDINGS:
            from windvane.tasks.ingest import workbooks

            content = workbooks.render_sheet(path, path, workbooks.choose_sheet(path, path)[0])
            return (yield from _parse_rows(rules, _read_csv(BytesIO(content.encode()), rules), written=True))
        if ending not in (*CSV_ENDINGS, *JSON_ENDINGS):
            return (yield from _parse_rows(rules, _read_parquet(path, rules), written=False))
        listed = ending in JSON_ENDINGS and json_lists.is_json_list(path)
        with open_unpacked(path) as file:
            text = ending in CSV_ENDINGS
            objects = _read_json_items(file, path) if listed else _read_json_lines(file)
            rows = _read_csv(file, rules) if text else _read_objects(objects, rules)
            return (yield from _parse_rows(rules, rows, written=text))
    except UNPACK_ERRORS as e:
        if not find_packing(path):
            raise
        raise InputError(f"{path}: cannot be unpacked ({e}). Copy it again, or pack it anew") from None
    except LabelsRefused as e:
        end = "" if str(e).endswith("?") else "."
        raise InputError(f"{path}: {e}{end} Nothing was recorded: fix the file, then send it again") from None


def parse_label_csv(body: bytes, rules: LabelRules) -> ReceivedLabels:
    """The statements of a CSV text. Raises LabelsRefused."""
    return parse_labels(rules, _read_csv(BytesIO(body), rules), written=True)


def parse_label_objects(objects: Sequence[Any], rules: LabelRules) -> ReceivedLabels:
    """The statements of decoded JSON objects. Raises LabelsRefused."""
    return parse_labels(rules, _read_objects(((f"label {i}", one) for i, one in enumerate(objects, 1)), rules))


@lru_cache(64)  # the objects of a file have the same names
def _match_label_columns(names: tuple[str, ...], rules: LabelRules) -> dict[str, str]:
    """Which column is the id, the label and (where there is one) at: by these words, or by the table's names.

    Raises LabelsRefused for any other: one that is misspelt would be overlooked.
    """
    own = {name: field for name, field in ((rules.id, "id"), (rules.target, "label")) if name is not None}
    known = {**own, **{field: field for field in LABEL_COLUMNS}}
    found: dict[str, str] = {}
    for name in filter(None, names):  # a column without a name numbers the rows
        if names.count(name) > 1:
            raise LabelsRefused(f"column {name[:60]!r} appears twice. Keep one of them")
        if name in known:
            if (other := found.setdefault(known[name], name)) != name:
                raise LabelsRefused(f"columns {other!r} and {name!r} are both the {known[name]}. Keep one of them")
        elif near := difflib.get_close_matches(name.strip().lower(), list(known), n=1, cutoff=0.5):
            raise LabelsRefused(f"labels have no column {name[:60]!r}. Did you mean {near[0]!r}?")
    for field in LABEL_COLUMNS[:2]:
        if field not in found:
            names_of = " or ".join(repr(name) for name, means in reversed(known.items()) if means == field)
            raise LabelsRefused(f"has no column {names_of}, only {', '.join(map(repr, names)) or 'nothing'}. Add it")
    for name in filter(None, names):
        if name not in known:
            raise LabelsRefused(f"labels have no column {name[:60]!r}. Keep {', '.join(map(repr, known))}")
    return found


def _read_csv(file: Iterable[bytes], rules: LabelRules) -> Iterator[_Row]:
    lines = _read_lines(file)
    above, head = next(((number, line) for number, line in lines if line.strip()), (0, ""))
    if not head:
        raise LabelsRefused("is empty. Write a header (id,label) and a line for each label")
    delimiter = detect_delimiter(head)
    names = [call_column(name) for name in strip_quoted_names(next(csv.reader([head], delimiter=delimiter)))]
    columns = _match_label_columns(tuple(names), rules)
    id, label = (names.index(columns[field]) for field in LABEL_COLUMNS[:2])
    at = names.index(columns["at"]) if "at" in columns else None
    begins, reader = above, csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            # A quoted cell may span lines: a row is named by its first.
            where, begins = f"line {begins + 1}", above + reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise LabelsRefused(
                    f"{where} has {len(cells)} cells where the header names {len(names)} columns. Fix it; a cell "
                    f"that holds {delimiter!r} needs quotes around it"
                )
            yield where, cells[id], cells[label], None if at is None else cells[at]
    except csv.Error as e:
        raise LabelsRefused(f"line {above + reader.line_num}: {e}. Fix that line") from None


def _read_lines(file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1. Raises LabelsRefused naming one that is not UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise LabelsRefused(f"line {number} is not UTF-8 text. Save it as UTF-8") from None


def _read_json_lines(file: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in _read_lines(file):
        if line.strip():
            try:
                yield f"line {number}", orjson.loads(line)
            except orjson.JSONDecodeError as e:
                raise LabelsRefused(f"line {number} is broken JSON ({e.msg}). Fix or delete that line") from None


def _read_json_items(file: IO[bytes], path: Path) -> Iterator[tuple[str, Any]]:
    for line, item in json_lists.read_json_list(file, path):
        yield f"line {line}", orjson.loads(item)


def _read_objects(objects: Iterable[tuple[str, Any]], rules: LabelRules) -> Iterator[_Row]:
    for where, row in objects:
        if not isinstance(row, dict):
            raise LabelsRefused(f'{where} is no label. Write {{"id": "a", "label": 1}}, and "at" where it is known')
        try:
            columns = _match_label_columns(tuple(row), rules)
        except LabelsRefused as e:
            raise LabelsRefused(f"{where}: {e}") from None
        yield where, row[columns["id"]], row[columns["label"]], row[columns["at"]] if "at" in columns else None


def _read_parquet(path: Path, rules: LabelRules) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = BytesIO(open_unpacked(path).read()) if find_packing(path) else path
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            columns = _match_label_columns(tuple(names), rules)
            number = 0
            for batch in file.iter_batches(_PIECE, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    at = row[columns["at"]] if "at" in columns else None
                    yield f"row {number}", row[columns["id"]], row[columns["label"]], at
    except (pa.ArrowException, OSError) as e:
        reason = str(e).split(". ")[0].strip()
        raise LabelsRefused(f"is damaged, or no Parquet file ({reason}). Export or copy it again") from None
