"""Every plot of a search and of an evaluation, for all problem types and for each of them.

Draws; computes nothing, and shapes no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from windvane.tasks.evaluation.model_evaluation import ModelEvaluation
from windvane.tasks.evaluation.model_inspection import ColumnImportance, ScoreCurve
from windvane.tasks.evaluation.scores import (
    PREDICTION_COLUMN,
    CalibrationCurve,
    ConfusionTable,
    SliceScore,
    count_confusion,
    measure_calibration,
    name_class_column,
    read_predictions,
)
from windvane.tasks.models.problem_types.class_labels import find_positive_class
from windvane.tasks.models.problem_types.definitions import BASELINE_CANDIDATE, Metric, Predictions, ProblemType
from windvane.tasks.reports.style import (
    BLUE,
    GREY,
    INK,
    MAX_PLOTTED_POINTS,
    ORANGE,
    SERIES_COLOURS,
    SERIES_MARKERS,
    SOFT_INK,
    VERMILION,
    build_figure,
    format_axes,
)
from windvane.tasks.search.model_search import SearchResult
from windvane.tasks.settings.problem_section import ProblemSettings

MAX_BARS = 15


def label_metric_axis(metric: str, target: str) -> str:
    """How a metric is named on an axis: with the target's unit, where it has one."""
    return f"{metric}, in units of {target}" if metric in ("mae", "rmse") else f"{metric} of {target}"


def describe_direction(metric: Metric) -> str:
    """Which way is good."""
    return "higher is better" if metric.greater_is_better else "lower is better"


