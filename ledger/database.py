"""The ledger's database, SQLite or PostgreSQL: opened at the newest migration, read in snapshots; its timestamps and ids."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from windvane.ledger import sqlite_files
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.schema import HEAD_REVISION, REVISIONS

# How long a writer waits for another before it gives up; a ledger transaction lasts milliseconds.
WRITE_BUSY_SECONDS = 60
# Rows that a long read holds in memory at a time.
READ_CHUNK_ROWS = 5_000
_Record = TypeVar("_Record")


def now_timestamp() -> str:
    """The present in UTC, as ledger text."""
    return format_timestamp(datetime.now(UTC))


def format_timestamp(moment: datetime) -> str:
    """A moment as ledger text: ISO 8601, UTC, microseconds, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class NewerLedger(RuntimeError):
    """The ledger was brought to a migration that this version of Windvane does not know. `revision`: which."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"migration {revision} is not known")
        self.revision = revision


def connect_ledger(url: str, upgraded: Callable[[Path], None] = lambda _: None) -> sa.Engine:
    """An engine on the ledger at `url` (`sqlite:///path` or `postgresql+psycopg://…`), migrated to HEAD.

    upgraded: is given the copy that was taken of an SQLite ledger before its upgrade. Raises NewerLedger, and what the driver
    raises.
    """
    engine = _create_engine(url)
    path = _find_sqlite_path(engine)
    if path is not None and sqlite_files.inspect_database(path) is None:
        _create_sqlite_ledger(path)
    if _read_revision(engine) != HEAD_REVISION:
        _upgrade(engine, path, upgraded)
    return engine


def ledger_exists(url: str) -> bool:
    """Whether there is a ledger at `url`, of whatever migration. Raises what the driver raises."""
    engine = _create_engine(url)
    path = _find_sqlite_path(engine)
    try:
        return (_read_revision(engine) if path is None else sqlite_files.inspect_database(path)) is not None
    finally:
        engine.dispose()


@contextmanager
def open_snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that only reads, one snapshot however long it takes, streamed; in SQLite it never holds up a writer."""
    isolation = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect() as connection:
        yield connection.execution_options(reads=True, yield_per=READ_CHUNK_ROWS, **isolation)


def read_records(
    source: sa.Engine | sa.Connection,
    record: Callable[..., _Record],
    table: sa.Table,
    *where: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
    limit: int | None = None,
) -> tuple[_Record, ...]:
    """Rows as instances of `record`, a dataclass whose fields are columns of the table; in a snapshot or the transaction given."""
    wanted = [table.c[field.name] for field in fields(record)]  # type: ignore[arg-type]
    query = sa.select(*wanted).where(*where).order_by(*order).limit(limit)
    with open_snapshot(source) if isinstance(source, sa.Engine) else nullcontext(source) as db:
        return tuple(record(**row) for row in db.execute(query).mappings())


def find_record(
    source: sa.Engine | sa.Connection, record: Callable[..., _Record], table: sa.Table, *where: Any, order: Any = ()
) -> _Record | None:
    """The first of these records, or None."""
    return next(iter(read_records(source, record, table, *where, order=order, limit=1)), None)


def update_rows(engine: sa.Engine, table: sa.Table, *where: sa.ColumnElement[bool], **values: Any) -> int:
    """Change rows in a transaction of their own; how many there were."""
    with engine.begin() as db:
        return db.execute(sa.update(table).where(*where).values(**values)).rowcount


def build_upsert(dialect: sa.Dialect, table: sa.Table) -> Any:
    """An insert that can be given what to do with rows that are there already: the two databases' common dialect."""
    return import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)


