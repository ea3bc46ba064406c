"""A challenger beside the champion: what is counted of both, and when the challenger must go. Pure but for its counters."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from dataclasses import dataclass

# Of the newest requests of each side; fewer say nothing of latency.
KEPT, ENOUGH = 500, 50
# Failures that are one too many; how much slower (times, and seconds on top) the challenger's median may be.
FAILURES = 3
SLOWER, GRACE = 2.0, 0.005


@dataclass(frozen=True)
class Count:
    """One side: requests answered, failures, and the median seconds of the newest (None: too few)."""

    requests: int
    failures: int
    seconds: float | None


class Trial:
    """Counters of one challenger's time beside the champion."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[bool, deque[float]] = {True: deque(maxlen=KEPT), False: deque(maxlen=KEPT)}
        self._requests = {True: 0, False: 0}
        self._failures = 0

    def answered(self, challenger: bool, seconds: float) -> None:
        """A side predicted in so many seconds."""
        with self._lock:
            self._requests[challenger] += 1
            self._seconds[challenger].append(seconds)

    def failed(self) -> None:
        """The challenger failed where it should have predicted."""
        with self._lock:
            self._failures += 1

    def counts(self) -> tuple[Count, Count]:
        """Of the champion and of the challenger."""
        with self._lock:
            medians = {
                side: statistics.median(taken) if len(taken) >= ENOUGH else None
                for side, taken in self._seconds.items()
            }
            return (
                Count(self._requests[False], 0, medians[False]),
                Count(self._requests[True], self._failures, medians[True]),
            )

    def verdict(self) -> str | None:
        """Why the challenger must go, or None."""
        champion, challenger = self.counts()
        if challenger.failures >= FAILURES:
            return f"it failed {challenger.failures} times in {challenger.requests + challenger.failures} requests"
        if champion.seconds is None or challenger.seconds is None:
            return None
        if challenger.seconds > SLOWER * champion.seconds + GRACE:
            return (
                f"it predicts in {1000 * challenger.seconds:.1f} ms, the champion in {1000 * champion.seconds:.1f} ms "
                "(medians)"
            )
        return None