def draw_candidates(found: SearchResult, metric: Metric, target: str) -> Figure:
    """Candidates from simple to strong: validation and training score of each one's best configuration."""
    results = [r for r in found.results if metric.name in r.validation]
    figure, (ax,) = build_figure(
        f"{found.best.candidate.capitalize()} does best on the validation rows",
        f"Best configuration of each candidate, simplest on top; {describe_direction(metric)}",
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
        label = f"{here:,.4g}" if abs(here) < 10_000 else f"{here:,.0f}"
        weight = "bold" if best else "normal"
        ax.annotate(label, (here, y), (0, 7), textcoords="offset points", ha="center", fontsize=8.5, fontweight=weight)
    ax.plot([], [], "o", color=GREY, label="validation rows")
    ax.plot([], [], "o", markerfacecolor="white", markeredgecolor=GREY, label="training rows")
    ax.legend(fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    ax.set_yticks(range(len(results)), [r.candidate for r in results])
    ax.set_ylim(len(results) - 0.5, -0.6)
    ax.margins(x=0.08)
    ax.set_xlabel(label_metric_axis(metric.name, target))
    format_axes(ax.xaxis)
    return figure


def draw_trials(found: SearchResult, metric: Metric, target: str) -> Figure:
    """Every configuration that was tried, candidate by candidate, with the best so far."""
    tried = [r for r in found.results if r.candidate != BASELINE_CANDIDATE]
    complete = [t.validation for r in tried for t in r.trials if t.validation is not None]
    number = sum(len(r.trials) for r in tried)
    figure, (ax,) = build_figure(
        f"{number} configurations tried, {len(complete)} of them to the end",
        f"One point each, in the order of the ladder; the line is the best so far; {describe_direction(metric)}",
    )
    at, best = 0, np.nan
    line: list[float] = []
    for i, result in enumerate(tried):
        colour, marker = SERIES_COLOURS[i % len(SERIES_COLOURS)], SERIES_MARKERS[i % len(SERIES_MARKERS)]
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
    ax.set_xlabel("trial")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_ylabel(f"{label_metric_axis(metric.name, target)}, on validation rows")
    format_axes(ax.xaxis, ax.yaxis)
    return figure


def _without_outliers(ax: Axes, scores: list[float], metric: Metric) -> None:
    """Let hopeless configurations not squeeze the others: the axis ends at the worse quartile, and somewhat beyond."""
    if len(scores) < 4:
        return
    sign = 1 if metric.greater_is_better else -1
    ranked = sign * np.array(scores)
    good = ranked.max()
    edge = good + 2.5 * (np.quantile(ranked, 0.25) - good)
    beyond, worst = (ranked < edge).sum(), ranked[ranked >= edge].min()
    room = 0.12 * (good - worst)
    if not beyond or not room:
        return
    ax.set_ylim(*sorted((sign * (good + room), sign * (worst - room))))
    corner, inwards = ((1, 0), (-4, 4)) if metric.greater_is_better else ((1, 1), (-4, -12))
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "fontsize": 8}
    ax.annotate(f"{beyond} worse, out of sight", corner, inwards, color=SOFT_INK, **style)


def draw_fit_curves(evaluation: ModelEvaluation, target: str) -> Figure:
    """Learning curve and train-against-validation curve, under the diagnosis."""
    curves = [c for c in (evaluation.learning, evaluation.complexity) if c is not None]
    figure, axes = build_figure(
        f"Fit: {evaluation.diagnosis.name}",
        "Filled: rows it was not fitted on; hollow: rows it was fitted on; "
        + ("higher is better" if evaluation.greater_is_better else "lower is better"),
        [1] * len(curves),
        width=5 * len(curves) if len(curves) > 1 else 8,
    )
    for ax, curve, title in zip(axes, curves, ("Learning curve", "Train against validation"), strict=False):
        _curve(ax, curve)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_ylabel(label_metric_axis(evaluation.metric, target))
        format_axes(ax.yaxis)
    axes[0].set_xlim(left=0)
    return figure


def _curve(ax: Axes, curve: ScoreCurve) -> None:
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
    ax.set_xlabel(f"{curve.axis} ({curve.note})")
    format_axes(ax.xaxis)


def draw_importance(leaned: Sequence[ColumnImportance], loss_name: str, target: str) -> Figure:
    """Which columns the model leans on, most first, with 95 % intervals."""
    shown = leaned[:MAX_BARS]
    figure, (ax,) = build_figure(
        f"The model leans most on {shown[0].column}" if shown and shown[0].rise > 0 else "The model leans on no column",
        f"Rise of the mean {loss_name} on validation rows when a column is shuffled; lines: 95 % intervals"
        + (f"; {len(shown)} of {len(leaned)} columns" if len(leaned) > len(shown) else ""),
        height=1.5 + 0.3 * max(len(shown), 3),
    )
    ax.barh(range(len(shown)), [i.rise for i in shown], color=BLUE, height=0.65)
    for y, i in enumerate(shown):
        if i.low is not None and i.high is not None:
            ax.plot([i.low, i.high], [y, y], color=INK, linewidth=1.3)
    _label_bars(ax, [i.column for i in shown])
    ax.set_xlabel(f"rise of the mean {loss_name} of {target}")
    format_axes(ax.xaxis)
    return figure


def draw_slices(found: Sequence[SliceScore], loss_name: str, target: str) -> Figure:
    """Where the model errs more than elsewhere, worst first, with intervals that hold for all slices at once."""
    shown = found[:MAX_BARS]
    clear = sum(s.clear for s in found)
    which = f"{clear} of {len(found)} slices are" if clear else "No slice is"
    figure, (ax,) = build_figure(
        f"{which} clearly worse than the rest",
        f"Mean {loss_name} there minus elsewhere, on held-out rows; lines: intervals for all {len(found)} at once",
        height=1.6 + 0.3 * max(len(shown), 3),
    )
    for y, s in enumerate(shown):
        colour = VERMILION if s.clear else GREY
        ax.plot([s.low, s.high], [y, y], color=colour, linewidth=1.6)
        ax.plot(s.excess, y, "D" if s.clear else "o", color=colour, markersize=6)
    ax.axvline(0, color=INK, linewidth=1)
    _label_bars(ax, [f"{s.column}: {s.value}  ({s.rows:,} rows)" for s in shown])
    ax.plot([], [], "D", color=VERMILION, label="clearly worse")
    ax.plot([], [], "o", color=GREY, label="may be chance")
    ax.legend(fontsize=8.5, frameon=False, loc="lower right")
    ax.set_xlabel(f"excess of the mean {loss_name} of {target}")
    format_axes(ax.xaxis)
    return figure


def _label_bars(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), [n if len(n) <= 48 else n[:46] + "…" for n in names])
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


# More classes cannot be distinguished in a picture; the most frequent are shown.
MAX_DRAWN_CLASSES = 12
MAX_CURVE_LINES = 6
MAX_LINE_POINTS = 500


