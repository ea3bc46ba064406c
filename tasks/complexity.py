"""Train-against-validation curve over a candidate's complexity. Owns which values are tried, not the scoring."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from windvane.tasks import estimators, features, thresholds
from windvane.tasks.balance import Balanced
from windvane.tasks.curves import Curve, Point, Scorer, evenly
from windvane.tasks.problems import Candidate, Choice, Int, Predictions

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.estimators import Spec

STAGES = 20
STAGE_ROWS = 2_000
# Steps of the complexity: a quarter and four times the chosen value, within the candidate's search space.
STEP = 4.0


def complexity_curve(scorer: Scorer, spec: Spec, model: Any | None, whole: Point) -> Curve | None:
    """Train against validation over the candidate's complexity; None where it has none.

    Boosting: its own stages, which need no further fit. Else two more fits, simpler and more complex if there is room.
    `model` and `whole` are the fit on the whole training side and its scores.
    """
    candidate = scorer.kind.candidates[spec.candidate]
    if model is None:
        return None
    models = estimators.innermost(model)
    if len(models) == 1 and hasattr(models[0], "staged_predict"):
        return _stages(scorer, model)
    if candidate.complexity is None:
        return None
    chosen: Any = {**candidate.defaults, **spec.params}[candidate.complexity]
    points = [replace(whole, at=float(chosen))] if _number(chosen) else []
    for value in _around(candidate, chosen):
        other = scorer.fit(replace(spec, params={**spec.params, candidate.complexity: value}), scorer.train)
        points.append(scorer.point(float(value), other, scorer.train))
    if len(points) < 2:
        return None
    return Curve(candidate.complexity, tuple(sorted(points, key=lambda p: p.at)), float(chosen), "a fit each")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _around(candidate: Candidate, chosen: Any) -> list[float | int]:
    """Two other values of the complexity: a quarter and four times the chosen one, within the bounds of its space."""
    assert candidate.complexity is not None
    dimension = candidate.space[candidate.complexity]
    if isinstance(dimension, Choice) or not _number(chosen):
        return []
    low, high = dimension.low, dimension.high
    steps = [chosen * STEP**power for power in (-1, 1, -2, 2)] if dimension.log else [low, high]
    within = [min(max(step, low), high) for step in steps]
    found = dict.fromkeys(round(v) if isinstance(dimension, Int) else float(v) for v in within)
    return [v for v in found if v != chosen][:2]


def _stages(scorer: Scorer, model: Any) -> Curve:
    """Scores after each twentieth of the boosting iterations, on at most 2,000 rows a side."""
    from threadpoolctl import threadpool_limits

    known = evenly(scorer.train, STAGE_ROWS)
    unknown = evenly(scorer.validation, STAGE_ROWS)
    # A stage is one small tree: threads would cost more than they bring, most of all beside a busy neighbour.
    with threadpool_limits(limits=1):
        sides = [_staged(scorer, model, frame) for frame in (known, unknown)]
    points = tuple(Point(at, train, validation) for (at, train), (_, validation) in zip(*sides, strict=True))
    return Curve("boosting iterations", points, points[-1].at, "the stages of one fit")


def _staged(scorer: Scorer, model: Any, frame: pd.DataFrame) -> list[tuple[float, float | None]]:
    inner, last = estimators.innermost(model)[0], model[-1]
    x = model[:-1].transform(features.conform(frame, scorer.columns, "the training side"))
    truth = scorer.kind.truth(frame[scorer.target])
    stages = int(getattr(inner, "n_iter_", 0) or inner.get_params().get("max_iter", 100))
    kept = {max(round(stages * (i + 1) / STAGES), 1) for i in range(STAGES)}
    found: list[tuple[float, float | None]] = []
    proba = hasattr(inner, "staged_predict_proba")
    for number, stage in enumerate(inner.staged_predict_proba(x) if proba else inner.staged_predict(x), start=1):
        if number not in kept:
            continue
        if proba:
            made = _called(model, stage)
        else:
            back = getattr(last, "inverse_func", None)
            made = Predictions(back(stage) if back else stage, None, None)
        found.append((float(number), scorer.score(truth, made)))
    return found


def _called(model: Any, stage: Any) -> Predictions:
    """A stage's probabilities as the whole model would give and call them."""
    from windvane.tasks.problems.classification import positive

    last, threshold = model[-1], thresholds.of(model)
    balanced = last if threshold is None else last.estimator.estimator
    proba = balanced.corrected(stage) if isinstance(balanced, Balanced) else stage
    at = 0 if threshold is None else positive(model.classes_)
    return Predictions(thresholds.called(proba, model.classes_, at, threshold), proba, model.classes_)
