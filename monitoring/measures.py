"""What is measured of an exchange, and how rare each measure is by itself: scores that are comparable across columns.

A score is what a normal variable would have to be to be as rare: 1 is one standard deviation of unchanged windows. The scores
need not be exact: their maximum is calibrated as a whole (monitoring/calibration.py). They only decide how much each
column and aspect weighs in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import distances
from windvane.monitoring.counted import CAP, Counted
from windvane.monitoring.evidence import Measure

if TYPE_CHECKING:
    from windvane.monitoring.distances import Floats
    from windvane.monitoring.exchange import Exchange, Sums

# A column off its commonest value in fewer rows of the smaller side than this is scored by counting those rows.
_COUNTED = 3.0


class Scorer:
    """Exchanges -> scores (draws, measures). `learn` is shown exchanges that are not used for the limit."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        numbers, categories = exchange.numbers, exchange.categories
        off = {c.name for c in numbers + categories if exchange.varies(c) < _COUNTED}
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
        return np.concatenate(
            [counted[0](sides.numbers, rest.numbers), counted[1](sides.categories, rest.categories)], axis=1
        )

    def shaped(self, sides: Sums, rest: Sums) -> Floats:
        """(draws, measures) squared distances of distributions and correlations: their null is close to a chi-square."""
        both = distances.shares(rest.numbers[..., :-2]), distances.shares(sides.numbers[..., :-2])
        apart = np.cumsum(both[0] - both[1], axis=-1)
        # A side without any value is a matter of what is missing.
        apart *= ((both[0].sum(axis=-1) > 0) & (both[1].sum(axis=-1) > 0))[..., None]
        one, other = distances.shares(rest.categories[..., :-2]), distances.shares(sides.categories[..., :-2])
        shaped = [
            distances.wasserstein(apart, self._gaps[: apart.shape[1]]),
            distances.kolmogorov(apart),
            distances.jensen_shannon(one, other),
            distances.kolmogorov((one - other) * self._weights),
        ]
        found = [np.concatenate(shaped, axis=1)[:, self._kept]]
        if self._hanging:
            found.append(_most(np.abs(correlations(sides.cross) - correlations(rest.cross))))
        return np.concatenate(found, axis=1) ** 2


def _weights(counts: Floats, rows: int) -> Floats:
    """One over the standard deviation of a row's being in a cell (columns, cells); 0 where `rows` rows hold hardly any."""
    share = distances.shares(counts)
    common = np.minimum(share, 1 - share) * rows >= _COUNTED
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
