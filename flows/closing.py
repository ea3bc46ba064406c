"""Ends that nobody else sees to: runs of a lap that was killed, and task runs that the server has yet to write down."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from windvane.flows.lap import Lap
from windvane.ledger import laps
from windvane.ledger.laps import Lap as Ended

SETTLE_SECONDS = 20


def tag(lap_id: str) -> str:
    """The tag that a lap's flow run and task runs carry in Prefect."""
    return f"lap-{lap_id}"


def close_abandoned(lap: Lap) -> None:
    """Close what a killed lap left `running`, in Prefect, MLflow and the ledger, the ledger last."""
    for dead in laps.abandoned(lap.project.ledger, lap.lease):
        lap.console.say(
            f"  note: the lap that began {dead.started[:19]}Z was cut off; its runs are closed, its finished work is kept"
        )
        _crash_in_prefect(dead)
        lap.project.tracker.abandon(dead.id)
        laps.end(lap.project.ledger, dead.id, "crashed")


def crash(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Close a flow run that nobody runs any more, with its task runs."""
    state = Crashed(message=why)
    for part in client.read_task_runs(flow_run_filter=_only(run)):
        if part.state is None or not part.state.is_final():
            client.set_task_run_state(part.id, state, force=True)
    if run.state is None or not run.state.is_final():
        client.set_flow_run_state(run.id, state, force=True)


def _crash_in_prefect(dead: Ended) -> None:
    """By the run's own id, which a lap notes as it begins, and by its tag: not every lap lives long enough to note anything."""
    wanted = [FlowRunFilter(tags=FlowRunFilterTags(all_=[tag(dead.id)]))]
    wanted += [] if dead.prefect_run is None else [FlowRunFilter(id=FlowRunFilterId(any_=[UUID(dead.prefect_run)]))]
    with get_client(sync_client=True) as client:
        for one in wanted:
            for run in client.read_flow_runs(flow_run_filter=one):
                crash(client, run, "the process that ran this lap was killed")


def settle(lap_id: str) -> None:
    """Wait until the server has written down the end of every task run: it learns of them a moment later."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag(lap_id)])))
        for run in runs:
            while time.monotonic() < deadline:
                parts = client.read_task_runs(flow_run_filter=_only(run), limit=200)
                if all(part.state is not None and part.state.is_final() for part in parts):
                    break
                time.sleep(0.05)


def _only(run: FlowRun) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
