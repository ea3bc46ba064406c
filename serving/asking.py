"""The body of POST /invocations -> rows: MLflow's scoring protocol in JSON and CSV, typed by a version's signature.

Every fault is a Refused that names the column and the row, never a value. Knows no HTTP but the content type.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from windvane.ledger.moments import moment
from windvane.serving.signature import Plain, Refused, Signature, shown

# As many as an answer in a second or two has room for; more is a matter for `windvane score`.
MOST_ROWS = 10_000
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BESIDE = {"params", "signature_name"}
_EPOCH = datetime(1970, 1, 1)
_LONGEST_ID = 200
_ABSENT = object()

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Roles:
    """Columns that a row may have beside the model's: what names it, and its time (problem.id, problem.time)."""

    id: str | None = None
    time: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Those there are."""
        return frozenset(name for name in (self.id, self.time) if name is not None)


@dataclass(frozen=True)
class Asked:
    """Rows of a request: a list of plain values per column of the signature, as they were sent (by column), ids and times."""

    plain: list[list[Plain]]
    given: Columns
    ids: list[str | None]
    times: list[Any]

    def records(self) -> list[dict[str, Any]]:
        """The rows as they were sent, one object each."""
        return [dict(zip(self.given, row, strict=True)) for row in zip(*self.given.values(), strict=True)]


def read(body: bytes, content_type: str, signature: Signature, roles: Roles) -> Asked:
    """The rows of a request, one at least. Raises Refused: 415 for another content type, 413 for too many rows, else 400."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        given, readers = _columns(_json(body), signature, roles), signature.from_json
    elif kind == "text/csv":
        given, readers = _csv(body), signature.from_text
    else:
        raise Refused("Content-Type must be application/json or text/csv", 415)
    rows = max(map(len, given.values()), default=0)
    if rows > MOST_ROWS:
        raise Refused(f"at most {MOST_ROWS:,} rows at a time: send them in pieces, or use `windvane score`", 413)
    _known(given, signature, roles)
    for name in () if rows == 0 else (column.name for column in signature.inputs):
        if name not in given:
            _missing(name, 0)
    if rows == 0:
        raise Refused("there is no row in the body")
    plain = [reader.read(given[reader.name]) for reader in readers]
    own = given.get(roles.id) if roles.id else None
    ids = [_id(value, i, roles.id) for i, value in enumerate(own or [None] * rows)]
    return Asked(plain, given, ids, _times(given, rows, plain, signature, roles))


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        if b"NaN" not in body:
            raise Refused(f"the body is not JSON: {shown(e)}") from None
    # json.dumps of a frame with missing values writes NaN, which is not JSON, but what MLflow's clients send.
    try:
        return json.loads(body, parse_constant=_constant)
    except (ValueError, RecursionError) as e:
        raise Refused(f"the body is not JSON: {shown(e)}") from None


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError("a number is infinite")


def _columns(content: Any, signature: Signature, roles: Roles) -> Columns:
    """Values by column, whichever of the protocol's formats they came in."""
    given = [name for name in FORMATS if name in content] if isinstance(content, dict) else []
    if len(given) != 1:
        raise Refused(f"the body must be a JSON object with one of {', '.join(FORMATS)}")
    for name in content.keys() - _BESIDE - set(FORMATS):
        raise Refused(f"{shown(name)} is not part of the protocol: the body may hold {', '.join((*FORMATS, 'params'))}")
    name, rows = given[0], content[given[0]]
    if name == "dataframe_split":
        return _split(rows)
    if name != "dataframe_records" and isinstance(rows, dict):
        return _columnar(rows, name)
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise Refused(f"{name}: must be a list of objects, one a row, each with a value per column")
    return _transposed(rows, signature, roles)


