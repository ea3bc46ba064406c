"""A lap in this process, under the lease: a look first, a Prefect run only if something changed."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from windvane.flows import fetching, sharing
from windvane.flows import lap as laps
from windvane.flows.console import Console
from windvane.flows.outcome import Outcome
from windvane.flows.project import Project
from windvane.tasks import addresses


def fly(
    project: Project,
    cause: str,
    depth: laps.Depth,
    console: Console,
    *,
    decision: str | None = None,
    trial_runs: bool = False,
) -> Outcome | None:
    """One lap; with a `decision` it carries that out, and None comes back where the decision has ended already."""
    os.chdir(project.root)
    with laps.opened(project, cause, depth, console) as lap:
        if not laps.claimed(lap, decision):
            return None
        lap.trial_runs = trial_runs
        with laps.recorded(lap) if lap.decision is not None else nullcontext():
            fetching.fetch(lap)
            outcome = laps.unchanged(lap)
            if outcome is not None:
                sharing.push(lap)
                if lap.begun:
                    laps.finish(lap, outcome)
                console.say(f"  verdict: {outcome.verdict}: {outcome.reason}")
                return outcome
            from windvane.flows import server

            with laps.recorded(lap), server.running(project.home / "prefect") as prefect:
                console.working("start")
                outcome = _fly(lap, prefect)
    console.say(outcome.text())
    # Not `mlflow ui`: that would serve the store to everybody, without the project's secret.
    at = addresses.shown(project.tracking_uri or "")
    console.say(f"  runs, models and reports: {at if at.startswith('http') else 'windvane up'}")
    return outcome


def _fly(lap: Any, prefect: Any) -> Outcome:
    """Run the flow. The server boots while everything heavy is imported."""
    from windvane.flows import loading, quiet

    with loading.all_stays():
        quiet.hush()
        import prefect as framework
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from windvane.flows import admission, closing, training
    loading.load(lap.project, enough=prefect.answers)
    prefect.wait()
    if prefect.process is None:
        admission.ask(prefect.url)
    try:
        # No heartbeats unless somebody asks for them: the next lap closes a killed one, and their thread ends up to a
        # second after the flow.
        silent = temporary_settings(set_defaults={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with silent, framework.tags(closing.tag(lap.id)):
            outcome: Outcome = training.lap(str(lap.project.root), lap.cause, lap.depth)
            return outcome
    finally:
        quiet.flush()
        if prefect.process is not None:
            closing.settle(lap.id)
