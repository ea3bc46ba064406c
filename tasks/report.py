"""The data page: one self-contained HTML file about a table, verdict first. What it says; templates/data_report.html has its form.

From aggregates and a sample: as quick for ten million rows as for ten thousand. Same table, same bytes: DVC hashes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import association, measure, tables
from windvane.tasks import report_charts as charts
from windvane.tasks import report_text as text
from windvane.tasks.digest import Digest, Summary, apart, gap
from windvane.tasks.findings import Finding
from windvane.tasks.places import DATA
from windvane.tasks.report_charts import ColumnChart, ShareBar
from windvane.tasks.settings import Settings
from windvane.templates import render_page

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


@dataclass(frozen=True)
class ColumnChange:
    """How far a column lies from the last accepted table: `moved` is a share of rows, None where nothing can be compared."""

    name: str
    moved: float | None = None
    usual: float = 0.0
    middle: str = ""
    missing: str = ""


@dataclass(frozen=True)
class ColumnCard:
    """A column's name, role, type, how many distinct values it has, share missing, chart, ends of the chart's axis, and findings."""

    name: str
    role: str | None
    type: str
    distinct: str
    missing: float
    chart: ColumnChart
    ends: tuple[str, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True)
class ColumnAssociations:
    """Association of columns with the target, and of pairs: names, short names, and a square of Cramér's V."""

    with_target: list[ShareBar]
    names: tuple[str, ...]
    labels: list[str]
    strength: list[list[float]]


def write(page: Page, path: Path) -> None:
    """Write the page, whole or not at all."""
    html = render(page)
    tables.write_whole(path, lambda part: part.write_text(html, encoding="utf-8"))


def render(page: Page) -> str:
    """The page as HTML. Every word of the table's own is escaped; nothing is fetched and no script runs."""
    found, changes = page.findings, _changes(page)
    missing = _missing(page)
    return render_page(
        "data_report.html",
        text=text,
        percent=charts.percent,
        project=page.chosen.project,
        source=text.address(page.chosen.data.source),
        target=page.chosen.problem.target,
        level=next((level for level in ("stop", "warn") if any(f.level == level for f in found)), "pass"),
        verdict=verdict(found),
        extent=_extent(page),
        findings=[f for f in found if f.level != "pass" or f.figure is not None],
        passed=[f.message for f in found if f.level == "pass" and f.figure is None],
        changes=changes,
        gone=[name for name in page.then.columns if name not in page.now.columns] if page.then else [],
        columns=[_card(page, name) for name in page.features],
        missing=missing[: 2 * LIST],
        more_missing=len(missing) - 2 * LIST,
        complete=len(page.features) - len(missing),
        associations=_associations(page),
        sampled=len(page.sample),
    )


def verdict(findings: tuple[Finding, ...]) -> str:
    """The first sentence: can a model be trained on the table?"""
    stops, warns = (sum(f.level == level for f in findings) for level in ("stop", "warn"))
    if stops:
        return f"This table cannot train a model: fix {text.many(stops, 'problem')} first."
    if warns:
        return f"This table can train a model, with {text.many(warns, 'warning')}."
    return "This table can train a model: every check passed."


def _extent(page: Page) -> str:
    now, then, time = page.now, page.then, page.chosen.problem.time
    extent = f"{now.rows:,} rows with a label, {len(now.columns)} columns"
    if time and now.columns[time].quantiles:
        ends = now.columns[time]
        extent += f", from {text.cell(ends, ends.quantiles[0])} to {text.cell(ends, ends.quantiles[-1])}"
    if then is None:
        return f"{extent}; no table was accepted before it."
    return f"{extent}; the last accepted table had {then.rows:,} rows."


def _changes(page: Page) -> list[ColumnChange] | None:
    """The columns that moved most, first those that cannot be compared; None without an accepted table."""
    if page.then is None:
        return None
    changes = [_change(name, page.now.columns[name], page.then.columns.get(name)) for name in page.features]
    return sorted(changes, key=lambda change: -1.0 if change.moved is None else -change.moved)[:CHANGES]


def _change(name: str, now: Summary, then: Summary | None) -> ColumnChange:
    if then is None or then.type != now.type:
        return ColumnChange(name)
    moved = gap(then.quantiles, now.quantiles) if then.quantiles else apart(then.values, now.values)
    middle = _change_of(text.middle(then), text.middle(now))
    return ColumnChange(
        name, moved, then.wander, middle, _change_of(charts.percent(then.missing), charts.percent(now.missing))
    )


def _change_of(then: str, now: str) -> str:
    return now if then == now else f"{then} → {now}"


def _card(page: Page, name: str) -> ColumnCard:
    now, problem = page.now.columns[name], page.chosen.problem
    roles = {problem.target: "target", problem.time: "time", problem.group: "group"}
    ends: tuple[str, ...] = ()
    if now.quantiles:
        low, middle, high = (text.cell(now, now.quantiles[at]) for at in (0, 50, -1))
        ends = (low, "" if now.type == "date" else f"median {middle}", high)
    return ColumnCard(
        name,
        roles.get(name),
        now.type,
        measure.told(now.distinct, page.now.rows),
        now.missing,
        charts.picture(now, page.then.columns.get(name) if page.then else None, page.now.rows),
        ends,
        tuple(f for f in page.findings if f.column == name and f.level != "pass"),
    )


def _missing(page: Page) -> list[ShareBar]:
    """Columns with missing values, those with the most first."""
    before = page.then.columns if page.then else {}
    gaps = [(n, page.now.columns[n].missing) for n in page.features if page.now.columns[n].missing]
    gaps.sort(key=lambda item: -item[1])
    return [charts.line(n, share, before[n].missing if n in before else None) for n, share in gaps]


def _associations(page: Page) -> ColumnAssociations | None:
    names = tuple(n for n in page.features if not page.now.columns[n].silent and page.now.columns[n].type != "text")
    if len(names) < 2 or page.chosen.problem.target not in names:
        return None
    with_target, found = association.measure(page.sample, names, SQUARE)
    return ColumnAssociations(
        [charts.strength(name, share) for name, share in list(with_target.items())[:LIST]],
        found.names,
        [charts.short(name) for name in found.names],
        found.strength.tolist(),
    )
