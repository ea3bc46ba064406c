"""Group commit: predictions of many requests in one transaction, durable before any of them gets its response."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger import predictions
from windvane.ledger.predictions import Prediction, PrivacyRules


class RowCommitter:
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
            self.connection = open_durable_connection(self._engine, self._waits)
            # The driver's own: what SQLAlchemy puts around it costs as much as a row does.
            assert self.connection.driver_connection is not None
            self._cursor = self.connection.driver_connection.cursor()
        try:
            if self._sqlite:  # psycopg begins by itself
                self._cursor.execute("BEGIN IMMEDIATE")
            self._cursor.executemany(self.insert, rows)
            self.connection.commit()
        except Exception as e:
            if not self._waits and getattr(e, "sqlite_errorname", "") == "SQLITE_BUSY":
                raise  # not yet started
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


def open_durable_connection(engine: sa.Engine, waits: bool = True) -> sa.PoolProxiedConnection:
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


# Rows that may wait for the disk: some seconds' worth. Then callers with more wait, and after PATIENCE are refused.
MAX_QUEUED_ROWS = 20_000
QUEUE_TIMEOUT_SECONDS = 10.0
# Rows after which a transaction takes no further request: it should last milliseconds.
GROUP_ROWS = 2_000
# Rows that an event loop commits itself, at most; after a commit that held it up for so many seconds the thread has them all for
# so long.
MAX_LOOP_COMMIT_ROWS, SLOW_COMMIT_SECONDS, THREAD_ONLY_SECONDS = 64, 0.02, 1.0
_CLOSED = "the ledger's writer is closed. Start the service again"
# Rows of one request that a thread prepares.
MIN_THREAD_PREPARED_ROWS = 1_000


class LedgerFull(RuntimeError):
    """Predictions arrive faster than the disk takes them, for longer than PATIENCE."""


class LedgerFailed(RuntimeError):
    """The database did not take a group: disk full, no connection. No response is sent for it; it may be sent again."""


class LedgerClosed(RuntimeError):
    """The writer was closed: nothing more can be recorded."""


@dataclass(slots=True)
class _QueuedRows:
    """Rows of one request, and who must be notified: a thread's future, or an event loop's."""

    rows: list[tuple[Any, ...]]
    future: Future[None] | asyncio.Future[None]
    loop: asyncio.AbstractEventLoop | None


class PredictionWriter:
    """Records the predictions of a project. Safe to call from any thread and any event loop."""

    def __init__(
        self,
        engine: sa.Engine,
        project: str,
        privacy: PrivacyRules | None = None,
        room: int = MAX_QUEUED_ROWS,
        patience: float = QUEUE_TIMEOUT_SECONDS,
    ) -> None:
        self._engine, self._project, self._privacy = engine, project, privacy or PrivacyRules()
        self._room, self._patience = room, patience
        self._queue: deque[_QueuedRows] = deque()
        self._queued = 0
        self._closed = self._committing = False
        self._change = threading.Condition()
        insert = predictions.compile_prediction_insert(engine)
        self._committer = RowCommitter(engine, insert)
        # The loop's own, which never waits; loops of several threads share it.
        self._alone = threading.Lock()
        self._here = RowCommitter(engine, insert, waits=False) if engine.dialect.name == "sqlite" else None
        self._gathered: dict[asyncio.AbstractEventLoop, list[_QueuedRows]] = {}
        self._elsewhere_until = 0.0
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, given: Sequence[Prediction]) -> Future[None]:
        """Queue predictions; the future ends when they are durable, or with what went wrong. All of them or none.

        Blocks while the queue is full. Raises InvalidPrediction, LedgerFull, LedgerClosed.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # what is queued is recorded: it cannot be taken back
        waiting = _QueuedRows(self._prepare(given), future, None)
        with self._change:
            if not self._change.wait_for(lambda: self._closed or self._queued < self._room, self._patience):
                raise LedgerFull(f"the ledger's queue has been full for {self._patience:g} s. Try again later")
            self._put(waiting)
        return future

    async def record(self, given: Sequence[Prediction]) -> None:
        """Return when predictions are durable, without blocking the event loop. Raises as submit(), and what went wrong."""
        # Rare: no room, for which a thread may wait, or so many rows that preparing them would hold up the loop.
        if self._queued >= self._room or len(given) >= MIN_THREAD_PREPARED_ROWS:
            return await asyncio.wrap_future(await asyncio.to_thread(self.submit, given))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = _QueuedRows(self._prepare(given), future, loop)
        if self._here is None:
            with self._change:
                self._put(waiting)
        elif (gathered := self._gathered.get(loop)) is None:
            self._gathered[loop] = [waiting]
            loop.call_soon(self._turn_ends, loop, 1)
        else:
            gathered.append(waiting)
        return await future

    def close(self) -> None:
        """Record what is queued, then stop. A second time changes nothing."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()
        with self._alone:
            if self._here is not None:
                self._here.close()

    def _prepare(self, given: Sequence[Prediction]) -> list[tuple[Any, ...]]:
        return predictions.prepare_prediction_rows(self._project, given, self._privacy)

    def _put(self, waiting: _QueuedRows) -> None:
        if self._closed:
            raise LedgerClosed(_CLOSED)
        self._queue.append(waiting)
        self._queued += len(waiting.rows)
        self._change.notify_all()

    def _take(self) -> list[_QueuedRows]:
        """The next group, of at least one request; none when closed and empty."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closed)
            group, rows = list[_QueuedRows](), 0
            while self._queue and rows < GROUP_ROWS:
                group.append(self._queue.popleft())
                rows += len(group[-1].rows)
            self._queued -= rows
            self._committing = bool(group)
            self._change.notify_all()
        return group

    def _turn_ends(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Make durable what an event loop gathered: here where that is quick, else in the thread.

        Where others came in this turn, the next may bring more of them: a turn costs microseconds, a commit a hundred.
        """
        if before < len(self._gathered[loop]) < MAX_LOOP_COMMIT_ROWS:
            loop.call_soon(self._turn_ends, loop, len(self._gathered[loop]))
            return
        group = self._gathered.pop(loop)
        rows = [row for waiting in group for row in waiting.rows]
        started_at = time.monotonic()
        if started_at >= self._elsewhere_until and len(rows) <= MAX_LOOP_COMMIT_ROWS and self._committed_here(rows):
            _resolve_futures([waiting.future for waiting in group], None)
            if time.monotonic() - started_at > SLOW_COMMIT_SECONDS:
                self._elsewhere_until = time.monotonic() + THREAD_ONLY_SECONDS
            return
        with self._change:
            if not self._closed:
                for waiting in group:
                    self._put(waiting)
                return
        _resolve_futures([waiting.future for waiting in group], LedgerClosed(_CLOSED))

    def _committed_here(self, rows: list[tuple[Any, ...]]) -> bool:
        """Whether the loop's own connection took the rows; not, for one, while somebody else writes: the thread can wait."""
        assert self._here is not None
        if self._queued or self._committing or not self._alone.acquire(blocking=False):
            return False
        try:
            if self._closed:
                return False
            self._here.commit(rows)
        except Exception:  # noqa: BLE001 (the thread tries again, and logs what is wrong)
            return False
        finally:
            self._alone.release()
        return True

    def _run(self) -> None:
        while group := self._take():
            error: BaseException | None = None
            try:
                self._committer.commit([row for waiting in group for row in waiting.rows])
            except Exception as e:  # noqa: BLE001 (every one of them reaches a caller)
                error = self._explained(e)
            self._committing = False
            _resolve_group(group, error)
        self._committer.close()

    def _explained(self, e: Exception) -> Exception:
        if not isinstance(e, (self._engine.dialect.loaded_dbapi.Error, sa.exc.SQLAlchemyError, OSError)):
            return e
        where = self._engine.url.render_as_string(hide_password=True)
        failed = LedgerFailed(
            f"the ledger at {where} did not record predictions ({str(e).strip()}). Check its disk or server, then send them again"
        )
        failed.__cause__ = e
        return failed


def _resolve_group(group: list[_QueuedRows], error: BaseException | None) -> None:
    """End every future; those of an event loop together, in the loop's own thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Any]] = {}
    for waiting in group:
        if waiting.loop is None:
            _resolve_futures([waiting.future], error)
        else:
            loops.setdefault(waiting.loop, []).append(waiting.future)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # a closed loop: no caller is waiting
            loop.call_soon_threadsafe(_resolve_futures, futures, error)


def _resolve_futures(futures: list[Any], error: BaseException | None) -> None:
    for future in futures:
        if future.done():  # given up by its caller
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
