"""DuckDB files: a query's rows as Arrow batches, read-only, each batch within data.timeout. Needs windvane[duckdb]."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.data_settings import Revealed
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.origins.databases import bound, mark, plain, renamed, statement, too_long
from windvane.tasks.origins.rows import BATCH, Rows, check_names
from windvane.tasks.raw import Mark

if TYPE_CHECKING:
    import duckdb
    import polars as pl


def read(source: Revealed, root: Path, after: Mark | None, into: Rows) -> Mark | None:
    """As tasks.origins.databases.read."""
    last: Mark | None = None
    with _connected(source, root) as db:
        query = renamed(statement(source, after))
        with _within(source, db):
            reader: Any = db.sql(query, params=bound(source, after)).to_arrow_reader(BATCH)
        names = reader.schema.names
        check_names(source.where, names)
        while True:
            with _within(source, db):
                batch = next(iter(reader), None)
            if batch is None:
                return last or after
            if batch.num_rows:
                into.add(_plain(batch))
                if source.data.key is not None:
                    last = mark(batch.column(names.index(source.data.key))[-1].as_py())


def answers(source: Revealed, root: Path) -> None:
    """As tasks.origins.databases.answers."""
    with _connected(source, root) as db, _within(source, db):
        db.execute(renamed(f"SELECT * FROM ({plain(source)}) LIMIT 1"), bound(source, None)).fetchall()


def _plain(batch: Any) -> pl.DataFrame:
    """Arrow's batch in the types that the other databases give."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(batch))
    changes: Any = {}
    for name, kind in frame.schema.items():
        if kind in (pl.UInt64, pl.Int128, pl.UInt128, pl.Float32) or isinstance(kind, pl.Decimal):
            changes[name] = pl.Float64
        elif kind.is_integer():
            changes[name] = pl.Int64
        elif isinstance(kind, pl.Categorical | pl.Enum):
            changes[name] = pl.String
        elif isinstance(kind, pl.Datetime):
            changes[name] = pl.Datetime("us", kind.time_zone)
    zones = [pl.col(name) for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone]
    utc = [zone.dt.convert_time_zone("UTC").dt.replace_time_zone(None) for zone in zones]
    return frame.cast(changes).with_columns(utc)


@contextmanager
def _connected(source: Revealed, root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        import duckdb
    except ImportError:
        raise InputError(
            f"data.source: {source.where} needs DuckDB. Install it: pip install 'windvane[duckdb]'"
        ) from None

    path = root / source.data.source.partition(":///")[2]
    if not path.is_file():
        raise InputError(
            f"data.source: {source.where}: there is no such file. Paths count from the folder of params.yaml"
        )
    try:
        kinds = [parsed.type for parsed in duckdb.extract_statements(renamed(plain(source)))]
        # read_only guards the database; COPY … TO would still write a file.
        if kinds != [duckdb.StatementType.SELECT]:
            raise InputError("data.query: is not one SELECT. Sources are only read")
        with duckdb.connect(path, read_only=True) as db:
            yield db
    except duckdb.InterruptException:
        raise too_long(source) from None
    except duckdb.IOException as e:
        raise Outage(
            f"data.source: {source.where}: cannot be opened ({_said(e, source)}). Close the program that writes to it, or mend the address"
        ) from None
    except duckdb.Error as e:
        raise InputError(f"data.query: {source.where}: {_said(e, source)}. Mend the query") from None


@contextmanager
def _within(source: Revealed, db: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """DuckDB has no timeout of its own: a timer interrupts it."""
    timer = threading.Timer(source.data.timeout, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _said(error: Exception, source: Revealed) -> str:
    return source.hide(str(error).strip().splitlines()[0]).rstrip(".")
