"""SQLite and PostgreSQL through SQLAlchemy: a query's rows in batches, read-only, each statement within data.timeout.

Leaves types and parts to tasks/origins/rows.py. DuckDB, which has Arrow of its own, is in tasks/origins/ducks.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.data_settings import Revealed
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.origins.rows import BATCH, Rows, frame
from windvane.tasks.raw import Mark

if TYPE_CHECKING:
    import sqlalchemy as sa

AFTER = "windvane_after"
# `:name`, but neither `::type`, `12:30` nor `\:`. The same in all three databases.
_BOUND = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)(?!:)")
# PostgreSQL's codes for a statement that ran too long, or wanted to write.
_TOO_LONG, _WRITES = "57014", "25006"
_ANSWER_SECONDS = 10


def read(source: Revealed, root: Path, after: Mark | None, into: Rows) -> Mark | None:
    """All rows of the query, or with `after` those whose data.key is at least that; the greatest key read.

    Raises InputError for a wrong query, and one that takes longer than data.timeout; Outage when nobody answers.
    """
    import sqlalchemy as sa

    query = sa.text(statement(source, after))
    last: Mark | None = None
    with _connected(source, root) as db:
        result = db.execute(query, bound(source, after))
        names = list(result.keys())
        into.add(frame(source.where, names, []))
        for rows in result.partitions(BATCH):
            batch = frame(source.where, names, rows)
            into.add(batch)
            if source.data.key is not None:
                last = mark(rows[-1][names.index(source.data.key)])
            _more_time(db, source)
    return last or after


def answers(source: Revealed, root: Path) -> None:
    """Read one row, to see that the database answers and the query stands."""
    import sqlalchemy as sa

    with _connected(source, root) as db:
        result = db.execute(sa.text(f"SELECT * FROM ({plain(source)}) AS windvane_rows LIMIT 1"), bound(source, None))
        frame(source.where, list(result.keys()), result.fetchmany(1))


def plain(source: Revealed) -> str:
    """The query as the user wrote it, without a semicolon at its end; its parameters all given."""
    query = str(source.data.query).strip().rstrip(";").rstrip()
    wanted = dict.fromkeys(_BOUND.findall(query))
    for name in wanted:
        if name not in source.data.parameters:
            raise InputError(
                f"data.parameters: lacks {name!r}, which data.query names. Add {name}: …, or write \\:{name} for the text itself"
            )
    return query


def statement(source: Revealed, after: Mark | None) -> str:
    """The query as it is sent: sorted by data.key where there is one, and from the watermark on."""
    query, key = plain(source), source.data.key
    if key is None:
        return query
    column = '"{}"'.format(key.replace('"', '""').replace(":", "\\:"))
    # A row without a key would be missed without a word for ever: it is asked for, and refused in rows.py.
    where = f" WHERE {column} >= :{AFTER} OR {column} IS NULL" if after else ""
    return f"SELECT * FROM ({query}) AS windvane_rows{where} ORDER BY {column}"


def bound(source: Revealed, after: Mark | None) -> dict[str, Any]:
    """The values of the query's parameters, each only where the query names it."""
    names = set(_BOUND.findall(str(source.data.query)))
    given = {name: value for name, value in source.data.parameters.items() if name in names}
    return {**given, AFTER: value(after)} if after else given


def renamed(query: str) -> str:
    """`:name` as `$name`, and `\\:` as a colon, as DuckDB wants it."""
    return _BOUND.sub(r"$\1", query).replace("\\:", ":")


def mark(key: Any) -> Mark:
    """A key as the record keeps it. Raises InputError for a type that has no order to rely on."""
    if isinstance(key, datetime | date):
        return Mark(type="datetime" if isinstance(key, datetime) else "date", value=key.isoformat())
    if isinstance(key, bool) or not isinstance(key, int | float | str | Decimal):
        raise InputError(
            f"data.key: holds {type(key).__name__}. Name a column that grows: a number, a date, or a text such as 2024-12-31"
        )
    return Mark(type=type(key).__name__, value=str(key))


def value(kept: Mark) -> Any:
    """A key from the record, in the type that it had."""
    types: dict[str, Any] = {
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "int": int,
        "float": float,
        "str": str,
        "Decimal": Decimal,
    }
    return types[kept.type](kept.value)


@contextmanager
def _connected(source: Revealed, root: Path) -> Iterator[sa.Connection]:
    import sqlalchemy as sa

    engine = _sqlite(source, root) if source.kind == "sqlite" else _postgresql(source)
    try:
        with engine.connect() as db:
            _more_time(db, source)
            yield db.execution_options(stream_results=True, yield_per=BATCH)
    except sa.exc.SQLAlchemyError as e:
        raise _explained(e, source) from None
    finally:
        engine.dispose()


def _sqlite(source: Revealed, root: Path) -> sa.Engine:
    import sqlalchemy as sa

    path = root / source.data.source.partition(":///")[2]
    if not path.is_file():
        raise InputError(
            f"data.source: {source.where}: there is no such file. Paths count from the folder of params.yaml"
        )
    url = sa.URL.create("sqlite", database=f"file:{path.resolve()}", query={"mode": "ro", "uri": "true"})
    return sa.create_engine(url, hide_parameters=True)


def _postgresql(source: Revealed) -> sa.Engine:
    import sqlalchemy as sa

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
    network = {"connect_timeout": _ANSWER_SECONDS, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    return sa.create_engine(url, hide_parameters=True, connect_args={"options": options, **network})


def _more_time(db: sa.Connection, source: Revealed) -> None:
    """SQLite has no timeout of its own: its progress handler ends a step that takes too long. PostgreSQL needs none."""
    if source.kind == "sqlite":
        deadline = time.monotonic() + source.data.timeout
        raw = db.connection.driver_connection
        assert raw is not None
        raw.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)


def _explained(error: sa.exc.SQLAlchemyError, source: Revealed) -> Exception:
    """A driver's error in words: whose fault it is and what to do. Neither SQL nor parameters are repeated."""
    import sqlalchemy as sa

    cause = getattr(error, "orig", None) or error
    words = source.hide((str(cause).strip().splitlines() or [type(cause).__name__])[0]).rstrip(".")
    code = getattr(cause, "sqlstate", None)
    if code == _TOO_LONG or words == "interrupted":
        return too_long(source)
    if code == _WRITES or "readonly database" in words:
        return InputError(
            f"data.query: {source.where}: wants to write ({words}). Write a SELECT: sources are only read"
        )
    if isinstance(error, sa.exc.OperationalError) and source.kind == "postgresql":
        return Outage(
            f"data.source: {source.where}: does not answer ({words}). Start the database, or mend the address"
        )
    return InputError(f"data.query: {source.where}: {words}. Mend the query")


def too_long(source: Revealed) -> InputError:
    """What to say of a statement that was cut off."""
    return InputError(
        f"data.query: {source.where}: took longer than data.timeout = {source.data.timeout:g} s. "
        "Make the query faster (an index on data.key), or raise data.timeout"
    )
