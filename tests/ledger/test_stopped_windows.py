"""Rows of windows whose data were called broken train nothing, whichever lap reads the labels that came back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from tests.support.ledgers import answer, put
from windvane.flows.lap.context import SCHEDULED_CAUSE, LapContext, find_stopped_outcome
from windvane.ledger import database, decisions, labels, laps, versions, windows
from windvane.ledger.decisions import ACKNOWLEDGED_NOTE, DecisionRecord
from windvane.ledger.labels import LabelStatement, record_labels
from windvane.ledger.versions import Version, VersionFacts
from windvane.ledger.windows import WindowRecord
from windvane.monitoring.watch.window_checks import close_fixed_stops
from windvane.tasks.console import SilentConsole

PROJECT = "weather"
MAY, JUNE, JULY = (f"2026-0{n}-01T00:00:00.000000+00:00" for n in (5, 6, 7))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    columns = {"numbers": ["x"], "booleans": [], "low": [], "high": [], "dates": []}
    summary = {"candidates": [], "chosen": "linear", "test": 1.0, "interval": [0.9, 1.1], "fit": "good"}
    content = {"columns": columns, "target": "y", "kind": "regression", "id": "id", "time": None, "summary": summary}
    facts = VersionFacts.from_json(content)
    now = database.now_timestamp()
    with laps.hold_lease(engine, PROJECT, "lap", lambda _: None) as lease:
        versions.record_version(engine, lease, Version(1, "f", "run", "uri", "m", "r", "d", None, facts, now))
    for id, time in (("may", "2026-05-10T00:00:00Z"), ("june", "2026-06-10T00:00:00Z")):
        put(engine, PROJECT, answer(id, time=time, inputs={"x": 1.0}))
    record_labels(engine, PROJECT, [LabelStatement("may", 1.0), LabelStatement("june", 2.0)])
    for start, end in ((MAY, JUNE), (JUNE, JULY)):
        seen = WindowRecord(1, start, end, "ledger", 1, 1, True, 1, "mark", {}, now)
        assert windows.save_window(engine, PROJECT, seen, None)
    yield engine
    engine.dispose()


def stop(engine: sa.Engine, window: str) -> DecisionRecord:
    return decisions.record_decision(engine, DecisionRecord(PROJECT, 1, window, JULY, "stop", "broken"))


def trained_on(engine: sa.Engine) -> list[str]:
    found = labels.read_labelled_batches(engine, PROJECT, None)
    return sorted(row["id"] for batch in found for row in batch.to_pylist())


def test_f1_n6_rows_of_a_stopped_window_are_no_training_rows_until_a_person_accepts_them(engine: sa.Engine) -> None:
    assert trained_on(engine) == ["june", "may"]
    one = stop(engine, JUNE)
    assert trained_on(engine) == ["may"]
    decisions.close_decision(engine, one.id, "done", ACKNOWLEDGED_NOTE)
    assert trained_on(engine) == ["june", "may"]


def test_f1_n7_that_later_data_are_right_makes_broken_rows_no_better(engine: sa.Engine) -> None:
    stop(engine, MAY)
    close_fixed_stops(engine, PROJECT, JUNE)
    assert [one.open for one in decisions.list_decisions(engine, PROJECT)] == [False]
    assert trained_on(engine) == ["june"]


def test_f1_n8_late_labels_of_an_earlier_window_end_no_stop(engine: sa.Engine) -> None:
    one = stop(engine, JUNE)
    close_fixed_stops(engine, PROJECT, MAY)
    assert decisions.find_decision(engine, one.id).open  # type: ignore[union-attr]
    close_fixed_stops(engine, PROJECT, JUNE)
    assert not decisions.find_decision(engine, one.id).open  # type: ignore[union-attr]


def test_f1_n10_a_scheduled_lap_does_not_train_while_a_stop_is_open(engine: sa.Engine) -> None:
    versions.record_promotion(engine, PROJECT, versions.make_promotion(None, 1, "manual", "first"))
    project = SimpleNamespace(ledger=engine, name=PROJECT)
    stop(engine, JUNE)
    with laps.hold_lease(engine, PROJECT, "windvane train", lambda _: None) as lease:
        lap = LapContext(project, lease, SCHEDULED_CAUSE, "search", SilentConsole())  # type: ignore[arg-type]
        outcome = find_stopped_outcome(lap)
    assert outcome is not None
    assert outcome.verdict == "unchanged"
    assert "monitoring stopped scheduled laps: broken" in outcome.reason
