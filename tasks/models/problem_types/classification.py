"""Classification: predicting one of k classes.

Metrics, additive loss, the positive class, the decision threshold of two classes, and the candidate models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from windvane.tasks.ingest.text_parsing import fold_spelling
from windvane.tasks.models.problem_types.class_labels import convert_to_target_classes, find_positive_class
from windvane.tasks.models.problem_types.definitions import (
    BOOSTING_SPACE,
    FOREST_SPACE,
    TREE_SPACE,
    CandidateModel,
    ChoiceSet,
    ClassLabel,
    FloatRange,
    Hyperparameter,
    IntRange,
    Metric,
    Predictions,
    ProblemType,
    build_with,
)

# (weight of a class's rows, of the others, by rising probability with ties added up) -> score
Ranking = Callable[[NDArray[Any], NDArray[Any]], float]
# A probability below this counts as this: one impossible row costs 34.5, not infinity.
MIN_PROBABILITY = 1e-15


def accuracy(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of rows whose class is predicted."""
    right = encode_labels(truth, predictions) == encode_labels(predictions.value, predictions)
    return float(np.average(right, weights=weights))


def precision(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of the rows called positive that are; 0 if none is called so. More than two classes: mean over classes."""
    hits, called, _ = _count_confusion(truth, predictions, weights)
    return _mean_ratio(hits, called, predictions)


def recall(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of the positive rows that are called so; 0 if there is none. More than two classes: mean over classes."""
    hits, _, there = _count_confusion(truth, predictions, weights)
    return _mean_ratio(hits, there, predictions)


def f1(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Harmonic mean of precision and recall. More than two classes: mean over classes."""
    hits, called, there = _count_confusion(truth, predictions, weights)
    return _mean_ratio(2 * hits, called + there, predictions)


def log_loss(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Mean negative logarithm of the probability given to the true class, in nats, clipped at MIN_PROBABILITY."""
    return float(np.average(compute_class_loss(truth, predictions, "log_loss"), weights=weights))


def roc_auc(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Chance that a positive row ranks above a negative one, ties half (Hanley and McNeil, Radiology 1982).

    More than two classes: each against the rest, averaged by their share of rows. A class that is absent here or makes
    up every row has no ROC and is left out; NaN if none is left.
    """
    kept = [(auc, share) for auc, share in _score_rankings(_auc, truth, predictions, weights) if not math.isnan(auc)]
    return float(np.average([a for a, _ in kept], weights=[s for _, s in kept])) if kept else float("nan")


def average_precision(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Mean precision over the positive rows, each called with all that rank as high (area under the steps of precision
    over recall; Davis and Goadrich, ICML 2006). Guessing gets the share of positive rows.

    More than two classes: each against the rest, mean over those that are present; NaN if none is.
    """
    kept = [ap for ap, _ in _score_rankings(_average_precision, truth, predictions, weights) if not math.isnan(ap)]
    return float(np.mean(kept)) if kept else float("nan")


def compute_class_loss(truth: NDArray[Any], predictions: Predictions, headline: str) -> NDArray[Any]:
    """Log loss per row (n,), whatever the headline: the additive one among them. A class never seen in training costs
    as much as an impossible one, -log(MIN_PROBABILITY)."""
    codes, proba = encode_labels(truth, predictions), np.asarray(predictions.proba)
    given = np.where(codes >= 0, proba[np.arange(len(codes)), codes], 0.0)
    return np.asarray(-np.log(np.clip(given, MIN_PROBABILITY, 1.0)))


def encode_labels(labels: NDArray[Any], predictions: Predictions) -> NDArray[Any]:
    """Labels as positions in the sorted classes; -1 for a class that training had not. A label in another case is its class's,
    as ingest merges them, where only one class is spelled so.
    """
    classes, values = np.asarray(predictions.classes), convert_to_target_classes(labels)
    if classes.dtype.kind != values.dtype.kind:
        classes, values = classes.astype(str), values.astype(str)
    order = np.argsort(classes, kind="stable")
    at = np.clip(np.searchsorted(classes[order], values), 0, len(classes) - 1)
    codes = np.where(classes[order][at] == values, order[at], -1)
    if values.dtype.kind == "U" and (codes < 0).any():
        folded = [fold_spelling(c) for c in classes.tolist()]
        places = {fold: i for i, fold in enumerate(folded) if folded.count(fold) == 1}
        unknown = codes < 0
        codes[unknown] = [places.get(fold_spelling(value), -1) for value in values[unknown].tolist()]
    return codes


def _count_confusion(
    truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Per class: rows called right, rows called so, rows that are so."""
    codes, predicted = (encode_labels(labels, predictions) for labels in (truth, predictions.value))
    k = np.asarray(predictions.proba).shape[1]
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    right, known = codes == predicted, codes >= 0
    return (
        np.bincount(codes[right], rows[right], k),
        np.bincount(predicted, rows, k),
        np.bincount(codes[known], rows[known], k),
    )


def _mean_ratio(over: NDArray[Any], under: NDArray[Any], predictions: Predictions) -> float:
    ratios = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return float(
        ratios[find_positive_class(np.asarray(predictions.classes), predictions.positive)]
        if len(ratios) == 2
        else ratios.mean()
    )


def _score_rankings(
    score: Ranking, truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None
) -> list[tuple[float, float]]:
    """(score, rows of the class) of the positive class, or of each class against the rest; `score` is given the weight
    of its rows and of the others by rising probability, ties added up."""
    codes, proba = encode_labels(truth, predictions), np.asarray(predictions.proba)
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    k, found = proba.shape[1], []
    for c in [find_positive_class(np.asarray(predictions.classes), predictions.positive)] if k == 2 else range(k):
        order = np.argsort(proba[:, c], kind="stable")
        there = ((codes == c) * rows)[order]
        ends = np.append(np.flatnonzero(np.diff(proba[order, c])), len(order) - 1)
        there_by, rest_by = (np.diff(np.append(0.0, np.cumsum(w)[ends])) for w in (there, rows[order] - there))
        found.append((score(there_by, rest_by), float(there.sum())))
    return found


def _auc(there: NDArray[Any], rest: NDArray[Any]) -> float:
    pairs = there.sum() * rest.sum()
    below = np.cumsum(rest) - rest
    return float((there * (below + rest / 2)).sum() / pairs) if pairs > 0 else float("nan")


def _average_precision(there: NDArray[Any], rest: NDArray[Any]) -> float:
    if not there.sum() > 0:
        return float("nan")
    hits, called = np.cumsum(there[::-1]), np.cumsum((there + rest)[::-1])
    precision = np.divide(hits, called, out=np.zeros(len(hits)), where=called > 0)
    return float((there[::-1] * precision).sum() / there.sum())


# Every training row is predicted once by a model that has not seen it. More folds cost a fit each and move the
# threshold little: what it hangs on is the number of rare rows, which stays the same.
THRESHOLD_FOLDS = 3


def split_threshold_folds(
    truth: NDArray[Any], group: pd.Series | None, seed: int
) -> list[tuple[NDArray[Any], NDArray[Any]]] | None:
    """Row positions (fit, held out) over the training rows: shares of classes kept, groups whole.

    None where a class, or the rows of a class, are too few to be in both splits.
    """
    classes, counts = np.unique(truth, return_counts=True)
    if len(classes) < 2 or counts.min() < THRESHOLD_FOLDS:
        return None
    groups = None if group is None else group.factorize(use_na_sentinel=False)[0]
    if groups is not None and groups.max() + 1 < THRESHOLD_FOLDS:
        return None
    splitter: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
    found = list(splitter(THRESHOLD_FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(truth)), truth, groups))
    return found if all(len(np.unique(truth[fit])) == len(classes) for fit, _ in found) else None


def find_best_threshold(is_it: NDArray[np.bool_], score: NDArray[Any], metric: str, counts: NDArray[Any]) -> float:
    """The threshold with the highest `metric` (f1, accuracy) on rows (n,) of which `score` is the probability, and which count
    so much each.

    Every cut between two different scores is tried, the strictest first among equals; half-way between the two.
    """
    order = np.argsort(-score, kind="stable")
    ranked, hits, called = score[order], np.cumsum((counts * is_it)[order]), np.cumsum(counts[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits, called, there = np.append(0, hits[ends]), np.append(0, called[ends]), float(hits[-1])
    value = 2 * hits / (called + there) if metric == "f1" else hits - there - (called - hits)
    at = int(np.argmax(value))
    if at == 0:
        return float(np.nextafter(ranked[0], 2.0))
    after = ends[at - 1] + 1
    return float((ranked[after - 1] + ranked[after]) / 2) if after < len(ranked) else float(ranked[-1])


def tune_threshold(
    pipeline: Any,
    held: NDArray[Any],
    truth: NDArray[Any],
    metric: str | None,
    counts: NDArray[Any],
    positive: ClassLabel | None = None,
) -> Any:
    """The fitted pipeline, calling the positive class by the threshold best for `metric` on probabilities (n, k) of rows that fits had not
    seen, counting so much each (n,); as it is without a metric or with more than two classes. Its probabilities stay."""
    (*before, (name, model)), classes = pipeline.steps, pipeline.classes_
    if metric is None or len(classes) != 2:
        return pipeline
    at = find_positive_class(classes, positive)
    called = FixedThresholdClassifier(
        FrozenEstimator(model),
        threshold=find_best_threshold(truth == classes[at], held[:, at], metric, counts),
        pos_label=classes[at].item(),
        response_method="predict_proba",
    )
    # A frozen estimator learns nothing here: two rows only set the classes.
    return Pipeline([*before, (name, called.fit(np.zeros((2, 1)), classes))])


def get_threshold(model: Any) -> float | None:
    """The threshold that a fitted pipeline calls by; None: it calls the likeliest class."""
    found = getattr(_last_step(model), "threshold", None)
    return float(found) if isinstance(found, int | float) else None


def _last_step(model: Any) -> Any:
    return model.steps[-1][1] if hasattr(model, "steps") else model


def predict_from_probabilities(
    proba: NDArray[Any], classes: NDArray[Any], positive: int, threshold: float | None
) -> NDArray[Any]:
    """Classes (n,) that probabilities (n, k) call: by `threshold` for the class at `positive`, None: the likeliest."""
    if threshold is None:
        return np.asarray(classes[proba.argmax(axis=1)])
    return np.asarray(classes[np.where(proba[:, positive] >= threshold, positive, 1 - positive)])


_DUMMY_SPACE: dict[str, Hyperparameter] = {"strategy": ChoiceSet(("prior",), "prior")}
_CLASS_FOREST_SPACE: dict[str, Hyperparameter] = {
    **FOREST_SPACE,
    # A leaf of one row gives 0 or 1: log loss punishes it hard when wrong.
    "min_samples_leaf": IntRange(1, 100, 3, log=True),
    "max_features": FloatRange(0.05, 1.0, 0.3),
}


def predict_classes(model: Any, X: Any, positive: ClassLabel | None = None) -> Predictions:
    """The class called per row (n,), with the probabilities (n, k) of the classes in training, sorted.

    Called is the likeliest class, or of two the one that the model's own threshold is of, from there on (`get_threshold`).
    """
    return call_classes(model, model.predict_proba(X), positive)


def call_classes(model: Any, proba: NDArray[Any], positive: ClassLabel | None = None) -> Predictions:
    """Predictions of a fitted pipeline from probabilities (n, k) as it would give them."""
    classes, threshold = model.classes_, get_threshold(model)
    at = 0 if threshold is None else find_positive_class(classes, _last_step(model).pos_label)
    return Predictions(predict_from_probabilities(proba, classes, at, threshold), proba, classes, positive)


def _logistic(params: Mapping[str, Any], seed: int, cores: int) -> Any:
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


_build_tree = build_with(DecisionTreeClassifier, TREE_SPACE)
_build_forest = build_with(RandomForestClassifier, _CLASS_FOREST_SPACE, threads=True)
_build_boosting = build_with(HistGradientBoostingClassifier, BOOSTING_SPACE, early_stopping=True)
_CANDIDATES = (
    CandidateModel("dummy", _DUMMY_SPACE, False, None, build_with(DummyClassifier, _DUMMY_SPACE)),
    CandidateModel(
        "linear",
        # l1_ratio 0 is L2, 1 is L1, between them lies the elastic net; C is the inverse of the penalty's strength.
        {
            "C": FloatRange(1e-4, 100.0, 1.0, log=True),
            "l1_ratio": ChoiceSet((0.0, 0.5, 1.0), 0.0),
            "max_iter": IntRange(10, 100_000, 300, tuned=False),
            "max_passes": IntRange(5, 10_000, 50, tuned=False),
            "tol": FloatRange(1e-8, 0.1, 1e-3, log=True, tuned=False),
        },
        True,
        "C",
        _logistic,
    ),
    CandidateModel("tree", TREE_SPACE, False, "max_depth", _build_tree),
    CandidateModel("forest", _CLASS_FOREST_SPACE, False, "max_depth", _build_forest),
    CandidateModel("boosting", BOOSTING_SPACE, False, "max_leaf_nodes", _build_boosting),
)

PROBLEM_TYPE = ProblemType(
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
    truth=convert_to_target_classes,
    predict=predict_classes,
    loss=compute_class_loss,
    loss_name=lambda _: "log loss",
)
