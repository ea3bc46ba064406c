"""The limit that keeps the rate of false alarms: by permutations, and by what earlier windows do by season."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from scipy import special

from windvane.monitoring.drift.permutation import PermutationScorer, SampleSums
from windvane.monitoring.records import DriftMeasure
from windvane.tasks.gate.block_test import FloatArray

# Exchanges that fit the scores' scale (with 200 the limit of 55 measures was 3.8 instead of 3.5: rough scores have long tails);
# exchanges in a batch; and the least and most for the limit.
_SCALE_DRAWS, _BATCH_DRAWS = 600, 100
_MIN_DRAWS, _MAX_DRAWS = 199, 4999
# The limit rests on about so many exchanges beyond it.
_DRAWS_BEYOND_LIMIT = 10


@dataclass(frozen=True)
class CalibratedScores:
    """Scores (measures,) of the window with the limit of each, what speaks, and the largest score's place.

    `p`: the share of exchanges, the window among them, whose largest score is at least the window's.
    """

    measures: tuple[DriftMeasure, ...]
    scores: FloatArray
    limits: FloatArray
    alarms: NDArray[np.bool_]
    limit: float
    p: float

    @property
    def statistic(self) -> float:
        """The largest score."""
        return float(self.scores.max())


def count_draws(level: float) -> int:
    """So many exchanges make the limit at `level`: about ten of them lie beyond it."""
    return min(max(ceil(round(_DRAWS_BEYOND_LIMIT / level, 6)) - 1, _MIN_DRAWS), _MAX_DRAWS)


def calibrate_scores(scorers: Sequence[PermutationScorer], level: float, *, hurry: bool = False) -> CalibratedScores:
    """Scores of the window against those of exchanges. Several scorers (the labelled rows are fewer) are drawn side by side.

    hurry: stop drawing as soon as the alarm is ruled out (Besag & Clifford, Biometrika 78 (1991)). The alarm is the same; an
    unalarmed window's limit and p are then rough.
    """
    for scorer in scorers:
        scorer.learn(scorer.exchange.draw(_SCALE_DRAWS))
    seen = np.concatenate([s(s.exchange.observed)[0] for s in scorers])
    total, drawn, beyond = count_draws(level), [], 0
    allowed = floor(round(level * (total + 1), 6)) - 1
    done, batch = 0, _BATCH_DRAWS // 4 if hurry else _BATCH_DRAWS
    while done < total and not (hurry and beyond > allowed):
        drawn.append(np.concatenate([s(s.exchange.draw(min(batch, total - done))) for s in scorers], axis=1))
        beyond += int((drawn[-1].max(axis=1) >= seen.max()).sum())
        done, batch = done + batch, _BATCH_DRAWS
    null, measures = np.concatenate(drawn), tuple(m for s in scorers for m in s.measures)
    limits, alarms = _step_down(seen, null, level)
    p = (1 + beyond) / (1 + len(null))
    return CalibratedScores(measures, seen, limits, alarms, _find_quantile_limit(null.max(axis=1), level), p)


def _find_quantile_limit(largest: FloatArray, level: float) -> float:
    """What the window's largest score must exceed: fewer than level * (draws + 1) of `largest` (draws,) lie there or above."""
    rank = max(floor(round(level * (len(largest) + 1), 6)), 1)
    return float(np.partition(largest, len(largest) - rank)[len(largest) - rank])


