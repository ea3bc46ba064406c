"""Databases as sources: real SQLite, DuckDB and PostgreSQL, read-only, bounded in time, and only what is new."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from tests.support.postgres_server import Postgres
from tests.support.sources import data, held, state
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.sources import fetch, snapshot

pytestmark = pytest.mark.long

TABLE = "CREATE TABLE sales (id INTEGER, moment TIMESTAMP, price DOUBLE PRECISION, town VARCHAR(20))"


@dataclass
class Database:
    """A database that a test writes to, and its address as a source."""

    source: str
    write: Callable[..., None]


def sqlite(root: Path) -> Database:
    import sqlite3

    def write(sql: str, *rows: tuple[Any, ...]) -> None:
        with sqlite3.connect(root / "sales.db") as db:
            db.executemany(sql, rows) if rows else db.execute(sql)
        db.close()

    return Database("sqlite:///sales.db", write)


def duckdb(root: Path) -> Database:
    engine = pytest.importorskip("duckdb")

    def write(sql: str, *rows: tuple[Any, ...]) -> None:
        with engine.connect(root / "sales.duckdb") as db:
            db.executemany(sql, rows) if rows else db.execute(sql)

    return Database("duckdb:///sales.duckdb", write)


def postgresql(url: str) -> Database:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")

    def write(sql: str, *rows: tuple[Any, ...]) -> None:
        with engine.connect() as db:
            cursor = db.connection.cursor()
            for row in rows or [()]:
                cursor.execute(sql.replace("?", "%s"), row)

    write("DROP TABLE IF EXISTS sales")
    return Database(url, write)


@pytest.fixture(scope="session")
def own_postgres(postgres: str) -> str:
    """A database beside that of the ledger's tests, which know every table of theirs."""
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE sources"))
    engine.dispose()
    return postgres.removesuffix("/postgres") + "/sources"


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database with four rows, two of them with the greatest id."""
    made = {"sqlite": sqlite, "duckdb": duckdb}
    found = (
        postgresql(request.getfixturevalue("own_postgres"))
        if request.param == "postgresql"
        else made[request.param](tmp_path)
    )
    found.write(TABLE)
    found.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (1, "2024-01-01 10:00:00", 1.5, "Ulm"))
    found.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (2, "2024-01-02 10:00:00", None, "Ulm"))
    rows = [(3, "2024-01-03 10:00:00", 3.5, "Bonn"), (3, "2024-01-03 10:00:00", 3.5, "Bonn")]
    found.write("INSERT INTO sales VALUES (?, ?, ?, ?)", *rows)
    return found


def test_a_query_with_bound_parameters_becomes_parts_and_a_record(database: Database, tmp_path: Path) -> None:
    query = "SELECT id, price, town FROM sales WHERE town = :town;"
    section = data(source=database.source, query=query, parameters={"town": "Ulm"})
    done = fetch.fetch_source(tmp_path, section)
    assert (done.moved, done.new) == (True, 2)
    assert held(tmp_path).sort("id").rows() == [(1, 1.5, "Ulm"), (2, None, "Ulm")]
    record = snapshot.read_snapshot(tmp_path)
    assert record is not None
    assert (record.total, record.generation, record.watermark) == (2, 1, None)
    before = state(tmp_path)
    assert not fetch.fetch_source(tmp_path, section).moved
    assert state(tmp_path) == before


def test_with_a_key_only_new_rows_are_read_and_ties_are_kept(database: Database, tmp_path: Path) -> None:
    section = data(source=database.source, query="SELECT * FROM sales", key="id")
    assert fetch.fetch_source(tmp_path, section).new == 4
    assert not fetch.fetch_source(tmp_path, section).moved
    new = [(3, "2024-01-03 10:00:00", 3.5, "Bonn"), (3, "2024-01-04 10:00:00", 4.5, "Köln"), (4, None, 5.0, None)]
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", *new)
    first = snapshot.read_snapshot(tmp_path)
    assert fetch.fetch_source(tmp_path, section).new == 3
    record = snapshot.read_snapshot(tmp_path)
    assert first is not None
    assert record is not None
    assert [part.rows for part in record.parts] == [4, 3]
    assert record.parts[0] == first.parts[0]
    assert (record.parts[1].first, record.parts[1].last, record.total, record.generation) == (3, 4, 7, 1)
    assert sorted(held(tmp_path)["id"]) == [1, 2, 3, 3, 3, 3, 4]
    assert not fetch.fetch_source(tmp_path, section).moved


def test_a_moment_may_be_the_key(database: Database, tmp_path: Path) -> None:
    section = data(source=database.source, query="SELECT * FROM sales", key="moment")
    assert fetch.fetch_source(tmp_path, section).new == 4
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (0, "2024-01-03 10:00:01", 9.5, "Ulm"))
    assert fetch.fetch_source(tmp_path, section).new == 1
    assert not fetch.fetch_source(tmp_path, section).moved


def test_full_finds_updated_and_deleted_rows(database: Database, tmp_path: Path) -> None:
    database.write("DELETE FROM sales WHERE id = 3")
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (3, None, 3.0, "Bonn"), (4, None, 4.0, "Bonn"))
    section = {"source": database.source, "query": "SELECT * FROM sales", "key": "id"}
    fetch.fetch_source(tmp_path, data(**section))
    full = data(**section, refresh="full")
    before = state(tmp_path)
    assert not fetch.fetch_source(tmp_path, full).moved
    assert state(tmp_path) == before
    database.write("UPDATE sales SET price = 99 WHERE id = 2")
    database.write("DELETE FROM sales WHERE id = 1")
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (5, None, 5.0, "Bonn"), (6, None, 6.0, "Bonn"))
    assert not [
        p
        for p in (fetch.fetch_source(tmp_path, data(**section)).record or snapshot.SnapshotRecord).parts
        if p.first == 2
    ]
    done = fetch.fetch_source(tmp_path, full)
    assert done.record is not None
    assert str(done.record.changes) == "0 new, 1 updated, 1 deleted rows (by id)"
    assert done.record.generation == 2
    assert sorted(held(tmp_path)["id"]) == [2, 3, 4, 5, 6]
    assert len(list((tmp_path / snapshot.SNAPSHOT_FOLDER).glob("part-*"))) == len(done.record.parts)


def test_a_statement_that_takes_too_long_is_cut_off(database: Database, tmp_path: Path) -> None:
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n"
    with pytest.raises(InputError, match=r"data\.timeout = 0\.3 s.*raise data.timeout"):
        fetch.fetch_source(tmp_path, data(source=database.source, query=slow, timeout=0.3))
    assert state(tmp_path) == {}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM sales RETURNING id", "data.query"),
        ("INSERT INTO sales VALUES (9, NULL, 1, 'x') RETURNING id", "data.query"),
        ("DROP TABLE sales", "data.query"),
        ("SELECT nothing FROM sales", "nothing"),
        ("SELECT * FROM sales WHERE id = :missing", "data.parameters: lacks 'missing'"),
        ("SELECT id, id FROM sales", "'id' twice"),
        ("SELECT * FROM sales WHERE id > 100", "gives no rows"),
    ],
)
def test_what_is_not_a_readable_query_is_refused_and_nothing_is_written(
    database: Database, tmp_path: Path, query: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fetch.fetch_source(tmp_path, data(source=database.source, query=query))
    assert state(tmp_path) == {}
    assert fetch.fetch_source(tmp_path, data(source=database.source, query="SELECT * FROM sales")).new == 4


def test_a_row_without_a_key_is_refused(database: Database, tmp_path: Path) -> None:
    section = data(source=database.source, query="SELECT * FROM sales", key="id")
    fetch.fetch_source(tmp_path, section)
    before = state(tmp_path)
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (None, None, 1.0, "x"))
    with pytest.raises(InputError, match="'id' is empty in 1 rows"):
        fetch.fetch_source(tmp_path, section)
    assert state(tmp_path) == before
    with pytest.raises(InputError, match="ident"):
        fetch.fetch_source(tmp_path, data(source=database.source, query="SELECT id AS ident_ FROM sales", key="ident"))


def test_check_asks_without_fetching(database: Database, tmp_path: Path) -> None:
    fetch.probe_source(tmp_path, data(source=database.source, query="SELECT * FROM sales", key="id"))
    assert state(tmp_path) == {}
    with pytest.raises(InputError, match=r"data\.query"):
        fetch.probe_source(tmp_path, data(source=database.source, query="SELECT * FROM absent"))


@trials(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=5), min_size=1, max_size=5))
def test_whatever_arrives_from_the_watermark_on_is_held_once(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[list[tuple[int, int]]]
) -> None:
    root, key = tmp_path_factory.mktemp("growing"), 0
    database, sent = sqlite(root), Counter[tuple[int, int]]()
    database.write("CREATE TABLE t (key INTEGER, x INTEGER)")
    section = data(source=database.source, query="SELECT * FROM t", key="key")
    for rows in [[(0, 0)], *arrivals]:
        for step, x in rows:
            key += step
            database.write("INSERT INTO t VALUES (?, ?)", (key, x))
            sent[key, x] += 1
        fetch.fetch_source(root, section)
        assert Counter(held(root).rows()) == sent


def test_types_widen_from_part_to_part(tmp_path: Path) -> None:
    database = sqlite(tmp_path)
    database.write("CREATE TABLE t (key INTEGER, x, y)")
    rows = [(i, None if i < 50_000 else i, "word") for i in range(50_001)]
    database.write("INSERT INTO t VALUES (?, ?, ?)", *rows)
    section = data(source=database.source, query="SELECT * FROM t", key="key")
    assert fetch.fetch_source(tmp_path, section).new == 50_001
    database.write("INSERT INTO t VALUES (?, ?, ?)", (50_001, 0.5, "word"))
    fetch.fetch_source(tmp_path, section)
    assert held(tmp_path)["x"].drop_nulls().to_list() == [50_000, 0.5]
    database.write("INSERT INTO t VALUES (?, ?, ?)", (50_002, "far", 1), (50_003, 1, 1))
    with pytest.raises(InputError, match=r"'x' mixes .*int and str"):
        fetch.fetch_source(tmp_path, section)


def test_another_question_begins_anew(tmp_path: Path) -> None:
    database = sqlite(tmp_path)
    database.write(TABLE)
    database.write("INSERT INTO sales VALUES (?, ?, ?, ?)", (1, None, 1, "a"), (2, None, 2, "b"))
    fetch.fetch_source(tmp_path, data(source=database.source, query="SELECT * FROM sales", key="id"))
    done = fetch.fetch_source(
        tmp_path, data(source=database.source, query="SELECT * FROM sales WHERE id > 1", key="id")
    )
    assert done.record is not None
    assert (done.record.generation, done.record.total, done.record.changes) == (2, 1, None)


@pytest.mark.slow
def test_postgresql_killed_in_mid_read_leaves_the_snapshot_and_the_next_fetch_works(
    mortal_postgres: Postgres, tmp_path: Path
) -> None:
    database = postgresql(mortal_postgres.url)
    database.write("CREATE TABLE sales AS SELECT i AS id, repeat('x', 500) AS t FROM generate_series(1, 10) i")
    section = data(source=database.source, query="SELECT * FROM sales", key="id")
    fetch.fetch_source(tmp_path, section)
    before = state(tmp_path)
    database.write("INSERT INTO sales SELECT i, repeat('x', 500) FROM generate_series(11, 120000) i")
    folder = tmp_path / snapshot.STAGING_FOLDER
    ended: list[BaseException] = []

    def read() -> None:
        try:
            fetch.fetch_source(tmp_path, section)
        except Outage as e:
            ended.append(e)

    reading = threading.Thread(target=read)
    reading.start()
    while reading.is_alive() and not any(p.stat().st_size > 0 for p in folder.glob("part-*")):
        reading.join(0.001)
    mortal_postgres.kill()
    reading.join()
    assert len(ended) == 1, "the server was killed too late: it had given all rows"
    assert "does not respond" in str(ended[0])
    assert "Start the database" in str(ended[0])
    assert state(tmp_path) == before
    with pytest.raises(Outage):
        fetch.fetch_source(tmp_path, section)
    mortal_postgres.start()
    assert fetch.fetch_source(tmp_path, section).new == 119_990
    assert held(tmp_path)["id"].n_unique() == 120_000


def test_a_server_that_is_not_there_is_an_outage_that_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2hunter2")
    section = data(source="postgresql://me:${PASSWORD}@127.0.0.1:9/db", query="SELECT 1 AS one")
    with pytest.raises(Outage, match=r"postgresql://127\.0\.0\.1:9/db: does not respond") as caught:
        fetch.fetch_source(tmp_path, section)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
