"""How often intervals held the labels of a window, and whether that is less than was promised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from windvane.monitoring import window_frames
from windvane.monitoring.records import CoverageResult
from windvane.tasks.evaluation.adaptive_levels import LevelHistory, count_by_level
from windvane.tasks.evaluation.scores import PREDICTION_COLUMN
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.settings.problem_section import ProblemSettings

_CONFIDENCE = 0.95


class MeasuredLabels(Protocol):
    """Labels beside their intervals: serving.compiled.intervals.LabelMeasures."""

    @property
    def needed(self) -> NDArray[np.float64]:
        """(n,) an interval holds the label at levels above it."""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(n,) whether it does."""

    @property
    def widths(self) -> NDArray[np.float64]:
        """(n,) its width, or how many classes."""

    @property
    def scores(self) -> int:
        """By how many held-out rows intervals are made."""


class StoredIntervals(Protocol):
    """The interval form that a version was stored with (flows/stored_intervals.py)."""

    @property
    def needs_inputs(self) -> bool:
        """Whether a prediction's interval depends on its inputs."""

    def measure(
        self, rows: pd.DataFrame, predictions: Predictions, truth: NDArray[Any], level: float
    ) -> MeasuredLabels | None:
        """Labels (n,) of rows beside their intervals; None: the rows' inputs cannot be read, or the level cannot be promised."""

    def adjust(self, level: float, history: LevelHistory) -> float | None:
        """The level that keeps this one, by the labels of the windows so far; None without any."""


@dataclass(frozen=True)
class CoverageRules:
    """The level that is watched, the share of false alarms of a window, and whether the ledger keeps all inputs as they are."""

    problem: ProblemSettings
    level: float
    false_alarms: float
    readable: bool


def measure_coverage(
    window: pd.DataFrame,
    record: pd.DataFrame,
    intervals: StoredIntervals,
    rules: CoverageRules,
    before: CoverageResult | None,
) -> CoverageResult | None:
    """Coverage on the labelled rows of a window (frame as monitoring/window_frames.py makes it); None: no row has a label.

    before: the window's check before. The same labels again are no new check.
    """
    problem = rules.problem
    kind = definitions.load_problem_type(problem.kind, problem.positive)
    usable = window_frames.mask_labelled(window, problem.target)
    if not usable.any():
        return None
    labelled = int(usable.sum())
    usable = usable & window_frames.mask_labelled(window, PREDICTION_COLUMN)
    if intervals.needs_inputs:
        usable = usable & window[window_frames.INPUTS_STORED_COLUMN].to_numpy(dtype=bool) & rules.readable
    rows, found = window[usable].reset_index(drop=True), None
    if len(rows):
        predictions = window_frames.read_frame_predictions(rows, record, kind, problem.target)
        found = intervals.measure(rows, predictions, kind.truth(rows[problem.target]), rules.level)
    if found is None:
        return CoverageResult(rules.level, 0, 0, sets=not kind.continuous, left_out=labelled)
    middle = np.median if kind.continuous else np.mean
    measured = CoverageResult(
        rules.level,
        len(rows),
        int(found.inside.sum()),
        *bound_share(int(found.inside.sum()), len(rows)),
        width=float(middle(found.widths)),
        sets=not kind.continuous,
        left_out=labelled - len(rows),
        counts=count_by_level(found.needed),
    )
    return _decide_alarm(measured, found.scores, rules.false_alarms, before)


def bound_share(inside: int, rows: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper & Pearson, Biometrika 26, 1934)."""
    tail = (1 - _CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, inside, rows - inside + 1)) if inside else 0.0
    high = float(stats.beta.ppf(1 - tail, inside + 1, rows - inside)) if inside < rows else 1.0
    return low, high


def compute_chance(inside: int, rows: int, scores: int, level: float) -> float:
    """How likely so few of a window's rows are within, or fewer, if they are like the held-out ones.

    An interval reaches to the k-th smallest of n held-out scores, k = ceil((n + 1) level). Whatever their distribution, the share of
    new rows within follows a beta distribution (k, n + 1 - k), and so their number the binomial mixed over it: with many
    scores the binomial of `level`, with few a wider one (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012).
    """
    place = max(1, int(np.ceil((scores + 1) * level - 1e-9)))
    return float(min(1.0, stats.betabinom.cdf(inside, rows, place, scores + 1 - place)))


def _decide_alarm(
    measured: CoverageResult, scores: int, false_alarms: float, before: CoverageResult | None
) -> CoverageResult:
    """With the test. Labels come in pieces: check k of a window spends false_alarms / (k (k + 1)), and all of them together at
    most false_alarms. An alarm stays as long as the window is below its level by false_alarms alone.
    """
    same = (measured.level, measured.covered, measured.counts)
    if before is not None and (before.level, before.covered, before.counts) == same:
        return replace(before, left_out=measured.left_out)
    checks = 1 if before is None or before.level != measured.level else before.checks + 1
    p, limit = (
        compute_chance(measured.covered, measured.rows, scores, measured.level),
        false_alarms / checks / (checks + 1),
    )
    stays = before is not None and before.alarm and before.level == measured.level and p <= false_alarms
    return replace(measured, p=p, limit=limit, alarm=p <= limit or stays, checks=checks)


def adjust_watched_level(
    intervals: StoredIntervals, windows: Iterable[CoverageResult | None], measured: CoverageResult
) -> CoverageResult:
    """With the level in use from now on, by the coverage of all windows (in the order of time)."""
    history = LevelHistory.of(one.counts for one in windows if one is not None)
    return replace(measured, adjusted=intervals.adjust(measured.level, history))