def draw_classification_plots(kind: ProblemType, record: pd.DataFrame, problem: ProblemSettings) -> dict[str, Figure]:
    """Name -> figure, from a record with at least one row. A picture that these rows do not define is left out."""
    truth = kind.truth(record[problem.target])
    made = read_predictions(record, truth, kind.positive)
    table, reliability = count_confusion(truth, made), measure_calibration(truth, made)
    found = {
        "confusion": _confusion(table, problem.target) if table else None,
        "roc_and_precision_recall": _roc(truth, made, problem.target),
        "reliability": _reliability(reliability, len(truth), problem.target) if reliability else None,
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _confusion(table: ConfusionTable, target: str) -> Figure:
    counts = np.array(table.counts)
    kept = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MAX_DRAWN_CLASSES])
    shown = counts[np.ix_(kept, kept)]
    share = shown / np.maximum(counts.sum(axis=1)[kept][:, None], 1)
    names = [_short(table.classes[i]) for i in kept]
    size = max(4.6, 0.62 * len(kept) + 2.4)
    right = counts.trace() / max(counts.sum(), 1)
    figure, (ax,) = build_figure(
        f"{target}: {100 * right:.1f} % of the held-out rows are predicted right",
        "Rows, and their share of the true class"
        + (f"; the {len(kept)} most frequent of {len(counts)} classes" if len(kept) < len(counts) else ""),
        width=size + 1.4,
        height=size,
    )
    few = len(kept) < 6
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.grid(visible=False)
    for i, j in np.ndindex(shown.shape):
        label, colour = f"{shown[i, j]:,}\n{100 * share[i, j]:.0f} %", "white" if share[i, j] > 0.55 else INK
        ax.text(j, i, label, ha="center", va="center", fontsize=9 if few else 7, color=colour)
    ax.set_xticks(range(len(kept)), names, rotation=0 if few else 45, ha="center" if few else "right")
    ax.set_yticks(range(len(kept)), names)
    ax.set(xlabel=f"predicted {target}", ylabel=f"true {target}")
    figure.colorbar(image, ax=ax, shrink=0.8, label="share of the true class")
    return figure


def _roc(truth: NDArray[np.generic], made: Predictions, target: str) -> Figure | None:
    """ROC and precision-recall: of the positive class, or of each class against the rest."""
    proba, classes = np.asarray(made.proba), np.asarray(made.classes)
    shown_classes = [find_positive_class(classes, made.positive)] if len(classes) == 2 else list(range(len(classes)))
    rows = {c: truth == classes[c] for c in shown_classes}
    defined = sorted((c for c in shown_classes if 0 < rows[c].sum() < len(truth)), key=lambda c: -int(rows[c].sum()))
    if not defined:
        return None
    one = f" = {name_class_column(classes[shown_classes[0]])}"
    of = target + (one if len(classes) == 2 else ", each class against the rest")
    figure, (roc, recall) = build_figure(
        f"How well the model ranks {of}",
        f"{len(truth):,} held-out rows; dashed: what guessing would give",
        (1, 1),
        width=9.6,
        height=4.8,
    )
    for i, c in enumerate(defined[:MAX_CURVE_LINES]):
        false, hits, _ = roc_curve(rows[c], proba[:, c], drop_intermediate=False)
        precision = precision_recall_curve(rows[c], proba[:, c])[0][::-1]
        auc = float(np.trapezoid(hits, false))
        style: dict[str, Any] = {"color": SERIES_COLOURS[i], "marker": SERIES_MARKERS[i], "markevery": 0.2}
        style |= {"linewidth": 1.7, "markersize": 5}
        kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), MAX_LINE_POINTS)).astype(int))
        name = _short(name_class_column(classes[c]))
        roc.plot(false[kept], hits[kept], label=f"{name}: area {auc:.3f}", **style)
        average = float(np.sum(np.diff(hits) * precision[1:]))
        recall.plot(hits[kept][1:], precision[kept][1:], label=f"{name}: average {average:.3f}", **style)
        recall.axhline(rows[c].mean(), color=SERIES_COLOURS[i], linewidth=0.9, linestyle="--")
    if len(classes) == 2:
        _mark_threshold(recall, made.value == classes[shown_classes[0]], rows[shown_classes[0]])
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    roc.set(xlabel="share of the others called so (false positives)", ylabel="share of the class found (recall)")
    recall.set(xlabel="share of the class found (recall)", ylabel="share of calls that are right (precision)")
    for ax, title in ((roc, "ROC"), (recall, "Precision and recall")):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        ax.set_title(title, fontsize=10, loc="left")
        ax.legend(fontsize=8.5, frameon=False, loc="lower right" if ax is roc else "lower left")
    return figure


def _mark_threshold(ax: Axes, called: NDArray[np.bool_], is_it: NDArray[np.bool_]) -> None:
    """Draw the point on the precision-recall curve at which the model calls: by its threshold, or the likelier class."""
    if called.any():
        right = (called & is_it).sum()
        ax.plot(right / is_it.sum(), right / called.sum(), "*", color=INK, markersize=11, label="as called", zorder=4)


