"""Pictures of predicted classes: confusion, ROC and precision-recall, reliability. Draws the held-out record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windvane.tasks.problems.classification import positive
from windvane.tasks.scores import Calibration, Confusion, calibration, class_name, confusion, predictions
from windvane.tasks.sheets import BLUE, GREY, INK, MARKERS, SERIES, sheet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Problem

# More classes than these cannot be told apart in a picture; the most frequent are shown.
MOST_CLASSES = 12
MOST_LINES = 6
LINE_POINTS = 500


def figures(kind: Kind, record: pd.DataFrame, problem: Problem) -> dict[str, Figure]:
    """Name -> figure, from a record with at least one row. A picture that these rows do not define is left out."""
    truth = kind.truth(record[problem.target])
    made = predictions(record, truth)
    table, reliability = confusion(truth, made), calibration(truth, made)
    found = {}
    if table is not None:
        found["confusion"] = _confusion(table, problem.target)
    curves = _roc(truth, made, problem.target)
    if curves is not None:
        found["roc_and_precision_recall"] = curves
    if reliability is not None:
        found["reliability"] = _reliability(reliability, len(truth), problem.target)
    return found


def _confusion(table: Confusion, target: str) -> Figure:
    import numpy as np

    counts = np.array(table.counts)
    kept = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES])
    shown = counts[np.ix_(kept, kept)]
    share = shown / np.maximum(counts.sum(axis=1)[kept][:, None], 1)
    names = [_short(table.classes[i]) for i in kept]
    size = max(4.6, 0.62 * len(kept) + 2.4)
    right = counts.trace() / max(counts.sum(), 1)
    figure, (ax,) = sheet(
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
        told, colour = f"{shown[i, j]:,}\n{100 * share[i, j]:.0f} %", "white" if share[i, j] > 0.55 else INK
        ax.text(j, i, told, ha="center", va="center", fontsize=9 if few else 7, color=colour)
    ax.set_xticks(range(len(kept)), names, rotation=0 if few else 45, ha="center" if few else "right")
    ax.set_yticks(range(len(kept)), names)
    ax.set_xlabel(f"predicted {target}", fontsize=9)
    ax.set_ylabel(f"true {target}", fontsize=9)
    figure.colorbar(image, ax=ax, shrink=0.8, label="share of the true class")
    return figure


def _roc(truth: NDArray[np.generic], made: Predictions, target: str) -> Figure | None:
    """ROC and precision-recall: of the positive class, or of each class against the rest."""
    import numpy as np

    proba, classes = np.asarray(made.proba), np.asarray(made.classes)
    looked = [positive(classes)] if len(classes) == 2 else list(range(len(classes)))
    rows = {c: truth == classes[c] for c in looked}
    defined = sorted((c for c in looked if 0 < rows[c].sum() < len(truth)), key=lambda c: -int(rows[c].sum()))
    if not defined:
        return None
    of = (
        f"{target} = {class_name(classes[looked[0]])}"
        if len(classes) == 2
        else f"{target}, each class against the rest"
    )
    figure, (roc, recall) = sheet(
        f"How well the model ranks {of}",
        f"{len(truth):,} held-out rows; dashed: what guessing would give",
        (1, 1),
        width=9.6,
        height=4.8,
    )
    for i, c in enumerate(defined[:MOST_LINES]):
        hits, false, precision = _thresholds(rows[c], proba[:, c])
        auc = float(np.trapezoid(hits, false))
        style: dict[str, Any] = {
            "color": SERIES[i],
            "linewidth": 1.7,
            "marker": MARKERS[i],
            "markevery": 0.2,
            "markersize": 5,
        }
        kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), LINE_POINTS)).astype(int))
        name = _short(class_name(classes[c]))
        roc.plot(false[kept], hits[kept], label=f"{name}: area {auc:.3f}", **style)
        average = float(np.sum(np.diff(hits) * precision[1:]))
        recall.plot(hits[kept][1:], precision[kept][1:], label=f"{name}: average {average:.3f}", **style)
        recall.axhline(rows[c].mean(), color=SERIES[i], linewidth=0.9, linestyle="--")
    if len(classes) == 2:
        _as_called(recall, made.value == classes[looked[0]], rows[looked[0]])
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    roc.set(xlabel="share of the others called so (false positives)", ylabel="share of the class found (recall)")
    recall.set(xlabel="share of the class found (recall)", ylabel="share of calls that are right (precision)")
    for ax, title in ((roc, "ROC"), (recall, "Precision and recall")):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        ax.set_title(title, fontsize=10, loc="left")
        ax.legend(fontsize=8.5, frameon=False, loc="lower right" if ax is roc else "lower left")
    return figure


def _as_called(ax: Axes, called: NDArray[np.bool_], is_it: NDArray[np.bool_]) -> None:
    """Mark the point on the precision-recall curve at which the model calls: by its threshold, or the likelier class."""
    if called.any():
        right = (called & is_it).sum()
        ax.plot(right / is_it.sum(), right / called.sum(), "*", color=INK, markersize=11, label="as called", zorder=4)


def _thresholds(is_it: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """(recall, false positive rate, precision) from the strictest threshold on, ties together, first nothing called."""
    import numpy as np

    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits, called = np.cumsum(is_it[order])[ends], ends + 1
    precision = hits / called
    return (
        np.append(0.0, hits / is_it.sum()),
        np.append(0.0, (called - hits) / (len(is_it) - is_it.sum())),
        np.append(precision[0], precision),
    )


def _reliability(found: Calibration, rows: int, target: str) -> Figure:
    predicted, observed = [b.predicted for b in found.bins], [b.observed for b in found.bins]
    figure, (ax,) = sheet(
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
