"""How much each row counts (problem.weight): in a fit, in a metric, and in a mean of losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def read_row_weights(rows: pd.DataFrame, column: str | None) -> NDArray[np.float64] | None:
    """How much each of the rows (n,) counts, 1 on average; None: all alike.

    A row without a weight, such as one that came back from production, counts as the others do on average.
    """
    if column is None or not len(rows):
        return None
    given = pd.to_numeric(rows[column]).to_numpy(dtype="float64", na_value=np.nan) if column in rows else np.empty(0)
    if not np.isfinite(given).any() or not (mean := float(np.nanmean(given))) > 0:
        return None
    return np.asarray(np.where(np.isnan(given), 1.0, given / mean))


def spread_weights(losses: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Values (n,) whose plain mean is the weighted mean of losses (n,), and whose spread is that of its error.

    A weighted mean is a ratio of two sums: each row adds its weight times its distance from it (linearisation: Särndal,
    Swensson & Wretman, Model Assisted Survey Sampling, 1992, chapter 5).
    """
    if weights is None:
        return np.asarray(losses, dtype="float64")
    mean = float(np.average(losses, weights=weights))
    return np.asarray(mean + weights * (losses - mean))
