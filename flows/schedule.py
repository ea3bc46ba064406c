"""What runs by itself: deployments with their schedules, the automation from a decision to its lap, and who runs them.

A decision is told as a Prefect event; the deployment's automation answers with a lap that names the decision. Telling may fail
and events may get lost: what is owed stands in the ledger, and flows/reconciling.py sees to it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from datetime import datetime
from typing import Any
from uuid import UUID

from windvane.flows import quiet
from windvane.flows.clock import Ticks, present
from windvane.flows.project import Project
from windvane.flows.standing import Clock
from windvane.flows.up import RUNNER
from windvane.tasks.tables import write_json

EVENT = "windvane.retrain"
# Seconds: between two looks of the runner for runs that are due, of a round at Prefect, at the ledger for what is owed, and at
# the played clock.
POLL, ROUND, OWED, TICK = 2.0, 60.0, 10.0, 2.0
# Flow runs at once: a lap and a look at a window, and one more of each that waits for its turn.
AT_ONCE = 4


def resource(project: str) -> str:
    """Whom an event is about."""
    return f"windvane.project.{project}"


def announce(project: str, decision: str, reason: str) -> None:
    """Tell Prefect that a decision to retrain stands in the ledger. Raises whatever keeps the event from being taken.

    The environment must name the server before Prefect is imported (flows/server.py), so this file imports it nowhere else.
    """
    from prefect.events import Event
    from prefect.events.clients import get_events_client

    async def emit() -> None:
        # Each event is acknowledged before this returns.
        async with get_events_client(reconnection_attempts=1, checkpoint_every=1) as client:
            about = {"prefect.resource.id": resource(project), "prefect.resource.name": project}
            payload = {"decision": decision, "reason": reason, "cause": f"watch: {reason}"[:200]}
            await client.emit(Event(event=EVENT, resource=about, payload=payload))

    asyncio.run(emit())


def deployments(project: Project, clock: Clock) -> list[Any]:
    """The lap and the look at a window, under the project's name. With the events' clock the schedules are not Prefect's."""
    from prefect.events import DeploymentEventTrigger
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from windvane.flows import monitoring, steps

    def at(cron: str | None) -> Any:
        return Cron(cron, timezone="UTC") if cron is not None and clock == "wall" else None

    schedule, name, root = project.settings.schedule, project.name, str(project.root)
    retrain = DeploymentEventTrigger(
        name=f"retrain {name}",
        description="A decision to retrain, told by the watch, starts the lap that claims it.",
        expect={EVENT},
        match={"prefect.resource.id": resource(name)},
        parameters={"decision": "{{ event.payload.decision }}", "cause": "{{ event.payload.cause }}"},
    )
    more = {"tags": ["windvane"], "entrypoint_type": EntrypointType.MODULE_PATH}
    lap = steps.lap.to_deployment(
        name, schedule=at(schedule.train), triggers=[retrain], parameters={"root": root}, **more
    )
    look = monitoring.monitor.to_deployment(
        name, schedule=at(schedule.monitor), parameters={"root": root, "clock": clock}, **more
    )
    return [lap, look]


def run(project: Project, clock: Clock) -> None:
    """The runner, a child of `windvane up`: puts right what an earlier one left, then runs what is due."""
    quiet.hush()
    os.chdir(project.root)
    asyncio.run(_run(project, clock, deployments(project, clock)))


async def _run(project: Project, clock: Clock, made: list[Any]) -> None:
    from prefect.runner import Runner

    from windvane.flows import reconciling

    # On shutdown schedules stay as they are: what was missed is collapsed at the next start.
    runner = Runner(name=f"windvane-{project.name}", query_seconds=POLL, pause_on_shutdown=False, limit=AT_ONCE)
    ids = {one.flow_name: await runner.aadd_deployment(one) for one in made}
    await asyncio.to_thread(reconciling.at_start, project, list(ids.values()))
    threading.Thread(target=_rounds, args=(project, clock, ids), name="rounds", daemon=True).start()
    await runner.start()


def _rounds(project: Project, clock: Clock, ids: dict[str, UUID]) -> None:
    """What is owed, and what Prefect shows that is not so; with the events' clock also, as it moves on, the ticks that have become due.

    What does not answer now is asked again in the next round. Anything else ends this thread, and with it the signs of life.
    """
    import httpx
    from sqlalchemy.exc import SQLAlchemyError

    from windvane.flows import reconciling

    owed, due, asked = reconciling.Owed(project), 0.0, 0.0
    schedule = project.settings.schedule
    ticks = Ticks({"lap": schedule.train, "monitor": schedule.monitor})
    while True:
        try:
            if time.monotonic() >= asked:
                asked = time.monotonic() + OWED
                _beat(project, owed.look())
            if time.monotonic() >= due:
                due = time.monotonic() + ROUND
                reconciling.every_minute(list(ids.values()))
            if clock == "events" and (now := present(project, clock)) is not None:
                _tick(ticks, now, ids)
        except (httpx.HTTPError, SQLAlchemyError) as e:
            print(f"windvane: asked again in a moment: {e}", file=sys.stderr, flush=True)
            _beat(project, f"asked again in a moment: {type(e).__name__}")
        time.sleep(TICK)


def _tick(ticks: Ticks, now: datetime, ids: dict[str, UUID]) -> None:
    """Begin what is due; while an earlier run of it is under way, it stays due."""
    from windvane.flows import reconciling

    for name in ticks.due(now):
        if not reconciling.begun(ids[name]):
            ticks.taken(name, now)
            reconciling.begin(ids[name])


def _beat(project: Project, said: str) -> None:
    schedule = project.settings.schedule
    does = {"monitor": schedule.monitor or "not scheduled", "train": schedule.train or "not scheduled"}
    write_json({"pid": os.getpid(), "at": time.time(), "does": does, "said": said}, project.home / "up" / RUNNER)
