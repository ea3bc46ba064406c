"""Fetches a source into the snapshot before DVC runs: all of it or only what is new, and how its rows differ from those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import UNPACK_ERRORS, find_table_ending
from windvane.tasks.project import Project
from windvane.tasks.settings.data_section import (
    DATABASE_KINDS,
    PLAIN_FORMAT,
    DataSettings,
    FormatSettings,
    RevealedData,
    reveal_secrets,
)
from windvane.tasks.sources import table_files
from windvane.tasks.sources.snapshot import (
    SNAPSHOT_FOLDER,
    NewRowsWriter,
    RowChanges,
    SnapshotPart,
    SnapshotRecord,
    SnapshotStaging,
    count_part_rows,
    stage_snapshot,
)
from windvane.tasks.sources.table_files import count_file_rows, scan_table_file
from windvane.tasks.stores import dvc_pipeline

if TYPE_CHECKING:
    import polars as pl


def compare_snapshots(
    before: Sequence[Path], after: Sequence[Path], ids: Sequence[str], format: FormatSettings = PLAIN_FORMAT
) -> RowChanges | None:
    """Compare the rows of two lists of files, in memory only 8 bytes a row and the ids.

    `ids`: columns that may distinguish rows, the first that is unique on both sides does; without one, whole rows count, and
    an update is a deletion and a new row. None when a file cannot be read.
    """
    import polars as pl

    try:
        old, new = _scan_comparable(before, format), _scan_comparable(after, format)
        shared = set(old.collect_schema()) & set(new.collect_schema())
        for name in [name for name in ids if name in shared]:
            one, two = _keyed(old, name), _keyed(new, name)
            if one["id"].is_unique().all() and two["id"].is_unique().all():
                both = one.join(two, on="id", how="inner", nulls_equal=True)
                updated = int((both["row"] != both["row_right"]).sum())
                return RowChanges(new=len(two) - len(both), updated=updated, deleted=len(one) - len(both), by=name)
        counts = _counted(old).join(_counted(new), on="row", how="full", coalesce=True).fill_null(0)
        more = counts["len_right"].cast(pl.Int64) - counts["len"].cast(pl.Int64)
    except (pl.exceptions.PolarsError, InputError, *UNPACK_ERRORS):
        return None
    return RowChanges(
        new=int(more.clip(lower_bound=0).sum()),
        updated=0,
        deleted=-int(more.clip(upper_bound=0).sum()),
        by="whole rows",
    )


def _scan_comparable(paths: Sequence[Path], format: FormatSettings) -> pl.LazyFrame:
    """All rows, a cell that is a number as float64 and any other as text: a change of type alone is no change."""
    import polars as pl
    import polars.selectors as cs

    plain = cs.numeric().cast(pl.Float64), (~cs.numeric() & ~cs.string() & ~cs.nested()).cast(pl.String)
    return pl.concat([scan_table_file(path, format).with_columns(plain) for path in paths], how="diagonal_relaxed")


def _hash_row(frame: pl.LazyFrame) -> pl.Expr:
    import polars as pl

    return pl.struct(sorted(frame.collect_schema())).hash(seed=0).alias("row")


def _keyed(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    import polars as pl

    return frame.select(pl.col(name).cast(pl.String).alias("id"), _hash_row(frame)).collect(engine="streaming")


def _counted(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.select(_hash_row(frame)).collect(engine="streaming").group_by("row").len()


# Labelled production rows since a moment (None: all), as Arrow batches: ledger.labels.read_labelled_batches, bound to a project.
LabelledRows = Callable[[str | None], Iterator[Any]]


@dataclass(frozen=True)
class FetchResult:
    """How a fetch ended: rows that are new in the snapshot (None: uncounted), and the record that counts now."""

    moved: bool
    new: int | None
    feedback: int
    record: SnapshotRecord | None

    def text(self) -> str:
        """For people, one line: what is new, and what of it there is in all; empty when nothing happened."""
        if not self.moved or self.record is None:
            return ""
        new = None if self.new is None else self.new - self.feedback
        count = count_part_rows(self.record.own)
        where, messages = self.record.where, list[str]()
        if self.record.changes is not None:
            rows = "rows" if count is None else f"{count:,} rows"
            messages.append(f"fetched {rows} from {where}: {self.record.changes} since the snapshot before")
        elif new != 0 or not self.feedback:
            rows = "rows" if new is None else f"{new:,} new rows"
            messages.append(f"fetched {rows} from {where}" + ("" if count is None else f", {count:,} in all"))
        if self.feedback:
            labelled = count_part_rows(self.record.labelled) or 0
            messages.append(f"fetched {self.feedback:,} new rows with labels from production, {labelled:,} in all")
        return "; ".join(messages)


def fetch_source(
    root: Path, data: DataSettings, id: str | None = None, labelled: LabelledRows | None = None
) -> FetchResult:
    """Bring raw up to the source. Nothing there moves when the source holds what the snapshot holds.

    `id`: the column that distinguishes rows when all are read again (problem.id).

    Raises InputError (settings, query, credentials) or Outage (no server responds); the snapshot before then stays.
    """
    source = reveal_secrets(data)
    if source.kind == "local" and not (labelled and data.feedback):
        return FetchResult(False, 0, 0, None)
    (root / SNAPSHOT_FOLDER).parent.mkdir(parents=True, exist_ok=True)
    with stage_snapshot(root) as staging:
        before = staging.before
        if source.kind == "local":
            new_home = SnapshotRecord(kind=source.kind, where=source.where, identity=data.identity)
            record = before if before is not None and before.identity == data.identity else new_home
        else:
            record = _fetch_record(source, root, staging, (id, data.key))
        fresh: tuple[SnapshotPart, ...] = ()
        if labelled is not None and data.feedback:
            record, fresh = _with_feedback(record, staging, labelled)
        if record == before or not record.parts:
            return FetchResult(False, 0, 0, before)
        if before is not None and record.generation == before.generation:
            record = record.model_copy(update={"changes": None})  # those of an earlier fetch
        old = {part.path for part in before.parts} if before else set()
        new = count_part_rows(part for part in record.parts if part.path not in old)
        record = staging.commit(record)
    return FetchResult(True, new, count_part_rows(fresh) or 0, record)


def update_source_snapshot(project: Project, console: Console) -> FetchResult:
    """Bring the snapshot of a remote source, and of labels from production, up to date, and let ingest depend on it.

    For the holder of the lease. Imports neither scikit-learn, MLflow nor Prefect.
    """
    from windvane.ledger import labels

    def labelled(since: str | None) -> Iterator[Any]:
        return labels.read_labelled_batches(project.ledger, project.name, since)

    console.working("fetch")
    settings = project.settings
    fetched = fetch_source(project.root, settings.data, settings.problem.id, labelled)
    if fetched.moved:
        console.print(f"  {fetched.text()}")
    declare_ingest_inputs(project.root, settings.data, fetched.record)
    return fetched


def declare_ingest_inputs(root: Path, data: DataSettings, record: SnapshotRecord | None) -> None:
    """Let the ingest stage depend on what it reads: the local source, the snapshot of another, or both."""
    wanted = ["${data.source}"] if data.local else []
    if not data.local or (record is not None and record.labelled):
        wanted.append(SNAPSHOT_FOLDER.as_posix())
    dvc_pipeline.set_ingest_inputs(root, wanted)


def probe_source(root: Path, data: DataSettings) -> None:
    """See that a source responds, without fetching it. Raises InputError or Outage that names what to do."""
    source = reveal_secrets(data)
    if source.kind == "http":
        from windvane.tasks.sources import http_source

        http_source.probe_http(source)
    elif source.kind in DATABASE_KINDS:
        from windvane.tasks.sources import databases

        databases.probe_database(source, root)
    elif source.kind != "local":
        table_files.open_files(source, root).listed()


def _fetch_record(
    source: RevealedData, root: Path, staging: SnapshotStaging, ids: tuple[str | None, ...]
) -> SnapshotRecord:
    """The record as it is to be: that of before itself when the source holds the same rows, whatever else differs."""
    before = staging.before
    known = before if before is not None and before.identity == source.data.identity and before.own else None
    if source.kind in DATABASE_KINDS:
        record = _fetch_database(source, root, staging, known)
    elif source.kind == "http":
        record = _fetch_http(source, staging, known)
    else:
        record = _fetch_files(source, root, staging, known)
    if known is None or record.generation == known.generation:
        return record
    if [part.sha256 for part in record.own] == [part.sha256 for part in known.own]:
        return known
    old, new = ([staging.found(part) for part in r.own] for r in (known, record))
    changes = compare_snapshots(old, new, [name for name in ids if name], source.data.format)
    return known if changes is not None and changes.none else record.model_copy(update={"changes": changes})


def _fetch_database(
    source: RevealedData, root: Path, staging: SnapshotStaging, known: SnapshotRecord | None
) -> SnapshotRecord:
    """A database: with data.key only rows from the watermark on, less those that are held; else all."""
    from windvane.tasks.sources import databases

    key = source.data.key
    growing = known if known and known.watermark and source.data.refresh == "incremental" else None
    into = NewRowsWriter(staging, source.where, key, _boundary(root, growing, str(key)) if growing else None)
    watermark = databases.read_database(source, root, growing.watermark if growing else None, into)
    parts = into.parts()
    if growing is not None:
        return growing.model_copy(update={"parts": growing.parts + parts, "watermark": watermark}) if parts else growing
    if not parts:
        raise InputError(f"data.query: {source.where}: gives no rows. Fix the query, or wait until there are some")
    return _record(source, staging.before, {"parts": parts, "watermark": watermark})


def _boundary(root: Path, record: SnapshotRecord, key: str) -> pl.DataFrame:
    """The rows of the snapshot that have its greatest key."""
    import polars as pl

    tied = [part for part in record.own if part.last == record.own[-1].last]
    rows = pl.concat([pl.scan_parquet(root / part.path, glob=False) for part in tied], how="diagonal_relaxed")
    last = rows.select(pl.col(key).max()).collect().item()
    return rows.filter(pl.col(key) == last).collect()


def _fetch_http(source: RevealedData, staging: SnapshotStaging, known: SnapshotRecord | None) -> SnapshotRecord:
    from windvane.tasks.sources import http_source

    etag = known.etag if known is not None and source.data.refresh == "incremental" else None
    response = http_source.read_http(source, staging, etag)
    if response.parts is None:
        assert known is not None
        return known
    return _record(source, staging.before, {"parts": response.parts, "etag": response.etag})


def _fetch_files(
    source: RevealedData, root: Path, staging: SnapshotStaging, known: SnapshotRecord | None
) -> SnapshotRecord:
    """Files by name: those whose ETag is as it was are not read again. New names alone are added behind."""
    origin = table_files.open_files(source, root)
    listed = origin.listed()
    held = {part.name: part for part in known.own} if known and source.data.refresh == "incremental" else {}
    kept = {f.name: held[f.name] for f in listed if f.name in held and held[f.name].etag == f.etag}
    fresh: dict[str, SnapshotPart] = {}
    for file in (file for file in listed if file.name not in kept):
        path = staging.path(str(find_table_ending(file.name)))
        origin.copy(file, path)
        fresh[file.name] = staging.part(path, count_file_rows(path, source.data.format), name=file.name, etag=file.etag)
    if known is not None and len(kept) == len(known.own):
        return known.model_copy(update={"parts": known.parts + tuple(fresh.values())}) if fresh else known
    parts = tuple({**kept, **fresh}[file.name] for file in listed)
    return _record(source, staging.before, {"parts": parts})


def _record(source: RevealedData, before: SnapshotRecord | None, facts: dict[str, Any]) -> SnapshotRecord:
    """A new generation; the parts of feedback stay with it."""
    feedback = tuple(part for part in before.parts if part.feedback) if before else ()
    return SnapshotRecord(
        kind=source.kind,
        where=source.where,
        identity=source.data.identity,
        key=source.data.key,
        generation=before.generation + 1 if before else 1,
        feedback_until=before.feedback_until if before else None,
        **{**facts, "parts": (*facts.get("parts", ()), *feedback)},
    )


def _with_feedback(
    record: SnapshotRecord, staging: SnapshotStaging, labelled: LabelledRows
) -> tuple[SnapshotRecord, tuple[SnapshotPart, ...]]:
    """Add production rows whose labels came since; ingest lets the source's own rows win."""
    batches = labelled(record.feedback_until)
    first = next(batches, None)
    if first is None:  # as mostly: nothing else is worth an import
        return record, ()
    import polars as pl

    from windvane.ledger.labels import LABELLED_AT_COLUMN

    into, until = NewRowsWriter(staging, "feedback"), record.feedback_until or ""
    for batch in chain([first], batches):
        frame = pl.DataFrame(pl.from_arrow(batch))
        until = max(until, str(frame[LABELLED_AT_COLUMN].max()))
        into.add(frame.drop(LABELLED_AT_COLUMN))
    fresh = tuple(part.model_copy(update={"feedback": True}) for part in into.parts())
    if not fresh:
        return record, ()
    return record.model_copy(update={"parts": record.parts + fresh, "feedback_until": until}), fresh
