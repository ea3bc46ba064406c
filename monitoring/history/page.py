"""The page of a history played: the sentence, the picture, and every decision with its reason. Self-contained HTML."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from windvane.monitoring.history.story import Chapter, Story
from windvane.tasks.report_style import CSS
from windvane.tasks.tables import write_whole

_LEVELS = {"promoted": "pass", "refused": "warn", "skipped": "warn", None: "stop"}
_MORE = """
.picture { width:100%; height:auto; border-radius:12px; background:#fff; margin-top:18px; box-shadow:0 1px 3px #0001 }
.facts { display:grid; grid-template-columns:repeat(auto-fit,minmax(200px,1fr)); gap:14px; margin-top:18px }
.facts .card b { display:block; font-size:20px; font-weight:600; letter-spacing:-.01em }
.facts .card span, td p { color:var(--soft); font-size:13px } td p { margin:4px 0 0 }
details { margin-top:28px } summary { cursor:pointer; font-weight:600 } details table { margin-top:12px }
"""


def write(story: Story, picture: bytes, path: Path) -> None:
    """Write the page with its picture (a PNG's bytes), whole or not at all."""
    text = page(story, picture)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def page(story: Story, picture: bytes) -> str:
    """The page as text."""
    count, never, ours = len(story.told) or 1, story.never, story.ours
    cards = [
        (_number(never.loss / count), f"{story.loss_name} per row and window, never retrained"),
        (_number(ours.loss / count), f"with Windvane, policy {story.policy}"),
        (
            f"{ours.retrains} retrainings",
            f"{ours.refused} more laps were refused by the gate; they are paid for all the same",
        ),
        (f"{story.saved:+.0%}", "saved, the price of all laps included"),
    ]
    facts = "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards)
    acted = [c for c in story.chapters if c.action != "wait"]
    image = (
        f'<img class="picture" alt="loss over time" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )
    level = "pass" if story.saved >= 0 else "warn"
    parts = [
        f'<header class="{level}"><h1>{escape(story.project)}: {len(story.chapters)} windows of {escape(story.window)} played, '
        f"from {story.chapters[0].start[:10] if story.dated else 'the first'} on</h1>",
        f'<p class="verdict">{escape(story.verdict())}.</p>',
        f"<p>The first champion was taught on {story.taught:,} rows from before. Every decision saw only what was known then.</p>",
        f'</header><div class="facts">{facts}</div>{image}',
        "<h2>What was decided, and why</h2><p>Each after the window that begins there, once it was over.</p>",
        _table(story, acted) if acted else '<p class="none">Nothing but to wait.</p>',
        f"<details><summary>All {len(story.chapters)} windows</summary>{_table(story, list(story.chapters))}</details>",
        "<footer>Windvane</footer>",
    ]
    title = escape(f"{story.project}: replay")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{CSS}{_MORE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def _table(story: Story, chapters: list[Chapter]) -> str:
    head = '<tr><th>window</th><th>decision</th><th>why</th><th class="num">Windvane</th><th class="num">never retrained</th></tr>'
    rows = "".join(_row(story, c) for c in chapters)
    return f"<table>{head}{rows}</table>"


def _row(story: Story, c: Chapter) -> str:
    when = c.start[:10] if story.dated else str(story.chapters.index(c) + 1)
    level = "pass" if c.action == "wait" else _LEVELS[c.ending]
    said = c.action if c.ending is None else c.ending
    verdict = f"<p>{escape(c.verdict)}</p>" if c.verdict else ""
    return (
        f'<tr><td class="check">{when}<p>version {c.version}</p></td><td><span class="level {level}">{said}</span></td>'
        f"<td>{escape(c.cause)}<p>{escape(c.reason)}</p>{verdict}</td>"
        f'<td class="num">{_number(c.loss)}</td><td class="num">{_number(c.never)}</td></tr>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
