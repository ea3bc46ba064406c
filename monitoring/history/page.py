"""The page of a history played: the sentence, the picture, and every decision with its reason. Self-contained HTML."""

from __future__ import annotations

import base64
from pathlib import Path

from windvane.monitoring.history.story import Chapter, Story
from windvane.tasks.tables import write_whole
from windvane.templates import render_page

_LEVELS = {"promoted": "pass", "refused": "warn", "skipped": "warn", None: "stop"}


def write(story: Story, picture: bytes, path: Path) -> None:
    """Write the page with its picture (a PNG's bytes), whole or not at all."""
    text = page(story, picture)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def page(story: Story, picture: bytes) -> str:
    """The page as text."""
    count, never, ours = len(story.told) or 1, story.never, story.ours
    facts = [
        (_number(never.loss / count), f"{story.loss_name} per row and window, never retrained"),
        (_number(ours.loss / count), f"with Windvane, policy {story.policy}"),
        (
            f"{ours.retrains} retraining{'s' * (ours.retrains != 1)}",
            f"the gate refused {ours.refused} more lap{'s' * (ours.refused != 1)}, whose cost counts too",
        ),
        (f"{story.saved:+.0%}", "saved, cost of all laps included"),
    ]
    return render_page(
        "replay.html",
        story=story,
        facts=facts,
        picture=base64.b64encode(picture).decode(),
        acted=[c for c in story.chapters if c.action != "wait"],
        level_of=_level,
        number=_number,
    )


def _level(c: Chapter) -> str:
    return "pass" if c.action == "wait" else _LEVELS[c.ending]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
