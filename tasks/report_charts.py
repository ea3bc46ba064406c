"""The numbers behind the small charts of a page, made from a digest. Their shapes stand in templates/charts.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from windvane.tasks import measure
from windvane.tasks.digest import Summary

BINS = 30
# Bars of a category that are drawn, and letters of a name beside one.
BARS, LETTERS = 5, 18


@dataclass(frozen=True)
class ShareBar:
    """A named share as a bar: `share` of the scale (0 to 1), a `mark` on it or None, and the figure in words."""

    name: str
    label: str
    share: float
    mark: float | None
    figure: str


@dataclass(frozen=True)
class ColumnChart:
    """A column's distribution: densities (heights from 0 to 1) `now` and `then`, or `bars` and how many values `more` there are."""

    now: tuple[float, ...] = ()
    then: tuple[float, ...] | None = None
    bars: tuple[ShareBar, ...] = ()
    more: str | None = None


def picture(now: Summary, then: Summary | None, rows: int = 0) -> ColumnChart:
    """The distribution of a column of `rows` rows, now and in the last accepted table."""
    if then is not None and then.type != now.type:
        then = None
    if now.type in ("category", "boolean", "text") or (now.values and len(now.values) <= 2):
        return bars(now.values, then.values if then else None, now.distinct, rows)
    return histogram(now.quantiles, then.quantiles if then else None)


def histogram(now: Sequence[float], then: Sequence[float] | None) -> ColumnChart:
    """Densities over the middle 98 % of both, from their quantiles."""
    if not now:
        return ColumnChart()
    both = [q for q in (now, then) if q]
    low, high = min(q[1] for q in both), max(q[-2] for q in both)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Half a bin wider on either side: a value that many rows share, such as zero, lies within a bin, not on its edge.
    wide = (high - low) / (BINS - 1)
    edges = [low + wide * (i - 0.5) for i in range(BINS + 1)]
    shares = [_shares(q, edges) for q in both]
    top = max(max(s) for s in shares) or 1.0
    heights = [tuple(share / top for share in s) for s in shares]
    return ColumnChart(heights[0], heights[1] if len(heights) > 1 else None)


def _shares(quantiles: Sequence[float], edges: list[float]) -> list[float]:
    import numpy as np

    q = np.asarray(quantiles)
    # Share of quantiles up to an edge: half of those that lie on it go to either side.
    upto = (np.searchsorted(q, edges, side="left") + np.searchsorted(q, edges, side="right")) / 2 / len(q)
    return [max(float(b - a), 0.0) for a, b in pairwise(upto)]


def bars(now: dict[str, float], then: dict[str, float] | None, distinct: int, rows: int = 0) -> ColumnChart:
    """Shares of the most frequent of `distinct` values; a mark shows the share in the last accepted table."""
    names = sorted(now, key=lambda v: (-now[v], v))[:BARS]
    top = max((share for of in (now, then or {}) for name, share in of.items() if name in names), default=1.0)
    rest = distinct - len(names)
    return ColumnChart(
        bars=tuple(
            ShareBar(n, short(n), now[n] / top, None if then is None else then.get(n, 0.0) / top, percent(now[n]))
            for n in names
        ),
        more=measure.told(rest, rows) if names and rest > 0 else None,
    )


def line(name: str, share: float, before: float | None = None) -> ShareBar:
    """A share of rows as one bar on the scale from 0 to 1."""
    return ShareBar(name, short(name), share, before, percent(share))


def strength(name: str, value: float) -> ShareBar:
    """An association as one bar on the scale from 0 to 1."""
    return ShareBar(name, short(name), value, None, f"{value:.2f}")


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
