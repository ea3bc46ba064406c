"""How large the largest score is when nothing changed: the limit that keeps the promise of false alarms. Knows no table.

The largest score over all columns and aspects is compared with the largest scores of exchanges (the maximum statistic of Westfall
& Young, Resampling-Based Multiple Testing, 1993): whatever the number of columns and however they hang together, a share `level` of
unchanged windows alarms, exactly. Single measures are then named by the step-down of the same book, which keeps the
chance of naming any unchanged one below the level too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from windvane.monitoring.distances import Floats
    from windvane.monitoring.evidence import Measure
    from windvane.monitoring.measures import Scorer

# Exchanges that teach scores their scale (with 200 the limit of 55 measures was 3.8 instead of 3.5: rough scores have long tails);
# exchanges in a batch; and the least and most for the limit.
_LEARN, _BATCH = 600, 100
_FEWEST, _MOST = 199, 4999
# The limit rests on about so many exchanges beyond it.
_BEYOND = 10


@dataclass(frozen=True)
class Calibrated:
    """Scores (measures,) of the window with the limit of each, what speaks, and the largest score's place.

    `p`: the share of exchanges, the window among them, whose largest score is at least the window's.
    """

    measures: tuple[Measure, ...]
    scores: Floats
    limits: Floats
    alarms: NDArray[np.bool_]
    limit: float
    p: float
    draws: int

    @property
    def statistic(self) -> float:
        """The largest score."""
        return float(self.scores.max())


def draws_for(level: float) -> int:
    """So many exchanges make the limit at `level`: about ten of them lie beyond it."""
    return min(max(ceil(round(_BEYOND / level, 6)) - 1, _FEWEST), _MOST)


def calibrate(scorers: Sequence[Scorer], level: float, *, hurry: bool = False) -> Calibrated:
    """Scores of the window against those of exchanges. Several scorers (the labelled rows are fewer) are drawn side by side.

    hurry: stop drawing as soon as the alarm is ruled out (Besag & Clifford, Biometrika 78 (1991)). The alarm is the same; an
    unalarmed window's limit and p are then rough.
    """
    for scorer in scorers:
        scorer.learn(scorer.exchange.draw(_LEARN))
    seen = np.concatenate([s(s.exchange.observed)[0] for s in scorers])
    total, drawn, beyond = draws_for(level), [], 0
    allowed = floor(round(level * (total + 1), 6)) - 1
    done, batch = 0, _BATCH // 4 if hurry else _BATCH
    while done < total and not (hurry and beyond > allowed):
        drawn.append(np.concatenate([s(s.exchange.draw(min(batch, total - done))) for s in scorers], axis=1))
        beyond += int((drawn[-1].max(axis=1) >= seen.max()).sum())
        done, batch = done + batch, _BATCH
    null = np.concatenate(drawn)
    limits, alarms = _step_down(seen, null, level)
    p = (1 + beyond) / (1 + len(null))
    return Calibrated(
        tuple(m for s in scorers for m in s.measures),
        seen,
        limits,
        alarms,
        _limit(null.max(axis=1), level),
        p,
        len(null),
    )


def _limit(largest: Floats, level: float) -> float:
    """What the window's largest score must exceed: fewer than level * (draws + 1) of `largest` (draws,) lie there or above."""
    rank = max(floor(round(level * (len(largest) + 1), 6)), 1)
    return float(np.partition(largest, len(largest) - rank)[len(largest) - rank])


def _step_down(seen: Floats, null: Floats, level: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Each measure's limit (measures,), and which exceed theirs: what spoke is left out before the rest is looked at again."""
    open_, limits = np.ones(len(seen), dtype=bool), np.empty(len(seen))
    while open_.any():
        limit = _limit(null[:, open_].max(axis=1), level)
        limits[open_] = limit
        spoke = open_ & (seen > limit)
        if not spoke.any():
            break
        open_ &= ~spoke
    return limits, ~open_
