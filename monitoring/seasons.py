"""What stretches of the past as long as a window do by themselves: season and autocorrelation are part of "unchanged".

Exchanging blocks between reference and window says how far chance alone moves a window. Seasons move it further, and so does a world
that wanders around a steady middle: how far, earlier stretches of the same length show, each held against the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.exchange import Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windvane.monitoring.distances import Floats
    from windvane.monitoring.measures import Scorer

# Fewer earlier stretches than this say nothing of what is usual; more than the other are not looked at.
FEWEST, MOST = 5, 200
# A measure's own spread counts as if so many stretches had shown the spread that is common to all measures.
_PRIOR = 4.0


@dataclass(frozen=True)
class Usual:
    """`scores` (measures,) of the window, held against what is usual in `stretches` earlier ones: so many times (`slack`) the variance
    of chance. The largest score of an unchanged window exceeds `limit` in a share `level` of cases; `p` is the place of this window's.
    """

    scores: Floats
    slack: Floats
    limit: float
    p: float
    stretches: int


def usual(scorers: Sequence[Scorer], level: float) -> Usual | int:
    """How the window compares with earlier stretches; their number where they are too few. The scorers have learnt."""
    count = min(*(s.exchange.stretches for s in scorers), MOST)
    if count < FEWEST:
        return count
    found = [_against_past(scorer, count) for scorer in scorers]
    largest = np.concatenate([past for past, *_ in found], axis=1).max(axis=1)
    scores = np.concatenate([seen for _, seen, _ in found])
    limit, p = beyond(largest, float(scores.max()), level)
    return Usual(scores, np.concatenate([slack for *_, slack in found]), limit, p, count)


def _against_past(scorer: Scorer, count: int) -> tuple[Floats, Floats, Floats]:
    """Scores of `count` earlier stretches (count, measures) and of the window (measures,), and the slack (measures,) that it has.

    Each is allowed the variance that the others show, so that a stretch is judged as the window is.
    """
    pairs = _pairs(scorer, count)
    shaped, counts = _measured(scorer, pairs)
    spread = scorer.spread(shaped, counts)
    # Nobody predicted on rows from before the reference.
    guessed = np.array([m.aspect == "prediction" for m in scorer.measures])
    known = np.stack([np.full(len(guessed), True) if own else ~guessed for *_, own in pairs])
    spread = np.where(known, spread, 0)
    sums, counts_of = spread.sum(axis=0), known.sum(axis=0)
    common = max(float(np.median(sums / np.maximum(counts_of, 1))), 1.0)

    def slack(sums: Floats, counts: Floats) -> Floats:
        # No measure is steadier than chance.
        return np.maximum((_PRIOR * common + sums) / (_PRIOR + counts), 1.0)

    slacks = slack(sums - spread, counts_of - known)
    past = np.where(known, scorer.scores(shaped, counts, slacks), -np.inf)
    allowed = slack(sums, counts_of)
    return past, scorer(scorer.exchange.observed, allowed)[0], allowed


def _measured(scorer: Scorer, pairs: list[tuple[Sums, Sums, bool]]) -> tuple[Floats, Floats]:
    """Squared distances (k, measures) and scores of counts (k, measures) of pairs, those within the reference first: these share
    one total, and so the odds of counts.
    """
    own = [(side, rest) for side, rest, inside in pairs if inside]
    groups = ([own] if own else []) + [[(side, rest)] for side, rest, inside in pairs if not inside]
    counts = [scorer.counts_of_past(*(_joined(one) for one in zip(*group, strict=True))) for group in groups]
    both = (_joined(one) for one in zip(*((side, rest) for side, rest, _ in pairs), strict=True))
    return scorer.shaped(*both), np.concatenate(counts)


def _joined(sums: Sequence[Sums]) -> Sums:
    return Sums(*(np.concatenate([getattr(s, name) for s in sums]) for name in ("numbers", "categories", "cross")))


def _pairs(scorer: Scorer, count: int) -> list[tuple[Sums, Sums, bool]]:
    """The newest stretches before the window with what they are held against; whether they are part of the reference."""
    exchange, kept = scorer.exchange, scorer.exchange.kept
    return [(side, exchange.rest(side, kept) if own else kept, own) for side, own in exchange.earlier(count)]


def beyond(largest: Floats, seen: float, level: float) -> tuple[float, float]:
    """The limit for one more value like `largest` (k,), and the place of `seen` among them.

    Maxima follow Gumbel's law; the error of their mean and spread widens it as Student's t does for one more value of a normal
    sample.
    """
    from scipy import special

    freedom = len(largest) - 1
    # At least half a standard deviation: no set of maxima is steadier than that.
    spread = max(float(largest.std(ddof=1)), 0.5) * np.sqrt(1 + 1 / len(largest))

    def quantile(level: float) -> float:
        gumbel = (-np.log(-np.log1p(-level)) - np.euler_gamma) * np.sqrt(6) / np.pi
        wider = special.stdtrit(freedom, 1 - level) / special.ndtri(1 - level) if level < 0.4 else 1.0
        return float(largest.mean() + spread * gumbel * wider)

    levels = np.concatenate([np.geomspace(1e-6, 0.4, 200), np.linspace(0.41, 0.99, 59)])
    at = np.maximum.accumulate(np.array([quantile(float(one)) for one in levels])[::-1])[::-1]
    return quantile(level), float(np.interp(-seen, -at, levels))
