"""What a problem type consists of: hyperparameters, candidate models, predictions, metrics.

Each type is one file beside this one, found by its name.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from windvane.tasks.errors import InputError
from windvane.tasks.settings.own_code_names import OwnCodeRole

HyperparameterValue = bool | int | float | str | None
ClassLabel = bool | int | float | str
# The candidate that every problem type has and every other one must beat.
BASELINE_CANDIDATE = "dummy"


@dataclass(frozen=True)
class FloatRange:
    """A real hyperparameter between `low` and `high`, both included; `tuned=False`: only a manual list changes it."""

    low: float
    high: float
    default: float
    log: bool = False
    tuned: bool = True

    def grid(self, points: int) -> tuple[HyperparameterValue, ...]:
        """At most `points` values from low to high, evenly spaced (on the logarithm if `log`)."""
        return tuple(float(f"{v:.6g}") for v in _space_evenly(self.low, self.high, self.log, points))

    def refuse(self, value: Any) -> str | None:
        """What is wrong with a value that somebody wrote, or None."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and self.low <= value <= self.high:
            return None
        return f"must be a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class IntRange:
    """A whole hyperparameter between `low` and `high`, both included; otherwise like FloatRange."""

    low: int
    high: int
    default: int
    log: bool = False
    tuned: bool = True

    def grid(self, points: int) -> tuple[HyperparameterValue, ...]:
        """See FloatRange.grid; rounded, each value once."""
        return tuple(dict.fromkeys(round(v) for v in _space_evenly(self.low, self.high, self.log, points)))

    def refuse(self, value: Any) -> str | None:
        """See FloatRange.refuse."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and self.low <= value <= self.high:
            return None
        return f"must be a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class ChoiceSet:
    """A hyperparameter with a few possible values; otherwise like FloatRange."""

    options: tuple[HyperparameterValue, ...]
    default: HyperparameterValue
    tuned: bool = True

    def grid(self, points: int) -> tuple[HyperparameterValue, ...]:
        """All options: there is no order in which to leave some out."""
        return self.options

    def refuse(self, value: Any) -> str | None:
        """See FloatRange.refuse. `1` is not `true`."""
        if any(value == o and isinstance(value, bool) == isinstance(o, bool) for o in self.options):
            return None
        return "must be one of " + ", ".join(format_value(o) for o in self.options)


Hyperparameter = FloatRange | IntRange | ChoiceSet


@dataclass(frozen=True)
class OwnCode:
    """What `name`, which is not Windvane's, brings with it: its files (none for what is installed) as path and text, the types that
    skops may build for it, and the packages that it needs, as `name==version`. role: what it is in place of.
    """

    name: str
    files: tuple[tuple[str, str], ...] = ()
    trusted: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    role: OwnCodeRole = "candidate"

    def to_json(self) -> dict[str, Any]:
        """Plain values, to be stored with a model."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> OwnCode:
        """What to_json wrote."""
        files = tuple((file, text) for file, text in content["files"])
        return cls(content["name"], files, tuple(content["trusted"]), tuple(content["packages"]), content["role"])


class OwnCodeError(InputError):
    """The user's own code raised, or does not do what a candidate must."""


@dataclass(frozen=True)
class CandidateModel:
    """An algorithm: the one home of its hyperparameters' names, bounds and defaults.

    scaled: it needs scaled, complete, one-hot features (see tasks/models/features.py).
    complexity: the hyperparameter that a curve of train against validation scores sweeps.
    build: (params, seed, cores) -> unfitted scikit-learn estimator. Two configurations that differ only in
    `log_target` build the same one: the logarithm is taken around it (see tasks/models/model_pipeline.py).
    own: what a candidate that is not Windvane's brings with it (tasks/models/own_code.py).
    """

    name: str
    space: Mapping[str, Hyperparameter]
    scaled: bool
    complexity: str | None
    build: Callable[[Mapping[str, Any], int, int], Any]
    own: OwnCode | None = None

    @property
    def defaults(self) -> dict[str, HyperparameterValue]:
        """Every hyperparameter at its default."""
        return {name: dimension.default for name, dimension in self.space.items()}


@dataclass(frozen=True)
class Predictions:
    """Predictions for n rows: values (numbers or classes), and for k classes their probabilities (n, k).

    positive: which of two classes metrics are of; None: the usual one (class_labels.find_positive_class).
    """

    value: NDArray[Any]
    proba: NDArray[Any] | None = None
    classes: NDArray[Any] | None = None
    positive: ClassLabel | None = None


