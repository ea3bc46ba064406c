"""Metrics of predicted classes, their additive loss, and which of two classes is the positive one. Fits and draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.tasks.problems import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # (weight of a class's rows, of the others, by rising probability with ties added up) -> score
    Ranking = Callable[[NDArray[Any], NDArray[Any]], float]

# A probability below this counts as this: one impossible row costs 34.5, not infinity.
CLIP = 1e-15
# What people call the class they look for; of two classes of other names it is the later one in sorted order,
# as in scikit-learn. It must not depend on the rows: a resampled half could otherwise swap precision's meaning.
_POSITIVE = {"1", "true", "yes", "y", "t", "positive", "pos"}


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
    """Which of two classes (2,) precision, recall, F1 and the ranking metrics look for: the index of 1, true, yes, ..., else 1."""
    found = [i for i, c in enumerate(classes) if str(c).strip().lower() in _POSITIVE]
    return found[0] if len(found) == 1 else 1


def accuracy(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Share of rows whose class is predicted."""
    return float(np.average(positions(truth, predictions) == guesses(predictions), weights=weights))


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
    kept = [(auc, share) for auc, share in _ranked(_auc, truth, predictions, weights) if not math.isnan(auc)]
    return float(np.average([a for a, _ in kept], weights=[s for _, s in kept])) if kept else float("nan")


def average_precision(truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None) -> float:
    """Mean precision over the positive rows, each called with all that rank as high (area under the steps of precision
    over recall; Davis and Goadrich, ICML 2006). Guessing gets the share of positive rows.

    More than two classes: each against the rest, mean over those that are present; NaN if none is.
    """
    kept = [ap for ap, _ in _ranked(_average_precision, truth, predictions, weights) if not math.isnan(ap)]
    return float(np.mean(kept)) if kept else float("nan")


def loss(truth: NDArray[Any], predictions: Predictions, headline: str) -> NDArray[Any]:
    """Log loss per row (n,), whatever the headline: the additive one among them. A class never seen in training costs
    as much as an impossible one, -log(CLIP)."""
    codes, proba = positions(truth, predictions), proba_of(predictions)
    given = np.where(codes >= 0, proba[np.arange(len(codes)), codes], 0.0)
    return np.asarray(-np.log(np.clip(given, CLIP, 1.0)))


def loss_name(headline: str) -> str:
    """What loss() returns, in words."""
    return "log loss"


def classes_of(predictions: Predictions) -> NDArray[Any]:
    """The classes (k,) of predictions that have some."""
    return np.asarray(predictions.classes)


def proba_of(predictions: Predictions) -> NDArray[Any]:
    """Their probabilities (n, k)."""
    return np.asarray(predictions.proba)


def guesses(predictions: Predictions) -> NDArray[Any]:
    """The called classes as positions (n,)."""
    return positions(predictions.value, predictions)


def positions(labels: NDArray[Any], predictions: Predictions) -> NDArray[Any]:
    """Labels as positions in the sorted classes; -1 for a class that training had not."""
    classes, values = classes_of(predictions), truth(labels)
    if classes.dtype.kind != values.dtype.kind:
        classes, values = classes.astype(str), values.astype(str)
    order = np.argsort(classes, kind="stable")
    at = np.clip(np.searchsorted(classes[order], values), 0, len(classes) - 1)
    return np.where(classes[order][at] == values, order[at], -1)


def _counts(
    truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Per class: rows called right, rows called so, rows that are so."""
    codes, said, k = positions(truth, predictions), guesses(predictions), proba_of(predictions).shape[1]
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    right, known = codes == said, codes >= 0
    return (
        np.bincount(codes[right], rows[right], k),
        np.bincount(said, rows, k),
        np.bincount(codes[known], rows[known], k),
    )


def _mean_ratio(over: NDArray[Any], under: NDArray[Any], predictions: Predictions) -> float:
    ratios = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return float(ratios[positive(classes_of(predictions))] if len(ratios) == 2 else ratios.mean())


def _ranked(
    score: Ranking, truth: NDArray[Any], predictions: Predictions, weights: NDArray[Any] | None
) -> list[tuple[float, float]]:
    """(score, rows of the class) of the positive class, or of each class against the rest; `score` is given the weight
    of its rows and of the others by rising probability, ties added up."""
    codes, proba = positions(truth, predictions), proba_of(predictions)
    rows = np.ones(len(codes)) if weights is None else np.asarray(weights, dtype="float64")
    k, found = proba.shape[1], []
    for c in [positive(classes_of(predictions))] if k == 2 else range(k):
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
