"""Registered versions, the gate's verdicts on them, which of them serves, and the openings of the sealed test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from windvane.ledger import decisions
from windvane.ledger.database import is_among, now_timestamp, open_snapshot
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.laps import Lease, check_lease
from windvane.ledger.schema import judged_rows, judgements, openings, promotions, versions


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
        """When its model files were deleted (flows/cleanup.py); None: they are there, and it may serve."""
        moment: str | None = self.facts.get("collected")
        return moment


@dataclass(frozen=True)
class GateJudgement:
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


def record_version(engine: sa.Engine, lease: Lease, version: Version) -> None:
    """Record a registered version; a second time for the same fingerprint changes nothing."""
    with engine.begin() as db:
        check_lease(db, lease)
        known = (versions.c.project == lease.project, versions.c.fingerprint == version.fingerprint)
        if db.execute(sa.select(versions.c.version).where(*known)).one_or_none() is None:
            db.execute(sa.insert(versions).values(project=lease.project, **vars(version)))


def find_version_by_fingerprint(engine: sa.Engine, project: str, fingerprint: str) -> Version | None:
    """The version with this fingerprint, or None."""
    return _read_version(engine, project, versions.c.fingerprint == fingerprint)


def find_version(engine: sa.Engine, project: str, version: int) -> Version | None:
    """The version with this number, or None."""
    return _read_version(engine, project, versions.c.version == version)


def find_newest_version(engine: sa.Engine, project: str) -> Version | None:
    """The version that was registered last, or None."""
    last = sa.select(sa.func.max(versions.c.version)).where(versions.c.project == project).scalar_subquery()
    return _read_version(engine, project, versions.c.version == last)


def list_versions(engine: sa.Engine, project: str) -> tuple[Version, ...]:
    """Every version, in the order of their numbers."""
    wanted = [versions.c[name] for name in Version.__dataclass_fields__]
    query = sa.select(*wanted).where(versions.c.project == project).order_by(versions.c.version)
    with engine.connect() as db:
        return tuple(Version(**row) for row in db.execute(query).mappings())


def list_champions(engine: sa.Engine, project: str) -> tuple[int, ...]:
    """The versions that have served, each once, the last one first."""
    return tuple(dict.fromkeys(move.to_version for move in reversed(list_promotions(engine, project))))


def read_newest_judgements(engine: sa.Engine, project: str) -> dict[int, GateJudgement]:
    """The newest verdict on each version that was judged."""
    wanted = ("version", "against", "gate", "accepted", "verdict", "judged")
    query = sa.select(*(judgements.c[name] for name in wanted)).where(judgements.c.project == project)
    with engine.connect() as db:
        return {row["version"]: GateJudgement(**row) for row in db.execute(query.order_by(judgements.c.id)).mappings()}


def list_promotions(engine: sa.Engine, project: str) -> tuple[Promotion, ...]:
    """Every promotion, the oldest first."""
    wanted = [promotions.c[name] for name in Promotion.__dataclass_fields__]
    query = sa.select(*wanted).where(promotions.c.project == project).order_by(promotions.c.id)
    with engine.connect() as db:
        return tuple(Promotion(**row) for row in db.execute(query).mappings())


def record_deleted_files(engine: sa.Engine, lease: Lease, version: int, at: str | None) -> bool:
    """Record that a version's model files are deleted from now on, or with None that they are there; False: it serves by now."""
    key = (versions.c.project == lease.project, versions.c.version == version)
    with engine.begin() as db:
        check_lease(db, lease)
        _lock_promotions(db)
        last = _read_last_promotion(db, lease.project)
        if last is not None and version in (last.from_version, last.to_version):
            return False
        facts: dict[str, Any] = db.execute(sa.select(versions.c.facts).where(*key)).scalar_one()
        db.execute(sa.update(versions).where(*key).values(facts={**facts, "collected": at}))
    return True


def find_champion(engine: sa.Engine, project: str) -> Version | None:
    """The version that serves: the ledger's last promotion is the truth. None when nothing was ever promoted."""
    last = find_last_promotion(engine, project)
    return None if last is None else find_version(engine, project, last.to_version)


def find_last_promotion(engine: sa.Engine, project: str) -> Promotion | None:
    """The newest promotion, or None. Asked every second by a service: it must not wait for writers, nor they for it."""
    with open_snapshot(engine) as db:
        return _read_last_promotion(db, project)


def find_previous_champion(engine: sa.Engine, project: str, version: int) -> int | None:
    """The champion that `version` took over from when it last rose by itself or by hand, not by being put back."""
    query = sa.select(promotions.c.from_version).where(
        promotions.c.project == project,
        promotions.c.to_version == version,
        promotions.c.cause.not_in(("rollback", "probation")),
    )
    with engine.connect() as db:
        return db.scalar(query.order_by(promotions.c.id.desc()).limit(1))


def find_judgement(engine: sa.Engine, project: str, version: int, gate: str) -> GateJudgement | None:
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
    return None if row is None else GateJudgement(**row)


def count_judgements(engine: sa.Engine, project: str, version: int) -> int:
    """How many verdicts this version has had."""
    mine = (judgements.c.project == project, judgements.c.version == version)
    with engine.connect() as db:
        return int(db.scalar(sa.select(sa.func.count()).select_from(judgements).where(*mine)) or 0)


def record_judgement(
    engine: sa.Engine, lease: Lease, judgement: GateJudgement, move: Promotion | None, lap: str = ""
) -> None:
    """Record a verdict and, in the same transaction, the promotion that follows from it, and the end of the decision that
    the lap claimed: whatever happens afterwards, nobody carries it out again.

    Raises ChampionMoved when another version was promoted since the comparison, LeaseLost when the lap was overtaken.
    """
    with engine.begin() as db:
        check_lease(db, lease)
        db.execute(sa.insert(judgements).values(project=lease.project, **vars(judgement)))
        if move is not None:
            _insert_promotion(db, lease.project, move)
        hit_failpoint("promote: before commit")
        note = f"{'promoted' if judgement.accepted else 'refused'}: {judgement.verdict.get('reason', '')}"
        decisions.settle_claimed_decision(db, lease, lap, "done", note, judgement.version if move is not None else None)