def _step_down(seen: FloatArray, null: FloatArray, level: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Each measure's limit (measures,), and which exceed theirs: what spoke is left out before the rest is checked again."""
    open_, limits = np.ones(len(seen), dtype=bool), np.empty(len(seen))
    while open_.any():
        limit = _find_quantile_limit(null[:, open_].max(axis=1), level)
        limits[open_] = limit
        spoke = open_ & (seen > limit)
        if not spoke.any():
            break
        open_ &= ~spoke
    return limits, ~open_


# Fewer earlier stretches than this do not show what is usual; more than the other are not compared.
MIN_EARLIER_WINDOWS, MAX_EARLIER_WINDOWS = 5, 200
# A measure's own spread counts as if so many stretches had shown the spread that is common to all measures.
_PRIOR_WINDOWS = 4.0


@dataclass(frozen=True)
class SeasonalScores:
    """`scores` (measures,) of the window, held against what is usual in `stretches` earlier ones: so many times (`slack`) the variance
    of chance. The largest score of an unchanged window exceeds `limit` in a share `level` of cases; `p` is the place of this window's.
    """

    scores: FloatArray
    slack: FloatArray
    limit: float
    p: float
    stretches: int


def score_against_past(scorers: Sequence[PermutationScorer], level: float) -> SeasonalScores | int:
    """How the window compares with earlier stretches; their number where they are too few. The scorers have learnt."""
    count = min(*(s.exchange.stretches for s in scorers), MAX_EARLIER_WINDOWS)
    if count < MIN_EARLIER_WINDOWS:
        return count
    found = [_score_earlier_windows(scorer, count) for scorer in scorers]
    largest = np.concatenate([past for past, *_ in found], axis=1).max(axis=1)
    scores = np.concatenate([seen for _, seen, _ in found])
    limit, p = extrapolate_limit(largest, float(scores.max()), level)
    return SeasonalScores(scores, np.concatenate([slack for *_, slack in found]), limit, p, count)


def _score_earlier_windows(scorer: PermutationScorer, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores of `count` earlier stretches (count, measures) and of the window (measures,), and the slack (measures,) that it has.

    Each is allowed the variance that the others show, so that a stretch is judged as the window is.
    """
    exchange, kept = scorer.exchange, scorer.exchange.kept
    # The newest stretches with what they are held against; whether they are part of the reference.
    pairs = [(side, exchange.rest(side, kept) if own else kept, own) for side, own in exchange.earlier(count)]
    shaped, counts = _measure_pairs(scorer, pairs)
    spread = scorer.spread(shaped, counts)
    # No predictions are on rows from before the reference.
    guessed = np.array([m.aspect == "prediction" for m in scorer.measures])
    known = np.stack([~guessed | own for *_, own in pairs])
    spread = np.where(known, spread, 0)
    sums, counts_of = spread.sum(axis=0), known.sum(axis=0)
    common = max(float(np.median(sums / np.maximum(counts_of, 1))), 1.0)

    def slack(sums: FloatArray, counts: FloatArray) -> FloatArray:
        # No measure is steadier than chance.
        return np.maximum((_PRIOR_WINDOWS * common + sums) / (_PRIOR_WINDOWS + counts), 1.0)

    slacks = slack(sums - spread, counts_of - known)
    past = np.where(known, scorer.scores(shaped, counts, slacks), -np.inf)
    allowed = slack(sums, counts_of)
    return past, scorer(exchange.observed, allowed)[0], allowed


def _measure_pairs(
    scorer: PermutationScorer, pairs: list[tuple[SampleSums, SampleSums, bool]]
) -> tuple[FloatArray, FloatArray]:
    """Squared distances (k, measures) and scores of counts (k, measures) of pairs, those within the reference first: these share
    one total, and so the odds of counts.
    """
    own = [(side, rest) for side, rest, inside in pairs if inside]
    groups = ([own] if own else []) + [[(side, rest)] for side, rest, inside in pairs if not inside]
    counts = [scorer.counts_of_past(*map(_join_sums, zip(*group, strict=True))) for group in groups]
    sides, rests, _ = zip(*pairs, strict=True)
    return scorer.shaped(_join_sums(sides), _join_sums(rests)), np.concatenate(counts)


def _join_sums(sums: Sequence[SampleSums]) -> SampleSums:
    return SampleSums(
        *(np.concatenate([getattr(s, name) for s in sums]) for name in ("numbers", "categories", "cross"))
    )


def extrapolate_limit(largest: FloatArray, seen: float, level: float) -> tuple[float, float]:
    """The limit for one more value like `largest` (k,), and the place of `seen` among them.

    Maxima follow Gumbel's law; the error of their mean and spread widens it as Student's t does for one more value of a normal
    sample.
    """
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
