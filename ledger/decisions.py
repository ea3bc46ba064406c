"""Decisions, and the outbox that makes each of them end in at most one finished lap.

A decision is recorded before anybody is told: recorded -> told -> claimed -> done | skipped. A lap claims it under the project's
lease, and whatever ends it carries that lease's token: of two laps that both believe to have it, one finds that it has not. What
a decision is made from, and what it means, is monitoring's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from windvane.ledger.leases import Lease, check
from windvane.ledger.moments import make_id
from windvane.ledger.schema import decisions
from windvane.ledger.store import now, reading

State = Literal["recorded", "told", "claimed", "done", "skipped"]
OPEN = ("recorded", "told", "claimed")
# So many laps may die over a decision: then it is given up, and the next look at production decides anew.
MOST_CLAIMS = 5


class AlreadyOpen(RuntimeError):
    """A decision to retrain is under way: there is at most one at a time."""


@dataclass(frozen=True)
class Entry:
    """A decision about a version's window (by its start). `at`: the moment in the events' own time, ledger text.

    made: the version that came of it; realised: what that saved, in the units of `gain` (monitoring/evidence.py).
    """

    project: str
    version: int
    window: str
    at: str
    action: str
    reason: str
    depth: str | None = None
    remedy: str = "wait"
    evidence: Mapping[str, Any] = field(default_factory=dict)
    gain: float | None = None
    cost: float | None = None
    known_until: str | None = None
    id: str = ""
    recorded: str = ""
    state: State = "recorded"
    told: str | None = None
    lap: str | None = None
    token: int | None = None
    claims: int = 0
    ended: str | None = None
    note: str | None = None
    made: int | None = None
    realised: float | None = None

    @property
    def open(self) -> bool:
        """Whether somebody still has to do something about it."""
        return self.state in OPEN


def record(engine: sa.Engine, entry: Entry) -> Entry:
    """Put a decision on record, and return it with its id; one to wait is done at once, the others are open.

    Anything but waiting is decided once per version, window and action: a second time returns the first.
    Raises AlreadyOpen for a retraining while another one is under way.
    """
    new = {**vars(entry), "id": make_id(), "recorded": now()}
    if entry.action == "wait":
        new |= {"state": "done", "ended": new["recorded"]}
    try:
        with engine.begin() as db:
            if (known := _known(db, entry)) is not None:
                return known
            if entry.action == "retrain" and (under_way := _open(db, entry.project)) is not None:
                raise AlreadyOpen(f"the retraining decided {under_way.recorded[:19]}Z is under way")
            db.execute(sa.insert(decisions).values(**new))
    except sa.exc.IntegrityError:  # two at once in PostgreSQL, where looking locks nothing
        with engine.begin() as db:
            if (known := _known(db, entry)) is not None:
                return known
        raise AlreadyOpen("a retraining that was decided meanwhile is under way") from None
    return Entry(**new)


def tell(engine: sa.Engine, id: str) -> None:
    """Record that whoever acts on it has been told; a second time, or too late, changes nothing."""
    with engine.begin() as db:
        this = (decisions.c.id == id, decisions.c.state == "recorded")
        db.execute(sa.update(decisions).where(*this).values(state="told", told=now()))


def claim(engine: sa.Engine, lease: Lease, id: str, lap: str) -> Entry | None:
    """Make the decision this lap's, or return None: it has ended, or is another project's.

    Taken over from a lap with an older token: its process is gone, since we hold the lease. Raises LeaseLost.
    """
    with engine.begin() as db:
        check(db, lease)
        this = (decisions.c.id == id, decisions.c.project == lease.project, decisions.c.state.in_(OPEN))
        found = _entry(db, *this)
        if found is None or (found.state == "claimed" and found.token == lease.token and found.lap != lap):
            return None
        if found.claims >= MOST_CLAIMS and found.lap != lap:
            note = f"given up: {found.claims} laps were killed over it. Look at their runs, then: windvane train"
            db.execute(sa.update(decisions).where(*this).values(state="skipped", note=note, ended=now()))
            return None
        new = {"state": "claimed", "lap": lap, "token": lease.token}
        new |= {"claims": found.claims + (found.lap != lap), "told": found.told or now()}
        db.execute(sa.update(decisions).where(*this).values(**new))
        return Entry(**{**vars(found), **new})


def settle(
    db: sa.Connection, lease: Lease, lap: str, state: Literal["done", "skipped"], note: str, made: int | None = None
) -> bool:
    """In whoever's transaction: end the decision that this lap claimed; whether there was one. Call after leases.check()."""
    c = decisions.c
    mine = (c.project == lease.project, c.state == "claimed", c.lap == lap, c.token == lease.token)
    new = {"state": state, "note": note, "made": made, "ended": now()}
    return bool(db.execute(sa.update(decisions).where(*mine).values(**new)).rowcount)


