"""The report of a replay: each window with its loss, decision and lap, as records, as a page and as a picture."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from windvane.monitoring.records import WindowAssessment
from windvane.tasks.console import count_noun, format_metric
from windvane.tasks.reports.style import BLUE, GREY, INK, PURPLE, SOFT_INK, VERMILION, build_figure, format_axes
from windvane.templates import render_page

LapEnding = Literal["promoted", "refused", "skipped"]


@dataclass(frozen=True)
class ReplayedWindow:
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
    ending: LapEnding | None = None
    verdict: str = ""
    better: float | None = None
    price: float = 0.0


@dataclass(frozen=True)
class PolicyTotals:
    """What a policy came to, summed over the windows: loss, laps that brought a new champion, laps in vain, and loss with the price
    of all laps; loss and total also per window of which a label came.
    """

    loss: float
    retrains: int
    refused: int
    total: float
    loss_per_window: float
    total_per_window: float


@dataclass(frozen=True)
class ReplayResult:
    """A history played. dated: its times are dates, not numbers that only order the rows. window: how it was cut."""

    project: str
    policy: str
    loss_name: str
    window: str
    dated: bool
    trained_rows: int
    chapters: tuple[ReplayedWindow, ...]

    @property
    def measured(self) -> tuple[ReplayedWindow, ...]:
        """The windows of which a label came: the others cost an unknown amount."""
        return tuple(c for c in self.chapters if isfinite(c.loss))

    @property
    def never(self) -> PolicyTotals:
        """The first champion for ever."""
        return self._add_up(sum(c.never for c in self.measured), 0.0, 0, 0)

    @property
    def ours(self) -> PolicyTotals:
        """The policy that was played."""
        spent, ended = sum(c.price for c in self.chapters), [c.ending for c in self.chapters]
        return self._add_up(sum(c.loss for c in self.measured), spent, ended.count("promoted"), ended.count("refused"))

    def _add_up(self, loss: float, spent: float, retrains: int, refused: int) -> PolicyTotals:
        total, count = loss + spent, len(self.measured) or 1
        return PolicyTotals(loss, retrains, refused, total, loss / count, total / count)

    @property
    def saved(self) -> float:
        """The share of the loss of never retraining that the policy saved, laps paid."""
        return 1 - self.ours.total / self.never.total if self.never.total > 0 else 0.0

    def verdict(self) -> str:
        """The first sentence."""
        if self.policy == "never" or self.ours == self.never:
            return "The model was never retrained"
        share = f"{abs(self.saved):.0%} {'less' if self.saved >= 0 else 'more'} loss"
        return f"Retrained {count_noun(self.ours.retrains, 'time')} by itself: {share}, cost of all laps included"

    @property
    def windows(self) -> str:
        """How many were played, and how long they are, in words."""
        return f"{count_noun(len(self.chapters), 'window')} of {self.window}"

    def stretches(self) -> list[list[ReplayedWindow]]:
        """The measured windows, parted where one without rows or labels lies between two."""
        found: list[list[ReplayedWindow]] = []
        for c in self.measured:
            if found and c.start <= found[-1][-1].end:
                found[-1].append(c)
            else:
                found.append([c])
        return found


def summarize_assessment(check: WindowAssessment) -> str:
    """What a check found, in a few words: what moved, and how the window's loss compares with the champion's own record."""
    drift, quality, parts = check.drift, check.quality, []
    if drift.alarm:
        kind = "drift" if check.diagnosis.change == "none" else check.diagnosis.change
        parts.append(f"{kind} in {', '.join(drift.columns[:2])}")
    if quality.excess is not None and quality.reference > 0:
        share = quality.excess / quality.reference
        parts.append(f"loss {abs(share):.0%} {'above' if share >= 0 else 'below'} its record")
    return "; ".join(parts) or "no labels yet"


_ENDING_LEVELS = {"promoted": "pass", "refused": "warn", "skipped": "warn", None: "stop"}


def render_replay_page(story: ReplayResult, picture: bytes) -> str:
    """The page with its picture (a PNG's bytes), as text."""
    never, ours = story.never, story.ours
    facts = [
        (format_metric(never.loss_per_window), f"{story.loss_name} per row and window, never retrained"),
        (format_metric(ours.loss_per_window), f"with Windvane, policy {story.policy}"),
        (
            count_noun(ours.retrains, "retraining"),
            f"the gate refused {count_noun(ours.refused, 'more lap')}, whose cost counts too",
        ),
        (f"{story.saved:+.0%}", "saved, cost of all laps included"),
    ]
    return render_page(
        "replay.html",
        story=story,
        facts=facts,
        picture=base64.b64encode(picture).decode(),
        acted=[c for c in story.chapters if c.action != "wait"],
        level_of=lambda c: "pass" if c.action == "wait" else _ENDING_LEVELS[c.ending],
        number=format_metric,
    )


# Causes that are written below the picture, and in how many columns; the page has all of them.
MAX_LISTED_CAUSES, CAUSE_COLUMNS = 12, 2
_WIDTH_INCHES, _HEIGHT_INCHES, _LINE_INCHES = 10.0, 4.7, 0.2


def draw_replay(story: ReplayResult) -> Figure:
    """The figure of a story; tasks/reports/style.py saves it."""
    highlighted = [c for c in story.chapters if c.ending == "promoted" or c.action == "rollback"]
    room = _LINE_INCHES * (-(-min(len(highlighted), MAX_LISTED_CAUSES) // CAUSE_COLUMNS) + 1)
    height = _HEIGHT_INCHES + room
    parts = (
        f"{story.loss_name.capitalize()} per row, {story.windows}, each predicted by the model "
        f"that served then; policy {story.policy}, {count_noun(story.ours.refused, 'lap')} refused by the gate"
    )
    figure, (ax,) = build_figure(f"{story.project}: {story.verdict()}", parts, width=_WIDTH_INCHES, height=height)
    inner = (0.005, room / height, 0.99, 1 - 0.68 / height - room / height)
    figure.set_layout_engine("constrained", rect=inner, w_pad=0.08, h_pad=0.06)
    _draw_losses(ax, story)
    _draw_highlights(ax, story, highlighted)
    _draw_causes(figure, story, highlighted, height)
    return figure


def _get_position(story: ReplayResult, chapter: ReplayedWindow) -> Any:
    return datetime.fromisoformat(chapter.start) if story.dated else story.chapters.index(chapter) + 1


def _draw_losses(ax: Axes, story: ReplayResult) -> None:
    for stretch in story.stretches():  # no line where there was no window
        x = [_get_position(story, c) for c in stretch]
        never, ours = [c.never for c in stretch], [c.loss for c in stretch]
        saved = [n > o for n, o in zip(never, ours, strict=True)]
        ax.fill_between(x, never, ours, where=saved, color=BLUE, alpha=0.08, lw=0)
        dot = "." if len(x) == 1 else ""
        ax.plot(x, never, marker=dot, color=GREY, linewidth=1.4, zorder=2)
        ax.plot(x, ours, marker=dot, color=BLUE, linewidth=1.9, zorder=3)
    never, ours = [c.never for c in story.measured], [c.loss for c in story.measured]
    ends = (("never retrained", never[-1], GREY), ("Windvane", ours[-1], BLUE))
    apart = abs(never[-1] - ours[-1]) > 0.08 * max(*never, *ours)
    for name, y, colour in ends:
        if apart:
            style: dict[str, Any] = {"va": "center", "fontsize": 9, "fontweight": "bold", "color": colour}
            ax.annotate(name, (x[-1], y), (6, 0), textcoords="offset points", **style)
        else:
            ax.plot([], [], color=colour, label=name)
    if not apart:
        ax.legend(fontsize=8.5, frameon=False, loc="upper left")
    ax.set_ylim(0, 1.06 * max(*never, *ours))
    ax.set_ylabel(f"{story.loss_name} per row", fontsize=9, color=SOFT_INK)
    format_axes(ax.yaxis)
    if not story.dated:
        ax.set_xlabel("window", fontsize=9, color=SOFT_INK)


def _draw_highlights(ax: Axes, story: ReplayResult, highlighted: list[ReplayedWindow]) -> None:
    """A numbered circle where a new champion came, a square where the old one came back, a tick where the gate refused."""
    for number, chapter in enumerate(highlighted, 1):
        x, y, back = _get_position(story, chapter), chapter.loss, chapter.action == "rollback"
        colour = PURPLE if back else VERMILION
        ax.axvline(x, color=colour, linewidth=0.8, alpha=0.35, zorder=1)
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 1}
        ax.plot(x, y, "s" if back else "o", markersize=12, color=colour, zorder=5, **edge)
        centred: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
        ax.annotate(str(number), (x, y), fontsize=7.5, color="white", fontweight="bold", zorder=6, **centred)
    refused = [_get_position(story, c) for c in story.chapters if c.ending == "refused"]
    if refused:
        foot: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False}
        ax.plot(refused, [0.015] * len(refused), "|", color=VERMILION, alpha=0.55, markersize=7, **foot)


def _describe_highlight(story: ReplayResult, chapter: ReplayedWindow) -> str:
    when = chapter.start[:10] if story.dated else f"window {_get_position(story, chapter)}"
    better = "" if chapter.better is None else f"; new model {chapter.better:.0%} better"
    return f"{when}  {chapter.cause}" + ("; put back" if chapter.action == "rollback" else better)


def _draw_causes(figure: Figure, story: ReplayResult, highlighted: list[ReplayedWindow], height: float) -> None:
    listed = highlighted[:MAX_LISTED_CAUSES]
    lines, parts = -(-len(listed) // CAUSE_COLUMNS), [_describe_highlight(story, c) for c in listed]
    room = (_WIDTH_INCHES / CAUSE_COLUMNS - 0.4) * 72
    size = min([8.5, *(room / (0.53 * len(text)) for text in parts)])
    for i, (chapter, text) in enumerate(zip(listed, parts, strict=True)):
        column, line = divmod(i, lines)
        x = (0.12 + column * (_WIDTH_INCHES - 0.2) / CAUSE_COLUMNS) / _WIDTH_INCHES
        y = (_LINE_INCHES * (lines - line + 0.35)) / height
        colour = PURPLE if chapter.action == "rollback" else VERMILION
        figure.text(x, y, f"{i + 1}", fontsize=size, fontweight="bold", color=colour)
        figure.text(x + 0.22 / _WIDTH_INCHES, y, text, fontsize=size, color=INK)
    more = f"{len(highlighted) - len(listed)} more in the page.  " if len(highlighted) > len(listed) else ""
    key = f"{more}Circles: a new champion, and why.  Ticks at the bottom: a lap whose model the gate refused."
    figure.text(0.12 / _WIDTH_INCHES, _LINE_INCHES * 0.4 / height, key, fontsize=8, color=SOFT_INK)
