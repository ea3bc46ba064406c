"""Several policies over one history, and which to use: chosen on the first part of it, reported on the rest. Fits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from monitoring.history import playing, policies, schedule
from monitoring.history.matrix import Matrix
from monitoring.history.playing import Played
from monitoring.history.policies import Policy
from tasks.watch_settings import Policy as Choice

# The share of the windows played on which a policy is chosen.
CHOOSING = 0.5
# A challenger's price as a share of a lap's (benchmarks/policies.py --price).
FEE = 0.02
# Among policies this close to the best one, as a share of its total, the first named is taken: the difference is chance.
ALIKE = 0.01


@dataclass(frozen=True)
class Result:
    """A policy's total on the part that chose, and on the rest, both as ratios to the cheapest schedule in hindsight there."""

    name: str
    history: str
    chosen_on: float
    reported_on: float
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
    matrices: Mapping[str, Matrix], cost: float, *, delay: int = 0, alarm: playing.Alarm | None = None
) -> Backtest:
    """Play every policy on each history's matrix at one cost. Periods are chosen on the first part like everything else.

    Ratios compare within a history; the recommendation compares totals across histories, which share their windows. `alarm`: without
    it policies that need a drift alarm are left out.
    """
    results, costs = [], []
    for history, matrix in matrices.items():
        early, late = halves(matrix)
        period, _ = schedule.best_period(early, cost, delay)
        every = {**policies.known(), f"every {period} windows": Policy(policies.periodic(period))}
        bounds = schedule.optimum(early, cost, delay).total, schedule.optimum(late, cost, delay).total
        for name, policy in every.items():
            if policy.drift and alarm is None:
                continue
            totals = [played(part, policy, cost, delay, alarm).total for part in (early, late)]
            whole = played(matrix, policy, cost, delay, alarm)
            results.append(Result(name, history, totals[0] / bounds[0], totals[1] / bounds[1], whole))
            costs.append(totals[0])
    able = [at for at, result in enumerate(results) if result.name in get_args(Choice)]
    least = min(costs[at] for at in able)
    recommended = next(results[at] for at in able if costs[at] <= least * (1 + ALIKE))
    oracle = {history: schedule.optimum(matrix, cost, delay) for history, matrix in matrices.items()}
    return Backtest(tuple(results), oracle, recommended)


def played(matrix: Matrix, policy: Policy, cost: float, delay: int, alarm: playing.Alarm | None) -> Played:
    """With challengers at their price."""
    return playing.play(matrix, policy, cost, delay=delay, fee=FEE, alarm=alarm)


def halves(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """The windows that choose a policy, and those after them with a champion taught at their beginning."""
    middle = matrix.first + round(CHOOSING * (matrix.windows - matrix.first))
    return replace(matrix, losses=matrix.losses[:middle, :middle]), replace(matrix, first=middle)
