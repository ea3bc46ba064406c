"""Pictures that every kind of problem shares: ladder, search, fit, importance, slices. Draws; works nothing out.

The look of a sheet is in tasks/sheets.py; what only one kind has, in tasks/plots_<kind>.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from windvane.tasks.sheets import BLUE, GREY, INK, MARKERS, ORANGE, SERIES, SOFT, VERMILION, numbers, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from windvane.tasks.curves import Curve
    from windvane.tasks.evaluation import Evaluation
    from windvane.tasks.importance import Importance
    from windvane.tasks.problems import Metric
    from windvane.tasks.search import Found
    from windvane.tasks.slices import Slice

MOST_BARS = 15


def of_target(metric: str, target: str) -> str:
    """How a metric stands on an axis: with the target's unit, where it has one."""
    return f"{metric}, in units of {target}" if metric in ("mae", "rmse") else f"{metric} of {target}"


def wish(metric: Metric) -> str:
    """Which way is good."""
    return "higher is better" if metric.greater_is_better else "lower is better"


def ladder(found: Found, metric: Metric, target: str) -> Figure:
    """Candidates from simple to strong: validation and training score of each one's best configuration."""
    results = [r for r in found.results if metric.name in r.validation]
    figure, (ax,) = sheet(
        f"{found.best.candidate.capitalize()} does best on the validation rows",
        f"Best configuration of each candidate, simplest on top; {wish(metric)}",
        height=1.6 + 0.5 * max(len(results), 2),
    )
    for y, result in enumerate(results):
        best = result.candidate == found.best.candidate
        there, here = result.train.get(metric.name), result.validation[metric.name]
        colour = VERMILION if best else BLUE
        if there is not None:
            ax.plot([there, here], [y, y], color=colour, linewidth=1.5, alpha=0.5, zorder=2)
            ax.plot(there, y, "o", markersize=7, markerfacecolor="white", markeredgecolor=colour, zorder=3)
        ax.plot(here, y, "o", markersize=8, color=colour, zorder=4)
        told = f"{here:,.4g}" if abs(here) < 10_000 else f"{here:,.0f}"
        weight = "bold" if best else "normal"
        ax.annotate(told, (here, y), (0, 7), textcoords="offset points", ha="center", fontsize=8.5, fontweight=weight)
    ax.plot([], [], "o", color=GREY, label="validation rows")
    ax.plot([], [], "o", markerfacecolor="white", markeredgecolor=GREY, label="training rows")
    ax.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    ax.set_yticks(range(len(results)), [r.candidate for r in results])
    ax.set_ylim(len(results) - 0.5, -0.6)
    ax.margins(x=0.08)
    ax.set_xlabel(of_target(metric.name, target), fontsize=9)
    numbers(ax.xaxis)
    return figure


