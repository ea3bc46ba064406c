"""The diagnosis of a fit in words: underfitting or overfitting, by which figures, and what to change.

Pure; fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite

from windvane.tasks.console import format_metric

# All borders are in skill: the share of the baseline's error that the model takes away (1: perfect, 0: no better).
# A gap between train and validation of a tenth of the baseline's error is worth acting on.
MIN_GAP_SKILL = 0.10
# A model that takes away less than this on the very rows that it learned from has missed most of what there is.
MIN_TRAIN_SKILL = 0.30
# What doubling the rows must bring before "collect more" is good advice.
MIN_DOUBLING_SKILL = 0.02
# A validation score known no better than this (half its interval) cannot carry a diagnosis.
MAX_NOISE_SKILL = 0.25
# A model that takes away this much leaves nothing worth another candidate.
MAX_SKILL_WITH_ROOM = 0.95
# How far a learning curve is followed beyond its end: 2 ** 5 times the rows.
MAX_EXTRAPOLATED_DOUBLINGS = 5


@dataclass(frozen=True)
class FitEvidence:
    """What a diagnosis rests on, in units of `metric`.

    train, validation: the model's score on rows it was fitted on, and on rows it was not. baseline: the dummy's on the
    same validation rows; own_baseline: on the training rows, which can be easier or harder (None: just as hard). slope:
    what the last doubling of training rows brought in skill (positive: better), None if unknown. noise: half the 95 %
    interval of the validation score. goal: problem.goal. later: the validation rows are newer than the training rows.
    earlier: what the doubling before it brought; None if unknown, or if the curve ends before `rows`. untried: candidates that
    the search did not try and that so many rows could train. simpler: the parameter that makes this candidate simpler, with its
    better value if one was seen, for instance "max_depth (4 did better than 12)". bounded: it is known how good the metric can be.
    """

    metric: str
    greater_is_better: bool
    train: float | None
    validation: float | None
    baseline: float | None
    rows: int
    slope: float | None = None
    noise: float | None = None
    goal: float | None = None
    later: bool = False
    simpler: str | None = None
    own_baseline: float | None = None
    earlier: float | None = None
    untried: tuple[str, ...] = ()
    bounded: bool = True


@dataclass(frozen=True)
class FitDiagnosis:
    """`name` of the fit, the figures that show it, and the action that fits it."""

    name: str
    because: str
    adjust: str


def compute_skill(score: float | None, baseline: float | None, greater_is_better: bool) -> float | None:
    """Share of the baseline's error that is gone: 1 - error / baseline's error (Murphy, Mon. Weather Rev. 116, 1988).

    The error of a metric that is best at 1 (R2, accuracy, ROC-AUC) is 1 - score. None if the baseline makes no error,
    or where a score is not defined.
    """
    if score is None or baseline is None or not isfinite(score) or not isfinite(baseline):
        return None
    error, most = (1 - score, 1 - baseline) if greater_is_better else (score, baseline)
    return 1 - error / most if most > 0 else None


def diagnose_fit(e: FitEvidence) -> FitDiagnosis:
    """Name the fit: bias against variance, the larger and surer one first.

    After Hastie, Tibshirani & Friedman, The Elements of Statistical Learning (2009), chapters 2.9 and 7.2 (training
    against validation error), Goodfellow, Bengio & Courville, Deep Learning (2016), chapter 11.3 (when to gather more
    data), and Ng, Machine Learning Yearning (2018), chapters 20-32 (avoidable bias, variance, learning curves).
    """
    if not e.bounded:
        because = f"how good {e.metric} can be is not known, so there is no share of the baseline's error"
        return FitDiagnosis("not defined here", because, "Inspect the curves and the worst slices.")
    own = e.baseline if e.own_baseline is None else e.own_baseline
    train = compute_skill(e.train, own, e.greater_is_better)
    validation = compute_skill(e.validation, e.baseline, e.greater_is_better)
    if train is None or validation is None:
        return FitDiagnosis("not defined here", _undefined(e), "Inspect the curves and the worst slices.")
    gap = train - validation
    noise = _noise(e)
    figures = (
        f"{e.metric} {format_metric(e.train)} on training rows, where the baseline has {format_metric(own)}, and "
        f"{format_metric(e.validation)} on validation rows, where it has {format_metric(e.baseline)}: the model "
        f"{_taken(train)} of the baseline's error where it learned and {_taken(validation)} where it did not"
    )
    if gap > max(MIN_GAP_SKILL, noise or 0.0):
        return _variance(e, figures, gap)
    if noise is not None and noise > MAX_NOISE_SKILL:
        return FitDiagnosis(
            "too little data",
            f"{figures}, and that last figure is known only to ± {_percent(noise)}",
            f"Collect more rows (about {ceil((noise / MAX_NOISE_SKILL) ** 2)} times as many), or split by kfold: these "
            "validation rows cannot separate a good fit from a bad one.",
        )
    if train < MIN_TRAIN_SKILL or _misses_goal(e):
        return _bias(e, figures, train)
    return FitDiagnosis(
        "good fit", f"{figures}, {'a gap of ' + _percent(gap) if gap > 0 else 'no gap'}", _next_step(e, validation)
    )


def _variance(e: FitEvidence, figures: str, gap: float) -> FitDiagnosis:
    because = f"{figures}, a gap of {_percent(gap)}"
    if e.later:
        because += " (the validation rows are newer, so a changing world can be part of it)"
    if e.slope is not None and e.slope >= MIN_DOUBLING_SKILL:
        because += f"; the last doubling of the training rows ({e.rows:,} now) still took away {_percent(e.slope)} more"
        return FitDiagnosis(
            "too little data",
            because,
            f"Collect more rows: the learning curve still rises{_outlook(e)}. Until then, simplify or regularise.",
        )
    how = f": {e.simpler}" if e.simpler else ""
    adjust = f"Simplify or regularise{how}, stop training earlier, or drop columns that only distinguish rows."
    if e.slope is not None and e.slope <= -MIN_DOUBLING_SKILL:
        because += f"; the last doubling of the training rows cost {_percent(-e.slope)}"
        if e.later:
            adjust += " Older rows did harm: learn from a shorter history."
    elif e.slope is not None:
        because += "; more rows like these hardly help"
    return FitDiagnosis("overfitting", because, adjust)


def _bias(e: FitEvidence, figures: str, train: float) -> FitDiagnosis:
    because = figures
    if _misses_goal(e):
        because += f"; even the training rows miss the goal of {format_metric(e.goal)}"
    others = f"Try {_list_candidates(e.untried)} too (search.candidates). Else allow" if e.untried else "Allow"
    adjust = f"{others} more complexity, train longer, or bring columns that know more about the target."
    if train < MIN_TRAIN_SKILL:
        adjust += " More rows alone will not help."
    return FitDiagnosis("underfitting", because, adjust)


def _next_step(e: FitEvidence, skill: float) -> str:
    """What could still make it better: other candidates, more rows, other columns. The only place that speaks of more rows."""
    steps = []
    if e.untried and skill < MAX_SKILL_WITH_ROOM:
        steps.append(
            f"{_percent(1 - skill)} of the baseline's error is left: try {_list_candidates(e.untried)} too (search.candidates)."
        )
    if e.slope is not None and e.slope >= MIN_DOUBLING_SKILL:
        steps.append(f"The last doubling of the rows took away {_percent(e.slope)}: more would help{_outlook(e)}.")
    elif not steps:
        steps.append("Keep it. To go further, bring better columns, or inspect the worst slices.")
    return " ".join(steps)


def _list_candidates(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _outlook(e: FitEvidence) -> str:
    """How many rows would help, if the curve goes on as it did: each doubling brings the same share of the one before.

    A power law of the rows behaves so (Cortes et al., NIPS 1993). No estimate is made where one doubling brought as much as
    the one before or more: such a curve has no end in sight, and two points do not show where it will be.
    """
    if e.slope is None or e.earlier is None or not e.slope > 0:
        return ""
    share = e.slope / e.earlier if e.earlier > e.slope else None
    if share is None:
        return f", and as fast as before: with {2 * e.rows:,} rows expect about as much again"
    gains = [e.slope * share**i for i in range(1, MAX_EXTRAPOLATED_DOUBLINGS + 1)]
    worth = [gain for gain in gains if gain >= MIN_DOUBLING_SKILL] or gains[:1]
    return (
        f": if it goes on so, {e.rows * 2 ** len(worth):,} rows would take away about {_percent(sum(worth))} more of the "
        "baseline's error"
    )


def _undefined(e: FitEvidence) -> str:
    named = {"training": e.train, "validation": e.validation, "baseline": e.baseline}
    if e.own_baseline is not None:
        named["baseline on training rows"] = e.own_baseline
    gone = [name for name, score in named.items() if score is None or not isfinite(score)]
    if gone:
        return f"{e.metric} has no value for: {', '.join(gone)}"
    return f"the baseline's {e.metric} is already perfect: there is nothing to take away"


def _noise(e: FitEvidence) -> float | None:
    """Half the interval of the validation score, in skill."""
    if e.noise is None or not isfinite(e.noise) or e.baseline is None:
        return None
    return e.noise / ((1 - e.baseline) if e.greater_is_better else e.baseline)


def _misses_goal(e: FitEvidence) -> bool:
    if e.goal is None or e.train is None:
        return False
    return e.train < e.goal if e.greater_is_better else e.train > e.goal


def _taken(share: float) -> str:
    return f"takes away {_percent(share)}" if share >= 0 else f"adds {_percent(-share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
