"""What people are told when the state changes: recorded before it is sent, each state once in a row."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from windvane.ledger.schema import notices
from windvane.ledger.store import now, reading

# So often a notice is tried, then it is old news.
MOST_TRIES = 20


@dataclass(frozen=True)
class Notice:
    """A change of state, in words; `told`: when it was taken."""

    id: int
    state: str
    text: str
    recorded: str
    told: str | None
    tries: int


def add(engine: sa.Engine, project: str, state: str, text: str) -> bool:
    """Record a change of state; False where the state is this one already. Nobody is told that all is well at the start."""
    state = state[:100]
    with engine.begin() as db:
        if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyhow
            db.execute(sa.text("LOCK TABLE notices IN SHARE ROW EXCLUSIVE MODE"))
        c = notices.c
        before = db.scalar(sa.select(c.state).where(c.project == project).order_by(c.id.desc()).limit(1))
        if state == before or (before is None and state == "ok"):
            return False
        db.execute(sa.insert(notices).values(project=project, state=state, text=text, recorded=now(), tries=0))
        return True


def untold(engine: sa.Engine, project: str) -> tuple[Notice, ...]:
    """Notices that nobody has taken yet, oldest first."""
    c = notices.c
    return _listed(engine, c.project == project, c.told.is_(None), c.tries < MOST_TRIES)


def listed(engine: sa.Engine, project: str) -> tuple[Notice, ...]:
    """All of them, oldest first."""
    return _listed(engine, notices.c.project == project)


def tried(engine: sa.Engine, id: int, taken: bool) -> None:
    """Record a try, and whether it was taken."""
    with engine.begin() as db:
        new = {"tries": notices.c.tries + 1, **({"told": now()} if taken else {})}
        db.execute(sa.update(notices).where(notices.c.id == id).values(**new))


def _listed(engine: sa.Engine, *where: sa.ColumnElement[bool]) -> tuple[Notice, ...]:
    query = sa.select(*(notices.c[name] for name in Notice.__dataclass_fields__)).where(*where)
    with reading(engine) as db:
        return tuple(Notice(**row) for row in db.execute(query.order_by(notices.c.id)).mappings())
