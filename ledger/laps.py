"""Laps: the lease that lets one run at a time, with heartbeat and fencing token, and the record of what ran and how it ended."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import sqlalchemy as sa

from windvane.ledger.database import (
    find_record,
    format_timestamp,
    now_timestamp,
    open_snapshot,
    read_records,
    update_rows,
)
from windvane.ledger.schema import laps, leases

# A holder on another machine that has not been heard of for this long is taken for dead.
LEASE_DURATION = timedelta(seconds=60)
HEARTBEAT_INTERVAL_SECONDS = 10.0
LEASE_POLL_SECONDS = 0.2


class LeaseLost(RuntimeError):
    """Another process took the lease: whatever this one decided no longer counts."""


@dataclass(frozen=True)
class LeaseHolder:
    """Who holds a lease: enough to name it to a person, and to check whether it still lives."""

    what: str
    host: str
    pid: int
    born: float
    since: str

    @classmethod
    def me(cls, what: str) -> LeaseHolder:
        """This process."""
        return cls(what, socket.gethostname(), os.getpid(), psutil.Process().create_time(), now_timestamp())

    def alive(self) -> bool:
        """Whether the process still runs; on another host it is unknown, so yes until the lease expires."""
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
def hold_lease(engine: sa.Engine, project: str, what: str, waiting: Callable[[LeaseHolder], None]) -> Iterator[Lease]:
    """Wait for the project's lease, keep it alive, give it back. `waiting` is called once for each holder waited for."""
    me, waited = LeaseHolder.me(what), list[str]()
    while (taken := _try_lease(engine, project, me)) is None or isinstance(taken, LeaseHolder):
        if isinstance(taken, LeaseHolder) and str(taken) not in waited:
            waited.append(str(taken))
            waiting(taken)
        time.sleep(LEASE_POLL_SECONDS)
    stop = threading.Event()
    beat = threading.Thread(target=_renew_lease, args=(engine, project, taken, stop), daemon=True)
    beat.start()
    try:
        yield Lease(project, taken, tuple(waited))
    finally:
        stop.set()
        beat.join()
        mine = (leases.c.project == project, leases.c.token == taken)
        update_rows(engine, leases, *mine, holder=sa.null(), expires=None)


def find_living_token(engine: sa.Engine, project: str) -> int | None:
    """The token of the project's lease while a living process holds it; else None."""
    with open_snapshot(engine) as db:
        row = db.execute(sa.select(leases).where(leases.c.project == project)).one_or_none()
    if row is None or row.holder is None or row.expires <= now_timestamp() or not LeaseHolder(**row.holder).alive():
        return None
    return int(row.token)


def check_lease(db: sa.Connection, lease: Lease) -> None:
    """Inside a transaction: lock the lease's row and raise LeaseLost unless its token is still ours."""
    row = leases.c.project == lease.project
    db.execute(sa.update(leases).where(row).values(token=leases.c.token))
    if db.scalar(sa.select(leases.c.token).where(row)) != lease.token:
        raise LeaseLost(
            f"the lease of {lease.project} went to another process while this one slept. Run the command again"
        )


def _try_lease(engine: sa.Engine, project: str, me: LeaseHolder) -> int | LeaseHolder | None:
    """The token when taken, the holder when somebody has it, None when another process was faster."""
    expires = format_timestamp(datetime.now(UTC) + LEASE_DURATION)
    try:
        with engine.begin() as db:
            row = db.execute(sa.select(leases).where(leases.c.project == project).with_for_update()).one_or_none()
            if row is None:
                db.execute(sa.insert(leases).values(project=project, token=1, holder=vars(me), expires=expires))
                return 1
            if row.holder is not None:
                holder = LeaseHolder(**row.holder)
                if holder.alive() and row.expires > now_timestamp():
                    return holder
            db.execute(
                sa.update(leases)
                .where(leases.c.project == project)
                .values(token=row.token + 1, holder=vars(me), expires=expires)
            )
            return int(row.token) + 1
    except sa.exc.IntegrityError:
        return None


def _renew_lease(engine: sa.Engine, project: str, token: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_INTERVAL_SECONDS):
        # A full disk, or a server that is away: the next beat tries again, and one who takes over meanwhile is found by the token.
        with suppress(sa.exc.OperationalError):
            mine = (leases.c.project == project, leases.c.token == token)
            update_rows(engine, leases, *mine, expires=format_timestamp(datetime.now(UTC) + LEASE_DURATION))


@dataclass(frozen=True)
class LapRecord:
    """One lap as the ledger knows it; state is running, finished, failed or crashed."""

    id: str
    cause: str
    state: str
    started: str
    ended: str | None
    mlflow_run: str | None
    prefect_run: str | None
    outcome: dict[str, Any] | None


def record_lap_start(engine: sa.Engine, lease: Lease, lap: str, cause: str) -> None:
    """Record, before anything else is notified, that a lap with this id begins."""
    with engine.begin() as db:
        db.execute(
            sa.insert(laps).values(
                id=lap, project=lease.project, token=lease.token, cause=cause, state="running", started=now_timestamp()
            )
        )


def record_lap_runs(engine: sa.Engine, lap: str, **runs: str) -> None:
    """Record under which `mlflow_run` or `prefect_run` the lap can be found, as soon as it is known."""
    update_rows(engine, laps, laps.c.id == lap, **runs)


def record_lap_end(engine: sa.Engine, lap: str, state: str, outcome: dict[str, Any] | None = None) -> None:
    """Record how the lap ended: finished, failed or crashed."""
    update_rows(engine, laps, laps.c.id == lap, state=state, ended=now_timestamp(), outcome=outcome)


def list_abandoned_laps(engine: sa.Engine, lease: Lease) -> tuple[LapRecord, ...]:
    """Laps still `running` under an older token: their process is gone. Call while holding the lease."""
    c = laps.c
    return read_records(
        engine, LapRecord, laps, c.project == lease.project, c.state == "running", c.token < lease.token
    )


def find_running_lap(engine: sa.Engine, project: str, token: int) -> LapRecord | None:
    """The lap that runs under a token, or None."""
    c = laps.c
    return find_record(engine, LapRecord, laps, c.project == project, c.state == "running", c.token == token)


def find_newest_lap(engine: sa.Engine, project: str) -> LapRecord | None:
    """The lap that began last, or None."""
    return find_record(engine, LapRecord, laps, laps.c.project == project, order=[laps.c.started.desc()])


def is_lap_interrupted(engine: sa.Engine, project: str, lap: LapRecord) -> bool:
    """Whether a lap that is on record as running has lost its process. The next lap records it as crashed."""
    if lap.state != "running":
        return False
    token = find_living_token(engine, project)
    holder = None if token is None else find_running_lap(engine, project, token)
    if holder is not None and holder.id == lap.id:
        return False
    now = find_record(engine, LapRecord, laps, laps.c.id == lap.id)  # it may have ended since it was read
    return now is not None and now.state == "running"


def read_lap_causes(engine: sa.Engine, project: str) -> dict[str, str]:
    """Why each lap ran, by the id of its run in MLflow."""
    query = sa.select(laps.c.mlflow_run, laps.c.cause).where(laps.c.project == project, laps.c.mlflow_run.is_not(None))
    with open_snapshot(engine) as db:
        return {row.mlflow_run: row.cause for row in db.execute(query.order_by(laps.c.started))}
