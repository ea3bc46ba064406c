"""Learning curve, complexity curve and permutation importance of the chosen configuration.

Never sees the test split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from windvane.tasks.evaluation.intervals import ResamplingUnits, estimate_mean
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.class_balance import BalancedClassifier
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import classification
from windvane.tasks.models.problem_types.definitions import (
    CandidateModel,
    ChoiceSet,
    ClassLabel,
    IntRange,
    Predictions,
    ProblemType,
)
from windvane.tasks.models.row_weights import read_row_weights, spread_weights
from windvane.tasks.settings.project_params import Settings

# Fitting more rows than this would make the curves dearer than the lap; predicting is cheaper, and needs fewer rows.
MAX_CURVE_TRAIN_ROWS = 20_000
MAX_CURVE_SCORED_ROWS = 5_000
# Together 1.75 fits of the whole side, and two more for the complexity: under four.
LEARNING_CURVE_SHARES = (0.25, 0.5, 1.0)
# A relative difference in score below this is not worth a word.
MIN_RELATIVE_GAIN = 0.01


@dataclass(frozen=True)
class CurveRows:
    """Rows to fit on and rows to score on, all from outside the test split; `notes` describe how they were taken."""

    train: pd.DataFrame
    validation: pd.DataFrame
    later: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CurvePoint:
    """Headline metric at one value of the axis; None where it is not defined."""

    at: float
    train: float | None
    validation: float | None


@dataclass(frozen=True)
class ScoreCurve:
    """Points in ascending order of `axis`; `chosen` is the value that the model has."""

    axis: str
    points: tuple[CurvePoint, ...]
    chosen: float | None
    note: str

    def better(self, greater_is_better: bool) -> str | None:
        """The axis, with a value that did clearly better on validation than the chosen one; None if none did."""
        scores = {p.at: p.validation for p in self.points if p.validation is not None}
        if self.chosen is None or self.chosen not in scores:
            return None
        sign, here = 1 if greater_is_better else -1, scores[self.chosen]
        best = max(scores, key=lambda at: sign * scores[at])
        if sign * (scores[best] - here) <= MIN_RELATIVE_GAIN * abs(here):
            return None
        return f"{self.axis} (here {best:g} did better than {self.chosen:g})"


def sample_curve_rows(settings: Settings, train: pd.DataFrame, validation: pd.DataFrame, seed: int) -> CurveRows:
    """Cut and sample the two splits that curves and importance use.

    Under kfold (no validation rows) a seeded fifth of the training split is held out, by whole groups where there are
    any. At most 20,000 training rows and 5,000 to score, drawn at random in their order: the newest alone would leave
    out seasons, and so diagnose another model.
    """
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    if not len(validation):
        held = _hold_out_fifth(train, settings.problem.group, rng)
        train, validation = train[~held], train[held]
        notes.append(
            f"no validation split: a fifth of the training rows ({len(validation):,}), drawn with seed {seed}, "
            "was held out for the curves"
        )
    if len(train) > MAX_CURVE_TRAIN_ROWS:
        notes.append(
            f"curves from {MAX_CURVE_TRAIN_ROWS:,} of {len(train):,} training rows, drawn at random from all of them"
        )
        train = train.iloc[np.sort(rng.choice(len(train), MAX_CURVE_TRAIN_ROWS, replace=False))]
    if len(validation) > MAX_CURVE_SCORED_ROWS:
        notes.append(f"scored on {MAX_CURVE_SCORED_ROWS:,} of {len(validation):,} validation rows, drawn at random")
        validation = validation.iloc[np.sort(rng.choice(len(validation), MAX_CURVE_SCORED_ROWS, replace=False))]
    return CurveRows(
        train.reset_index(drop=True), validation.reset_index(drop=True), settings.split.strategy == "time", tuple(notes)
    )


def _hold_out_fifth(train: pd.DataFrame, group: str | None, rng: np.random.Generator) -> NDArray[np.bool_]:
    if group is not None and group in train:
        codes = train[group].factorize(use_na_sentinel=False)[0]
        return np.asarray(rng.permutation(codes.max(initial=0) + 1)[codes] % 5 == 0)
    return np.asarray(rng.permutation(len(train)) % 5 == 0)


class CurveScorer:
    """Scores models on rows of both splits by the headline metric. One per evaluation; holds the converted rows."""

    def __init__(self, task: ModelTask, sides: CurveRows) -> None:
        self.task, self.settings, self.kind, self.columns = task, task.settings, task.problem_type, task.columns
        self.target = self.settings.problem.target
        self.metric = self.kind.metrics[self.settings.problem.headline]
        self.train, self.validation = sides.train, sides.validation
        self.x = features.conform_frame(self.validation, self.columns, "the validation split")
        self.y = self.kind.truth(self.validation[self.target])

    def fit(self, spec: ModelConfiguration, frame: pd.DataFrame) -> Any | None:
        """A fitted pipeline; None when the rows hold but one value of the target, which some candidates refuse.

        A threshold is tuned only where the headline depends on it.
        """
        if frame[self.target].nunique() < 2:
            return None
        return model_pipeline.fit_with_settings(self.task, spec.seen_by(self.metric), frame)

    def point(self, at: float, model: Any | None, fitted: pd.DataFrame) -> CurvePoint:
        """Scores of a model: on `fitted`, its own rows (5,000 at most, evenly taken), and on the validation split."""
        if model is None:
            return CurvePoint(at, None, None)
        some = take_rows_evenly(fitted, MAX_CURVE_SCORED_ROWS)
        x = features.conform_frame(some, self.columns, "the training split")
        known = self.score(some, self.kind.predict(model, x))
        return CurvePoint(at, known, self.score(self.validation, self.predicted(model)))

    def predicted(self, model: Any) -> Predictions:
        """Predictions for the validation split."""
        return self.kind.predict(model, self.x)

    def score(self, rows: pd.DataFrame, predictions: Predictions) -> float | None:
        """The headline metric on rows, None where it is not defined."""
        weights = read_row_weights(rows, self.settings.problem.weight)
        value = float(self.metric.score(self.kind.truth(rows[self.target]), predictions, weights))
        return value if isfinite(value) else None


def take_rows_evenly(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, evenly spaced, in order."""
    return frame if len(frame) <= most else frame.iloc[np.linspace(0, len(frame) - 1, most).round().astype(int)]


