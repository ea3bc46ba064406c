"""Labels in any order, late, repeated, corrected: which one an id had at any time, and labelled rows as a table to train on."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from heapq import nsmallest
from itertools import groupby, islice, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from windvane.ledger.database import (
    CHUNK_ITEMS,
    build_upsert,
    is_among,
    now_timestamp,
    open_snapshot,
    split_chunks,
    to_timestamp,
)
from windvane.ledger.decisions import ACKNOWLEDGED_NOTE
from windvane.ledger.predictions import TIERS, hash_draw
from windvane.ledger.schema import decisions, labels, predictions, versions, windows
from windvane.ledger.versions import VersionFacts

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LABEL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class LabelStatement:
    """The label of an id: a number or a class's name. `at`: ledger text of when that was known; None: now."""

    id: str
    label: float | str
    at: str | None = None


class ContradictingLabels(ValueError):
    """Two labels of one id as of the same moment: none of them is recorded."""


@dataclass(frozen=True)
class LabelCounts:
    """What came of statements: new ones with and without a prediction, repeated ones, and ids whose label is another now.

    empty: rows beside them that have no label yet.
    """

    matched: int = 0
    unmatched: int = 0
    duplicates: int = 0
    changed: int = 0
    empty: int = 0

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
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


def record_labels(
    engine: sa.Engine, project: str, statements: Iterable[LabelStatement], source: str = "file"
) -> LabelCounts:
    """Record statements, all of them or none, and report what came of them. However many there are, few are in memory at a time.

    An id without a prediction is kept for later.

    A repeated statement changes nothing; without `at` it is a repeat while the id's label is the same. `source`:
    `file`, `service`, ... (16 characters). Raises ContradictingLabels.
    """
    with closing(_stage_statements(statements)) as staged:
        predicted, of_project = bytearray(), sa.select(predictions.c.id).where(predictions.c.project == project)
        with open_snapshot(engine) as db:  # before the lock is taken, which predictions wait for too
            for piece in _split_by_id(staged):
                _check_contradictions(piece)
                known = set(db.scalars(of_project.where(is_among(db.dialect, predictions.c.id, list(piece)))))
                predicted += bytes(id in known for id in piece)
        done, flags = LabelCounts(), iter(predicted)
        with engine.begin() as db:
            if db.dialect.name == "postgresql":  # SQLite has one writer at a time anyhow
                db.execute(sa.text("LOCK TABLE labels IN SHARE ROW EXCLUSIVE MODE"))
            # Taken under the lock: what is received later is also seen later.
            new = {"project": project, "received": now_timestamp(), "source": source}
            for piece in _split_by_id(staged):
                done += _record_chunk(db, piece, {id for id in piece if next(flags)}, new)
        return done


# (at or nothing, label's text) per id, ids in order.
_StagedPiece = dict[str, list[tuple[str, str]]]


def _stage_statements(statements: Iterable[LabelStatement]) -> sqlite3.Connection:
    """All statements in a database of their own, of which little is in memory and which ends with its connection."""
    staged = sqlite3.connect("")
    try:
        staged.execute("CREATE TABLE given (id TEXT, at TEXT, label TEXT)")
        # A label as the ledger compares it: JSON, every number a float.
        labelled = ((s, s.label if isinstance(s.label, str) else float(s.label)) for s in statements)
        rows = ((s.id, s.at or "", orjson.dumps(label).decode()) for s, label in labelled)
        staged.executemany("INSERT INTO given VALUES (?, ?, ?)", rows)
        # Sorted once: those without a moment last of their id.
        staged.execute("CREATE TABLE sorted AS SELECT id, at, label FROM given ORDER BY id, at = '', at, label")
        staged.execute("DROP TABLE given")
    except BaseException:
        staged.close()
        raise
    return staged


