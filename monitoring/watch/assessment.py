"""The assessment of a window: drift, performance, estimate and diagnosis, in that order, as one record.

Decides nothing, reads no ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from windvane.ledger.database import format_timestamp, to_timestamp
from windvane.monitoring.diagnosis import explanations, window_states
from windvane.monitoring.diagnosis.window_states import WindowState
from windvane.monitoring.drift import detector
from windvane.monitoring.performance import measured_loss
from windvane.monitoring.performance.estimated_loss import LossModel
from windvane.monitoring.records import ChangeDiagnosis, DriftResult, WindowAssessment, WindowExtent
from windvane.monitoring.watch import report
from windvane.monitoring.window_frames import INPUTS_STORED_COLUMN, LABEL_KNOWN_COLUMN
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.split import time_windows

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.settings.project_params import ProblemSettings


@dataclass(frozen=True)
class AssessmentReference:
    """What a window is held against: the champion's record (n rows), rows from before it, states that are known, and what the
    record says a row costs (monitoring/performance/estimated_loss.py).
    """

    record: pd.DataFrame
    before: pd.DataFrame | None
    states: Sequence[WindowState]
    model: LossModel


def assess_window(
    window: pd.DataFrame,
    reference: AssessmentReference,
    columns: FeatureColumns,
    problem: ProblemSettings,
    *,
    version: int,
    stretch: WindowExtent,
    level: float,
    seed: int,
    cut: WindowLength,
    drifted: DriftResult | None = None,
    report_to: Path | None = None,
) -> tuple[WindowAssessment, WindowState | None]:
    """What a window (frame as monitoring/window_frames.py makes it) shows, and its state for later ones; None: too few rows.

    `drifted`: what an earlier look found, which stands: only labels have come since, and its false alarms are spent.
    `report_to`: where Evidently's report is kept, from which the alarm is read; None: our own distances say, and nothing is drawn.
    """
    kind, record = definitions.load_problem_type(problem.kind), reference.record
    known = window[LABEL_KNOWN_COLUMN].dropna()
    stored = (
        window[window[INPUTS_STORED_COLUMN]]
        .drop(columns=[INPUTS_STORED_COLUMN, LABEL_KNOWN_COLUMN])
        .reset_index(drop=True)
    )
    whole = window.drop(columns=[INPUTS_STORED_COLUMN, LABEL_KNOWN_COLUMN]).reset_index(drop=True)
    time = problem.time if problem.time is not None and problem.time in record else None
    found = drifted
    if found is None:
        by = detector.detect_drift if report_to is None else _reported(report_to)
        found = by(
            record, stored, columns, target=problem.target, time=time, level=level, seed=seed, history=reference.before
        )
    measured = measured_loss.measure_window_loss(
        record, whole, kind, problem, known_until=max(known) if len(known) else None
    )
    model = reference.model
    expected = model.estimate(stored) if found.statistic is not None else None
    moving, name = _drop_constant_columns(record, columns, time, cut), stretch.start[:10]
    if found.alarm is None:
        told = ChangeDiagnosis("none", 0.0, (), str(found.note), "wait")
    else:
        told = explanations.diagnose_change(
            record, stored, found, measured, model, moving, kind, problem, known_states=reference.states, seed=seed
        )
    state = (
        window_states.build_window_state(stored, record, moving, kind, problem, name)
        if len(stored) >= detector.MIN_DRIFT_ROWS
        else None
    )
    return WindowAssessment(version, stretch, found, measured, expected, told), state


def _reported(path: Path) -> Callable[..., DriftResult]:
    """drift.measure() by Evidently's report, which is kept at `path`."""

    def measured(*frames: Any, **options: Any) -> DriftResult:
        found, page = detector.report(*frames, **options)
        report.keep_evidently_report(path, page)
        return found

    return measured


def _drop_constant_columns(
    record: pd.DataFrame, columns: FeatureColumns, time: str | None, cut: WindowLength
) -> FeatureColumns:
    """Without columns that stand still in most of the record's own windows, such as the month of a date: they always will."""
    if time is None:
        return columns
    ordered = record.sort_values(time, kind="stable")
    if cut.rows is not None:
        starts = [str(i // cut.rows) for i in range(len(ordered))]
    else:
        starts = [
            format_timestamp(time_windows.find_window_start(datetime.fromisoformat(to_timestamp(t)), cut))
            for t in ordered[time].tolist()
        ]
    values = ordered[list(columns.names)]
    alike = (values.groupby(starts).nunique(dropna=False) <= 1).mean()
    still = {name for name in columns.names if alike[name] > 0.5 and values[name].nunique(dropna=False) > 1}
    return FeatureColumns(
        **{f.name: tuple(n for n in getattr(columns, f.name) if n not in still) for f in fields(columns)}
    )


def encode_assessment(one: WindowAssessment, state: WindowState | None) -> dict[str, Any]:
    """For the ledger."""
    return {**one.to_json(), "state": None if state is None else state.to_json()}


def decode_assessment(content: Mapping[str, Any]) -> WindowAssessment:
    """The look that to_json() wrote."""
    return TypeAdapter(WindowAssessment).validate_python({k: v for k, v in content.items() if k != "state"})
