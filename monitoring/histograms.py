"""A column counted in cells, small enough to be kept, and how badly two counts fit one another. Knows no cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CELLS = 20
_WORDS = 40


@dataclass(frozen=True)
class Histogram:
    """Counts of a number's cells (`edges` are upper, included; one cell more above the last) or of a category's `words` and
    of all others; the last count is of what is missing.
    """

    name: str
    edges: tuple[float, ...]
    words: tuple[str, ...]
    counts: tuple[float, ...]

    def count(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Counts of other values (m,) in the same cells: floats with NaN, or texts with "" where missing."""
        if values.dtype.kind == "f":
            at = np.searchsorted(np.array(self.edges), values)
            at[np.isnan(values)] = len(self.edges) + 1
        else:
            places = {w: i for i, w in enumerate(self.words)} | {"": len(self.words) + 1}
            words, back = np.unique(values, return_inverse=True)
            at = np.array([places.get(str(w), len(self.words)) for w in words], dtype=np.int64)[back]
        return np.bincount(at, minlength=len(self.counts)).astype(np.float64)


def of_numbers(name: str, values: NDArray[np.float64], *others: NDArray[np.float64]) -> Histogram:
    """Cells of a number: one per value where there are few, else one for each that many rows have and for the rest about 20
    of like many rows. `others` help to place them.
    """
    pooled = np.concatenate([values, *others])
    known = np.sort(pooled[~np.isnan(pooled)])
    found, counts = np.unique(known, return_counts=True)
    if len(found) > _CELLS:
        often = found[counts >= len(known) / _CELLS]
        rest = known[~np.isin(known, often)]
        some = rest[np.linspace(0, len(rest) - 1, _CELLS + 1).round().astype(int)[1:]] if len(rest) else rest
        found = np.unique(np.concatenate([some, often, np.nextafter(often, -np.inf)]))
    edges = tuple(float(e) for e in found[:-1])
    return _filled(Histogram(name, edges, (), (0.0,) * (len(edges) + 2)), values)


def of_words(name: str, values: NDArray[np.str_], *others: NDArray[np.str_]) -> Histogram:
    """Cells of a category: one for each of its 40 most frequent words, one for all others."""
    pooled = np.concatenate([values, *others])
    found, counts = np.unique(pooled[pooled != ""], return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (-counts[i], str(found[i])))[:_WORDS]
    words = tuple(str(found[i]) for i in order)
    return _filled(Histogram(name, (), words, (0.0,) * (len(words) + 2)), values)


def _filled(empty: Histogram, values: NDArray[Any]) -> Histogram:
    counts = tuple(float(c) for c in empty.count(values))
    return Histogram(empty.name, empty.edges, empty.words, counts)


def misfit(one: NDArray[np.float64], other: NDArray[np.float64], used: int = 0) -> float:
    """How much two samples' counts (c,) speak against one distribution, in nats: half the square of the normal deviate that
    the likelihood-ratio statistic has (Wilson & Hilferty, PNAS 17, 1931); 0 where it is less than expected.

    `other` may be a model's expected counts; then `used` of its parameters were fitted.
    """
    a, b = one.sum(), other.sum()
    if not a or not b:
        return 0.0
    pooled = (one + other) / (a + b)
    statistic = 2 * sum(
        float((side[side > 0] * np.log(side[side > 0] / total / pooled[side > 0])).sum())
        for side, total in ((one, a), (other, b))
    )
    return nats(statistic, max(int((pooled > 0).sum()) - 1 - used, 1))


def apart(one: NDArray[np.float64], other: NDArray[np.float64], *, ordered: bool) -> NDArray[np.float64]:
    """Differences (s,) of two samples' means in standard errors, from counts (c,) whose last cell is what is missing.

    ordered: of the cells' ranks, how far these are from the middle, and the missing; else of each cell's share. Where only the
    mean moved this sees more than misfit(), which looks everywhere.
    """
    a, b = one.sum(), other.sum()
    if not a or not b:
        return np.zeros(1)
    pooled = one + other
    scores = np.eye(len(one))
    if ordered:
        known = pooled[:-1]
        place = np.append(2 * (np.cumsum(known) - known / 2) / max(known.sum(), 1) - 1, 0.0)
        scores = np.stack([place, np.abs(place) - 0.5, scores[-1]])
    means = [scores @ side / side.sum() for side in (one, other)]
    variance = [scores**2 @ side / side.sum() - m**2 for side, m in zip((one, other), means, strict=True)]
    error = np.sqrt(np.maximum(variance[0] / a + variance[1] / b, 0))
    # A share of 0 or 1 on both sides has no error; on one side, at least that of half a row.
    error = np.maximum(error, 0.5 / min(a, b))
    return np.asarray((means[0] - means[1]) / error)


def nats(statistic: float, freedom: int) -> float:
    """A chi-squared statistic as nats; see misfit()."""
    spread = 2 / (9 * freedom)
    deviate = ((max(statistic, 0.0) / freedom) ** (1 / 3) - 1 + spread) / np.sqrt(spread)
    return float(max(deviate, 0.0) ** 2 / 2)
