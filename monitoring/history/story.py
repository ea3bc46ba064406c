"""What happened when history was played, window by window, and what it cost. Frozen records; plays and draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from windvane.monitoring.evidence import Look

Ending = Literal["promoted", "refused", "skipped"]


@dataclass(frozen=True)
class Chapter:
    """A window: the mean loss per labelled row of the champion that served it (NaN: no label ever came), and of the first one; what
    was decided after it, the reason, and the same in a few words; what the lap came to that followed, if one did, and why;
    by which share its model was better on the rows that judged (None: they were too few), and the lap's price, in loss.
    """

    start: str
    end: str
    rows: int
    version: int
    loss: float
    never: float
    action: str = "wait"
    reason: str = "no rows yet"
    cause: str = ""
    alarm: bool = False
    ending: Ending | None = None
    verdict: str = ""
    better: float | None = None
    price: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What a policy came to, summed over the windows: loss, laps that brought a new champion, laps in vain, and loss with the price
    of all laps.
    """

    loss: float
    retrains: int
    refused: int
    total: float


@dataclass(frozen=True)
class Story:
    """A history played. dated: its times are dates, not numbers that only order the rows. window: how it was cut."""

    project: str
    policy: str
    loss_name: str
    window: str
    dated: bool
    taught: int
    chapters: tuple[Chapter, ...]

    @property
    def told(self) -> tuple[Chapter, ...]:
        """The windows of which a label came: the others cost nobody knows what."""
        return tuple(c for c in self.chapters if isfinite(c.loss))

    @property
    def never(self) -> Figures:
        """The first champion for ever."""
        loss = sum(c.never for c in self.told)
        return Figures(loss, 0, 0, loss)

    @property
    def ours(self) -> Figures:
        """The policy that was played."""
        loss, ended = sum(c.loss for c in self.told), [c.ending for c in self.chapters]
        spent = sum(c.price for c in self.chapters)
        return Figures(loss, ended.count("promoted"), ended.count("refused"), loss + spent)

    @property
    def saved(self) -> float:
        """The share of the loss of never retraining that the policy saved, laps paid."""
        return 1 - self.ours.total / self.never.total if self.never.total > 0 else 0.0

    def verdict(self) -> str:
        """The first sentence."""
        if self.policy == "never" or self.ours == self.never:
            return "The model was never retrained"
        laps, share = self.ours.retrains, f"{abs(self.saved):.0%} {'less' if self.saved >= 0 else 'more'} loss"
        return f"Retrained {laps} time{'s' * (laps != 1)} by itself: {share}, cost of all laps included"


def cause(look: Look) -> str:
    """What a look found, in a few words: what moved, and how the window's loss stands beside the champion's own record."""
    drift, quality, said = look.drift, look.quality, []
    if drift.alarm:
        kind = "drift" if look.diagnosis.change == "none" else look.diagnosis.change
        said.append(f"{kind} in {', '.join(drift.columns[:2])}")
    if quality.excess is not None and quality.reference > 0:
        share = quality.excess / quality.reference
        said.append(f"loss {abs(share):.0%} {'above' if share >= 0 else 'below'} its record")
    return "; ".join(said) or "no labels yet"