def _transposed(records: list[dict[str, Any]], signature: Signature, roles: Roles) -> Columns:
    """A list per column; a row that lacks one of the model's is refused, an id or a time may be lacking."""
    if not records:
        return {}
    first = records[0].keys()
    if not first:
        _missing(signature.inputs[0].name, 0)
    if all(record.keys() == first for record in records):
        return {name: [record[name] for record in records] for name in first}
    names = dict.fromkeys(name for record in records for name in record)
    columns: dict[str, list[Any]] = {name: [record.get(name, _ABSENT) for record in records] for name in names}
    _known(columns, signature, roles)
    for name, values in columns.items():
        for at, value in enumerate(values):
            if value is _ABSENT and name in signature.names:
                _missing(name, at)
    return {name: [None if value is _ABSENT else value for value in values] for name, values in columns.items()}


def _split(frame: Any) -> Columns:
    if (
        not isinstance(frame, dict)
        or not isinstance(frame.get("columns"), list)
        or not isinstance(frame.get("data"), list)
    ):
        raise Refused("dataframe_split: must be an object with the lists `columns` and `data`")
    for name in frame.keys() - {"columns", "data", "index"}:
        raise Refused(f"dataframe_split: {shown(name)} is not part of the protocol")
    columns, rows = _names(frame["columns"], "dataframe_split: columns"), frame["data"]
    for i, row in enumerate(rows):
        if type(row) is not list or len(row) != len(columns):
            raise Refused(
                f"dataframe_split: row {i + 1} of data must be a list of {len(columns)} values, one per column"
            )
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _columnar(columns: dict[str, Any], format: str) -> Columns:
    """An object with a list per column."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise Refused(f"{format}: must hold a list per column, all of one length")
    return columns


def _csv(body: bytes) -> Columns:
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        columns = _names(next(lines, []), "the first line")
        rows = [row for row in lines if row]  # without empty lines
    except UnicodeDecodeError:
        raise Refused("the body is not UTF-8 text") from None
    except csv.Error as e:
        raise Refused(f"the body is not CSV: {shown(e)}") from None
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise Refused(f"row {i + 1} has {len(row)} cells, the first line names {len(columns)} columns")
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _names(given: Iterable[Any], where: str) -> list[str]:
    seen: dict[str, None] = {}
    for name in given:
        if not isinstance(name, str):
            raise Refused(f"{where}: a column's name must be text")
        if name in seen:
            raise Refused(f"{where}: column {shown(name)!r} appears twice")
        seen[name] = None
    return list(seen)


def _known(given: Iterable[str], signature: Signature, roles: Roles) -> None:
    allowed = signature.names | roles.names
    for name in given:
        if name not in allowed:
            takes = ", ".join(map(shown, sorted(allowed)))[:1000]
            raise Refused(f"column {shown(name)!r} is unknown: the model takes {takes}")


def _missing(name: str, at: int) -> NoReturn:
    raise Refused(f"column {shown(name)!r} is missing in row {at + 1}. Send it; null where its value is unknown")


def _id(value: Any, at: int, column: str | None) -> str | None:
    """The id that a row was sent with; None: one must be made."""
    if value is None or value == "":
        return None
    text = str(value) if type(value) is int else value
    if type(text) is not str or len(text) > _LONGEST_ID or "\0" in text or not _encodable(text):
        raise Refused(f"column {shown(column)!r}, row {at + 1}: an id is text of 1 to {_LONGEST_ID} characters")
    return text


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _times(given: Columns, rows: int, plain: list[list[Plain]], signature: Signature, roles: Roles) -> list[Any]:
    """Each row's own time as the ledger takes it, None where it has none."""
    if roles.time is None:
        return [None] * rows
    place = {column.name: i for i, column in enumerate(signature.inputs) if column.type == "date"}.get(roles.time)
    if place is not None:
        return [None if at is None else _date(at) for at in plain[place]]
    times = list(given.get(roles.time, [None] * rows))
    for i, time in enumerate(times):
        try:
            times[i] = None if time is None or time == "" else moment(time) and time
        except (ValueError, TypeError):
            raise Refused(
                f"column {shown(roles.time)!r}, row {i + 1}: must be a moment, such as 2026-01-31T12:00:00Z"
            ) from None
    return times


@lru_cache(4096)  # rows of a request are of the same days
def _date(at: Plain) -> datetime:
    return _EPOCH + timedelta(microseconds=int(at))  # type: ignore[arg-type]
