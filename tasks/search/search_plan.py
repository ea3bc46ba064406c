"""Which configuration is tried next: every candidate at its defaults, then the rest of the budget shared out over
candidates; and what people should know of a search, in words. Pure: it only reads finished trials.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from windvane.tasks.errors import InputError
from windvane.tasks.models.problem_types.definitions import (
    BASELINE_CANDIDATE,
    CandidateModel,
    ChoiceSet,
    Hyperparameter,
    HyperparameterValue,
    Metric,
    ProblemType,
)
from windvane.tasks.settings.project_params import Settings

if TYPE_CHECKING:  # `init` reads the proposals alone, and does without scikit-learn
    from windvane.tasks.models.class_balance import ClassBalance
    from windvane.tasks.search.cross_validation import ConfigurationScorer

LOG_TARGET_PARAMETER = "log_target"
# What scikit-learn's estimators call that which they minimise.
OBJECTIVE_PARAMETERS = ("loss", "criterion")
# Below this, one held-out side is too small to tune on, and boosting, which sets rows aside to know when to stop, rarely
# does better than a forest (benchmarks/few_rows.py).
SMALL_TABLE_ROWS = 1_000
# A coarse grid informs about a hyperparameter from three values on.
_MIN_GRID_POINTS = 3

SearchTrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class SearchTrial:
    """One configuration as it was tried: `number` counts within its candidate, from 0.

    validation, train: the headline metric, None unless complete; `scores` has all metrics by side. note: why it failed
    or was pruned, or what to know of it.
    """

    candidate: str
    number: int
    params: dict[str, HyperparameterValue]
    state: SearchTrialState
    validation: float | None
    train: float | None
    seconds: float
    scores: dict[str, dict[str, float]]
    note: str | None = None


TrialsByCandidate = Mapping[str, Sequence[SearchTrial]]


@dataclass(frozen=True)
class PlannedTrial:
    """The next thing to try: a candidate with the configuration given, or (None) with one that the sampler draws."""

    candidate: str
    params: dict[str, HyperparameterValue] | None


def list_candidates(settings: Settings, kind: ProblemType) -> tuple[str, ...]:
    """The candidates of this search in the order of params.yaml (with a manual list: in the order of the list)."""
    if settings.search.method == "manual":
        return tuple(dict.fromkeys(t.candidate for t in plan_manual_trials(settings, kind)))
    for name in settings.search.candidates:
        if name not in kind.candidates or name == BASELINE_CANDIDATE:
            known = ", ".join(n for n in kind.candidates if n != BASELINE_CANDIDATE)
            raise InputError(f"search.candidates: {name!r} is not known to {kind.name}. Choose from {known}")
    return settings.search.candidates


def propose_candidates(rows: int) -> tuple[str, ...]:
    """The candidates that `rows` labelled rows can train, simplest first: what `windvane init` proposes."""
    return ("linear", "tree", "forest") if rows < SMALL_TABLE_ROWS else ("linear", "tree", "forest", "boosting")


def select_search_spaces(kind: ProblemType, log: bool, headline: str) -> dict[str, CandidateModel]:
    """The problem type's candidates; the logarithm of the target is tuned only where it makes sense for this target, and what a
    candidate minimises is by default what the headline measures, where it can.
    """
    objective = kind.objectives.get(headline)

    def tuned(key: str, dimension: Hyperparameter) -> Hyperparameter:
        if key in OBJECTIVE_PARAMETERS and isinstance(dimension, ChoiceSet) and objective in dimension.options:
            return replace(dimension, default=objective)
        return dimension if log or key != LOG_TARGET_PARAMETER else replace(dimension, tuned=False)

    return {
        name: replace(c, space={key: tuned(key, d) for key, d in c.space.items()})
        for name, c in kind.candidates.items()
    }


def count_planned_trials(settings: Settings, kind: ProblemType) -> int:
    """Configurations that the search tries at most, the baseline not counted; each candidate gets at least one."""
    if settings.search.method == "manual":
        return min(settings.search.trials, len(settings.search.manual))
    return max(settings.search.trials, len(list_candidates(settings, kind)))


def plan_trials(settings: Settings, kind: ProblemType, log: bool, trials: TrialsByCandidate) -> Iterator[PlannedTrial]:
    """The whole search, step by step; `trials` grows between the steps and is read when the budget is shared out.

    The baseline; then every candidate at its defaults, simplest first (and on the target's logarithm, if `log`); then
    the rest of the budget. bayesian, random: successive halving over candidates (Jamieson and Talwalkar, AISTATS 2016):
    rounds of equal budget, the better half of the candidates goes on to the next. grid: the values of search.grid, all of them;
    an even share of the rest for each candidate without. manual: the list as it is, cut at search.trials.
    """
    candidates = select_search_spaces(kind, log, settings.problem.headline)
    budget = count_planned_trials(settings, kind)
    yield from plan_baseline_trials(kind)
    if settings.search.method == "manual":
        yield from plan_manual_trials(settings, kind)[:budget]
        return
    given = plan_grid_trials(settings, kind)
    names = [name for name in list_candidates(settings, kind) if name not in settings.search.grid]
    first = _plan_default_trials([candidates[n] for n in names], budget - len(given))
    yield from first
    yield from given
    left = max(0, budget - len(given) - len(first))
    if settings.search.method == "grid":
        for i, name in enumerate(names):
            share = left // len(names) + (i >= len(names) - left % len(names))
            seen = [t.params for t in first if t.candidate == name]
            grid = build_parameter_grid(candidates[name], share)
            yield from (PlannedTrial(name, params) for params in grid if params not in seen)
    else:
        # A candidate without a search space has been tried.
        tunable = [name for name in names if any(d.tuned for d in candidates[name].space.values())]
        yield from _plan_halving_trials(tunable, left, kind.metrics[settings.problem.headline], trials)


def plan_baseline_trials(kind: ProblemType) -> list[PlannedTrial]:
    """Every configuration of the baseline: there are few, they cost nothing, and the best of them is the honest one."""
    space = kind.candidates[BASELINE_CANDIDATE].space
    options = itertools.product(*(d.grid(_MIN_GRID_POINTS) for d in space.values()))
    return [PlannedTrial(BASELINE_CANDIDATE, dict(zip(space, chosen, strict=True))) for chosen in options]


def plan_manual_trials(settings: Settings, kind: ProblemType) -> list[PlannedTrial]:
    """search.manual, checked. Raises InputError naming search.manual[i].key, what is allowed, and the nearest name."""
    return [
        _check_manual_entry(f"search.manual[{i}]", dict(entry), settings, kind)
        for i, entry in enumerate(settings.search.manual)
    ]


def plan_grid_trials(settings: Settings, kind: ProblemType) -> list[PlannedTrial]:
    """Every combination of the values in search.grid, all else at its default, checked as manual ones are."""
    return [
        _check_manual_entry(
            f"search.grid.{name}", {"candidate": name, **dict(zip(values, v, strict=True))}, settings, kind
        )
        for name, values in settings.search.grid.items()
        for v in itertools.product(*values.values())
    ]


def build_parameter_grid(candidate: CandidateModel, share: int) -> list[dict[str, HyperparameterValue]]:
    """At most `share` configurations: as fine a grid as that allows, the hyperparameters declared first growing first.

    Each hyperparameter stays at its default until at least three values (or all options) of it fit in.
    """
    points = dict.fromkeys((name for name, d in candidate.space.items() if d.tuned), 1)
    grown = True
    while grown:
        grown = False
        for name in points:
            finer = _count_finer_points(candidate.space[name], points[name])
            if finer > points[name] and math.prod({**points, name: finer}.values()) <= share:
                points[name], grown = finer, True
    axes = [candidate.space[name].grid(p) if p > 1 else (candidate.space[name].default,) for name, p in points.items()]
    return [{**candidate.defaults, **dict(zip(points, v, strict=True))} for v in itertools.product(*axes)][:share]


def rank_candidates(names: Sequence[str], trials: TrialsByCandidate, metric: Metric) -> list[str]:
    """Candidates from best to worst by their best complete trial; the simpler first among equals, failed ones last."""
    return sorted(names, key=lambda name: _badness(find_best_trial(trials.get(name, ()), metric), metric))


def find_best_trial(trials: Sequence[SearchTrial], metric: Metric) -> SearchTrial | None:
    """The best complete trial, the earlier among equals; None if there is none."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return min(complete, key=lambda trial: _badness(trial, metric), default=None)


def _badness(trial: SearchTrial | None, metric: Metric) -> float:
    """The headline metric, the lower the better; infinite where there is none."""
    if trial is None or trial.validation is None:
        return math.inf
    return -trial.validation if metric.greater_is_better else trial.validation


def _plan_default_trials(candidates: Sequence[CandidateModel], budget: int) -> list[PlannedTrial]:
    """Defaults, simplest first. On a short budget the logarithm is left to the strongest candidates."""
    logged = [c.name for c in candidates if LOG_TARGET_PARAMETER in c.space and c.space[LOG_TARGET_PARAMETER].tuned]
    logged = logged[max(0, len(logged) - (budget - len(candidates))) :]
    found = []
    for c in candidates:
        found.append(PlannedTrial(c.name, c.defaults))
        if c.name in logged:
            found.append(PlannedTrial(c.name, {**c.defaults, LOG_TARGET_PARAMETER: True}))
    return found


def _plan_halving_trials(
    names: Sequence[str], budget: int, metric: Metric, trials: TrialsByCandidate
) -> Iterator[PlannedTrial]:
    rounds = max(1, math.ceil(math.log2(len(names))) + 1) if names else 0
    for r in range(rounds):
        alive = rank_candidates(names, trials, metric)[: max(1, math.ceil(len(names) / 2**r))]
        share = budget // rounds + (r >= rounds - budget % rounds)
        for i, name in enumerate(alive):
            for _ in range(share // len(alive) + (i < share % len(alive))):
                yield PlannedTrial(name, None)


def _count_finer_points(dimension: Hyperparameter, points: int) -> int:
    if isinstance(dimension, ChoiceSet):
        return len(dimension.options)
    return max(_MIN_GRID_POINTS, len(dimension.grid(points + 1)))


def _check_manual_entry(
    at: str, entry: dict[str, HyperparameterValue], settings: Settings, kind: ProblemType
) -> PlannedTrial:
    known = [name for name in kind.candidates if name != BASELINE_CANDIDATE]
    name = entry.pop("candidate", None)
    if name not in known:
        fault = "is missing" if name is None else f"{name!r} is not a candidate of {kind.name}"
        raise InputError(f"{at}.candidate: {fault}. Allowed: {_suggest_name(str(name), known)}")
    candidate = select_search_spaces(kind, True, settings.problem.headline)[str(name)]
    for key, value in entry.items():
        if key not in candidate.space:
            near = _suggest_name(key, list(candidate.space))
            raise InputError(f"{at}.{key}: {name} has no such hyperparameter. Allowed: {near}")
        if wrong := candidate.space[key].refuse(value):
            raise InputError(f"{at}.{key}: {wrong}, not {value!r}. Fix the value")
    return PlannedTrial(candidate.name, {**candidate.defaults, **entry})


def _suggest_name(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    return ", ".join(allowed) + (f". Did you mean {near[0]}?" if near else "")


def describe_search(
    settings: Settings, bench: ConfigurationScorer, balance: ClassBalance, trials: TrialsByCandidate, log: bool
) -> Iterator[str]:
    """Notes on the whole search: `log` notes that the target's logarithm was tried, `balance` how rare classes were treated."""
    problem, rows = settings.problem, len(bench.truth)
    if log:
        yield f"{problem.target} is positive and skewed: its logarithm was tried too"
    if rows < SMALL_TABLE_ROWS:
        yield (
            f"{rows:,} training rows are few: scores are known only roughly, and differences between candidates may be chance. "
            "More trials do not change that; the diagnosis of the fit reports whether more rows would"
        )
    if bench.starts_quick:
        yield "large table: trials see a quarter of the training rows first, and end there if hopeless"
    yield from _describe_balance(balance, bench.metric.calls, problem.headline)
    for name, tried in trials.items():
        if failed := [t for t in tried if t.state == "failed"]:
            yield f"{name}: {len(failed)} of {len(tried)} trials failed, the first because: {failed[0].note}"


def _describe_balance(balance: ClassBalance, calls: bool, headline: str) -> Iterator[str]:
    if balance.treatment is not None:
        yield (
            f"fitted with {balance.treatment} for rare classes, inside the training rows alone; probabilities are brought "
            "back to the classes' own shares and calibrated on folds of these rows: see the reliability plot"
        )
    if balance.threshold is not None and not calls:
        yield (
            f"the threshold is tuned on the chosen configuration alone, {headline} does not depend on it: the candidates' "
            "f1, accuracy, precision and recall call the likelier class"
        )
    elif balance.threshold is None and headline == "f1":
        yield "f1 calls the likelier class; of two classes search.threshold: f1 tunes from which probability on"


def refuse_log_candidates(settings: Settings, kind: ProblemType, bench: ConfigurationScorer) -> None:
    """Raise InputError where a manual list or a grid contains the logarithm of a target that has none."""
    if not kind.continuous or (lowest := float(bench.truth.min())) > 0:
        return
    listed = {f"manual[{i}]": entry.get(LOG_TARGET_PARAMETER) for i, entry in enumerate(settings.search.manual)}
    listed = listed if settings.search.method == "manual" else {}
    listed |= {f"grid.{name}": True in v.get(LOG_TARGET_PARAMETER, ()) for name, v in settings.search.grid.items()}
    for at, wanted in listed.items():
        if wanted:
            why = f"{settings.problem.target!r} goes down to {lowest:g}, which has no logarithm"
            raise InputError(f"search.{at}.{LOG_TARGET_PARAMETER}: {why}. Take the key out")
