"""Several policies, drift alarms and window lengths over one history: chosen on its first part, reported on the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring.drift import detector
from windvane.monitoring.history import loss_matrix, simulation
from windvane.monitoring.history.loss_matrix import MIN_HISTORY_WINDOWS, LossMatrix, MatrixJob, WindowedTable
from windvane.monitoring.history.simulation import DriftAlarm, PolicySimulation, RetrainingPolicy
from windvane.tasks import io
from windvane.tasks.evaluation import intervals
from windvane.tasks.models import features
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.settings import monitoring_section
from windvane.tasks.settings.monitoring_section import PolicyName as Choice
from windvane.tasks.split import time_windows
from windvane.tasks.validate import table_profile

# The share of the windows played on which a policy is chosen.
CHOOSING_SHARE = 0.5
# A challenger's price as a share of a lap's (benchmarks/policies.py --price).
CHALLENGER_PRICE_SHARE = 0.02
# What a combined challenger costs beside a plain one: its second model is trained on as many windows as the first quarter, half
# of all that came, on average.
COMBINED_PRICE_FACTOR = 1.5
# Name of a policy -> the drift alarm at which it retrains.
AlarmsByPolicy = Mapping[str, DriftAlarm]
_BOOTSTRAP_DRAWS = 1000
# Among policies this close to the best one, as a share of its total, the first named is taken: the difference is chance.
EQUAL_COST_SHARE = 0.01


@dataclass(frozen=True)
class PolicyResult:
    """A policy's total on the part that chose, and on the rest, both as ratios to the cheapest schedule in hindsight there.

    low, high: bounds at 95 % of the ratio on the rest (None: too few windows). rate: total per window where it chose.
    """

    name: str
    history: str
    chosen_on: float
    reported_on: float
    low: float | None
    high: float | None
    rate: float
    played: PolicySimulation


@dataclass(frozen=True)
class BacktestResult:
    """results: every policy under every history. oracle: history -> the cheapest schedule. recommended: of those that params.yaml
    knows the best where it chose.
    """

    results: tuple[PolicyResult, ...]
    oracle: Mapping[str, PolicySimulation]
    recommended: PolicyResult


def compare_policies(
    matrices: Mapping[str, LossMatrix],
    cost: float,
    *,
    delay: int = 0,
    alarms: Mapping[str, AlarmsByPolicy] | None = None,
) -> BacktestResult:
    """Play every policy on each history's matrix at one cost. Periods are chosen on the first part like everything else.

    Ratios compare within a history; the recommendation compares totals across histories, which share their windows. alarms: history -> name
    -> a drift alarm, each of which makes a policy of that name; those named as in retrain.policy can be recommended.
    """
    results = []
    for history, matrix in matrices.items():
        early, late = split_matrix(matrix)
        period, _ = simulation.find_best_period(early, cost, delay)
        ringing = (alarms or {}).get(history, {})
        fee = CHALLENGER_PRICE_SHARE * (COMBINED_PRICE_FACTOR if history.startswith("combined") else 1)
        every = {name: policy for name, policy in simulation.list_policies().items() if not policy.drift}
        every |= {name: RetrainingPolicy(simulation.advise_by_drift, drift=True) for name in ringing}
        every[f"every {period} windows"] = RetrainingPolicy(simulation.make_periodic_advice(period))
        best = [simulation.find_optimal_schedule(part, cost, delay) for part in (early, late)]
        for name, policy in every.items():
            play = partial(simulation.simulate_policy, delay=delay, fee=fee, alarm=ringing.get(name))
            chose, later, whole = (play(part, policy, cost) for part in (early, late, matrix))
            ratios = chose.total / best[0].total, later.total / best[1].total
            bounds, rate = bound_cost_ratio(later, best[1]), chose.total / len(chose.by_window)
            results.append(PolicyResult(name, history, *ratios, *bounds, rate, whole))
    able = [result for result in results if result.name in get_args(Choice)]
    least = min(result.rate for result in able)
    recommended = next(result for result in able if result.rate <= least * (1 + EQUAL_COST_SHARE))
    oracle = {history: simulation.find_optimal_schedule(matrix, cost, delay) for history, matrix in matrices.items()}
    return BacktestResult(tuple(results), oracle, recommended)


def bound_cost_ratio(one: PolicySimulation, best: PolicySimulation) -> tuple[float | None, float | None]:
    """Bounds at 95 % of one's total over the best's: a bootstrap of blocks of windows, as long as the difference remembers
    (tasks/evaluation/intervals.py). Both stay as they were played: the bounds show how much the ratio depends on single windows, not on
    the choice.
    """
    own, least = one.by_window + one.paid, best.by_window + best.paid
    length = intervals.estimate_block_length(own - least)
    blocks = len(own) // length
    if blocks < intervals.MIN_UNITS:
        return None, None
    units = intervals.ResamplingUnits(np.minimum(np.arange(len(own)) // length, blocks - 1), blocks, "")
    sums = [np.bincount(units.of_row, weights=series) for series in (own, least)]
    samples = intervals.draw_bootstrap_samples(units, _BOOTSTRAP_DRAWS, seed=0)
    low, high = np.quantile([float(times @ sums[0] / (times @ sums[1])) for times in samples], [0.025, 0.975])
    return float(low), float(high)


def split_matrix(matrix: LossMatrix) -> tuple[LossMatrix, LossMatrix]:
    """The windows that choose a policy, and those after them with a champion trained at their beginning."""
    middle = matrix.first + round(CHOOSING_SHARE * (matrix.windows - matrix.first))
    return replace(matrix, losses=matrix.losses[:middle, :middle]), replace(matrix, first=middle)


# So many windows in one are tried beside the requested length.
WINDOW_MULTIPLES = (2, 3, 4)
# Another length is recommended only where it is better by more than this share: it ends and begins elsewhere, too.
MIN_LENGTH_GAIN_SHARE = 0.02


@dataclass(frozen=True)
class WindowLengthResult:
    """A history by windows of one length. cost: of a lap, in mean losses of such a window: the same price whatever the length."""

    window: str
    cost: float
    found: BacktestResult


def compare_window_lengths(
    base: Mapping[str, LossMatrix],
    cut: WindowedTable,
    window: str,
    cost: float,
    *,
    time: str,
    delay: int = 0,
    alarms: Mapping[str, AlarmsByPolicy] | None = None,
) -> tuple[WindowLengthResult, ...]:
    """Every policy by windows as they were cut, and by multiples of them (fewer where these leave no history).

    alarms: of the windows as they were cut; longer ones are played without.
    """
    made = [WindowLengthResult(window, cost, compare_policies(base, cost, delay=delay, alarms=alarms))]
    for many in WINDOW_MULTIPLES:
        groups = group_windows(cut, window, many, time)
        longer = {}
        for name, one in base.items():
            word, windows = monitoring_section.parse_history(name)
            if windows is not None and windows % many:
                continue
            if (coarse := coarsen_matrix(one, groups, np.diff(cut.edges), many)) is not None:
                longer[word if windows is None else f"{word}:{windows // many}"] = coarse
        if longer:
            found = compare_policies(longer, cost / many, delay=math.ceil(delay / many))
            made.append(WindowLengthResult(multiply_window_length(window, many), cost / many, found))
    return tuple(made)


def choose_window_length(lengths: tuple[WindowLengthResult, ...]) -> WindowLengthResult:
    """The first, unless another costs clearly less per row and window on the part that chooses."""
    best, least = min(lengths, key=_get_rate), _get_rate(lengths[0]) * (1 - MIN_LENGTH_GAIN_SHARE)
    return best if _get_rate(best) < least else lengths[0]


def _get_rate(one: WindowLengthResult) -> float:
    return one.found.recommended.rate


def multiply_window_length(window: str, many: int) -> str:
    """`2mo` for two windows of `1mo`."""
    found = re.fullmatch(r"(\d+)(.*)", window.strip())
    assert found is not None
    return f"{int(found[1]) * many}{found[2]}"


def group_windows(cut: WindowedTable, window: str, many: int, time: str) -> NDArray[np.int64]:
    """(windows,) the number of the longer window on production's calendar, or by count, that holds each window."""
    longer = monitoring_section.parse_window_length(multiply_window_length(window, many))
    if longer.rows is not None:
        return np.arange(cut.count) // many
    return time_windows.number_windows(cut.rows[time].iloc[cut.edges[:-1]], longer)


