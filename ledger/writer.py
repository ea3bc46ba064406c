"""Group commit: predictions from many requests, durable by one transaction each time the disk is free.

A thread commits what is queued: while it waits for the disk, requests queue; the next transaction takes them all. Of an event
loop with SQLite the loop itself commits, at the end of its turn, what came in that turn: two threads that hand over one row to
each other cost more than the disk. It leaves to the thread what would hold it up. Nobody is told before the commit that holds
his rows has returned, and in both databases a commit returns after its fsync (ledger/committing.py).
"""

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
from windvane.ledger.committing import Committer
from windvane.ledger.predictions import Prediction
from windvane.ledger.privacy import Privacy

# Rows that may wait for the disk: some seconds' worth. Then whoever brings more waits, and after PATIENCE is sent away.
ROOM = 20_000
PATIENCE = 10.0
# Rows after which a transaction takes no further request: it should last milliseconds.
GROUP = 2_000
# Rows that an event loop commits itself, at most; after a commit that held it up for so many seconds the thread has them all for
# so long.
HERE, HELD_UP, ELSEWHERE = 64, 0.02, 1.0
# Rows of one request that a thread prepares.
LARGE = 1_000


class LedgerFull(RuntimeError):
    """Predictions arrive faster than the disk takes them, for longer than PATIENCE."""


class LedgerFailed(RuntimeError):
    """The database did not take a group: disk full, no connection. Nothing of it is answered; it may be sent again."""


class LedgerClosed(RuntimeError):
    """The writer was closed: nothing more can be recorded."""


@dataclass(slots=True)
class _Waiting:
    """Rows of one request, and who must be told: a thread's future, or an event loop's."""

    rows: list[tuple[Any, ...]]
    future: Future[None] | asyncio.Future[None]
    loop: asyncio.AbstractEventLoop | None


class Writer:
    """Records the predictions of a project. Safe to call from any thread and any event loop."""

    def __init__(
        self,
        engine: sa.Engine,
        project: str,
        privacy: Privacy | None = None,
        room: int = ROOM,
        patience: float = PATIENCE,
    ) -> None:
        self._engine, self._project, self._privacy = engine, project, privacy or Privacy()
        self._room, self._patience = room, patience
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._closed = self._committing = False
        self._change = threading.Condition()
        insert = predictions.insert(engine)
        self._committer = Committer(engine, insert)
        # The loop's own, which waits for nobody; loops of several threads share it.
        self._alone = threading.Lock()
        self._here = Committer(engine, insert, waits=False) if engine.dialect.name == "sqlite" else None
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
        self._elsewhere_until = 0.0
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, given: Sequence[Prediction]) -> Future[None]:
        """Queue predictions; the future ends when they are durable, or with what went wrong. All of them or none.

        Blocks while the queue is full. Raises BadPrediction, LedgerFull, LedgerClosed.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # what is queued is recorded: nobody can take it back
        waiting = _Waiting(self._prepare(given), future, None)
        with self._change:
            if not self._change.wait_for(lambda: self._closed or self._queued < self._room, self._patience):
                raise LedgerFull(f"the ledger's queue has been full for {self._patience:g} s. Try again later")
            self._put(waiting)
        return future

    async def record(self, given: Sequence[Prediction]) -> None:
        """Return when predictions are durable, without blocking the event loop. Raises as submit(), and what went wrong."""
        # Rare: no room, for which a thread may wait, or so many rows that preparing them would hold up the loop.
        if self._queued >= self._room or len(given) >= LARGE:
            return await asyncio.wrap_future(await asyncio.to_thread(self.submit, given))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiting = _Waiting(self._prepare(given), future, loop)
        if self._here is None:
            with self._change:
                self._put(waiting)
        elif (gathered := self._gathered.get(loop)) is None:
            self._gathered[loop] = [waiting]
            loop.call_soon(self._turn_ends, loop, 1)
        else:
            gathered.append(waiting)
        return await future

    @property
    def queued(self) -> int:
        """Rows that wait for the disk, for the metrics."""
        return self._queued

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
        return predictions.prepare(self._project, given, self._privacy)

    def _put(self, waiting: _Waiting) -> None:
        if self._closed:
            raise _closed()
        self._queue.append(waiting)
        self._queued += len(waiting.rows)
        self._change.notify_all()

    def _take(self) -> list[_Waiting]:
        """The next group, of at least one request; none when closed and empty."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closed)
            group, rows = list[_Waiting](), 0
            while self._queue and rows < GROUP:
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
        if before < len(self._gathered[loop]) < HERE:
            loop.call_soon(self._turn_ends, loop, len(self._gathered[loop]))
            return
        group = self._gathered.pop(loop)
        rows = [row for waiting in group for row in waiting.rows]
        began = time.monotonic()
        if began >= self._elsewhere_until and len(rows) <= HERE and self._committed_here(rows):
            _end([waiting.future for waiting in group], None)
            if time.monotonic() - began > HELD_UP:
                self._elsewhere_until = time.monotonic() + ELSEWHERE
            return
        with self._change:
            if not self._closed:
                for waiting in group:
                    self._put(waiting)
                return
        _end([waiting.future for waiting in group], _closed())

    def _committed_here(self, rows: list[tuple[Any, ...]]) -> bool:
        """Whether the loop's own connection took the rows; not, for one, while somebody else writes: the thread can wait."""
        assert self._here is not None
        if self._queued or self._committing or not self._alone.acquire(blocking=False):
            return False
        try:
            if self._closed:
                return False
            self._here.commit(rows)
        except Exception:  # noqa: BLE001 (the thread tries again, and says what is wrong)
            return False
        finally:
            self._alone.release()
        return True

    def _run(self) -> None:
        while group := self._take():
            error: BaseException | None = None
            try:
                self._committer.commit([row for waiting in group for row in waiting.rows])
            except Exception as e:  # noqa: BLE001 (every one of them reaches whoever waits)
                error = self._explained(e)
            self._committing = False
            _tell(group, error)
        self._committer.close()

    def _explained(self, e: Exception) -> Exception:
        if not isinstance(e, (self._engine.dialect.loaded_dbapi.Error, sa.exc.SQLAlchemyError, OSError)):
            return e
        where = self._engine.url.render_as_string(hide_password=True)
        failed = LedgerFailed(
            f"the ledger at {where} did not record predictions ({str(e).strip()}). Look at its disk or server, then send them "
            "again"
        )
        failed.__cause__ = e
        return failed


def _closed() -> LedgerClosed:
    return LedgerClosed("the ledger's writer is closed. Start the service again")


def _tell(group: list[_Waiting], error: BaseException | None) -> None:
    """End every future; those of an event loop together, in the loop's own thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Any]] = {}
    for waiting in group:
        if waiting.loop is None:
            _end([waiting.future], error)
        else:
            loops.setdefault(waiting.loop, []).append(waiting.future)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # a closed loop: nobody is left who waits
            loop.call_soon_threadsafe(_end, futures, error)


def _end(futures: list[Any], error: BaseException | None) -> None:
    for future in futures:
        if future.done():  # given up by whoever waited
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
