"""Retraining policies played on a loss matrix, each with only what was known by then; the cheapest schedule in hindsight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windvane.monitoring.history.loss_matrix import LossMatrix
from windvane.monitoring.policy import regret
from windvane.monitoring.policy.regret import PolicyInput
from windvane.monitoring.records import PolicyAdvice

# Standard deviations of its own record by which a champion's loss must rise.
ALARM_STANDARD_DEVIATIONS = 3.0


@dataclass(frozen=True)
class RetrainingPolicy:
    """advise: its advice on a past. challengers: (cost in windows' losses) -> a challenger is trained every so many windows after
    the champion; None: it needs none. drift: it must be given drift alarms.
    """

    advise: Callable[[PolicyInput], PolicyAdvice]
    challengers: Callable[[float], int] | None = None
    drift: bool = False


def make_periodic_advice(windows: int) -> Callable[[PolicyInput], PolicyAdvice]:
    """Every so many windows."""

    def advise(past: PolicyInput) -> PolicyAdvice:
        served = past.now - past.since
        return PolicyAdvice(served >= windows, f"{served} of {windows} windows since the last retraining")

    return advise


def advise_by_performance(past: PolicyInput) -> PolicyAdvice:
    """The champion's loss on the newest labelled window against its record's, in standard deviations between windows."""
    if len(past.record) < 2 or not len(past.served):
        return PolicyAdvice(False, "too few windows to know how losses vary")
    over, spread = float(past.served[-1] - past.record.mean()), float(past.record.std(ddof=1))
    z = over / spread if spread > 0 else np.copysign(np.inf, over) if over else 0.0
    reason = f"loss {z:.1f} standard deviations above the champion's record, {ALARM_STANDARD_DEVIATIONS:g} alarm"
    return PolicyAdvice(z > ALARM_STANDARD_DEVIATIONS, reason)


def advise_by_staleness(past: PolicyInput) -> PolicyAdvice:
    """Excess loss over the champion's record, added up, against the price of a lap: the cumulative threshold of CARA (Mahadevan &
    Mathioudakis, Knowledge-Based Systems, 2024), as a sum that never falls below zero (CUSUM: Page, Biometrika 41, 1954).
    """
    over = 0.0
    for excess in past.served - past.record.mean():
        over = max(over + float(excess), 0.0)
    reason = f"{over / past.price:.2f} of a lap's price lost against the champion's own record"
    return PolicyAdvice(over > past.price, reason)


def advise_by_drift(past: PolicyInput) -> PolicyAdvice:
    """Whenever somebody's drift alarm rings."""
    return PolicyAdvice(bool(past.alarm), "the drift alarm rings" if past.alarm else "no drift alarm")


def list_policies() -> dict[str, RetrainingPolicy]:
    """Every policy without a parameter, by name; those of retrain.policy by theirs. `schedule`: at each window's end."""
    return {
        "never": RetrainingPolicy(lambda past: PolicyAdvice(False, "never retrains")),
        "schedule": RetrainingPolicy(make_periodic_advice(1)),
        "drift": RetrainingPolicy(advise_by_drift, drift=True),
        "performance": RetrainingPolicy(advise_by_performance),
        "staleness": RetrainingPolicy(advise_by_staleness),
        "regret": RetrainingPolicy(regret.advise_by_regret, regret.choose_challenger_interval),
    }


# (model, window) -> whether a drift alarm rings on the window, against the held-out rows of the model.
DriftAlarm = Callable[[int, int], bool]


@dataclass(frozen=True)
class PolicySimulation:
    """A history played. by_window: (windows played,) the champion's mean loss on each; models: (windows played,) which served.

    retrained: windows at whose start a new champion began. paid: (windows played,) what laps and challengers cost at the start of
    each, in loss. decided: what was advised at the start of a window.
    """

    by_window: NDArray[np.float64]
    models: NDArray[np.int64]
    retrained: tuple[int, ...]
    paid: NDArray[np.float64]
    decided: tuple[tuple[int, PolicyAdvice], ...] = ()

    @property
    def loss(self) -> float:
        """Summed over the windows."""
        return float(self.by_window.sum())

    @property
    def total(self) -> float:
        """Loss, laps and challengers."""
        return self.loss + float(self.paid.sum())


