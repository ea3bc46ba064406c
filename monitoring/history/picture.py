"""The picture of a history played: loss over time, never retrained against Windvane, and where and why it retrained."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from windvane.monitoring.history.story import Chapter, Story
from windvane.tasks.sheets import BLUE, GREY, INK, PURPLE, SOFT, VERMILION, numbers, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Causes that are written below the picture, and in how many columns; the page has all of them.
LISTED, COLUMNS = 12, 2
_WIDTH, _HEIGHT, _LINE = 10.0, 4.7, 0.2


def draw(story: Story) -> Figure:
    """The figure of a story; tasks/sheets.py saves it."""
    marked = [c for c in story.chapters if c.ending == "promoted" or c.action == "rollback"]
    listed = marked[:LISTED]
    lines = -(-len(listed) // COLUMNS)
    height = _HEIGHT + _LINE * (lines + 1)
    figure, (ax,) = sheet(
        f"{story.project}: {story.verdict()}",
        f"{story.loss_name.capitalize()} per row, {len(story.chapters)} windows of {story.window}, each predicted by the model "
        f"that served then; policy {story.policy}, {story.ours.refused} laps refused by the gate",
        width=_WIDTH,
        height=height,
    )
    below = (_LINE * (lines + 1)) / height
    figure.set_layout_engine(
        "constrained", rect=(0.005, below, 0.99, 1 - 0.68 / height - below), w_pad=0.08, h_pad=0.06
    )
    _lines(ax, story)
    _marks(ax, story, marked)
    _causes(figure, story, listed, len(marked), height)
    return figure


def _at(story: Story, chapter: Chapter) -> Any:
    return datetime.fromisoformat(chapter.start) if story.dated else story.chapters.index(chapter) + 1


def _lines(ax: Axes, story: Story) -> None:
    told = story.told
    x = [_at(story, c) for c in told]
    never, ours = [c.never for c in told], [c.loss for c in told]
    ax.fill_between(
        x, never, ours, where=[n > o for n, o in zip(never, ours, strict=True)], color=BLUE, alpha=0.08, lw=0
    )
    ax.plot(x, never, color=GREY, linewidth=1.4, zorder=2)
    ax.plot(x, ours, color=BLUE, linewidth=1.9, zorder=3)
    ends = (("never retrained", never[-1], GREY), ("Windvane", ours[-1], BLUE))
    apart = abs(never[-1] - ours[-1]) > 0.08 * max(*never, *ours)
    for name, y, colour in ends if apart else ():
        ax.annotate(
            name,
            (x[-1], y),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=colour,
        )
    if not apart:
        ax.plot([], [], color=GREY, label="never retrained")
        ax.plot([], [], color=BLUE, label="Windvane")
        ax.legend(fontsize=8.5, frameon=False, loc="upper left")
    ax.set_ylim(0, 1.06 * max(*never, *ours))
    ax.set_ylabel(f"{story.loss_name} per row", fontsize=9, color=SOFT)
    numbers(ax.yaxis)
    if not story.dated:
        ax.set_xlabel("window", fontsize=9, color=SOFT)


def _marks(ax: Axes, story: Story, marked: list[Chapter]) -> None:
    """A numbered circle where a new champion came, a square where the old one came back, a tick where the gate refused."""
    for number, chapter in enumerate(marked, 1):
        x, y, back = _at(story, chapter), chapter.loss, chapter.action == "rollback"
        colour = PURPLE if back else VERMILION
        ax.axvline(x, color=colour, linewidth=0.8, alpha=0.35, zorder=1)
        ax.plot(
            x,
            y,
            "s" if back else "o",
            markersize=12,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=1,
            zorder=5,
        )
        ax.annotate(
            str(number),
            (x, y),
            ha="center",
            va="center_baseline",
            fontsize=7.5,
            color="white",
            fontweight="bold",
            zorder=6,
        )
    refused = [c for c in story.chapters if c.ending == "refused"]
    if refused:
        ax.plot(
            [_at(story, c) for c in refused],
            [0.015] * len(refused),
            "|",
            transform=ax.get_xaxis_transform(),
            color=VERMILION,
            alpha=0.55,
            markersize=7,
            clip_on=False,
        )


def _said(story: Story, chapter: Chapter) -> str:
    when = chapter.start[:10] if story.dated else f"window {_at(story, chapter)}"
    better = "" if chapter.better is None else f"; new model {chapter.better:.0%} better"
    return f"{when}  {chapter.cause}" + ("; put back" if chapter.action == "rollback" else better)


def _causes(figure: Figure, story: Story, listed: list[Chapter], count: int, height: float) -> None:
    lines, said = -(-len(listed) // COLUMNS), [_said(story, c) for c in listed]
    room = (_WIDTH / COLUMNS - 0.4) * 72
    size = min([8.5, *(room / (0.53 * len(text)) for text in said)])
    for i, (chapter, text) in enumerate(zip(listed, said, strict=True)):
        column, line = divmod(i, lines)
        x, y = (0.12 + column * (_WIDTH - 0.2) / COLUMNS) / _WIDTH, (_LINE * (lines - line + 0.35)) / height
        colour = PURPLE if chapter.action == "rollback" else VERMILION
        figure.text(x, y, f"{i + 1}", fontsize=size, fontweight="bold", color=colour)
        figure.text(x + 0.22 / _WIDTH, y, text, fontsize=size, color=INK)
    more = f"{count - len(listed)} more in the page.  " if count > len(listed) else ""
    key = f"{more}Circles: a new champion, and why.  Ticks at the bottom: a lap whose model the gate refused."
    figure.text(0.12 / _WIDTH, _LINE * 0.4 / height, key, fontsize=8, color=SOFT)
