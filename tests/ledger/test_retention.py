"""What the ledger lets go, what it never kept, and what flows back: on SQLite and PostgreSQL alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
import sqlalchemy as sa

from tests.support.ledgers import answer, put
from windvane.ledger import database, labels, laps, versions
from windvane.ledger.labels import LabelStatement, PredictionQuery, read_labelled_predictions, record_labels
from windvane.ledger.prediction_writer import PredictionWriter
from windvane.ledger.predictions import (
    HASH_KEY,
    PrivacyRules,
    RemovedRows,
    erase_ids,
    erase_subject,
    expire_predictions,
)
from windvane.ledger.schema import erasures
from windvane.ledger.schema import labels as statements
from windvane.ledger.schema import predictions as table
from windvane.ledger.versions import Version, VersionFacts
from windvane.serving.http import server

KEY = b"a key that only this test knows"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def ids(engine: sa.Engine, of: sa.Table, project: str) -> list[str]:
    with engine.connect() as db:
        return sorted(db.scalars(sa.select(of.c.id).where(of.c.project == project)))


def days_ago(days: int) -> str:
    return database.format_timestamp(datetime.now(UTC) - timedelta(days=days))


def test_old_predictions_go_with_their_labels_and_waiting_labels_too(engine: sa.Engine, project: str) -> None:
    put(engine, project, *(answer(f"old{i}") for i in range(1200)), received=days_ago(400))
    # Played history: old in its own time, received today.
    put(engine, project, answer("new", time="1999-01-01"))
    record_labels(engine, project, [LabelStatement(id, "late") for id in ("old1", "new", "waits")])
    with engine.begin() as db:
        mine = sa.update(statements).where(statements.c.project == project, statements.c.id != "waits")
        db.execute(mine.values(received=days_ago(390)))
    assert expire_predictions(engine, project, timedelta(days=365)) == RemovedRows(predictions=1200, labels=1)
    assert ids(engine, table, project) == ["new"]
    assert ids(engine, statements, project) == ["new", "waits"]
    assert expire_predictions(engine, project, timedelta(days=365)) == RemovedRows(0, 0)
    with engine.connect() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(erasures).where(erasures.c.project == project)) == 0


def test_a_service_forgets_at_its_start_and_lives_through_an_outage(
    engine: sa.Engine, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_EXPIRY_SECONDS", 0.0)
    put(engine, project, *(answer(f"old{i}") for i in range(3)), received=days_ago(40))
    put(engine, project, answer("new"))
    keeper = server.RetentionThread(engine, project, timedelta(days=30))
    keeper.start()
    deadline = time.monotonic() + 120
    while ids(engine, table, project) != ["new"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    keeper.stop()
    away = sa.create_engine(str(engine.url.set(database="/nowhere/at/all")))
    server.RetentionThread(away, project, timedelta(days=30)).poll()  # raises nothing
    away.dispose()


def test_a_subject_is_erased_by_id_and_the_record_does_not_say_whom(engine: sa.Engine, project: str) -> None:
    put(engine, project, answer("a"), answer("a", version=2), answer("a", role="shadow"), answer("b"))
    record_labels(
        engine,
        project,
        [LabelStatement("a", "late", days_ago(2)), LabelStatement("a", "on time"), LabelStatement("b", "late")],
    )
    assert erase_ids(engine, project, ["a", "a", "nobody"]) == RemovedRows(predictions=3, labels=2)
    assert (ids(engine, table, project), ids(engine, statements, project)) == (["b"], ["b"])
    with engine.connect() as db:
        row = db.execute(sa.select(erasures).where(erasures.c.project == project)).one()
    assert (row.by, row.predictions, row.labels) == ("id", 3, 2)
    assert days_ago(1) < row.erased <= database.now_timestamp()


def test_what_is_erased_is_gone_from_the_file_itself(tmp_path: Path) -> None:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    put(engine, "p", answer("a", inputs={"name": "Rosalind Franklin"}), answer("b"))

    def found() -> bool:
        return any(b"Rosalind" in path.read_bytes() for path in tmp_path.glob("ledger.db*"))

    assert found()
    erase_ids(engine, "p", ["a"])
    assert not found()
    engine.dispose()


def test_a_subject_is_erased_by_a_hashed_column_and_by_a_plain_one(engine: sa.Engine, project: str) -> None:
    privacy = PrivacyRules(hash=frozenset({"customer"}), key=KEY)
    put(engine, project, answer("before", inputs={"customer": 7}))
    put(engine, project, answer("a", inputs={"customer": 7.0}), answer("b", inputs={"customer": 8}), privacy=privacy)
    put(
        engine, project, answer("c", inputs={"customer": "7"}, role="canary"), answer("d", inputs=None), privacy=privacy
    )
    assert erase_subject(engine, project, "customer", 7, privacy).predictions == 3
    assert ids(engine, table, project) == ["b", "d"]
    with pytest.raises(ValueError, match="ids instead"):
        erase_subject(engine, project, "customer", 7, PrivacyRules(drop=frozenset({"customer"})))


def test_private_columns_never_reach_the_ledger(engine: sa.Engine, project: str) -> None:
    privacy = PrivacyRules(frozenset({"name"}), frozenset({"mail"}), key=KEY)
    writer = PredictionWriter(engine, project, privacy)
    inputs = {"name": "Rosalind", "mail": "r@example.org", "x": 1}
    writer.submit([answer("a", inputs=inputs), answer("b", inputs={"mail": None, "x": 2})]).result(10)
    writer.close()
    first, second = read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True))
    assert first.inputs == {"mail": {HASH_KEY: privacy.hashed("mail", "r@example.org")}, "x": 1}
    assert second.inputs == {"mail": {HASH_KEY: None}, "x": 2}


def test_sampling_spares_inputs_and_nothing_else_and_a_repeat_stays_one(engine: sa.Engine, project: str) -> None:
    privacy = PrivacyRules(sample=0.25)
    for _ in range(2):
        put(engine, project, *(answer(str(i)) for i in range(400)), privacy=privacy)
    found = list(read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True)))
    assert len(found) == 400
    assert all(judged.output == {"prediction": 2.5} for judged in found)
    # 400 draws of 0.25: 100 +- 4 standard deviations of 8.7.
    assert 65 < sum(judged.inputs is not None for judged in found) < 135


def test_a_hash_depends_on_key_and_column_and_not_on_the_type() -> None:
    one = PrivacyRules(hash=frozenset({"a"}), key=KEY)
    assert one.hashed("a", 7) == one.hashed("a", 7.0) == one.hashed("a", "7")
    assert len({one.hashed("a", 7), one.hashed("b", 7), PrivacyRules(key=KEY[::-1]).hashed("a", 7)}) == 3
    with pytest.raises(ValueError, match="16 bytes"):
        PrivacyRules(hash=frozenset({"a"}), key=b"short")


COLUMNS = {"numbers": ["x"], "booleans": ["b"], "low": ["city"], "high": [], "dates": ["d"]}
INPUTS = {"x": 1, "b": 1.0, "city": "Waco", "d": 86_400_000_000, "extra": "unknown to the model"}


def register(engine: sa.Engine, project: str, **facts: Any) -> None:
    content = {"columns": COLUMNS, "target": "price", "kind": "regression", "id": "house", "time": "ts", **facts}
    with laps.hold_lease(engine, project, "lap", lambda _: None) as lease:
        versions.record_version(
            engine,
            lease,
            Version(
                1, "f", "run", "uri", "m", "r", "d", None, VersionFacts.from_json(content), database.now_timestamp()
            ),
        )


def fed_back(engine: sa.Engine, project: str, since: str | None = None) -> list[dict[str, Any]]:
    return [row for batch in labels.read_labelled_batches(engine, project, since) for row in batch.to_pylist()]


def test_labelled_rows_flow_back_with_the_types_of_the_table(engine: sa.Engine, project: str) -> None:
    register(engine, project)
    put(
        engine,
        project,
        answer("a", inputs=INPUTS, time="2026-01-31T12:00:00Z"),
        answer("b", inputs={**INPUTS, "x": None}),
    )
    record_labels(engine, project, [LabelStatement("a", 5.0)])
    (batch,) = labels.read_labelled_batches(engine, project, None)
    types = {"house": pa.string(), "ts": pa.timestamp("us"), "x": pa.float64(), "b": pa.bool_(), "city": pa.string()}
    assert {field.name: field.type for field in batch.schema} == {
        **types,
        "d": pa.timestamp("us"),
        "price": pa.float64(),
        labels.LABELLED_AT_COLUMN: pa.string(),
    }
    row = batch.to_pylist()[0]
    assert (row["house"], row["ts"], row["x"], row["b"], row["city"]) == (
        "a",
        datetime(2026, 1, 31, 12),
        1.0,
        True,
        "Waco",
    )
    assert (row["d"], row["price"]) == (datetime(1970, 1, 2), 5.0)


def test_values_that_came_as_text_flow_back_as_what_they_mean(engine: sa.Engine, project: str) -> None:
    register(engine, project, id=None, time=None)
    text = {"x": "1.5", "b": "Yes", "city": "Waco", "d": "2026-01"}
    gaps = {"x": "", "b": None, "city": "", "d": None}
    put(engine, project, answer("a", inputs=text), answer("b", inputs=gaps), answer("c", inputs={**text, "x": "much"}))
    record_labels(engine, project, [LabelStatement(id, 5.0) for id in "abc"])
    first, second = fed_back(engine, project)
    assert [first[name] for name in text] == [1.5, True, "Waco", datetime(2026, 1, 1)]
    assert [second[name] for name in text] == [None] * 4


def test_only_what_is_new_flows_back_also_when_the_label_came_first(engine: sa.Engine, project: str) -> None:
    register(engine, project)
    put(engine, project, answer("a", inputs=INPUTS))
    record_labels(engine, project, [LabelStatement("a", 5.0), LabelStatement("b", 6.0)])
    until = max(row[labels.LABELLED_AT_COLUMN] for row in fed_back(engine, project))
    assert fed_back(engine, project, until) == []
    put(engine, project, answer("b", inputs=INPUTS))
    record_labels(engine, project, [LabelStatement("a", 7.0)])
    assert [(row["house"], row["price"]) for row in fed_back(engine, project, until)] == [("b", 6.0), ("a", 7.0)]


def test_each_id_flows_back_once_as_the_champion_scored_it_last(engine: sa.Engine, project: str) -> None:
    register(engine, project)
    put(engine, project, answer("a", inputs=INPUTS, role="shadow"), answer("b", inputs={**INPUTS, "x": 1}))
    put(engine, project, answer("b", inputs={**INPUTS, "x": 2}), answer("c", inputs=None), answer("d", inputs={"x": 1}))
    put(engine, project, answer("e", inputs=INPUTS), privacy=PrivacyRules(hash=frozenset({"city"}), key=KEY))
    record_labels(engine, project, [LabelStatement(id, 5.0) for id in "abcde"])
    assert [(row["house"], row["x"]) for row in fed_back(engine, project)] == [("b", 2.0)]


@pytest.mark.parametrize(("said", "label", "expected"), [(1, "0", 0), (True, "false", False), ("late", "1", "1")])
def test_a_class_flows_back_as_the_table_writes_it(
    engine: sa.Engine, project: str, said: Any, label: str, expected: Any
) -> None:
    register(engine, project, kind="classification", id=None, time=None)
    put(engine, project, answer("a", inputs=INPUTS, output={"prediction": said}))
    record_labels(engine, project, [LabelStatement("a", label)])
    (row,) = fed_back(engine, project)
    assert row["price"] == expected
    assert type(row["price"]) is type(expected)
    assert set(row) == {"x", "b", "city", "d", "price", labels.LABELLED_AT_COLUMN}


def test_times_that_are_numbers_flow_back_as_numbers(engine: sa.Engine, project: str) -> None:
    register(engine, project, taught_until=2014.0)
    put(engine, project, answer("a", inputs=INPUTS, time=2015), answer("b", inputs=INPUTS))
    record_labels(engine, project, [LabelStatement("a", 5.0), LabelStatement("b", 5.0)])
    assert {row["house"]: row["ts"] for row in fed_back(engine, project)} == {"a": 2015.0, "b": None}
