"""Detects drift between the champion's reference and a window: whether anything moved, by our own distances or by Evidently's report."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring.drift import calibration, compared_rows, distances, evidently_import, history_range
from windvane.monitoring.drift.calibration import CalibratedScores, SeasonalScores, calibrate_scores
from windvane.monitoring.drift.compared_rows import ComparedColumn, SampledRows, build_permutation
from windvane.monitoring.drift.distances import Distances
from windvane.monitoring.drift.finding_texts import FindingTexts
from windvane.monitoring.drift.permutation import Demand, PermutationScorer
from windvane.monitoring.records import LABELS_WOULD_DECIDE, DriftFinding, DriftResult
from windvane.monitoring.window_frames import name_record_column
from windvane.tasks.gate.block_test import FloatArray
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import limit_to_one_thread

# Fewer rows in either part: no result.
MIN_DRIFT_ROWS = 20
# Of an error's message at most so many characters are kept.
_LONGEST = 300
# With earlier stretches two tests share the level (Holm's correction, weighted: Holm, Scandinavian J. of Statistics 6, 1979): what
# the stretches do has nearly all of it, columns that left the range of their whole history have this share.
_RANGE_SHARE = 0.1
# A history shorter than this has not seen every season.
_YEAR_DAYS = 360.0


@dataclass(frozen=True)
class Comparison:
    """A window (m rows) beside the reference (n rows), by these columns; `seed` draws the rows of large ones.

    Both hold the feature columns, and where known the prediction, probabilities, the target (NaN: no label yet) and `time`.
    `history`: rows of the same source from before the reference, for what seasons do; predictions need not be there.
    """

    reference: pd.DataFrame
    window: pd.DataFrame
    columns: FeatureColumns
    target: str | None
    time: str | None
    seed: int
    history: pd.DataFrame | None = None


def detect_drift(compared: Comparison, level: float, *, hurry: bool = False) -> DriftResult:
    """Whether the window differs from the reference by more than a share `level` of unchanged windows do, by our own distances: fast,
    for history that is played.

    `hurry`: stop counting once the alarm is ruled out; the alarm is the same, limits are rough.
    """
    prepared = _prepare(compared, level)
    if isinstance(prepared, DriftResult):
        return prepared
    with limit_to_one_thread():
        limits = _find_limits(prepared, level, distances, hurry=hurry)
        values = np.concatenate([s.values() for s in limits.scorers])
        return _make_result(prepared, limits, values, limits.alarms, [*prepared.broken], prepared.notes)


def detect_drift_with_evidently(compared: Comparison, level: float) -> tuple[DriftResult, str | None]:
    """The same, read from Evidently's report, which runs with our limits as its thresholds; and that report as an HTML page.

    A report that fails leaves the alarm open, with the reason. None for a page: too few rows, or nothing that can be compared.
    """
    prepared = _prepare(compared, level)
    if isinstance(prepared, DriftResult):
        return prepared, None
    evidently = evidently_import.import_evidently_report()  # seconds, which a window of too few rows does without

    notes = prepared.notes
    with limit_to_one_thread():
        try:
            try:
                limits = _find_limits(prepared, level, distances)
            except Exception as e:  # noqa: BLE001 (whatever is wrong with our distances must not silence the alarm)
                limits = _find_limits(prepared, level, distances.ScipyDistances())
                notes = [*notes, f"limits were found by SciPy's distances, because the fast ones failed: {_named(e)}"]
            exchanges, measures = [s.exchange for s in limits.scorers], [s.measures for s in limits.scorers]
            read = evidently.write_evidently_report(
                exchanges, measures, limits.bounds(), prepared.broken, limits.loudest
            )
        except Exception as e:  # noqa: BLE001 (whatever fails there, the result is "cannot tell", with the reason)
            text = f"cannot tell whether anything moved: its report failed: {_named(e)}"
            note = "; ".join([text, *(f"{f.column}: {f.said}" for f in prepared.broken), *notes])
            return DriftResult(None, None, None, None, level, (), *prepared.sizes, note), None
        broken = prepared.broken if read.broken else []
        return _make_result(prepared, limits, read.values, read.alarms, broken, notes), read.page


@dataclass(frozen=True)
class _Prepared:
    """What is compared: rows and columns that can be, the target if enough labels have come, and what is broken or left out."""

    rows: SampledRows
    wanted: list[ComparedColumn]
    label: ComparedColumn | None
    broken: list[DriftFinding]
    sizes: tuple[int, int]
    notes: list[str]


@dataclass(frozen=True)
class _Limits:
    """Scorers that know what is usual, and what their measures must exceed to speak.

    `beyond`: columns that left the range of their whole history, with their chances. No earlier stretch explains that, so their new
    values need not exceed what stretches usually do.
    """

    scorers: list[PermutationScorer]
    found: CalibratedScores
    usual: SeasonalScores | None
    level: float
    notes: list[str]
    beyond: dict[str, float] = field(default_factory=dict)

    @property
    def scores(self) -> FloatArray:
        """(measures,) how far each moved: 1 is one standard deviation of unchanged windows."""
        return self.found.scores if self.usual is None else np.where(self.new, self.found.scores, self.usual.scores)

    @property
    def limits(self) -> FloatArray:
        """(measures,) the scores that they must exceed."""
        return self.found.limits if self.usual is None else np.where(self.new, self.found.limits, self.usual.limit)

    @property
    def new(self) -> NDArray[np.bool_]:
        """(measures,) which count the new values of a column that left the range of its whole history."""
        left = {name for name, p in self.beyond.items() if p <= _RANGE_SHARE * self.level}
        return np.array([m.how in ("range", "new categories") and m.column in left for m in self.found.measures])

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """(measures,) which do."""
        return self.found.alarms & (self.scores > self.limits)

    @property
    def p(self) -> float:
        """The chance of the window's scores where nothing changed: of exchanges, and of earlier stretches where there are enough."""
        if self.usual is None:
            return self.found.p
        either = min(self.usual.p / (1 - _RANGE_SHARE), min(self.beyond.values(), default=1.0) / _RANGE_SHARE, 1.0)
        return max(self.found.p, either)

    @property
    def loudest(self) -> list[str]:
        """The columns, those first that seem to have moved most."""
        return list(dict.fromkeys(self.found.measures[i].column for i in np.argsort(-self.scores, kind="stable")))

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """The same limits in Evidently's units: the least and the most (measures,) at which each is quiet."""
        demands = [Demand(self.found.limits, np.ones(len(self.found.limits)))]
        if self.usual is not None:
            demands.append(Demand(np.where(self.new, -np.inf, self.usual.limit), self.usual.slack))
        found, end = [], 0
        for scorer in self.scorers:
            start, end = end, end + len(scorer.measures)
            found.append(scorer.bounds([Demand(d.limits[start:end], d.slack[start:end]) for d in demands]))
        return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])


