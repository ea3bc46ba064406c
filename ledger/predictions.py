"""Predictions as rows: which inputs may be stored, the hash of their content, the statement that stores each once, and
their end: what is past its time, or of one subject, is deleted. An erasure is recorded: when and how many rows, never which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from windvane.ledger.database import (
    build_upsert,
    format_timestamp,
    is_among,
    now_timestamp,
    open_snapshot,
    split_chunks,
    to_timestamp,
)
from windvane.ledger.schema import erasures, labels, predictions

PREDICTION_ROLES = frozenset({"champion", "shadow", "canary"})
MAX_ID_CHARACTERS = 200
_COLUMNS = ("project", "id", "version", "role", "content", "time", "received", "inputs", "output", "tier")
# Rows of an even tier k and above are one in 2^k, whatever else the ledger holds. A condition on all tiers lets both databases find
# a stretch of time by the index.
TIERS = tuple(range(16))
# New rows have even tiers alone: each tier of a transaction is one more page of the index that is written (100 rows a request: 12 %
# more rows a second). Rows from before have odd ones too, which an even limit parts in the same way.
_TIER_STEP = 2


# A hashed value is replaced by {HASHED: its hash}: it is never taken for the value.
HASH_KEY = "hashed"


@dataclass(frozen=True)
class PrivacyRules:
    """Columns that are not stored, columns stored as keyed hashes, and the share of predictions that keep inputs."""

    drop: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    sample: float = 1.0
    key: bytes = b""

    def __post_init__(self) -> None:
        if self.hash and len(self.key) < 16:
            raise ValueError("a hash without a key of at least 16 bytes is undone by guessing")

    def inputs(self, id: str, inputs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The inputs as they may be stored, or None. The same id is always sampled alike: a repeat stays a repeat."""
        if inputs is None:
            return None
        if self.sample < 1:
            digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
            if int.from_bytes(digest, "big") / 2**64 >= self.sample:
                return None
        if not self.drop and not self.hash:
            return inputs
        kept = {name: value for name, value in inputs.items() if name not in self.drop}
        return kept | {name: {HASH_KEY: self.hashed(name, kept[name])} for name in self.hash if name in kept}

    def hashed(self, column: str, value: Any) -> str | None:
        """The hash that is stored for a value of a column: 32 digits; missing stays missing.

        BLAKE2b with the key, over column and value, so that the value cannot be found by trying all there are.
        """
        if value is None or value != value:  # noqa: PLR0124 (NaN)
            return None
        text = f"{column}\0{self.plain(value)}".encode()
        return hashlib.blake2b(text, digest_size=16, key=self.key[:64]).hexdigest()

    @staticmethod
    def plain(value: Any) -> str:
        """A value as text, whatever type it came in: 1, 1.0 and "1" are the same customer's number."""
        if hasattr(value, "item"):
            value = value.item()
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value) if whole else value)


class InvalidPrediction(ValueError):
    """A prediction that no ledger can hold: its sender's fault, found before it is queued."""


