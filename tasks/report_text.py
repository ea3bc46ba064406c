"""How figures, names and times are written on the data page."""

from __future__ import annotations

import datetime as dt
from urllib.parse import urlsplit

from windvane.tasks import report_charts as charts
from windvane.tasks.digest import Summary


def address(source: str) -> str:
    """Where the rows come from, without what may be secret in a URL: user, password, query."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def words(check: str) -> str:
    """A check as words."""
    return check.replace("_", " ")


def plain(message: str) -> str:
    """Without the key that a stop's message begins with."""
    key, _, rest = message.partition(": ")
    return (
        (rest[:1].upper() + rest[1:])
        if key in ("schema.yaml", "data.source", "problem.target", "problem.time")
        else message
    )


def figure(value: float | str | None) -> str:
    """A measured value."""
    if value is None:
        return ""
    if isinstance(value, str):
        return charts.short(value)
    if isinstance(value, float) and 0 < abs(value) < 1:
        return charts.percent(value) if value < 0.9995 else f"{value:.4f}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def many(count: int, what: str) -> str:
    """A count with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def middle(s: Summary) -> str:
    """The median, or the most frequent value."""
    if s.quantiles:
        return cell(s, s.quantiles[50])
    return charts.short(max(s.values, key=lambda v: (s.values[v], v))) if s.values else "-"


def cell(s: Summary, value: float) -> str:
    """A number or date as its column has it."""
    if s.type != "date":
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=value)
    return f"{moment:%Y-%m-%d}" if 1 < moment.year < 9999 else "-"