def simulate_policy(
    matrix: LossMatrix,
    policy: RetrainingPolicy,
    cost: float,
    *,
    delay: int = 0,
    fee: float = 0.0,
    alarm: DriftAlarm | None = None,
) -> PolicySimulation:
    """Play on from the first champion. A retraining at window j is trained on rows before window j - delay, whose labels are known.

    cost: of a lap, in the champion's mean losses per window on its own held-out rows. fee: what training a challenger costs, as a
    share of a lap. delay: windows that labels take to come. alarm: for policies that need it.
    """
    trained, serving, since = [matrix.first], 0, matrix.first
    every = policy.challengers(cost) if policy.challengers else None
    losses, models, retrained, decided = [], [], [], []
    paid = np.zeros(matrix.windows - matrix.first)
    for now in range(matrix.first, matrix.windows):
        known = now - delay
        if now > matrix.first and known > trained[serving]:
            champion = trained[serving]
            price = cost * matrix.record(champion)
            rings = alarm(champion, now - 1) if alarm and policy.drift else None
            models_known, losses_known = np.array(trained, dtype=np.int64), matrix.losses[trained, :known]
            record = matrix.held_out(champion)
            advice = policy.advise(PolicyInput(models_known, losses_known, serving, since, record, price, now, rings))
            decided.append((now, advice))
            due = every is not None and (now - since) % every == 0
            if (advice.retrain or due) and known > trained[-1]:
                trained.append(known)
                paid[now - matrix.first] += price * (0.0 if advice.retrain else fee)
            if advice.retrain:
                serving, since = trained.index(known), now
                paid[now - matrix.first] += price
                retrained.append(now)
        losses.append(matrix.losses[trained[serving], now])
        models.append(trained[serving])
    return PolicySimulation(np.array(losses), np.array(models), tuple(retrained), paid, tuple(decided))


def simulate_schedule(matrix: LossMatrix, schedule: tuple[int, ...], cost: float, delay: int = 0) -> PolicySimulation:
    """Play retrainings at the starts of just these windows."""
    policy = RetrainingPolicy(lambda past: PolicyAdvice(past.now in schedule, "as scheduled"))
    return simulate_policy(matrix, policy, cost, delay=delay)


def find_optimal_schedule(matrix: LossMatrix, cost: float, delay: int = 0) -> PolicySimulation:
    """The cheapest of all schedules in hindsight, by dynamic programming over the windows at which a champion begins.

    The oracle of Mahadevan & Mathioudakis (Knowledge-Based Systems, 2024): a shortest path, in O(W^2). It is over refits without
    a gate, each deployed, and with the future known: no policy that decides in time can be sure to reach it.
    """
    first, end = matrix.first, matrix.windows
    cheapest = np.full(end + 1, np.inf)  # from window j on, if a new champion begins there
    following = np.full(end + 1, end)
    cheapest[end] = 0.0
    for begin in range(end - 1, first - 1, -1):
        if first < begin <= first + delay:
            continue  # nothing newer than the first champion's rows is labelled yet
        model = first if begin == first else begin - delay
        served = np.cumsum(matrix.losses[model, begin:])
        onward = np.append(cost * matrix.record(model) + cheapest[begin + 1 : end], 0.0)
        at = int(np.argmin(served + onward))
        cheapest[begin], following[begin] = (served + onward)[at], begin + 1 + at
    schedule, at = [], int(following[first])
    while at < end:
        schedule.append(at)
        at = int(following[at])
    return simulate_schedule(matrix, tuple(schedule), cost, delay)


def find_best_period(matrix: LossMatrix, cost: float, delay: int = 0) -> tuple[int, PolicySimulation]:
    """(windows, how it played): the fixed period that was cheapest, chosen in hindsight; as long as the history: never."""
    periods = range(1, matrix.windows - matrix.first + 1)
    played = {p: simulate_policy(matrix, RetrainingPolicy(make_periodic_advice(p)), cost, delay=delay) for p in periods}
    best = min(periods, key=lambda p: played[p].total)
    return best, played[best]
