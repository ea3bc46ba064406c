"""What happened when history was played, window by window, and what it cost. Frozen records; plays and draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

Ending = Literal["promoted", "refused", "skipped"]


@dataclass(frozen=True)
class Chapter:
    """A window: the mean loss per labelled row of the champion that served it (NaN: no label ever came), and of the first one; what
    was decided after it, why, and what the lap came to that followed, if one did. price: what that lap cost, in loss.
    """

    start: str
    end: str
    rows: int
    version: int
    loss: float
    never: float
    action: str
    reason: str
    change: str
    alarm: bool
    ending: Ending | None = None
    verdict: str = ""
    price: float = 0.0


@dataclass(frozen=True)
class Story:
    """A history played: who was taught first, on what, and the windows that followed."""

    project: str
    policy: str
    loss_name: str
    first: str
    chapters: tuple[Chapter, ...]

    def total(self) -> dict[str, dict[str, float | int]]:
        """Summed loss, laps that brought a new champion, laps in vain, and loss and laps together, of the policy and of none."""
        told = [c for c in self.chapters if isfinite(c.loss)]
        loss, never = sum(c.loss for c in told), sum(c.never for c in told)
        ended = [c.ending for c in self.chapters]
        spent = sum(c.price for c in self.chapters)
        return {
            "never": {"loss": never, "retrains": 0, "refused": 0, "total": never},
            self.policy: {
                "loss": loss,
                "retrains": ended.count("promoted"),
                "refused": ended.count("refused"),
                "total": loss + spent,
            },
        }
