"""Regression: predicting a number. Metrics, additive loss, and the candidate models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import ElasticNet
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from windvane.tasks.models.problem_types.definitions import (
    BOOSTING_SPACE,
    FOREST_SPACE,
    TREE_SPACE,
    CandidateModel,
    ChoiceSet,
    FloatRange,
    Hyperparameter,
    IntRange,
    Metric,
    Predictions,
    ProblemType,
    build_with,
)

# The median is the best constant for absolute error, the mean for squared error: the search takes the better.
_DUMMY_SPACE: dict[str, Hyperparameter] = {"strategy": ChoiceSet(("median", "mean"), "median")}
_LOG_TARGET_SPACE: dict[str, Hyperparameter] = {"log_target": ChoiceSet((False, True), False)}
# Beyond this skewness a few large values rule the squared error; 1 is the usual border of "highly skewed"
# (Bulmer, Principles of Statistics, 1979).
_MIN_SKEWNESS = 1.0


def mae(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.average(np.abs(truth - predictions.value), weights=weights))


def rmse(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Root of the mean squared error, in the target's unit."""
    return float(np.sqrt(np.average((truth - predictions.value) ** 2, weights=weights)))


def r2(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of the variance explained; 0 = as good as these rows' mean, NaN where they do not vary."""
    around = np.average((truth - np.average(truth, weights=weights)) ** 2, weights=weights)
    left = np.average((truth - predictions.value) ** 2, weights=weights)
    return float(1 - left / around) if around > 0 else float("nan")


# The loss that the gate compares under each headline, in words, and of an error. A metric without one here cannot be a headline.
_LOSSES: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "mae": ("absolute error", np.abs),
    "rmse": ("squared error", np.square),
    "r2": ("squared error", np.square),
}


def compute_regression_loss(truth: NDArray[Any], predictions: Predictions, headline: str) -> NDArray[Any]:
    """Loss per row (n,): absolute if the headline is mae, squared for rmse and r2, whose means rank as they do."""
    return np.asarray(_LOSSES[headline][1](truth - predictions.value))


def name_regression_loss(headline: str) -> str:
    """What compute_regression_loss() returns, in words."""
    return _LOSSES[headline][0]


def suggest_log_target(truth: NDArray[Any]) -> bool:
    """Whether the target is positive, highly skewed, and less skewed on its logarithm."""
    if len(truth) == 0 or not (truth > 0).all():
        return False
    return bool(_skewness(truth) > _MIN_SKEWNESS and abs(_skewness(np.log(truth))) < _skewness(truth))


def _skewness(values: NDArray[Any]) -> float:
    spread = values.std()
    return float((((values - values.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def _linear(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    # The target is scaled, or alpha would be counted in its unit. The Gram matrix makes a pass cost the same for any
    # number of rows, and converge for pure L2 (l1_ratio 0) as well.
    model = ElasticNet(
        alpha=params["alpha"],
        l1_ratio=params["l1_ratio"],
        max_iter=params["max_iter"],
        precompute=True,
        random_state=seed,
    )
    return TransformedTargetRegressor(model, transformer=StandardScaler())


# What tree and boosting minimise. Only the search makes the default another one, under the headline that it is: stored
# configurations keep theirs. A forest's leaves hold few rows, of which the median is no better, and each tree takes several times
# as long; no linear model of the absolute error fits large tables in time.
_OBJECTIVE = ChoiceSet(("squared_error", "absolute_error"), "squared_error", tuned=False)
_REGRESSION_TREE_SPACE: dict[str, Hyperparameter] = {"criterion": _OBJECTIVE, **TREE_SPACE}
_REGRESSION_BOOSTING_SPACE: dict[str, Hyperparameter] = {
    "loss": _OBJECTIVE,
    **BOOSTING_SPACE,
}
_build_tree = build_with(DecisionTreeRegressor, _REGRESSION_TREE_SPACE)
_build_forest = build_with(RandomForestRegressor, FOREST_SPACE, threads=True)
_build_boosting = build_with(HistGradientBoostingRegressor, _REGRESSION_BOOSTING_SPACE, early_stopping=True)
_CANDIDATES = (
    CandidateModel("dummy", _DUMMY_SPACE, False, None, lambda params, *_: DummyRegressor(strategy=params["strategy"])),
    CandidateModel(
        "linear",
        # l1_ratio 0 is ridge (L2), 1 is the lasso (L1), between them lies the elastic net.
        {
            "alpha": FloatRange(1e-5, 1.0, 1e-3, log=True),
            "l1_ratio": ChoiceSet((0.0, 0.5, 1.0), 0.0),
            "max_iter": IntRange(10, 1_000_000, 20_000, tuned=False),
            **_LOG_TARGET_SPACE,
        },
        True,
        "alpha",
        _linear,
    ),
    CandidateModel("tree", {**_REGRESSION_TREE_SPACE, **_LOG_TARGET_SPACE}, False, "max_depth", _build_tree),
    CandidateModel("forest", {**FOREST_SPACE, **_LOG_TARGET_SPACE}, False, "max_depth", _build_forest),
    CandidateModel(
        "boosting", {**_REGRESSION_BOOSTING_SPACE, **_LOG_TARGET_SPACE}, False, "max_leaf_nodes", _build_boosting
    ),
)

PROBLEM_TYPE = ProblemType(
    name="regression",
    continuous=True,
    metrics={m.name: m for m in (Metric("mae", False, mae), Metric("rmse", False, rmse), Metric("r2", True, r2))},
    candidates={c.name: c for c in _CANDIDATES},
    truth=lambda target: np.asarray(target, dtype="float64"),
    predict=lambda model, X: Predictions(np.asarray(model.predict(X), dtype="float64")),
    loss=compute_regression_loss,
    loss_name=name_regression_loss,
    log_target=suggest_log_target,
    objectives={"mae": "absolute_error"},
)
