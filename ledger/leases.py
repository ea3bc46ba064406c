"""One lap at a time: a lease per project, with a heartbeat and a fencing token."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil
import sqlalchemy as sa

from windvane.ledger.schema import leases
from windvane.ledger.store import now, reading, stamp

# A holder on another machine that has not been heard of for this long is taken for dead.
EXPIRES = timedelta(seconds=60)
HEARTBEAT = 10.0
POLL = 0.2


class LeaseLost(RuntimeError):
    """Another process took the lease: whatever this one decided no longer counts."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: enough to name it to a person, and to tell whether it still lives."""

    what: str
    host: str
    pid: int
    born: float
    since: str

    @classmethod
    def me(cls, what: str) -> Holder:
        """This process."""
        return cls(what, socket.gethostname(), os.getpid(), psutil.Process().create_time(), now())

    def alive(self) -> bool:
        """Whether the process still runs; on another host nobody can tell, so yes until the lease expires."""
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.born) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since[:19]}Z)"


@dataclass(frozen=True)
class Lease:
    """A lease that is held: its fencing token, and whom we waited for."""

    project: str
    token: int
    waited_for: tuple[str, ...]


@contextmanager
def hold(engine: sa.Engine, project: str, what: str, waiting: Callable[[Holder], None]) -> Iterator[Lease]:
    """Wait for the project's lease, keep it alive, give it back. `waiting` is told once for each holder waited for."""
    me, waited = Holder.me(what), list[str]()
    while (taken := _try(engine, project, me)) is None or isinstance(taken, Holder):
        if isinstance(taken, Holder) and str(taken) not in waited:
            waited.append(str(taken))
            waiting(taken)
        time.sleep(POLL)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(engine, project, taken, stop), daemon=True)
    beat.start()
    try:
        yield Lease(project, taken, tuple(waited))
    finally:
        stop.set()
        beat.join()
        with engine.begin() as db:
            db.execute(
                sa.update(leases)
                .where(leases.c.project == project, leases.c.token == taken)
                .values(holder=sa.null(), expires=None)
            )


def living(engine: sa.Engine, project: str) -> int | None:
    """The token of the project's lease while a living process holds it; else None."""
    with reading(engine) as db:
        row = db.execute(sa.select(leases).where(leases.c.project == project)).one_or_none()
    if row is None or row.holder is None or row.expires <= now() or not Holder(**row.holder).alive():
        return None
    return int(row.token)


def check(db: sa.Connection, lease: Lease) -> None:
    """Inside a transaction: lock the lease's row and raise LeaseLost unless its token is still ours."""
    row = leases.c.project == lease.project
    db.execute(sa.update(leases).where(row).values(token=leases.c.token))
    if db.scalar(sa.select(leases.c.token).where(row)) != lease.token:
        raise LeaseLost(
            f"the lease of {lease.project} went to another process while this one slept. Run the command again"
        )


def _try(engine: sa.Engine, project: str, me: Holder) -> int | Holder | None:
    """The token when taken, the holder when somebody has it, None when another process was faster."""
    expires = stamp(datetime.now(UTC) + EXPIRES)
    try:
        with engine.begin() as db:
            row = db.execute(sa.select(leases).where(leases.c.project == project).with_for_update()).one_or_none()
            if row is None:
                db.execute(sa.insert(leases).values(project=project, token=1, holder=vars(me), expires=expires))
                return 1
            if row.holder is not None:
                holder = Holder(**row.holder)
                if holder.alive() and row.expires > now():
                    return holder
            db.execute(
                sa.update(leases)
                .where(leases.c.project == project)
                .values(token=row.token + 1, holder=vars(me), expires=expires)
            )
            return int(row.token) + 1
    except sa.exc.IntegrityError:
        return None


def _beat(engine: sa.Engine, project: str, token: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        # A full disk, or a server that is away: the next beat tries again, and one who takes over meanwhile is found by the token.
        with suppress(sa.exc.OperationalError), engine.begin() as db:
            expires = stamp(datetime.now(UTC) + EXPIRES)
            db.execute(
                sa.update(leases).where(leases.c.project == project, leases.c.token == token).values(expires=expires)
            )