def coarsen_matrix(one: LossMatrix, groups: NDArray[np.int64], rows: NDArray[np.int64], many: int) -> LossMatrix | None:
    """Losses by longer windows: a model trained before one is the model trained before the first window in it, and its loss there
    the mean over the rows of all. groups, rows: (windows,) of each window; so many windows as train must be a whole number of
    longer ones. None where too little history is left.
    """
    begins, end = np.concatenate([[0], np.flatnonzero(np.diff(groups)) + 1]), one.windows
    if one.windows - begins[-1] < many:  # the last may not be over
        begins, end = begins[:-1], int(begins[-1])
    weights, trailing = rows[:end], None if one.trailing is None else one.trailing // many
    losses = np.add.reduceat(one.losses[begins][:, :end] * weights, begins, axis=1) / np.add.reduceat(weights, begins)
    made = LossMatrix(losses, int(np.searchsorted(begins, one.first)), trailing)
    # The champion's own held-out record needs trained models.
    while made.first < made.windows and (made.first < 2 or not np.isfinite(made.held_out(made.first)[-1])):
        made = replace(made, first=made.first + 1)
    return made if made.windows - made.first >= MIN_HISTORY_WINDOWS else None


# (past, reference, window, columns) -> whether it alarms.
DriftTest = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame, FeatureColumns], bool]


