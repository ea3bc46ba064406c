"""One connection that stores prepared rows durably: a group is one transaction, whose commit returns after its fsync."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Committer:
    """Commits groups of rows, one after the other; for one thread at a time.

    waits False: where another writer holds SQLite's lock, commit() raises at once instead of waiting for it.
    """

    def __init__(self, engine: sa.Engine, insert: str, waits: bool = True) -> None:
        self._engine, self.insert, self._waits = engine, insert, waits
        self._sqlite = engine.dialect.name == "sqlite"
        self.connection: sa.PoolProxiedConnection | None = None
        self._cursor: Any = None

    def commit(self, rows: list[tuple[Any, ...]], again: bool = True) -> None:
        """Store rows durably, all or none. Raises what the driver raises.

        A connection that the server dropped is replaced once: the statement may be repeated.
        """
        if self.connection is None:
            self.connection = durable(self._engine, self._waits)
            # The driver's own: what SQLAlchemy puts around it costs as much as a row does.
            assert self.connection.driver_connection is not None
            self._cursor = self.connection.driver_connection.cursor()
        try:
            if self._sqlite:  # psycopg begins by itself
                self._cursor.execute("BEGIN IMMEDIATE")
            self._cursor.executemany(self.insert, rows)
            if self._sqlite:
                self._cursor.execute("COMMIT")
            else:
                self.connection.commit()
        except Exception as e:
            if not self._waits and getattr(e, "sqlite_errorname", "") == "SQLITE_BUSY":
                raise  # nothing has begun
            if self._lost(e) and again:
                self.commit(rows, again=False)
                return
            raise

    def _lost(self, e: Any) -> bool:
        """Take leave of a connection in whatever state it is; whether the server had dropped it."""
        connection, self.connection = self.connection, None
        assert connection is not None
        lost = self._engine.dialect.is_disconnect(e, connection.driver_connection, None)
        connection.invalidate()
        return lost

    def close(self) -> None:
        """Give the connection back."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def durable(engine: sa.Engine, waits: bool = True) -> sa.PoolProxiedConnection:
    """A connection whose commits return only when the disk has them, whatever the server's default is."""
    connection = engine.raw_connection()
    cursor = connection.cursor()
    if engine.dialect.name == "sqlite":
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone stops at the disk's cache
        if not waits:
            cursor.execute("PRAGMA busy_timeout=0")
    else:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone() == ("off",):
            cursor.execute("SET synchronous_commit TO on")
        connection.commit()
    cursor.close()
    return connection
