"""Runs a lap in this process, under the lease: compares first, and starts a Prefect run only if something changed."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from windvane.flows import training
from windvane.flows.lap.context import DirectRunner, LapContext, claim_lap_decision, open_lap, track_lap
from windvane.flows.services import up_state
from windvane.monitoring.records import LapDepth
from windvane.monitoring.watch import notifications
from windvane.tasks.console import Console
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.sources.fetch import FetchResult
from windvane.tasks.stores import mlflow_store

if TYPE_CHECKING:
    from windvane.flows.orchestration.server import PrefectServer


def run_lap(
    project: Project,
    cause: str,
    depth: LapDepth,
    console: Console,
    *,
    decision: str | None = None,
    trial_runs: bool = False,
) -> LapOutcome | None:
    """One lap; with a `decision` it carries that out, and None comes back where the decision has ended already."""
    os.chdir(project.root)
    with ExitStack() as stack:
        lap = claim_lap_decision(stack.enter_context(open_lap(project, cause, depth, console)), decision)
        if lap is None:
            return None
        lap = replace(lap, trial_runs=trial_runs)
        if lap.decision is not None:  # on record since its first check
            lap = stack.enter_context(track_lap(lap))
        run = DirectRunner()
        fetched, outcome = training.check_source(lap, run)
        if outcome is not None:
            training.end(lap, run, outcome)
            console.print(f"  verdict: {outcome.verdict}: {outcome.reason}")
            return outcome
        notifications.check_webhook(project, unset_allowed=True)
        from windvane.flows.orchestration import server

        lap = stack.enter_context(track_lap(lap))
        prefect = stack.enter_context(server.use_prefect_server(project.home / "prefect"))
        console.working("start")
        outcome = _in_prefect(lap, fetched, prefect)
    console.print(outcome.text())
    if (at := _pages(project)) is not None:
        console.print(f"  runs, models and reports: {at}")
    return outcome


def _pages(project: Project) -> str | None:
    """Where to find what the lap left in MLflow; None where `windvane up` shows it already."""
    at = mlflow_store.redact_address(project.tracking_uri or "")
    if at.startswith("http"):
        return at
    # Not `mlflow ui`: that would serve the store to everybody, without the project's secret.
    return None if up_state.read_running_up(project.home) is not None else "windvane up"


def _in_prefect(lap: LapContext, fetched: FetchResult, prefect: PrefectServer) -> LapOutcome:
    """Run the flow. The server boots while everything heavy is imported."""
    from windvane.flows.orchestration import libraries

    with libraries.pause_garbage_collection():
        libraries.silence_prefect()
        import prefect as framework
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from windvane.flows import steps
        from windvane.flows.orchestration import reconciliation, server
    libraries.import_heavy_modules(lap.project, enough=prefect.answers)
    prefect.wait()
    if prefect.process is None:
        server.check_prefect_access(prefect.url)
    try:
        # No heartbeats unless they are configured: the next lap closes a killed one, and their thread ends up to a
        # second after the flow.
        silent = temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with silent, framework.tags(reconciliation.make_lap_tag(lap.id)):
            return steps.in_prefect(lap, fetched)
    finally:
        libraries.flush_prefect_logs()
        if prefect.process is not None:
            reconciliation.wait_for_task_runs(lap.id)
