"""The final evaluation of a configuration: opens the test split once and gathers scores, curves, slices and the
diagnosis of the fit. The only place that reads test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import model_inspection
from windvane.tasks.evaluation.fit_diagnosis import FitDiagnosis, FitEvidence, compute_skill, diagnose_fit
from windvane.tasks.evaluation.intervals import ScoreInterval, bootstrap_metrics, estimate_mean, find_resampling_units
from windvane.tasks.evaluation.model_inspection import ColumnImportance, measure_complexity_curve, measure_importance
from windvane.tasks.evaluation.scores import (
    BASELINE_LOSS_COLUMN,
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

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.models.features import FeatureColumns
    from windvane.tasks.models.model_pipeline import ModelConfiguration
    from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType
    from windvane.tasks.settings.project_params import Settings

BASELINE_CANDIDATE = "dummy"
# Under kfold a fifth of the rows is held out for the curves; curves from fewer are from a sample.
MIN_UNSAMPLED_SHARE = 0.75


@dataclass(frozen=True)
class HeldOutRecord:
    """The record (n test rows: all their columns, prediction, losses, probabilities), and the fitted pipeline."""

    record: pd.DataFrame
    model: Any


@dataclass(frozen=True)
class ModelEvaluation:
    """All that a person is told about a configuration at the end of a lap. Figures that are not defined are None.

    scores: metric -> estimate with 95 % interval on the `rows` test rows, resampled as `resampled` says. loss and
    baseline_loss: mean additive loss per row (`loss_name`); gain: by how much the baseline's is larger, paired per row.
    learning and complexity: curves of the headline `metric` on rows outside the test side. importance and slices: all
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


def predict_held_out(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    spec: ModelConfiguration,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    open_test: Callable[[], pd.DataFrame],
    cores: int,
) -> HeldOutRecord:
    """Fit `spec` and the dummy on train and validation, then open the test side and predict it, once.

    `open_test` is called once, after both fits: a fit that fails leaves the seal whole. Raises InputError for a column
    whose name Windvane needs itself, and for a test side without rows.
    """
    import pandas as pd

    taken = [c for c in train.columns if c in (PREDICTION_COLUMN, LOSS_COLUMN, BASELINE_LOSS_COLUMN)]
    if taken:
        raise InputError(
            f"{settings.data.source}: column {taken[0]!r} has a name that Windvane writes itself. Rename it"
        )
    taught = pd.concat([train, validation], ignore_index=True) if len(validation) else train
    problem = settings.problem
    model = model_pipeline.fit_with_settings(settings, spec, kind, columns, taught, cores)
    constant = fit_baseline(kind, kind.truth(taught[problem.target]), problem.headline)
    rows = open_test()
    if not len(rows):
        raise InputError(
            f"split.test: the test side of {settings.data.source} has no rows. Bring more, or make split.test larger"
        )
    truth = kind.truth(rows[problem.target])
    with model_pipeline.limit_to_one_thread():
        made = kind.predict(model, features.conform_frame(rows, columns, "the test side"))
    added: dict[str, Any] = {
        PREDICTION_COLUMN: made.value,
        LOSS_COLUMN: kind.loss(truth, made, problem.headline),
        BASELINE_LOSS_COLUMN: kind.loss(truth, constant(len(rows)), problem.headline),
    }
    if made.proba is not None and made.classes is not None:
        added |= {PROBABILITY_PREFIX + name_class_column(c): made.proba[:, i] for i, c in enumerate(made.classes)}
    return HeldOutRecord(rows.reset_index(drop=True).assign(**added), model)


def fit_baseline(kind: ProblemType, truth: NDArray[Any], headline: str) -> Callable[[int], Predictions]:
    """The dummy taught on `truth` (n,), in its best form for the headline there: number of rows -> Predictions.

    It looks at no column, so it is built without the features around it.
    """
    import numpy as np

    dummy = kind.candidates[BASELINE_CANDIDATE]
    forms = [{name: value} for name, dimension in dummy.space.items() for value in dimension.grid(2)] or [{}]

    def taught(form: dict[str, Any]) -> Callable[[int], Predictions]:
        model = dummy.build({**dummy.defaults, **form}, 0, 1).fit(np.zeros((len(truth), 1)), truth)
        return lambda rows: kind.predict(model, np.zeros((rows, 1)))

    return min(
        (taught(form) for form in forms), key=lambda made: float(kind.loss(truth, made(len(truth)), headline).mean())
    )


