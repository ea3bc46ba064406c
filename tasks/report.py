"""The data page: one self-contained HTML file about a table, verdict first. Works out nothing that is not drawn here.

From aggregates and a sample: as quick for ten million rows as for ten thousand. Same table, same bytes: DVC hashes it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks import association, tables
from tasks import report_charts as charts
from tasks.digest import Digest, Summary, apart, gap
from tasks.findings import Finding
from tasks.report_style import CSS
from tasks.settings import Settings

if TYPE_CHECKING:
    import polars as pl

REPORT = Path("data/report.html")
# Columns in the square of associations, and in a list of bars: more cannot be read.
SQUARE, LIST = 22, 20
# Rows of the table of changes.
CHANGES = 25


@dataclass(frozen=True)
class Page:
    """All that is drawn. `then`: the last accepted table, None before the first; `sample`: rows, evenly spaced."""

    chosen: Settings
    now: Digest
    then: Digest | None
    findings: tuple[Finding, ...]
    sample: pl.DataFrame

    @property
    def features(self) -> tuple[str, ...]:
        """Columns that stand on the page, target first."""
        target = self.chosen.problem.target
        return (target, *(name for name in self.now.columns if name != target))


def write(page: Page, path: Path) -> None:
    """Write the page, whole or not at all."""
    text = render(page)
    tables.write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def render(page: Page) -> str:
    """The page as HTML. Every word of the table's own is escaped; nothing is fetched and no script runs."""
    project = escape(page.chosen.project)
    parts = [
        _verdict(page),
        _findings(page),
        _changes(page),
        _columns(page),
        _missing(page),
        _associations(page),
        f"<footer>Windvane. Shares and pictures from {len(page.sample):,} evenly spaced rows; missing, different and "
        "extreme values from all rows.</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Data of {project}</title><style>{CSS}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def verdict(findings: tuple[Finding, ...]) -> str:
    """The first sentence: may the table teach?"""
    stops, warns = (sum(f.level == level for f in findings) for level in ("stop", "warn"))
    if stops:
        return f"This table must not teach: {_many(stops, 'thing')} must be mended first."
    if warns:
        return f"This table may teach; {_many(warns, 'thing')} deserve{'s' if warns == 1 else ''} a look."
    return "This table may teach: nothing looks odd."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _verdict(page: Page) -> str:
    now, then, problem = page.now, page.then, page.chosen.problem
    level = next((level for level in ("stop", "warn") if any(f.level == level for f in page.findings)), "pass")
    text = f"{now.rows:,} rows with a label, {len(now.columns)} columns"
    if problem.time and page.now.columns[problem.time].quantiles:
        ends = page.now.columns[problem.time]
        text += f", from {_cell(ends, ends.quantiles[0])} to {_cell(ends, ends.quantiles[-1])}"
    if then is None:
        text += "; no table was accepted before it."
    else:
        text += f"; the last accepted table had {then.rows:,} rows."
    return (
        f'<header class="{level}"><h1>{escape(page.chosen.project)} · {escape(_source(page.chosen.data.source))} · predicts '
        f'{escape(problem.target)}</h1><p class="verdict">{verdict(page.findings)}</p><p>{escape(text)}</p></header>'
    )


def _source(address: str) -> str:
    """Where the rows come from, without what may be secret in a URL: user, password, query."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _findings(page: Page) -> str:
    told = [f for f in page.findings if f.level != "pass" or f.figure is not None]
    rows = "".join(
        f'<tr><td><span class="level {f.level}">{f.level}</span></td><td class="name">{escape(_words(f.check))}</td>'
        f'<td class="name">{escape(f.column or "")}</td><td class="num">{_figure(f.figure)}</td>'
        f'<td class="num">{_figure(f.limit)}</td><td>{escape(_plain(f.message))}</td></tr>'
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


def _words(check: str) -> str:
    return check.replace("_", " ")


def _plain(message: str) -> str:
    """Without the key that a stop's message begins with."""
    key, _, rest = message.partition(": ")
    return (
        (rest[:1].upper() + rest[1:])
        if key in ("schema.yaml", "data.source", "problem.target", "problem.time")
        else message
    )


def _figure(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(charts.short(value))
    if isinstance(value, float) and 0 < abs(value) < 1:
        return charts.percent(value) if value < 0.9995 else f"{value:.4f}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _changes(page: Page) -> str:
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
        apart_by = gap(then.quantiles, now.quantiles) if then.quantiles else apart(then.values, now.values)
        middle = f"{_middle(then)} → {_middle(now)}" if _middle(then) != _middle(now) else _middle(now)
        gaps = charts.percent(now.missing)
        if charts.percent(then.missing) != gaps:
            gaps = f"{charts.percent(then.missing)} → {gaps}"
        row = (
            f'<tr><td class="name">{escape(name)}</td><td>{charts.meter(apart_by, then.wander)}</td>'
            f'<td class="num">{charts.percent(then.wander)}</td><td>{escape(middle)}</td><td class="num">{gaps}</td></tr>'
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
        + "".join(row for _, row in rows[:CHANGES])
        + f"</table>{also}"
    )


def _middle(s: Summary) -> str:
    if s.quantiles:
        return _cell(s, s.quantiles[50])
    return charts.short(max(s.values, key=lambda v: (s.values[v], v))) if s.values else "-"


def _cell(s: Summary, value: float) -> str:
    if s.type != "date":
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=value)
    return f"{moment:%Y-%m-%d}" if 1 < moment.year < 9999 else "-"


def _columns(page: Page) -> str:
    key = '<p class="key"><u></u>this table' + ("<i></i>last accepted table" if page.then else "") + "</p>"
    cards = "".join(_card(page, name) for name in page.features)
    return f'<h2>Columns</h2>{key}<div class="grid">{cards}</div>'


def _card(page: Page, name: str) -> str:
    now, problem = page.now.columns[name], page.chosen.problem
    roles = {problem.target: "target", problem.time: "time", problem.group: "group"}
    role = f"<b>{roles[name]}</b> · " if name in roles else ""
    gaps = f" · {charts.percent(now.missing)} missing" if now.missing else ""
    ends = ""
    if now.quantiles:
        low, middle, high = (escape(_cell(now, now.quantiles[at])) for at in (0, 50, -1))
        middle = "" if now.type == "date" else f"median {middle}"
        ends = f'<div class="ends"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
    told = [f for f in page.findings if f.column == name and f.level != "pass"]
    notes = "".join(f'<p class="told {f.level}">{escape(_words(f.check))}</p>' for f in told)
    picture = charts.picture(now, page.then.columns.get(name) if page.then else None)
    return (
        f'<div class="card"><h3>{escape(name)}</h3><div class="kind">{role}{now.type} · {now.distinct:,} '
        f"values{gaps}</div>{picture}{ends}{notes}</div>"
    )


def _missing(page: Page) -> str:
    gaps = [(n, page.now.columns[n].missing) for n in page.features if page.now.columns[n].missing]
    if not gaps:
        return "<h2>Missing values</h2><p>None.</p>"
    gaps.sort(key=lambda item: -item[1])
    before = page.then.columns if page.then else {}
    lines = "".join(charts.line(n, share, before[n].missing if n in before else None) for n, share in gaps[: 2 * LIST])
    more = f'<div class="more">and {len(gaps) - 2 * LIST} more columns</div>' if len(gaps) > 2 * LIST else ""
    full = len(page.features) - len(gaps)
    return (
        f"<h2>Missing values</h2><p>Share of rows; {_many(full, 'column')} {'is' if full == 1 else 'are'} complete.</p>"
        f'<div class="card wide">{lines}{more}</div>'
    )


def _associations(page: Page) -> str:
    names = tuple(n for n in page.features if not page.now.columns[n].silent and page.now.columns[n].type != "text")
    if len(names) < 2 or page.chosen.problem.target not in names:
        return ""
    with_target, found = association.measure(page.sample, names, SQUARE)
    lines = "".join(charts.strength(name, share) for name, share in list(with_target.items())[:LIST])
    return (
        "<h2>What goes together</h2><p>Cramér's V, 0 to 1, numbers cut at their quantiles: bent relations count as much as "
        f'straight ones.</p><div class="card wide"><h3>with {escape(names[0])}</h3><br>{lines}</div><br>'
        f'<div class="card scroll"><h3>between columns</h3><br>{charts.heatmap(list(found.names), found.strength.tolist())}</div>'
    )