def _reliability(found: CalibrationCurve, rows: int, target: str) -> Figure:
    predicted, observed = [b.predicted for b in found.bins], [b.observed for b in found.bins]
    figure, (ax,) = build_figure(
        f"Probabilities of {target}: off by {100 * found.error:.1f} points on average",
        f"{found.of} on {rows:,} held-out rows in {len(found.bins)} bins of equal size; lines: 95 % intervals",
        width=6,
        height=5.4,
    )
    ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="as promised")
    for b in found.bins:
        ax.plot([b.predicted, b.predicted], [b.low, b.high], color=BLUE, linewidth=1.5, alpha=0.6)
    ax.plot(predicted, observed, "o-", color=BLUE, markersize=6, label="what came true")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel=f"predicted {found.of}", ylabel="share that came true")
    ax.legend(fontsize=8.5, frameon=False, loc="upper left")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


RESIDUAL_TIME_STEPS = 40


def draw_regression_plots(kind: ProblemType, record: pd.DataFrame, problem: ProblemSettings) -> dict[str, Figure]:
    """Name -> figure, from a record with at least one row."""
    truth = kind.truth(record[problem.target])
    made = record[PREDICTION_COLUMN].to_numpy(dtype=np.float64)
    error = truth - made
    held = f"{len(truth):,} held-out rows; " + (
        "the darker, the more rows" if len(truth) > MAX_PLOTTED_POINTS else "one point a row"
    )
    figure, (left, right) = build_figure(f"Predicted against true {problem.target}", held, (1, 1), width=10)
    log = kind.log_target(truth) and bool((made > 0).all())
    _cloud(left, truth, made, log)
    ends = [min(truth.min(), made.min()), max(truth.max(), made.max())]
    left.plot(ends, ends, color=INK, linewidth=1, linestyle="--")
    left.set(xlabel=f"true {problem.target}" + (" (logarithmic)" if log else ""), ylabel=f"predicted {problem.target}")
    _cloud(right, made, error, False)
    right.axhline(0, color=INK, linewidth=1, linestyle="--")
    right.set(xlabel=f"predicted {problem.target}", ylabel=f"residual (true minus predicted {problem.target})")
    format_axes(left.xaxis, left.yaxis, right.xaxis, right.yaxis)
    found = {"predictions": figure}
    if problem.time is not None and record[problem.time].nunique() > 1:
        found["residuals_over_time"] = _over_time(record[problem.time], error, problem)
    return found


def _cloud(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], log: bool) -> None:
    """Points while they can be distinguished, else density."""
    scale: dict[str, Any] = {"xscale": "log", "yscale": "log"} if log else {}
    if len(x) > MAX_PLOTTED_POINTS:
        ax.hexbin(x, y, gridsize=55, bins="log", cmap="Blues", mincnt=1, linewidths=0.1, **scale)
        ax.set_facecolor("white")
        return
    ax.set(**scale)
    ax.plot(x, y, "o", markersize=3.2, color=BLUE, alpha=0.35, markeredgewidth=0)


def _over_time(times: pd.Series, error: NDArray[np.float64], problem: ProblemSettings) -> Figure:
    """Median and middle four fifths of the residuals in up to forty steps of as many rows each."""
    order = np.argsort(times.to_numpy(), kind="stable")
    at, left = times.to_numpy()[order], error[order]
    distinct, first = np.unique(at, return_index=True)
    # A step begins where a time begins, so that rows of one time stay together.
    starts = first[np.linspace(0, len(distinct), min(RESIDUAL_TIME_STEPS, len(distinct)), endpoint=False).astype(int)]
    parts = np.split(left, starts[1:])
    low, middle, high = (np.array([np.quantile(p, q) for p in parts]) for q in (0.1, 0.5, 0.9))
    bias = float(np.median(left))
    side = "too low" if bias > 0 else "too high"
    figure, (ax,) = build_figure(
        f"Residuals over time: predictions are typically {abs(bias):,.4g} {side}",
        f"True minus predicted {problem.target} on held-out rows: median, and the middle 80 % of the rows of each step",
        width=10,
        height=4,
    )
    ax.fill_between(at[starts], low, high, color=BLUE, alpha=0.2, linewidth=0, label="middle 80 %")
    ax.plot(at[starts], middle, "o-", color=ORANGE, markersize=4, label="median")
    ax.axhline(0, color=INK, linewidth=1, linestyle="--")
    ax.legend(fontsize=8.5, frameon=False, ncols=2)
    ax.set(xlabel=problem.time or "", ylabel=f"residual of {problem.target}")
    format_axes(ax.yaxis)
    return figure


PROBLEM_TYPE_PLOTS = {"classification": draw_classification_plots, "regression": draw_regression_plots}