def make_calibrated_alarm(
    job: MatrixJob, level: float, kept: Path, report: Callable[[], None] = lambda: None
) -> DriftAlarm:
    """The project's own alarm at this level, on the features alone: what models predict for past windows is not kept."""
    time, seed = job.settings.problem.time, job.settings.split.seed

    def rings(past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns) -> bool:
        compared = detector.Comparison(reference, window, columns, None, time, seed, past)
        return detector.detect_drift(compared, level, hurry=True).alarm is True

    return make_cached_alarm(job, f"calibrated-{level:g}", kept, rings, report)


def make_cached_alarm(
    job: MatrixJob, name: str, kept: Path, rings: DriftTest, report: Callable[[], None]
) -> DriftAlarm:
    """What `rings` finds in each pair of windows, remembered in `kept` under this name."""
    known = io.read_cache(kept, dict) or {}
    digests = job.cut.digests()

    def alarm(model: int, window: int) -> bool:
        begin = model - loss_matrix.count_held_out_windows(model, job.trailing)
        key = "-".join((name, digests[begin], digests[model - 1], digests[window]))
        if key not in known:
            report()
            known[key] = _test_window(job, begin, model, window, rings)
            io.write_json(known, kept)
        return bool(known[key])

    return alarm


def _test_window(job: MatrixJob, begin: int, model: int, window: int, rings: DriftTest) -> bool:
    """The rows of windows begin .. model - 1 against those of a window; columns as the former have them."""
    reference = job.cut.rows.iloc[job.cut.edges[begin] : job.cut.edges[model]]
    columns = features.select_feature_columns(job.settings, table_profile.profile_table(reference))

    def side(rows: pd.DataFrame) -> pd.DataFrame:
        seen, time = features.conform_frame(rows, columns, "rows"), str(job.settings.problem.time)
        return seen if time in seen else seen.assign(**{time: rows[time]})

    past = job.cut.rows.iloc[: job.cut.edges[begin]]
    return bool(rings(side(past), side(reference), side(job.cut.window(window)), columns))
