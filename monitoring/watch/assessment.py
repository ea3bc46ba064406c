"""The assessment of a window: drift, performance, estimate and diagnosis, in that order, as one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from windvane.ledger.database import format_timestamp
from windvane.monitoring import window_loss
from windvane.monitoring.diagnosis import explanations, window_states
from windvane.monitoring.diagnosis.evidence import DiagnosisCase
from windvane.monitoring.diagnosis.window_states import WindowState
from windvane.monitoring.drift import detector
from windvane.monitoring.drift.detector import Comparison
from windvane.monitoring.records import ChangeDiagnosis, DriftResult, WindowAssessment, WindowExtent
from windvane.monitoring.watch import report
from windvane.monitoring.watch.windows import find_calendar_start
from windvane.monitoring.window_frames import INPUTS_STORED_COLUMN, LABEL_ALONE_COLUMN, LABEL_KNOWN_COLUMN
from windvane.monitoring.window_loss import LossModel
from windvane.tasks.models import own_metrics
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.settings.problem_section import ProblemSettings


@dataclass(frozen=True)
class AssessmentReference:
    """What a window is held against: the champion's version and its record (n rows), by these columns, rows from before it, states
    that are known, and what the record predicts a row to cost (monitoring/window_loss.py).
    """

    version: int
    columns: FeatureColumns
    record: pd.DataFrame
    before: pd.DataFrame | None
    states: Sequence[WindowState]
    model: LossModel


@dataclass(frozen=True)
class AssessmentRules:
    """How a window is assessed: the share of false alarms that this check may spend, the seed, and what windows are cut by."""

    problem: ProblemSettings
    level: float
    seed: int
    cut: WindowLength


def assess_window(
    window: pd.DataFrame,
    reference: AssessmentReference,
    rules: AssessmentRules,
    *,
    stretch: WindowExtent,
    drifted: DriftResult | None = None,
    report_to: Path | None = None,
) -> tuple[WindowAssessment, WindowState | None]:
    """What a window (frame as monitoring/window_frames.py makes it) shows, and its state for later ones; None: too few rows.

    `drifted`: what an earlier check found, which counts: only labels have come since, and its false alarms are spent.
    `report_to`: where Evidently's report is kept, from which the alarm is read; None: our own distances decide, and nothing is drawn.
    """
    problem, record, columns = rules.problem, reference.record, reference.columns
    kind = own_metrics.load_measured_problem_type(problem, problem.positive)
    whole = window.drop(columns=[INPUTS_STORED_COLUMN, LABEL_KNOWN_COLUMN, LABEL_ALONE_COLUMN]).reset_index(drop=True)
    even = window[INPUTS_STORED_COLUMN].to_numpy(dtype=bool) & ~window[LABEL_ALONE_COLUMN].to_numpy(dtype=bool)
    stored = whole[even].reset_index(drop=True)
    time = problem.time if problem.time is not None and problem.time in record else None
    found = drifted
    if found is None:
        compared = Comparison(record, stored, columns, problem.target, time, rules.seed, reference.before)
        if report_to is None:
            found = detector.detect_drift(compared, rules.level)
        else:
            found, page = detector.detect_drift_with_evidently(compared, rules.level)
            report.keep_evidently_report(report_to, page)
    known_until = max(window[LABEL_KNOWN_COLUMN].dropna(), default=None)
    measured = window_loss.measure_window_loss(record, whole, kind, problem, known_until=known_until)
    model = reference.model
    expected = model.estimate(stored) if found.statistic is not None else None
    moving, state = _drop_constant_columns(record, columns, time, rules.cut), None
    if found.alarm is None:
        diagnosis = ChangeDiagnosis("none", 0.0, (), str(found.note), "wait")
    else:
        case = DiagnosisCase(record, stored, moving, kind, problem, model, reference.states, rules.seed)
        diagnosis = explanations.diagnose_change(case, found, measured)
    if len(stored) >= detector.MIN_DRIFT_ROWS:
        state = window_states.build_window_state(stored, record, moving, kind, problem, stretch.start[:10])
    return WindowAssessment(reference.version, stretch, found, measured, expected, diagnosis), state


def _drop_constant_columns(
    record: pd.DataFrame, columns: FeatureColumns, time: str | None, cut: WindowLength
) -> FeatureColumns:
    """Without columns that are constant in most of the record's own windows, such as the month of a date: they always will."""
    if time is None:
        return columns
    ordered = record.sort_values(time, kind="stable")
    if cut.rows is not None:
        starts = [str(i // cut.rows) for i in range(len(ordered))]
    else:
        starts = [format_timestamp(find_calendar_start(t, cut)) for t in ordered[time].tolist()]
    values = ordered[list(columns.names)]
    alike = (values.groupby(starts).nunique(dropna=False) <= 1).mean()
    still = {name for name in columns.names if alike[name] > 0.5 and values[name].nunique(dropna=False) > 1}
    kept = {group: tuple(n for n in names if n not in still) for group, names in vars(columns).items()}
    return FeatureColumns(**kept)
