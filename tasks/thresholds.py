"""From which probability on a row is called positive. Owns the choice between two classes; fits nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Every training row is predicted once by a model that has not seen it. More folds cost a fit each and move the
# threshold little: what it hangs on is the number of rare rows, which stays the same.
FOLDS = 3


def folds(truth: NDArray[Any], group: pd.Series | None, seed: int) -> list[tuple[NDArray[Any], NDArray[Any]]] | None:
    """Row positions (fit, held out) over the training rows: shares of classes kept, groups whole.

    None where a class, or the rows of a class, are too few to stand on both sides.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    classes, counts = np.unique(truth, return_counts=True)
    if len(classes) < 2 or counts.min() < FOLDS:
        return None
    groups = None if group is None else group.factorize(use_na_sentinel=False)[0]
    if groups is not None and groups.max() + 1 < FOLDS:
        return None
    splitter: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
    found = list(splitter(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(truth)), truth, groups))
    return found if all(len(np.unique(truth[fit])) == len(classes) for fit, _ in found) else None


def best(is_it: NDArray[np.bool_], score: NDArray[Any], metric: str, counts: NDArray[Any]) -> float:
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


def tuned(pipeline: Any, held: NDArray[Any], truth: NDArray[Any], metric: str | None, counts: NDArray[Any]) -> Any:
    """The fitted pipeline, calling by the threshold best for `metric` on probabilities (n, k) of rows that fits had not
    seen, counting so much each (n,); as it is without a metric or with more than two classes."""
    from windvane.tasks.problems.classification import positive

    classes = pipeline.classes_
    if metric is None or len(classes) != 2:
        return pipeline
    at = positive(classes)
    return fixed(pipeline, best(truth == classes[at], held[:, at], metric, counts), at)


def fixed(pipeline: Any, threshold: float, positive: int) -> Any:
    """The fitted pipeline, calling the class at `positive` from `threshold` on; its probabilities are as before."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import FixedThresholdClassifier
    from sklearn.pipeline import Pipeline

    (*before, (name, model)), classes = pipeline.steps, pipeline.classes_
    called = FixedThresholdClassifier(
        FrozenEstimator(model),
        threshold=threshold,
        pos_label=classes[positive].item(),
        response_method="predict_proba",
    )
    # A frozen estimator learns nothing here: two rows only tell the classes.
    return Pipeline([*before, (name, called.fit(np.zeros((2, 1)), classes))])


def of(model: Any) -> float | None:
    """The threshold that a fitted pipeline calls by; None: it calls the likeliest class."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    found = getattr(last, "threshold", None)
    return float(found) if isinstance(found, int | float) else None


def called(proba: NDArray[Any], classes: NDArray[Any], positive: int, threshold: float | None) -> NDArray[Any]:
    """Classes (n,) that probabilities (n, k) call: by `threshold` for the class at `positive`, None: the likeliest."""
    if threshold is None:
        return np.asarray(classes[proba.argmax(axis=1)])
    return np.asarray(classes[np.where(proba[:, positive] >= threshold, positive, 1 - positive)])