def record_promotion(engine: sa.Engine, project: str, move: Promotion) -> None:
    """Make a version champion by hand, without waiting for a lap that runs. Raises ChampionMoved."""
    with engine.begin() as db:
        _insert_promotion(db, project, move)


def _insert_promotion(db: sa.Connection, project: str, move: Promotion) -> None:
    _lock_promotions(db)
    last = _read_last_promotion(db, project)
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


def make_promotion(from_version: int | None, to_version: int, cause: str, reason: str) -> Promotion:
    """A promotion that happens now."""
    return Promotion(from_version, to_version, cause, reason, now_timestamp(), told=False)


def record_alias_update(engine: sa.Engine, project: str, move: Promotion) -> None:
    """Record that MLflow's alias now says what this promotion says."""
    this = (
        promotions.c.project == project,
        promotions.c.promoted == move.promoted,
        promotions.c.to_version == move.to_version,
    )
    with engine.begin() as db:
        db.execute(sa.update(promotions).where(*this).values(told=True))


def _read_version(engine: sa.Engine, project: str, which: sa.ColumnElement[bool]) -> Version | None:
    wanted = [versions.c[name] for name in Version.__dataclass_fields__]
    with engine.connect() as db:
        row = db.execute(sa.select(*wanted).where(versions.c.project == project, which)).mappings().one_or_none()
    return None if row is None else Version(**row)


def _read_last_promotion(db: sa.Connection, project: str) -> Promotion | None:
    wanted = [promotions.c[name] for name in Promotion.__dataclass_fields__]
    query = sa.select(*wanted).where(promotions.c.project == project).order_by(promotions.c.id.desc()).limit(1)
    row = db.execute(query).mappings().one_or_none()
    return None if row is None else Promotion(**row)


# Rows per statement, so that no lock is held for long.
OPENING_CHUNK_ROWS = 10_000


@dataclass(frozen=True)
class SplitOpening:
    """The test side of one fingerprint: opened when, and the hash of the predictions that were stored then."""

    fingerprint: str
    attempts: int
    record_sha256: str | None


def find_opening(engine: sa.Engine, project: str, fingerprint: str) -> SplitOpening | None:
    """The opening of this fingerprint, or None when its test side is still sealed."""
    query = sa.select(openings).where(openings.c.project == project, openings.c.fingerprint == fingerprint)
    with engine.connect() as db:
        row = db.execute(query).one_or_none()
    return None if row is None else SplitOpening(row.fingerprint, row.attempts, row.record_sha256)


def open_test_split(engine: sa.Engine, project: str, fingerprint: str) -> SplitOpening:
    """Record, before it happens, that the test side is about to be opened.

    An opening that was cut off before its record was stored may be repeated (the fit is deterministic) and is counted.
    """
    key = (openings.c.project == project, openings.c.fingerprint == fingerprint)
    with engine.begin() as db:
        row = db.execute(sa.select(openings).where(*key)).one_or_none()
        if row is None:
            db.execute(
                sa.insert(openings).values(project=project, fingerprint=fingerprint, opened=now_timestamp(), attempts=1)
            )
            return SplitOpening(fingerprint, 1, None)
        if row.record_sha256 is None:
            db.execute(sa.update(openings).where(*key).values(attempts=row.attempts + 1))
        return SplitOpening(fingerprint, row.attempts + (row.record_sha256 is None), row.record_sha256)


def close_test_split(
    engine: sa.Engine, project: str, fingerprint: str, record_sha256: str, rows: Sequence[int]
) -> None:
    """Record that the predictions are stored under this hash, and that each of these rows has judged once more."""
    key = (openings.c.project == project, openings.c.fingerprint == fingerprint, openings.c.record_sha256.is_(None))
    unique = sorted(set(rows))
    with engine.begin() as db:
        done = db.execute(sa.update(openings).where(*key).values(record_sha256=record_sha256, rows=len(rows)))
        if done.rowcount == 0:
            return
        for chunk in _chunks(unique):
            known = set(
                db.scalars(
                    sa.select(judged_rows.c.row).where(
                        judged_rows.c.project == project, is_among(db.dialect, judged_rows.c.row, chunk)
                    )
                )
            )
            if known:
                mine = (judged_rows.c.project == project, is_among(db.dialect, judged_rows.c.row, sorted(known)))
                db.execute(sa.update(judged_rows).where(*mine).values(times=judged_rows.c.times + 1))
            if new := [{"project": project, "row": row, "times": 1} for row in chunk if row not in known]:
                db.execute(sa.insert(judged_rows), new)


def count_earlier_judgements(engine: sa.Engine, project: str, rows: Sequence[int]) -> dict[int, int]:
    """How often each of these rows has judged a lap so far; rows that never did are left out."""
    found: dict[int, int] = {}
    with engine.connect() as db:
        for chunk in _chunks(sorted(set(rows))):
            query = sa.select(judged_rows.c.row, judged_rows.c.times)
            found.update(
                (r, t)
                for r, t in db.execute(
                    query.where(judged_rows.c.project == project, is_among(db.dialect, judged_rows.c.row, chunk))
                )
            )
    return found


def _chunks(rows: list[int]) -> list[list[int]]:
    return [rows[i : i + OPENING_CHUNK_ROWS] for i in range(0, len(rows), OPENING_CHUNK_ROWS)]