def trials(found: Found, metric: Metric, target: str) -> Figure:
    """Every configuration that was tried, candidate by candidate, with the best so far."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    tried = [r for r in found.results if r.candidate != "dummy"]
    complete = [t.validation for r in tried for t in r.trials if t.validation is not None]
    number = sum(len(r.trials) for r in tried)
    figure, (ax,) = sheet(
        f"{number} configurations tried, {len(complete)} of them to the end",
        f"One mark each, in the order of the ladder; the line is the best so far; {wish(metric)}",
    )
    at, best = 0, np.nan
    line: list[float] = []
    for i, result in enumerate(tried):
        colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        scores = [t.validation if t.validation is not None else np.nan for t in result.trials]
        ax.plot(
            range(at, at + len(scores)), scores, marker, color=colour, markersize=6, alpha=0.85, label=result.candidate
        )
        given_up = [at + j for j, s in enumerate(scores) if np.isnan(s)]
        ax.plot(given_up, [0.02] * len(given_up), "x", color=colour, transform=ax.get_xaxis_transform(), clip_on=False)
        for score in scores:
            best = score if metric.better(score, best) else best
            line.append(best)
        at += len(scores)
    ax.step(range(len(line)), line, where="post", color=INK, linewidth=1.3, zorder=1)
    _without_outliers(ax, complete, metric)
    if number > len(complete):
        ax.plot([], [], "x", color=GREY, label="pruned or failed")
    if tried:
        ax.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.set_xlabel("trial", fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_ylabel(f"{of_target(metric.name, target)}, on validation rows", fontsize=9)
    numbers(ax.xaxis, ax.yaxis)
    return figure


def _without_outliers(ax: Axes, scores: list[float], metric: Metric) -> None:
    """Let hopeless configurations not squeeze the others: the axis ends at the worse quartile, and somewhat beyond."""
    import numpy as np

    if len(scores) < 4:
        return
    good, poor = (
        (max(scores), np.quantile(scores, 0.25))
        if metric.greater_is_better
        else (min(scores), np.quantile(scores, 0.75))
    )
    edge = good + 2.5 * (poor - good)
    beyond = sum(s < edge if metric.greater_is_better else s > edge for s in scores)
    kept = [s for s in scores if (s >= edge if metric.greater_is_better else s <= edge)]
    worst = min(kept) if metric.greater_is_better else max(kept)
    room = 0.12 * (worst - good)
    if not beyond or not room:
        return
    ax.set_ylim(*sorted((good - room, worst + room)))
    corner, inwards = ((1, 0), (-4, 4)) if metric.greater_is_better else ((1, 1), (-4, -12))
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "fontsize": 8}
    ax.annotate(f"{beyond} worse, out of sight", corner, inwards, color=SOFT, **style)


def fit(evaluation: Evaluation, target: str) -> Figure:
    """Learning curve and train-against-validation curve, under the diagnosis."""
    curves = [c for c in (evaluation.learning, evaluation.complexity) if c is not None]
    figure, axes = sheet(
        f"Fit: {evaluation.diagnosis.name}",
        "Filled: rows it was not fitted on; hollow: rows it was fitted on; "
        + ("higher is better" if evaluation.greater_is_better else "lower is better"),
        [1] * len(curves),
        width=5 * len(curves) if len(curves) > 1 else 8,
    )
    for ax, curve, title in zip(axes, curves, ("Learning curve", "Train against validation"), strict=False):
        _curve(ax, curve)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_ylabel(of_target(evaluation.metric, target), fontsize=9)
        numbers(ax.yaxis)
    axes[0].set_xlim(left=0)
    return figure


def _curve(ax: Axes, curve: Curve) -> None:
    at = [p.at for p in curve.points]
    known = [p.train if p.train is not None else float("nan") for p in curve.points]
    unknown = [p.validation if p.validation is not None else float("nan") for p in curve.points]
    ax.plot(at, known, "o-", color=ORANGE, markerfacecolor="white", markersize=5.5, label="training rows")
    ax.plot(at, unknown, "o-", color=BLUE, markersize=5.5, label="validation rows")
    if curve.chosen is not None and curve.axis != "training rows":
        ax.axvline(curve.chosen, color=GREY, linestyle="--", linewidth=1, label="chosen")
    if min(at) > 0 and max(at) / min(at) > 12 and len(at) < 8:
        ax.set_xscale("log")
        ax.set_xticks(at, [f"{a:.3g}" for a in at])
        ax.minorticks_off()
    ax.legend(fontsize=8.5, frameon=False)
    ax.set_xlabel(f"{curve.axis} ({curve.note})", fontsize=9)
    numbers(ax.xaxis)


def importance(leaned: Sequence[Importance], loss_name: str, target: str) -> Figure:
    """Which columns the model leans on, most first, with 95 % intervals."""
    shown = leaned[:MOST_BARS]
    figure, (ax,) = sheet(
        f"The model leans most on {shown[0].column}" if shown and shown[0].rise > 0 else "The model leans on no column",
        f"Rise of the mean {loss_name} on validation rows when a column is shuffled; lines: 95 % intervals"
        + (f"; {len(shown)} of {len(leaned)} columns" if len(leaned) > len(shown) else ""),
        height=1.5 + 0.3 * max(len(shown), 3),
    )
    ax.barh(range(len(shown)), [i.rise for i in shown], color=BLUE, height=0.65)
    for y, i in enumerate(shown):
        if i.low is not None and i.high is not None:
            ax.plot([i.low, i.high], [y, y], color=INK, linewidth=1.3)
    _names(ax, [i.column for i in shown])
    ax.set_xlabel(f"rise of the mean {loss_name} of {target}", fontsize=9)
    numbers(ax.xaxis)
    return figure


def slices(found: Sequence[Slice], loss_name: str, target: str) -> Figure:
    """Where the model errs more than elsewhere, worst first, with intervals that hold for all slices at once."""
    shown = found[:MOST_BARS]
    clear = sum(s.clear for s in found)
    title = (
        f"{clear} of {len(found)} slices are clearly worse than the rest"
        if clear
        else "No slice is clearly worse than the rest"
    )
    figure, (ax,) = sheet(
        title,
        f"Mean {loss_name} there minus elsewhere, on held-out rows; lines: intervals for all {len(found)} at once",
        height=1.6 + 0.3 * max(len(shown), 3),
    )
    for y, s in enumerate(shown):
        colour = VERMILION if s.clear else GREY
        ax.plot([s.low, s.high], [y, y], color=colour, linewidth=1.6)
        ax.plot(s.excess, y, "D" if s.clear else "o", color=colour, markersize=6)
    ax.axvline(0, color=INK, linewidth=1)
    _names(ax, [f"{s.column}: {s.value}  ({s.rows:,} rows)" for s in shown])
    ax.plot([], [], "D", color=VERMILION, label="clearly worse")
    ax.plot([], [], "o", color=GREY, label="may be chance")
    ax.legend(fontsize=8.5, frameon=False, loc="lower right")
    ax.set_xlabel(f"excess of the mean {loss_name} of {target}", fontsize=9)
    numbers(ax.xaxis)
    return figure


def _names(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), [n if len(n) <= 48 else n[:46] + "…" for n in names])
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