def _split_by_id(staged: sqlite3.Connection) -> Iterator[_StagedPiece]:
    """The statements by id, so many ids at a time."""
    rows = staged.execute("SELECT id, at, label FROM sorted ORDER BY rowid")
    by_id = ((id, [(at, text) for _, at, text in group]) for id, group in groupby(rows, key=itemgetter(0)))
    while piece := dict(islice(by_id, CHUNK_ITEMS)):
        yield piece


def _check_contradictions(piece: _StagedPiece) -> None:
    for id, stated in piece.items():
        for (at, label), (also, other) in pairwise(stated):
            if at == also and label != other:
                raise ContradictingLabels(
                    f"id {id!r} has two labels{f' as of {at}' if at else ''}: {label} and {other}. Keep the right one, or write "
                    "for each in `at` when it became known"
                )


def _record_chunk(db: sa.Connection, given: _StagedPiece, predicted: set[str], new: dict[str, str]) -> LabelCounts:
    """One piece against what the ledger holds of these ids."""
    stated: dict[str, set[tuple[str, str]]] = {id: set() for id in given}
    mine = sa.select(labels.c.id, labels.c.at, labels.c.label).where(labels.c.project == new["project"])
    for id, at, text in db.execute(mine.where(is_among(db.dialect, labels.c.id, list(given)))):
        stated[id].add((at, text))
    rows, total, changed, matched = list[dict[str, Any]](), 0, 0, 0
    for id, pairs in given.items():
        before = max(stated[id], default=None)
        truths = {(at or new["received"], text) for at, text in pairs if at or before is None or before[1] != text}
        fresh = truths - stated[id]
        total += len(pairs)
        matched += len(fresh) * (id in predicted)
        changed += before is not None and max(stated[id] | fresh)[1] != before[1]
        rows += [{**new, "id": id, "at": at, "label": text} for at, text in sorted(fresh)]
    if rows:
        db.execute(build_upsert(db.dialect, labels).on_conflict_do_nothing(), rows)
    return LabelCounts(matched, len(rows) - matched, total - len(rows), changed)


@dataclass(frozen=True)
class PredictionQuery:
    """Which predictions: from `since` (included) `until` (not) in their own time. Moments: as to_timestamp() takes them.

    With `version`, what that one predicted, in whichever role. With `known`, the join as it was then: statements and
    predictions received up to that moment. With `unlabelled`, also predictions without a label. `tier`: only rows of it and above, an
    even sample. `at_most`: of more rows those that come first in the fixed random order. `ids`: only these.
    """

    until: Any = None
    since: Any = None
    known: Any = None
    role: str = "champion"
    version: int | None = None
    unlabelled: bool = False
    tier: int = 0
    at_most: int | None = None
    ids: tuple[str, ...] | None = None


def read_labelled_predictions(
    engine: sa.Engine, project: str, wanted: PredictionQuery | None = None
) -> Iterator[LabelledPrediction]:
    """Predictions, each with its label, in the order of time. Streams in pieces from one snapshot, unless `at_most` are wanted."""
    wanted = wanted or PredictionQuery()
    known = None if wanted.known is None else to_timestamp(wanted.known)
    p, texts = predictions.c, [sa.cast(predictions.c[name], sa.Text) for name in ("inputs", "output")]
    query = sa.select(
        p.id, p.time, p.version, p.role, *texts, labels.c.label, labels.c.at, labels.c.received, p.content
    )
    query = query.select_from(predictions.join(labels, match_current_label(project, known), isouter=wanted.unlabelled))
    mine = [p.project == project, p.role == wanted.role if wanted.version is None else p.version == wanted.version]
    if known is not None:
        mine.append(p.received <= known)
    if wanted.since is not None:
        mine.append(p.time >= to_timestamp(wanted.since))
    if wanted.until is not None:
        mine.append(p.time < to_timestamp(wanted.until))
    if wanted.ids is None:  # else the key finds them
        mine.append(p.tier.in_(TIERS[wanted.tier :]))
    query = query.where(*mine).order_by(p.time, p.id, p.version, p.content)
    chunks = [()] if wanted.ids is None else split_chunks(wanted.ids)
    with open_snapshot(engine) as db:
        queries = (query.where(is_among(db.dialect, p.id, ids)) if ids else query for ids in chunks)
        rows: Iterable[Any] = (row for one in queries for row in db.execute(one))
        if wanted.at_most is not None:
            rows = nsmallest(wanted.at_most, rows, key=lambda row: hash_draw(row.id, row.content))
        if wanted.at_most is not None or wanted.ids is not None:
            rows = sorted(rows, key=lambda row: (row.time, row.id, row.version, row.content))
        for row in rows:
            decoded = (None if text is None else orjson.loads(text) for text in row[4:7])
            yield LabelledPrediction(*row[:4], *decoded, *row[7:9])


