"""The data report: one HTML file about a table, verdict first, with small SVG pictures drawn from its summary.

Same table, same bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from windvane.tasks import io
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.reports import association
from windvane.tasks.reports.style import PAGE_CSS
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate import table_statistics
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_profile import (
    ColumnSummary,
    TableSummary,
    measure_quantile_distance,
    measure_share_distance,
)

if TYPE_CHECKING:
    import polars as pl

CHART_WIDTH, CHART_HEIGHT = 240, 64
HISTOGRAM_BINS = 30
# Bars of a category that are drawn, and letters of a name beside one.
MAX_CHART_BARS, MAX_LABEL_LETTERS = 5, 18


def draw_distribution(now: ColumnSummary, then: ColumnSummary | None, rows: int = 0) -> str:
    """The distribution of a column of `rows` rows: filled now, outlined in the last accepted table."""
    if then is not None and then.type != now.type:
        then = None
    if now.type in ("category", "boolean", "text") or (now.values and len(now.values) <= 2):
        return draw_bars(now.values, then.values if then else None, now.distinct, rows)
    return draw_histogram(now.quantiles, then.quantiles if then else None)


def draw_histogram(now: Sequence[float], then: Sequence[float] | None) -> str:
    """Densities over the middle 98 % of both, from their quantiles."""
    if not now:
        return '<p class="none">no values</p>'
    both = [q for q in (now, then) if q]
    low, high = min(q[1] for q in both), max(q[-2] for q in both)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Half a bin wider on either side: a value that many rows share, such as zero, lies within a bin, not on its edge.
    wide = (high - low) / (HISTOGRAM_BINS - 1)
    edges = [low + wide * (i - 0.5) for i in range(HISTOGRAM_BINS + 1)]
    shares = [_shares(q, edges) for q in both]
    top = max(max(s) for s in shares) or 1.0
    step = CHART_WIDTH / HISTOGRAM_BINS
    parts = [
        f'<rect x="{i * step:.1f}" y="{CHART_HEIGHT - h:.1f}" width="{step - 1:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(share / top * CHART_HEIGHT for share in shares[0])
        if h >= 0.05
    ]
    if len(shares) > 1:
        corners = " ".join(
            f"{i * step:.1f},{CHART_HEIGHT - s / top * CHART_HEIGHT:.1f} {(i + 1) * step:.1f},{CHART_HEIGHT - s / top * CHART_HEIGHT:.1f}"
            for i, s in enumerate(shares[1])
        )
        parts.append(f'<polyline class="then" points="{corners}"/>')
    return (
        f'<svg class="now" viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" preserveAspectRatio="none">{"".join(parts)}</svg>'
    )


def _shares(quantiles: Sequence[float], edges: list[float]) -> list[float]:
    import numpy as np

    q = np.asarray(quantiles)
    # Share of quantiles up to an edge: half of those that lie on it go to either side.
    upto = (np.searchsorted(q, edges, side="left") + np.searchsorted(q, edges, side="right")) / 2 / len(q)
    return [max(float(b - a), 0.0) for a, b in pairwise(upto)]


def draw_bars(now: dict[str, float], then: dict[str, float] | None, distinct: int, rows: int = 0) -> str:
    """Shares of the most frequent of `distinct` values; a mark shows the share in the last accepted table."""
    if not now:
        return '<p class="none">no values</p>'
    names = sorted(now, key=lambda v: (-now[v], v))[:MAX_CHART_BARS]
    top = max([now[names[0]], *((then or {}).get(v, 0.0) for v in names)])
    rest = distinct - len(names)
    lines = [_draw_bar(name, now[name], top, None if then is None else then.get(name, 0.0)) for name in names]
    more = f'<div class="more">and {table_statistics.describe_distinct(rest, rows)} more</div>' if rest > 0 else ""
    return f'<div class="bars">{"".join(lines)}{more}</div>'


def _draw_bar(name: str, share: float, top: float, before: float | None, figure: str | None = None) -> str:
    mark = "" if before is None else f'<i style="left:{100 * before / top:.1f}%"></i>'
    return (
        f'<div class="bar"><span title="{escape(name)}">{escape(shorten_name(name))}</span>'
        f'<b><u style="width:{100 * share / top:.1f}%"></u>{mark}</b><em>{figure or format_percent(share)}</em></div>'
    )


def draw_share(name: str, share: float, before: float | None = None) -> str:
    """A share of rows as one bar on the scale from 0 to 1."""
    return _draw_bar(name, share, 1.0, before)


def draw_association(name: str, value: float) -> str:
    """An association as one bar on the scale from 0 to 1."""
    return _draw_bar(name, value, 1.0, None, f"{value:.2f}")


def draw_meter(share: float, usual: float) -> str:
    """A share on the scale from 0 to 1, with a mark at what is usual."""
    return (
        f'<div class="meter"><b><u style="width:{100 * min(share, 1.0):.1f}%"></u>'
        f'<i style="left:{100 * min(usual, 1.0):.1f}%"></i></b><em>{format_percent(share)}</em></div>'
    )


def draw_heatmap(names: Sequence[str], strength: Sequence[Sequence[float]]) -> str:
    """A square of associations, darker is stronger, below the diagonal."""
    cell, left, k = 26, 150, len(names)
    parts = []
    for i, name in enumerate(names):
        y = i * cell
        parts.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(shorten_name(name))}</text>')
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
        parts.append(f'<text x="{left + i * cell + 2}" y="{y + 17}" class="self">{escape(shorten_name(name))}</text>')
    width, height = left + k * cell + 130, k * cell + 4
    return f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'


def shorten_name(name: str) -> str:
    """A name on one line of a picture."""
    flat = " ".join(name.split()) or "(blank)"
    return flat if len(flat) <= MAX_LABEL_LETTERS else flat[: MAX_LABEL_LETTERS - 1] + "…"


def format_percent(share: float) -> str:
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


def strip_address(source: str) -> str:
    """Where the rows come from, without what may be secret in a URL: user, password, query."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def describe_check(check: str) -> str:
    """A check as words."""
    return check.replace("_", " ")


