"""What given schedules of retraining cost on a matrix of losses: the cheapest in hindsight, and the best fixed period.

The total of a schedule is the sum, over the windows played, of the champion's mean loss per row on each (every window counts
alike), and for each retraining `cost` times the mean loss per window of the champion in force on its own held-out windows: what
params.yaml calls retrain.cost. The first champion is free.
"""

from __future__ import annotations

import numpy as np

from windvane.monitoring.history.matrix import Matrix
from windvane.monitoring.history.past import Advice
from windvane.monitoring.history.playing import Played, play
from windvane.monitoring.history.policies import Policy, periodic


def follow(matrix: Matrix, schedule: tuple[int, ...], cost: float, delay: int = 0) -> Played:
    """Play retrainings at the starts of just these windows."""
    chosen = set(schedule)
    return play(matrix, Policy(lambda past: Advice(past.now in chosen, "as scheduled")), cost, delay=delay)


def optimum(matrix: Matrix, cost: float, delay: int = 0) -> Played:
    """The cheapest of all schedules in hindsight, by dynamic programming over the windows at which a champion begins.

    The oracle of Mahadevan & Mathioudakis (Knowledge-Based Systems, 2024): a shortest path, in O(W^2). It is over refits without
    a gate, each deployed, and with the future known: nobody who has to decide in time can be sure to reach it.
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
    return follow(matrix, tuple(schedule), cost, delay)


def best_period(matrix: Matrix, cost: float, delay: int = 0) -> tuple[int, Played]:
    """(windows, how it played): the fixed period that was cheapest, chosen in hindsight; as long as the history: never."""
    periods = range(1, matrix.windows - matrix.first + 1)
    played = {p: play(matrix, Policy(periodic(p)), cost, delay=delay) for p in periods}
    best = min(periods, key=lambda p: played[p].total)
    return best, played[best]
