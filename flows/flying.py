"""A lap in this process, under the lease: a look first, a Prefect run only if something changed."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from windvane.flows import standing, training
from windvane.flows.console import Console
from windvane.flows.lap import Depth, Lap, claimed, opened, recorded
from windvane.flows.outcome import Outcome
from windvane.flows.project import Project
from windvane.flows.runner import Direct
from windvane.tasks import addresses
from windvane.tasks.fetch import Fetched

if TYPE_CHECKING:
    from windvane.flows.server import Server


def fly(
    project: Project,
    cause: str,
    depth: Depth,
    console: Console,
    *,
    decision: str | None = None,
    trial_runs: bool = False,
) -> Outcome | None:
    """One lap; with a `decision` it carries that out, and None comes back where the decision has ended already."""
    os.chdir(project.root)
    with ExitStack() as stack:
        lap = claimed(stack.enter_context(opened(project, cause, depth, console)), decision)
        if lap is None:
            return None
        lap = replace(lap, trial_runs=trial_runs)
        if lap.decision is not None:  # on record from its first look on
            lap = stack.enter_context(recorded(lap))
        run = Direct()
        fetched, outcome = training.look(lap, run)
        if outcome is not None:
            training.end(lap, run, outcome)
            console.say(f"  verdict: {outcome.verdict}: {outcome.reason}")
            return outcome
        from windvane.flows import server

        lap = stack.enter_context(recorded(lap))
        prefect = stack.enter_context(server.running(project.home / "prefect"))
        console.working("start")
        outcome = _in_prefect(lap, fetched, prefect)
    console.say(outcome.text())
    if (at := _pages(project)) is not None:
        console.say(f"  runs, models and reports: {at}")
    return outcome


def _pages(project: Project) -> str | None:
    """Where to find what the lap left in MLflow; None where `windvane up` shows it already."""
    at = addresses.shown(project.tracking_uri or "")
    if at.startswith("http"):
        return at
    # Not `mlflow ui`: that would serve the store to everybody, without the project's secret.
    return None if standing.running(project.home) is not None else "windvane up"


def _in_prefect(lap: Lap, fetched: Fetched, prefect: Server) -> Outcome:
    """Run the flow. The server boots while everything heavy is imported."""
    from windvane.flows import loading, quiet

    with loading.all_stays():
        quiet.hush()
        import prefect as framework
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from windvane.flows import admission, closing, steps
    loading.load(lap.project, enough=prefect.answers)
    prefect.wait()
    if prefect.process is None:
        admission.ask(prefect.url)
    try:
        # No heartbeats unless somebody asks for them: the next lap closes a killed one, and their thread ends up to a
        # second after the flow.
        silent = temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with silent, framework.tags(closing.tag(lap.id)):
            return steps.in_prefect(lap, fetched)
    finally:
        quiet.flush()
        if prefect.process is not None:
            closing.settle(lap.id)
