"""schedule.timezone: IANA names, and schedules over both changes of the clock, by Prefect and by our own count."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.many_versions import Many
from windvane.flows.orchestration.deployments import CronTicks
from windvane.tasks.console import SilentConsole
from windvane.tasks.errors import InputError
from windvane.tasks.project import Project
from windvane.tasks.settings import project_params
from windvane.tasks.settings.monitoring_section import ScheduleSettings, find_next_tick

ZONES = ["Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Sydney"]
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def ticks(cron: str, zone: str, days: int = 366) -> list[datetime]:
    """All of a year by our own count, in UTC."""
    found, now = list[datetime](), YEAR
    while (now := find_next_tick(cron, now, ZoneInfo(zone)).astimezone(UTC)) < YEAR + timedelta(days=days):
        found.append(now)
    return found


def by_prefect(cron: str, zone: str, days: int = 366) -> list[datetime]:
    """The same by the schedule that a deployment is given."""
    from prefect.schedules import Cron
    from prefect.server.schemas.schedules import CronSchedule

    made = Cron(cron, timezone=zone)
    schedule = CronSchedule(cron=str(made.cron), timezone=made.timezone, day_or=made.day_or)
    end = YEAR + timedelta(days=days)
    found = asyncio.run(schedule.get_dates(20_000, start=YEAR, end=end))
    return [one.astimezone(UTC) for one in found if YEAR < one.astimezone(UTC) < end]


@pytest.mark.parametrize("zone", ZONES)
def test_g3_six_oclock_stays_six_oclock_over_both_changes(zone: str) -> None:
    found = by_prefect("0 6 * * *", zone)
    local = [one.astimezone(ZoneInfo(zone)) for one in found]
    assert {(one.hour, one.minute) for one in local} == {(6, 0)}
    assert len({one.date() for one in local}) == len(local) >= 365
    assert len({one.utcoffset() for one in local}) == 2
    assert ticks("0 6 * * *", zone) == found


def settings(**schedule: Any) -> project_params.Settings:
    content = {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": {"source": "t.csv"}}
    return project_params.parse_settings({**content, "schedule": schedule})


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("Sao Paulo", "America/Sao_Paulo"),
        ("Europe", "such as Europe/Berlin"),
        ("", "such as Europe/Berlin"),
        ("../etc/passwd", "such as Europe/Berlin"),
        ("local", "IANA|Did you mean"),
    ],
)
def test_g3_n1_a_wrong_name_is_refused_with_near_ones(given: str, suggested: str) -> None:
    with pytest.raises(InputError, match=f"schedule.timezone: .* is no time zone.*({suggested})"):
        settings(timezone=given)
    assert settings().schedule.timezone == "UTC"


@pytest.mark.parametrize("zone", ZONES)
def test_g3_n2_an_hour_that_clocks_skip_or_show_twice_has_its_daily_tick_once(zone: str) -> None:
    for minute, hour in ((30, 2), (30, 1), (0, 0)):
        found = by_prefect(f"{minute} {hour} * * *", zone)
        dates = [one.astimezone(ZoneInfo(zone)).date() for one in found]
        assert len(set(dates)) == len(dates)
        assert 364 <= len(dates) <= 366


def test_g3_n3_by_the_events_clock_a_schedule_follows_its_zone_too() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    made = CronTicks({"lap": "0 6 * * *"}, berlin)
    before = datetime(2026, 10, 24, 4, 30, tzinfo=UTC)  # 6:30 in summer
    made.taken("lap", before)
    assert made.due(datetime(2026, 10, 25, 4, 30, tzinfo=UTC)) == ()  # 5:30 in winter
    assert made.due(datetime(2026, 10, 25, 5, 0, tzinfo=UTC)) == ("lap",)
    # The hour that clocks show twice: moments of one zone compare by what clocks show.
    made = CronTicks({"lap": "15 2 * * *"}, berlin)
    made.taken("lap", datetime(2026, 10, 25, 0, 50, tzinfo=UTC))  # 2:50 for the first time
    assert made.due(datetime(2026, 10, 25, 1, 20, tzinfo=UTC).astimezone(berlin)) == ()


@pytest.mark.long
def test_g3_n4_status_shows_when_by_the_clocks_of_the_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from windvane.cli import status

    many = Many(tmp_path)
    many.folder.set(schedule__monitor="0 6 * * *", schedule__timezone="Australia/Sydney")
    running = SimpleNamespace(clock="wall", services={}, holder=SimpleNamespace(pid=1))
    monkeypatch.setattr(status.up_state, "read_running_up", lambda _home: running)
    lines = list[str]()
    console = SilentConsole()
    monkeypatch.setattr(console, "print", lambda text="": lines.append(text), raising=False)
    told = status.show_status(Project(many.root), console)["next"]
    assert told["timezone"] == "Australia/Sydney"
    moment = datetime.fromisoformat(told["monitor"])
    assert (moment.hour, moment.minute) == (6, 0)
    assert moment.utcoffset() in (timedelta(hours=10), timedelta(hours=11))
    assert any("Australia/Sydney" in line and told["monitor"] in line for line in lines)


def test_the_deployments_carry_the_zone(tmp_path: Path) -> None:
    from windvane.flows.orchestration import deployments

    project = Project(tmp_path, settings(train="0 6 * * 1", timezone="Europe/Berlin"))
    made = deployments.make_deployments(project, "wall")
    zones = {one.schedules[0].schedule.timezone for one in made}
    assert zones == {"Europe/Berlin"}
    assert ScheduleSettings().zone == ZoneInfo("UTC")
