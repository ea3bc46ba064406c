"""The fetched copy of a source: parts that are only added, the record of where they came from, and batches of rows
written as Parquet parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from windvane.tasks.errors import InputError, Outage
from windvane.tasks.io import DATA_FOLDER, STATE_FOLDER, read_record, write_json

if TYPE_CHECKING:
    import polars as pl
    import pyarrow.parquet as pq

SNAPSHOT_FOLDER = DATA_FOLDER / "raw"
SNAPSHOT_RECORD_FILE = SNAPSHOT_FOLDER / "origin.json"
# Parts are first written here, so that raw changes only when a fetch has come to its end.
STAGING_FOLDER = STATE_FOLDER / "fetch"
# Only files with such a name are ever deleted: people keep files of their own in raw.
_PART = re.compile(r"part-\d{6}\.")
_LOCK_WAIT_SECONDS = 60.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SnapshotPart(_Frozen):
    """One file of the snapshot. `rows` is None where the file cannot be counted; `first` and `last` are keys."""

    path: str
    rows: int | None
    bytes: int
    sha256: str
    read: str
    first: Any = None
    last: Any = None
    name: str | None = None
    etag: str | None = None
    feedback: bool = False


class Watermark(_Frozen):
    """The greatest key that was read, in words and with its type, so that it can be bound again."""

    type: str
    value: str


class RowChanges(_Frozen):
    """How the rows of a source differ from those of the snapshot before; `by` names what distinguishes rows."""

    new: int
    updated: int
    deleted: int
    by: str

    @property
    def none(self) -> bool:
        """Whether the rows are the same."""
        return not (self.new or self.updated or self.deleted)

    def __str__(self) -> str:
        return f"{self.new:,} new, {self.updated:,} updated, {self.deleted:,} deleted rows (by {self.by})"


class SnapshotRecord(_Frozen):
    """Where a snapshot came from. Holds no secret: `where` is stripped, `identity` is a hash of what was requested."""

    kind: str
    where: str
    identity: str
    key: str | None = None
    watermark: Watermark | None = None
    etag: str | None = None
    generation: int = 1
    next_part: int = 1
    changes: RowChanges | None = None
    feedback_until: str | None = None
    parts: tuple[SnapshotPart, ...] = ()
    total: int | None = None

    @property
    def own(self) -> tuple[SnapshotPart, ...]:
        """The source's parts, without those of feedback."""
        return tuple(part for part in self.parts if not part.feedback)

    @property
    def labelled(self) -> tuple[SnapshotPart, ...]:
        """Parts with labels from production."""
        return tuple(part for part in self.parts if part.feedback)


def read_snapshot(root: Path) -> SnapshotRecord | None:
    """The record of the present snapshot, None when nothing was fetched or a part of it is gone."""
    path = root / SNAPSHOT_RECORD_FILE
    if not path.exists():
        return None
    record = read_record(
        path, SnapshotRecord.model_validate, f"Delete the folder {SNAPSHOT_FOLDER}; the next lap fetches it again"
    )
    paths = [root / part.path for part in record.parts]
    sizes = [path.stat().st_size if path.is_file() else None for path in paths]
    return record if sizes == [part.bytes for part in record.parts] else None


def count_part_rows(parts: Iterable[SnapshotPart]) -> int | None:
    """How many rows the parts hold; None where one cannot be counted."""
    counts = [part.rows for part in parts]
    return None if None in counts else sum(count or 0 for count in counts)


def count_labelled_rows(root: Path) -> int:
    """How many rows of the snapshot come from production; they are behind all others."""
    record = read_snapshot(root)
    return (count_part_rows(record.labelled) or 0) if record else 0


