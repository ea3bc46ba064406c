"""A configuration becomes a fitted pipeline: features, logarithm of the target, class balance, model, threshold, and
the average of two fits (retrain.history: combined:N).
"""

from __future__ import annotations

import sys
import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from windvane.tasks.errors import InputError
from windvane.tasks.models import class_balance
from windvane.tasks.models.class_balance import UNBALANCED, BalancedClassifier, ClassBalance
from windvane.tasks.models.features import FeatureColumns, build_feature_transformer, conform_frame
from windvane.tasks.models.own_features import OwnFeatures
from windvane.tasks.models.own_modules import explain_own_errors
from windvane.tasks.models.problem_types import classification
from windvane.tasks.models.problem_types.definitions import HyperparameterValue, Metric, ProblemType, adapt_to_row_count
from windvane.tasks.models.row_weights import read_row_weights
from windvane.tasks.settings import monitoring_section
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import time_windows
from windvane.tasks.split.time_windows import RecentWindows

# Fewer rows get no model of their own.
MIN_SECOND_MODEL_ROWS = 20


class _AveragedPipelines(BaseEstimator):
    """Of fitted pipelines; learns nothing itself."""

    def __init__(self, models: Any = None):
        self.models = models

    def fit(self, X: Any, y: Any = None) -> _AveragedPipelines:
        """Nothing: each of them is fitted on rows of its own."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class AveragedRegressor(RegressorMixin, _AveragedPipelines):
    """The mean of their predictions."""

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """(n,)."""
        return np.asarray(np.mean([model.predict(X) for model in self.models], axis=0))


class AveragedClassifier(ClassifierMixin, _AveragedPipelines):
    """The mean of their probabilities: of a class that the newest rows do not hold, half of what all rows show."""

    @property
    def classes_(self) -> NDArray[Any]:
        """Those of all rows."""
        return np.asarray(self.models[0].classes_)

    def predict_proba(self, X: pd.DataFrame) -> NDArray[Any]:
        """(n, k), in the order of classes_."""
        total = np.zeros((len(X), len(self.classes_)))
        for model in self.models:
            total[:, np.searchsorted(self.classes_, model.classes_)] += model.predict_proba(X)
        return np.asarray(total / len(self.models))

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """The likeliest class (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


# What skops does not trust by itself and our pipelines hold; a process that loads a model trusts nothing else.
TRUSTED_TYPES: tuple[str, ...] = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.model_selection._split.KFold",
    "sklearn.tree._tree.Tree",
    "windvane.tasks.models.class_balance.BalancedClassifier",
    "windvane.tasks.models.model_pipeline.AveragedClassifier",
    "windvane.tasks.models.model_pipeline.AveragedRegressor",
    "windvane.tasks.models.features.DateEncoder",
    "windvane.tasks.models.own_features.OwnFeatures",
)


@dataclass(frozen=True)
class ModelConfiguration:
    """A configuration: a candidate's name, all its hyperparameters, and how it treats classes."""

    candidate: str
    params: dict[str, HyperparameterValue]
    balance: ClassBalance = UNBALANCED

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger and MLflow; without a treatment as versions before it wrote it."""
        content = asdict(self)
        if self.balance.newest is None:
            del content["balance"]["newest"]
        return content if self.balance != UNBALANCED else {k: v for k, v in content.items() if k != "balance"}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelConfiguration:
        """The configuration that to_json wrote."""
        return cls(content["candidate"], dict(content["params"]), ClassBalance(**content.get("balance", {})))

    def seen_by(self, metric: Metric) -> ModelConfiguration:
        """As far as `metric` shows: without a threshold, which costs several fits, where it uses ranks or probabilities."""
        return self if metric.calls else replace(self, balance=replace(self.balance, threshold=None))


@dataclass(frozen=True)
class ModelTask:
    """What models are made for: the settings, the problem's type, the columns that they learn from, and the cores that they may use."""

    settings: Settings
    problem_type: ProblemType
    columns: FeatureColumns
    cores: int


@dataclass(frozen=True)
class FitOptions:
    """How rows are fitted: the target's column and those of group, time and weight, the seed, the cores, and the rows of a
    second model.
    """

    target: str
    seed: int
    cores: int
    group: str | None = None
    time: str | None = None
    recent: RecentWindows | None = None
    weight: str | None = None


