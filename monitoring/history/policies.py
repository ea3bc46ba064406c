"""The retraining policies that people use, as pure functions of the past. The project's own is regret.py.

Losses of windows are never pooled with look-ahead: a policy sees a Past, and a Past holds what was known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from windvane.monitoring.history import regret
from windvane.monitoring.history.past import Advice, Past

# Standard deviations of its own record by which a champion's loss must rise.
ALARMING = 3.0


@dataclass(frozen=True)
class Policy:
    """advise: what it says of a past. challengers: (cost in windows' losses) -> a challenger is taught every so many windows after
    the champion; None: it needs none. drift: it must be told of drift alarms.
    """

    advise: Callable[[Past], Advice]
    challengers: Callable[[float], int] | None = None
    drift: bool = False


def never(past: Past) -> Advice:
    """The first champion for ever."""
    return Advice(False, "never retrains")


def periodic(windows: int) -> Callable[[Past], Advice]:
    """Every so many windows."""

    def advise(past: Past) -> Advice:
        served = past.now - past.since
        return Advice(served >= windows, f"{served} of {windows} windows since the last retraining")

    return advise


def performance(past: Past) -> Advice:
    """The champion's loss on the newest labelled window against its record's, in standard deviations between windows."""
    if len(past.record) < 2 or not len(past.served):
        return Advice(False, "too few windows to know how losses vary")
    over, spread = float(past.served[-1] - past.record.mean()), float(past.record.std(ddof=1))
    z = over / spread if spread > 0 else np.copysign(np.inf, over) if over else 0.0
    return Advice(z > ALARMING, f"loss {z:.1f} standard deviations above the champion's record, {ALARMING:g} alarm")


def staleness(past: Past) -> Advice:
    """Signed excess loss over the champion's record, added up since it serves, against the price of a lap: the cumulative
    threshold of CARA (Mahadevan & Mathioudakis, Knowledge-Based Systems, 2024).
    """
    over = float((past.served - past.record.mean()).sum())
    return Advice(over > past.price, f"{over / past.price:.2f} of a lap's price lost against the champion's own record")


def drifted(past: Past) -> Advice:
    """Whenever somebody's drift alarm rings."""
    return Advice(bool(past.alarm), "the drift alarm rings" if past.alarm else "no drift alarm")


def known() -> dict[str, Policy]:
    """Every policy without a parameter, by name; those of retrain.policy by theirs. `schedule`: at each window's end."""
    return {
        "never": Policy(never),
        "schedule": Policy(periodic(1)),
        "drift": Policy(drifted, drift=True),
        "performance": Policy(performance),
        "staleness": Policy(staleness),
        "regret": Policy(regret.advise, regret.cadence),
    }
