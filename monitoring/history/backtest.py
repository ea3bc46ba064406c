"""Several policies over one history, and which to use: chosen on the first part of it, reported on the rest. Fits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from windvane.monitoring.history import playing, policies, schedule
from windvane.monitoring.history.matrix import Matrix
from windvane.monitoring.history.playing import Played
from windvane.monitoring.history.policies import Policy
from windvane.tasks import resampling
from windvane.tasks.watch_settings import Policy as Choice

# The share of the windows played on which a policy is chosen.
CHOOSING = 0.5
# A challenger's price as a share of a lap's (benchmarks/policies.py --price).
FEE = 0.02
# What a combined challenger costs beside a plain one: its second model is taught on as many windows as the first quarter, which are half
# of all that came, taking one moment with another.
BOTH = 1.5
# Name of a policy -> the drift alarm at which it retrains.
Alarms = Mapping[str, playing.Alarm]
# Among policies this close to the best one, as a share of its total, the first named is taken: the difference is chance.
ALIKE = 0.01


@dataclass(frozen=True)
class Result:
    """A policy's total on the part that chose, and on the rest, both as ratios to the cheapest schedule in hindsight there.

    low, high: bounds at 95 % of the ratio on the rest (None: too few windows to tell). rate: total per window where it chose.
    """

    name: str
    history: str
    chosen_on: float
    reported_on: float
    low: float | None
    high: float | None
    rate: float
    played: Played


@dataclass(frozen=True)
class Backtest:
    """results: every policy under every history. oracle: history -> the cheapest schedule. recommended: of those that params.yaml
    knows the best where it chose.
    """

    results: tuple[Result, ...]
    oracle: Mapping[str, Played]
    recommended: Result


def compare(
    matrices: Mapping[str, Matrix], cost: float, *, delay: int = 0, alarms: Mapping[str, Alarms] | None = None
) -> Backtest:
    """Play every policy on each history's matrix at one cost. Periods are chosen on the first part like everything else.

    Ratios compare within a history; the recommendation compares totals across histories, which share their windows. alarms: history -> name
    -> a drift alarm, each of which makes a policy of that name; those named as in retrain.policy can be recommended.
    """
    results = []
    for history, matrix in matrices.items():
        early, late = halves(matrix)
        period, _ = schedule.best_period(early, cost, delay)
        ringing = (alarms or {}).get(history, {})
        fee = FEE * (BOTH if history.startswith("combined") else 1)
        every = {name: policy for name, policy in policies.known().items() if not policy.drift}
        every |= {name: Policy(policies.drifted, drift=True) for name in ringing}
        every[f"every {period} windows"] = Policy(policies.periodic(period))
        best = [schedule.optimum(part, cost, delay) for part in (early, late)]
        for name, policy in every.items():
            alarm = ringing.get(name)
            chose, later = (played(part, policy, cost, delay, alarm, fee) for part in (early, late))
            ratios = chose.total / best[0].total, later.total / best[1].total
            bounds, rate = interval(later, best[1]), chose.total / len(chose.by_window)
            results.append(
                Result(name, history, *ratios, *bounds, rate, played(matrix, policy, cost, delay, alarm, fee))
            )
    able = [result for result in results if result.name in get_args(Choice)]
    least = min(result.rate for result in able)
    recommended = next(result for result in able if result.rate <= least * (1 + ALIKE))
    oracle = {history: schedule.optimum(matrix, cost, delay) for history, matrix in matrices.items()}
    return Backtest(tuple(results), oracle, recommended)


def played(
    matrix: Matrix, policy: Policy, cost: float, delay: int, alarm: playing.Alarm | None, fee: float = FEE
) -> Played:
    """With challengers at their price."""
    return playing.play(matrix, policy, cost, delay=delay, fee=fee, alarm=alarm)


def interval(one: Played, best: Played, draws: int = 1000) -> tuple[float | None, float | None]:
    """Bounds at 95 % of one's total over the best's: a bootstrap of blocks of windows, as long as the difference remembers
    (tasks/resampling.py). Both stay as they were played: it says how much the ratio owes to single windows, not to the choice.
    """
    own, least = one.by_window + one.paid, best.by_window + best.paid
    length = resampling.block_length(own - least)
    blocks = len(own) // length
    if blocks < resampling.FEWEST:
        return None, None
    units = resampling.Units(np.minimum(np.arange(len(own)) // length, blocks - 1), blocks, "")
    sums = [np.bincount(units.of_row, weights=series) for series in (own, least)]
    drawn = [float(times @ sums[0] / (times @ sums[1])) for times in resampling.draws(units, draws, seed=0)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def halves(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """The windows that choose a policy, and those after them with a champion taught at their beginning."""
    middle = matrix.first + round(CHOOSING * (matrix.windows - matrix.first))
    return replace(matrix, losses=matrix.losses[:middle, :middle]), replace(matrix, first=middle)