def build_pipeline(spec: ModelConfiguration, kind: ProblemType, columns: FeatureColumns, seed: int, cores: int) -> Any:
    """Unfitted Pipeline(features, model); the model learns the logarithm of the target if `log_target` is set, and
    from balanced classes if spec.balance does. The threshold is not part of it: fit() adds it.

    `cores` bounds the threads of forests here, of all else in fit(). Raises InputError on an unknown candidate.
    """
    candidate = kind.candidates.get(spec.candidate)
    if candidate is None:
        known = ", ".join(kind.candidates)
        raise InputError(f"search.candidates: {spec.candidate!r} is not known to {kind.name}. Choose from {known}")
    params = {**candidate.defaults, **spec.params}
    model = candidate.build(params, seed, cores)
    if params.get("log_target"):
        # Numpy's own functions, because skops stores them by name.
        model = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp, check_inverse=False)
    if spec.balance.treatment is not None:
        first = len(columns.numbers) + len(columns.booleans)
        codes = () if candidate.scaled or kind.features is not None else tuple(range(first, first + len(columns.low)))
        model = BalancedClassifier(model, spec.balance.treatment, codes, seed)
    if kind.features is not None:
        features: Any = OwnFeatures(kind.features(), candidate.scaled, kind.continuous, seed)
    else:
        features = build_feature_transformer(columns, scaled=candidate.scaled, continuous=kind.continuous, seed=seed)
    return Pipeline([("features", features), ("model", model)])


def fit_pipeline(
    spec: ModelConfiguration, kind: ProblemType, columns: FeatureColumns, frame: pd.DataFrame, options: FitOptions
) -> Any:
    """The pipeline fitted on every row of `frame`: it holds the columns and the target, which is nowhere missing.

    Same arguments, same pipeline, whatever `cores`: at most so many threads. Columns without a value in these rows are
    not learned from. Convergence warnings are not shown: explain_nonconvergence() reports them. spec.balance costs a fit for each of
    THRESHOLD_FOLDS folds of `frame` more (whole groups together): on their held-out rows the probabilities under a
    treatment are calibrated, and, with two classes, a threshold is tuned. Too few rows of a class: neither is done.
    spec.balance.newest needs `time`: rows count as _weigh_classes() has it. So does `recent`: a second pipeline is fitted on these
    rows, and both predict as one (AveragedRegressor, AveragedClassifier). Under a treatment, and where these rows are too few,
    only one pipeline is fitted, on all rows.
    """
    target, seed, time, recent = options.target, options.seed, options.time, options.recent
    truth, rule = kind.truth(frame[target]), spec.balance
    counts = None if rule.newest is None else _weigh_classes(truth, frame, rule.newest, time)

    # From all rows: the folds below must hold the same ones back, not the newest of what they have.
    newest = np.zeros(len(frame), dtype=bool)
    if recent is not None and rule.treatment is None:
        newest = recent.among(frame[time])

    def model(at: NDArray[Any]) -> Any:
        rows, last = frame.iloc[at], frame.iloc[at[newest[at]]]
        every = _fit_once(spec, kind, columns, rows, options, counts)
        known = kind.truth(last[target]) if len(last) else truth[:0]
        few = len(last) < MIN_SECOND_MODEL_ROWS or not (kind.continuous or len(np.unique(known)) > 1)
        if few or len(last) == len(rows) or not columns.filled(conform_frame(last, columns, "training rows")).names:
            return every
        again = None if rule.newest is None else _weigh_classes(known, last, rule.newest, time)
        both = [every, _fit_once(spec, kind, columns, last, options, again)]
        made = AveragedRegressor(both) if kind.continuous else AveragedClassifier(both)
        return Pipeline([("features", "passthrough"), ("model", made)])

    pipeline = model(np.arange(len(frame)))
    if rule.treatment is None and rule.threshold is None:
        return pipeline
    groups = None if options.group is None else frame[options.group]
    parts = classification.split_threshold_folds(truth, groups, seed)
    if parts is None:
        return pipeline
    held = np.empty((len(truth), len(pipeline.classes_)))
    for fold_rows, rest in parts:
        apart = model(fold_rows)
        with limit_to_one_thread():
            held[rest] = apart.predict_proba(conform_frame(frame.iloc[rest], columns, "training rows"))
    each = _count_rows(frame, truth, options, counts)
    each = np.ones(len(truth)) if each is None else each
    if isinstance(last := pipeline[-1], BalancedClassifier):
        last.calibrate(held, truth, each)
        held = last.tempered(held)
    return classification.tune_threshold(pipeline, held, truth, rule.threshold, each, kind.positive)


def fit_with_settings(task: ModelTask, spec: ModelConfiguration, rows: pd.DataFrame) -> Any:
    """fit_pipeline() on these rows as params.yaml has it."""
    return fit_pipeline(spec, task.problem_type, task.columns, rows, make_fit_options(task))


