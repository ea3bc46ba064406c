"""What is owed, and when nothing is done about it; and schedules by the events' clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import quick_project
from windvane.flows import acting
from windvane.flows.clock import Ticks
from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.flows.reconciling import ON_ITS_WAY, Owed
from windvane.ledger import decisions, leases, versions
from windvane.ledger.decisions import Entry
from windvane.ledger.moments import make_id
from windvane.ledger.schema import decisions as table
from windvane.ledger.store import now, stamp
from windvane.ledger.versions import Version


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(quick_project(tmp_path / "project").path)


def decided(project: Project, ago: timedelta) -> Entry:
    """A decision that was recorded, and told, so long ago."""
    entry = decisions.record(project.ledger, Entry(project.name, 1, "2026-01", now(), "retrain", "for a test"))
    decisions.tell(project.ledger, entry.id)
    then = stamp(datetime.now(UTC) - ago)
    with project.ledger.begin() as db:
        db.execute(sa.update(table).values(recorded=then, told=then))
    return entry


def claim(project: Project, entry: Entry) -> None:
    """A lap that claims it and dies."""
    with leases.hold(project.ledger, project.name, "a lap", lambda _: None) as lease:
        assert decisions.claim(project.ledger, lease, entry.id, make_id()) is not None


def test_nothing_is_done_where_nothing_is_owed(project: Project) -> None:
    assert Owed(project).look() == "nothing is owed"


def test_an_event_has_time_to_become_a_lap(project: Project) -> None:
    decided(project, ON_ITS_WAY / 2)
    assert Owed(project).look() == "a decision is on its way to its lap"


def test_a_living_lap_is_left_alone(project: Project) -> None:
    entry = decided(project, 2 * ON_ITS_WAY)
    with leases.hold(project.ledger, project.name, "a lap", lambda _: None) as lease:
        decisions.claim(project.ledger, lease, entry.id, make_id())
        assert Owed(project).look() == "a lap carries out what was decided"


def test_a_decision_whose_laps_keep_dying_is_given_up_with_its_reason(project: Project) -> None:
    entry = decided(project, 2 * ON_ITS_WAY)
    for _ in range(decisions.MOST_CLAIMS):
        claim(project, entry)
    assert "given up" in Owed(project).look()
    ended = decisions.numbered(project.ledger, entry.id)
    assert ended is not None
    assert (ended.state, str(decisions.MOST_CLAIMS) in str(ended.note)) == ("skipped", True)
    assert Owed(project).look() == "nothing is owed"


def test_a_rollback_that_was_killed_behind_its_promotion_counts_as_done(project: Project) -> None:
    engine, name = project.ledger, project.name
    with leases.hold(engine, name, "a lap", lambda _: None) as lease:
        for number in (1, 2):
            facts: dict[str, object] = {}
            versions.add(
                engine, lease, Version(number, f"mark {number}", "run", "m", "0", "0", "0", None, facts, now())
            )
    moves = [versions.promotion(a, b, cause, "") for a, b, cause in ((None, 1, "lap"), (1, 2, "lap"))]
    for move in moves:
        versions.promote(engine, name, move)
    entry = decisions.record(engine, Entry(name, 2, "2026-01", now(), "rollback", "worse than version 1"))
    back = versions.promotion(2, 1, "probation", entry.reason)
    versions.promote(engine, name, back)
    versions.told(engine, name, back)
    acting.finish_what_was_begun(project, Console())
    ended = decisions.numbered(engine, entry.id)
    assert ended is not None
    assert (ended.state, ended.note) == ("done", "version 1 serves again")
    assert versions.last_promotion(engine, name).to_version == 1  # type: ignore[union-attr]


def test_however_many_ticks_have_passed_one_is_due() -> None:
    ticks, start = Ticks({"monitor": "0 * * * *", "lap": None}), datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    assert ticks.due(start) == ("monitor",)  # at the first look
    ticks.taken("monitor", start)
    assert ticks.due(start + timedelta(minutes=29)) == ()
    day = start + timedelta(hours=24)
    assert ticks.due(day) == ("monitor",)
    assert ticks.due(day) == ("monitor",)  # until it is taken
    ticks.taken("monitor", day)
    assert ticks.due(day) == ()
