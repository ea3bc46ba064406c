"""Laps: what ran, when, under which runs in MLflow and Prefect, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger.leases import Lease
from windvane.ledger.schema import laps
from windvane.ledger.store import now, reading


@dataclass(frozen=True)
class Lap:
    """One lap as the ledger knows it; state is running, finished, failed or crashed."""

    id: str
    cause: str
    state: str
    started: str
    ended: str | None
    mlflow_run: str | None
    prefect_run: str | None
    outcome: dict[str, Any] | None


def start(engine: sa.Engine, lease: Lease, lap: str, cause: str) -> None:
    """Record, before anything else is told, that a lap with this id begins."""
    with engine.begin() as db:
        db.execute(
            sa.insert(laps).values(
                id=lap, project=lease.project, token=lease.token, cause=cause, state="running", started=now()
            )
        )


def note(engine: sa.Engine, lap: str, **runs: str) -> None:
    """Record under which `mlflow_run` or `prefect_run` the lap can be found, as soon as it is known."""
    with engine.begin() as db:
        db.execute(sa.update(laps).where(laps.c.id == lap).values(**runs))


def end(engine: sa.Engine, lap: str, state: str, outcome: dict[str, Any] | None = None) -> None:
    """Record how the lap ended: finished, failed or crashed."""
    with engine.begin() as db:
        db.execute(sa.update(laps).where(laps.c.id == lap).values(state=state, ended=now(), outcome=outcome))


def abandoned(engine: sa.Engine, lease: Lease) -> tuple[Lap, ...]:
    """Laps still `running` under an older token: their process is gone. Call while holding the lease."""
    query = _columns().where(laps.c.project == lease.project, laps.c.state == "running", laps.c.token < lease.token)
    with engine.connect() as db:
        return tuple(Lap(**row) for row in db.execute(query).mappings())


def running(engine: sa.Engine, project: str, token: int) -> Lap | None:
    """The lap that runs under a token, or None."""
    query = _columns().where(laps.c.project == project, laps.c.state == "running", laps.c.token == token)
    with reading(engine) as db:
        row = db.execute(query).mappings().first()
    return None if row is None else Lap(**row)


def newest(engine: sa.Engine, project: str) -> Lap | None:
    """The lap that began last, or None."""
    query = _columns().where(laps.c.project == project).order_by(laps.c.started.desc()).limit(1)
    with engine.connect() as db:
        row = db.execute(query).mappings().one_or_none()
    return None if row is None else Lap(**row)


def causes(engine: sa.Engine, project: str) -> dict[str, str]:
    """Why each lap ran, by the id of its run in MLflow."""
    query = sa.select(laps.c.mlflow_run, laps.c.cause).where(laps.c.project == project, laps.c.mlflow_run.is_not(None))
    with reading(engine) as db:
        return {row.mlflow_run: row.cause for row in db.execute(query.order_by(laps.c.started))}


def _columns() -> sa.Select[Any]:
    wanted = ("id", "cause", "state", "started", "ended", "mlflow_run", "prefect_run", "outcome")
    return sa.select(*(laps.c[name] for name in wanted))