def finish(
    engine: sa.Engine, lease: Lease, lap: str, state: Literal["done", "skipped"], note: str, made: int | None = None
) -> bool:
    """End the decision that this lap claimed, with what came of it; whether there was one. Raises LeaseLost."""
    with engine.begin() as db:
        check(db, lease)
        return settle(db, lease, lap, state, note, made)


def close(engine: sa.Engine, id: str, state: Literal["done", "skipped"], note: str) -> bool:
    """End a decision that no lap has to do with (a stop, a rollback, a retraining that nobody claimed); whether it was open."""
    with engine.begin() as db:
        this = (decisions.c.id == id, decisions.c.state.in_(("recorded", "told")))
        done = db.execute(sa.update(decisions).where(*this).values(state=state, note=note, ended=now()))
        return bool(done.rowcount)


def realise(engine: sa.Engine, id: str, gain: float) -> None:
    """Keep what a retraining really saved; the first figure stays."""
    with engine.begin() as db:
        this = (decisions.c.id == id, decisions.c.realised.is_(None))
        db.execute(sa.update(decisions).where(*this).values(realised=gain))


def pending(engine: sa.Engine, project: str) -> Entry | None:
    """The retraining that is open: recorded, told or claimed. None: nothing is owed."""
    with reading(engine) as db:
        return _open(db, project)


def numbered(engine: sa.Engine, id: str) -> Entry | None:
    """The decision with this id, or None."""
    with reading(engine) as db:
        return _entry(db, decisions.c.id == id)


def listed(engine: sa.Engine, project: str, *, acting: bool = False, since: str | None = None) -> tuple[Entry, ...]:
    """Decisions in the order in which they were recorded; `acting`: without those to wait; `since`: by their own time."""
    c = decisions.c
    query = _columns().where(c.project == project)
    query = query.where(c.action != "wait") if acting else query
    query = query if since is None else query.where(c.at >= since)
    with reading(engine) as db:
        return tuple(Entry(**row) for row in db.execute(query.order_by(c.recorded, c.id)).mappings())


def last(engine: sa.Engine, project: str) -> Entry | None:
    """The newest decision, to wait or not; None before the first."""
    c = decisions.c
    with reading(engine) as db:
        row = db.execute(_columns().where(c.project == project).order_by(c.recorded.desc(), c.id.desc()).limit(1))
        found = row.mappings().one_or_none()
    return None if found is None else Entry(**found)


def _known(db: sa.Connection, entry: Entry) -> Entry | None:
    if entry.action == "wait":
        return None
    c = decisions.c
    return _entry(
        db,
        c.project == entry.project,
        c.version == entry.version,
        c.window == entry.window,
        c.action == entry.action,
    )


def _open(db: sa.Connection, project: str) -> Entry | None:
    c = decisions.c
    return _entry(db, c.project == project, c.action == "retrain", c.state.in_(OPEN))


def _entry(db: sa.Connection, *where: sa.ColumnElement[bool]) -> Entry | None:
    row = db.execute(_columns().where(*where)).mappings().one_or_none()
    return None if row is None else Entry(**row)


def _columns() -> sa.Select[Any]:
    return sa.select(*(decisions.c[name] for name in Entry.__dataclass_fields__))
