"""The outbox of the watch: decisions, each of at most one finished lap, and notices; recorded before anything follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from windvane.ledger.database import find_record, make_id, now_timestamp, read_records, update_rows
from windvane.ledger.laps import Lease, check_lease
from windvane.ledger.schema import decisions, notices

DecisionState = Literal["recorded", "told", "claimed", "done", "skipped"]
OPEN_DECISION_STATES = ("recorded", "told", "claimed")
# The note of a stop whose data a person has accepted as they are.
ACKNOWLEDGED_NOTE = "acknowledged"
# So many laps may die over a decision: then it is given up, and the next check of production decides.
MAX_CLAIMS = 5


class RetrainingAlreadyOpen(RuntimeError):
    """A decision to retrain is under way: there is at most one at a time."""


@dataclass(frozen=True)
class DecisionRecord:
    """A decision about a version's window (by its start). `at`: the moment in the events' own time, ledger text.

    made: the version that came of it; realised: what that saved, in the units of `gain` (monitoring/records.py).
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
    state: DecisionState = "recorded"
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
        return self.state in OPEN_DECISION_STATES


def record_decision(engine: sa.Engine, entry: DecisionRecord) -> DecisionRecord:
    """Put a decision on record, and return it with its id; one to wait is done at once, the others are open.

    Anything but waiting is decided once per version, window and action: a second time returns the first.
    Raises RetrainingAlreadyOpen for a retraining while another one is under way.
    """
    new = {**vars(entry), "id": make_id(), "recorded": now_timestamp()}
    if entry.action == "wait":
        new |= {"state": "done", "ended": new["recorded"]}
    try:
        with engine.begin() as db:
            if (known := _find_same_decision(db, entry)) is not None:
                return known
            if entry.action == "retrain" and (under_way := find_pending_retraining(db, entry.project)) is not None:
                raise RetrainingAlreadyOpen(f"the retraining decided {under_way.recorded[:19]}Z is under way")
            db.execute(sa.insert(decisions).values(**new))
    except sa.exc.IntegrityError:  # two at once in PostgreSQL, where reading locks nothing
        with engine.begin() as db:
            if (known := _find_same_decision(db, entry)) is not None:
                return known
        raise RetrainingAlreadyOpen("a retraining that was decided meanwhile is under way") from None
    return DecisionRecord(**new)


def record_announcement(engine: sa.Engine, id: str) -> None:
    """Record that the actor has been notified; a second time, or too late, changes nothing."""
    this = (decisions.c.id == id, decisions.c.state == "recorded")
    update_rows(engine, decisions, *this, state="told", told=now_timestamp())


def claim_decision(engine: sa.Engine, lease: Lease, id: str, lap: str) -> DecisionRecord | None:
    """Make the decision this lap's, or return None: it has ended, or is another project's.

    Taken over from a lap with an older token: its process is gone, since we hold the lease. Raises LeaseLost.
    """
    with engine.begin() as db:
        check_lease(db, lease)
        this = (decisions.c.id == id, decisions.c.project == lease.project, decisions.c.state.in_(OPEN_DECISION_STATES))
        found = find_record(db, DecisionRecord, decisions, *this)
        if found is None or (found.state == "claimed" and found.token == lease.token and found.lap != lap):
            return None
        if found.claims >= MAX_CLAIMS and found.lap != lap:
            note = f"given up: {found.claims} laps were killed over it. Inspect their runs, then: windvane train"
            db.execute(sa.update(decisions).where(*this).values(state="skipped", note=note, ended=now_timestamp()))
            return None
        new = {"state": "claimed", "lap": lap, "token": lease.token}
        new |= {"claims": found.claims + (found.lap != lap), "told": found.told or now_timestamp()}
        db.execute(sa.update(decisions).where(*this).values(**new))
        return DecisionRecord(**{**vars(found), **new})


def settle_claimed_decision(
    db: sa.Connection, lease: Lease, lap: str, state: Literal["done", "skipped"], note: str, made: int | None = None
) -> bool:
    """In the caller's transaction: end the decision that this lap claimed; whether there was one. Call after leases.check()."""
    c = decisions.c
    mine = (c.project == lease.project, c.state == "claimed", c.lap == lap, c.token == lease.token)
    new = {"state": state, "note": note, "made": made, "ended": now_timestamp()}
    return bool(db.execute(sa.update(decisions).where(*mine).values(**new)).rowcount)


def finish_claimed_decision(
    engine: sa.Engine, lease: Lease, lap: str, state: Literal["done", "skipped"], note: str, made: int | None = None
) -> bool:
    """End the decision that this lap claimed, with what came of it; whether there was one. Raises LeaseLost."""
    with engine.begin() as db:
        check_lease(db, lease)
        return settle_claimed_decision(db, lease, lap, state, note, made)


