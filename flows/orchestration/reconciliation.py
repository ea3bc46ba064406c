"""Repairs what a killed process left in Prefect, MLflow and the ledger: runs without a process, decisions without a
lap, missed schedules. Runs at every start of `windvane up`, every minute, and at the start of a lap.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, Crashed, Scheduled

from windvane.flows.lap.context import LapContext
from windvane.ledger import decisions, laps
from windvane.ledger.database import make_id
from windvane.ledger.laps import LapRecord as Ended
from windvane.tasks.project import Project

SETTLE_TIMEOUT_SECONDS = 20


def make_lap_tag(lap_id: str) -> str:
    """The tag that a lap's flow run and task runs carry in Prefect."""
    return f"lap-{lap_id}"


def close_abandoned_laps(lap: LapContext) -> None:
    """Close what a killed lap left `running`, in Prefect, MLflow and the ledger, the ledger last."""
    for dead in laps.list_abandoned_laps(lap.project.ledger, lap.lease):
        lap.console.print(
            f"  note: the lap that began {dead.started[:19]}Z was cut off; its runs are closed, its finished work is kept"
        )
        _mark_lap_crashed(dead)
        lap.project.tracker.abandon(dead.id)
        laps.record_lap_end(lap.project.ledger, dead.id, "crashed")


def mark_run_crashed(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Close a flow run that no process runs any more, with its task runs."""
    state = Crashed(message=why)
    for part in client.read_task_runs(flow_run_filter=_filter_run(run)):
        if part.state is None or not part.state.is_final():
            client.set_task_run_state(part.id, state, force=True)
    if run.state is None or not run.state.is_final():
        client.set_flow_run_state(run.id, state, force=True)


def _mark_lap_crashed(dead: Ended) -> None:
    """By the run's own id, which a lap notes as it begins, and by its tag: not every lap lives long enough to note anything."""
    wanted = [FlowRunFilter(tags=FlowRunFilterTags(all_=[make_lap_tag(dead.id)]))]
    wanted += [] if dead.prefect_run is None else [FlowRunFilter(id=FlowRunFilterId(any_=[UUID(dead.prefect_run)]))]
    with get_client(sync_client=True) as client:
        for one in wanted:
            for run in client.read_flow_runs(flow_run_filter=one):
                mark_run_crashed(client, run, "the process that ran this lap was killed")


def wait_for_task_runs(lap_id: str) -> None:
    """Wait until the server has written down the end of every task run: it learns of them a moment later."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[make_lap_tag(lap_id)])))
        for run in runs:
            while time.monotonic() < deadline:
                parts = client.read_task_runs(flow_run_filter=_filter_run(run), limit=200)
                if all(part.state is not None and part.state.is_final() for part in parts):
                    break
                time.sleep(0.05)


def _filter_run(run: FlowRun) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))


# A run that a runner has taken begins within seconds, or never.
PENDING_TIMEOUT = timedelta(minutes=1)
# An event that was sent becomes a lap within half a minute, or it is lost.
EVENT_TIMEOUT = timedelta(seconds=30)
RUNS_PER_PAGE = 200


def reconcile_at_start(project: Project, deployments: list[UUID]) -> None:
    """Before a runner takes its first run: none of an earlier one's can be alive, unless the ledger knows a living lap for it."""
    with get_client(sync_client=True) as client:
        token = laps.find_living_token(project.ledger, project.name)
        alive = None if token is None else laps.find_running_lap(project.ledger, project.name, token)
        for run in _read_flow_runs(client, deployments, StateType.RUNNING, StateType.CANCELLING):
            if alive is None or alive.prefect_run != str(run.id):
                mark_run_crashed(client, run, "the runner that had taken this run was killed")
        for run in _read_flow_runs(client, deployments, StateType.PENDING):
            reschedule_run(client, run)
        collapse_missed_runs(client, deployments)


def reconcile_while_running(deployments: list[UUID]) -> None:
    """What may go wrong while a runner lives."""
    with get_client(sync_client=True) as client:
        for run in _read_flow_runs(client, deployments, StateType.PENDING):
            if run.state is not None and datetime.now(UTC) - run.state.timestamp > PENDING_TIMEOUT:
                reschedule_run(client, run)
        collapse_missed_runs(client, deployments)


def reschedule_run(client: SyncPrefectClient, run: FlowRun) -> None:
    """Put back a run that a runner took and never started: left alone, it would wait for ever."""
    state = Scheduled(scheduled_time=run.expected_start_time, message="taken by a runner, and never started: once more")
    client.set_flow_run_state(run.id, state, force=True)


class PendingLapStarter:
    """The decision to retrain that no living lap has claimed: notified is not done. Its lap is started here, one at a time."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lap: subprocess.Popen[bytes] | None = None

    def poll(self) -> str:
        """Start the pending lap, or give it up; what was done, in words."""
        engine, name = self._project.ledger, self._project.name
        if self._lap is not None and self._lap.poll() is None:
            return f"process {self._lap.pid} runs the pending lap"
        entry = decisions.find_pending_retraining(engine, name)
        if entry is None:
            return "nothing is pending"
        if entry.state == "claimed" and entry.token == laps.find_living_token(engine, name):
            return "a lap carries out what was decided"
        if datetime.now(UTC) - datetime.fromisoformat(entry.told or entry.recorded) < EVENT_TIMEOUT:
            return "a decision is on its way to its lap"
        if entry.claims >= decisions.MAX_CLAIMS:
            with laps.hold_lease(engine, name, "windvane up", lambda _: None) as lease:
                decisions.claim_decision(engine, lease, entry.id, make_id())  # one too many: it ends there
            return f"given up: {entry.claims} laps of one decision died"
        # It lives no longer than this process, and in a group of its own: it ends that group when it ends.
        command = [sys.executable, "-P", "-m", "windvane.flows.services.child_process", "lap", entry.id]
        self._lap = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return f"process {self._lap.pid} began the pending lap"


def collapse_missed_runs(client: SyncPrefectClient, deployments: list[UUID]) -> None:
    """Of a deployment's ticks that are due and not started, leave the newest."""
    now = datetime.now(UTC)
    for one in deployments:
        runs = _read_flow_runs(client, [one], StateType.SCHEDULED)
        late = [run for run in runs if run.auto_scheduled and run.run_count == 0 and run.expected_start_time <= now]
        late.sort(key=lambda run: run.expected_start_time)
        for run in late[:-1]:
            state = Cancelled(message=f"missed: the tick of {late[-1].expected_start_time:%Y-%m-%d %H:%M}Z replaces it")
            client.set_flow_run_state(run.id, state, force=True)


def has_active_run(deployment: UUID) -> bool:
    """Whether a run of the deployment is due or on its way."""
    with get_client(sync_client=True) as client:
        return bool(_read_flow_runs(client, [deployment], StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING))


def start_deployment_run(deployment: UUID) -> None:
    """A run of the deployment, now."""
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployment)


def _read_flow_runs(client: SyncPrefectClient, deployments: list[UUID], *types: StateType) -> list[FlowRun]:
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployments),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
    )
    runs: list[FlowRun] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=RUNS_PER_PAGE, offset=len(runs)):
        runs += page
    return runs