def measure_learning_curve(scorer: CurveScorer, spec: ModelConfiguration, later: bool) -> tuple[ScoreCurve, Any | None]:
    """Scores of fits on a quarter, half and all of the training split; and the last of these models.

    With time the smaller fits keep the newest rows: the question a user has is whether a longer history helps, and old
    rows alone would settle another one, how fast the world changes. Else the rows are drawn at random, by class.
    """
    total, seed = len(scorer.train), scorer.settings.split.seed
    order = np.arange(total) if later else _shuffle_rows(scorer.train[scorer.target], not scorer.kind.continuous, seed)
    points: list[CurvePoint] = []
    model = None
    for rows in dict.fromkeys(max(round(share * total), 1) for share in LEARNING_CURVE_SHARES):
        frame = scorer.train.iloc[np.sort(order[-rows:])]
        model = scorer.fit(spec, frame)
        points.append(scorer.point(rows, model, frame))
    which = "the newest rows" if later else "rows drawn at random"
    return ScoreCurve("training rows", tuple(points), total, f"smaller fits keep {which}"), model


def _shuffle_rows(target: pd.Series, classes: bool, seed: int) -> NDArray[np.int64]:
    """A seeded order, shuffled; with classes any end of it holds each in about its share."""
    order = np.random.default_rng(seed).permutation(len(target))
    if classes:
        codes = target.factorize(use_na_sentinel=False)[0][order]
        place = np.empty(len(order))
        for code, count in enumerate(np.bincount(codes)):
            place[codes == code] = np.arange(count) / count
        order = order[np.argsort(-place, kind="stable")]
    return order


