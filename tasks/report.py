"""The data page: one self-contained HTML file about a table, verdict first. Works out nothing that is not drawn here.

From aggregates and a sample: as quick for ten million rows as for ten thousand. Same table, same bytes: DVC hashes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import association, measure, tables
from windvane.tasks import report_charts as charts
from windvane.tasks import report_text as say
from windvane.tasks.digest import Digest, apart, gap
from windvane.tasks.findings import Finding
from windvane.tasks.places import DATA
from windvane.tasks.report_style import CSS
from windvane.tasks.settings import Settings

if TYPE_CHECKING:
    import polars as pl

REPORT = DATA / "report.html"
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
        return f"This table must not teach: {say.many(stops, 'thing')} must be mended first."
    if warns:
        return f"This table may teach; {say.many(warns, 'thing')} deserve{'s' if warns == 1 else ''} a look."
    return "This table may teach: nothing looks odd."


def _verdict(page: Page) -> str:
    now, then, problem = page.now, page.then, page.chosen.problem
    level = next((level for level in ("stop", "warn") if any(f.level == level for f in page.findings)), "pass")
    text = f"{now.rows:,} rows with a label, {len(now.columns)} columns"
    if problem.time and page.now.columns[problem.time].quantiles:
        ends = page.now.columns[problem.time]
        text += f", from {say.cell(ends, ends.quantiles[0])} to {say.cell(ends, ends.quantiles[-1])}"
    if then is None:
        text += "; no table was accepted before it."
    else:
        text += f"; the last accepted table had {then.rows:,} rows."
    return (
        f'<header class="{level}"><h1>{escape(page.chosen.project)} · {escape(say.address(page.chosen.data.source))} · predicts '
        f'{escape(problem.target)}</h1><p class="verdict">{verdict(page.findings)}</p><p>{escape(text)}</p></header>'
    )


def _findings(page: Page) -> str:
    told = [f for f in page.findings if f.level != "pass" or f.figure is not None]
    rows = "".join(
        f'<tr><td><span class="level {f.level}">{f.level}</span></td><td class="check">{escape(say.words(f.check))}</td>'
        f'<td class="name">{escape(f.column or "")}</td><td class="num">{say.figure(f.figure)}</td>'
        f'<td class="num">{say.figure(f.limit)}</td><td>{escape(say.plain(f.message))}</td></tr>'
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
        middle = f"{say.middle(then)} → {say.middle(now)}" if say.middle(then) != say.middle(now) else say.middle(now)
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
        low, middle, high = (escape(say.cell(now, now.quantiles[at])) for at in (0, 50, -1))
        middle = "" if now.type == "date" else f"median {middle}"
        ends = f'<div class="ends"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
    told = [f for f in page.findings if f.column == name and f.level != "pass"]
    notes = "".join(f'<p class="told {f.level}">{escape(say.words(f.check))}</p>' for f in told)
    picture = charts.picture(now, page.then.columns.get(name) if page.then else None, page.now.rows)
    different = measure.told(now.distinct, page.now.rows)
    return (
        f'<div class="card"><h3>{escape(name)}</h3><div class="kind">{role}{now.type} · {different} '
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
        f"<h2>Missing values</h2><p>Share of rows; {say.many(full, 'column')} {'is' if full == 1 else 'are'} complete.</p>"
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
