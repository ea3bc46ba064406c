"""A look at a window: drift, quality, estimate, diagnosis, in that order, as one record. Decides nothing, reads no ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from monitoring import diagnosis, drift, estimate, quality, states
from monitoring.evidence import Drift, Look, Stretch
from monitoring.frames import KNOWN, STORED
from monitoring.states import State
from tasks import problems

if TYPE_CHECKING:
    import pandas as pd

    from tasks.features import Columns
    from tasks.settings import Problem


@dataclass(frozen=True)
class Reference:
    """What a window is held against: the champion's record (n rows), rows from before it, and states that are known."""

    record: pd.DataFrame
    before: pd.DataFrame | None
    states: Sequence[State]


def look(
    window: pd.DataFrame,
    reference: Reference,
    columns: Columns,
    problem: Problem,
    *,
    version: int,
    stretch: Stretch,
    level: float,
    seed: int,
    drifted: Drift | None = None,
) -> tuple[Look, State | None]:
    """What a window (frame as monitoring/frames.py makes it) shows, and its state for later ones; None: too few rows.

    `drifted`: what an earlier look found, which stands: only labels have come since, and its false alarms are spent.
    """
    kind, record = problems.of(problem.kind), reference.record
    known = window[KNOWN].dropna()
    stored = window[window[STORED]].drop(columns=[STORED, KNOWN]).reset_index(drop=True)
    whole = window.drop(columns=[STORED, KNOWN]).reset_index(drop=True)
    time = problem.time if problem.time is not None and problem.time in record else None
    found = drifted or drift.measure(
        record, stored, columns, target=problem.target, time=time, level=level, seed=seed, history=reference.before
    )
    measured = quality.measure(record, whole, kind, problem, known_until=max(known) if len(known) else None)
    model = estimate.fit(record, columns, kind, problem, seed)
    expected = model.estimate(stored) if found.statistic is not None else None
    told = diagnosis.diagnose(
        record, stored, found, measured, model, columns, kind, problem, known_states=reference.states, seed=seed
    )
    state = (
        states.of(stored, record, columns, kind, problem, stretch.start[:10]) if len(stored) >= drift.FEWEST else None
    )
    return Look(version, stretch, found, measured, expected, told), state


def to_json(one: Look, state: State | None) -> dict[str, Any]:
    """For the ledger."""
    return {**one.to_json(), "state": None if state is None else state.to_json()}


def from_json(content: Mapping[str, Any]) -> Look:
    """The look that to_json() wrote."""
    return TypeAdapter(Look).validate_python({k: v for k, v in content.items() if k != "state"})