def close_decision(engine: sa.Engine, id: str, state: Literal["done", "skipped"], note: str) -> bool:
    """End a decision that no lap has to do with (a stop, a rollback, a retraining that no lap claimed); whether it was open."""
    this = (decisions.c.id == id, decisions.c.state.in_(("recorded", "told")))
    return bool(update_rows(engine, decisions, *this, state=state, note=note, ended=now_timestamp()))


def record_realized_gain(engine: sa.Engine, id: str, gain: float) -> None:
    """Keep what a retraining really saved; the first figure stays."""
    update_rows(engine, decisions, decisions.c.id == id, decisions.c.realised.is_(None), realised=gain)


def find_pending_retraining(db: sa.Engine | sa.Connection, project: str) -> DecisionRecord | None:
    """The retraining that is open: recorded, sent or claimed. None: nothing is pending."""
    c = decisions.c
    return find_record(
        db, DecisionRecord, decisions, c.project == project, c.action == "retrain", c.state.in_(OPEN_DECISION_STATES)
    )


def find_open_stop(engine: sa.Engine, project: str) -> DecisionRecord | None:
    """The last stop that is open: data that seem broken, neither fixed nor accepted. None: nothing stops training."""
    c = decisions.c
    this = (c.project == project, c.action == "stop", c.state.in_(OPEN_DECISION_STATES))
    return find_record(engine, DecisionRecord, decisions, *this, order=[c.recorded.desc()])


def find_decision(engine: sa.Engine, id: str) -> DecisionRecord | None:
    """The decision with this id, or None."""
    return find_record(engine, DecisionRecord, decisions, decisions.c.id == id)


def list_decisions(
    engine: sa.Engine, project: str, *, acting: bool = False, since: str | None = None
) -> tuple[DecisionRecord, ...]:
    """Decisions in the order in which they were recorded; `acting`: without those to wait; `since`: by their own time."""
    c = decisions.c
    wanted = [c.project == project, *([c.action != "wait"] if acting else []), *([c.at >= since] if since else [])]
    return read_records(engine, DecisionRecord, decisions, *wanted, order=[c.recorded, c.id])


def find_last_decision(engine: sa.Engine, project: str) -> DecisionRecord | None:
    """The newest decision, to wait or not; None before the first."""
    c = decisions.c
    return find_record(engine, DecisionRecord, decisions, c.project == project, order=[c.recorded.desc(), c.id.desc()])


def _find_same_decision(db: sa.Connection, entry: DecisionRecord) -> DecisionRecord | None:
    if entry.action == "wait":
        return None
    same = [decisions.c[name] == getattr(entry, name) for name in ("project", "version", "window", "action")]
    return find_record(db, DecisionRecord, decisions, *same)


# So often a notice is tried, then it is old news.
MAX_NOTICE_TRIES = 20


@dataclass(frozen=True)
class Notice:
    """A change of state, in words; `told`: when it was taken."""

    id: int
    state: str
    text: str
    recorded: str
    told: str | None
    tries: int


def record_notice(engine: sa.Engine, project: str, state: str, text: str) -> bool:
    """Record a change of state; False where the state is this one already. No notice is sent that all is well at the start."""
    state = state[:100]
    with engine.begin() as db:
        if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyhow
            db.execute(sa.text("LOCK TABLE notices IN SHARE ROW EXCLUSIVE MODE"))
        c = notices.c
        before = db.scalar(sa.select(c.state).where(c.project == project).order_by(c.id.desc()).limit(1))
        if state == before or (before is None and state == "ok"):
            return False
        db.execute(
            sa.insert(notices).values(project=project, state=state, text=text, recorded=now_timestamp(), tries=0)
        )
        return True


def list_unsent_notices(engine: sa.Engine, project: str) -> tuple[Notice, ...]:
    """Notices that have not been sent yet, oldest first."""
    c = notices.c
    unsent = (c.project == project, c.told.is_(None), c.tries < MAX_NOTICE_TRIES)
    return read_records(engine, Notice, notices, *unsent, order=[c.id])


def list_notices(engine: sa.Engine, project: str) -> tuple[Notice, ...]:
    """All of them, oldest first."""
    return read_records(engine, Notice, notices, notices.c.project == project, order=[notices.c.id])


def record_notice_try(engine: sa.Engine, id: int, taken: bool) -> None:
    """Record a try, and whether it was taken."""
    new = {"tries": notices.c.tries + 1, **({"told": now_timestamp()} if taken else {})}
    update_rows(engine, notices, notices.c.id == id, **new)
