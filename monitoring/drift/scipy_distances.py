"""The distances of monitoring/drift/distances.py by SciPy, which Evidently calls too: one pair at a time, and so much slower.

The live check finds its limits with these where the fast ones fail: a mistake there must not silence the alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from windvane.monitoring.drift.distances import Floats


def compute_wasserstein(one: Floats, other: Floats, gaps: Floats) -> Floats:
    """See monitoring.drift.distances.compute_wasserstein()."""
    from scipy.stats import wasserstein_distance

    places = np.append(np.zeros_like(gaps[..., :1]), np.cumsum(gaps, axis=-1)[..., :-1], axis=-1)
    places = np.broadcast_to(places, one.shape)
    return _each(lambda a, b, at: float(wasserstein_distance(at, at, a, b)), one, other, places)


def compute_kolmogorov_smirnov(one: Floats, other: Floats) -> Floats:
    """See monitoring.drift.distances.compute_kolmogorov_smirnov()."""
    return _each(lambda a, b: float(np.abs(a.cumsum() - b.cumsum()).max()), one, other)


def compute_jensen_shannon(one: Floats, other: Floats) -> Floats:
    """See monitoring.drift.distances.compute_jensen_shannon()."""
    from scipy.spatial.distance import jensenshannon

    return np.nan_to_num(_each(lambda a, b: float(jensenshannon(a, b)), one, other))


def _each(distance: Callable[..., float], one: Floats, other: Floats, *more: Floats) -> Floats:
    """`distance` of every pair of shares (cells,), in the shape of the rest; 0 where a side has nothing."""
    shape, found = one.shape[:-1], np.zeros(one.shape[:-1])
    for place in np.ndindex(*shape):
        if one[place].any() and other[place].any():
            found[place] = distance(one[place], other[place], *(part[place] for part in more))
    return found
