"""Small pictures for the data page, as inline SVG made from a digest. Owns shapes; colours stand in the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from windvane.tasks import measure
from windvane.tasks.digest import Summary

WIDTH, HEIGHT = 240, 64
BINS = 30
# Bars of a category that are drawn, and letters of a name beside one.
BARS, LETTERS = 5, 18


def picture(now: Summary, then: Summary | None, rows: int = 0) -> str:
    """The distribution of a column of `rows` rows: filled now, outlined in the last accepted table."""
    if then is not None and then.type != now.type:
        then = None
    if now.type in ("category", "boolean", "text") or (now.values and len(now.values) <= 2):
        return bars(now.values, then.values if then else None, now.distinct, rows)
    return histogram(now.quantiles, then.quantiles if then else None)


def histogram(now: Sequence[float], then: Sequence[float] | None) -> str:
    """Densities over the middle 98 % of both, from their quantiles."""
    if not now:
        return '<p class="none">no values</p>'
    both = [q for q in (now, then) if q]
    low, high = min(q[1] for q in both), max(q[-2] for q in both)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Half a bin wider on either side: a value that many rows share, such as zero, lies within a bin, not on its edge.
    wide = (high - low) / (BINS - 1)
    edges = [low + wide * (i - 0.5) for i in range(BINS + 1)]
    shares = [_shares(q, edges) for q in both]
    top = max(max(s) for s in shares) or 1.0
    step = WIDTH / BINS
    parts = [
        f'<rect x="{i * step:.1f}" y="{HEIGHT - h:.1f}" width="{step - 1:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(share / top * HEIGHT for share in shares[0])
        if h >= 0.05
    ]
    if len(shares) > 1:
        corners = " ".join(
            f"{i * step:.1f},{HEIGHT - s / top * HEIGHT:.1f} {(i + 1) * step:.1f},{HEIGHT - s / top * HEIGHT:.1f}"
            for i, s in enumerate(shares[1])
        )
        parts.append(f'<polyline class="then" points="{corners}"/>')
    return f'<svg class="now" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">{"".join(parts)}</svg>'


def _shares(quantiles: Sequence[float], edges: list[float]) -> list[float]:
    import numpy as np

    q = np.asarray(quantiles)
    # Share of quantiles up to an edge: half of those that lie on it go to either side.
    upto = (np.searchsorted(q, edges, side="left") + np.searchsorted(q, edges, side="right")) / 2 / len(q)
    return [max(float(b - a), 0.0) for a, b in pairwise(upto)]


def bars(now: dict[str, float], then: dict[str, float] | None, distinct: int, rows: int = 0) -> str:
    """Shares of the most frequent of `distinct` values; a mark shows the share in the last accepted table."""
    if not now:
        return '<p class="none">no values</p>'
    names = sorted(now, key=lambda v: (-now[v], v))[:BARS]
    top = max([now[names[0]], *((then or {}).get(v, 0.0) for v in names)])
    rest = distinct - len(names)
    lines = [_bar(name, now[name], top, None if then is None else then.get(name, 0.0)) for name in names]
    more = f'<div class="more">and {measure.told(rest, rows)} more</div>' if rest > 0 else ""
    return f'<div class="bars">{"".join(lines)}{more}</div>'


def _bar(name: str, share: float, top: float, before: float | None, figure: str | None = None) -> str:
    mark = "" if before is None else f'<i style="left:{100 * before / top:.1f}%"></i>'
    return (
        f'<div class="bar"><span title="{escape(name)}">{escape(short(name))}</span>'
        f'<b><u style="width:{100 * share / top:.1f}%"></u>{mark}</b><em>{figure or percent(share)}</em></div>'
    )


def line(name: str, share: float, before: float | None = None) -> str:
    """A share of rows as one bar on the scale from 0 to 1."""
    return _bar(name, share, 1.0, before)


def strength(name: str, value: float) -> str:
    """An association as one bar on the scale from 0 to 1."""
    return _bar(name, value, 1.0, None, f"{value:.2f}")


def meter(share: float, usual: float) -> str:
    """A share on the scale from 0 to 1, with a mark at what is usual."""
    return (
        f'<div class="meter"><b><u style="width:{100 * min(share, 1.0):.1f}%"></u>'
        f'<i style="left:{100 * min(usual, 1.0):.1f}%"></i></b><em>{percent(share)}</em></div>'
    )


def heatmap(names: Sequence[str], strength: Sequence[Sequence[float]]) -> str:
    """A square of associations, darker is stronger, below the diagonal."""
    cell, left, k = 26, 150, len(names)
    parts = []
    for i, name in enumerate(names):
        y = i * cell
        parts.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(short(name))}</text>')
        for j in range(i):
            s = strength[i][j]
            words = escape(f"{name} and {names[j]}: {s:.2f}")
            parts.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="3" '
                f'style="opacity:{0.05 + 0.95 * s:.2f}"><title>{words}</title></rect>'
            )
            if s >= 0.3:
                light = ' class="light"' if s > 0.55 else ""
                parts.append(
                    f'<text{light} x="{left + j * cell + 12}" y="{y + 16}" text-anchor="middle">{s:.1f}</text>'
                )
        parts.append(f'<text x="{left + i * cell + 2}" y="{y + 17}" class="self">{escape(short(name))}</text>')
    width, height = left + k * cell + 130, k * cell + 4
    return f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'


def short(name: str) -> str:
    """A name on one line of a picture."""
    flat = " ".join(name.split()) or "(blank)"
    return flat if len(flat) <= LETTERS else flat[: LETTERS - 1] + "…"


def percent(share: float) -> str:
    """A share as people read it."""
    return (
        "0 %"
        if share == 0
        else "< 0.1 %"
        if share < 0.001
        else f"{100 * share:.1f} %"
        if share < 0.1
        else f"{100 * share:.0f} %"
    )
