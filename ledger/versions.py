"""Registered versions, how they were judged, and which of them serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger import decisions
from windvane.ledger.failpoints import reached
from windvane.ledger.leases import Lease, check
from windvane.ledger.schema import judgements, promotions, versions
from windvane.ledger.store import now, reading


class ChampionMoved(RuntimeError):
    """The champion that a challenger was judged against no longer serves."""


@dataclass(frozen=True)
class Version:
    """A registered version: where its model lies, and the hash that its manifest must have."""

    version: int
    fingerprint: str
    run_id: str
    model_uri: str
    manifest_sha256: str
    record_sha256: str
    data_version: str
    taught_until: str | None
    facts: dict[str, Any]
    registered: str

    @property
    def collected(self) -> str | None:
        """When its model files were deleted (flows/cleaning.py); None: they are there, and it may serve."""
        moment: str | None = self.facts.get("collected")
        return moment


@dataclass(frozen=True)
class Judgement:
    """One verdict of the gate on a version; `against` is the champion it was compared with."""

    version: int
    against: int | None
    gate: str
    accepted: bool
    verdict: dict[str, Any]
    judged: str


@dataclass(frozen=True)
class Promotion:
    """The champion moved; cause is lap, manual, rollback (by hand), probation (by the watch) or adopted."""

    from_version: int | None
    to_version: int
    cause: str
    reason: str
    promoted: str
    told: bool


def add(engine: sa.Engine, lease: Lease, version: Version) -> None:
    """Record a registered version; a second time for the same fingerprint changes nothing."""
    with engine.begin() as db:
        check(db, lease)
        known = (versions.c.project == lease.project, versions.c.fingerprint == version.fingerprint)
        if db.execute(sa.select(versions.c.version).where(*known)).one_or_none() is None:
            db.execute(sa.insert(versions).values(project=lease.project, **vars(version)))


def built_from(engine: sa.Engine, project: str, fingerprint: str) -> Version | None:
    """The version with this fingerprint, or None."""
    return _version(engine, project, versions.c.fingerprint == fingerprint)


def numbered(engine: sa.Engine, project: str, version: int) -> Version | None:
    """The version with this number, or None."""
    return _version(engine, project, versions.c.version == version)


def newest(engine: sa.Engine, project: str) -> Version | None:
    """The version that was registered last, or None."""
    last = sa.select(sa.func.max(versions.c.version)).where(versions.c.project == project).scalar_subquery()
    return _version(engine, project, versions.c.version == last)


def listed(engine: sa.Engine, project: str) -> tuple[Version, ...]:
    """Every version, in the order of their numbers."""
    wanted = [versions.c[name] for name in Version.__dataclass_fields__]
    query = sa.select(*wanted).where(versions.c.project == project).order_by(versions.c.version)
    with engine.connect() as db:
        return tuple(Version(**row) for row in db.execute(query).mappings())


def champions(engine: sa.Engine, project: str) -> tuple[int, ...]:
    """The versions that have served, each once, the last one first."""
    return tuple(dict.fromkeys(move.to_version for move in reversed(moves(engine, project))))


def verdicts(engine: sa.Engine, project: str) -> dict[int, Judgement]:
    """The newest verdict on each version that was judged."""
    wanted = ("version", "against", "gate", "accepted", "verdict", "judged")
    query = sa.select(*(judgements.c[name] for name in wanted)).where(judgements.c.project == project)
    with engine.connect() as db:
        return {row["version"]: Judgement(**row) for row in db.execute(query.order_by(judgements.c.id)).mappings()}


def moves(engine: sa.Engine, project: str) -> tuple[Promotion, ...]:
    """Every promotion, the oldest first."""
    wanted = [promotions.c[name] for name in Promotion.__dataclass_fields__]
    query = sa.select(*wanted).where(promotions.c.project == project).order_by(promotions.c.id)
    with engine.connect() as db:
        return tuple(Promotion(**row) for row in db.execute(query).mappings())


def collect(engine: sa.Engine, lease: Lease, version: int, at: str | None) -> bool:
    """Record that a version's model files are deleted from now on, or with None that they are there; False: it serves by now."""
    key = (versions.c.project == lease.project, versions.c.version == version)
    with engine.begin() as db:
        check(db, lease)
        _lock_promotions(db)
        last = _last(db, lease.project)
        if last is not None and version in (last.from_version, last.to_version):
            return False
        facts: dict[str, Any] = db.execute(sa.select(versions.c.facts).where(*key)).scalar_one()
        db.execute(sa.update(versions).where(*key).values(facts={**facts, "collected": at}))
    return True


def champion(engine: sa.Engine, project: str) -> Version | None:
    """The version that serves: the ledger's last promotion is the truth. None when nothing was ever promoted."""
    last = last_promotion(engine, project)
    return None if last is None else numbered(engine, project, last.to_version)


