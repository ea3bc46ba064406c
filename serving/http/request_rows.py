"""The body of a request as rows: MLflow's protocol, in JSON or CSV. Errors name column and row, never a value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NoReturn

import orjson

from windvane.ledger.database import to_timestamp
from windvane.ledger.predictions import MAX_ID_CHARACTERS, InvalidPrediction, check_prediction_id
from windvane.serving.signature import (
    CellRefused,
    InputColumn,
    ModelSignature,
    PlainValue,
    RequestRefused,
    quote_safely,
)
from windvane.tasks.ingest.cell_reading import UNNAMED, call_column, detect_delimiter, name_columns

# As many as a response in a second or two can hold; more is a matter for `windvane score`.
MAX_REQUEST_ROWS = 10_000
BODY_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
# With this, in `params` or behind the content type, unknown columns are dropped, as MLflow's server drops them.
UNKNOWN_COLUMNS, DROP_UNKNOWN = "unknown_columns", "ignore"
_IGNORED_FIELDS = {"params", "signature_name"}
_EPOCH = datetime(1970, 1, 1)

RequestColumns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class IdTimeColumns:
    """Columns that a row may have beside the model's: what names it, and its time (problem.id, problem.time)."""

    id: str | None = None
    time: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Those there are."""
        return frozenset(name for name in (self.id, self.time) if name is not None)


@dataclass(frozen=True)
class PredictionRequest:
    """Rows of a request: a list of plain values per column of the signature, values by column for the record, ids and times.

    dropped: how many columns were sent that the model does not see.
    """

    plain: list[list[PlainValue]]
    given: RequestColumns
    ids: list[str | None]
    times: list[Any]
    dropped: int = 0

    def records(self) -> list[dict[str, Any]]:
        """The rows for the record, one object each: as they were sent, but categories and missing values as they were read."""
        # Rows that make a frame are of one length already.
        return [dict(zip(self.given, row)) for row in zip(*self.given.values(), strict=True)]  # noqa: B905


def parse_invocation(
    body: bytes, content_type: str, signature: ModelSignature, roles: IdTimeColumns
) -> PredictionRequest:
    """The rows of a request, one at least. Raises RequestRefused: 415 for another content type, 413 for too many rows, else 400."""
    kind, _, options = content_type.lower().partition(";")
    drop = f"{UNKNOWN_COLUMNS}={DROP_UNKNOWN}" in options
    if kind.strip() == "application/json":
        content = _parse_json(body)
        params = content.get("params") if type(content) is dict else None
        drop = drop or (type(params) is dict and params.get(UNKNOWN_COLUMNS) == DROP_UNKNOWN)
        match = partial(_match_columns, signature, roles, drop)
        sent, readers = _read_columns(content, signature, match), signature.from_json
    elif kind.strip() == "text/csv":
        sent, readers = _parse_csv(body), signature.from_text
    else:
        raise RequestRefused("Content-Type must be application/json or text/csv", 415)
    rows = max(map(len, sent.values()), default=0)
    if rows > MAX_REQUEST_ROWS:
        raise RequestRefused(
            f"at most {MAX_REQUEST_ROWS:,} rows at a time: send them in pieces, or use `windvane score`", 413
        )
    if sent.keys() == signature.names:  # those of most requests
        given = dict(sent)
    else:
        given = {column: sent[name] for column, name in _match_columns(signature, roles, drop, sent).items()}
    if rows == 0:
        raise RequestRefused("there is no row in the body")
    if not signature.names <= given.keys():
        _refuse_missing_column(next(column.name for column in signature.inputs if column.name not in given), 0)
    plain: list[list[PlainValue]] = []
    try:
        for reader in readers:
            column = reader.column
            values = reader.read(given[column.name])
            given[column.name] = choose_recorded_values(column, given[column.name], values)
            plain.append(values)
    except CellRefused as e:
        raise RequestRefused(f"column {quote_safely(e.column)!r}, row {e.row}: {e.reason}") from None
    own = given.get(roles.id) if roles.id else None
    ids = [_read_id(value, i, roles.id) for i, value in enumerate(own or [None] * rows)]
    return PredictionRequest(
        plain, given, ids, _read_times(given, rows, plain, signature, roles), len(sent) - len(given)
    )


def choose_recorded_values(column: InputColumn, given: Sequence[Any], plain: list[PlainValue]) -> Sequence[Any]:
    """What the ledger keeps of a column: categories, missing values, and numbers that people write, as they were read."""
    if column.type == "category" or column.numbers is not None:
        return plain
    if not column.missing or None not in plain:
        return given
    return [None if v is None else g for v, g in zip(plain, given, strict=True)]


def _parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        if b"NaN" not in body:
            raise RequestRefused(f"the body is not JSON: {quote_safely(e)}") from None
    # json.dumps of a frame with missing values writes NaN, which is not JSON, but what MLflow's clients send.
    try:
        return json.loads(body, parse_constant=_refuse_infinity)
    except (ValueError, RecursionError) as e:
        raise RequestRefused(f"the body is not JSON: {quote_safely(e)}") from None


def _refuse_infinity(name: str) -> None:
    if name != "NaN":
        raise ValueError("a number is infinite")


def _read_columns(
    content: Any, signature: ModelSignature, match: Callable[[Iterable[str]], dict[str, str]]
) -> RequestColumns:
    """Values by column, whichever of the protocol's formats they came in."""
    given = [name for name in BODY_FORMATS if name in content] if isinstance(content, dict) else []
    if len(given) != 1:
        raise RequestRefused(f"the body must be a JSON object with one of {', '.join(BODY_FORMATS)}")
    for name in content.keys() - _IGNORED_FIELDS - set(BODY_FORMATS):
        raise RequestRefused(
            f"{quote_safely(name)} is not part of the protocol: the body may hold {', '.join((*BODY_FORMATS, 'params'))}"
        )
    name, rows = given[0], content[given[0]]
    if name == "dataframe_split":
        return _read_split(rows)
    if name != "dataframe_records" and isinstance(rows, dict):
        return _read_columnar(rows, name)
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise RequestRefused(f"{name}: must be a list of objects, one a row, each with a value per column")
    return _transpose_records(rows, signature, match)