def measure_last_slope(learning: ScoreCurve, score: Callable[[float], float | None], before: int = 0) -> float | None:
    """What the last doubling of the rows brought, in `score` (a metric's value -> skill); or the `before`-th before it."""
    end = len(learning.points) - before
    known = [p.validation for p in learning.points[max(end - 2, 0) : end] if p.validation is not None]
    skills = [score(value) for value in known]
    if len(skills) < 2 or skills[0] is None or skills[1] is None:
        return None
    return skills[1] - skills[0]


BOOSTING_STAGES = 20
MAX_STAGE_ROWS = 2_000
# Steps of the complexity: a quarter and four times the chosen value, within the candidate's search space.
COMPLEXITY_STEP_FACTOR = 4.0


def measure_complexity_curve(
    scorer: CurveScorer, spec: ModelConfiguration, model: Any, whole: CurvePoint
) -> ScoreCurve | None:
    """Train against validation over the candidate's complexity; None where it has none.

    Boosting: its own stages, which need no further fit. Else two more fits, simpler and more complex if there is room.
    `model` and `whole` are the fit on the whole training split and its scores.
    """
    candidate = scorer.kind.candidates[spec.candidate]
    models = model_pipeline.unwrap_estimators(model)
    if len(models) == 1 and hasattr(models[0], "staged_predict"):
        return _measure_stages(scorer, model)
    if candidate.complexity is None:
        return None
    chosen: Any = {**candidate.defaults, **spec.params}[candidate.complexity]
    points = [replace(whole, at=float(chosen))] if _number(chosen) else []
    for value in _choose_neighbours(candidate, chosen):
        other = scorer.fit(replace(spec, params={**spec.params, candidate.complexity: value}), scorer.train)
        points.append(scorer.point(float(value), other, scorer.train))
    if len(points) < 2:
        return None
    return ScoreCurve(candidate.complexity, tuple(sorted(points, key=lambda p: p.at)), float(chosen), "a fit each")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choose_neighbours(candidate: CandidateModel, chosen: Any) -> list[float | int]:
    """Two other values of the complexity: a quarter and four times the chosen one, within the bounds of its space."""
    assert candidate.complexity is not None
    dimension = candidate.space[candidate.complexity]
    if isinstance(dimension, ChoiceSet) or not _number(chosen):
        return []
    low, high = dimension.low, dimension.high
    steps = [chosen * COMPLEXITY_STEP_FACTOR**power for power in (-1, 1, -2, 2)] if dimension.log else [low, high]
    within = [min(max(step, low), high) for step in steps]
    found = dict.fromkeys(round(v) if isinstance(dimension, IntRange) else float(v) for v in within)
    return [v for v in found if v != chosen][:2]


def _measure_stages(scorer: CurveScorer, model: Any) -> ScoreCurve:
    """Scores after each twentieth of the boosting iterations, on at most 2,000 rows a side."""
    known = take_rows_evenly(scorer.train, MAX_STAGE_ROWS)
    unknown = take_rows_evenly(scorer.validation, MAX_STAGE_ROWS)
    # A stage is one small tree: threads would cost more than they bring, most of all beside a busy neighbour.
    with threadpool_limits(limits=1):
        sides = [_score_stages(scorer, model, frame) for frame in (known, unknown)]
    points = tuple(CurvePoint(at, train, validation) for (at, train), (_, validation) in zip(*sides, strict=True))
    return ScoreCurve("boosting iterations", points, points[-1].at, "the stages of one fit")


