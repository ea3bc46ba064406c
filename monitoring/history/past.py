"""What a retraining policy is told, and what it answers: frozen records, the same live and in replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Past:
    """What is known when window `now` begins.

    taught: (m,) the windows before which champions and challengers were taught, rising. losses: (m, known) their mean losses per
    row on windows 0 .. known - 1, NaN on windows before they were taught; known = now, or less where labels are late.
    serving: the champion's place in `taught`; since: the window at which it began to serve. record: (h,) its mean losses on the
    windows of its own held-out rows. price: of a lap, in loss. alarm: whether a drift alarm rings on the latest window, where
    somebody measures one.
    """

    taught: NDArray[np.int64]
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
        """The window before which the champion was taught."""
        return int(self.taught[self.serving])

    @property
    def served(self) -> NDArray[np.float64]:
        """The champion's losses on the windows that it served and whose labels are known, oldest first."""
        return self.losses[self.serving, self.since : self.known]


@dataclass(frozen=True)
class Advice:
    """Retrain or wait, and why. gain: what retraining now is expected to save before the champion would be as old again, in
    loss; None where a policy expects nothing.
    """

    retrain: bool
    reason: str
    gain: float | None = None
