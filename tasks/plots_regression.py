"""Pictures of predicted numbers: predicted against true, residuals, residuals over time. Draws the held-out record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windvane.tasks.scores import PREDICTION
from windvane.tasks.sheets import BLUE, INK, MOST_POINTS, ORANGE, numbers, sheet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Problem

STEPS = 40


def figures(kind: Kind, record: pd.DataFrame, problem: Problem) -> dict[str, Figure]:
    """Name -> figure, from a record with at least one row."""
    import numpy as np

    truth = kind.truth(record[problem.target])
    made = record[PREDICTION].to_numpy(dtype=np.float64)
    error = truth - made
    held = f"{len(truth):,} held-out rows; " + (
        "the darker, the more rows" if len(truth) > MOST_POINTS else "one point a row"
    )
    figure, (left, right) = sheet(f"Predicted against true {problem.target}", held, (1, 1), width=10)
    log = kind.log_target(truth) and bool((made > 0).all())
    _cloud(left, truth, made, log)
    ends = [min(truth.min(), made.min()), max(truth.max(), made.max())]
    left.plot(ends, ends, color=INK, linewidth=1, linestyle="--")
    left.set_xlabel(f"true {problem.target}" + (" (logarithmic)" if log else ""), fontsize=9)
    left.set_ylabel(f"predicted {problem.target}", fontsize=9)
    _cloud(right, made, error, False)
    right.axhline(0, color=INK, linewidth=1, linestyle="--")
    right.set_xlabel(f"predicted {problem.target}", fontsize=9)
    right.set_ylabel(f"residual (true minus predicted {problem.target})", fontsize=9)
    numbers(left.xaxis, left.yaxis, right.xaxis, right.yaxis)
    found = {"predictions": figure}
    if problem.time is not None and record[problem.time].nunique() > 1:
        found["residuals_over_time"] = _over_time(record[problem.time], error, problem)
    return found


def _cloud(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], log: bool) -> None:
    """Points while they can be told apart, else density."""
    scale: dict[str, Any] = {"xscale": "log", "yscale": "log"} if log else {}
    if len(x) > MOST_POINTS:
        ax.hexbin(x, y, gridsize=55, bins="log", cmap="Blues", mincnt=1, linewidths=0.1, **scale)
        ax.set_facecolor("white")
        return
    ax.set(**scale)
    ax.plot(x, y, "o", markersize=3.2, color=BLUE, alpha=0.35, markeredgewidth=0)


def _over_time(times: pd.Series, error: NDArray[np.float64], problem: Problem) -> Figure:
    """Median and middle four fifths of the residuals in up to forty steps of as many rows each."""
    import numpy as np

    order = np.argsort(times.to_numpy(), kind="stable")
    at, left = times.to_numpy()[order], error[order]
    distinct, first = np.unique(at, return_index=True)
    # A step begins where a time begins, so that rows of one time stay together.
    starts = first[np.linspace(0, len(distinct), min(STEPS, len(distinct)), endpoint=False).astype(int)]
    parts = np.split(left, starts[1:])
    low, middle, high = (np.array([np.quantile(p, q) for p in parts]) for q in (0.1, 0.5, 0.9))
    bias = float(np.median(left))
    side = "too low" if bias > 0 else "too high"
    figure, (ax,) = sheet(
        f"Residuals over time: predictions are typically {abs(bias):,.4g} {side}",
        f"True minus predicted {problem.target} on held-out rows: median, and the middle 80 % of the rows of each step",
        width=10,
        height=4,
    )
    ax.fill_between(at[starts], low, high, color=BLUE, alpha=0.2, linewidth=0, label="middle 80 %")
    ax.plot(at[starts], middle, "o-", color=ORANGE, markersize=4, label="median")
    ax.axhline(0, color=INK, linewidth=1, linestyle="--")
    ax.legend(fontsize=8.5, frameon=False, ncols=2)
    ax.set_xlabel(problem.time or "", fontsize=9)
    ax.set_ylabel(f"residual of {problem.target}", fontsize=9)
    numbers(ax.yaxis)
    return figure