def list_labelled_ids(engine: sa.Engine, project: str, at_most: int) -> tuple[str, ...] | None:
    """The ids that have a label; None if there are more labels than so many."""
    query = sa.select(labels.c.id).where(labels.c.project == project)
    with open_snapshot(engine) as db:
        if db.scalar(query.offset(at_most).limit(1)) is not None:
            return None
        return tuple(sorted(set(db.scalars(query))))


def match_current_label(project: str, known: str | None = None) -> sa.ColumnElement[bool]:
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


# The column of each batch with the time a row's label came, as ledger text (ledger/database.py). It is no feature.
LABELLED_AT_COLUMN = "_labelled"

_EPOCH = datetime(1970, 1, 1)
# The words that a boolean is written with, as in tasks.models.features.
BOOLEAN_WORDS = {
    **dict.fromkeys(("true", "yes", "y", "t", "1", "1.0", "on"), True),
    **dict.fromkeys(("false", "no", "n", "f", "0", "0.0", "off"), False),
}


def read_labelled_batches(engine: sa.Engine, project: str, since: str | None) -> Iterator[Any]:
    """Arrow record batches of rows labelled after `since` (ledger text; None: all), oldest label first. Without rows of windows whose
    data were called broken, unless a person has accepted them.

    A batch has the columns of the table as they were scored, problem.id and problem.time where there are such, the target
    with its label, and LABELLED: when both prediction and label were there.
    """
    with open_snapshot(engine) as db:
        for rows in db.execute(_select_labelled_rows(project, since)).partitions():
            for version in sorted({row.version for row in rows}):
                mine = versions.c.project == project, versions.c.version == version
                stored: dict[str, Any] | None = db.scalar(sa.select(versions.c.facts).where(*mine))
                if stored is None:
                    continue
                facts = VersionFacts.from_json(stored)
                if held := _read_complete_rows(facts, (row for row in rows if row.version == version)):
                    yield _build_batch(facts, held)


def _select_labelled_rows(project: str, since: str | None) -> sa.Select[Any]:
    p, later = predictions.c, predictions.alias("later")
    complete = sa.case((labels.c.received > p.received, labels.c.received), else_=p.received).label("complete")
    newer = sa.tuple_(later.c.received, later.c.version, later.c.content) > sa.tuple_(p.received, p.version, p.content)
    repeated = sa.exists().where(
        later.c.project == project, later.c.id == p.id, later.c.role == "champion", later.c.inputs.is_not(None), newer
    )
    stored = (sa.cast(p.inputs, sa.Text).label("inputs"), sa.cast(p.output, sa.Text).label("output"))
    query = sa.select(p.id, p.time, p.received, p.version, *stored, labels.c.label, complete)
    query = query.select_from(predictions.join(labels, match_current_label(project)))
    query = query.where(p.project == project, p.role == "champion", p.inputs.is_not(None), ~repeated)
    query = query.where(~_is_in_stopped_window(project))
    return (query if since is None else query.where(complete > since)).order_by(complete, p.id)


def _is_in_stopped_window(project: str) -> sa.ColumnElement[bool]:
    """Whether a prediction is of a window whose data were called broken, and that no person has accepted: it trains nothing."""
    p, w, d = predictions.c, windows.c, decisions.c
    stopped = sa.exists().where(w.project == project, w.version == p.version, w.start <= p.time, p.time < w.end)
    mine = (d.project == project, d.version == w.version, d.window == w.start, d.action == "stop")
    return stopped.where(*mine, sa.func.coalesce(d.note, "") != ACKNOWLEDGED_NOTE)


