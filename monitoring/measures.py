"""What is measured of an exchange, and how rare each measure is by itself: scores that are comparable across columns.

A score is what a normal variable would have to be to be as rare: 1 is one standard deviation of unchanged windows. The scores
need not be exact: their maximum is calibrated as a whole (monitoring/calibration.py). They only decide how much each
column and aspect weighs in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import distances
from windvane.monitoring.counted import CAP, Counted
from windvane.monitoring.evidence import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windvane.monitoring.cells import Cells
    from windvane.monitoring.distances import Distances, Floats
    from windvane.monitoring.exchange import Exchange, Sums

# A column off its commonest value in fewer rows of the smaller side than this is scored by counting those rows.
COUNTED = 3.0
# By so much may a measured distance exceed a limit that it only meets: two ways of adding up differ in their last digits.
_ROUNDING = 1e-6
# The least standard deviation that Evidently divides by; and a limit that no distance exceeds.
_EVIDENTLYS_FLOOR, NEVER = 0.001, np.inf


@dataclass(frozen=True)
class Demand:
    """What a measure must exceed to speak: its score `limits` (measures,), counted in so many times the usual variance `slack`
    (measures,).
    """

    limits: Floats
    slack: Floats


class Scorer:
    """Exchanges -> scores (draws, measures). `learn` is shown exchanges that are not used for the limit."""

    def __init__(self, exchange: Exchange, by: Distances = distances) -> None:
        self.exchange, self._by = exchange, by
        numbers, categories = exchange.numbers, exchange.categories
        off = {c.name for c in numbers + categories if exchange.varies(c) < COUNTED}
        self._counted = (
            Counted(numbers, exchange.total.numbers[0], exchange.window, off),
            Counted(categories, exchange.total.categories[0], exchange.window, off),
        )
        width = exchange.total.numbers.shape[2] - 2
        self._gaps = np.stack([np.pad(c.gaps, (0, width - c.size)) for c in numbers] or [np.zeros(width)])
        shaped = [Measure(c.name, c.aspect, how) for how in ("wasserstein", "ks") for c in numbers]
        shaped += [Measure(c.name, c.aspect, how) for how in ("jensenshannon", "share") for c in categories]
        self._weights = _weights(exchange.total.categories[0, :, :-2], min(exchange.reference, exchange.window))
        self._kept = np.array([m.column not in off for m in shaped], dtype=bool)
        self._hanging = len(exchange.correlated) > 1
        self.measures = tuple(
            [m for m, kept in zip(shaped, self._kept, strict=True) if kept]
            + [Measure(c.name, "correlation", "correlation") for c in exchange.correlated if self._hanging]
            + [m for counted in self._counted for m in counted.measures]
        )

    def learn(self, sides: Sums) -> None:
        """The usual size, spread and skewness of every distance, from exchanges."""
        found = self.shaped(sides, self.exchange.rest(sides))
        self._centre, self._spread = found.mean(axis=0), found.std(axis=0)
        centred = (found - self._centre) / np.maximum(self._spread, 1e-300)
        self._skew = np.clip((centred**3).mean(axis=0), 0.2, 6)

    def __call__(self, sides: Sums, slack: Floats | float = 1.0) -> Floats:
        """(draws, measures) scores of what exchanges gave to the window's side.

        `slack` (measures,): so many times the variance that exchanges show is usual for each measure.
        """
        rest = self.exchange.rest(sides)
        return self.scores(self.shaped(sides, rest), self._counts(sides, rest, self._counted), slack)

    def values(self) -> Floats:
        """(measures,) the window in Evidently's units: distances, and numbers of rows."""
        seen, rest = self.exchange.observed, self.exchange.kept
        counts = [counted.count(*of) for counted, of in zip(self._counted, self._pairs(seen, rest), strict=True)]
        return np.concatenate([np.sqrt(self.shaped(seen, rest)[0]) * self._units(), *(c[0] for c in counts)])

    def bounds(self, demands: Sequence[Demand]) -> tuple[Floats, Floats]:
        """The least and the most (measures,), in Evidently's units, at which a measure is quiet: one demand that it misses is enough."""
        cut = len(self._skew)
        most = np.max([self._distances_at(d.limits[:cut], d.slack[:cut]) for d in demands], axis=0) * self._units()
        least, end = [np.full(cut, -np.inf)], cut
        highest = [most * (1 + _ROUNDING) + _ROUNDING]
        for counted in self._counted:
            start, end = end, end + len(counted.measures)
            low, high = counted.bounds([(d.limits[start:end], d.slack[start:end]) for d in demands])
            least.append(low)
            highest.append(high)
        return np.concatenate(least), np.concatenate(highest)

    def _distances_at(self, limits: Floats, slack: Floats) -> Floats:
        """Distances whose scores are these: scores() backwards."""
        shape = 8 / self._skew**2
        root = np.maximum(limits * np.sqrt(2 / (9 * shape)) + 1 - 2 / (9 * shape), 0)
        spread = np.maximum(self._spread, 1e-12 + 1e-9 * self._centre)
        squared = slack * (self._centre + (shape * root**3 - shape) * spread / np.sqrt(2 * shape))
        return np.asarray(np.where(limits >= CAP, NEVER, np.sqrt(np.maximum(squared, 0))))

    def _units(self) -> Floats:
        """(distances,) what one of ours is in Evidently's units: that divides by the standard deviation of the reference alone."""
        units = {c.name: c.scale / self._reference_spread(c) for c in self.exchange.numbers}
        cut = self.measures[: len(self._skew)]
        return np.array([units[m.column] if m.how == "wasserstein" else 1.0 for m in cut])

    def _reference_spread(self, cells: Cells) -> float:
        known = cells.codes[self.exchange.before :][: self.exchange.reference]
        return max(float(np.std(cells.stands_for[known[known >= 0]])) if (known >= 0).any() else 0.0, _EVIDENTLYS_FLOOR)

    def counts_of_past(self, side: Sums, rest: Sums) -> Floats:
        """(draws, measures that count) scores of two samples of which neither is the window; all draws are of one total."""
        numbers, categories = self._counted
        counted = (
            numbers.among((side.numbers + rest.numbers)[0]),
            categories.among((side.categories + rest.categories)[0]),
        )
        return self._counts(side, rest, counted)

    def spread(self, shaped: Floats, counts: Floats) -> Floats:
        """(draws, measures) squared distances of two samples in units of what exchanges show: 1 on average if chance alone moves
        them.
        """
        return np.concatenate([shaped / np.maximum(self._centre, 1e-12), 2 * np.maximum(counts, 0) ** 2], axis=1)

    def scores(self, shaped: Floats, counts: Floats, slack: Floats | float) -> Floats:
        """(draws, measures) scores from what shaped() and counting give; `slack`: (measures,) or (draws, measures)."""
        shape = 8 / self._skew**2
        slack = np.broadcast_to(slack, (len(shaped), len(self.measures)))
        cut = len(shape)
        spread = np.maximum(self._spread, 1e-12 + 1e-9 * self._centre)
        at = np.maximum(shape + np.sqrt(2 * shape) * (shaped / slack[:, :cut] - self._centre) / spread, 0)
        # A chi-square with three moments of the null (Imhof, Biometrika 48 (1961)), made normal (Wilson & Hilferty, PNAS 17 (1931)).
        scores = ((at / shape) ** (1 / 3) - (1 - 2 / (9 * shape))) / np.sqrt(2 / (9 * shape))
        return np.concatenate([np.minimum(scores, CAP), counts / np.sqrt(slack[:, cut:])], axis=1)

    def _counts(self, sides: Sums, rest: Sums, counted: tuple[Counted, Counted]) -> Floats:
        return np.concatenate([one(*of) for one, of in zip(counted, self._pairs(sides, rest), strict=True)], axis=1)

    def _pairs(self, sides: Sums, rest: Sums) -> list[tuple[Floats, Floats]]:
        return [(sides.numbers, rest.numbers), (sides.categories, rest.categories)]

    def shaped(self, sides: Sums, rest: Sums) -> Floats:
        """(draws, measures) squared distances of distributions and correlations: their null is close to a chi-square."""
        before, after = _shares(rest.numbers[..., :-2], sides.numbers[..., :-2])
        one, other = _shares(rest.categories[..., :-2], sides.categories[..., :-2])
        shaped = [
            self._by.wasserstein(before, after, self._gaps[: before.shape[1]]),
            self._by.kolmogorov(before, after),
            self._by.jensen_shannon(one, other),
            np.abs((one - other) * self._weights).max(axis=-1, initial=0),
        ]
        found = [np.concatenate(shaped, axis=1)[:, self._kept]]
        if self._hanging:
            found.append(_most(np.abs(correlations(sides.cross) - correlations(rest.cross))))
        return np.concatenate(found, axis=1) ** 2


