"""Rows that come in batches, as Parquet parts: owns their types and what is new in them; knows nothing of databases.

A part has one schema. Where a later batch needs a wider one (a first number after empty cells, a first fraction among
whole numbers) a new part begins, so that nothing has to be held or written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from windvane.tasks.errors import InputError
from windvane.tasks.raw import Part, Staging

if TYPE_CHECKING:
    import polars as pl
    import pyarrow.parquet as pq

# Rows held in memory at a time.
BATCH = 50_000


def frame(where: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """A batch of a driver's rows as typed columns. Raises InputError naming a column that mixes types."""
    import polars as pl

    check_names(where, names)
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pl.DataFrame([_column(where, name, values) for name, values in zip(names, columns, strict=True)])


def check_names(where: str, names: Sequence[str]) -> None:
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
        return pl.Series(name, [None if v is None else naive(v) for v in values], dtype=pl.Datetime("us"))
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
    import json

    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, memoryview | bytes):
        return bytes(value).hex()
    return str(value) if isinstance(value, UUID) else value


def naive(moment: datetime) -> datetime:
    """An instant in UTC without its zone; one without a zone is taken for UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


class Rows:
    """Takes batches, keeps those rows that are new, and writes them.

    `key`: the growing column, by which batches arrive sorted; `held`: the rows with the greatest key that the snapshot has
    already. Of these, as many as it holds are dropped again, so that rows with an equal key are neither lost nor doubled.
    """

    def __init__(self, staging: Staging, where: str, key: str | None = None, held: pl.DataFrame | None = None) -> None:
        self._staging, self._where, self._key, self._held = staging, where, key, held
        self._known: Counter[tuple[str, ...]] | None = None
        self._schema: dict[str, Any] = {}
        self._writer: _Writer | None = None
        self._parts: list[Part] = []

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
        if self._writer is None or self._writer.schema != dict(batch.schema):
            self._end_part()
            self._writer = _Writer(self._staging.path(".parquet"), batch)
        self._writer.add(batch, self._key)

    def parts(self) -> tuple[Part, ...]:
        """Close the last part; all parts in their order."""
        self._end_part()
        return tuple(self._parts)

    def _end_part(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            self._parts.append(self._staging.part(writer.path, writer.rows, first=writer.first, last=writer.last))

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
            self._known = Counter(_words(held))
        new = []
        for words in _words(batch.select(names)):
            known = self._known[words] > 0
            self._known[words] -= known
            new.append(not known)
        # Batches come sorted by key: behind a greater one no tie can follow.
        if self._key is None or batch[self._key].max() > _held_key(self._held, self._key, batch):
            self._held = None
        return batch.filter(new)


class _Writer:
    """One Parquet file in the making."""

    def __init__(self, path: Path, like: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        self.path, self.schema = path, dict(like.schema)
        self.rows, self.first, self.last = 0, None, None
        self._file: pq.ParquetWriter = pq.ParquetWriter(path, like.to_arrow().schema, compression="zstd")

    def add(self, batch: pl.DataFrame, key: str | None) -> None:
        self._file.write_table(batch.to_arrow())
        if key is not None:
            self.first = _json(batch[key].min()) if self.first is None else self.first
            self.last = _json(batch[key].max())
        self.rows += batch.height

    def close(self) -> None:
        self._file.close()


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


def _held_key(held: pl.DataFrame, key: str, batch: pl.DataFrame) -> Any:
    """The key of the held rows, in the type that the batch has."""
    return held[key].cast(batch.schema[key], strict=False).max()


def _words(batch: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    return (tuple(repr(value) for value in row) for row in batch.iter_rows())


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | time) else value
