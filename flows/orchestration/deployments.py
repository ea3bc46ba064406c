"""Deployments and their schedules, the automation from a decision to its lap, and the runner that runs them.

An event may get lost: the ledger keeps the decision, and reconciliation.py starts its lap.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy.exc import SQLAlchemyError

from windvane.flows.monitoring import RETRAIN_EVENT, make_resource_id
from windvane.flows.orchestration import libraries
from windvane.flows.services.up_state import HEARTBEAT_FILE
from windvane.ledger import predictions
from windvane.monitoring.records import Clock
from windvane.tasks.io import write_json
from windvane.tasks.project import Project
from windvane.tasks.settings.monitoring_section import find_next_tick

# Between the runner's polls for due runs, rounds at Prefect, checks of the ledger for pending laps, and of the played clock.
RUNNER_POLL_SECONDS, RECONCILE_INTERVAL_SECONDS = 2.0, 60.0
PENDING_LAP_INTERVAL_SECONDS, CLOCK_INTERVAL_SECONDS = 10.0, 2.0
# Flow runs at once: a lap and a check of a window, and one more of each that waits.
MAX_CONCURRENT_RUNS = 4


def read_event_clock(project: Project, clock: Clock) -> datetime | None:
    """Now, in UTC; by the events' clock the newest prediction's time, None before there is any.

    Labels do not move it: one that comes without a time of its own has the wall's.
    """
    if clock == "wall":
        return datetime.now(UTC)
    newest = predictions.find_newest_prediction_time(project.ledger, project.name)
    return None if newest is None else datetime.fromisoformat(newest)


class CronTicks:
    """Schedules by the events' clock, in a time zone. However many ticks pass between two checks, one is due."""

    def __init__(self, crons: Mapping[str, str | None], zone: tzinfo = UTC) -> None:
        self._zone, self._crons = zone, {name: cron for name, cron in crons.items() if cron is not None}
        self._before: dict[str, datetime] = {}

    def due(self, now: datetime) -> tuple[str, ...]:
        """The names whose schedule ticked since they were taken last; at the first check all of them."""
        return tuple(
            name
            for name, cron in self._crons.items()
            if name not in self._before
            # Two moments of one zone would be compared by its clocks, which show an hour twice.
            or find_next_tick(cron, self._before[name], self._zone).astimezone(UTC) <= now
        )

    def taken(self, name: str, now: datetime) -> None:
        """What was due is being done."""
        self._before[name] = now


def make_deployments(project: Project, clock: Clock) -> list[Any]:
    """The lap and the check of a window, under the project's name. With the events' clock the schedules are not Prefect's."""
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from windvane.flows import steps
    from windvane.flows.orchestration import scheduled_flows

    schedule, name, root = project.settings.schedule, project.name, str(project.root)

    def at(cron: str | None) -> Any:
        return Cron(cron, timezone=schedule.timezone) if cron is not None and clock == "wall" else None

    retrain = DeploymentEventTrigger(
        name=f"retrain {name}",
        description="A decision to retrain, sent by monitoring, starts the lap that claims it.",
        expect={RETRAIN_EVENT},
        match={"prefect.resource.id": make_resource_id(name)},
        parameters={"decision": "{{ event.payload.decision }}", "cause": "{{ event.payload.cause }}"},
    )
    more = {"tags": ["windvane"], "entrypoint_type": EntrypointType.MODULE_PATH}
    lap = steps.lap.to_deployment(
        name, schedule=at(schedule.train), triggers=[retrain], parameters={"root": root}, **more
    )
    deployment = scheduled_flows.monitor_flow.to_deployment(
        name, schedule=at(schedule.monitor), parameters={"root": root, "clock": clock}, **more
    )
    return [lap, deployment]


def run_schedules(project: Project, clock: Clock) -> None:
    """The runner, a child of `windvane up`: puts right what an earlier one left, then runs what is due."""
    libraries.silence_prefect()
    os.chdir(project.root)
    asyncio.run(_run_prefect_runner(project, clock, make_deployments(project, clock)))


async def _run_prefect_runner(project: Project, clock: Clock, made: list[Any]) -> None:
    from prefect.runner import Runner

    from windvane.flows.orchestration import reconciliation

    # On shutdown schedules stay as they are: what was missed is collapsed at the next start.
    runner = Runner(
        name=f"windvane-{project.name}",
        query_seconds=RUNNER_POLL_SECONDS,
        pause_on_shutdown=False,
        limit=MAX_CONCURRENT_RUNS,
    )
    ids = {one.flow_name: await runner.aadd_deployment(one) for one in made}
    await asyncio.to_thread(reconciliation.reconcile_at_start, project, list(ids.values()))
    threading.Thread(target=_reconcile_repeatedly, args=(project, clock, ids), name="rounds", daemon=True).start()
    await runner.start()


def _reconcile_repeatedly(project: Project, clock: Clock, ids: dict[str, UUID]) -> None:
    """What is pending, and what Prefect shows that is not so; with the events' clock also, as it moves on, the ticks that have become due.

    What does not respond now is tried again in the next round. Anything else ends this thread, and with it the signs of life.
    """
    from windvane.flows.orchestration import reconciliation

    starter, due, next_look = reconciliation.PendingLapStarter(project), 0.0, 0.0
    schedule = project.settings.schedule
    ticks = CronTicks({"lap": schedule.train, "monitor": schedule.monitor}, schedule.zone)
    while True:
        try:
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + PENDING_LAP_INTERVAL_SECONDS
                _write_heartbeat(project, starter.poll())
            if time.monotonic() >= due:
                due = time.monotonic() + RECONCILE_INTERVAL_SECONDS
                reconciliation.reconcile_while_running(list(ids.values()))
            if clock == "events" and (now := read_event_clock(project, clock)) is not None:
                for name in ticks.due(now):
                    if not reconciliation.has_active_run(ids[name]):  # else it stays due
                        ticks.taken(name, now)
                        reconciliation.start_deployment_run(ids[name])
        except (httpx.HTTPError, SQLAlchemyError) as e:
            print(f"windvane: tried again in a moment: {e}", file=sys.stderr, flush=True)
            _write_heartbeat(project, f"tried again in a moment: {type(e).__name__}")
        time.sleep(CLOCK_INTERVAL_SECONDS)


def _write_heartbeat(project: Project, state: str) -> None:
    schedule = project.settings.schedule
    does = {"monitor": schedule.monitor or "not scheduled", "train": schedule.train or "not scheduled"}
    content = {"pid": os.getpid(), "at": time.time(), "does": does, "said": state}
    write_json(content, project.home / "up" / HEARTBEAT_FILE)