class SnapshotStaging:
    """Parts on their way into raw. Opened by `staged`, under a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = read_snapshot(root)
        self._next = self.before.next_part if self.before else 1

    def path(self, suffix: str) -> Path:
        """Where the next part is to be written: `suffix` with its dots, such as .csv.gz."""
        name = f"part-{self._next:06d}{suffix}"
        self._next += 1
        return self.root / STAGING_FOLDER / name

    def part(self, path: Path, rows: int | None, **facts: Any) -> SnapshotPart:
        """A written file as a part of the snapshot."""
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            os.fsync(f.fileno())
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        place = (SNAPSHOT_FOLDER / path.name).as_posix()
        return SnapshotPart(path=place, rows=rows, bytes=path.stat().st_size, sha256=digest, read=moment, **facts)

    def found(self, part: SnapshotPart) -> Path:
        """A part's file: staged, or in raw already."""
        staged = self.root / STAGING_FOLDER / Path(part.path).name
        return staged if staged.exists() else self.root / part.path

    def commit(self, record: SnapshotRecord) -> SnapshotRecord:
        """Move the parts into raw, then put the record in place, then delete parts that it no longer names."""
        folder = self.root / SNAPSHOT_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        for part in record.parts:
            if (staged := self.root / STAGING_FOLDER / Path(part.path).name).exists():
                os.replace(staged, self.root / part.path)
        final = record.model_copy(update={"next_part": self._next, "total": count_part_rows(record.parts)})
        write_json(final.model_dump(mode="json"), self.root / SNAPSHOT_RECORD_FILE)
        _sweep(self.root, final)
        return final


@contextmanager
def stage_snapshot(root: Path) -> Iterator[SnapshotStaging]:
    """Hold the folder for one fetch; whatever a killed fetch left behind is deleted first. Raises Outage when busy."""
    from filelock import FileLock, Timeout

    home = root / STAGING_FOLDER
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{home}.lock", timeout=_LOCK_WAIT_SECONDS):
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            staging = SnapshotStaging(root)
            if staging.before is not None:
                _sweep(root, staging.before)
            try:
                yield staging
            finally:
                shutil.rmtree(home, ignore_errors=True)
    except Timeout:
        raise Outage(f"{home}.lock: another fetch is at work in this folder. Wait for it, then run again") from None


def _sweep(root: Path, record: SnapshotRecord) -> None:
    listed = {Path(part.path).name for part in record.parts}
    for path in (root / SNAPSHOT_FOLDER).glob("part-*"):
        if _PART.match(path.name) and path.name not in listed:
            path.unlink()


# Rows held in memory at a time.
BATCH_ROWS = 50_000


# Not polars.read_database: it makes words of a column of numbers and words without a word, structs of JSON, objects of UUIDs,
# and gives no batch at all where there is no row.