def _prepare(compared: Comparison, level: float) -> _Prepared | DriftResult:
    """What to compare; the result where it is known already."""
    reference, window, time, history = compared.reference, compared.window, compared.time, compared.history
    sizes = (len(reference), len(window))
    if min(sizes) < MIN_DRIFT_ROWS:
        few = f"too few rows to decide: {sizes[1]:,} in the window, {sizes[0]:,} in the reference; {MIN_DRIFT_ROWS} of each are needed"
        return DriftResult(False, None, None, None, level, (), *sizes, few)
    past = reference.iloc[:0] if history is None or time is None else history
    wanted = compared_rows.list_compared_columns(reference, compared.columns, time)
    broken = compared_rows.find_absent_columns(reference, window, wanted)
    rows, notes = compared_rows.sample_rows(past, reference, window, time, compared.seed)
    wanted = [c for c in wanted if c.name in rows.reference and c.name in rows.window]
    rising = compared_rows.find_rising_columns(rows, wanted)
    if rising:
        notes.append(f"not compared, because they rise with the clock: {', '.join(rising)}")
    wanted = [c for c in wanted if c.name not in rising]
    label = _find_label_column(rows, compared.target, wanted)
    if not wanted and label is None:
        return DriftResult(bool(broken), None, None, None, level, tuple(broken), *sizes, "no column can be compared")
    return _Prepared(rows, wanted, label, broken, sizes, notes)


