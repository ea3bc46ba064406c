"""Windows of production that were checked, and what was found; how many predictions and labels a window has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger.database import build_upsert, find_record, open_snapshot, read_records, update_rows
from windvane.ledger.schema import labels, predictions, windows

# Before any moment: ledger text compares as time does.
_BEFORE_ALL_TIMES = "0000"


@dataclass(frozen=True)
class WindowRecord:
    """A window of one version, as it was checked last. `origin`: where its rows came from, `ledger` or `source`."""

    version: int
    start: str
    end: str
    origin: str
    rows: int
    labelled: int
    closed: bool
    looks: int
    mark: str
    look: dict[str, Any]
    looked: str
    run_id: str | None = None


@dataclass(frozen=True)
class PredictionTraffic:
    """A version's predictions in a stretch: how many, the newest by time and by receipt, and how old that one was then."""

    rows: int
    first: str | None
    newest: str | None
    received: str | None
    live: str | None


def save_window(engine: sa.Engine, project: str, seen: WindowRecord, before: WindowRecord | None) -> bool:
    """Keep a check; False, and nothing is kept, where another process checked since `before` was read."""
    row = {"project": project, **vars(seen)}
    c = windows.c
    if before is not None:
        this = (c.project == project, c.version == seen.version, c.start == seen.start, c.mark == before.mark)
        return bool(update_rows(engine, windows, *this, **row))
    with engine.begin() as db:
        new = build_upsert(db.dialect, windows).values(**row).on_conflict_do_nothing().returning(c.start)
        return db.execute(new).first() is not None


def record_window_run(engine: sa.Engine, project: str, seen: WindowRecord, run_id: str) -> None:
    """Remember under which MLflow run a check can be found."""
    c = windows.c
    this = (c.project == project, c.version == seen.version, c.start == seen.start)
    update_rows(engine, windows, *this, run_id=run_id)


def list_windows(engine: sa.Engine, project: str, version: int) -> tuple[WindowRecord, ...]:
    """The windows of a version that were checked, in the order of time."""
    c = windows.c
    return read_records(engine, WindowRecord, windows, c.project == project, c.version == version, order=[c.start])


def find_newest_window(engine: sa.Engine, project: str) -> WindowRecord | None:
    """The window that was checked last, or None."""
    return find_record(engine, WindowRecord, windows, windows.c.project == project, order=[windows.c.looked.desc()])


def read_traffic(engine: sa.Engine, project: str, version: int, since: str | None = None) -> PredictionTraffic:
    """What a version predicted from `since` on (included)."""
    p = predictions.c
    mine = [p.project == project, p.version == version, p.time >= (since or _BEFORE_ALL_TIMES)]
    counted = sa.select(sa.func.count(), sa.func.min(p.time), sa.func.max(p.time), sa.func.max(p.received)).where(*mine)
    with open_snapshot(engine) as db:
        rows, first, newest, received = db.execute(counted).one()
        # The row that was received last: is its time about now, or is history being played?
        live = None if not rows else db.scalar(sa.select(sa.func.max(p.time)).where(*mine, p.received == received))
    return PredictionTraffic(int(rows), first, newest, received, live)


def count_window_rows(
    engine: sa.Engine, project: str, version: int, start: str, end: str
) -> tuple[int, int, str | None]:
    """Of a version's predictions in a stretch: how many, how many of them have a label, and when the last label came."""
    p = predictions.c
    mine = (p.project == project, p.version == version, p.time >= start, p.time < end)
    known = sa.exists().where(labels.c.project == project, labels.c.id == p.id)
    stated = sa.select(sa.func.max(labels.c.received)).where(labels.c.project == project)
    stated = stated.where(labels.c.id.in_(sa.select(p.id).where(*mine)))
    with open_snapshot(engine) as db:
        counts = sa.select(sa.func.count(), sa.func.count().filter(known)).select_from(predictions).where(*mine)
        rows, labelled = db.execute(counts).one()
        return rows, labelled, db.scalar(stated) if labelled else None


def read_prediction_times(engine: sa.Engine, project: str, version: int, since: str) -> list[str]:
    """The times of a version's predictions from `since` on (included), in order."""
    p = predictions.c
    query = sa.select(p.time).where(p.project == project, p.version == version, p.time >= since).order_by(p.time)
    with open_snapshot(engine) as db:
        return list(db.execute(query).scalars())


def count_labels(engine: sa.Engine, project: str) -> tuple[int, str | None]:
    """How many labels the ledger holds, and when the last came: by which new ones are noticed."""
    query = sa.select(sa.func.count(), sa.func.max(labels.c.received)).where(labels.c.project == project)
    with open_snapshot(engine) as db:
        count, received = db.execute(query).one()
    return int(count), received
