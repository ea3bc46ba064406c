"""Windows of production that were checked, and what was found; how many predictions and labels a window has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger.database import build_upsert, find_record, open_snapshot, read_records, update_rows
from windvane.ledger.labels import PredictionQuery, list_labelled_ids, read_labelled_predictions
from windvane.ledger.predictions import TIERS, find_sample_tier
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


@dataclass(frozen=True)
class CoverageState:
    """What the checks of a version found about its intervals (monitoring.records.CoverageResult as plain values), in the order of
    time; `checked`: how many windows were checked, and when the last one was, by which news are noticed.
    """

    checked: tuple[int, str | None] = (0, None)
    windows: tuple[dict[str, Any], ...] = ()


def read_coverage(engine: sa.Engine, project: str, version: int, known: CoverageState) -> CoverageState:
    """The state now; `known` itself where nothing was checked since."""
    c = windows.c
    mine = (c.project == project, c.version == version)
    with open_snapshot(engine) as db:
        count, last = db.execute(sa.select(sa.func.count(), sa.func.max(c.looked)).where(*mine)).one()
        if (count, last) == known.checked:
            return known
        found = db.scalars(sa.select(c.look["coverage"]).where(*mine).order_by(c.start))
        return CoverageState((count, last), tuple(one for one in found if one is not None))


def find_newest_window(engine: sa.Engine, project: str) -> WindowRecord | None:
    """The window that was checked last, or None."""
    return find_record(engine, WindowRecord, windows, windows.c.project == project, order=[windows.c.looked.desc()])


@dataclass(frozen=True)
class StretchCount:
    """A version's predictions in a stretch of time: how many, how many of them have a label, and when the last of these labels came.

    `estimated`: there are many, and their labels were counted in an even sample. `ids`: of many rows those with a label, where the
    ledger has few labels.
    """

    rows: int
    labelled: int
    known: str | None
    estimated: bool = False
    ids: tuple[str, ...] | None = None


# Labels of more rows are counted in a sample: each is looked up by itself.
MAX_COUNTED_ROWS = 200_000
# Of more rows the one received last is looked for in a sample.
_TRAFFIC_SAMPLE_ROWS = 5_000


def _of_version(project: str, version: int, start: str, end: str | None = None, tier: int = 0) -> list[Any]:
    """The condition for a version's rows of this tier and above in a stretch, as the index has them."""
    p = predictions.c
    mine = [p.project == project, p.version == version, p.tier.in_(TIERS[tier:]), p.time >= start]
    return mine if end is None else [*mine, p.time < end]


def read_traffic(engine: sa.Engine, project: str, version: int, since: str | None = None) -> PredictionTraffic:
    """What a version predicted from `since` on (included). Of many rows the one received last is that of an even sample."""
    p, start = predictions.c, since or _BEFORE_ALL_TIMES
    with open_snapshot(engine) as db:
        counted = sa.select(sa.func.count()).select_from(predictions)
        rows = db.scalar(counted.where(*_of_version(project, version, start))) or 0
        # The ends of each tier are found in the index; over all of them the database would compare every row.
        mine = (p.project == project, p.version == version, p.time >= start)
        each = [(end(p.time), tier) for tier in TIERS for end in (sa.func.min, sa.func.max)]
        ends = [sa.select(end).where(*mine, p.tier == tier) for end, tier in each]
        times = [time for time in db.scalars(sa.union_all(*ends)) if time is not None]
        first, newest = min(times, default=None), max(times, default=None)
        # The row that was received last: is its time about now, or is history being played?
        tier = find_sample_tier(rows, _TRAFFIC_SAMPLE_ROWS)
        last = sa.select(p.received, p.time).where(*_of_version(project, version, start, tier=tier))
        received, live = db.execute(last.order_by(p.received.desc(), p.time.desc()).limit(1)).first() or (None, None)
    return PredictionTraffic(int(rows), first, newest, received, live)


def count_window_rows(engine: sa.Engine, project: str, version: int, start: str, end: str) -> StretchCount:
    """How many predictions and labels a stretch has. Rows are counted whole, by the index alone."""
    p, counted = predictions.c, sa.select(sa.func.count()).select_from(predictions)
    with open_snapshot(engine) as db:
        rows = int(db.scalar(counted.where(*_of_version(project, version, start, end))) or 0)
    if rows > MAX_COUNTED_ROWS and (ids := list_labelled_ids(engine, project, MAX_COUNTED_ROWS)) is not None:
        query = PredictionQuery(since=start, until=end, version=version, ids=ids)
        held = [(row.id, row.known or "") for row in read_labelled_predictions(engine, project, query)]
        known = max((at for _, at in held), default=None)
        return StretchCount(rows, len(held), known, ids=tuple(sorted({id for id, _ in held})))
    tier = 0 if rows <= MAX_COUNTED_ROWS else find_sample_tier(rows, MAX_COUNTED_ROWS // 10)
    mine = _of_version(project, version, start, end, tier)
    last = sa.select(sa.func.max(labels.c.received)).where(labels.c.project == project, labels.c.id == p.id)
    each = sa.select(last.scalar_subquery().label("known")).select_from(predictions).where(*mine).subquery()
    with open_snapshot(engine) as db:
        read, labelled, known = db.execute(
            sa.select(sa.func.count(), sa.func.count(each.c.known), sa.func.max(each.c.known))
        ).one()
    if tier:
        labelled = round(rows * labelled / max(read, 1))
    return StretchCount(rows, labelled, known, tier > 0)


def read_prediction_times(engine: sa.Engine, project: str, version: int, since: str) -> list[str]:
    """The times of a version's predictions from `since` on (included), in order."""
    p = predictions.c
    query = sa.select(p.time).where(*_of_version(project, version, since)).order_by(p.time)
    with open_snapshot(engine) as db:
        return list(db.execute(query).scalars())


def count_labels(engine: sa.Engine, project: str) -> int:
    """How many labels the ledger holds: by which new ones are noticed."""
    with open_snapshot(engine) as db:
        return int(db.scalar(sa.select(sa.func.count()).where(labels.c.project == project)) or 0)
