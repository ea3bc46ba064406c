"""The level at which intervals keep what was requested of them, learned from windows whose labels came late.

Adaptive conformal inference (Gibbs & Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021) moves the
level after each label: up where the interval missed it, down where it did not. Here a window moves it at once, and the error is
that of the level after the step instead of before (an implicit step: Kulis & Bartlett, "Implicit online learning", ICML
2010): a large window does not overshoot, and the order of its rows does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What one label moves the level by, as Gibbs & Candès have it in their experiments: 1 / STEP = 200 labels weigh as much as all
# that was known before. With 20 labels a window the level follows within ten windows, with 1,000 within two.
STEP = 0.005
# No level falls below this share of what is requested: where intervals were too wide for long, they can widen again soon.
LEAST_SHARE = 0.5
# The levels at which a window's labels are counted: finer where a small step of the level is a large one of the width.
LEVELS: NDArray[np.float64] = np.concatenate(
    [np.arange(1, 181) / 200, np.arange(901, 991) / 1000, np.arange(4951, 5000) / 5000]
)
_EDGES = np.concatenate([[0.0], LEVELS, [1.0]])


def count_by_level(needed: NDArray[np.float64]) -> tuple[int, ...]:
    """Labels of a window by the first of LEVELS at which an interval holds them; the last count: none does.

    needed: (n,) an interval holds label i at levels above needed[i].
    """
    places = np.searchsorted(LEVELS, needed, side="right")
    return tuple(np.bincount(places, minlength=len(LEVELS) + 1).tolist())


@dataclass(frozen=True)
class LevelHistory:
    """Windows of one version in the order of time, each as count_by_level() returns it. The level follows from them alone: counted
    again, or by another process, they give the same one.
    """

    windows: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, windows: Iterable[Sequence[int]]) -> LevelHistory:
        """Those of the windows, in the order of time, that have labels."""
        return cls(tuple(tuple(counts) for counts in windows if sum(counts)))

    def adjust(self, level: float, most: float, step: float = STEP) -> float:
        """The level to use where `level` is requested; `most`: the highest that the held-out rows can promise.

        A window of n labels of which an interval at level x holds the share s(x) moves the level L to the L' that solves
        L' = L + n * step * (level - s(L')); then it is brought between LEAST_SHARE * level and `most`.
        """
        adjusted = level
        for counts in self.windows:
            total = np.cumsum(counts, dtype=np.float64)
            # s is linear between two of LEVELS, so that L' + n * step * s(L') is too, and rises: one look-up inverts it.
            held = step * np.concatenate([[0.0], total])
            goal = adjusted + step * total[-1] * level
            adjusted = float(np.interp(goal, _EDGES + held, _EDGES))
            adjusted = min(max(adjusted, LEAST_SHARE * level), max(most, level))
        # Six digits, rounded down: above `most` no interval can be made.
        return float(np.floor(adjusted * 1e6) / 1e6) if self.windows else level
