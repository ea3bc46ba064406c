"""Openings of the sealed test side: once per fingerprint, and how often each row has judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from windvane.ledger.schema import judged_rows, openings
from windvane.ledger.store import among, now

# Rows per statement, so that no lock is held for long.
CHUNK = 10_000


@dataclass(frozen=True)
class Opening:
    """The test side of one fingerprint: opened when, and the hash of the predictions that were stored then."""

    fingerprint: str
    attempts: int
    record_sha256: str | None


def find(engine: sa.Engine, project: str, fingerprint: str) -> Opening | None:
    """The opening of this fingerprint, or None when its test side is still sealed."""
    query = sa.select(openings).where(openings.c.project == project, openings.c.fingerprint == fingerprint)
    with engine.connect() as db:
        row = db.execute(query).one_or_none()
    return None if row is None else Opening(row.fingerprint, row.attempts, row.record_sha256)


def open_side(engine: sa.Engine, project: str, fingerprint: str) -> Opening:
    """Record, before it happens, that the test side is about to be opened.

    An opening that was cut off before its record was stored may be repeated (the fit is deterministic) and is counted.
    """
    key = (openings.c.project == project, openings.c.fingerprint == fingerprint)
    with engine.begin() as db:
        row = db.execute(sa.select(openings).where(*key)).one_or_none()
        if row is None:
            db.execute(sa.insert(openings).values(project=project, fingerprint=fingerprint, opened=now(), attempts=1))
            return Opening(fingerprint, 1, None)
        if row.record_sha256 is None:
            db.execute(sa.update(openings).where(*key).values(attempts=row.attempts + 1))
        return Opening(fingerprint, row.attempts + (row.record_sha256 is None), row.record_sha256)


def close_side(engine: sa.Engine, project: str, fingerprint: str, record_sha256: str, rows: Sequence[int]) -> None:
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
                        judged_rows.c.project == project, among(db.dialect, judged_rows.c.row, chunk)
                    )
                )
            )
            if known:
                mine = (judged_rows.c.project == project, among(db.dialect, judged_rows.c.row, sorted(known)))
                db.execute(sa.update(judged_rows).where(*mine).values(times=judged_rows.c.times + 1))
            if new := [{"project": project, "row": row, "times": 1} for row in chunk if row not in known]:
                db.execute(sa.insert(judged_rows), new)


def judged_before(engine: sa.Engine, project: str, rows: Sequence[int]) -> dict[int, int]:
    """How often each of these rows has judged a lap so far; rows that never did are left out."""
    found: dict[int, int] = {}
    with engine.connect() as db:
        for chunk in _chunks(sorted(set(rows))):
            query = sa.select(judged_rows.c.row, judged_rows.c.times)
            found.update(
                (r, t)
                for r, t in db.execute(
                    query.where(judged_rows.c.project == project, among(db.dialect, judged_rows.c.row, chunk))
                )
            )
    return found


def _chunks(rows: list[int]) -> list[list[int]]:
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
