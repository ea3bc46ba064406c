"""How pages and pictures look: the stylesheet of the HTML pages, and size, colours and ticks of matplotlib figures
(never pyplot: no global state).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.io import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_CSS = """
:root { --ink:#1d2733; --soft:#5c6b7a; --faint:#e6ebf0; --paper:#f6f8fa; --card:#fff; --now:#3b7dd8; --then:#e8833a;
  --pass:#2e8b57; --warn:#b7791f; --stop:#c53030; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6edf3; --soft:#9aa7b4; --faint:#2b333d; --paper:#0f141a;
  --card:#181f27; --now:#5b9bf0; --then:#f0a060; --pass:#56b881; --warn:#e0a84a; --stop:#f07070; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }
main { max-width:1120px; margin:0 auto; padding:36px 24px 72px }
header { background:var(--card); border-radius:14px; padding:26px 30px; border-left:7px solid var(--level);
  box-shadow:0 1px 3px #0001 }
header.pass { --level:var(--pass) } header.warn { --level:var(--warn) } header.stop { --level:var(--stop) }
h1 { font-size:15px; font-weight:600; color:var(--soft); margin:0 0 6px }
h2 { font-size:19px; margin:40px 0 4px } h2 + p { margin:0 0 14px; color:var(--soft) }
.verdict { font-size:23px; line-height:1.35; font-weight:600; margin:0; letter-spacing:-.01em }
.verdict + p { margin:8px 0 0; color:var(--soft); font-size:16px }
table { width:100%; border-collapse:collapse; background:var(--card); border-radius:12px; overflow:hidden;
  box-shadow:0 1px 3px #0001 }
th { text-align:left; font-size:12px; font-weight:600; color:var(--soft); padding:10px 14px; border-bottom:1px solid var(--faint) }
td { padding:10px 14px; border-bottom:1px solid var(--faint); vertical-align:top; overflow-wrap:anywhere }
tr:last-child td { border-bottom:0 } td.num, th.num { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums }
td.name { font-weight:600; min-width:150px } td.check { font-weight:600; white-space:nowrap }
.level { display:inline-block; white-space:nowrap; border-radius:99px; padding:1px 10px; font-size:12px; font-weight:700;
  color:#fff; background:var(--level) }
.level.pass { --level:var(--pass) } .level.warn { --level:var(--warn) } .level.stop { --level:var(--stop) }
.fine { color:var(--soft); font-size:14px; margin:14px 2px } .fine b { color:var(--pass) }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(256px,1fr)); gap:14px }
.card { background:var(--card); border-radius:12px; padding:14px 16px; box-shadow:0 1px 3px #0001; min-width:0 }
.card h3 { font-size:15px; margin:0; overflow-wrap:anywhere; line-height:1.3 }
.card .kind { color:var(--soft); font-size:12.5px; margin:1px 0 9px } .card .kind b { color:var(--now) }
.card .ends { display:flex; justify-content:space-between; color:var(--soft); font-size:12px; font-variant-numeric:tabular-nums;
  border-top:1px solid var(--faint); padding-top:3px }
.card .told { font-size:12.5px; color:var(--warn); margin:7px 0 0 } .card .told.stop { color:var(--stop) }
svg.now { display:block; width:100%; height:64px } svg.now rect { fill:var(--now); opacity:.8 }
svg .then { fill:none; stroke:var(--then); stroke-width:1.6; vector-effect:non-scaling-stroke }
.bar { display:grid; grid-template-columns:minmax(0,38%) 1fr 54px; gap:8px; align-items:center; font-size:12.5px; height:17px }
.bar span { overflow:hidden; text-overflow:ellipsis; white-space:nowrap } .bar b { position:relative; height:10px; background:var(--faint);
  border-radius:3px } .bar u { display:block; height:10px; background:var(--now); opacity:.8; border-radius:3px; max-width:100% }
.bar i { position:absolute; top:-2px; height:14px; width:2.5px; background:var(--then); border-radius:1px }
.bar em { font-style:normal; color:var(--soft); text-align:right; font-variant-numeric:tabular-nums }
.meter { display:flex; gap:8px; align-items:center; min-width:170px } .meter b { position:relative; flex:1; height:9px;
  background:var(--faint); border-radius:3px } .meter u { display:block; height:9px; background:var(--now); opacity:.8;
  border-radius:3px } .meter i { position:absolute; top:-2px; height:13px; width:2.5px; background:var(--then) }
.meter em { font-style:normal; width:64px; white-space:nowrap; text-align:right; font-variant-numeric:tabular-nums }
.more, .none { color:var(--soft); font-size:12px; margin:2px 0 }
.wide .bar { grid-template-columns:minmax(0,210px) 1fr 60px; height:23px; font-size:14px }
.two { display:grid; grid-template-columns:1fr 1fr; gap:14px; align-items:start }
@media (max-width:760px) { .two { grid-template-columns:1fr } }
.heat { max-width:100%; height:auto } .heat rect { fill:var(--now) } .heat text { font-size:11px; fill:var(--soft) }
.heat text.light { fill:#fff } .heat text.self { font-size:10.5px } .scroll { overflow-x:auto }
.key { font-size:13px; color:var(--soft) } .key u { display:inline-block; width:12px; height:10px; background:var(--now); opacity:.8;
  border-radius:2px; margin-right:5px; vertical-align:baseline }
.key i { display:inline-block; width:14px; height:0; border-top:2px solid var(--then); margin:0 5px 3px 14px }
footer { margin-top:44px; color:var(--soft); font-size:13px }
@media print { body { background:#fff } .card, table, header { box-shadow:none; border:1px solid #ddd; break-inside:avoid } }
"""


BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, INK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#222222", "#8A8A8A",
)  # fmt: skip
SOFT_INK = "#555555"
SERIES_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P")
FIGURE_DPI = 150
# More points than this hide each other: from here on density is drawn.
MAX_PLOTTED_POINTS = 3_000


def build_figure(
    title: str, subtitle: str, panels: Sequence[float] = (1,), width: float = 8, height: float = 4.5
) -> tuple[Figure, list[Axes]]:
    """A figure in inches with a heading, and its axes side by side, as wide as `panels` say."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=FIGURE_DPI)
    figure.set_layout_engine("constrained", rect=(0.005, 0.0, 0.99, 1 - 0.68 / height), w_pad=0.08, h_pad=0.06)
    figure.text(
        0.1 / width,
        1 - 0.12 / height,
        title,
        ha="left",
        va="top",
        fontsize=_fit_font_size(title, 12.5, width),
        fontweight="bold",
        color=INK,
    )
    figure.text(
        0.1 / width,
        1 - 0.41 / height,
        subtitle,
        ha="left",
        va="top",
        fontsize=_fit_font_size(subtitle, 9, width),
        color=SOFT_INK,
    )
    axes = figure.subplots(1, len(panels), width_ratios=list(panels), squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
        ax.set_axisbelow(True)
        ax.grid(color="#E6E6E6", linewidth=0.7)
    return figure, list(axes)


def _fit_font_size(text: str, size: float, width: float) -> float:
    """The font size, smaller where the text would run off `width` inches; a letter is about 0.62 of it wide."""
    return min(size, (width - 0.2) * 72 / (0.62 * max(len(text), 1)))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=FIGURE_DPI, pil_kwargs={"compress_level": 4}))


def format_axes(*axes: Any) -> None:
    """Few ticks on these linear axes (x or y), thousands separated where numbers are large."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in axes:
        if axis.get_scale() == "linear" and axis.get_major_locator().__class__.__name__ == "AutoLocator":
            axis.set_major_locator(MaxNLocator(6))
        low, high = axis.get_view_interval()
        if max(abs(low), abs(high)) >= 10_000:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
