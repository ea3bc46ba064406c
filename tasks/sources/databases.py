"""SQLite and PostgreSQL through SQLAlchemy, DuckDB through Arrow: a query's rows in batches, read-only, each statement
within data.timeout. DuckDB needs windvane[duckdb].
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import sqlalchemy as sa

from windvane.tasks import errors
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.settings.data_section import RevealedData
from windvane.tasks.sources.snapshot import BATCH_ROWS, NewRowsWriter, Watermark, build_batch, check_column_names

WATERMARK_PARAMETER = "windvane_after"
# `:name`, but neither `::type`, `12:30` nor `\:`. The same in all three databases.
_BOUND = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)(?!:)")
# PostgreSQL's codes for a statement that ran too long, or wanted to write.
_TIMEOUT_CODE, _READ_ONLY_CODE = "57014", "25006"
_PROBE_SECONDS = 10


def read_database(source: RevealedData, root: Path, after: Watermark | None, into: NewRowsWriter) -> Watermark | None:
    """All rows of the query, or with `after` those whose data.key is at least that; the greatest key read.

    Raises InputError for a wrong query, and one that takes longer than data.timeout; Outage when the server does not respond.
    """
    if source.kind == "duckdb":
        return _read_duckdb(source, root, after, into)
    query = sa.text(build_statement(source, after))
    last: Watermark | None = None
    with _connect_database(source, root) as db:
        result = db.execute(query, bind_parameters(source, after))
        names = list(result.keys())
        into.add(build_batch(source.where, names, []))
        for rows in result.partitions(BATCH_ROWS):
            batch = build_batch(source.where, names, rows)
            into.add(batch)
            if source.data.key is not None:
                last = build_watermark(rows[-1][names.index(source.data.key)])
            _limit_time(db, source)
    return last or after


def probe_database(source: RevealedData, root: Path) -> None:
    """Read one row, to see that the database responds and the query is valid."""
    if source.kind == "duckdb":
        query = rename_placeholders(f"SELECT * FROM ({clean_query(source)}) LIMIT 1")
        with _connect_duckdb(source, root) as duck, _limit_duckdb_time(source, duck):
            duck.execute(query, bind_parameters(source, None)).fetchall()
        return
    with _connect_database(source, root) as db:
        result = db.execute(
            sa.text(f"SELECT * FROM ({clean_query(source)}) AS windvane_rows LIMIT 1"), bind_parameters(source, None)
        )
        build_batch(source.where, list(result.keys()), result.fetchmany(1))


def clean_query(source: RevealedData) -> str:
    """The query as the user wrote it, without a semicolon at its end; its parameters all given."""
    query = str(source.data.query).strip().rstrip(";").rstrip()
    for name in _BOUND.findall(query):
        if name not in source.data.parameters:
            raise InputError(
                f"data.parameters: lacks {name!r}, which data.query names. Add {name}: …, or write \\:{name} for the text itself"
            )
    return query


def build_statement(source: RevealedData, after: Watermark | None) -> str:
    """The query as it is sent: sorted by data.key where there is one, and from the watermark on."""
    query, key = clean_query(source), source.data.key
    if key is None:
        return query
    column = '"{}"'.format(key.replace('"', '""').replace(":", "\\:"))
    # A row without a key would be missed silently for ever: it is queried, and refused in rows.py.
    where = f" WHERE {column} >= :{WATERMARK_PARAMETER} OR {column} IS NULL" if after else ""
    return f"SELECT * FROM ({query}) AS windvane_rows{where} ORDER BY {column}"


def bind_parameters(source: RevealedData, after: Watermark | None) -> dict[str, Any]:
    """The values of the query's parameters, each only where the query names it."""
    names = set(_BOUND.findall(str(source.data.query)))
    given = {name: value for name, value in source.data.parameters.items() if name in names}
    return {**given, WATERMARK_PARAMETER: read_watermark_value(after)} if after else given


def rename_placeholders(query: str) -> str:
    """`:name` as `$name`, and `\\:` as a colon, as DuckDB wants it."""
    return _BOUND.sub(r"$\1", query).replace("\\:", ":")


def build_watermark(key: Any) -> Watermark:
    """A key as the record keeps it. Raises InputError for a type that has no order to rely on."""
    if isinstance(key, datetime | date):
        return Watermark(type="datetime" if isinstance(key, datetime) else "date", value=key.isoformat())
    if isinstance(key, bool) or not isinstance(key, int | float | str | Decimal):
        raise InputError(
            f"data.key: holds {type(key).__name__}. Name a column that grows: a number, a date, or a text such as 2024-12-31"
        )
    return Watermark(type=type(key).__name__, value=str(key))


def read_watermark_value(kept: Watermark) -> Any:
    """A key from the record, in the type that it had."""
    types: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, Decimal)}
    types |= {"datetime": datetime.fromisoformat, "date": date.fromisoformat}
    return types[kept.type](kept.value)


@contextmanager
def _connect_database(source: RevealedData, root: Path) -> Iterator[sa.Connection]:
    engine = _sqlite(source, root) if source.kind == "sqlite" else _postgresql(source)
    try:
        with engine.connect() as db:
            _limit_time(db, source)
            yield db.execution_options(stream_results=True, yield_per=BATCH_ROWS)
    except sa.exc.SQLAlchemyError as e:
        raise _explain_database_error(e, source) from None
    finally:
        engine.dispose()


def _sqlite(source: RevealedData, root: Path) -> sa.Engine:
    path = _find_database_file(source, root).resolve()
    url = sa.URL.create("sqlite", database=f"file:{path}", query={"mode": "ro", "uri": "true"})
    return sa.create_engine(url, hide_parameters=True)


