"""What to read of a source, before DVC runs: all of it, or only what is new; and whether anything is.

Decides from data.source and the record of the snapshot that stands. Leaves reading to tasks/origins/, the snapshot's folder
and its record to tasks/raw.py. A local file or folder is not fetched: ingest reads it where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.data_settings import DATABASES, Data, Revealed, reveal
from windvane.tasks.errors import InputError
from windvane.tasks.raw import FOLDER, Changes, Part, Record, Staging, staged

if TYPE_CHECKING:
    import polars as pl

# Labelled production rows since a moment (None: all), as Arrow batches: ledger.feedback.labelled_rows, bound to a project.
Labelled = Callable[[str | None], Iterator[Any]]


@dataclass(frozen=True)
class Fetched:
    """How a fetch ended: rows that are new in the snapshot (None: uncounted), and the record that stands now."""

    moved: bool
    new: int | None
    feedback: int
    record: Record | None

    def text(self) -> str:
        """For people, one line: what is new, and what of it there is in all; empty when nothing happened."""
        if not self.moved or self.record is None:
            return ""
        new = None if self.new is None else self.new - self.feedback
        counts = [part.rows for part in self.record.own]
        count = None if None in counts else sum(n for n in counts if n is not None)
        where, told = self.record.where, list[str]()
        if self.record.changes is not None:
            rows = "rows" if count is None else f"{count:,} rows"
            told.append(f"fetched {rows} from {where}: {self.record.changes} since the snapshot before")
        elif new != 0 or not self.feedback:
            rows = "rows" if new is None else f"{new:,} new rows"
            told.append(f"fetched {rows} from {where}" + ("" if count is None else f", {count:,} in all"))
        if self.feedback:
            labelled = sum(part.rows or 0 for part in self.record.labelled)
            told.append(f"fetched {self.feedback:,} new rows with labels from production, {labelled:,} in all")
        return "; ".join(told)


def run(root: Path, data: Data, id: str | None = None, labelled: Labelled | None = None) -> Fetched:
    """Bring raw up to the source. Nothing there moves when the source holds what the snapshot holds.

    `id`: the column that tells rows apart when all are read again (problem.id).

    Raises InputError (settings, query, credentials) or Outage (nobody answers); the snapshot before then stays.
    """
    source = reveal(data)
    if source.kind == "local" and not (labelled and data.feedback):
        return Fetched(False, 0, 0, None)
    (root / FOLDER).parent.mkdir(parents=True, exist_ok=True)
    with staged(root) as staging:
        before = staging.before
        if source.kind == "local":
            new_home = Record(kind=source.kind, where=source.where, identity=data.identity)
            record = before if before is not None and before.identity == data.identity else new_home
        else:
            record = _fetched(source, root, staging, (id, data.key))
        fresh: tuple[Part, ...] = ()
        if labelled is not None and data.feedback:
            record, fresh = _with_feedback(record, staging, labelled)
        if record == before or not record.parts:
            return Fetched(False, 0, 0, before)
        if before is not None and record.generation == before.generation:
            record = record.model_copy(update={"changes": None})  # those of an earlier fetch
        old = {part.path for part in before.parts} if before else set()
        counts = [part.rows for part in record.parts if part.path not in old]
        new = None if None in counts else sum(n for n in counts if n is not None)
        record = staging.commit(record)
    return Fetched(True, new, sum(part.rows or 0 for part in fresh), record)


def answers(root: Path, data: Data) -> None:
    """See that a source answers, without fetching it. Raises InputError or Outage that says what to do."""
    source = reveal(data)
    if source.kind == "http":
        from windvane.tasks.origins import web

        web.answers(source)
    elif source.kind in DATABASES:
        _database(source).answers(source, root)
    elif source.kind != "local":
        _files(source, root).listed()


def _database(source: Revealed) -> Any:
    from windvane.tasks.origins import databases, ducks

    return ducks if source.kind == "duckdb" else databases


def _files(source: Revealed, root: Path) -> Any:
    from windvane.tasks.origins import globs, objects

    return (globs if source.kind == "glob" else objects).Files(source, root)


def _fetched(source: Revealed, root: Path, staging: Staging, ids: tuple[str | None, ...]) -> Record:
    """The record as it is to be: that of before itself, when the source holds nothing else."""
    before = staging.before
    known = before if before is not None and before.identity == source.data.identity and before.own else None
    if source.kind in DATABASES:
        record = _rows(source, root, staging, known)
    elif source.kind == "http":
        record = _web(source, staging, known)
    else:
        record = _listed(source, root, staging, known)
    if known is None or record.generation == known.generation:
        return record
    return _compared(record, known, staging, [name for name in ids if name])


def _rows(source: Revealed, root: Path, staging: Staging, known: Record | None) -> Record:
    """A database: with data.key only rows from the watermark on, less those that are held; else all."""
    from windvane.tasks.origins.rows import Rows

    key, growing = source.data.key, None
    if known is not None and source.data.refresh == "incremental" and known.watermark is not None:
        growing = known
    held = None if growing is None else _boundary(root, growing, str(key))
    into = Rows(staging, source.where, key, held)
    after = growing.watermark if growing else None
    mark = _database(source).read(source, root, after, into)
    parts = into.parts()
    if growing is not None:
        return growing.model_copy(update={"parts": growing.parts + parts, "watermark": mark}) if parts else growing
    if not parts:
        raise InputError(f"data.query: {source.where}: gives no rows. Mend the query, or wait until there are some")
    return _record(source, staging.before, {"parts": parts, "watermark": mark})


def _boundary(root: Path, record: Record, key: str) -> pl.DataFrame:
    """The rows of the snapshot that have its greatest key."""
    import polars as pl

    tied = [part for part in record.own if part.last == record.own[-1].last]
    rows = pl.concat([pl.scan_parquet(root / part.path, glob=False) for part in tied], how="diagonal_relaxed")
    last = rows.select(pl.col(key).max()).collect().item()
    return rows.filter(pl.col(key) == last).collect()


def _web(source: Revealed, staging: Staging, known: Record | None) -> Record:
    from windvane.tasks.origins import web

    ask = known.etag if known is not None and source.data.refresh == "incremental" else None
    answer = web.read(source, staging, ask)
    if answer.parts is None:
        assert known is not None
        return known
    return _record(source, staging.before, {"parts": answer.parts, "etag": answer.etag})


def _listed(source: Revealed, root: Path, staging: Staging, known: Record | None) -> Record:
    """Files by name: those whose ETag is as it was are not read again. New names alone are added behind."""
    origin = _files(source, root)
    listed = origin.listed()
    held = {part.name: part for part in known.own} if known is not None else {}
    if source.data.refresh == "full":
        held = {}
    kept = {f.name: held[f.name] for f in listed if f.name in held and held[f.name].etag == f.etag}
    fresh = {file.name: _copied(origin, staging, file) for file in listed if file.name not in kept}
    if known is not None and len(kept) == len(known.own):
        return known.model_copy(update={"parts": known.parts + tuple(fresh.values())}) if fresh else known
    parts = tuple({**kept, **fresh}[file.name] for file in listed)
    return _record(source, staging.before, {"parts": parts})


def _copied(origin: Any, staging: Staging, file: Any) -> Part:
    from windvane.tasks.origins.files import rows, suffix

    path = staging.path(str(suffix(file.name)))
    origin.copy(file, path)
    return staging.part(path, rows(path), name=file.name, etag=file.etag)


def _record(source: Revealed, before: Record | None, facts: dict[str, Any]) -> Record:
    """A new generation; the parts of feedback stay with it."""
    feedback = tuple(part for part in before.parts if part.feedback) if before else ()
    return Record(
        kind=source.kind,
        where=source.where,
        identity=source.data.identity,
        key=source.data.key,
        generation=before.generation + 1 if before else 1,
        feedback_until=before.feedback_until if before else None,
        **{**facts, "parts": (*facts.get("parts", ()), *feedback)},
    )


def _compared(record: Record, known: Record, staging: Staging, ids: list[str]) -> Record:
    """The record with what changed; the known one itself when the rows are the same, whatever else differs."""
    from windvane.tasks import changes

    if [part.sha256 for part in record.own] == [part.sha256 for part in known.own]:
        return known
    old, new = ([staging.found(part) for part in r.own] for r in (known, record))
    found: Changes | None = changes.between(old, new, ids)
    return known if found is not None and found.none else record.model_copy(update={"changes": found})


def _with_feedback(record: Record, staging: Staging, labelled: Labelled) -> tuple[Record, tuple[Part, ...]]:
    """Add production rows whose labels came since; ingest lets the source's own rows win."""
    batches = labelled(record.feedback_until)
    first = next(batches, None)
    if first is None:  # as at most looks: nothing else is worth an import
        return record, ()
    import polars as pl

    from windvane.ledger.feedback import LABELLED
    from windvane.tasks.origins.rows import Rows

    into, until = Rows(staging, "feedback"), record.feedback_until or ""
    for batch in chain([first], batches):
        frame = pl.DataFrame(pl.from_arrow(batch))
        until = max(until, str(frame[LABELLED].max()))
        into.add(frame.drop(LABELLED))
    fresh = tuple(part.model_copy(update={"feedback": True}) for part in into.parts())
    if not fresh:
        return record, ()
    return record.model_copy(update={"parts": record.parts + fresh, "feedback_until": until}), fresh
