"""Which configuration is tried next: the ladder, then the budget over candidates. Pure: it only reads past trials."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from windvane.tasks.errors import InputError
from windvane.tasks.journal import Trial
from windvane.tasks.problems import Candidate, Choice, Dimension, Kind, Metric, Value
from windvane.tasks.settings import Settings

BASELINE = "dummy"
LOG = "log_target"
# Below this, one held-out side is too small to tune on, and boosting, which sets rows aside to know when to stop, rarely
# does better than a forest (benchmarks/few_rows.py).
FEW = 1_000
# A coarse grid says something of a hyperparameter from three values on.
_COARSE = 3

Trials = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True)
class Try:
    """The next thing to try: a candidate with the configuration given, or (None) with one that the sampler draws."""

    candidate: str
    params: dict[str, Value] | None


def ladder_names(settings: Settings, kind: Kind) -> tuple[str, ...]:
    """The candidates of this search in the order of params.yaml (with a manual list: in the order of the list)."""
    if settings.search.method == "manual":
        return tuple(dict.fromkeys(t.candidate for t in manual(settings, kind)))
    for name in settings.search.candidates:
        if name not in kind.candidates or name == BASELINE:
            known = ", ".join(n for n in kind.candidates if n != BASELINE)
            raise InputError(f"search.candidates: {name!r} is not known to {kind.name}. Choose from {known}")
    return settings.search.candidates


def affordable(rows: int) -> tuple[str, ...]:
    """The candidates that `rows` labelled rows can teach, simplest first: what `windvane init` proposes."""
    return ("linear", "tree", "forest") if rows < FEW else ("linear", "tree", "forest", "boosting")


def spaces(kind: Kind, log: bool) -> dict[str, Candidate]:
    """The kind's candidates; the logarithm of the target is tuned only where it makes sense for this target."""
    if log:
        return dict(kind.candidates)
    return {
        name: replace(c, space={k: replace(d, tuned=False) if k == LOG else d for k, d in c.space.items()})
        for name, c in kind.candidates.items()
    }


def total(settings: Settings, kind: Kind) -> int:
    """Configurations that the search tries at most, the baseline not counted; each candidate gets at least one."""
    if settings.search.method == "manual":
        return min(settings.search.trials, len(settings.search.manual))
    return max(settings.search.trials, len(ladder_names(settings, kind)))


def steps(settings: Settings, kind: Kind, log: bool, trials: Trials) -> Iterator[Try]:
    """The whole search, step by step; `trials` grows between the steps and is read when the budget is shared out.

    The baseline; then every candidate at its defaults, simplest first (and on the target's logarithm, if `log`); then
    the rest of the budget. bayesian, random: successive halving over candidates (Jamieson and Talwalkar, AISTATS 2016):
    rounds of equal budget, the better half of the candidates goes on to the next. grid: an even share each.
    manual: the list as it stands, cut at search.trials.
    """
    candidates, budget = spaces(kind, log), total(settings, kind)
    yield from baseline(kind)
    if settings.search.method == "manual":
        yield from manual(settings, kind)[:budget]
        return
    names = ladder_names(settings, kind)
    first = _ladder([candidates[n] for n in names], budget)
    yield from first
    left = budget - len(first)
    if settings.search.method == "grid":
        for i, name in enumerate(names):
            share = left // len(names) + (i >= len(names) - left % len(names))
            seen = [t.params for t in first if t.candidate == name]
            yield from (Try(name, params) for params in grid(candidates[name], share) if params not in seen)
    else:
        yield from _halving(names, left, kind.metrics[settings.problem.headline], trials)


def baseline(kind: Kind) -> list[Try]:
    """Every configuration of the baseline: there are few, they cost nothing, and the best of them is the honest one."""
    space = kind.candidates[BASELINE].space
    options = itertools.product(*(d.grid(_COARSE) for d in space.values()))
    return [Try(BASELINE, dict(zip(space, chosen, strict=True))) for chosen in options]