def make_fit_options(task: ModelTask) -> FitOptions:
    """How params.yaml has models fitted."""
    settings = task.settings
    problem, recent = settings.problem, time_windows.choose_recent_windows(settings)
    return FitOptions(
        problem.target, settings.split.seed, task.cores, problem.group, problem.time, recent, problem.weight
    )


def _weigh_classes(truth: Any, frame: pd.DataFrame, newest: str, time: str | None) -> dict[Any, float]:
    """How much a row of each class counts, so that the classes are as frequent as in the newest window."""
    if time is None:
        raise ValueError("classes are to be as frequent as in the newest rows, and there is no time to order them by")
    return class_balance.weigh_classes_by_share(
        truth, class_balance.estimate_class_shares(truth, frame[time], monitoring_section.parse_window_length(newest))
    )


def _fit_once(
    spec: ModelConfiguration,
    kind: ProblemType,
    columns: FeatureColumns,
    frame: pd.DataFrame,
    options: FitOptions,
    counts: dict[Any, float] | None,
) -> Any:
    """One fit: build_pipeline(), settled for these rows; rows of a class count as `counts` has it."""
    inputs = conform_frame(frame, columns, "training rows")
    truth = kind.truth(frame[options.target])
    pipeline = build_pipeline(spec, kind, columns.filled(inputs), options.seed, options.cores)
    adapt_to_row_count(unwrap_estimators(pipeline)[0], truth)
    treated = isinstance(pipeline[-1], BalancedClassifier)
    # Rows, not class_weight: boosting maps that by its own codes of the classes.
    each = _count_rows(frame, truth, options, None if treated else counts)
    more = {} if each is None else {"model__sample_weight": each}
    own = kind.list_own_code(spec.candidate)
    with limit_to_one_thread(), warnings.catch_warnings(), explain_own_errors(own, "fit"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(inputs, truth, **more)
    if counts is not None and treated:
        pipeline[-1].expect(counts)  # its treatment has the rows weighted already
    (model,) = unwrap_estimators(pipeline)
    if "n_jobs" in model.get_params(deep=False):
        # Threads add up a forest's trees in the order in which they come; one thread gives the same sum each time.
        model.set_params(n_jobs=None)
    return pipeline


def _count_rows(
    frame: pd.DataFrame, truth: NDArray[Any], options: FitOptions, counts: dict[Any, float] | None
) -> NDArray[np.float64] | None:
    """How much each row counts (n,), 1 on average: by its weight, and by its class as `counts` has it; None: all alike."""
    weights = read_row_weights(frame, options.weight)
    if counts is None:
        return weights
    each = np.array([counts[c] for c in truth.tolist()])
    return each if weights is None else np.asarray(each * weights / (each * weights).mean())


def limit_to_one_thread() -> AbstractContextManager[Any]:
    """A context in which OpenMP and BLAS use one thread: a forest's trees share the cores, boosting uses one.

    The threads of a boosting stage wait for each other in a spin, which beside any neighbour costs many times what they
    bring (docs/decisions/0009-one-openmp-thread.md has the figures).
    """
    return cast("AbstractContextManager[Any]", _find_thread_pools(len(sys.modules)).limit(limits=1))


@lru_cache(1)
def _find_thread_pools(_modules: int) -> Any:
    """The loaded thread pools. Finding them reads what the process has mapped, milliseconds each time; none can have come
    while no module was imported.
    """
    return ThreadpoolController()


def explain_nonconvergence(pipeline: Any) -> str | None:
    """A note for people if a linear model used up its iterations before it settled, else None."""
    for model in unwrap_estimators(pipeline):
        limit, used = getattr(model, "max_iter", None), getattr(model, "n_iter_", None)
        boosted = hasattr(model, "n_trees_per_iteration_")
        if limit is not None and used is not None and not boosted and np.max(used) >= limit:
            return f"stopped after {limit} iterations before it settled; its scores are those of an early stop"
    return None


def unwrap_estimators(pipeline: Any) -> list[Any]:
    """The algorithm itself, inside what changes its target, its rows or its calls; fitted if the pipeline is. Several of a
    combined pipeline.
    """
    model = pipeline.named_steps["model"]
    while isinstance(
        model, TransformedTargetRegressor | FixedThresholdClassifier | FrozenEstimator | BalancedClassifier
    ):
        name = "regressor" if isinstance(model, TransformedTargetRegressor) else "estimator"
        model = getattr(model, f"{name}_", getattr(model, name))
    if isinstance(model, AveragedClassifier | AveragedRegressor):
        return [inner for part in model.models for inner in unwrap_estimators(part)]
    return [model]
