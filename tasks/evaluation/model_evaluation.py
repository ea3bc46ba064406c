"""The final evaluation of a configuration: opens the test split once and gathers scores, curves, slices and the
diagnosis of the fit. The only place that reads test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import model_inspection
from windvane.tasks.evaluation.fit_diagnosis import FitDiagnosis, FitEvidence, compute_skill, diagnose_fit
from windvane.tasks.evaluation.intervals import ScoreInterval, bootstrap_metrics, estimate_mean, find_resampling_units
from windvane.tasks.evaluation.model_inspection import ColumnImportance, measure_complexity_curve, measure_importance
from windvane.tasks.evaluation.scores import (
    BASELINE_LOSS_COLUMN,
    FOLD_COLUMN,
    LOSS_COLUMN,
    PREDICTION_COLUMN,
    PROBABILITY_PREFIX,
    CalibrationCurve,
    ConfusionTable,
    SliceScore,
    compute_scores,
    count_confusion,
    find_worst_slices,
    measure_calibration,
    name_class_column,
    read_predictions,
)
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types.definitions import BASELINE_CANDIDATE, Predictions, ProblemType
from windvane.tasks.models.row_weights import read_row_weights, spread_weights
from windvane.tasks.search import search_plan
from windvane.tasks.settings.problem_section import name_metric

# Under kfold a fifth of the rows is held out for the curves; curves from fewer are from a sample.
MIN_UNSAMPLED_SHARE = 0.75


@dataclass(frozen=True)
class HeldOutRecord:
    """The record (n test rows: all their columns, prediction, losses, probabilities), and the fitted pipeline."""

    record: pd.DataFrame
    model: Any


@dataclass(frozen=True)
class ModelEvaluation:
    """All that a person learns about a configuration at the end of a lap. Figures that are not defined are None.

    scores: metric -> estimate with 95 % interval on the `rows` test rows, resampled as `resampled` describes. loss and
    baseline_loss: mean additive loss per row (`loss_name`); gain: by how much the baseline's is larger, paired per row.
    learning and complexity: curves of the headline `metric` on rows outside the test split. importance and slices: all
    of them, largest first.
    """

    metric: str
    greater_is_better: bool
    rows: int
    resampled: str
    scores: Mapping[str, ScoreInterval]
    loss_name: str
    loss: ScoreInterval
    baseline_loss: ScoreInterval
    gain: ScoreInterval
    diagnosis: FitDiagnosis
    learning: model_inspection.ScoreCurve
    complexity: model_inspection.ScoreCurve | None
    importance: tuple[ColumnImportance, ...]
    slices: tuple[SliceScore, ...]
    confusion: ConfusionTable | None
    calibration: CalibrationCurve | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def compare_with_goal(self, goal: float | None) -> str | None:
        """Whether the test score meets problem.goal, and how sure that is, in words; None without a goal or a score."""
        score = self.scores[self.metric]
        if goal is None or score.value is None:
            return None
        met = score.value >= goal if self.greater_is_better else score.value <= goal
        text = f"problem.goal {goal:g} is {'met' if met else 'missed'}: test {self.metric} {score.value:.6g}"
        if score.low is None or score.high is None:
            return text
        return text + (
            ", which is not sure: the 95 % interval holds the goal" if score.low <= goal <= score.high else ""
        )


def predict_held_out(
    task: ModelTask,
    spec: ModelConfiguration,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    open_test: Callable[[], pd.DataFrame],
) -> HeldOutRecord:
    """Fit `spec` and the dummy on train and validation, then open the test split and predict it, once.

    `open_test` is called once, after both fits: a fit that fails leaves the seal whole. Raises InputError for a column
    whose name Windvane needs itself, and for a test split without rows.
    """
    settings, kind = task.settings, task.problem_type
    taken = [c for c in train.columns if c in (PREDICTION_COLUMN, LOSS_COLUMN, BASELINE_LOSS_COLUMN, FOLD_COLUMN)]
    if taken:
        file = settings.data.source
        raise InputError(f"{file}: column {taken[0]!r} has a name that Windvane writes itself. Rename it")
    train_rows = pd.concat([train, validation], ignore_index=True) if len(validation) else train
    problem = settings.problem
    model = model_pipeline.fit_with_settings(task, spec, train_rows)
    counts = read_row_weights(train_rows, problem.weight)
    constant = fit_baseline(kind, kind.truth(train_rows[problem.target]), problem.headline, counts)
    rows = open_test()
    if not len(rows):
        raise InputError(
            f"split.test: the test split of {settings.data.source} has no rows. Bring more, or make split.test larger"
        )
    with model_pipeline.limit_to_one_thread():
        made = kind.predict(model, features.conform_frame(rows, task.columns, "the test split"))
    return HeldOutRecord(assemble_record(task, rows, made, constant(len(rows))), model)


def assemble_record(task: ModelTask, rows: pd.DataFrame, made: Predictions, constant: Predictions) -> pd.DataFrame:
    """(n) held-out rows with a model's predictions, probabilities and losses, and the losses of the dummy's `constant` ones."""
    kind, problem = task.problem_type, task.settings.problem
    truth = kind.truth(rows[problem.target])
    added: dict[str, Any] = {
        PREDICTION_COLUMN: made.value,
        LOSS_COLUMN: kind.loss(truth, made, problem.headline),
        BASELINE_LOSS_COLUMN: kind.loss(truth, constant, problem.headline),
    }
    if made.proba is not None and made.classes is not None:
        added |= {PROBABILITY_PREFIX + name_class_column(c): made.proba[:, i] for i, c in enumerate(made.classes)}
    return rows.reset_index(drop=True).assign(**added)


def fit_baseline(
    kind: ProblemType, truth: NDArray[Any], headline: str, weights: NDArray[np.float64] | None = None
) -> Callable[[int], Predictions]:
    """The dummy trained on `truth` (n,), in its best form for the headline there: number of rows -> Predictions.

    `weights` (n,): how much each row counts; None: all alike.

    It uses no column, so it is built without the features around it.
    """
    dummy = kind.candidates[BASELINE_CANDIDATE]
    forms = [{name: value} for name, dimension in dummy.space.items() for value in dimension.grid(2)] or [{}]

    def fit_form(form: dict[str, Any]) -> Callable[[int], Predictions]:
        model = dummy.build({**dummy.defaults, **form}, 0, 1).fit(np.zeros((len(truth), 1)), truth, weights)
        return lambda rows: kind.predict(model, np.zeros((rows, 1)))

    def mean_loss(made: Callable[[int], Predictions]) -> float:
        return float(np.average(kind.loss(truth, made(len(truth)), headline), weights=weights))

    return min(map(fit_form, forms), key=mean_loss)


def evaluate_model(
    task: ModelTask, spec: ModelConfiguration, train: pd.DataFrame, validation: pd.DataFrame, record: pd.DataFrame
) -> ModelEvaluation:
    """Everything about `spec`: scores and slices from its record, curves, diagnosis and importance from the others.

    Costs at most five fits on at most 20,000 rows, together under four fits of the whole (tasks/evaluation/model_inspection.py), on at most
    `cores` threads. Slices are looked for by every training column, time, group, and those named in gate.slices.
    """
    settings, kind, columns = task.settings, task.problem_type, task.columns
    problem, seed = settings.problem, settings.split.seed
    loss, base = (record[name].to_numpy(dtype="float64") for name in (LOSS_COLUMN, BASELINE_LOSS_COLUMN))
    pieces, counts = find_resampling_units(record, loss, problem), read_row_weights(record, problem.weight)
    truth = kind.truth(record[problem.target])
    made = read_predictions(record, truth, kind.positive)
    columns_seen = [*columns.names, *settings.gate.slices, *([problem.time] if problem.time else [])]
    sides = model_inspection.sample_curve_rows(settings, train, validation, seed)
    with model_pipeline.limit_to_one_thread():
        fit = _examine_fit(task, spec, sides, len(train))
    metric = kind.metrics[problem.headline]
    return ModelEvaluation(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        rows=len(record),
        resampled=pieces.said,
        scores=compute_scores(kind, record, settings, seed),
        loss_name=kind.loss_name(problem.headline),
        loss=estimate_mean(spread_weights(loss, counts), pieces),
        baseline_loss=estimate_mean(spread_weights(base, counts), pieces),
        gain=estimate_mean(spread_weights(base - loss, counts), pieces),
        diagnosis=diagnose_fit(fit.evidence),
        learning=fit.learning,
        complexity=fit.complexity,
        importance=fit.importance,
        slices=find_worst_slices(record, columns_seen, pieces, problem.group, problem.weight),
        confusion=count_confusion(truth, made),
        calibration=measure_calibration(truth, made),
        notes=sides.notes,
    )


@dataclass(frozen=True)
class _FitFindings:
    """What the rows outside the test split show."""

    evidence: FitEvidence
    learning: model_inspection.ScoreCurve
    complexity: model_inspection.ScoreCurve | None
    importance: tuple[ColumnImportance, ...]


def _examine_fit(
    task: ModelTask, spec: ModelConfiguration, sides: model_inspection.CurveRows, rows: int
) -> _FitFindings:
    settings, kind = task.settings, task.problem_type
    problem, seed = settings.problem, settings.split.seed
    scorer = model_inspection.CurveScorer(task, sides)
    metric = scorer.metric
    learning, model = model_inspection.measure_learning_curve(scorer, spec, sides.later)
    whole = learning.points[-1]
    if model is None:
        nothing = FitEvidence(metric.name, metric.greater_is_better, None, None, None, rows)
        return _FitFindings(nothing, learning, None, ())
    complexity = measure_complexity_curve(scorer, spec, model, whole)
    made = scorer.predicted(model)
    pieces = find_resampling_units(sides.validation, kind.loss(scorer.y, made, problem.headline), problem)
    counts = read_row_weights(sides.validation, problem.weight)
    score = bootstrap_metrics(kind, scorer.y, made, pieces, seed, [problem.headline], counts)[problem.headline]
    known, known_counts = kind.truth(sides.train[problem.target]), read_row_weights(sides.train, problem.weight)
    constant = fit_baseline(kind, known, problem.headline, known_counts)
    base = scorer.score(sides.validation, constant(len(scorer.y)))

    # What a perfect model has is not known of a metric of the user's own, unless it counts errors.
    bounded = not (metric.own and metric.greater_is_better)

    def skilled(value: float) -> float | None:
        return compute_skill(value, base, metric.greater_is_better) if bounded else None

    tried = search_plan.list_candidates(settings, kind)
    evidence = FitEvidence(
        metric=name_metric(metric.name, kind.positive),
        greater_is_better=metric.greater_is_better,
        train=whole.train,
        validation=whole.validation,
        baseline=base,
        rows=rows,
        slope=model_inspection.measure_last_slope(learning, skilled),
        # A curve that ends before all rows is no guide to twice as many.
        earlier=model_inspection.measure_last_slope(learning, skilled, before=1)
        if learning.points[-1].at >= MIN_UNSAMPLED_SHARE * rows
        else None,
        noise=None if score.low is None or score.high is None else (score.high - score.low) / 2,
        goal=problem.goal,
        later=sides.later,
        simpler=complexity.better(metric.greater_is_better) if complexity else None,
        untried=tuple(name for name in search_plan.propose_candidates(rows) if name not in (*tried, spec.candidate)),
        own_baseline=scorer.score(sides.train, constant(len(known))),
        bounded=bounded,
    )
    leaned = measure_importance(settings, kind, task.columns, model, sides.validation, pieces, seed)
    return _FitFindings(evidence, learning, complexity, leaned)