def _transpose_records(
    records: list[dict[str, Any]], signature: ModelSignature, match: Callable[[Iterable[str]], dict[str, str]]
) -> RequestColumns:
    """A list per column; a row that lacks one of the model's is refused, others may be lacking."""
    if not records:
        return {}
    first = records[0].keys()
    if not first:
        _refuse_missing_column(signature.inputs[0].name, 0)
    if all(record.keys() == first for record in records):
        return {name: [record[name] for record in records] for name in first}
    names = dict.fromkeys(name for record in records for name in record)
    for column, name in match(names).items():
        for at, record in enumerate(records):
            if column in signature.names and name not in record:
                _refuse_missing_column(column, at)
    return {name: [record.get(name) for record in records] for name in names}


def _read_split(frame: Any) -> RequestColumns:
    if not isinstance(frame, dict) or not all(isinstance(frame.get(name), list) for name in ("columns", "data")):
        raise RequestRefused("dataframe_split: must be an object with the lists `columns` and `data`")
    for name in frame.keys() - {"columns", "data", "index"}:
        raise RequestRefused(f"dataframe_split: {quote_safely(name)} is not part of the protocol")
    columns, rows = _check_names(frame["columns"], "dataframe_split: columns"), frame["data"]
    for i, row in enumerate(rows):
        if type(row) is not list or len(row) != len(columns):
            raise RequestRefused(
                f"dataframe_split: row {i + 1} of data must be a list of {len(columns)} values, one per column"
            )
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _read_columnar(columns: dict[str, Any], format: str) -> RequestColumns:
    """An object with a list per column."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise RequestRefused(f"{format}: must hold a list per column, all of one length")
    return columns


def _parse_csv(body: bytes) -> RequestColumns:
    try:
        text = body.decode("utf-8-sig")
        delimiter = detect_delimiter(text[: text.find("\n")])
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = _check_names(name_columns(next(lines, [])), "the first line")
        rows = [row for row in lines if row]  # without empty lines
    except UnicodeDecodeError:
        raise RequestRefused("the body is not UTF-8 text") from None
    except csv.Error as e:
        raise RequestRefused(f"the body is not CSV: {quote_safely(e)}") from None
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise RequestRefused(f"row {i + 1} has {len(row)} cells, the first line names {len(columns)} columns")
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _check_names(given: Iterable[Any], where: str) -> list[str]:
    seen: dict[str, None] = {}
    for name in given:
        if not isinstance(name, str):
            raise RequestRefused(f"{where}: a column's name must be text")
        if name in seen:
            raise RequestRefused(f"{where}: column {quote_safely(name)!r} appears twice")
        seen[name] = None
    return list(seen)


def _match_columns(signature: ModelSignature, roles: IdTimeColumns, drop: bool, given: Iterable[str]) -> dict[str, str]:
    """What each column that is read is called in the request: blanks around a name mean nothing.

    Other columns of the table are left out, and with `drop` any other; else RequestRefused, since a misspelt column that may
    be missing would give wrong predictions for months.
    """
    allowed = signature.names | roles.names
    found: dict[str, str] = {}
    for name in given:
        column = name if name in allowed else call_column(name)
        if column in found:
            raise RequestRefused(f"column {quote_safely(column)!r} appears twice")
        if column in allowed:
            found[column] = name
        elif not drop and column not in signature.unread and not column.startswith(UNNAMED.format("")):
            takes = ", ".join(map(quote_safely, sorted(allowed)))[:1000]
            raise RequestRefused(
                f"column {quote_safely(name)!r} is unknown: the model takes {takes}. Leave it out, or send "
                f"params: {{{UNKNOWN_COLUMNS}: {DROP_UNKNOWN}}}"
            )
    return found


def _refuse_missing_column(name: str, at: int) -> NoReturn:
    raise RequestRefused(
        f"column {quote_safely(name)!r} is missing in row {at + 1}. Send it; null where its value is unknown"
    )


def _read_id(value: Any, at: int, column: str | None) -> str | None:
    """The id that a row was sent with; None: one must be made."""
    if value is None or value == "":
        return None
    text = str(value) if type(value) is int else value
    try:
        check_prediction_id(text)
    except InvalidPrediction:
        raise RequestRefused(
            f"column {quote_safely(column)!r}, row {at + 1}: an id is text of 1 to {MAX_ID_CHARACTERS} characters"
        ) from None
    return text


def _read_times(
    given: RequestColumns, rows: int, plain: list[list[PlainValue]], signature: ModelSignature, roles: IdTimeColumns
) -> list[Any]:
    """Each row's own time as the ledger takes it, None where it has none."""
    if roles.time is None:
        return [None] * rows
    place = {column.name: i for i, column in enumerate(signature.inputs) if column.type == "date"}.get(roles.time)
    if place is not None:
        return [None if at is None else _to_datetime(at) for at in plain[place]]
    times = list(given.get(roles.time, [None] * rows))
    for i, moment in enumerate(times):
        try:
            times[i] = None if moment is None or moment == "" else to_timestamp(moment) and moment
        except (ValueError, TypeError):
            raise RequestRefused(
                f"column {quote_safely(roles.time)!r}, row {i + 1}: must be a moment, such as 2026-01-31T12:00:00Z"
            ) from None
    return times


@lru_cache(4096)  # rows of a request are of the same days
def _to_datetime(at: PlainValue) -> datetime:
    return _EPOCH + timedelta(microseconds=int(at))  # type: ignore[arg-type]