class Prediction(NamedTuple):
    """One prediction: `output` is the prediction with its probabilities, `inputs` the row as the model saw it.

    `time` is the row's problem.time (a date, ISO 8601 text or a number); None: the moment of receipt. A tuple, since it is made
    in a third of a dataclass's time, once a row that is served.
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
        text = b"" if inputs is None else _encode_json(inputs)
        output = _encode_json(one.output)
        given = "" if one.time is None else to_timestamp(one.time)
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidPrediction(f"prediction {one.id!r} cannot be stored: {e}") from e
    # 64 bits of row and prediction: a signed whole number, as both databases have them.
    digest = hashlib.blake2b(b"\0".join((given.encode(), text, output)), digest_size=8).digest()
    content = int.from_bytes(digest, "big", signed=True)
    stored = None if inputs is None else text.decode()
    moments = (given or received, received)
    return (
        project,
        one.id,
        one.version,
        one.role,
        content,
        *moments,
        stored,
        output.decode(),
        draw_tier(one.id, content),
    )


def hash_draw(id: str, content: int) -> bytes:
    """The place of a prediction in the fixed random order, 16 bytes: a sample is the rows that come first in it.

    MD5, since PostgreSQL computes it too: nothing secret depends on it.
    """
    return hashlib.md5(f"{id}:{content}".encode(), usedforsecurity=False).digest()


def draw_tier(id: str, content: int) -> int:
    """The tier of a prediction: by how many zeros its hash begins, an even number from 0 to 14."""
    zeros = 16 - max(int.from_bytes(hash_draw(id, content)[:2], "big").bit_length(), 1)
    return zeros // _TIER_STEP * _TIER_STEP


def find_sample_tier(rows: int, wanted: int) -> int:
    """The highest even tier that `wanted` of so many rows surely have: a quarter more are expected, or up to four times that."""
    tier = min(max(4 * rows // max(5 * wanted, 1), 1).bit_length() - 1, TIERS[-1])
    return tier // _TIER_STEP * _TIER_STEP


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
    p = predictions.c
    with open_snapshot(engine) as db:
        found, version = list[str](), -1
        next_one = sa.select(sa.func.min(p.version)).where(p.project == project)
        while (version := db.scalar(next_one.where(p.version > version))) is not None:
            newest = (sa.select(sa.func.max(p.time)).where(*_of_tier(project, version, tier)) for tier in TIERS)
            found += [time for time in db.scalars(sa.union_all(*newest)) if time is not None]
    return max(found, default=None)


def _of_tier(project: str, version: int, tier: int) -> tuple[sa.ColumnElement[bool], ...]:
    p = predictions.c
    return p.project == project, p.version == version, p.tier == tier


# Rows per transaction when much is let go: a prediction that waits for it waits milliseconds.
DELETE_BATCH_ROWS = 500


@dataclass(frozen=True)
class RemovedRows:
    """How many rows went."""

    predictions: int
    labels: int


def expire_predictions(engine: sa.Engine, project: str, keep: timedelta, at: datetime | None = None) -> RemovedRows:
    """Delete predictions received longer ago than `keep`, and statements as old that no prediction is left for.

    Age counts from receipt: history that is played today is today's. In many short transactions; run again after a kill.
    """
    before = format_timestamp((at or datetime.now(UTC)) - keep)
    p, s = predictions.c, labels.c
    old = sa.select(*predictions.primary_key).where(p.project == project, p.received < before)
    gone = _delete(engine, predictions, old)
    needed = sa.exists().where(p.project == project, p.id == s.id)
    idle = sa.select(*labels.primary_key).where(s.project == project, s.received < before, ~needed)
    return RemovedRows(gone, _delete(engine, labels, idle))


def _delete(engine: sa.Engine, table: sa.Table, keys: sa.Select[Any]) -> int:
    """Delete the rows with these primary keys, BATCH by BATCH; how many there were."""
    names = [column.name for column in table.primary_key]
    statement = sa.delete(table).where(*(table.c[name] == sa.bindparam(f"key_{name}") for name in names))
    count = 0
    with open_snapshot(engine) as found:
        for rows in found.execute(keys).partitions(DELETE_BATCH_ROWS):
            with engine.begin() as db:
                db.execute(statement, [{f"key_{name}": row._mapping[name] for name in names} for row in rows])
            count += len(rows)
    return count


def erase_ids(engine: sa.Engine, project: str, ids: Iterable[str]) -> RemovedRows:
    """Erase every prediction and statement with these ids, in one transaction with the record that it happened."""
    return _erase(engine, project, sorted(set(ids)), "id")


def erase_subject(engine: sa.Engine, project: str, column: str, value: Any, privacy: PrivacyRules) -> RemovedRows:
    """Erase every id with a prediction whose input `column` was `value`, stored plainly or hashed.

    Raises ValueError for a column that is dropped: then only ids can name the rows these are.
    """
    if column in privacy.drop:
        raise ValueError(f"column {column!r} is not stored (ledger.drop). Name the subject's ids instead")
    return _erase(engine, project, sorted(set(_find_subject_ids(engine, project, column, value, privacy))), "column")


def _find_subject_ids(engine: sa.Engine, project: str, column: str, value: Any, privacy: PrivacyRules) -> Iterator[str]:
    plain, hashed = privacy.plain(value), privacy.hashed(column, value) if privacy.key else None
    p = predictions.c
    query = sa.select(p.id, sa.cast(p.inputs, sa.Text)).where(p.project == project, p.inputs.is_not(None))
    with open_snapshot(engine) as db:
        for id, inputs in db.execute(query):
            found = orjson.loads(inputs).get(column)
            if isinstance(found, dict):
                if hashed is not None and found.get(HASH_KEY) == hashed:
                    yield id
            elif found is not None and privacy.plain(found) == plain:
                yield id


def _erase(engine: sa.Engine, project: str, ids: list[str], by: str) -> RemovedRows:
    with engine.connect() as db:
        if engine.dialect.name == "sqlite":  # else the bytes stay in the file until something is written over them
            db.connection.cursor().execute("PRAGMA secure_delete=ON")
        with db.begin():
            removed = RemovedRows(_erase_from(db, predictions, project, ids), _erase_from(db, labels, project, ids))
            db.execute(sa.insert(erasures).values(project=project, erased=now_timestamp(), by=by, **vars(removed)))
        if engine.dialect.name == "sqlite":
            db.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def _erase_from(db: sa.Connection, table: sa.Table, project: str, ids: list[str]) -> int:
    mine = sa.delete(table).where(table.c.project == project)
    return sum(db.execute(mine.where(is_among(db.dialect, table.c.id, chunk))).rowcount for chunk in split_chunks(ids))
