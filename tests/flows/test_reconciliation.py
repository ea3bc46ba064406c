"""What is owed, and when nothing is done about it; and schedules by the events' clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.projects import quick_project
from windvane.flows import monitoring
from windvane.flows.orchestration.deployments import CronTicks
from windvane.flows.orchestration.reconciliation import EVENT_TIMEOUT, PendingLapStarter
from windvane.ledger import decisions, laps, versions
from windvane.ledger.database import format_timestamp, make_id, now_timestamp
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.schema import decisions as table
from windvane.ledger.versions import Version, VersionFacts
from windvane.tasks.console import Console
from windvane.tasks.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(quick_project(tmp_path / "project").path)


def decided(project: Project, ago: timedelta) -> DecisionRecord:
    """A decision that was recorded, and told, so long ago."""
    entry = decisions.record_decision(
        project.ledger, DecisionRecord(project.name, 1, "2026-01", now_timestamp(), "retrain", "for a test")
    )
    decisions.record_announcement(project.ledger, entry.id)
    then = format_timestamp(datetime.now(UTC) - ago)
    with project.ledger.begin() as db:
        db.execute(sa.update(table).values(recorded=then, told=then))
    return entry


def claim(project: Project, entry: DecisionRecord) -> None:
    """A lap that claims it and dies."""
    with laps.hold_lease(project.ledger, project.name, "a lap", lambda _: None) as lease:
        assert decisions.claim_decision(project.ledger, lease, entry.id, make_id()) is not None


def test_nothing_is_done_where_nothing_is_owed(project: Project) -> None:
    assert PendingLapStarter(project).poll() == "nothing is pending"


def test_an_event_has_time_to_become_a_lap(project: Project) -> None:
    decided(project, EVENT_TIMEOUT / 2)
    assert PendingLapStarter(project).poll() == "a decision is on its way to its lap"


def test_a_living_lap_is_left_alone(project: Project) -> None:
    entry = decided(project, 2 * EVENT_TIMEOUT)
    with laps.hold_lease(project.ledger, project.name, "a lap", lambda _: None) as lease:
        decisions.claim_decision(project.ledger, lease, entry.id, make_id())
        assert PendingLapStarter(project).poll() == "a lap carries out what was decided"


def test_a_decision_whose_laps_keep_dying_is_given_up_with_its_reason(project: Project) -> None:
    entry = decided(project, 2 * EVENT_TIMEOUT)
    for _ in range(decisions.MAX_CLAIMS):
        claim(project, entry)
    assert "given up" in PendingLapStarter(project).poll()
    ended = decisions.find_decision(project.ledger, entry.id)
    assert ended is not None
    assert (ended.state, str(decisions.MAX_CLAIMS) in str(ended.note)) == ("skipped", True)
    assert PendingLapStarter(project).poll() == "nothing is pending"


def test_a_rollback_that_was_killed_behind_its_promotion_counts_as_done(project: Project) -> None:
    engine, name = project.ledger, project.name
    with laps.hold_lease(engine, name, "a lap", lambda _: None) as lease:
        for number in (1, 2):
            versions.record_version(
                engine,
                lease,
                Version(number, f"mark {number}", "run", "m", "0", "0", "0", None, VersionFacts(), now_timestamp()),
            )
    moves = [versions.make_promotion(a, b, cause, "") for a, b, cause in ((None, 1, "lap"), (1, 2, "lap"))]
    for move in moves:
        versions.record_promotion(engine, name, move)
    entry = decisions.record_decision(
        engine, DecisionRecord(name, 2, "2026-01", now_timestamp(), "rollback", "worse than version 1")
    )
    back = versions.make_promotion(2, 1, "probation", entry.reason)
    versions.record_promotion(engine, name, back)
    versions.record_alias_update(engine, name, back)
    monitoring.finish_started_actions(project, Console())
    ended = decisions.find_decision(engine, entry.id)
    assert ended is not None
    assert (ended.state, ended.note) == ("done", "version 1 serves again")
    assert versions.find_last_promotion(engine, name).to_version == 1  # type: ignore[union-attr]


def test_however_many_ticks_have_passed_one_is_due() -> None:
    ticks, start = CronTicks({"monitor": "0 * * * *", "lap": None}), datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    assert ticks.due(start) == ("monitor",)  # at the first look
    ticks.taken("monitor", start)
    assert ticks.due(start + timedelta(minutes=29)) == ()
    day = start + timedelta(hours=24)
    assert ticks.due(day) == ("monitor",)
    assert ticks.due(day) == ("monitor",)  # until it is taken
    ticks.taken("monitor", day)
    assert ticks.due(day) == ()