def build_batch(where: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """A batch of a driver's rows as typed columns. Raises InputError naming a column that mixes types."""
    import polars as pl

    check_column_names(where, names)
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pl.DataFrame([_column(where, name, values) for name, values in zip(names, columns, strict=True)])


def check_column_names(where: str, names: Sequence[str]) -> None:
    """Every column of a query must have a name of its own."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or "" in names:
        what = f"gives column {twice[0]!r} twice" if twice else "gives a column without a name"
        raise InputError(f"data.query: {where}: {what}. Give each a name of its own: SELECT … AS name")


def _column(where: str, name: str, values: Sequence[Any]) -> pl.Series:
    import polars as pl

    kinds = {type(value) for value in values} - {type(None)}
    if kinds & {dict, list, UUID, memoryview, bytes}:
        values = [_text(value) for value in values]
        kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pl.Series(name, values, dtype=pl.Null)
    if kinds == {int} and all(v is None or -(2**63) <= v < 2**63 for v in values):
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds <= {int, float, Decimal}:
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    if kinds == {datetime}:
        # Instants in UTC without their zone; one without a zone is taken for UTC.
        moments = [at.astimezone(UTC).replace(tzinfo=None) if at and at.tzinfo else at for at in values]
        return pl.Series(name, moments, dtype=pl.Datetime("us"))
    plain: dict[type, Any] = {
        str: pl.String,
        bool: pl.Boolean,
        date: pl.Date,
        time: pl.Time,
        timedelta: pl.Duration("us"),
    }
    if len(kinds) == 1 and (kind := next(iter(kinds))) in plain:
        return pl.Series(name, values, dtype=plain[kind])
    found = " and ".join(sorted(kind.__name__ for kind in kinds))
    raise InputError(
        f"data.query: {where}: column {name!r} mixes {found}. CAST it to one type in the query, or leave it out"
    )


def _text(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, memoryview | bytes):
        return bytes(value).hex()
    return str(value) if isinstance(value, UUID) else value


class NewRowsWriter:
    """Takes batches, keeps those rows that are new, and writes them.

    `key`: the growing column, by which batches arrive sorted; `held`: the rows with the greatest key that the snapshot has
    already. Of these, as many as it holds are dropped again, so that rows with an equal key are neither lost nor doubled.
    """

    def __init__(
        self, staging: SnapshotStaging, where: str, key: str | None = None, held: pl.DataFrame | None = None
    ) -> None:
        self._staging, self._where, self._key, self._held = staging, where, key, held
        self._known: Counter[tuple[str, ...]] | None = None
        self._schema: dict[str, Any] = {}
        # The part in the making: its file, and what is known of it so far.
        self._writer: pq.ParquetWriter | None = None
        self._path, self._facts = Path(), dict[str, Any]()
        self._parts: list[SnapshotPart] = []

    def add(self, batch: pl.DataFrame) -> None:
        """Write a batch's new rows."""
        if self._key is not None:
            self._check_key(batch)
        if batch.height:
            batch = self._widened(batch)
        if batch.height and self._held is not None:
            batch = self._new_only(batch)
        if not batch.height:
            return
        table = batch.to_arrow()
        if self._writer is None or self._writer.schema != table.schema:
            import pyarrow.parquet as pq

            self._end_part()
            self._path, self._facts = self._staging.path(".parquet"), {"rows": 0}
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._facts["rows"] += batch.height
        if self._key is not None:
            self._facts.setdefault("first", _json(batch[self._key].min()))
            self._facts["last"] = _json(batch[self._key].max())

    def parts(self) -> tuple[SnapshotPart, ...]:
        """Close the last part; all parts in their order."""
        self._end_part()
        return tuple(self._parts)

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._parts.append(self._staging.part(self._path, **self._facts))
            self._writer = None

    def _check_key(self, batch: pl.DataFrame) -> None:
        if self._key not in batch.columns:
            raise InputError(
                f"data.key: {self._where}: there is no column {self._key!r}. It gives: {', '.join(batch.columns)}"
            )
        if empty := batch[self._key].null_count():
            raise InputError(
                f"data.key: {self._where}: column {self._key!r} is empty in {empty:,} rows, which would never be found new. "
                "Fill it in, leave these rows out of data.query, or name another column"
            )

    def _widened(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The batch in the schema that fits all batches so far; raises InputError where types cannot be joined."""
        for name, kind in batch.schema.items():
            self._schema[name] = _wider(self._where, name, self._schema.get(name, kind), kind)
        return batch.cast({name: self._schema[name] for name in batch.columns})

    def _new_only(self, batch: pl.DataFrame) -> pl.DataFrame:
        assert self._held is not None
        names = [name for name in self._held.columns if name in batch.columns]
        if self._known is None:
            held = self._held.select(names).cast({n: batch.schema[n] for n in names}, strict=False)
            self._known = Counter(_row_texts(held))
        new = []
        for words in _row_texts(batch.select(names)):
            known = self._known[words] > 0
            self._known[words] -= known
            new.append(not known)
        # Batches come sorted by key: behind a greater one no tie can follow.
        key = self._key
        if key is None or batch[key].max() > self._held[key].cast(batch.schema[key], strict=False).max():  # type: ignore[operator]
            self._held = None
        return batch.filter(new)


def _wider(where: str, name: str, one: Any, other: Any) -> Any:
    import polars as pl

    if other in (one, pl.Null):
        return one
    if one == pl.Null:
        return other
    if {one, other} == {pl.Int64, pl.Float64}:
        return pl.Float64()
    raise InputError(
        f"data.query: {where}: column {name!r} holds {one} in some rows and {other} in others. "
        "CAST it to one type in the query, or leave it out"
    )


def _row_texts(batch: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    return (tuple(repr(value) for value in row) for row in batch.iter_rows())


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | time) else value