def _shares(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Counts (..., cells) of two samples as shares of their sums; both 0 where one has no value: that is a matter of what is missing."""
    sums = [side.sum(axis=-1, keepdims=True, dtype=np.float64) for side in (one, other)]
    known = (sums[0] > 0) & (sums[1] > 0)
    return one * (known / np.maximum(sums[0], 1)), other * (known / np.maximum(sums[1], 1))


def _weights(counts: Floats, rows: int) -> Floats:
    """One over the standard deviation of a row's being in a cell (columns, cells); 0 where `rows` rows hold hardly any."""
    share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    common = np.minimum(share, 1 - share) * rows >= COUNTED
    return np.where(common, 1 / np.sqrt(np.maximum(share * (1 - share), 1e-9)), 0)


def correlations(cross: Floats) -> Floats:
    """(draws, c, c) Fisher-transformed correlations of rank scores within one side."""
    rows = np.maximum(cross[:, :1, :1], 1)
    mean = cross[:, 1:, :1] / rows
    covariance = cross[:, 1:, 1:] / rows - mean * mean.transpose(0, 2, 1)
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-9))
    return np.asarray(np.arctanh(np.clip(covariance / (spread[:, :, None] * spread[:, None, :]), -0.999, 0.999)))


def _most(apart: Floats) -> Floats:
    """(draws, c) the pair of each column that moved most."""
    apart[:, np.arange(apart.shape[1]), np.arange(apart.shape[1])] = 0
    return np.asarray(apart.max(axis=-1))
