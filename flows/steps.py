"""The steps of a lap as Prefect tasks: one table of names, retries and timeouts. Their order stands in flows/training.py."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State

from windvane.flows import data, deploying, fetching, inspecting, judging, sharing, teaching
from windvane.flows.lap import Lap
from windvane.tasks.errors import Outage


@dataclass(frozen=True)
class Policy:
    """How one step is run: seconds before it is given up, and how often an outage is tried again."""

    work: Callable[..., Any]
    timeout: float
    retries: int = 0
    wait: tuple[float, ...] = (2, 10, 60)


HOUR = 3600.0
TABLE: dict[str, Policy] = {
    # Only a source may meet an outage; reading, validating and splitting files on disk cannot.
    "fetch": Policy(fetching.fetch, timeout=12 * HOUR, retries=3),
    "ingest": Policy(data.ingest, timeout=4 * HOUR),
    "validate": Policy(data.validate, timeout=HOUR),
    "split": Policy(data.split, timeout=HOUR),
    "inspect": Policy(inspecting.inspect, timeout=HOUR),
    # The search keeps its own time (search.timeout) and its own journal; this only catches a fit that hangs.
    "search": Policy(teaching.search, timeout=24 * HOUR),
    "evaluate": Policy(teaching.evaluate, timeout=4 * HOUR),
    "build": Policy(teaching.build, timeout=4 * HOUR),
    "smoke": Policy(teaching.smoke, timeout=600),
    "explain": Policy(teaching.explain, timeout=4 * HOUR),
    "register": Policy(deploying.register, timeout=HOUR, retries=3),
    "judge": Policy(judging.judge, timeout=4 * HOUR),
    "promote": Policy(deploying.promote, timeout=600, retries=3),
    # An outage here is a warning, and the next lap's business.
    "push": Policy(sharing.push, timeout=4 * HOUR),
}


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Only an outage may pass by itself; wrong input stays wrong."""
    return isinstance(state.result(raise_on_failure=False), Outage)


def _step(name: str) -> Any:
    policy = TABLE[name]

    @functools.wraps(policy.work)
    def timed(lap: Lap, *arguments: Any) -> Any:
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
        retry_condition_fn=_worth_retrying if policy.retries else None,
        timeout_seconds=policy.timeout,
        # What passes between steps is frames and models: they stay in memory, and DVC, MLflow and the ledger keep them.
        persist_result=False,
        cache_result_in_memory=False,
    )


fetch, ingest, validate, split = (_step(name) for name in ("fetch", "ingest", "validate", "split"))
inspect = _step("inspect")
search, evaluate, build, smoke, explain = (_step(name) for name in ("search", "evaluate", "build", "smoke", "explain"))
register, judge, promote, push = (_step(name) for name in ("register", "judge", "promote", "push"))