def _find_database_file(source: RevealedData, root: Path) -> Path:
    path = root / source.data.source.partition(":///")[2]
    if not path.is_file():
        raise InputError(
            f"data.source: {source.where}: there is no such file. Paths count from the folder of params.yaml"
        )
    return path


def _postgresql(source: RevealedData) -> sa.Engine:
    try:
        url = sa.make_url(source.data.source).set(drivername="postgresql+psycopg")
    except (sa.exc.ArgumentError, ValueError):
        raise InputError(
            "data.source: is no database URL. Write postgresql://user:${PASSWORD}@host:5432/database"
        ) from None
    settings = {
        "default_transaction_read_only": "on",
        "statement_timeout": int(source.data.timeout * 1000),
        # A table that another reader is at is otherwise read from its middle on, in another order each time.
        "synchronize_seqscans": "off",
        "TimeZone": "UTC",
    }
    options = " ".join(f"-c {name}={setting}" for name, setting in settings.items())
    network = {"connect_timeout": _PROBE_SECONDS, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    return sa.create_engine(url, hide_parameters=True, connect_args={"options": options, **network})


def _limit_time(db: sa.Connection, source: RevealedData) -> None:
    """SQLite has no timeout of its own: its progress handler ends a step that takes too long. PostgreSQL needs none."""
    if source.kind == "sqlite":
        deadline = time.monotonic() + source.data.timeout
        raw = db.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)


def _explain_database_error(error: sa.exc.SQLAlchemyError, source: RevealedData) -> Exception:
    """A driver's error in words: whose fault it is and what to do. Neither SQL nor parameters are repeated."""
    cause = getattr(error, "orig", None) or error
    words = source.hide(errors.read_first_line(cause))
    code = getattr(cause, "sqlstate", None)
    if code == _TIMEOUT_CODE or words == "interrupted":
        return build_timeout_error(source)
    if code == _READ_ONLY_CODE or "readonly database" in words:
        return InputError(
            f"data.query: {source.where}: wants to write ({words}). Write a SELECT: sources are only read"
        )
    if isinstance(error, sa.exc.OperationalError) and source.kind == "postgresql":
        return Outage(
            f"data.source: {source.where}: does not respond ({words}). Start the database, or fix the address"
        )
    return InputError(f"data.query: {source.where}: {words}. Fix the query")


def build_timeout_error(source: RevealedData) -> InputError:
    """The message about a statement that was cut off."""
    return InputError(
        f"data.query: {source.where}: took longer than data.timeout = {source.data.timeout:g} s. "
        "Make the query faster (an index on data.key), or raise data.timeout"
    )


def _read_duckdb(source: RevealedData, root: Path, after: Watermark | None, into: NewRowsWriter) -> Watermark | None:
    last: Watermark | None = None
    with _connect_duckdb(source, root) as db:
        query = rename_placeholders(build_statement(source, after))
        with _limit_duckdb_time(source, db):
            reader: Any = db.sql(query, params=bind_parameters(source, after)).to_arrow_reader(BATCH_ROWS)
        names = reader.schema.names
        check_column_names(source.where, names)
        while True:
            with _limit_duckdb_time(source, db):
                batch = next(iter(reader), None)
            if batch is None:
                return last or after
            if batch.num_rows:
                into.add(_convert_arrow_batch(batch))
                if source.data.key is not None:
                    last = build_watermark(batch.column(names.index(source.data.key))[-1].as_py())


def _convert_arrow_batch(batch: Any) -> pl.DataFrame:
    """Arrow's batch in the types that the other databases give."""
    frame = pl.DataFrame(pl.from_arrow(batch))
    floats = cs.by_dtype(pl.UInt64, pl.Int128, pl.UInt128, pl.Float32) | cs.decimal()
    zoned = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone]
    return frame.with_columns(
        floats.cast(pl.Float64),
        (cs.integer() - floats).cast(pl.Int64),
        (cs.categorical() | cs.enum()).cast(pl.String),
        cs.datetime().dt.cast_time_unit("us"),
    ).with_columns(pl.col(zoned).dt.convert_time_zone("UTC").dt.replace_time_zone(None))


@contextmanager
def _connect_duckdb(source: RevealedData, root: Path) -> Iterator[Any]:
    try:
        import duckdb
    except ImportError:
        raise InputError(
            f"data.source: {source.where} needs DuckDB. Install it: pip install 'windvane[duckdb]'"
        ) from None

    path = _find_database_file(source, root)
    try:
        kinds = [parsed.type for parsed in duckdb.extract_statements(rename_placeholders(clean_query(source)))]
        # read_only guards the database; COPY … TO would still write a file.
        if kinds != [duckdb.StatementType.SELECT]:
            raise InputError("data.query: is not one SELECT. Sources are only read")
        with duckdb.connect(path, read_only=True) as db:
            yield db
    except duckdb.InterruptException:
        raise build_timeout_error(source) from None
    except duckdb.IOException as e:
        raise Outage(
            f"data.source: {source.where}: cannot be opened ({source.hide(errors.read_first_line(e))}). "
            "Close the program that writes to it, or fix the address"
        ) from None
    except duckdb.Error as e:
        raise InputError(
            f"data.query: {source.where}: {source.hide(errors.read_first_line(e))}. Fix the query"
        ) from None


@contextmanager
def _limit_duckdb_time(source: RevealedData, db: Any) -> Iterator[None]:
    """DuckDB has no timeout of its own: a timer interrupts it."""
    timer = threading.Timer(source.data.timeout, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
