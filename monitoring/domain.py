"""Which rows look like the window's: a classifier of record against window, each row told by models that have not seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring.inputs import teachable
from windvane.tasks.estimators import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOLDS = 3


def told(
    rows: NDArray[np.float64], window: NDArray[np.bool_], fold: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Chance (n + m,) of each row (n + m, k) to be of the window, from other folds (`fold`: any whole numbers), calibrated on
    them: a classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017) reads its ranks, importance weighting its odds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    share = float(window.mean())
    of_fold = fold % _FOLDS
    logits = np.zeros(len(rows))
    with one_thread():
        for k in range(_FOLDS):
            own = of_fold == k
            if len(np.unique(window[~own])) < 2 or not own.any():
                return np.full(len(rows), share)
            model = HistGradientBoostingClassifier(
                max_iter=30,
                learning_rate=0.1,
                max_leaf_nodes=6,
                min_samples_leaf=20,
                l2_regularization=5.0,
                early_stopping=False,
                random_state=seed,
            )
            logits[own] = model.fit(teachable(rows[~own]), window[~own]).decision_function(rows[own])
    steps = LogisticRegression(C=1e3).fit(logits[:, None], window)
    if steps.coef_[0, 0] <= 0:
        return np.full(len(rows), share)
    return np.asarray(steps.predict_proba(logits[:, None])[:, 1])
