"""The steps of a lap as Prefect tasks: one table of names, retries and timeouts.

Their order stands in flows/training.py.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State

from windvane.flows import model_promotion
from windvane.flows.lap import data_steps, gate_step, model_steps
from windvane.flows.lap.context import LapContext
from windvane.tasks.errors import Outage


@dataclass(frozen=True)
class StepPolicy:
    """How one step is run: seconds before it is given up, and how often an outage is tried again."""

    work: Callable[..., Any]
    timeout: float
    retries: int = 0
    wait: tuple[float, ...] = (2, 10, 60)


HOUR_SECONDS = 3600.0
STEP_POLICIES: dict[str, StepPolicy] = {
    # Only a source may meet an outage; reading, validating and splitting files on disk cannot.
    "fetch": StepPolicy(data_steps.run_fetch_step, timeout=12 * HOUR_SECONDS, retries=3),
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
    "push": StepPolicy(data_steps.run_push_step, timeout=4 * HOUR_SECONDS),
}


def _is_outage(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Only an outage may pass by itself; wrong input stays wrong."""
    return isinstance(state.result(raise_on_failure=False), Outage)


def _make_step(name: str) -> Any:
    policy = STEP_POLICIES[name]

    @functools.wraps(policy.work)
    def timed(lap: LapContext, *arguments: Any) -> Any:
        began = time.monotonic()
        try:
            return policy.work(lap, *arguments)
        finally:
            lap.steps[name] = round(time.monotonic() - began, 3)

    return task(
        timed,
        name=name,
        retries=policy.retries,
        retry_delay_seconds=list(policy.wait[: policy.retries]) or None,
        retry_condition_fn=_is_outage if policy.retries else None,
        timeout_seconds=policy.timeout,
        # What passes between steps is frames and models: they stay in memory, and DVC, MLflow and the ledger keep them.
        persist_result=False,
        cache_result_in_memory=False,
    )


fetch, ingest, validate, split = (_make_step(name) for name in ("fetch", "ingest", "validate", "split"))
inspect = _make_step("inspect")
search, evaluate, build, smoke, explain = (
    _make_step(name) for name in ("search", "evaluate", "build", "smoke", "explain")
)
register, judge, promote, push = (_make_step(name) for name in ("register", "judge", "promote", "push"))