def evaluate_model(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    spec: ModelConfiguration,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    record: pd.DataFrame,
    cores: int,
) -> ModelEvaluation:
    """Everything about `spec`: scores and slices from its record, curves, diagnosis and importance from the others.

    Costs at most five fits on at most 20,000 rows, together under four fits of the whole (tasks/evaluation/model_inspection.py), on at most
    `cores` threads. Slices are looked for by every column that teaches, time, group, and those named in gate.slices.
    """
    problem, seed = settings.problem, settings.split.seed
    loss, base = (record[name].to_numpy(dtype="float64") for name in (LOSS_COLUMN, BASELINE_LOSS_COLUMN))
    pieces = find_resampling_units(record, loss, problem)
    truth = kind.truth(record[problem.target])
    made = read_predictions(record, truth)
    looked = [*columns.names, *settings.gate.slices, *([problem.time] if problem.time else [])]
    sides = model_inspection.sample_curve_rows(settings, train, validation, seed)
    with model_pipeline.limit_to_one_thread():
        fit = _examine_fit(settings, kind, columns, spec, sides, len(train), cores)
    metric = kind.metrics[problem.headline]
    return ModelEvaluation(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        rows=len(record),
        resampled=pieces.said,
        scores=compute_scores(kind, record, settings, seed),
        loss_name=kind.loss_name(problem.headline),
        loss=estimate_mean(loss, pieces),
        baseline_loss=estimate_mean(base, pieces),
        gain=estimate_mean(base - loss, pieces),
        diagnosis=diagnose_fit(fit.evidence),
        learning=fit.learning,
        complexity=fit.complexity,
        importance=fit.importance,
        slices=find_worst_slices(record, looked, pieces, problem.group),
        confusion=count_confusion(truth, made),
        calibration=measure_calibration(truth, made),
        notes=sides.notes,
    )


@dataclass(frozen=True)
class _FitFindings:
    """What the rows outside the test side say."""

    evidence: FitEvidence
    learning: model_inspection.ScoreCurve
    complexity: model_inspection.ScoreCurve | None
    importance: tuple[ColumnImportance, ...]


def _examine_fit(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    spec: ModelConfiguration,
    sides: model_inspection.CurveRows,
    rows: int,
    cores: int,
) -> _FitFindings:
    problem, seed = settings.problem, settings.split.seed
    scorer = model_inspection.CurveScorer(settings, kind, columns, sides, cores)
    metric = scorer.metric
    learning, model = model_inspection.measure_learning_curve(scorer, spec, sides.later)
    whole = learning.points[-1]
    if model is None:
        return _FitFindings(
            FitEvidence(metric.name, metric.greater_is_better, None, None, None, rows), learning, None, ()
        )
    complexity = measure_complexity_curve(scorer, spec, model, whole)
    made = scorer.predicted(model)
    pieces = find_resampling_units(sides.validation, kind.loss(scorer.y, made, problem.headline), problem)
    score = bootstrap_metrics(kind, scorer.y, made, pieces, seed, [problem.headline])[problem.headline]
    known = kind.truth(sides.train[problem.target])
    constant = fit_baseline(kind, known, problem.headline)
    base = scorer.score(scorer.y, constant(len(scorer.y)))

    def skilled(value: float) -> float | None:
        return compute_skill(value, base, metric.greater_is_better)

    evidence = FitEvidence(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        train=whole.train,
        validation=whole.validation,
        baseline=base,
        rows=rows,
        slope=model_inspection.measure_last_slope(learning, skilled),
        # A curve that ends before all rows says nothing of twice as many.
        earlier=model_inspection.measure_last_slope(learning, skilled, before=1)
        if learning.points[-1].at >= MIN_UNSAMPLED_SHARE * rows
        else None,
        noise=None if score.low is None or score.high is None else (score.high - score.low) / 2,
        goal=problem.goal,
        later=sides.later,
        simpler=complexity.better(metric.greater_is_better) if complexity else None,
        own_baseline=scorer.score(known, constant(len(known))),
    )
    leaned = measure_importance(settings, kind, columns, model, sides.validation, pieces, seed)
    return _FitFindings(evidence, learning, complexity, leaned)
