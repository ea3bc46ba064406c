"""The data report: one HTML file about a table, verdict first, with small SVG pictures drawn from its summary.

Same table, same bytes. How strongly columns go together: 0 to 1, for numbers, dates, words and missing values alike (Cramer's V).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import polars as pl
from numpy.typing import NDArray

from windvane.tasks import io
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate import table_statistics
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_profile import (
    ColumnSummary,
    TableSummary,
    convert_to_moment,
    convert_to_numbers,
    measure_quantile_distance,
    measure_share_distance,
)
from windvane.templates import render_page

HISTOGRAM_BINS = 30
# Bars of a category that are drawn, and letters of a name beside one.
MAX_CHART_BARS, MAX_LABEL_LETTERS = 5, 18


@dataclass(frozen=True)
class ShareBar:
    """A named share as a bar: `share` of the scale (0 to 1), an `earlier` one on it or None, and the figure in words."""

    name: str
    share: float
    earlier: float | None
    figure: str

    @property
    def label(self) -> str:
        """The name, short enough for one line."""
        return shorten_name(self.name)


@dataclass(frozen=True)
class ColumnChart:
    """A column's distribution: densities (heights from 0 to 1) `now` and `then`, or `bars` and how many values `more` there are."""

    now: tuple[float, ...] = ()
    then: tuple[float, ...] | None = None
    bars: tuple[ShareBar, ...] = ()
    more: str | None = None


def draw_distribution(now: ColumnSummary, then: ColumnSummary | None, rows: int = 0) -> ColumnChart:
    """The distribution of a column of `rows` rows, now and in the last accepted table."""
    if then is not None and then.type != now.type:
        then = None
    if now.type in ("category", "boolean", "text") or (now.values and len(now.values) <= 2):
        return draw_bars(now.values, then.values if then else None, now.distinct, rows)
    return draw_histogram(now.quantiles, then.quantiles if then else None)


def draw_histogram(now: Sequence[float], then: Sequence[float] | None) -> ColumnChart:
    """Densities over the middle 98 % of both, from their quantiles."""
    if not now:
        return ColumnChart()
    both = [q for q in (now, then) if q]
    low, high = min(q[1] for q in both), max(q[-2] for q in both)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Half a bin wider on either side: a value that many rows share, such as zero, lies within a bin, not on its edge.
    wide = (high - low) / (HISTOGRAM_BINS - 1)
    edges = [low + wide * (i - 0.5) for i in range(HISTOGRAM_BINS + 1)]
    shares = [_shares(q, edges) for q in both]
    top = max(max(s) for s in shares) or 1.0
    heights = [tuple(share / top for share in s) for s in shares]
    return ColumnChart(heights[0], heights[1] if len(heights) > 1 else None)


def _shares(quantiles: Sequence[float], edges: list[float]) -> list[float]:
    q = np.asarray(quantiles)
    # Share of quantiles up to an edge: half of those that lie on it go to either side.
    upto = (np.searchsorted(q, edges, side="left") + np.searchsorted(q, edges, side="right")) / 2 / len(q)
    return [max(float(b - a), 0.0) for a, b in pairwise(upto)]


def draw_bars(now: dict[str, float], then: dict[str, float] | None, distinct: int, rows: int = 0) -> ColumnChart:
    """Shares of the most frequent of `distinct` values; a tick shows the share in the last accepted table."""
    names = sorted(now, key=lambda v: (-now[v], v))[:MAX_CHART_BARS]
    top = max((share for of in (now, then or {}) for name, share in of.items() if name in names), default=1.0)
    before_shares = {name: None if then is None else then.get(name, 0.0) / top for name in names}
    bars = tuple(ShareBar(name, now[name] / top, before_shares[name], format_percent(now[name])) for name in names)
    rest = distinct - len(names)
    more = table_statistics.describe_distinct(rest, rows) if names and rest > 0 else None
    return ColumnChart(bars=bars, more=more)


def shorten_name(name: str) -> str:
    """A name on one line of a picture."""
    flat = " ".join(name.split()) or "(blank)"
    return flat if len(flat) <= MAX_LABEL_LETTERS else flat[: MAX_LABEL_LETTERS - 1] + "…"


def format_percent(share: float) -> str:
    """A share as people read it."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def strip_address(source: str) -> str:
    """Where the rows come from, without what may be secret in a URL: user, password, query."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def strip_message_key(message: str) -> str:
    """Without the key that a stop's message begins with."""
    key, _, rest = message.partition(": ")
    known = ("schema.yaml", "data.source", "problem.target", "problem.time")
    return rest[:1].upper() + rest[1:] if key in known else message


