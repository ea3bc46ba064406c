"""The clock of the watch: the wall's, or the newest event in the ledger, so that history can be played; its schedules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from cronsim import CronSim

from windvane.ledger import predictions
from windvane.tasks.project import Project

# Which clock monitoring follows: the wall's, or the newest moment among the events that the ledger has recorded.
Clock = Literal["wall", "events"]


def read_event_clock(project: Project, clock: Clock) -> datetime | None:
    """Now, in UTC; by the events' clock the newest prediction's time, None before there is any.

    Labels do not move it: one that comes without a time of its own has the wall's.
    """
    if clock == "wall":
        return datetime.now(UTC)
    newest = predictions.find_newest_prediction_time(project.ledger, project.name)
    return None if newest is None else datetime.fromisoformat(newest)


class CronTicks:
    """Schedules by the events' clock. However many ticks pass between two checks, one is due."""

    def __init__(self, crons: Mapping[str, str | None]) -> None:
        self._crons = {name: cron for name, cron in crons.items() if cron is not None}
        self._before: dict[str, datetime] = {}

    def due(self, now: datetime) -> tuple[str, ...]:
        """The names whose schedule ticked since they were taken last; at the first check all of them."""
        return tuple(
            name
            for name, cron in self._crons.items()
            if name not in self._before or next(CronSim(cron, self._before[name])) <= now
        )

    def taken(self, name: str, now: datetime) -> None:
        """What was due is being done."""
        self._before[name] = now