def manual(settings: Settings, kind: Kind) -> list[Try]:
    """search.manual, checked. Raises InputError naming search.manual[i].key, what is allowed, and the nearest name."""
    return [_checked(f"search.manual[{i}]", dict(entry), kind) for i, entry in enumerate(settings.search.manual)]


def grid(candidate: Candidate, share: int) -> list[dict[str, Value]]:
    """At most `share` configurations: as fine a grid as that allows, the hyperparameters declared first growing first.

    Each hyperparameter stays at its default until at least three values (or all options) of it fit in.
    """
    points = dict.fromkeys((name for name, d in candidate.space.items() if d.tuned), 1)
    grown = True
    while grown:
        grown = False
        for name in points:
            finer = _finer(candidate.space[name], points[name])
            if finer > points[name] and math.prod({**points, name: finer}.values()) <= share:
                points[name], grown = finer, True
    axes = [candidate.space[name].grid(p) if p > 1 else (candidate.space[name].default,) for name, p in points.items()]
    return [{**candidate.defaults, **dict(zip(points, v, strict=True))} for v in itertools.product(*axes)][:share]


def ranked(names: Sequence[str], trials: Trials, metric: Metric) -> list[str]:
    """Candidates from best to worst by their best complete trial; the simpler first among equals, failed ones last."""
    order: list[str] = []
    for name in names:
        found = best(trials.get(name, ()), metric)
        at = len(order)
        while at and found and _beats(found, best(trials.get(order[at - 1], ()), metric), metric):
            at -= 1
        order.insert(at, name)
    return order


def best(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """The best complete trial, the earlier among equals; None if there is none."""
    found: Trial | None = None
    for trial in trials:
        if trial.state == "complete" and _beats(trial, found, metric):
            found = trial
    return found


def _beats(one: Trial, other: Trial | None, metric: Metric) -> bool:
    if one.validation is None or other is None or other.validation is None:
        return one.validation is not None
    return metric.better(one.validation, other.validation)


def _ladder(candidates: Sequence[Candidate], budget: int) -> list[Try]:
    """Defaults, simplest first. On a short budget the logarithm is left to the strongest candidates."""
    logged = [c.name for c in candidates if LOG in c.space and c.space[LOG].tuned]
    logged = logged[max(0, len(logged) - (budget - len(candidates))) :]
    found = []
    for c in candidates:
        found.append(Try(c.name, c.defaults))
        if c.name in logged:
            found.append(Try(c.name, {**c.defaults, LOG: True}))
    return found


def _halving(names: Sequence[str], budget: int, metric: Metric, trials: Trials) -> Iterator[Try]:
    rounds = max(1, math.ceil(math.log2(len(names))) + 1)
    for r in range(rounds):
        alive = ranked(names, trials, metric)[: max(1, math.ceil(len(names) / 2**r))]
        share = budget // rounds + (r >= rounds - budget % rounds)
        for i, name in enumerate(alive):
            for _ in range(share // len(alive) + (i < share % len(alive))):
                yield Try(name, None)


def _finer(dimension: Dimension, points: int) -> int:
    if isinstance(dimension, Choice):
        return len(dimension.options)
    return max(_COARSE, len(dimension.grid(points + 1)))


def _checked(at: str, entry: dict[str, Value], kind: Kind) -> Try:
    known = [name for name in kind.candidates if name != BASELINE]
    name = entry.pop("candidate", None)
    if name not in known:
        said = "is missing" if name is None else f"{name!r} is not a candidate of {kind.name}"
        raise InputError(f"{at}.candidate: {said}. Allowed: {_near(str(name), known)}")
    space = kind.candidates[str(name)].space
    for key, value in entry.items():
        if key not in space:
            raise InputError(f"{at}.{key}: {name} has no such hyperparameter. Allowed: {_near(str(key), list(space))}")
        if wrong := space[key].refuse(value):
            raise InputError(f"{at}.{key}: {wrong}, not {value!r}. Mend the value")
    return Try(str(name), {**kind.candidates[str(name)].defaults, **entry})


def _near(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    return ", ".join(allowed) + (f". Did you mean {near[0]}?" if near else "")
