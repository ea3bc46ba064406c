"""What a challenger must show, on losses of rows that are new to both models.

Pure: the same arrays give the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from windvane.tasks.console import format_metric
from windvane.tasks.errors import WindvaneError
from windvane.tasks.gate.block_test import (
    MIN_BLOCKS,
    FloatArray,
    LowerBound,
    RowBlocks,
    bound_paired_difference,
    form_blocks,
    mask_missing,
)

ResolvedRule = Literal["superior", "not_worse"]

MIN_JUDGED_ROWS = 30  # of a judgement, and of a slice: fewer do not measure the tail of a loss
MIN_TIME_POINTS = 300  # in time: fewer could not show luck that lasts as long as they do
# Ordered in time, fewer rows get their share of alpha only (n / 300 of it): runs that fill them look like a gain.
# benchmarks/gate.py finds alpha held so at an autocorrelation of 0.9 and of 0.95 under noise; without, up to 20 % were wrong.
_FULL_ALPHA_ROWS = 300
_SLICE_BINS = 4  # a number with many values is sliced at its quartiles


@dataclass(frozen=True)
class GateEvidence:
    """Losses of n rows that neither model was fitted or tuned on, and what makes the rows depend on each other.

    challenger, reference: (n,) additive losses, lower is better; `reference` is the champion's, or where `champion` is
    False the dummy baseline's. keys: (n,) row keys. time, group: (n,) or None. fold: (n,) where rows were predicted out of
    fold, else None: rows of a fold share their models, and are one block. slices: column name -> (n,) values. loss: its name
    for people. weights: (n,) how much each row counts, 1 on average; None: all alike.
    """

    challenger: FloatArray
    reference: FloatArray
    keys: NDArray[np.int64]
    time: NDArray[Any] | None = None
    group: NDArray[Any] | None = None
    slices: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    loss: str = "loss"
    champion: bool = True
    fold: NDArray[Any] | None = None
    weights: FloatArray | None = None

    def weighed(self) -> GateEvidence:
        """The same with each loss times its row's weight: their means are the weighted ones, and equal models stay equal."""
        if self.weights is None:
            return self
        return replace(self, challenger=self.weights * self.challenger, reference=self.weights * self.reference)


@dataclass(frozen=True)
class SliceVerdict:
    """One value of one column, with mean losses. Not `judged`: too few rows. `harmed`: clearly worse there."""

    column: str
    value: str
    rows: int
    challenger: float
    reference: float
    judged: bool
    harmed: bool