@dataclass(frozen=True)
class Metric:
    """A score over rows: (truth (n,), predictions, weights (n,) or None); a weight counts a row that many times.

    calls: it uses the class that is called, which a threshold decides, not probabilities or their ranks. own: it is the user's; weighted:
    it takes weights.
    """

    name: str
    greater_is_better: bool
    score: Callable[[NDArray[Any], Predictions, NDArray[Any] | None], float]
    calls: bool = False
    own: bool = False
    weighted: bool = True

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better; a number beats NaN."""
        if math.isnan(one) or math.isnan(other):
            return not math.isnan(one) and math.isnan(other)
        return one > other if self.greater_is_better else one < other


@dataclass(frozen=True)
class ProblemType:
    """A problem type: its candidates (simplest first, the baseline is "dummy"), metrics and loss.

    continuous: the target is a number, not a class.
    truth: a target column -> array (n,) as the models learn it. predict: (fitted pipeline, features) -> Predictions.
    loss: (truth, predictions, headline metric's name) -> additive loss per row (n,); loss_name: its name.
    log_target: truth -> whether its logarithm should be tried too; a class has none. positive: see Predictions. objectives: what
    candidates minimise under a headline, where that is not their default. features: what makes the user's own transformer
    (tasks/models/own_features.py); None: there is none. own: the code of the user's metric, loss and features.
    """

    name: str
    continuous: bool
    metrics: Mapping[str, Metric]
    candidates: Mapping[str, CandidateModel]
    truth: Callable[[Any], NDArray[Any]]
    predict: Callable[..., Predictions]
    loss: Callable[[NDArray[Any], Predictions, str], NDArray[Any]]
    loss_name: Callable[[str], str]
    log_target: Callable[[NDArray[Any]], bool] = lambda _: False
    positive: ClassLabel | None = None
    objectives: Mapping[str, str] = field(default_factory=dict)
    features: Callable[[], Any] | None = None
    own: tuple[OwnCode, ...] = ()

    def list_own_code(self, candidate: str) -> tuple[OwnCode, ...]:
        """All of the user's own code that a version of this candidate is made and measured with."""
        found = self.candidates.get(candidate)
        return (*((found.own,) if found is not None and found.own is not None else ()), *self.own)

    def scores(
        self, truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None = None
    ) -> dict[str, float]:
        """Every metric of the problem type; `weights` as Metric.score takes them."""
        return {name: metric.score(truth, predictions, weights) for name, metric in self.metrics.items()}


def load_problem_type(kind: str, positive: ClassLabel | None = None) -> ProblemType:
    """The problem type that `problem.kind` names, of two classes with the `positive` one. Imports its file, and only that one."""
    found = cast("ProblemType", importlib.import_module(f"windvane.tasks.models.problem_types.{kind}").PROBLEM_TYPE)
    if positive is None:
        return found
    return replace(found, predict=partial(found.predict, positive=positive), positive=positive)


def build_with(
    estimator: Callable[..., Any], space: Mapping[str, Hyperparameter], *, threads: bool = False, **given: Any
) -> Callable[[Mapping[str, Any], int, int], Any]:
    """`CandidateModel.build` of an estimator that knows the hyperparameters of `space` by the same names.

    threads: it takes the number of cores. given: what no configuration changes.
    """

    def build(params: Mapping[str, Any], seed: int, cores: int) -> Any:
        fixed = {"random_state": seed, **({"n_jobs": cores} if threads else {}), **given}
        return estimator(**fixed, **{name: params[name] for name in space})

    return build


def _space_evenly(low: float, high: float, log: bool, points: int) -> list[float]:
    if points < 2:
        return [(low * high) ** 0.5 if log else (low + high) / 2]
    steps = [i / (points - 1) for i in range(points)]
    # The ends are written as they are: low * (high / low) may miss `high` by a rounding error.
    inner = [low * (high / low) ** s if log else low + (high - low) * s for s in steps[1:-1]]
    return [low, *inner, high]


def format_value(value: HyperparameterValue) -> str:
    """A hyperparameter's value as params.yaml has it."""
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


# 32 levels cut a million rows down to single ones: it stands for "no limit", and is one a person can read.
TREE_SPACE: dict[str, Hyperparameter] = {
    "max_depth": IntRange(2, 32, 10, log=True),
    "min_samples_leaf": IntRange(1, 200, 10, log=True),
}

# More trees are never worse, only slower, so their number is not tuned. max_samples keeps a forest on a large table to
# seconds: a tree sees at most this many rows, another draw for each tree (measured: 235,000 rows, 25 CPU seconds).
FOREST_SPACE: dict[str, Hyperparameter] = {
    "n_estimators": IntRange(10, 1000, 100, tuned=False),
    "max_samples": IntRange(1_000, 1_000_000, 25_000, tuned=False),
    "max_depth": IntRange(4, 32, 32, log=True),
    "min_samples_leaf": IntRange(1, 50, 1, log=True),
    "max_features": FloatRange(0.1, 1.0, 0.5),
}

# max_iter is a ceiling: boosting sets a tenth of its training rows aside and stops once they see no gain for a while.
BOOSTING_SPACE: dict[str, Hyperparameter] = {
    "learning_rate": FloatRange(0.02, 0.3, 0.1, log=True),
    "max_leaf_nodes": IntRange(4, 127, 31, log=True),
    "min_samples_leaf": IntRange(2, 200, 20, log=True),
    "l2_regularization": FloatRange(1e-3, 100.0, 1e-3, log=True),
    "max_features": FloatRange(0.2, 1.0, 1.0),
    "max_iter": IntRange(10, 5000, 1000, tuned=False),
    "n_iter_no_change": IntRange(1, 200, 20, tuned=False),
    "validation_fraction": FloatRange(0.05, 0.5, 0.1, tuned=False),
}


def adapt_to_row_count(model: Any, truth: Any) -> None:
    """No more rows per tree than there are in `truth` (n,), and no early stopping where a class has too few rows to
    be in both splits of it."""
    params = model.get_params(deep=False)
    if params.get("max_samples") is not None and params["max_samples"] >= len(truth):
        model.set_params(max_samples=None)
    if params.get("early_stopping") and hasattr(model, "predict_proba"):
        counts = np.unique(truth, return_counts=True)[1]
        if counts.min() < 2 or len(truth) * params["validation_fraction"] < len(counts):
            model.set_params(early_stopping=False)
