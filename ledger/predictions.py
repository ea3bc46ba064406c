"""Predictions as rows: their columns, the hash of their content, and the statement that stores each once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from windvane.ledger.database import build_upsert, now_timestamp, open_snapshot, to_timestamp
from windvane.ledger.privacy import PrivacyRules
from windvane.ledger.schema import predictions

PREDICTION_ROLES = frozenset({"champion", "shadow", "canary"})
MAX_ID_CHARACTERS = 200
_COLUMNS = ("project", "id", "version", "role", "content", "time", "received", "inputs", "output")


class InvalidPrediction(ValueError):
    """A prediction that no ledger can hold: its sender's fault, found before it is queued."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: `output` is the prediction with its probabilities, `inputs` the row as the model saw it.

    `time` is the row's problem.time (a date, ISO 8601 text or a number); None: the moment of receipt.
    """

    id: str
    version: int
    inputs: Mapping[str, Any] | None
    output: Any
    role: str = "champion"
    time: Any = None


def prepare_prediction_rows(project: str, given: Sequence[Prediction], privacy: PrivacyRules) -> list[tuple[Any, ...]]:
    """Rows for `insert`, in its order of columns. Raises InvalidPrediction for what cannot be stored."""
    received = now_timestamp()
    return [_prepare_row(project, one, privacy, received) for one in given]


def _prepare_row(project: str, one: Prediction, privacy: PrivacyRules, received: str) -> tuple[Any, ...]:
    check_prediction_id(one.id)
    if one.role not in PREDICTION_ROLES:
        raise InvalidPrediction(f"role {one.role!r} is none of {', '.join(sorted(PREDICTION_ROLES))}")
    inputs = privacy.inputs(one.id, one.inputs)
    try:
        said = b"" if inputs is None else _encode_json(inputs)
        output = _encode_json(one.output)
        given = "" if one.time is None else to_timestamp(one.time)
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidPrediction(f"prediction {one.id!r} cannot be stored: {e}") from e
    content = _hash_content(given.encode(), said, output)
    stored = None if inputs is None else said.decode()
    return (project, one.id, one.version, one.role, content, given or received, received, stored, output.decode())


def check_prediction_id(id: str) -> None:
    """Raise InvalidPrediction for an id that no database can hold."""
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID_CHARACTERS or "\0" in id:
        raise InvalidPrediction(f"an id is text of 1 to {MAX_ID_CHARACTERS} characters, not {str(id)[:40]!r}")
    try:
        id.encode()
    except UnicodeEncodeError:
        raise InvalidPrediction(f"an id is Unicode text, not {id[:40]!r}") from None


def compile_prediction_insert(engine: sa.Engine) -> str:
    """The driver's own text of the statement that stores a prepared row unless it is there already."""
    # Positions are filled from tuples: no dictionary per row.
    make: Any = type(engine.dialect)
    dialect = make(paramstyle="qmark" if engine.dialect.name == "sqlite" else "format")
    values = {name: sa.bindparam(name, type_=predictions.c[name].type) for name in _COLUMNS}
    compiled = build_upsert(dialect, predictions).values(values).on_conflict_do_nothing().compile(dialect=dialect)
    if compiled.positiontup != list(_COLUMNS):
        raise RuntimeError(f"the statement takes {compiled.positiontup}, the rows are {_COLUMNS}")
    return str(compiled)


def _hash_content(*parts: bytes) -> int:
    """64 bits of what was asked and answered: a signed whole number, as both databases have them."""
    digest = hashlib.blake2b(b"\0".join(parts), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _encode_json(value: Any) -> bytes:
    """JSON text; a NaN is a missing value."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):  # pandas' Timestamp
        return value.isoformat()
    if hasattr(value, "item"):  # a numpy value orjson does not know
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def find_newest_prediction_time(engine: sa.Engine, project: str) -> str | None:
    """The time of the newest prediction by its own time, as ledger text; None without any."""
    with open_snapshot(engine) as db:
        return db.scalar(sa.select(sa.func.max(predictions.c.time)).where(predictions.c.project == project))
