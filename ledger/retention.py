"""Deletes from the ledger what is past its time, and every row of one subject.

An erasure is recorded: when and how many rows, never which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from windvane.ledger.database import format_timestamp, is_among, now_timestamp, open_snapshot
from windvane.ledger.labels import split_ids
from windvane.ledger.privacy import HASH_KEY, PrivacyRules
from windvane.ledger.schema import erasures, labels, predictions

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
                db.execute(
                    statement, [{f"key_{n}": value for n, value in zip(names, row, strict=True)} for row in rows]
                )
            count += len(rows)
    return count


def erase_ids(engine: sa.Engine, project: str, ids: Iterable[str]) -> RemovedRows:
    """Erase every prediction and statement with these ids, in one transaction with the record that it happened."""
    return _erase(engine, project, sorted(set(ids)), "id")


def erase_subject(engine: sa.Engine, project: str, column: str, value: Any, privacy: PrivacyRules) -> RemovedRows:
    """Erase every id with a prediction whose input `column` was `value`, stored plainly or hashed.

    Raises ValueError for a column that is dropped: then only ids can say whose rows these are.
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
            gone = {table.name: _erase_from(db, table, project, ids) for table in (predictions, labels)}
            removed = RemovedRows(**gone)
            db.execute(sa.insert(erasures).values(project=project, erased=now_timestamp(), by=by, **vars(removed)))
        if engine.dialect.name == "sqlite":
            db.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def _erase_from(db: sa.Connection, table: sa.Table, project: str, ids: list[str]) -> int:
    mine = sa.delete(table).where(table.c.project == project)
    return sum(db.execute(mine.where(is_among(db.dialect, table.c.id, chunk))).rowcount for chunk in split_ids(ids))
