"""Of many predictions a sample is read, the same each time, on SQLite and PostgreSQL alike; counts are right or called estimated."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.support.ledgers import answer, put
from windvane.ledger import database, windows
from windvane.ledger.database import format_timestamp
from windvane.ledger.labels import (
    LabelledPrediction,
    LabelStatement,
    PredictionQuery,
    read_labelled_predictions,
    record_labels,
)
from windvane.ledger.predictions import find_newest_prediction_time

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


def test_the_rows_that_come_first_in_the_fixed_order_are_read_labelled_or_not(engine: sa.Engine) -> None:
    project = f"p{uuid4().hex}"
    # Ids in no order of time, one of them predicted twice, and repeated inputs.
    ids = [f"{(7 * i) % 50:02d}" for i in range(50)] * 2
    put(engine, project, *(answer(id, time=START + timedelta(hours=i)) for i, id in enumerate(ids)))
    put(engine, f"{project}-other", *(answer(f"x{i}", time=START) for i in range(30)))
    labelled = set(ids[:25])
    record_labels(engine, project, [LabelStatement(id, 1.0) for id in labelled])
    record_labels(engine, project, [LabelStatement(ids[6], 2.0)])  # corrected: still one row

    def read(**wanted: object) -> list[LabelledPrediction]:
        query = PredictionQuery(version=1, **wanted)  # type: ignore[arg-type]
        return list(read_labelled_predictions(engine, project, query))

    whole = read(unlabelled=True)
    assert [row.id for row in whole] == ids
    for tier in (0, 2, 4):
        part, smaller = read(unlabelled=True, tier=tier), read(unlabelled=True, tier=tier + 2)
        assert {(row.id, row.time) for row in smaller} < {(row.id, row.time) for row in part}
    # A limit takes the same rows whether the tiers were narrowed before or not, in the order of time.
    few = read(unlabelled=True, at_most=10)
    assert len(few) == 10
    assert few == read(unlabelled=True, at_most=10, tier=2)
    assert [row.time for row in few] == sorted(row.time for row in few)
    assert {row.id for row in read()} == labelled
    assert len(read(at_most=7)) == 7
    assert [row.id for row in read(ids=tuple(sorted(labelled)))] == [id for id in ids if id in labelled]
    assert next(row for row in read() if row.id == ids[6]).label == 2.0


def test_a_sample_is_even(engine: sa.Engine) -> None:
    """Neither the order of ids, nor repeated rows or ids of customers, bends the share that is read."""
    project = f"p{uuid4().hex}"
    put(engine, project, *(answer(f"customer-{i % 20}", time=START + timedelta(minutes=i)) for i in range(2000)))
    read = list(read_labelled_predictions(engine, project, PredictionQuery(version=1, unlabelled=True, tier=2)))
    assert 430 < len(read) < 570
    assert len({row.id for row in read}) == 20
    early = sum(row.time < format_timestamp(START + timedelta(minutes=1000)) for row in read)
    assert abs(early - len(read) / 2) < 60


def test_counts_of_many_rows_are_right_or_called_estimated(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    project, day = f"p{uuid4().hex}", format_timestamp(START + timedelta(days=1))
    put(engine, project, *(answer(f"{i:04d}", time=START + timedelta(minutes=i)) for i in range(1500)))
    record_labels(engine, project, [LabelStatement(f"{i:04d}", 1.0) for i in range(0, 1600, 2)])
    stretch = (project, 1, format_timestamp(START), day)
    exact = windows.count_window_rows(engine, *stretch)
    assert (exact.rows, exact.labelled, exact.estimated, exact.ids) == (1440, 720, False, None)
    monkeypatch.setattr(windows, "MAX_COUNTED_ROWS", 1000)  # rows in the stretch: more; labels in the ledger: fewer
    few = windows.count_window_rows(engine, *stretch)
    assert (few.rows, few.labelled, few.estimated, few.known) == (1440, 720, False, exact.known)
    assert few.ids == tuple(f"{i:04d}" for i in range(0, 1440, 2))
    monkeypatch.setattr(windows, "MAX_COUNTED_ROWS", 700)
    many = windows.count_window_rows(engine, *stretch)
    assert (many.rows, many.estimated) == (1440, True)
    assert 600 < many.labelled < 840
    assert many == windows.count_window_rows(engine, *stretch)
    traffic = windows.read_traffic(engine, project, 1)
    assert (traffic.rows, traffic.first) == (1500, format_timestamp(START))
    assert find_newest_prediction_time(engine, project) == traffic.newest


def test_the_tier_of_stored_rows_is_the_writers(engine: sa.Engine) -> None:
    """Even tiers part the rows that a migration gave tiers as they part the writer's: the same sample on every ledger."""
    project, step = f"p{uuid4().hex}", import_module("windvane.ledger.migrations.versions.0004_sample")
    put(engine, project, *(answer(f"\u00fc{i}", time=START + timedelta(minutes=i)) for i in range(300)))
    query = sa.text("SELECT id, content, tier FROM predictions WHERE project = :project")
    with engine.connect() as db:
        rows = db.execute(query, {"project": project}).all()
        assert [row.tier for row in rows] == [step._draw_tier(row.id, row.content) // 2 * 2 for row in rows]
        assert {row.tier for row in rows} >= {0, 2, 4}
        if engine.dialect.name == "postgresql":
            drawn = sa.text(f"SELECT tier, 16 - greatest({step._FIRST_BITS}, 1) AS drawn FROM predictions")
            assert all(row.tier == row.drawn // 2 * 2 for row in db.execute(drawn))