@dataclass(frozen=True)
class GateVerdict:
    """What the gate decided, in words and numbers. Losses are means per row; difference = reference - challenger."""

    accepted: bool
    reason: str
    rule: ResolvedRule
    rows: int
    blocks: int
    challenger: float | None
    reference: float | None
    difference: float | None
    low: float | None
    confidence: float
    margin: float
    slices: tuple[SliceVerdict, ...] = ()
    too_few: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values, ready for json.dumps."""
        return asdict(self) | {"slices": [asdict(s) for s in self.slices]}


def resolve_gate_rule(
    rule: Literal["auto", "superior", "not_worse"], depth: Literal["search", "refit"]
) -> ResolvedRule:
    """`auto` in params.yaml: a search must bring something, a refit must only do no harm (it brings newer rows)."""
    if rule == "auto":
        return "superior" if depth == "search" else "not_worse"
    return rule


def judge_challenger(evidence: GateEvidence, rule: ResolvedRule, confidence: float, margin: float) -> GateVerdict:
    """Whether the challenger may serve. Pure: same arrays, same verdict, in whatever order the rows are.

    superior: the lower bound of the mean difference is above 0. not_worse: it is not below -margin times the champion's
    mean loss. Without a champion the dummy baseline must be beaten, `superior` whatever `rule` is, by bound_gain_on_baseline(),
    and slices only report: nothing serves yet that could be harmed. Too few rows or blocks is a refusal of its own, `too_few`.
    Raises WindvaneError for losses that are not finite or arrays that do not belong together.
    """
    _check_evidence(evidence)
    evidence = evidence.weighed()
    rule = rule if evidence.champion else "superior"
    parts = form_blocks(evidence.keys, evidence.time, evidence.group, evidence.fold)
    n = len(evidence.challenger)
    means = (_mean(evidence.challenger), _mean(evidence.reference))
    if n < MIN_JUDGED_ROWS or parts[0].count < MIN_BLOCKS:
        difference = _mean(evidence.reference - evidence.challenger)
        reason = _too_few(n, parts[0])
        return GateVerdict(
            False, reason, rule, n, parts[0].count, *means, difference, None, confidence, margin, too_few=True
        )
    strict = raise_confidence(confidence, n, parts)
    if evidence.champion:
        bound = compare_losses(
            evidence.reference, evidence.challenger, parts, rule=rule, confidence=confidence, margin=margin
        )
    else:
        bound = bound_gain_on_baseline(evidence.reference, evidence.challenger, parts, confidence)
    slices = judge_slices(evidence, parts, confidence, margin)
    harmed = [s for s in slices if s.harmed and evidence.champion]
    # On no row worse than allowed: then the bound, which doubts the size of the margin too, is not needed.
    nowhere = rule == "not_worse" and bool((evidence.challenger <= (1 + margin) * evidence.reference).all())
    accepted = (nowhere or bool(passes_rule(bound.low, np.mean(evidence.reference), rule, margin))) and not harmed
    needs = f"{strict * 100:.4g} % bound {{}}; " + (
        "must be better" if rule == "superior" else f"{margin * 100:g} % worse is allowed"
    )
    reason = _sentence(evidence, bound, parts, needs) + _on_slices(harmed, slices)
    low, difference = float(bound.low), float(bound.mean)
    return GateVerdict(accepted, reason, rule, n, parts[0].count, *means, difference, low, strict, margin, slices)


def raise_confidence(confidence: float, n: int, parts: tuple[RowBlocks, ...]) -> float:
    """The confidence that n rows are judged at: higher than set where they are few and ordered in time."""
    share = min(1.0, n / _FULL_ALPHA_ROWS) if parts[0].kind == "time" else 1.0
    return 1 - (1 - confidence) * share


def compare_losses(
    reference: FloatArray,
    challenger: FloatArray,
    parts: tuple[RowBlocks, ...],
    *,
    rule: ResolvedRule,
    confidence: float,
    margin: float,
) -> LowerBound:
    """Mean of reference - challenger losses, both (..., n), with the lower bound that the rule tests.

    not_worse tests whether a ratio of means stays below 1 + margin, and the margin is a share of a mean that is itself
    uncertain: so (1 + margin) * reference - challenger is tested (Fieller, J. Royal Statistical Society B 16, 1954).
    With the margin taken as a known number, wrong promotions were up to 13 % where 5 % were allowed.
    """
    allowed = margin if rule == "not_worse" else 0.0
    strict = raise_confidence(confidence, challenger.shape[-1], parts)
    bound = bound_paired_difference((1 + allowed) * reference - challenger, parts, strict)
    slack = allowed * reference.mean(axis=-1)
    return LowerBound(bound.mean - slack, bound.low - slack, bound.independent)


def bound_gain_on_baseline(
    reference: FloatArray, challenger: FloatArray, parts: tuple[RowBlocks, ...], confidence: float
) -> LowerBound:
    """Mean of reference - challenger losses, both (..., n), with the higher of two lower bounds of it.

    One is that of compare_losses(). For the other a row's gain counts at most as much as the median size of all differences (equal
    losses apart); what a row loses counts in full. That only lowers the mean, so what bounds it from below bounds the mean too
    (winsorising on the favourable end, after Tukey & McLaughlin, Sankhya A 25, 1963). A few rows, or a season, of which the
    baseline knows nothing make gains so unequal that the first bound falls below 0 although hardly a row is worse; the second
    does not see them.
    """
    difference = reference - challenger
    strict = raise_confidence(confidence, difference.shape[-1], parts)
    size = np.abs(difference)
    unlike = (size > 0) | (size.max(axis=-1, keepdims=True) == 0)
    usual = np.nanmedian(np.where(unlike, size, np.nan), axis=-1, keepdims=True)
    plain = bound_paired_difference(difference, parts, strict)
    capped = bound_paired_difference(np.minimum(difference, usual), parts, strict)
    higher = capped.low > plain.low
    return LowerBound(
        plain.mean,
        np.where(higher, capped.low, plain.low),
        np.where(higher, capped.independent, plain.independent),
    )


def passes_rule(
    low: FloatArray, reference: FloatArray | np.floating[Any], rule: ResolvedRule, margin: float
) -> NDArray[np.bool_]:
    """The rule alone, for lower bounds and mean reference losses. Equal models are not superior, and not worse."""
    return np.asarray(low > 0 if rule == "superior" else low >= -margin * np.abs(reference))


def judge_slices(
    evidence: GateEvidence, parts: tuple[RowBlocks, ...], confidence: float, margin: float
) -> tuple[SliceVerdict, ...]:
    """Where the challenger is clearly worse: its loss exceeds the reference's by more than the margin, significantly.

    The confidence is shared among all judged slices (Bonferroni; Holm's steps would refuse the same challengers).
    Values with too few rows or blocks are pooled per column, and not judged where even the pool is too small.
    """
    wanted: list[tuple[str, str, NDArray[np.bool_], tuple[RowBlocks, ...]]] = []
    for column, values in evidence.slices.items():
        names, codes = _name_slice_values(np.asarray(values))
        rare = np.zeros(len(codes), dtype=bool)
        for code, name in enumerate(names):
            inside = codes == code
            if own := _select_slice_blocks(inside, parts):
                wanted.append((column, name, inside, own))
            else:
                rare |= inside
        if rare.any():
            wanted.append((column, "other values", rare, _select_slice_blocks(rare, parts)))
    each = 1 - (1 - confidence) / max(1, sum(bool(own) for *_, own in wanted))
    verdicts = []
    for column, name, inside, own in wanted:
        challenger, reference = evidence.challenger[inside], evidence.reference[inside]
        harmed = bool(own) and float(bound_paired_difference(challenger - (1 + margin) * reference, own, each).low) > 0
        size = 1.0 if evidence.weights is None else float(evidence.weights[inside].mean()) or 1.0
        means = float(challenger.mean()) / size, float(reference.mean()) / size
        verdicts.append(SliceVerdict(column, name, int(inside.sum()), *means, bool(own), harmed))
    return tuple(verdicts)


def _select_slice_blocks(inside: NDArray[np.bool_], parts: tuple[RowBlocks, ...]) -> tuple[RowBlocks, ...]:
    """The blocks within a slice that a test can rest on; none when it is too small."""
    own = [part.at(inside) for part in parts]
    if inside.sum() < MIN_JUDGED_ROWS or own[0].count < MIN_BLOCKS:
        return ()
    return tuple(part for part in own if part.count >= MIN_BLOCKS)


def _name_slice_values(values: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of a column's slices, and each row's: its values, or quartiles of a number or date with many."""
    gone = mask_missing(values)
    if values.dtype.kind not in "iufM" or len(np.unique(values[~gone])) <= 2 * _SLICE_BINS:
        text = np.array(["missing" if a else str(v) for v, a in zip(values, gone, strict=True)], dtype=str)
        found, codes = np.unique(text, return_inverse=True)
        return found.tolist(), codes.astype(np.int64)
    present = np.sort(values[~gone])
    edges = np.unique(present[[len(present) * k // _SLICE_BINS for k in range(1, _SLICE_BINS)]])
    codes = np.where(gone, len(edges) + 1, np.searchsorted(edges, values, side="right")).astype(np.int64)
    between = [f"from {a} to below {b}" for a, b in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"from {edges[-1]} up", "missing"], codes


def _check_evidence(evidence: GateEvidence) -> None:
    n = len(evidence.challenger)
    columns = {"keys": evidence.keys, "time": evidence.time, "group": evidence.group, "fold": evidence.fold}
    columns |= evidence.slices
    for name, column in {"reference": evidence.reference, **columns}.items():
        if column is not None and len(column) != n:
            raise WindvaneError(f"gate: {name} has {len(column)} rows, the challenger {n}. Judge rows of one record")
    reference = "champion" if evidence.champion else "baseline"
    for name, loss in {"challenger": evidence.challenger, reference: evidence.reference}.items():
        bad = int((~np.isfinite(loss)).sum())
        if bad:
            raise WindvaneError(
                f"gate: {bad} of {n} losses of the {name} are not finite, so nothing is promoted. "
                "Inspect its predictions on the test rows"
            )


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None


def _too_few(n: int, part: RowBlocks) -> str:
    unit = {"time": "points in time", "group": "groups", "row": "different rows", "fold": "folds"}[part.kind]
    return (
        f"refused: too few common rows: {n:,} rows in {part.count} {unit}, and a judgement needs {MIN_JUDGED_ROWS} rows in "
        f"{MIN_BLOCKS} {unit}. Wait for newer rows, or make split.test larger"
    )


def _sentence(evidence: GateEvidence, bound: LowerBound, parts: tuple[RowBlocks, ...], needs: str) -> str:
    challenger, reference = float(evidence.challenger.mean()), float(evidence.reference.mean())

    def gain(value: float) -> str:
        size = f"{abs(value) / reference * 100:.1f} %" if reference > 0 else format_metric(abs(value))
        return f"{size} {'better' if value > 0 else 'worse'}" if value else "no difference"

    text = (
        f"{evidence.loss} {format_metric(challenger)} against {'champion' if evidence.champion else 'baseline'} "
        f"{format_metric(reference)}: {gain(float(bound.mean))} ({needs.format(gain(float(bound.low)))}) "
        f"on {len(evidence.keys):,} rows in {' and '.join(f'{p.count} {p.kind} blocks' for p in parts)}"
    )
    worth, points = float(bound.independent), parts[0].points
    if points is not None and worth < MIN_BLOCKS:
        text += f", worth only about {max(1, round(worth))} because the difference comes in long runs"
    elif points is not None and len(evidence.keys) < _FULL_ALPHA_ROWS:
        text += f" (fewer than {_FULL_ALPHA_ROWS} rows in time are judged more strictly: long luck would fill them)"
    elif points is not None and points < MIN_TIME_POINTS:
        text += f" ({points} points in time: luck that lasts as long as the test rows could not be seen)"
    return text


def _on_slices(harmed: list[SliceVerdict], slices: tuple[SliceVerdict, ...]) -> str:
    text = ""
    if harmed:
        worst = max(harmed, key=lambda s: (s.challenger - s.reference) * s.rows)
        text += (
            f". Refused: clearly worse where {worst.column} is {worst.value} ({format_metric(worst.challenger)} against "
            f"{format_metric(worst.reference)} on {worst.rows:,} rows)"
        )
        text += f" and in {len(harmed) - 1} more" if len(harmed) > 1 else ""
    for s in slices:
        text += "" if s.judged else f". {s.rows:,} rows of rare values of {s.column} are too few to be judged apart"
    return text