def strip_message_key(message: str) -> str:
    """Without the key that a stop's message begins with."""
    key, _, rest = message.partition(": ")
    return (
        (rest[:1].upper() + rest[1:])
        if key in ("schema.yaml", "data.source", "problem.target", "problem.time")
        else message
    )


def format_figure(value: float | str | None) -> str:
    """A measured value, escaped."""
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(shorten_name(value))
    if isinstance(value, float) and 0 < abs(value) < 1:
        return format_percent(value) if value < 0.9995 else f"{value:.4f}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def format_count(count: int, what: str) -> str:
    """A count with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def format_middle(s: ColumnSummary) -> str:
    """The median, or the most frequent value."""
    if s.quantiles:
        return format_column_value(s, s.quantiles[50])
    return shorten_name(max(s.values, key=lambda v: (s.values[v], v))) if s.values else "-"


def format_column_value(s: ColumnSummary, value: float) -> str:
    """A number or date as its column has it."""
    if s.type != "date":
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=value)
    return f"{moment:%Y-%m-%d}" if 1 < moment.year < 9999 else "-"


DATA_REPORT_FILE = DATA_FOLDER / "report.html"
# Columns in the square of associations, and in a list of bars: more cannot be read.
MAX_HEATMAP_COLUMNS, MAX_LISTED_PAIRS = 22, 20
# Rows of the table of changes.
MAX_LISTED_CHANGES = 25


@dataclass(frozen=True)
class DataReport:
    """All that is drawn. `then`: the last accepted table, None before the first; `sample`: rows, evenly spaced."""

    chosen: Settings
    now: TableSummary
    then: TableSummary | None
    findings: tuple[TableFinding, ...]
    sample: pl.DataFrame

    @property
    def features(self) -> tuple[str, ...]:
        """Columns that stand on the page, target first."""
        target = self.chosen.problem.target
        return (target, *(name for name in self.now.columns if name != target))


def write_data_report(page: DataReport, path: Path) -> None:
    """Write the page, whole or not at all."""
    text = render_data_report(page)
    io.write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def render_data_report(page: DataReport) -> str:
    """The page as HTML. Every word of the table's own is escaped; nothing is fetched and no script runs."""
    project = escape(page.chosen.project)
    parts = [
        _render_verdict(page),
        _render_findings(page),
        _render_changes(page),
        _render_columns(page),
        _render_missing(page),
        _render_associations(page),
        f"<footer>Windvane. Shares and pictures from {len(page.sample):,} evenly spaced rows; missing, different and "
        "extreme values from all rows.</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Data of {project}</title><style>{PAGE_CSS}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def describe_data_verdict(findings: tuple[TableFinding, ...]) -> str:
    """The first sentence: may the table teach?"""
    stops, warns = (sum(f.level == level for f in findings) for level in ("stop", "warn"))
    if stops:
        return f"This table must not teach: {format_count(stops, 'thing')} must be mended first."
    if warns:
        return f"This table may teach; {format_count(warns, 'thing')} deserve{'s' if warns == 1 else ''} a look."
    return "This table may teach: nothing looks odd."


def _render_verdict(page: DataReport) -> str:
    now, then, problem = page.now, page.then, page.chosen.problem
    level = next((level for level in ("stop", "warn") if any(f.level == level for f in page.findings)), "pass")
    text = f"{now.rows:,} rows with a label, {len(now.columns)} columns"
    if problem.time and page.now.columns[problem.time].quantiles:
        ends = page.now.columns[problem.time]
        text += (
            f", from {format_column_value(ends, ends.quantiles[0])} to {format_column_value(ends, ends.quantiles[-1])}"
        )
    if then is None:
        text += "; no table was accepted before it."
    else:
        text += f"; the last accepted table had {then.rows:,} rows."
    return (
        f'<header class="{level}"><h1>{escape(page.chosen.project)} · {escape(strip_address(page.chosen.data.source))} · predicts '
        f'{escape(problem.target)}</h1><p class="verdict">{describe_data_verdict(page.findings)}</p><p>{escape(text)}</p></header>'
    )


def _render_findings(page: DataReport) -> str:
    told = [f for f in page.findings if f.level != "pass" or f.figure is not None]
    rows = "".join(
        f'<tr><td><span class="level {f.level}">{f.level}</span></td><td class="check">{escape(describe_check(f.check))}</td>'
        f'<td class="name">{escape(f.column or "")}</td><td class="num">{format_figure(f.figure)}</td>'
        f'<td class="num">{format_figure(f.limit)}</td><td>{escape(strip_message_key(f.message))}</td></tr>'
        for f in told
    )
    fine = ", ".join(escape(f.message) for f in page.findings if f.level == "pass" and f.figure is None)
    head = (
        '<table><tr><th></th><th>check</th><th>column</th><th class="num">figure</th><th class="num">limit</th>'
        f"<th>what it means, and what to do</th></tr>{rows}</table>"
    )
    return (
        "<h2>Findings</h2><p>Stops must be mended; warnings are for you to judge.</p>"
        + (head if told else "")
        + (f'<p class="fine"><b>✓ in order:</b> {fine}</p>' if fine else "")
    )


def _render_changes(page: DataReport) -> str:
    if page.then is None:
        return ""
    rows = []
    for name in page.features:
        now, then = page.now.columns[name], page.then.columns.get(name)
        if then is None or then.type != now.type:
            rows.append(
                (1.0, f'<tr><td class="name">{escape(name)}</td><td colspan="4">is new, or of another type</td></tr>')
            )
            continue
        apart_by = (
            measure_quantile_distance(then.quantiles, now.quantiles)
            if then.quantiles
            else measure_share_distance(then.values, now.values)
        )
        middle = (
            f"{format_middle(then)} → {format_middle(now)}"
            if format_middle(then) != format_middle(now)
            else format_middle(now)
        )
        gaps = format_percent(now.missing)
        if format_percent(then.missing) != gaps:
            gaps = f"{format_percent(then.missing)} → {gaps}"
        row = (
            f'<tr><td class="name">{escape(name)}</td><td>{draw_meter(apart_by, then.wander)}</td>'
            f'<td class="num">{format_percent(then.wander)}</td><td>{escape(middle)}</td><td class="num">{gaps}</td></tr>'
        )
        rows.append((apart_by, row))
    gone = [name for name in page.then.columns if name not in page.now.columns]
    rows.sort(key=lambda r: -r[0])
    head = (
        '<tr><th>column</th><th>moved by (share of rows)</th><th class="num">usual</th><th>median, or most frequent</th>'
        '<th class="num">missing</th></tr>'
    )
    also = f'<p class="fine">Gone: {escape(", ".join(gone))}</p>' if gone else ""
    return (
        "<h2>What changed since the last accepted table</h2><p>The least part of all rows that would have to change its "
        "value; “usual” is how far stretches of that table lay apart.</p><table>"
        + head
        + "".join(row for _, row in rows[:MAX_LISTED_CHANGES])
        + f"</table>{also}"
    )


def _render_columns(page: DataReport) -> str:
    key = '<p class="key"><u></u>this table' + ("<i></i>last accepted table" if page.then else "") + "</p>"
    cards = "".join(_render_column_card(page, name) for name in page.features)
    return f'<h2>Columns</h2>{key}<div class="grid">{cards}</div>'


def _render_column_card(page: DataReport, name: str) -> str:
    now, problem = page.now.columns[name], page.chosen.problem
    roles = {problem.target: "target", problem.time: "time", problem.group: "group"}
    role = f"<b>{roles[name]}</b> · " if name in roles else ""
    gaps = f" · {format_percent(now.missing)} missing" if now.missing else ""
    ends = ""
    if now.quantiles:
        low, middle, high = (escape(format_column_value(now, now.quantiles[at])) for at in (0, 50, -1))
        middle = "" if now.type == "date" else f"median {middle}"
        ends = f'<div class="ends"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
    told = [f for f in page.findings if f.column == name and f.level != "pass"]
    notes = "".join(f'<p class="told {f.level}">{escape(describe_check(f.check))}</p>' for f in told)
    picture = draw_distribution(now, page.then.columns.get(name) if page.then else None, page.now.rows)
    different = table_statistics.describe_distinct(now.distinct, page.now.rows)
    return (
        f'<div class="card"><h3>{escape(name)}</h3><div class="kind">{role}{now.type} · {different} '
        f"values{gaps}</div>{picture}{ends}{notes}</div>"
    )


def _render_missing(page: DataReport) -> str:
    gaps = [(n, page.now.columns[n].missing) for n in page.features if page.now.columns[n].missing]
    if not gaps:
        return "<h2>Missing values</h2><p>None.</p>"
    gaps.sort(key=lambda item: -item[1])
    before = page.then.columns if page.then else {}
    lines = "".join(
        draw_share(n, share, before[n].missing if n in before else None) for n, share in gaps[: 2 * MAX_LISTED_PAIRS]
    )
    more = (
        f'<div class="more">and {len(gaps) - 2 * MAX_LISTED_PAIRS} more columns</div>'
        if len(gaps) > 2 * MAX_LISTED_PAIRS
        else ""
    )
    full = len(page.features) - len(gaps)
    return (
        f"<h2>Missing values</h2><p>Share of rows; {format_count(full, 'column')} {'is' if full == 1 else 'are'} complete.</p>"
        f'<div class="card wide">{lines}{more}</div>'
    )


def _render_associations(page: DataReport) -> str:
    names = tuple(n for n in page.features if not page.now.columns[n].silent and page.now.columns[n].type != "text")
    if len(names) < 2 or page.chosen.problem.target not in names:
        return ""
    with_target, found = association.measure_associations(page.sample, names, MAX_HEATMAP_COLUMNS)
    lines = "".join(draw_association(name, share) for name, share in list(with_target.items())[:MAX_LISTED_PAIRS])
    return (
        "<h2>What goes together</h2><p>Cramér's V, 0 to 1, numbers cut at their quantiles: bent relations count as much as "
        f'straight ones.</p><div class="card wide"><h3>with {escape(names[0])}</h3><br>{lines}</div><br>'
        f'<div class="card scroll"><h3>between columns</h3><br>{draw_heatmap(list(found.names), found.strength.tolist())}</div>'
    )
