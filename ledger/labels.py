"""Ground truth as it is stated: late, repeated, corrected, in any order. Owns which label an id has, and had at any time.

A statement says: this id's label is this, as was known at that moment (`at`: the sender's, else the receipt). Statements are only
ever added. The label of an id is the one with the latest `at`, of two at the same moment the one whose text is greater: both
depend on what was stated alone, not on when it arrived. Knows nothing of problems: what a label may be is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson
import sqlalchemy as sa

from windvane.ledger.moments import moment
from windvane.ledger.schema import labels, predictions
from windvane.ledger.store import among, now, reading, upsert

# Ids per statement: as many are in memory at a time.
CHUNK = 5_000
LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True)
class Statement:
    """The label of an id: a number or a class's name. `at`: ledger text of when that was known; None: now."""

    id: str
    label: float | str
    at: str | None = None


@dataclass(frozen=True)
class HandedIn:
    """What came of statements: new ones with and without a prediction, repeated ones, and ids whose label is another now."""

    matched: int = 0
    unmatched: int = 0
    duplicates: int = 0
    changed: int = 0

    def __add__(self, other: HandedIn) -> HandedIn:
        return HandedIn(
            self.matched + other.matched,
            self.unmatched + other.unmatched,
            self.duplicates + other.duplicates,
            self.changed + other.changed,
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A prediction and its label; `at`: as of when the label was true, `known`: since when the ledger has it.

    The three are None for a prediction whose label has not come. `inputs` is None where they are not stored.
    """

    id: str
    time: str
    version: int
    role: str
    inputs: dict[str, Any] | None
    output: Any
    label: float | str | None
    at: str | None
    known: str | None


def hand_in(engine: sa.Engine, project: str, statements: Iterable[Statement], source: str = "file") -> HandedIn:
    """Record statements, all of them or none, and say what came of them. An id without a prediction is kept for later.

    A repeated statement changes nothing; without `at` it is a repeat while the id's label is what it says. `source`:
    `file`, `service`, ... (16 characters).
    """
    given = sorted((s.id, s.at is None, s.at or "", _text(s.label)) for s in statements)
    by_id = {id: [(at, text) for _, _, at, text in group] for id, group in groupby(given, key=lambda s: s[0])}
    pieces = list(chunks(list(by_id)))
    predicted = _predicted(engine, project, pieces)
    done = HandedIn()
    with engine.begin() as db:
        if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyhow
            db.execute(sa.text("LOCK TABLE labels IN SHARE ROW EXCLUSIVE MODE"))
        # Taken under the lock: what is received later is also seen later.
        new = {"project": project, "received": now(), "source": source}
        for ids in pieces:
            done += _hand_in(db, {id: by_id[id] for id in ids}, predicted, new)
    return done


def _predicted(engine: sa.Engine, project: str, pieces: list[Sequence[str]]) -> set[str]:
    """Those of the ids that have a prediction. Looked up before the lock is taken, which predictions wait for too."""
    mine = sa.select(predictions.c.id).where(predictions.c.project == project)
    with reading(engine) as db:
        return {id for ids in pieces for id in db.scalars(mine.where(among(engine.dialect, predictions.c.id, ids)))}


def _hand_in(
    db: sa.Connection, given: dict[str, list[tuple[str, str]]], predicted: set[str], new: dict[str, str]
) -> HandedIn:
    """One chunk: (at or nothing, label's text) per id, against what the ledger holds of these ids."""
    stated: dict[str, set[tuple[str, str]]] = {id: set() for id in given}
    mine = sa.select(labels.c.id, labels.c.at, labels.c.label).where(labels.c.project == new["project"])
    for id, at, text in db.execute(mine.where(among(db.dialect, labels.c.id, list(given)))):
        stated[id].add((at, text))
    rows, total, changed, matched = list[dict[str, Any]](), 0, 0, 0
    for id, pairs in given.items():
        before = max(stated[id], default=None)
        said = {(at or new["received"], text) for at, text in pairs if at or before is None or before[1] != text}
        fresh = said - stated[id]
        total += len(pairs)
        matched += len(fresh) * (id in predicted)
        changed += before is not None and max(stated[id] | fresh)[1] != before[1]
        rows += [{**new, "id": id, "at": at, "label": text} for at, text in sorted(fresh)]
    if rows:
        db.execute(upsert(db.dialect, labels).on_conflict_do_nothing(), rows)
    return HandedIn(matched, len(rows) - matched, total - len(rows), changed)


def resolved(
    engine: sa.Engine,
    project: str,
    until: Any = None,
    since: Any = None,
    *,
    known: Any = None,
    role: str = "champion",
    version: int | None = None,
    unlabelled: bool = False,
    inputs: bool = True,
) -> Iterator[Judged]:
    """Predictions from `since` (included) `until` (not) in their own time, each with its label, in the order of time.

    With `version`, what that one answered, in whichever role. With `known`, the join as it stood then: statements and
    predictions received up to that moment. With `unlabelled`, also predictions without a label. Streams in pieces from one
    snapshot, without `inputs` faster. Moments: as moments.moment().
    """
    p, query = predictions.c, _join(project, None if known is None else moment(known), unlabelled, inputs)
    query = query.where(p.project == project, p.role == role if version is None else p.version == version)
    if since is not None:
        query = query.where(p.time >= moment(since))
    if until is not None:
        query = query.where(p.time < moment(until))
    with reading(engine) as db:
        for row in db.execute(query.order_by(p.time, p.id, p.version, p.content)):
            yield Judged(*row[:4], *(None if text is None else orjson.loads(text) for text in row[4:7]), *row[7:])


def _join(project: str, known: str | None, unlabelled: bool, inputs: bool) -> sa.Select[Any]:
    p = predictions.c
    stored = sa.cast(p.inputs, sa.Text) if inputs else sa.null()
    said = (stored, sa.cast(p.output, sa.Text), labels.c.label)
    query = sa.select(p.id, p.time, p.version, p.role, *said, labels.c.at, labels.c.received)
    query = query.select_from(predictions.join(labels, winning(project, known), isouter=unlabelled))
    return query if known is None else query.where(p.received <= known)


def winning(project: str, known: str | None = None) -> sa.ColumnElement[bool]:
    """The condition that joins a prediction to the statement about it that no other one, received by then, is ahead of."""
    other = labels.alias("other")
    level = sa.and_(other.c.at == labels.c.at, other.c.label > labels.c.label)
    overruled = sa.exists().where(
        other.c.project == project, other.c.id == labels.c.id, sa.or_(other.c.at > labels.c.at, level)
    )
    mine = sa.and_(labels.c.project == project, labels.c.id == predictions.c.id)
    if known is None:
        return mine & ~overruled
    return mine & (labels.c.received <= known) & ~overruled.where(other.c.received <= known)


def _text(label: float | str) -> str:
    """A label as the ledger compares it: JSON, every number a float."""
    return orjson.dumps(label if isinstance(label, str) else float(label)).decode()


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids in pieces, a statement each."""
    return (ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK))
