"""The steps of a lap as Prefect tasks: one table of names, retries and timeouts.

Their order is in flows/training.py.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.client.schemas.objects import State
from prefect.context import TagsContext
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run

from windvane.flows import model_promotion
from windvane.flows.lap import data_steps, gate_step, model_steps, push_step
from windvane.flows.lap.context import (
    SCHEDULED_CAUSE,
    LapContext,
    P,
    R,
    Runner,
    Running,
    claim_lap_decision,
    open_lap,
    run_fetch_step,
    track_lap,
)
from windvane.flows.training import run_lap
from windvane.ledger import laps
from windvane.monitoring.records import LapDepth
from windvane.monitoring.watch import notifications
from windvane.tasks.console import Console
from windvane.tasks.errors import Outage
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.sources.fetch import FetchResult


@dataclass(frozen=True)
class StepPolicy:
    """How one step is run: seconds before it is given up, and how often an outage is tried again."""

    work: Callable[..., Any]
    timeout: float
    retries: int = 0


HOUR_SECONDS = 3600.0
RETRY_DELAYS_SECONDS = (2.0, 10.0, 60.0)
STEP_POLICIES: dict[str, StepPolicy] = {
    # Only a source may meet an outage; reading, validating and splitting files on disk cannot.
    "fetch": StepPolicy(run_fetch_step, timeout=12 * HOUR_SECONDS, retries=3),
    "ingest": StepPolicy(data_steps.run_ingest_step, timeout=4 * HOUR_SECONDS),
    "validate": StepPolicy(data_steps.run_validate_step, timeout=HOUR_SECONDS),
    "split": StepPolicy(data_steps.run_split_step, timeout=HOUR_SECONDS),
    "inspect": StepPolicy(model_steps.run_inspect_step, timeout=HOUR_SECONDS),
    # The search keeps its own time (search.timeout) and its own journal; this only catches a fit that hangs.
    "search": StepPolicy(model_steps.run_search_step, timeout=24 * HOUR_SECONDS),
    "evaluate": StepPolicy(model_steps.run_evaluate_step, timeout=4 * HOUR_SECONDS),
    "build": StepPolicy(model_steps.run_build_step, timeout=4 * HOUR_SECONDS),
    "smoke": StepPolicy(model_steps.run_smoke_step, timeout=600),
    "explain": StepPolicy(model_steps.run_explain_step, timeout=4 * HOUR_SECONDS),
    "register": StepPolicy(model_promotion.run_register_step, timeout=HOUR_SECONDS, retries=3),
    "judge": StepPolicy(gate_step.run_judge_step, timeout=4 * HOUR_SECONDS),
    "promote": StepPolicy(model_promotion.run_promote_step, timeout=600, retries=3),
    # An outage here is a warning, and the next lap's business.
    "push": StepPolicy(push_step.run_push_step, timeout=4 * HOUR_SECONDS),
}


@dataclass(frozen=True)
class Timed:
    """What a step returned, and how long it took."""

    value: Any
    seconds: float


def _is_outage(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Only an outage may pass by itself; wrong input stays wrong."""
    return isinstance(state.result(raise_on_failure=False), Outage)


def _task(name: str, policy: StepPolicy) -> Task[..., Timed]:
    @functools.wraps(policy.work)
    def timed(*arguments: Any) -> Timed:
        started_at = time.monotonic()
        value = policy.work(*(a.value if isinstance(a, Timed) else a for a in arguments))
        return Timed(value, round(time.monotonic() - started_at, 3))

    return task(
        timed,
        name=name,
        retries=policy.retries,
        retry_delay_seconds=list(RETRY_DELAYS_SECONDS[: policy.retries]) or None,
        retry_condition_fn=_is_outage if policy.retries else None,
        timeout_seconds=policy.timeout,
        # What passes between steps is frames and models: they stay in memory, and DVC, MLflow and the ledger keep them.
        persist_result=False,
        cache_result_in_memory=False,
    )


TASKS = {policy.work: _task(name, policy) for name, policy in STEP_POLICIES.items()}


class PrefectRunner(Runner):
    """Steps of the table are tasks of the flow run around them, the small ones between them plain calls."""

    def __call__(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and wait."""
        if step not in TASKS:
            return step(*args, **kwargs)
        return self.ended(TASKS[step].name, TASKS[step](*args, **kwargs))

    def submit(self, step: Callable[..., R], *args: Any) -> Running[R]:
        """Submit it: Prefect runs it in a thread of its own."""
        one = TASKS[step]
        return _Submitted(self, one.name, one.submit(*(a.future if isinstance(a, _Submitted) else a for a in args)))

    def ended(self, name: str, timed: Timed) -> Any:
        """Keep its time; what it returned."""
        self.seconds[name] = timed.seconds
        return timed.value


class _Submitted(Running[R]):
    """A task run that was submitted."""

    def __init__(self, runner: PrefectRunner, name: str, future: PrefectFuture[Timed]) -> None:
        self.future, self._runner, self._name = future, runner, name

    def result(self) -> R:
        """Wait for it."""
        value: R = self._runner.ended(self._name, self.future.result())
        return value


as_flow = flow(name="lap", flow_run_name="{cause}", persist_result=False, validate_parameters=False)


@as_flow
def lap(
    root: str, cause: str = SCHEDULED_CAUSE, depth: LapDepth = "search", decision: str | None = None
) -> LapOutcome | None:
    """The deployment's lap, which a schedule or a decision of monitoring starts.

    `decision`: what it carries out, from the ledger, which then gives depth and cause; None comes back where that has ended.
    """
    with open_lap(Project(Path(root)), cause, depth, Console()) as held:
        mine = claim_lap_decision(held, decision)
        if mine is None:
            return None
        with track_lap(mine) as started:
            notifications.check_webhook(started.project, unset_allowed=True)
            return _run(started)


def in_prefect(lap: LapContext, fetched: FetchResult) -> LapOutcome:
    """The lap that the command line holds, as a flow run of the same name."""

    @as_flow
    def held(root: str, cause: str, depth: LapDepth) -> LapOutcome:
        # The lap's tag is for its flow run: for a tagged task run Prefect calls the server for a concurrency slot, and
        # after a long step that call fails on a connection gone stale and is tried again seconds later.
        with TagsContext(current_tags=set()):
            return _run(lap, fetched)

    return held(str(lap.project.root), lap.cause, lap.depth)


def _run(lap: LapContext, fetched: FetchResult | None = None) -> LapOutcome:
    laps.record_lap_runs(lap.project.ledger, lap.id, prefect_run=str(flow_run.id))
    return run_lap(lap, PrefectRunner(), fetched)