def _find_limits(prepared: _Prepared, level: float, by: Distances, *, hurry: bool = False) -> _Limits:
    """Limits for all measures, by exchanging rows."""
    scorers = [PermutationScorer(build_permutation(prepared.rows, prepared.wanted), by)] if prepared.wanted else []
    if prepared.label is not None:
        labelled = prepared.rows.labelled(prepared.label.name)
        scorers.append(PermutationScorer(build_permutation(labelled, [prepared.label]), by))
    found = calibrate_scores(scorers, level, hurry=hurry)
    if prepared.rows.time is None:
        return _Limits(scorers, found, None, level, [])
    usual = calibration.score_against_past(scorers, (1 - _RANGE_SHARE) * level)
    if isinstance(usual, SeasonalScores):
        beyond = history_range.find_columns_beyond_history(prepared.rows, prepared.wanted, usual.stretches)
        held = f"held against {usual.stretches} earlier stretches as long as this one"
        return _Limits(scorers, found, usual, level, [held], beyond)
    few = f"{calibration.MIN_EARLIER_WINDOWS} earlier stretches as long as the window are needed, there are {usual}"
    return _Limits(scorers, found, None, level, [f"seasons are not part of 'unchanged': {few}"])


def _make_result(
    prepared: _Prepared,
    by: _Limits,
    values: FloatArray,
    alarms: NDArray[np.bool_],
    broken: list[DriftFinding],
    notes: list[str],
) -> DriftResult:
    """The verdict, of each measure's value and alarm (measures,); `broken`: the columns that speak whatever is measured."""
    rows, found, usual = prepared.rows, by.found, by.usual
    words = FindingTexts(rows.reference, rows.window, prepared.wanted + [c for c in [prepared.label] if c], rows.time)
    findings = sorted(
        broken + _make_findings(by, values, alarms, words), key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect)
    )
    statistic, limit = found.statistic, found.limit
    if usual is not None:
        statistic, limit = float(usual.scores.max()), usual.limit
    alarm, text = any(f.alarm for f in findings), "; ".join(notes + by.notes) or None
    undecided = _explain_short_history(rows, by)
    return DriftResult(alarm, statistic, limit, by.p, by.level, tuple(findings), *prepared.sizes, text, undecided)


def _explain_short_history(rows: SampledRows, by: _Limits) -> str | None:
    """Why what moved may be a season: exchanges speak, earlier stretches vary as much or are too few, and no year has been seen."""
    confirmed = by.usual is not None and bool((by.found.alarms & (by.scores > by.usual.limit)).any())
    if rows.time is None or confirmed or not by.found.alarms.any():
        return None
    days = compared_rows.measure_span(rows)
    if days is None or days >= _YEAR_DAYS:
        return None
    moved = list(dict.fromkeys(by.found.measures[i].column for i in np.flatnonzero(by.found.alarms)))
    named = ", ".join(name_record_column(name) for name in moved[:3]) + (" and others" if len(moved) > 3 else "")
    return (
        f"cannot tell a season from drift: {named} moved, and the history before the window ({days:,.0f} days) is shorter than a year; "
        f"a longer one in data.source, or {LABELS_WOULD_DECIDE}"
    )


def _find_label_column(rows: SampledRows, target: str | None, wanted: list[ComparedColumn]) -> ComparedColumn | None:
    """The target, if enough labels have come."""
    if target is None or min(len(part) for part in rows.labelled(target).parts[1:]) < MIN_DRIFT_ROWS:
        return None
    values = rows.reference[target]
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
    return ComparedColumn(target, "target", "number" if number and not classes else "category")


def _make_findings(
    by: _Limits, values: FloatArray, alarms: NDArray[np.bool_], words: FindingTexts
) -> list[DriftFinding]:
    """One finding per column and aspect: of its measures the strongest one."""
    loudest: dict[tuple[str, str], int] = {}
    for i in np.lexsort((-by.scores / by.limits, ~alarms)):
        measure = by.found.measures[i]
        loudest.setdefault((measure.column, measure.aspect), int(i))
    findings = []
    for i in loudest.values():
        measure, alarm = by.found.measures[i], bool(alarms[i])
        aspect, text = words.describe(measure, float(values[i])) if alarm else (measure.aspect, "as usual")
        findings.append(DriftFinding(measure.column, aspect, float(by.scores[i]), float(by.limits[i]), alarm, text))
    return findings


def _named(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST]}" if text else type(error).__name__