def format_figure(value: float | str | None) -> str:
    """A measured value."""
    if value is None:
        return ""
    if isinstance(value, str):
        return shorten_name(value)
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
    moment = convert_to_moment(value)
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
        """Columns that are on the page, target first."""
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
    notes: tuple[TableFinding, ...]


@dataclass(frozen=True)
class AssociationSection:
    """Association of columns with the target, and of pairs: names, short names, and a square of Cramér's V."""

    with_target: list[ShareBar]
    names: tuple[str, ...]
    labels: list[str]
    strength: list[list[float]]


def write_data_report(page: DataReport, path: Path) -> None:
    """Write the page, whole or not at all."""
    html = render_data_report(page)
    io.write_whole(path, lambda part: part.write_text(html, encoding="utf-8"))


def render_data_report(page: DataReport) -> str:
    """The page as HTML. Every word of the table's own is escaped; nothing is fetched and no script runs."""
    found, missing = page.findings, _render_missing(page)
    return render_page(
        "data_report.html",
        describe_check=lambda check: check.replace("_", " "),
        format_figure=format_figure,
        strip_message_key=strip_message_key,
        format_count=format_count,
        percent=format_percent,
        project=page.chosen.project,
        source=strip_address(page.chosen.data.source),
        target=page.chosen.problem.target,
        level=next((level for level in ("stop", "warn") if any(f.level == level for f in found)), "pass"),
        verdict=describe_data_verdict(found),
        extent=_extent(page),
        findings=[f for f in found if f.level != "pass" or f.figure is not None],
        passed=[f.message for f in found if f.level == "pass" and f.figure is None],
        changes=_render_changes(page),
        gone=[name for name in page.then.columns if name not in page.now.columns] if page.then else [],
        columns=[_render_column_card(page, name) for name in page.features],
        missing=missing[: 2 * MAX_LISTED_PAIRS],
        more_missing=len(missing) - 2 * MAX_LISTED_PAIRS,
        complete=len(page.features) - len(missing),
        associations=_render_associations(page),
        sampled=len(page.sample),
    )


def describe_data_verdict(findings: tuple[TableFinding, ...]) -> str:
    """The first sentence: can a model be trained on the table?"""
    stops, warns = (sum(f.level == level for f in findings) for level in ("stop", "warn"))
    if stops:
        return f"This table cannot train a model: fix {format_count(stops, 'problem')} first."
    if warns:
        return f"This table can train a model, with {format_count(warns, 'warning')}."
    return "This table can train a model: every check passed."


def _extent(page: DataReport) -> str:
    now, then, time = page.now, page.then, page.chosen.problem.time
    extent = f"{now.rows:,} rows with a label, {len(now.columns)} columns"
    if time and now.columns[time].quantiles:
        ends = now.columns[time]
        first, last = (format_column_value(ends, ends.quantiles[at]) for at in (0, -1))
        extent += f", from {first} to {last}"
    if then is None:
        return f"{extent}; no table was accepted before it."
    return f"{extent}; the last accepted table had {then.rows:,} rows."


def _render_changes(page: DataReport) -> list[ColumnChange] | None:
    """The columns that moved most, first those that cannot be compared; None without an accepted table."""
    if page.then is None:
        return None
    changes = [_change(name, page.now.columns[name], page.then.columns.get(name)) for name in page.features]
    return sorted(changes, key=lambda change: -1.0 if change.moved is None else -change.moved)[:MAX_LISTED_CHANGES]


def _change(name: str, now: ColumnSummary, then: ColumnSummary | None) -> ColumnChange:
    if then is None or then.type != now.type:
        return ColumnChange(name)
    moved = (
        measure_quantile_distance(then.quantiles, now.quantiles)
        if then.quantiles
        else measure_share_distance(then.values, now.values)
    )
    middle = _change_of(format_middle(then), format_middle(now))
    missing = _change_of(format_percent(then.missing), format_percent(now.missing))
    return ColumnChange(name, moved, then.wander, middle, missing)


def _change_of(then: str, now: str) -> str:
    return now if then == now else f"{then} → {now}"


def _render_column_card(page: DataReport, name: str) -> ColumnCard:
    now, problem = page.now.columns[name], page.chosen.problem
    roles = {problem.target: "target", problem.time: "time", problem.group: "group"}
    ends: tuple[str, ...] = ()
    if now.quantiles:
        low, middle, high = (format_column_value(now, now.quantiles[at]) for at in (0, 50, -1))
        ends = (low, "" if now.type == "date" else f"median {middle}", high)
    return ColumnCard(
        name,
        roles.get(name),
        now.type,
        table_statistics.describe_distinct(now.distinct, page.now.rows),
        now.missing,
        draw_distribution(now, page.then.columns.get(name) if page.then else None, page.now.rows),
        ends,
        tuple(f for f in page.findings if f.column == name and f.level != "pass"),
    )


