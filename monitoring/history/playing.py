"""Plays a policy on a matrix of losses: window by window, and it is told only what was known by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.history.matrix import Matrix
from windvane.monitoring.history.past import Advice, Past
from windvane.monitoring.history.policies import Policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

# (model, window) -> whether a drift alarm rings on the window, against the held-out rows of the model.
Alarm = Callable[[int, int], bool]


@dataclass(frozen=True)
class Decided:
    """What was advised at the start of a window."""

    window: int
    advice: Advice


@dataclass(frozen=True)
class Played:
    """A history played. by_window: (windows played,) the champion's mean loss on each; models: (windows played,) which served.

    loss: their sum. retrained: windows at whose start a new champion began. paid: (windows played,) what laps and challengers cost at
    the start of each; spent: their sum. All in loss.
    """

    by_window: NDArray[np.float64]
    models: NDArray[np.int64]
    retrained: tuple[int, ...]
    paid: NDArray[np.float64]
    decided: tuple[Decided, ...] = ()

    @property
    def loss(self) -> float:
        """Summed over the windows."""
        return float(self.by_window.sum())

    @property
    def spent(self) -> float:
        """Summed over the windows."""
        return float(self.paid.sum())

    @property
    def total(self) -> float:
        """Loss, laps and challengers."""
        return self.loss + self.spent


def play(
    matrix: Matrix, policy: Policy, cost: float, *, delay: int = 0, fee: float = 0.0, alarm: Alarm | None = None
) -> Played:
    """Play on from the first champion. A retraining at window j is taught on rows before window j - delay, whose labels are known.

    cost: of a lap, in the champion's mean losses per window on its own held-out rows. fee: what teaching a challenger costs, as a
    share of a lap. delay: windows that labels take to come. alarm: for policies that ask for it.
    """
    taught, serving, since = [matrix.first], 0, matrix.first
    every = policy.challengers(cost) if policy.challengers else None
    losses, models, retrained, decided = [], [], [], []
    paid = np.zeros(matrix.windows - matrix.first)
    for now in range(matrix.first, matrix.windows):
        known = now - delay
        if now > matrix.first and known > taught[serving]:
            champion = taught[serving]
            price = cost * matrix.record(champion)
            past = Past(
                np.array(taught, dtype=np.int64),
                matrix.losses[taught, :known],
                serving,
                since,
                matrix.held_out(champion),
                price,
                now,
                alarm(champion, now - 1) if alarm and policy.drift else None,
            )
            advice = policy.advise(past)
            decided.append(Decided(now, advice))
            due = every is not None and (now - since) % every == 0
            if (advice.retrain or due) and known > taught[-1]:
                taught.append(known)
                paid[now - matrix.first] += price * (0.0 if advice.retrain else fee)
            if advice.retrain:
                serving, since = taught.index(known), now
                paid[now - matrix.first] += price
                retrained.append(now)
        losses.append(matrix.losses[taught[serving], now])
        models.append(taught[serving])
    return Played(np.array(losses), np.array(models), tuple(retrained), paid, tuple(decided))
