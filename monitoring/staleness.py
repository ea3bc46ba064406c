"""What a champion has cost beyond what it promised, added up window by window, and how sure that is. Decides nothing.

Accumulated staleness is the idea of Mahadevan & Mathioudakis, "Cost-aware retraining for machine learning", Knowledge-Based
Systems 293 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import inf, isfinite, sqrt
from statistics import NormalDist, stdev

from windvane.monitoring.evidence import Look, Quality
from windvane.monitoring.limits import History, Limits

# Quality's interval is one of 95 %.
_WIDTH = 2 * NormalDist().inv_cdf(0.975)
# A window's weight, its excess loss and that one's error as shares of the reference, whether estimated, and its start.
_Counted = tuple[float, float, float, bool, str]
# From so many windows on, what they differ by says how sure a mean of them is.
_FEWEST = 3
# Windows whose mean says what the next ones would cost.
_RECENT = 3


@dataclass(frozen=True)
class Staleness:
    """Accumulated signed excess loss over the champion's own record, and its standard error, in mean losses of one window.

    certainty: how sure it is that the newest windows, or more of them, cost too much: the largest sum from any window to the last
    in its own standard errors. pace: the excess of one window lately. since: the start of the first window that counts.
    estimated: windows without labels.
    """

    total: float
    error: float
    certainty: float
    pace: float
    windows: int
    estimated: int
    since: str | None


def staleness(looks: tuple[Look, ...], history: History, limits: Limits, now: str) -> Staleness:
    """What the champion has cost since it began to serve, beyond what it promised on its own held-out rows.

    A window counts by its labels, where these have had their time to come; else by the estimate, if the drift alarm confirms it.
    """
    counted: list[_Counted] = []
    for look in looks:
        quality = usable(look, limits, now)
        weight = share_of_window(look, history.usual_rows)
        if quality is None or quality.excess is None or not quality.reference > 0 or weight == 0:
            continue
        error = standard_error(quality, history) / quality.reference
        counted.append((weight, quality.excess / quality.reference, error, quality.estimated, look.stretch.start))
    if not counted:
        return Staleness(0.0, 0.0, 0.0, 0.0, 0, 0, None)
    counted = _with_spread(counted)
    reference = quality_reference(looks)
    shared = 0.0 if history.reference_error is None or not reference else history.reference_error / reference
    certainty, total, own, weights = -inf, 0.0, 0.0, 0.0
    for weight, excess, each, _, _ in reversed(counted):
        # The reference's own error is the same in every window, and adds up; what is a window's own evens out.
        total, weights = total + weight * excess, weights + weight
        own += (weight * sqrt(max(each * each - shared * shared, 0.0))) ** 2
        error = sqrt(own + (weights * shared) ** 2)
        # One window of which little is known must not hide the others.
        certainty = max(certainty, total / error if error else inf * total if total else 0.0)
    recent = counted[-_RECENT:]
    pace = sum(w * x for w, x, *_ in recent) / len(recent)
    return Staleness(total, error, certainty, pace, len(counted), sum(c[3] for c in counted), counted[0][4])


def usable(look: Look, limits: Limits, now: str) -> Quality | None:
    """The quality that counts: by labels if their delay is over; else the estimate if the window's alarm confirms it."""
    young = limits.label_delay and moment(now) - moment(look.stretch.end) < limits.label_delay
    if look.quality.loss is not None and not young:
        return look.quality
    estimate = look.estimate
    return estimate if estimate is not None and estimate.loss is not None and look.drift.alarm else None


def quality_reference(looks: tuple[Look, ...]) -> float | None:
    """The champion's mean loss on its own held-out rows."""
    return looks[-1].quality.reference if looks else None


def moment(text: str) -> datetime:
    """Ledger text as a moment."""
    return datetime.fromisoformat(text)


def share_of_window(look: Look, usual: float | None) -> float:
    """How much of a usual window this one is. Of an open one it is not known where no window is usual yet: it waits."""
    if usual:
        return look.stretch.rows / usual
    return 1.0 if look.stretch.closed else 0.0


def standard_error(quality: Quality, history: History) -> float:
    """Standard error of a difference: from its interval, else as windows differ in the record; without either it is unknown."""
    if quality.low is None or quality.high is None:
        return float("inf") if history.window_error is None else history.window_error
    return (quality.high - quality.low) / _WIDTH


def _with_spread(counted: list[_Counted]) -> list[_Counted]:
    """Unknown errors replaced by what the windows themselves differ by, where they are enough."""
    if len(counted) < _FEWEST or all(isfinite(c[2]) for c in counted):
        return counted
    own = stdev(c[1] for c in counted)
    return [c if isfinite(c[2]) else (c[0], c[1], own, c[3], c[4]) for c in counted]