def _score_stages(scorer: CurveScorer, model: Any, frame: pd.DataFrame) -> list[tuple[float, float | None]]:
    inner, last = model_pipeline.unwrap_estimators(model)[0], model[-1]
    x = model[:-1].transform(features.conform_frame(frame, scorer.columns, "the training split"))
    stages = int(getattr(inner, "n_iter_", 0) or inner.get_params().get("max_iter", 100))
    kept = {max(round(stages * (i + 1) / BOOSTING_STAGES), 1) for i in range(BOOSTING_STAGES)}
    found: list[tuple[float, float | None]] = []
    proba = hasattr(inner, "staged_predict_proba")
    for number, stage in enumerate(inner.staged_predict_proba(x) if proba else inner.staged_predict(x), start=1):
        if number not in kept:
            continue
        if proba:
            made = _predict_stage(model, stage, scorer.kind.positive)
        else:
            back = getattr(last, "inverse_func", None)
            made = Predictions(back(stage) if back else stage, None, None)
        found.append((float(number), scorer.score(frame, made)))
    return found


def _predict_stage(model: Any, stage: Any, positive: ClassLabel | None) -> Predictions:
    """A stage's probabilities as the whole model would give and call them."""
    last, threshold = model[-1], classification.get_threshold(model)
    balanced = last if threshold is None else last.estimator.estimator
    proba = balanced.corrected(stage) if isinstance(balanced, BalancedClassifier) else stage
    return classification.call_classes(model, proba, positive)


IMPORTANCE_REPEATS = 3
MAX_IMPORTANCE_ROWS = 1_000
MIN_IMPORTANCE_ROWS = 100
# Rows predicted in all, whatever the number of columns; and in one call, where each call has a fixed price.
MAX_IMPORTANCE_PREDICTIONS = 150_000
IMPORTANCE_BATCH_ROWS = 15_000


@dataclass(frozen=True)
class ColumnImportance:
    """Rise of the mean per-row loss when `column` is shuffled, with a 95 % interval over rows (None: too few)."""

    column: str
    rise: float
    low: float | None
    high: float | None


def measure_importance(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    model: Any,
    validation: pd.DataFrame,
    units: ResamplingUnits,
    seed: int,
) -> tuple[ColumnImportance, ...]:
    """Permutation importance of each raw column, largest first: three shuffles on at most 1,000 rows of `validation`.

    Breiman, "Random Forests", Machine Learning 45 (2001); Fisher, Rudin & Dominici, JMLR 20 (2019). The interval treats
    rows of one unit as one observation. Columns that carry the same information share their importance: shuffling one leaves
    the other. The work is bounded: with many columns fewer rows are used, and at least 100.
    """
    if not len(validation) or not columns.names:
        return ()
    rng = np.random.default_rng(seed)
    rows = min(
        len(validation),
        MAX_IMPORTANCE_ROWS,
        max(MAX_IMPORTANCE_PREDICTIONS // (IMPORTANCE_REPEATS * len(columns.names)), MIN_IMPORTANCE_ROWS),
    )
    some = np.sort(rng.choice(len(validation), rows, replace=False))
    truth = kind.truth(validation[settings.problem.target])[some]
    x = features.conform_frame(validation.iloc[some], columns, "the validation split").reset_index(drop=True)
    headline, pieces = settings.problem.headline, units.take(some)
    before, counts = kind.loss(truth, kind.predict(model, x), headline), None
    if (every := read_row_weights(validation, settings.problem.weight)) is not None:
        counts = every[some]
    together = max(IMPORTANCE_BATCH_ROWS // (IMPORTANCE_REPEATS * rows), 1)
    found: list[ColumnImportance] = []
    for start in range(0, len(columns.names), together):
        names = columns.names[start : start + together]
        shuffled = [
            x.assign(**{name: x[name].take(rng.permutation(rows)).set_axis(x.index)})
            for name in names
            for _ in range(IMPORTANCE_REPEATS)
        ]
        made = kind.predict(model, pd.concat(shuffled, ignore_index=True))
        after = kind.loss(np.tile(truth, len(shuffled)), made, headline)
        for name, losses in zip(names, after.reshape(len(names), IMPORTANCE_REPEATS, rows).mean(axis=1), strict=True):
            interval = estimate_mean(spread_weights(losses - before, counts), pieces)
            if interval.value is not None:
                found.append(ColumnImportance(name, interval.value, interval.low, interval.high))
    return tuple(sorted(found, key=lambda i: (-i.rise, i.column)))