def is_among(dialect: sa.Dialect, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Whether a column is one of these texts or whole numbers: one bound value and one statement, however many there are.

    IN with a place for each would be another statement for each number of them. SQLite's driver keeps the last 128 prepared, each of
    thousands of places about half a megabyte: a service that takes labels grew by that every minute.
    """
    if dialect.name == "sqlite":
        listed = sa.func.json_each(sa.literal(json.dumps(list(values)))).table_valued("value")
        return column.in_(sa.select(listed.c.value))
    from sqlalchemy.dialects.postgresql import ARRAY

    return column == sa.func.any(sa.literal(list(values), ARRAY(column.type)))


def _begin_sqlite(connection: sa.Connection) -> None:
    """The driver would begin late and read-only; IMMEDIATE takes the write lock first: check and act are one."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in (f"busy_timeout={WRITE_BUSY_SECONDS * 1000}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _read_revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def _create_engine(url: str) -> sa.Engine:
    engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _find_sqlite_path(engine: sa.Engine) -> Path | None:
    """Where an SQLite ledger lies; None for another, and for one in memory."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    return Path(str(engine.url.database))


def _create_sqlite_ledger(path: Path) -> None:
    """A new ledger, whole or not at all; of several processes that start at once, one makes it."""
    from filelock import FileLock

    def work(part: Path) -> None:
        engine = _create_engine(f"sqlite:///{part}")
        try:
            with engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
            _migrate(engine)
        finally:
            engine.dispose()

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if sqlite_files.inspect_database(path) is None:
            sqlite_files.create_database(path, work)


def _upgrade(engine: sa.Engine, path: Path | None, upgraded: Callable[[Path], None]) -> None:
    """Bring a ledger that is there to HEAD, where it lies: others may have it open. Of SQLite a copy is taken first."""
    if (revision := _read_revision(engine)) is not None and revision not in REVISIONS:
        raise NewerLedger(revision)
    if path is None:
        _migrate(engine)
        return
    from filelock import FileLock

    with FileLock(f"{path}.lock"):
        if (revision := _read_revision(engine)) == HEAD_REVISION:
            return
        copy = None if revision is None else sqlite_files.back_up_database(path, HEAD_REVISION)
        _migrate(engine)
    if copy is not None:
        upgraded(copy)


def _migrate(engine: sa.Engine) -> None:
    """Bring the tables to HEAD in one transaction; of several processes that start at once, one does it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7283947)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        hit_failpoint("ledger: before commit")


NUMBER_PATTERN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of a UUID: 48 bits of milliseconds, then chance.
_RANDOM_BYTES = 10


def make_id() -> str:
    """A new id, 32 hexadecimal digits: 48 bits of time, so that neighbours share a page, and 80 that cannot be guessed."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(_RANDOM_BYTES).hex()}"


def make_ids(number: int) -> list[str]:
    """So many of them at once, all of this millisecond."""
    at, chance = f"{time.time_ns() // 1_000_000:012x}", os.urandom(_RANDOM_BYTES * number).hex()
    return [at + chance[i : i + 2 * _RANDOM_BYTES] for i in range(0, len(chance), 2 * _RANDOM_BYTES)]


def to_timestamp(value: Any) -> str:
    """Ledger text of a date (naive: UTC), of ISO 8601 text, or of a number, so that text order is theirs.

    A number that only orders the rows, also one in text, is written as so many seconds since 1970. Raises ValueError for anything else.
    """
    if isinstance(value, datetime):
        return _format_datetime(value)
    if isinstance(value, str):
        return to_timestamp(float(value) if NUMBER_PATTERN.fullmatch(value.strip()) else _parse_datetime(value))
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no moment. Write a date such as 2026-01-31T12:00:00Z")
    if hasattr(value, "astype"):  # numpy's datetime64 and numbers
        return to_timestamp(value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item())
    if hasattr(value, "timetuple"):  # a date without a clock
        return format_timestamp(datetime(value.year, value.month, value.day, tzinfo=UTC))
    try:
        return format_timestamp(_EPOCH + timedelta(seconds=float(value)))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no moment between the years 1 and 9999. Write a date") from None


@lru_cache(4096)  # rows of a request are of the same days
def _format_datetime(value: datetime) -> str:
    return format_timestamp(value if value.tzinfo else value.replace(tzinfo=UTC))


def _parse_datetime(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no moment. Write it in ISO 8601, such as 2026-01-31T12:00:00Z") from None


CHUNK_ITEMS = 5_000
_Item = TypeVar("_Item")


def split_chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Items in pieces, a statement each: no lock is held for long, and few are in memory at a time."""
    return (items[i : i + CHUNK_ITEMS] for i in range(0, len(items), CHUNK_ITEMS))
