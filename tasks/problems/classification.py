"""Classification: predicting one of k classes. Owns its metrics, candidates, loss and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.problems import Candidate, Choice, Dimension, Float, Int, Kind, Metric, Predictions
from tasks.problems.spaces import BOOSTING, FOREST, TREE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A probability below this counts as this: one impossible row costs 34.5, not infinity.
CLIP = 1e-15
# What people call the class they look for; of two classes of other names it is the later one in sorted order,
# as in scikit-learn. It must not depend on the rows: a resampled half could otherwise swap precision's meaning.
_POSITIVE = {"1", "true", "yes", "y", "t", "positive", "pos"}

_FOREST: dict[str, Dimension] = {
    **FOREST,
    # A leaf of one row says 0 or 1, which log loss punishes hard when wrong.
    "min_samples_leaf": Int(1, 100, 3, log=True),
    "max_features": Float(0.05, 1.0, 0.3),
}


def truth(target: Any) -> NDArray[Any]:
    """Target column (n,) as labels: bool, int64 (whole floats too: a missing label turns ints into floats) or str."""
    values = np.asarray(target)
    if values.dtype == bool or (values.dtype == object and all(isinstance(v, bool | np.bool_) for v in values)):
        return values.astype(bool)
    if values.dtype.kind in "iu":
        return values.astype("int64")
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        return values.astype("int64")
    return values.astype(str)


def positive(classes: NDArray[Any]) -> int:
    """Which of two classes (2,) precision, recall, F1 and ROC-AUC look for: the index of 1, true, yes, ..., else 1."""
    found = [i for i, c in enumerate(classes) if str(c).strip().lower() in _POSITIVE]
    return found[0] if len(found) == 1 else 1


def predict(model: Any, X: Any) -> Predictions:
    """The likeliest class per row (n,), with the probabilities (n, k) of the classes in training, sorted."""
    proba, classes = model.predict_proba(X), model.classes_
    return Predictions(classes[proba.argmax(axis=1)], proba, classes)


def accuracy(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of rows whose class is predicted."""
    return float(np.average(_codes(truth, predictions) == _guesses(predictions), weights=weights))


def precision(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of the rows called positive that are; 0 if none is called so. More than two classes: mean over classes."""
    hits, called, _ = _counts(truth, predictions, weights)
    return _mean_ratio(hits, called, predictions)


def recall(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of the positive rows that are called so; 0 if there is none. More than two classes: mean over classes."""
    hits, _, there = _counts(truth, predictions, weights)
    return _mean_ratio(hits, there, predictions)


def f1(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Harmonic mean of precision and recall. More than two classes: mean over classes."""
    hits, called, there = _counts(truth, predictions, weights)
    return _mean_ratio(2 * hits, called + there, predictions)


def log_loss(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Mean negative logarithm of the probability given to the true class, in nats, clipped at CLIP."""
    return float(np.average(loss(truth, predictions, "log_loss"), weights=weights))


def roc_auc(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Chance that a positive row ranks above a negative one, ties half (Hanley and McNeil, Radiology 1982).

    More than two classes: each against the rest, averaged by their share of rows. A class that is absent here or makes
    up every row has no ROC and is left out; NaN if none is left.
    """
    codes, proba = _codes(truth, predictions), _proba(predictions)
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    k = proba.shape[1]
    looked_for = [positive(_classes(predictions))] if k == 2 else list(range(k))
    found = [(_auc(codes == c, proba[:, c], rows), rows[codes == c].sum()) for c in looked_for]
    kept = [(auc, share) for auc, share in found if not math.isnan(auc)]
    return float(np.average([a for a, _ in kept], weights=[s for _, s in kept])) if kept else float("nan")


def loss(truth: NDArray[Any], predictions: Predictions, headline: str) -> NDArray[Any]:
    """Log loss per row (n,), whatever the headline: the additive one of the six. A class never seen in training costs
    as much as an impossible one, -log(CLIP)."""
    codes, proba = _codes(truth, predictions), _proba(predictions)
    given = np.where(codes >= 0, proba[np.arange(len(codes)), codes], 0.0)
    return np.asarray(-np.log(np.clip(given, CLIP, 1.0)))


def loss_name(headline: str) -> str:
    """What loss() returns, in words."""
    return "log loss"


def log_target(truth: NDArray[Any]) -> bool:
    """A class has no logarithm."""
    return False


def _classes(predictions: Predictions) -> NDArray[Any]:
    return np.asarray(predictions.classes)


def _proba(predictions: Predictions) -> NDArray[Any]:
    return np.asarray(predictions.proba)


def _guesses(predictions: Predictions) -> NDArray[Any]:
    return np.asarray(_proba(predictions).argmax(axis=1))


def _codes(labels: NDArray[Any], predictions: Predictions) -> NDArray[Any]:
    """Labels as positions in the sorted classes; -1 for a class that training had not."""
    classes, values = _classes(predictions), truth(labels)
    if classes.dtype.kind != values.dtype.kind:
        classes, values = classes.astype(str), values.astype(str)
    order = np.argsort(classes, kind="stable")
    at = np.clip(np.searchsorted(classes[order], values), 0, len(classes) - 1)
    return np.where(classes[order][at] == values, order[at], -1)


def _counts(
    truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Per class: rows called right, rows called so, rows that are so."""
    codes, guesses, k = _codes(truth, predictions), _guesses(predictions), _proba(predictions).shape[1]
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    right, known = codes == guesses, codes >= 0
    return (
        np.bincount(codes[right], rows[right], k),
        np.bincount(guesses, rows, k),
        np.bincount(codes[known], rows[known], k),
    )


def _mean_ratio(over: NDArray[Any], under: NDArray[Any], predictions: Predictions) -> float:
    ratios = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return float(ratios[positive(_classes(predictions))] if len(ratios) == 2 else ratios.mean())


def _auc(is_it: NDArray[Any], score: NDArray[Any], rows: NDArray[Any]) -> float:
    order = np.argsort(score, kind="stable")
    ranked, there = score[order], (is_it * rows)[order]
    rest = rows[order] - there
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    there_by, rest_by = (np.diff(np.append(0.0, np.cumsum(w)[ends])) for w in (there, rest))
    pairs = there_by.sum() * rest_by.sum()
    below = np.cumsum(rest_by) - rest_by
    return float((there_by * (below + rest_by / 2)).sum() / pairs) if pairs > 0 else float("nan")


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
    codes, guesses, classes = _codes(truth, predictions), _guesses(predictions), _classes(predictions)
    k, known = len(classes), codes >= 0
    table = np.bincount(codes[known] * k + guesses[known], minlength=k * k).reshape(k, k)
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
    codes, proba, classes = _codes(truth, predictions), _proba(predictions), _classes(predictions)
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
            Metric("f1", True, f1),
            Metric("accuracy", True, accuracy),
            Metric("precision", True, precision),
            Metric("recall", True, recall),
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
