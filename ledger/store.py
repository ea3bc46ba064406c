"""Opening the ledger: one engine for SQLite or PostgreSQL, brought to the newest migration before first use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from windvane.ledger.schema import HEAD

# How long a writer waits for another before it gives up; a ledger transaction lasts milliseconds.
BUSY_SECONDS = 60
# Rows that a long read holds in memory at a time.
PIECE = 5_000


def now() -> str:
    """The present in UTC, as ledger text."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A moment as ledger text: ISO 8601, UTC, microseconds, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def connect(url: str) -> sa.Engine:
    """An engine on the ledger at `url` (`sqlite:///path` or `postgresql+psycopg://…`), migrated to HEAD."""
    engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        sa.event.listen(engine, "connect", _tune_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    if _revision(engine) != HEAD:
        _migrate(engine)
    return engine


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that only reads, one snapshot however long it takes, streamed; in SQLite it never holds up a writer."""
    isolation = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect() as connection:
        yield connection.execution_options(reads=True, yield_per=PIECE, **isolation)


def upsert(dialect: sa.Dialect, table: sa.Table) -> Any:
    """An insert that can be told what to do with rows that are there already: the two databases' common dialect."""
    if dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def _begin_sqlite(connection: sa.Connection) -> None:
    """The driver would begin late and read-only; IMMEDIATE takes the write lock first: check and act are one."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in (f"busy_timeout={BUSY_SECONDS * 1000}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def _migrate(engine: sa.Engine) -> None:
    """Bring the tables to HEAD in one transaction; of several processes that start at once, one does it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    if engine.dialect.name == "sqlite" and engine.url.database:
        from filelock import FileLock

        # Changing the journal mode ignores busy_timeout, so it needs a lock of its own.
        with FileLock(f"{engine.url.database}.lock"), engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7283947)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
