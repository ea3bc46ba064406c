"""A look at a window: drift, quality, estimate, diagnosis, in that order, as one record. Decides nothing, reads no ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from windvane.ledger.moments import moment
from windvane.ledger.store import stamp
from windvane.monitoring import diagnosis, drift, quality, report, states
from windvane.monitoring.estimate import LossModel
from windvane.monitoring.evidence import Diagnosis, Drift, Look, Stretch
from windvane.monitoring.frames import KNOWN, STORED
from windvane.monitoring.states import State
from windvane.tasks import history, problems
from windvane.tasks.features import Columns
from windvane.tasks.watch_settings import Window

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.settings import Problem


@dataclass(frozen=True)
class Reference:
    """What a window is held against: the champion's record (n rows), rows from before it, states that are known, and what the
    record says a row costs (monitoring/estimate.py).
    """

    record: pd.DataFrame
    before: pd.DataFrame | None
    states: Sequence[State]
    model: LossModel


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
    cut: Window,
    drifted: Drift | None = None,
    report_to: Path | None = None,
) -> tuple[Look, State | None]:
    """What a window (frame as monitoring/frames.py makes it) shows, and its state for later ones; None: too few rows.

    `drifted`: what an earlier look found, which stands: only labels have come since, and its false alarms are spent.
    `report_to`: where Evidently's report is kept, from which the alarm is read; None: our own distances say, and nothing is drawn.
    """
    kind, record = problems.of(problem.kind), reference.record
    known = window[KNOWN].dropna()
    stored = window[window[STORED]].drop(columns=[STORED, KNOWN]).reset_index(drop=True)
    whole = window.drop(columns=[STORED, KNOWN]).reset_index(drop=True)
    time = problem.time if problem.time is not None and problem.time in record else None
    found = drifted
    if found is None:
        by = drift.measure if report_to is None else _reported(report_to)
        found = by(
            record, stored, columns, target=problem.target, time=time, level=level, seed=seed, history=reference.before
        )
    measured = quality.measure(record, whole, kind, problem, known_until=max(known) if len(known) else None)
    model = reference.model
    expected = model.estimate(stored) if found.statistic is not None else None
    moving, name = _moving(record, columns, time, cut), stretch.start[:10]
    if found.alarm is None:
        told = Diagnosis("none", 0.0, (), str(found.note), "wait")
    else:
        told = diagnosis.diagnose(
            record, stored, found, measured, model, moving, kind, problem, known_states=reference.states, seed=seed
        )
    state = states.of(stored, record, moving, kind, problem, name) if len(stored) >= drift.FEWEST else None
    return Look(version, stretch, found, measured, expected, told), state


def _reported(path: Path) -> Callable[..., Drift]:
    """drift.measure() by Evidently's report, which is kept at `path`."""

    def measured(*frames: Any, **options: Any) -> Drift:
        found, page = drift.report(*frames, **options)
        report.keep(path, page)
        return found

    return measured


def _moving(record: pd.DataFrame, columns: Columns, time: str | None, cut: Window) -> Columns:
    """Without columns that stand still in most of the record's own windows, such as the month of a date: they always will."""
    if time is None:
        return columns
    ordered = record.sort_values(time, kind="stable")
    if cut.rows is not None:
        starts = [str(i // cut.rows) for i in range(len(ordered))]
    else:
        starts = [stamp(history.begin(datetime.fromisoformat(moment(t)), cut)) for t in ordered[time].tolist()]
    values = ordered[list(columns.names)]
    alike = (values.groupby(starts).nunique(dropna=False) <= 1).mean()
    still = {name for name in columns.names if alike[name] > 0.5 and values[name].nunique(dropna=False) > 1}
    return Columns(**{f.name: tuple(n for n in getattr(columns, f.name) if n not in still) for f in fields(columns)})


def to_json(one: Look, state: State | None) -> dict[str, Any]:
    """For the ledger."""
    return {**one.to_json(), "state": None if state is None else state.to_json()}


def from_json(content: Mapping[str, Any]) -> Look:
    """The look that to_json() wrote."""
    return TypeAdapter(Look).validate_python({k: v for k, v in content.items() if k != "state"})
