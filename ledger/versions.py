"""Registered versions, the gate's verdicts on them, which of them serves, and the openings of the sealed test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from windvane.ledger import decisions
from windvane.ledger.database import (
    build_upsert,
    find_record,
    is_among,
    now_timestamp,
    open_snapshot,
    read_records,
    split_chunks,
    update_rows,
)
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.laps import Lease, check_lease
from windvane.ledger.schema import judged_rows, judgements, openings, promotions, versions


class ChampionMoved(RuntimeError):
    """The champion that a challenger was judged against no longer serves."""


@dataclass(frozen=True)
class VersionFacts:
    """What its lap knew of a version: the configuration, what it was trained on, and how it did. Empty: not written down.

    positive: which of two classes metrics and threshold are of. columns: by group, as features.FeatureColumns has them. history:
    retrain.history. sides: the settings of the split. taught_until: the newest row that it was fitted on. id, time: those of the
    problem. summary: what people see of it. bulk: which engine predicts large batches sooner. memory: what the scorer needs for it.
    digest: the run keeps what its table looked like. rows: of a simulated lap. classes: where no engine's file names them.
    collected: when its model files were deleted.
    """

    kind: str = ""
    target: str = ""
    metric: str = ""
    positive: bool | float | str | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    history: str | None = None
    sides: dict[str, Any] = field(default_factory=dict)
    taught_until: str | float | None = None
    id: str | None = None
    time: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    bulk: dict[str, Any] | None = None
    memory: dict[str, int] | None = None
    digest: bool = False
    rows: int = 0
    classes: Sequence[Any] | None = None
    collected: str | None = None

    @property
    def column_names(self) -> set[str]:
        """The columns that it learned from."""
        return {name for names in self.columns.values() for name in names}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> VersionFacts:
        """The facts that to_json() wrote; what else is there is for others."""
        return cls(**{name: content[name] for name in cls.__dataclass_fields__ if name in content})

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger and MLflow. What few versions have is left out of the others."""
        left_out = {name for name in ("rows", "classes", "collected") if not getattr(self, name)}
        return {name: value for name, value in vars(self).items() if name not in left_out}


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
    facts: VersionFacts
    registered: str

    @property
    def collected(self) -> str | None:
        """When its model files were deleted (flows/cleanup.py); None: they are there, and it may serve."""
        return self.facts.collected

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Version:
        """The version that to_json() wrote, or that is in the ledger."""
        return cls(**{**content, "facts": VersionFacts.from_json(content["facts"])})

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger and MLflow."""
        return {**vars(self), "facts": self.facts.to_json()}


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
    """The champion moved; cause is lap, manual, rollback (manual), probation (by monitoring) or adopted."""

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
            db.execute(sa.insert(versions).values(project=lease.project, **version.to_json()))


def find_version_by_fingerprint(engine: sa.Engine, project: str, fingerprint: str) -> Version | None:
    """The version with this fingerprint, or None."""
    return next(iter(list_versions(engine, project, versions.c.fingerprint == fingerprint)), None)


def find_version(engine: sa.Engine, project: str, version: int) -> Version | None:
    """The version with this number, or None."""
    return next(iter(list_versions(engine, project, versions.c.version == version)), None)


def find_newest_version(engine: sa.Engine, project: str) -> Version | None:
    """The version that was registered last, or None."""
    last = sa.select(sa.func.max(versions.c.version)).where(versions.c.project == project).scalar_subquery()
    return next(iter(list_versions(engine, project, versions.c.version == last)), None)


def list_versions(engine: sa.Engine, project: str, *which: sa.ColumnElement[bool]) -> tuple[Version, ...]:
    """Every version, or those that meet the conditions, in the order of their numbers."""
    wanted = [versions.c[name] for name in Version.__dataclass_fields__]
    query = sa.select(*wanted).where(versions.c.project == project, *which).order_by(versions.c.version)
    with open_snapshot(engine) as db:
        return tuple(Version.from_json(dict(row)) for row in db.execute(query).mappings())


def list_champions(engine: sa.Engine, project: str) -> tuple[int, ...]:
    """The versions that have served, each once, the last one first."""
    return tuple(dict.fromkeys(move.to_version for move in reversed(list_promotions(engine, project))))


def read_newest_judgements(engine: sa.Engine, project: str) -> dict[int, GateJudgement]:
    """The newest verdict on each version that was judged."""
    c = judgements.c
    judged = read_records(engine, GateJudgement, judgements, c.project == project, order=[c.id])
    return {judgement.version: judgement for judgement in judged}


def list_promotions(engine: sa.Engine, project: str) -> tuple[Promotion, ...]:
    """Every promotion, the oldest first."""
    c = promotions.c
    return read_records(engine, Promotion, promotions, c.project == project, order=[c.id])


def record_deleted_files(engine: sa.Engine, lease: Lease, version: int, at: str | None) -> bool:
    """Record that a version's model files are deleted from now on, or with None that they are there; False: it serves by now."""
    key = (versions.c.project == lease.project, versions.c.version == version)
    with engine.begin() as db:
        check_lease(db, lease)
        _lock_promotions(db)
        last = find_last_promotion(db, lease.project)
        if last is not None and version in (last.from_version, last.to_version):
            return False
        facts = db.execute(sa.select(versions.c.facts).where(*key)).scalar_one()
        db.execute(sa.update(versions).where(*key).values(facts={**facts, "collected": at}))
    return True


