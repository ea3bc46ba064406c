"""Puts right what a killed process left: what was decided and never began, runs that nobody runs, ticks that were missed.

At every start of `windvane up`, and every minute. The ledger says what is owed; Prefect is told.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Scheduled

from windvane.flows.closing import crash
from windvane.flows.project import Project
from windvane.ledger import decisions, laps, leases
from windvane.ledger.moments import make_id

# A run that a runner has taken begins within seconds, or never.
PENDING = timedelta(minutes=1)
# An event that was told becomes a lap within half a minute, or it is lost.
ON_ITS_WAY = timedelta(seconds=30)
PAGE = 200


def at_start(project: Project, deployments: list[UUID]) -> None:
    """Before a runner takes its first run: none of an earlier one's can be alive, unless the ledger knows a living lap for it."""
    with get_client(sync_client=True) as client:
        token = leases.living(project.ledger, project.name)
        alive = None if token is None else laps.running(project.ledger, project.name, token)
        for run in _runs(client, deployments, StateType.RUNNING, StateType.CANCELLING):
            if alive is None or alive.prefect_run != str(run.id):
                crash(client, run, "the runner that had taken this run was killed")
        for run in _runs(client, deployments, StateType.PENDING):
            again(client, run)
        collapse(client, deployments)


def every_minute(deployments: list[UUID]) -> None:
    """What may go wrong while a runner lives."""
    with get_client(sync_client=True) as client:
        for run in _runs(client, deployments, StateType.PENDING):
            if run.state is not None and datetime.now(UTC) - run.state.timestamp > PENDING:
                again(client, run)
        collapse(client, deployments)


def again(client: SyncPrefectClient, run: FlowRun) -> None:
    """Put back a run that a runner took and never began: left alone, it would wait for ever."""
    state = Scheduled(scheduled_time=run.expected_start_time, message="taken by a runner, and never begun: once more")
    client.set_flow_run_state(run.id, state, force=True)


class Owed:
    """The decision to retrain that no living lap has claimed: told is not done. Its lap is started here, one at a time."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lap: subprocess.Popen[bytes] | None = None

    def look(self) -> str:
        """Start the lap that is owed, or give it up; what was done, in words."""
        engine, name = self._project.ledger, self._project.name
        if self._lap is not None and self._lap.poll() is None:
            return f"process {self._lap.pid} runs the lap that was owed"
        entry = decisions.pending(engine, name)
        if entry is None:
            return "nothing is owed"
        if entry.state == "claimed" and entry.token == leases.living(engine, name):
            return "a lap carries out what was decided"
        if datetime.now(UTC) - datetime.fromisoformat(entry.told or entry.recorded) < ON_ITS_WAY:
            return "a decision is on its way to its lap"
        if entry.claims >= decisions.MOST_CLAIMS:
            with leases.hold(engine, name, "windvane up", lambda _: None) as lease:
                decisions.claim(engine, lease, entry.id, make_id())  # one too many: it ends there
            return f"given up: {entry.claims} laps of one decision died"
        # It lives no longer than this process, and in a group of its own: it ends that group when it ends.
        command = [sys.executable, "-P", "-m", "windvane.flows.child", "lap", entry.id]
        self._lap = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return f"process {self._lap.pid} began the lap that was owed"


def collapse(client: SyncPrefectClient, deployments: list[UUID]) -> int:
    """Of a deployment's ticks that are due and not begun, leave the newest; how many were dropped."""
    now, dropped = datetime.now(UTC), 0
    for one in deployments:
        late = [
            run
            for run in _runs(client, [one], StateType.SCHEDULED)
            if run.auto_scheduled and run.run_count == 0 and run.expected_start_time <= now
        ]
        late.sort(key=lambda run: run.expected_start_time)
        for run in late[:-1]:
            state = Cancelled(
                message=f"missed: the tick of {late[-1].expected_start_time:%Y-%m-%d %H:%M}Z stands for it"
            )
            client.set_flow_run_state(run.id, state, force=True)
        dropped += len(late[:-1])
    return dropped


def begun(deployment: UUID) -> bool:
    """Whether a run of the deployment is due or on its way."""
    with get_client(sync_client=True) as client:
        return bool(_runs(client, [deployment], StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING))


def begin(deployment: UUID) -> None:
    """A run of the deployment, now."""
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployment)


def _runs(client: SyncPrefectClient, deployments: list[UUID], *types: StateType) -> list[FlowRun]:
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployments),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
    )
    runs: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(runs)):
        runs += page
    return runs
