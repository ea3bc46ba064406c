"""A history cut into longer windows, from the losses of shorter ones: nothing is fitted again. Which length to decide by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.history import backtest, matrix
from windvane.monitoring.history.backtest import Alarms, Backtest
from windvane.monitoring.history.matrix import Matrix
from windvane.monitoring.history.windows import FEWEST, Cut
from windvane.tasks import history, watch_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So many windows in one are tried beside the length that was asked for.
MULTIPLES = (2, 3, 4)
# Another length is recommended only where it is better by more than this share: it ends and begins elsewhere, too.
WORTH = 0.02


@dataclass(frozen=True)
class Length:
    """A history by windows of one length. cost: of a lap, in mean losses of such a window: the same price whatever the length."""

    window: str
    cost: float
    found: Backtest


def compare(
    base: Mapping[str, Matrix],
    cut: Cut,
    window: str,
    cost: float,
    *,
    time: str,
    delay: int = 0,
    alarms: Mapping[str, Alarms] | None = None,
) -> tuple[Length, ...]:
    """Every policy by windows as they were cut, and by multiples of them (fewer where these leave no history).

    alarms: of the windows as they were cut; longer ones are played without.
    """
    made = [Length(window, cost, backtest.compare(base, cost, delay=delay, alarms=alarms))]
    for many in MULTIPLES:
        groups = together(cut, window, many, time)
        longer = {}
        for name, one in base.items():
            word, windows = watch_settings.history(name)
            if windows is not None and windows % many:
                continue
            if (found := coarser(one, groups, np.diff(cut.edges), many)) is not None:
                longer[word if windows is None else f"{word}:{windows // many}"] = found
        if longer:
            late = math.ceil(delay / many)
            made.append(Length(multiple(window, many), cost / many, backtest.compare(longer, cost / many, delay=late)))
    return tuple(made)


def recommended(lengths: tuple[Length, ...]) -> Length:
    """The first, unless another costs clearly less per row and window on the part that chooses."""
    best = min(lengths, key=lambda one: one.found.recommended.rate)
    return best if best.found.recommended.rate < lengths[0].found.recommended.rate * (1 - WORTH) else lengths[0]


def multiple(window: str, many: int) -> str:
    """`2mo` for two windows of `1mo`."""
    found = re.fullmatch(r"(\d+)(.*)", window.strip())
    assert found is not None
    return f"{int(found[1]) * many}{found[2]}"


def together(cut: Cut, window: str, many: int, time: str) -> NDArray[np.int64]:
    """(windows,) the number of the longer window on production's calendar, or by count, that holds each window."""
    longer = watch_settings.window(multiple(window, many))
    if longer.rows is not None:
        return np.arange(cut.count) // many
    return history.numbers(cut.rows[time].iloc[cut.edges[:-1]], longer)


def coarser(one: Matrix, groups: NDArray[np.int64], rows: NDArray[np.int64], many: int) -> Matrix | None:
    """Losses by longer windows: a model taught before one is the model taught before the first window in it, and its loss there
    the mean over the rows of all. groups, rows: (windows,) of each window; so many windows as teach must be a whole number of
    longer ones. None where too little history is left.
    """
    begins = np.concatenate([[0], np.flatnonzero(np.diff(groups)) + 1])
    if one.windows - begins[-1] < many:  # the last may not be over
        begins, end = begins[:-1], int(begins[-1])
    else:
        end = one.windows
    weights = rows[:end]
    losses = np.add.reduceat(one.losses[begins][:, :end] * weights, begins, axis=1) / np.add.reduceat(weights, begins)
    made = Matrix(
        losses, int(np.searchsorted(begins, one.first)), None if one.trailing is None else one.trailing // many
    )
    # The champion's own held-out record needs models that were taught.
    while made.first < made.windows and (
        made.first < 2
        or not np.isfinite(losses[made.first - matrix.held_out(made.first, made.trailing), made.first - 1])
    ):
        made = replace(made, first=made.first + 1)
    return made if made.windows - made.first >= FEWEST else None
