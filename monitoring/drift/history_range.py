"""Columns that left the range of their whole history: the larger part of a window lies where no earlier row did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from windvane.monitoring.drift.compared_rows import ComparedColumn, SampledRows, read_compared_values
from windvane.tasks.gate.block_test import FloatArray

# At least this share of a window's values must lie beyond all earlier ones, and so many values.
_MIN_SHARE_BEYOND, _MIN_VALUES = 0.5, 8
# Shares of unseen categories vary by this at least: no set of stretches is steadier.
_MIN_SPREAD = 0.05


def find_columns_beyond_history(
    rows: SampledRows, wanted: Sequence[ComparedColumn], stretches: int
) -> dict[str, float]:
    """Inputs that left the range of all rows before the window, each with its chance in an unchanged window.

    A number lies beyond one end of all earlier values, or a category is a word that no earlier row had, in half of the window's
    values or more. The chance is that of Student's t for one more stretch like the newest `stretches` ones before the window, as
    long as it (medians of a number, shares of words that no other stretch has), times two ends and as many columns as are
    compared (Bonferroni). So a column that rises steadily is not beyond what it usually does.
    """
    inputs = [c for c in wanted if c.aspect in ("numbers", "categories")]
    found = {}
    for column in inputs:
        values, _ = read_compared_values(rows.parts, column, rows.time)
        measure = _measure_words if column.read == "category" else _measure_numbers
        seen = measure(values, len(rows.window), stretches)
        if seen is not None:
            found[column.name] = min(2 * len(inputs) * _compute_tail(*seen), 1.0)
    return found


def _compute_tail(now: float, earlier: FloatArray, least: float) -> float:
    """The chance of a value as far from `earlier` (k,) as `now`, on its side."""
    spread = max(float(earlier.std(ddof=1)), least) * np.sqrt(1 + 1 / len(earlier))
    gap = abs(now - float(earlier.mean()))
    return float(special.stdtr(len(earlier) - 1, -gap / spread)) if spread > 0 else 0.0


def _measure_numbers(values: FloatArray, window: int, stretches: int) -> tuple[float, FloatArray, float] | None:
    """Medians of the window and of the stretches before it (rows (n + m,) in the order of time); None: it is within the range."""
    before, now = values[:-window], values[-window:]
    now, known = now[np.isfinite(now)], before[np.isfinite(before)]
    if len(now) < _MIN_VALUES or not len(known):
        return None
    if max((now > known.max()).mean(), (now < known.min()).mean()) < _MIN_SHARE_BEYOND:
        return None
    parts = before[len(before) - stretches * window :].reshape(stretches, window)
    medians = [np.median(part[np.isfinite(part)]) for part in parts if np.isfinite(part).any()]
    return (float(np.median(now)), np.array(medians), 0.0) if len(medians) > 1 else None


def _measure_words(values: pd.Series, window: int, stretches: int) -> tuple[float, FloatArray, float] | None:
    """The same of the shares of words that no other stretch has. Of a column with one word it is not known how it varies."""
    codes, words = pd.factorize(values)
    at = np.arange(len(codes)) - (len(codes) - window)
    stretch: NDArray[Any] = np.maximum(at // window, -stretches - 1)  # what is older is one more
    first, last = np.full(len(words), len(codes)), np.full(len(words), -len(codes))
    known = codes >= 0
    np.minimum.at(first, codes[known], stretch[known])
    np.maximum.at(last, codes[known], stretch[known])
    own = known & (first == last)[codes]
    shares = [own[stretch == k].sum() / max(known[stretch == k].sum(), 1) for k in range(-stretches, 1)]
    enough = known[at >= 0].sum() >= _MIN_VALUES and (first < 0).sum() > 1
    if not enough or shares[-1] < _MIN_SHARE_BEYOND:
        return None
    return float(shares[-1]), np.array(shares[:-1], dtype=np.float64), _MIN_SPREAD
