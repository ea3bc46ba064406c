"""Distances between two samples, as Evidently measures them: on bin counts, many draws at once. Knows no limit.

Numbers: first Wasserstein distance and the Kolmogorov-Smirnov distance. Categories: the Jensen-Shannon distance
(Lin, IEEE Transactions on Information Theory 37 (1991), natural logarithm). Resampling and history that is played use these; the
live check reads Evidently's own, and tests hold the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]


class Distances(Protocol):
    """A module that measures: this one, or monitoring/drift/scipy_distances.py."""

    def compute_wasserstein(self, one: Floats, other: Floats, gaps: Floats) -> Floats:
        """See compute_wasserstein()."""

    def compute_kolmogorov_smirnov(self, one: Floats, other: Floats) -> Floats:
        """See compute_kolmogorov_smirnov()."""

    def compute_jensen_shannon(self, one: Floats, other: Floats) -> Floats:
        """See compute_jensen_shannon()."""


def compute_wasserstein(one: Floats, other: Floats, gaps: Floats) -> Floats:
    """Area (...,) between the distribution functions of two sets of shares (..., cells); `gaps` (..., cells) is the length along which
    they stay as they are at each cell's upper edge.
    """
    return np.asarray((np.abs(np.cumsum(one - other, axis=-1)) * gaps).sum(axis=-1))


def compute_kolmogorov_smirnov(one: Floats, other: Floats) -> Floats:
    """The largest difference (...,) between the distribution functions of two sets of shares (..., cells)."""
    return np.asarray(np.abs(np.cumsum(one - other, axis=-1)).max(axis=-1, initial=0))


def compute_jensen_shannon(one: Floats, other: Floats) -> Floats:
    """The Jensen-Shannon distance (...,) of two sets of shares (..., cells): the root of the divergence."""
    from scipy.special import xlogy

    middle = (one + other) / 2
    gained = (xlogy(one, one) + xlogy(other, other)) / 2 - xlogy(middle, middle)
    return np.sqrt(np.maximum(gained.sum(axis=-1), 0))
