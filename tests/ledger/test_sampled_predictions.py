"""Of many predictions only a sample is read: each so many-th in the order of time, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.support.ledgers import answer, put
from windvane.ledger import database
from windvane.ledger.labels import LabelStatement, PredictionQuery, read_labelled_predictions, record_labels

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


def test_each_so_many_th_prediction_is_read_labelled_or_not(engine: sa.Engine) -> None:
    project = f"p{uuid4().hex}"
    # Ids in no order of time, and repeated inputs.
    ids = [f"{(7 * i) % 50:02d}" for i in range(50)]
    put(engine, project, *(answer(id, time=START + timedelta(hours=i)) for i, id in enumerate(ids)))
    put(engine, f"{project}-other", *(answer(f"x{i}", time=START) for i in range(30)))
    labelled = ids[::2]
    record_labels(engine, project, [LabelStatement(id, 1.0) for id in labelled])
    record_labels(engine, project, [LabelStatement(ids[6], 2.0)])  # corrected: still one row

    def read(**wanted: object) -> list[str]:
        query = PredictionQuery(version=1, **wanted)  # type: ignore[arg-type]
        return [row.id for row in read_labelled_predictions(engine, project, query)]

    assert read(unlabelled=True, every=7) == ids[6::7]
    assert read(every=5) == labelled[4::5]
    assert read(unlabelled=True, every=5, since=START + timedelta(hours=10)) == ids[14::5]
    assert read(unlabelled=True) == ids
    rows = list(read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True, every=7)))
    assert [row.label is not None for row in rows] == [id in labelled for id in ids[6::7]]
    assert rows[0].label == 2.0
