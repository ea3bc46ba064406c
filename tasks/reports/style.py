"""How pages and pictures look: the stylesheet of the HTML pages, and size, colours and ticks of matplotlib figures
(never pyplot: no global state).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from windvane.tasks.io import write_whole

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
    """A figure in inches with a heading, and its axes side by side, as wide as `panels` set."""
    figure = Figure(figsize=(width, height), dpi=FIGURE_DPI)
    figure.set_layout_engine("constrained", rect=(0.005, 0.0, 0.99, 1 - 0.68 / height), w_pad=0.08, h_pad=0.06)
    for text, down, size, weight, colour in ((title, 0.12, 12.5, "bold", INK), (subtitle, 0.41, 9, "normal", SOFT_INK)):
        # Smaller where the text would run off the figure; a letter is about 0.62 of the size wide.
        fitting = min(size, (width - 0.2) * 72 / (0.62 * max(len(text), 1)))
        style: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": fitting, "fontweight": weight, "color": colour}
        figure.text(0.1 / width, 1 - down / height, text, **style)
    axes = figure.subplots(1, len(panels), width_ratios=list(panels), squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
        ax.xaxis.label.set_size(9)
        ax.yaxis.label.set_size(9)
        ax.set_axisbelow(True)
        ax.grid(color="#E6E6E6", linewidth=0.7)
    return figure, list(axes)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=FIGURE_DPI, pil_kwargs={"compress_level": 4}))


def format_axes(*axes: Any) -> None:
    """Few ticks on these linear axes (x or y), thousands separated where numbers are large."""
    for axis in axes:
        if axis.get_scale() == "linear" and axis.get_major_locator().__class__.__name__ == "AutoLocator":
            axis.set_major_locator(MaxNLocator(6))
        low, high = axis.get_view_interval()
        if max(abs(low), abs(high)) >= 10_000:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
