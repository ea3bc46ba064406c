"""The policy `regret`: retrain once an earlier retraining would by now have saved a good part of a lap's price."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from windvane.monitoring.records import PolicyAdvice


@dataclass(frozen=True)
class PolicyInput:
    """What is known when window `now` begins.

    trained: (m,) the windows before which champions and challengers were trained, rising. losses: (m, known) their mean losses per
    row on windows 0 .. known - 1, NaN on windows before they were trained; known = now, or less where labels are late.
    serving: the champion's place in `trained`; since: the window at which it began to serve. record: (h,) its mean losses on the
    windows of its own held-out rows. price: of a lap, in loss. alarm: whether a drift alarm rings on the latest window, where
    somebody measures one.
    """

    trained: NDArray[np.int64]
    losses: NDArray[np.float64]
    serving: int
    since: int
    record: NDArray[np.float64]
    price: float
    now: int
    alarm: bool | None = None

    @property
    def known(self) -> int:
        """Windows whose labels are known."""
        return int(self.losses.shape[1])

    @property
    def born(self) -> int:
        """The window before which the champion was trained."""
        return int(self.trained[self.serving])

    @property
    def served(self) -> NDArray[np.float64]:
        """The champion's losses on the windows that it served and whose labels are known, oldest first."""
        return self.losses[self.serving, self.since : self.known]


@dataclass(frozen=True)
class RegretConstants:
    """What was fixed on the streams of development (benchmarks/policies.py).

    share: of a lap's price that an earlier retraining must have saved. A champion that ages by the same amount each window is best
    replaced after sqrt(2 price / slope) windows, as in Harris's economic order quantity (1913), and just then the best earlier
    retraining has saved half the price. caution: standard errors by which a saving is taken lower. prior: how many independent
    pasts it takes before this stream's own persistence counts as much as the belief that what was saved goes on. cap:
    persistence counts at most so much. recent: windows over which an excess is averaged. cadence: a challenger each
    cadence * sqrt(cost) windows.
    """

    share: float = 0.5
    caution: float = 1.0
    prior: float = 4.0
    cap: float = 2.0
    recent: int = 3
    cadence: float = 2.0


DEFAULT_CONSTANTS = RegretConstants()


@dataclass(frozen=True)
class RetrainingSaving:
    """What the challenger trained before window `since` would have saved by now, had it served since: `saved`, in loss, less the
    doubt about it.
    """

    saved: float
    since: int


def advise_by_regret(past: PolicyInput, fixed: RegretConstants = DEFAULT_CONSTANTS) -> PolicyAdvice:
    """Retrain if what the best earlier retraining has saved, times its persistence, exceeds `share` of the price of a lap."""
    best = find_best_saving(past, fixed.caution)
    if best is None:
        return PolicyAdvice(False, "no challenger has met labelled rows since the champion was trained")
    age, back = past.known - past.born, past.known - best.since
    lasting = estimate_persistence(past, age, fixed, best.saved / back)
    worth = best.saved * lasting
    share = best.saved / past.price if past.price else np.inf * np.sign(best.saved)
    reason = (
        f"retraining {back} window{'s' if back > 1 else ''} ago would have saved {share:.2f} of a lap's price, of "
        f"which {lasting:.0%} is expected to go on; {fixed.share:g} is enough"
    )
    return PolicyAdvice(worth > fixed.share * past.price, reason, max(worth, 0.0) / back * age)


def choose_challenger_interval(cost: float, fixed: RegretConstants = DEFAULT_CONSTANTS) -> int:
    """A challenger is trained each so many windows after the champion. cost: of a lap, in windows' losses."""
    return max(1, round(fixed.cadence * sqrt(cost)))


def find_best_saving(past: PolicyInput, caution: float) -> RetrainingSaving | None:
    """The most that any challenger trained after the champion would have saved by now, less `caution` standard errors; None if no
    challenger has met labelled rows.
    """
    champion, found = past.losses[past.serving], []
    for model in np.flatnonzero((past.trained > past.born) & (past.trained < past.known)):
        started = int(past.trained[model])
        won = champion[started:] - past.losses[model, started:]
        doubt = caution * sqrt(len(won)) * float(won.std(ddof=1)) if len(won) > 1 else 0.0
        found.append(RetrainingSaving(float(won.sum()) - doubt, started))
    return max(found, key=lambda one: one.saved, default=None)


def estimate_persistence(
    past: PolicyInput, age: int, fixed: RegretConstants = DEFAULT_CONSTANTS, now: float = 0.0
) -> float:
    """How much of an excess over fresh models went on, among all models of about this age in the stream's past; 0 .. fixed.cap.

    1: a fresh model went on to save as much per window as the older one's recent excess. Less: what was out of date came back
    into its own (a season, a passing shock), or fresh models aged as fast. A regression through the origin, drawn towards 1 as
    if by `prior` pasts that show it; pasts that overlap count as one.

    now: the excess per window that is judged. Where it is larger than those of the past, so are the pasts that show 1: what came of
    small excesses shows little about a large one.
    """
    horizon = max(1, min(age, (past.known - int(past.trained[0])) // 3))
    served, losses = _compute_running_sums(past.losses), past.losses
    old, new = np.meshgrid(np.arange(len(past.trained)), np.arange(len(past.trained)), indexing="ij")
    started, ages = past.trained[new], past.trained[new] - past.trained[old]
    chosen = (ages >= max(2.0, 0.5 * age)) & (ages <= 2 * age) & (started + horizon <= past.known)
    old, new, started, ages = old[chosen], new[chosen], started[chosen], ages[chosen]
    if len(started) < 2:
        return 1.0
    windows = np.arange(past.known)
    freshest = np.maximum(np.searchsorted(past.trained, windows, side="right") - 1, 0)
    fresh = _compute_running_sums(losses[freshest, windows][None, :])[0]
    over = np.clip(ages - 1, 1, fixed.recent)
    excess = (served[old, started] - served[old, started - over] - fresh[started] + fresh[started - over]) / over
    went_on = (
        served[old, started + horizon] - served[old, started] - served[new, started + horizon] + served[new, started]
    ) / horizon
    size = float(excess @ excess)
    if size <= 0:
        return 1.0
    pasts = float(started.max() - started.min() + 1) / horizon
    prior = fixed.prior * max(now * now / size * len(excess), 1.0)
    return float(np.clip((pasts * float(excess @ went_on) / size + prior) / (pasts + prior), 0, fixed.cap))


def _compute_running_sums(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, n) -> (m, n + 1) running sums along the windows; windows before a model count 0."""
    return np.concatenate([np.zeros((len(losses), 1)), np.nancumsum(losses, axis=1)], axis=1)
