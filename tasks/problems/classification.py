"""Classification: predicting one of k classes. Owns its candidates and plots; metrics are in class_metrics.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.tasks import thresholds
from windvane.tasks.problems import Candidate, Choice, Dimension, Float, Int, Kind, Metric, Predictions
from windvane.tasks.problems.class_metrics import (
    CLIP,
    accuracy,
    average_precision,
    classes_of,
    f1,
    guesses,
    log_loss,
    loss,
    loss_name,
    positions,
    positive,
    precision,
    proba_of,
    recall,
    roc_auc,
    truth,
)
from windvane.tasks.problems.spaces import BOOSTING, FOREST, TREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CLIP", "KIND", "log_target", "positions", "positive", "predict", "truth"]

_FOREST: dict[str, Dimension] = {
    **FOREST,
    # A leaf of one row says 0 or 1, which log loss punishes hard when wrong.
    "min_samples_leaf": Int(1, 100, 3, log=True),
    "max_features": Float(0.05, 1.0, 0.3),
}


def predict(model: Any, X: Any) -> Predictions:
    """The class called per row (n,), with the probabilities (n, k) of the classes in training, sorted.

    Called is the likeliest class, or of two the positive one from the model's own threshold on (tasks/thresholds.py).
    """
    proba, classes, threshold = model.predict_proba(X), model.classes_, thresholds.of(model)
    at = 0 if threshold is None else positive(classes)
    return Predictions(thresholds.called(proba, classes, at, threshold), proba, classes)


def log_target(truth: NDArray[Any]) -> bool:
    """A class has no logarithm."""
    return False


def _dummy(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy=params["strategy"], random_state=seed)


def _logistic(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    # L-BFGS needs a smooth penalty; SAGA takes L1, but one of its iterations reads every row.
    smooth = params["l1_ratio"] == 0
    return LogisticRegression(
        C=params["C"],
        l1_ratio=params["l1_ratio"],
        solver="lbfgs" if smooth else "saga",
        max_iter=params["max_iter"] if smooth else params["max_passes"],
        tol=params["tol"],
        random_state=seed,
    )


def _tree(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(random_state=seed, **_only(TREE, params))


def _forest(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(random_state=seed, n_jobs=cores, **_only(_FOREST, params))


def _boosting(params: Mapping[str, Any], seed: int, cores: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed, early_stopping=True, **_only(BOOSTING, params))


def _only(space: Mapping[str, Dimension], params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in space}


def _plot_confusion(axes: Any, truth: NDArray[Any], predictions: Predictions) -> None:
    codes, said, classes = positions(truth, predictions), guesses(predictions), classes_of(predictions)
    k, known = len(classes), codes >= 0
    table = np.bincount(codes[known] * k + said[known], minlength=k * k).reshape(k, k)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if k <= 12:
        for i, j in np.ndindex(k, k):
            ink = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(table[i, j]), ha="center", va="center", color=ink)
    names = [str(c) for c in classes]
    axes.set_xticks(range(k), names, rotation=45, ha="right")
    axes.set_yticks(range(k), names)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion (shade: share of the true class)")


def _plot_calibration(axes: Any, truth: NDArray[Any], predictions: Predictions) -> None:
    codes, proba, classes = positions(truth, predictions), proba_of(predictions), classes_of(predictions)
    for c in [positive(classes)] if len(classes) == 2 else range(min(len(classes), 6)):
        # Bins of equal counts: with a rare class, bins of equal width are mostly empty.
        groups = np.array_split(np.argsort(proba[:, c], kind="stable"), min(10, max(1, len(codes) // 10)))
        said = [float(proba[g, c].mean()) for g in groups]
        came = [float((codes[g] == c).mean()) for g in groups]
        axes.plot(said, came, marker="o", markersize=4, label=str(classes[c]))
    axes.plot([0, 1], [0, 1], color="black", linewidth=1)
    axes.legend()
    axes.set(xlabel="predicted probability", ylabel="share that came true", title="Calibration")


_CANDIDATES = (
    Candidate("dummy", {"strategy": Choice(("prior",), "prior")}, False, None, _dummy),
    Candidate(
        "linear",
        # l1_ratio 0 is L2, 1 is L1, between them lies the elastic net; C is the inverse of the penalty's strength.
        {
            "C": Float(1e-4, 100.0, 1.0, log=True),
            "l1_ratio": Choice((0.0, 0.5, 1.0), 0.0),
            "max_iter": Int(10, 100_000, 300, tuned=False),
            "max_passes": Int(5, 10_000, 50, tuned=False),
            "tol": Float(1e-8, 0.1, 1e-3, log=True, tuned=False),
        },
        True,
        "C",
        _logistic,
    ),
    Candidate("tree", TREE, False, "max_depth", _tree),
    Candidate("forest", _FOREST, False, "max_depth", _forest),
    Candidate("boosting", BOOSTING, False, "max_leaf_nodes", _boosting),
)

KIND = Kind(
    name="classification",
    continuous=False,
    metrics={
        m.name: m
        for m in (
            Metric("log_loss", False, log_loss),
            Metric("roc_auc", True, roc_auc),
            Metric("average_precision", True, average_precision),
            Metric("f1", True, f1, calls=True),
            Metric("accuracy", True, accuracy, calls=True),
            Metric("precision", True, precision, calls=True),
            Metric("recall", True, recall, calls=True),
        )
    },
    candidates={c.name: c for c in _CANDIDATES},
    truth=truth,
    predict=predict,
    loss=loss,
    loss_name=loss_name,
    log_target=log_target,
    plots={"confusion": _plot_confusion, "calibration": _plot_calibration},
)