def _render_missing(page: DataReport) -> list[ShareBar]:
    """Columns with missing values, those with the most first."""
    before = page.then.columns if page.then else {}
    gaps = [(n, page.now.columns[n].missing) for n in page.features if page.now.columns[n].missing]
    gaps.sort(key=lambda item: -item[1])
    return [ShareBar(n, share, before[n].missing if n in before else None, format_percent(share)) for n, share in gaps]


def _render_associations(page: DataReport) -> AssociationSection | None:
    names = tuple(n for n in page.features if not page.now.columns[n].silent and page.now.columns[n].type != "text")
    if len(names) < 2 or page.chosen.problem.target not in names:
        return None
    with_target, shown, strength = measure_associations(page.sample, names, MAX_HEATMAP_COLUMNS)
    bars = [ShareBar(name, v, None, f"{v:.2f}") for name, v in list(with_target.items())[:MAX_LISTED_PAIRS]]
    return AssociationSection(bars, shown, [shorten_name(name) for name in shown], strength.tolist())


# Rows read, and classes into which a column's values are sorted; a missing value is one more.
MAX_ASSOCIATION_ROWS = 5_000
ASSOCIATION_CLASSES = 8


def measure_associations(
    sample: pl.DataFrame, names: tuple[str, ...], most: int
) -> tuple[dict[str, float], tuple[str, ...], NDArray[np.float64]]:
    """Cramér's V, numbers cut at their quantiles, corrected for chance (Bergsma, J. Korean Stat. Soc. 2013).

    Of each of the columns `names` with the first of them, strongest first; and of all pairs among the first and the
    `most` - 1 that go with it best, by name and (k, k): all pairs of thousands of columns would take hours. Bent
    relations count as much as straight ones.
    """
    some = sample.gather_every(max(-(-len(sample) // MAX_ASSOCIATION_ROWS), 1))
    codes = {name: _codes(some[name]) for name in names}
    first = {name: _cramer(_table(codes[names[0]], codes[name]), len(some)) for name in names[1:]}
    first = dict(sorted(first.items(), key=lambda item: (-item[1], item[0])))
    kept = (names[0], *list(first)[: most - 1])
    strength = np.eye(len(kept))
    for i, name in enumerate(kept):
        for j, other in enumerate(kept[:i]):
            strength[i, j] = strength[j, i] = _cramer(_table(codes[name], codes[other]), len(some))
    return first, kept, strength


def _table(one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.float64]:
    """Counts of pairs of classes."""
    counts = np.zeros((int(one.max(initial=0)) + 1, int(other.max(initial=0)) + 1))
    np.add.at(counts, (one, other), 1)
    return counts


def _codes(values: pl.Series) -> NDArray[np.intp]:
    """Class of each value: 0 is missing."""
    if not (values.dtype.is_numeric() or values.dtype.is_temporal()):
        words = values.cast(pl.String)
        counted = words.drop_nulls().value_counts().sort(["count", words.name], descending=[True, False])
        known = {value: i + 1 for i, value in enumerate(counted[words.name].head(ASSOCIATION_CLASSES))}
        return np.array([0 if w is None else known.get(w, ASSOCIATION_CLASSES + 1) for w in words], dtype=np.intp)
    floats = convert_to_numbers(values).to_numpy()
    present = floats[~np.isnan(floats)]
    if not present.size:
        return np.zeros(len(floats), dtype=np.intp)
    cuts = np.unique(np.quantile(present, np.linspace(0, 1, ASSOCIATION_CLASSES + 1)[1:-1]))
    return np.where(np.isnan(floats), 0, np.searchsorted(cuts, floats, side="left") + 1)


def _cramer(block: NDArray[np.float64], n: int) -> float:
    rows, columns = block.sum(axis=1), block.sum(axis=0)
    block = block[rows > 0][:, columns > 0]
    r, c = block.shape
    if min(r, c) < 2:
        return 0.0
    expected = np.outer(block.sum(axis=1), block.sum(axis=0)) / n
    phi = max(float(((block - expected) ** 2 / expected).sum()) / n - (r - 1) * (c - 1) / (n - 1), 0.0)
    least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return min(float(np.sqrt(phi / least)), 1.0) if least > 0 else 0.0
