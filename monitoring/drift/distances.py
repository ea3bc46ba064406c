"""Distances between two samples, as Evidently measures them: on bin counts, many draws at once. Knows no limit.

Numbers: first Wasserstein distance and the Kolmogorov-Smirnov distance. Categories: the Jensen-Shannon distance
(Lin, IEEE Transactions on Information Theory 37 (1991), natural logarithm). Resampling and history that is played use these; the
live check reads Evidently's own, and tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
from scipy import stats
from scipy.spatial import distance
from scipy.special import xlogy

from windvane.tasks.gate.block_test import FloatArray


def compute_wasserstein(one: FloatArray, other: FloatArray, gaps: FloatArray) -> FloatArray:
    """Area (...,) between the distribution functions of two sets of shares (..., cells); `gaps` (..., cells) is the length along which
    they stay as they are at each cell's upper edge.
    """
    return np.asarray((np.abs(np.cumsum(one - other, axis=-1)) * gaps).sum(axis=-1))


def compute_kolmogorov_smirnov(one: FloatArray, other: FloatArray) -> FloatArray:
    """The largest difference (...,) between the distribution functions of two sets of shares (..., cells)."""
    return np.asarray(np.abs(np.cumsum(one - other, axis=-1)).max(axis=-1, initial=0))


def compute_jensen_shannon(one: FloatArray, other: FloatArray) -> FloatArray:
    """The Jensen-Shannon distance (...,) of two sets of shares (..., cells): the root of the divergence."""
    middle = (one + other) / 2
    gained = (xlogy(one, one) + xlogy(other, other)) / 2 - xlogy(middle, middle)
    return np.sqrt(np.maximum(gained.sum(axis=-1), 0))


class ScipyDistances:
    """The same by SciPy, which Evidently calls too: one pair at a time, and so much slower.

    The live check finds its limits with these where the fast ones fail: a mistake there must not silence the alarm.
    """

    def compute_wasserstein(self, one: FloatArray, other: FloatArray, gaps: FloatArray) -> FloatArray:
        """See compute_wasserstein()."""
        places = np.append(np.zeros_like(gaps[..., :1]), np.cumsum(gaps, axis=-1)[..., :-1], axis=-1)
        places = np.broadcast_to(places, one.shape)
        return self._each(lambda a, b, at: float(stats.wasserstein_distance(at, at, a, b)), one, other, places)

    def compute_kolmogorov_smirnov(self, one: FloatArray, other: FloatArray) -> FloatArray:
        """See compute_kolmogorov_smirnov()."""
        return self._each(lambda a, b: float(np.abs(a.cumsum() - b.cumsum()).max()), one, other)

    def compute_jensen_shannon(self, one: FloatArray, other: FloatArray) -> FloatArray:
        """See compute_jensen_shannon()."""
        return np.nan_to_num(self._each(lambda a, b: float(distance.jensenshannon(a, b)), one, other))

    def _each(self, measure: Callable[..., float], one: FloatArray, other: FloatArray, *more: FloatArray) -> FloatArray:
        """`measure` of every pair of shares (cells,), in the shape of the rest; 0 where a side has nothing."""
        found = np.zeros(one.shape[:-1])
        for place in np.ndindex(*found.shape):
            if one[place].any() and other[place].any():
                found[place] = measure(one[place], other[place], *(part[place] for part in more))
        return found


# What measures: this module, or its stand-in.
Distances = ModuleType | ScipyDistances