def _read_complete_rows(facts: VersionFacts, rows: Iterable[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Rows with the values of all columns that the version knows; those left out of which one is missing or hashed."""
    found = []
    for row in rows:
        inputs = orjson.loads(row.inputs)
        try:
            # A hashed value is an object, which no column can be read from.
            values = {n: _VALUE_READERS[group](inputs[n]) for group, names in facts.columns.items() for n in names}
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        found.append((row, values))
    return found


def _build_batch(facts: VersionFacts, held: list[tuple[Any, dict[str, Any]]]) -> pa.RecordBatch:
    import pyarrow as pa

    texts, types = pa.string(), {"numbers": pa.float64(), "booleans": pa.bool_(), "dates": pa.timestamp("us")}
    columns: dict[str, pa.Array] = {}
    if facts.id:
        columns[facts.id] = pa.array([row.id for row, _ in held], texts)
    if facts.time:
        times = [_parse_moment(row.time) for row, _ in held]
        columns[facts.time] = pa.array(times, pa.timestamp("us"))
        if isinstance(facts.taught_until, int | float):  # a number that only orders the rows; one without it has none
            seconds = [
                None if row.time == row.received else (time - _EPOCH) / timedelta(seconds=1)
                for time, (row, _) in zip(times, held, strict=True)
            ]
            columns[facts.time] = pa.array(seconds, pa.float64())
    for group, names in facts.columns.items():
        for name in names:
            columns[name] = pa.array([values[name] for _, values in held], types.get(group, texts))
    columns[facts.target] = _build_target_column(facts.kind, held)
    columns[LABELLED_AT_COLUMN] = pa.array([row.complete for row, _ in held], texts)
    return pa.RecordBatch.from_pydict(columns)


def _build_target_column(kind: str, held: list[tuple[Any, dict[str, Any]]]) -> pa.Array:
    """Labels as the table has them: classes are numbers or true and false where the model predicts so."""
    import pyarrow as pa

    truths = [orjson.loads(row.label) for row, _ in held]
    if kind == "regression":
        return pa.array(truths, pa.float64())
    outputs = [orjson.loads(row.output) for row, _ in held]
    types = {type(recorded.get("prediction")) for recorded in outputs if isinstance(recorded, dict)}
    if types == {bool} and set(truths) <= {"true", "false"}:
        return pa.array([word == "true" for word in truths], pa.bool_())
    if types == {int} and all(word.removeprefix("-").isdecimal() for word in truths):
        return pa.array([int(word) for word in truths], pa.int64())
    return pa.array(truths, pa.string())


def _read_number(value: Any) -> float | None:
    number = None if _is_missing(value) else float(value)
    return number if number is None or math.isfinite(number) else None


def _read_boolean(value: Any) -> bool | None:
    return None if _is_missing(value) else BOOLEAN_WORDS[str(value).strip().lower()]


def _read_text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        raise TypeError("nested")
    return None if value is None or value == "" else str(value)


def _read_date(value: Any) -> datetime | None:
    """Naive UTC, from ISO 8601 text (a year or a month too) or whole microseconds since 1970."""
    if _is_missing(value):
        return None
    return _parse_moment(value.strip()) if isinstance(value, str) else _EPOCH + timedelta(microseconds=value)


def _parse_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text + {4: "-01-01", 7: "-01"}.get(len(text), ""))
    return moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta())


def _is_missing(value: Any) -> bool:
    return value is None or value == ""


# Values as requests hold them: JSON's own types, or text where they came as CSV. A missing one was recorded as such, whatever
# word it was written with.
_VALUE_READERS: dict[str, Callable[[Any], Any]] = {
    "numbers": _read_number,
    "booleans": _read_boolean,
    "low": _read_text,
    "high": _read_text,
    "dates": _read_date,
}
