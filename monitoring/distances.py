"""Distances between two samples, as Evidently measures them: on counts of cells, many draws at once. Knows no limit.

Numbers: first Wasserstein distance and the Kolmogorov-Smirnov distance. Categories: the Jensen-Shannon distance
(Lin, IEEE Transactions on Information Theory 37 (1991), natural logarithm). Evidently names them `wasserstein` (divided by the
reference's standard deviation), `ks` (it gives the p-value) and `jensenshannon`; a test holds ours against them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]


def shares(counts: Floats) -> Floats:
    """Counts (..., cells) as shares of their sum; all zero where there is nothing to share."""
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def wasserstein(apart: Floats, gaps: Floats) -> Floats:
    """Area between two distribution functions: `apart` (..., cells) is how far they are apart at each cell's upper edge,
    `gaps` (..., cells) the length along which they stay so.
    """
    return np.asarray((np.abs(apart) * gaps).sum(axis=-1))


def kolmogorov(apart: Floats) -> Floats:
    """The largest difference (...,) between two distribution functions, or any other cells (..., cells)."""
    return np.asarray(np.abs(apart).max(axis=-1, initial=0))


def jensen_shannon(one: Floats, other: Floats) -> Floats:
    """The Jensen-Shannon distance (...,) of two sets of shares (..., cells): the root of the divergence."""
    from scipy.special import xlogy

    middle = (one + other) / 2
    gained = (xlogy(one, one) + xlogy(other, other)) / 2 - xlogy(middle, middle)
    return np.sqrt(np.maximum(gained.sum(axis=-1), 0))


def of_numbers(reference: Floats, window: Floats) -> tuple[float, float]:
    """Wasserstein (in standard deviations of `reference` (n,)) and Kolmogorov-Smirnov distance to `window` (m,), at full
    resolution; nothing missing.
    """
    values = np.unique(np.concatenate([reference, window]))
    below = [np.searchsorted(np.sort(side), values, side="right") / len(side) for side in (reference, window)]
    apart = below[0] - below[1]
    # The floor is Evidently's.
    scale = max(float(np.std(reference)), 0.001)
    return float(wasserstein(apart, np.diff(values, append=values[-1]))) / scale, float(kolmogorov(apart))