def find_champion(engine: sa.Engine, project: str) -> Version | None:
    """The version that serves: the ledger's last promotion is the truth. None when nothing was ever promoted."""
    last = find_last_promotion(engine, project)
    return None if last is None else find_version(engine, project, last.to_version)


def find_last_promotion(db: sa.Engine | sa.Connection, project: str) -> Promotion | None:
    """The newest promotion, or None. Read every second by a service: it must not wait for writers, nor they for it."""
    c = promotions.c
    return find_record(db, Promotion, promotions, c.project == project, order=[c.id.desc()])


def find_previous_champion(engine: sa.Engine, project: str, version: int) -> int | None:
    """The champion that `version` took over from when it last rose by itself or manually, not by being put back."""
    c = promotions.c
    rose = (c.project == project, c.to_version == version, c.cause.not_in(("rollback", "probation")))
    last = find_record(engine, Promotion, promotions, *rose, order=[c.id.desc()])
    return None if last is None else last.from_version


def find_judgement(engine: sa.Engine, project: str, version: int, gate: str) -> GateJudgement | None:
    """The newest verdict on a version under exactly this gate, or None."""
    c = judgements.c
    same = (c.project == project, c.version == version, c.gate == gate)
    return find_record(engine, GateJudgement, judgements, *same, order=[c.id.desc()])


def count_judgements(engine: sa.Engine, project: str, version: int) -> int:
    """How many verdicts this version has had."""
    mine = (judgements.c.project == project, judgements.c.version == version)
    with engine.connect() as db:
        return int(db.scalar(sa.select(sa.func.count()).select_from(judgements).where(*mine)) or 0)


def record_judgement(
    engine: sa.Engine, lease: Lease, judgement: GateJudgement, move: Promotion | None, lap: str = ""
) -> None:
    """Record a verdict and, in the same transaction, the promotion that follows from it, and the end of the decision that
    the lap claimed: whatever happens afterwards, it is never carried out again.

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
    """Make a version champion manually, without waiting for a lap that runs. Raises ChampionMoved."""
    with engine.begin() as db:
        _insert_promotion(db, project, move)


def _insert_promotion(db: sa.Connection, project: str, move: Promotion) -> None:
    _lock_promotions(db)
    last = find_last_promotion(db, project)
    serving = None if last is None else last.to_version
    if serving != move.from_version:
        raise ChampionMoved(f"version {serving} was promoted meanwhile. Run the command again to compare with it")
    mine = (versions.c.project == project, versions.c.version == move.to_version)
    facts = db.scalar(sa.select(versions.c.facts).where(*mine)) or {}
    if facts.get("collected") is not None:
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
    """Record that MLflow's alias now is what this promotion made it."""
    c = promotions.c
    this = (c.project == project, c.promoted == move.promoted, c.to_version == move.to_version)
    update_rows(engine, promotions, *this, told=True)


@dataclass(frozen=True)
class SplitOpening:
    """The test split of one fingerprint: opened when, and the hash of the predictions that were stored then."""

    fingerprint: str
    attempts: int
    record_sha256: str | None


def find_opening(engine: sa.Engine, project: str, fingerprint: str) -> SplitOpening | None:
    """The opening of this fingerprint, or None when its test split is still sealed."""
    c = openings.c
    return find_record(engine, SplitOpening, openings, c.project == project, c.fingerprint == fingerprint)


def open_test_split(engine: sa.Engine, project: str, fingerprint: str) -> SplitOpening:
    """Record, before it happens, that the test split is about to be opened.

    An opening that was cut off before its record was stored may be repeated (the fit is deterministic) and is counted.
    """
    key = (openings.c.project == project, openings.c.fingerprint == fingerprint)
    with engine.begin() as db:
        known = find_record(db, SplitOpening, openings, *key)
        if known is None:
            known = SplitOpening(fingerprint, 1, None)
            db.execute(sa.insert(openings).values(project=project, opened=now_timestamp(), **vars(known)))
        elif known.record_sha256 is None:
            known = replace(known, attempts=known.attempts + 1)
            db.execute(sa.update(openings).where(*key).values(attempts=known.attempts))
        return known


def close_test_split(
    engine: sa.Engine, project: str, fingerprint: str, record_sha256: str, rows: Sequence[int]
) -> None:
    """Record that the predictions are stored under this hash, and that each of these rows has judged once more."""
    key = (openings.c.project == project, openings.c.fingerprint == fingerprint, openings.c.record_sha256.is_(None))
    again = {"times": judged_rows.c.times + 1}
    with engine.begin() as db:
        if not db.execute(sa.update(openings).where(*key).values(record_sha256=record_sha256, rows=len(rows))).rowcount:
            return
        count = build_upsert(db.dialect, judged_rows).on_conflict_do_update(
            index_elements=["project", "row"], set_=again
        )
        for chunk in split_chunks(sorted(set(rows))):
            db.execute(count, [{"project": project, "row": row, "times": 1} for row in chunk])


def count_earlier_judgements(engine: sa.Engine, project: str, rows: Sequence[int]) -> dict[int, int]:
    """How often each of these rows has judged a lap so far; rows that never did are left out."""
    found: dict[int, int] = {}
    query = sa.select(judged_rows.c.row, judged_rows.c.times).where(judged_rows.c.project == project)
    with open_snapshot(engine) as db:
        for chunk in split_chunks(sorted(set(rows))):
            listed = db.execute(query.where(is_among(db.dialect, judged_rows.c.row, chunk)))
            found |= dict(listed.tuples().all())
    return found
