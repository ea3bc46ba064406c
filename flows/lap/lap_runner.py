"""Runs a lap in this process, under the lease: compares first, and starts a Prefect run only if something changed."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from windvane.flows.lap import context as laps
from windvane.flows.lap import data_steps
from windvane.tasks.console import Console
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.stores import mlflow_store


def run_lap(
    project: Project,
    cause: str,
    depth: laps.LapDepth,
    console: Console,
    *,
    decision: str | None = None,
    trial_runs: bool = False,
) -> LapOutcome | None:
    """One lap; with a `decision` it carries that out, and None comes back where the decision has ended already."""
    os.chdir(project.root)
    with laps.open_lap(project, cause, depth, console) as lap:
        if not laps.claim_lap_decision(lap, decision):
            return None
        lap.trial_runs = trial_runs
        with laps.track_lap(lap) if lap.decision is not None else nullcontext():
            data_steps.run_fetch_step(lap)
            outcome = laps.find_unchanged_outcome(lap)
            if outcome is not None:
                data_steps.run_push_step(lap)
                if lap.begun:
                    laps.finish_lap(lap, outcome)
                console.say(f"  verdict: {outcome.verdict}: {outcome.reason}")
                return outcome
            from windvane.flows.orchestration import server

            with laps.track_lap(lap), server.use_prefect_server(project.home / "prefect") as prefect:
                console.working("start")
                outcome = _run_lap_flow(lap, prefect)
    console.say(outcome.text())
    # Not `mlflow ui`: that would serve the store to everybody, without the project's secret.
    at = mlflow_store.redact_address(project.tracking_uri or "")
    console.say(f"  runs, models and reports: {at if at.startswith('http') else 'windvane up'}")
    return outcome


def _run_lap_flow(lap: Any, prefect: Any) -> LapOutcome:
    """Run the flow. The server boots while everything heavy is imported."""
    from windvane.flows.orchestration import libraries

    with libraries.pause_garbage_collection():
        libraries.silence_prefect()
        import prefect as framework
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from windvane.flows import training
        from windvane.flows.orchestration import reconciliation, server
    libraries.import_heavy_modules(lap.project, enough=prefect.answers)
    prefect.wait()
    if prefect.process is None:
        server.check_prefect_access(prefect.url)
    try:
        # No heartbeats unless somebody asks for them: the next lap closes a killed one, and their thread ends up to a
        # second after the flow.
        silent = temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with silent, framework.tags(reconciliation.make_lap_tag(lap.id)):
            outcome: LapOutcome = training.lap_flow(str(lap.project.root), lap.cause, lap.depth)
            return outcome
    finally:
        libraries.flush_prefect_logs()
        if prefect.process is not None:
            reconciliation.wait_for_task_runs(lap.id)