def last_promotion(engine: sa.Engine, project: str) -> Promotion | None:
    """The newest promotion, or None. Asked every second by a service: it must not wait for writers, nor they for it."""
    with reading(engine) as db:
        return _last(db, project)


def before(engine: sa.Engine, project: str, version: int) -> int | None:
    """The champion that `version` took over from when it last rose by itself or by hand, not by being put back."""
    query = sa.select(promotions.c.from_version).where(
        promotions.c.project == project,
        promotions.c.to_version == version,
        promotions.c.cause.not_in(("rollback", "probation")),
    )
    with engine.connect() as db:
        return db.scalar(query.order_by(promotions.c.id.desc()).limit(1))


def judged(engine: sa.Engine, project: str, version: int, gate: str) -> Judgement | None:
    """The newest verdict on a version under exactly this gate, or None."""
    wanted = ("version", "against", "gate", "accepted", "verdict", "judged")
    query = (
        sa.select(*(judgements.c[name] for name in wanted))
        .where(judgements.c.project == project, judgements.c.version == version, judgements.c.gate == gate)
        .order_by(judgements.c.id.desc())
        .limit(1)
    )
    with engine.connect() as db:
        row = db.execute(query).mappings().one_or_none()
    return None if row is None else Judgement(**row)


def times_judged(engine: sa.Engine, project: str, version: int) -> int:
    """How many verdicts this version has had."""
    mine = (judgements.c.project == project, judgements.c.version == version)
    with engine.connect() as db:
        return int(db.scalar(sa.select(sa.func.count()).select_from(judgements).where(*mine)) or 0)


def decide(engine: sa.Engine, lease: Lease, judgement: Judgement, move: Promotion | None, lap: str = "") -> None:
    """Record a verdict and, in the same transaction, the promotion that follows from it, and the end of the decision that
    the lap claimed: whatever happens afterwards, nobody carries it out again.

    Raises ChampionMoved when another version was promoted since the comparison, LeaseLost when the lap was overtaken.
    """
    with engine.begin() as db:
        check(db, lease)
        db.execute(sa.insert(judgements).values(project=lease.project, **vars(judgement)))
        if move is not None:
            _move(db, lease.project, move)
        reached("promote: before commit")
        note = f"{'promoted' if judgement.accepted else 'refused'}: {judgement.verdict.get('reason', '')}"
        decisions.settle(db, lease, lap, "done", note, judgement.version if move is not None else None)


def promote(engine: sa.Engine, project: str, move: Promotion) -> None:
    """Make a version champion by hand, without waiting for a lap that runs. Raises ChampionMoved."""
    with engine.begin() as db:
        _move(db, project, move)


def _move(db: sa.Connection, project: str, move: Promotion) -> None:
    _lock_promotions(db)
    last = _last(db, project)
    serving = None if last is None else last.to_version
    if serving != move.from_version:
        raise ChampionMoved(f"version {serving} was promoted meanwhile. Run the command again to compare with it")
    facts = db.scalar(
        sa.select(versions.c.facts).where(versions.c.project == project, versions.c.version == move.to_version)
    )
    if facts is not None and facts.get("collected") is not None:
        raise ChampionMoved(
            f"the model files of version {move.to_version} were deleted meanwhile. Promote another version"
        )
    db.execute(sa.insert(promotions).values(project=project, **vars(move)))


def _lock_promotions(db: sa.Connection) -> None:
    if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyhow
        db.execute(sa.text("LOCK TABLE promotions IN SHARE ROW EXCLUSIVE MODE"))


def promotion(from_version: int | None, to_version: int, cause: str, reason: str) -> Promotion:
    """A promotion that happens now."""
    return Promotion(from_version, to_version, cause, reason, now(), told=False)


def told(engine: sa.Engine, project: str, move: Promotion) -> None:
    """Record that MLflow's alias now says what this promotion says."""
    this = (
        promotions.c.project == project,
        promotions.c.promoted == move.promoted,
        promotions.c.to_version == move.to_version,
    )
    with engine.begin() as db:
        db.execute(sa.update(promotions).where(*this).values(told=True))


def _version(engine: sa.Engine, project: str, which: sa.ColumnElement[bool]) -> Version | None:
    wanted = [versions.c[name] for name in Version.__dataclass_fields__]
    with engine.connect() as db:
        row = db.execute(sa.select(*wanted).where(versions.c.project == project, which)).mappings().one_or_none()
    return None if row is None else Version(**row)


def _last(db: sa.Connection, project: str) -> Promotion | None:
    wanted = [promotions.c[name] for name in Promotion.__dataclass_fields__]
    query = sa.select(*wanted).where(promotions.c.project == project).order_by(promotions.c.id.desc()).limit(1)
    row = db.execute(query).mappings().one_or_none()
    return None if row is None else Promotion(**row)
