"""Two models of one configuration, one taught on all rows and one on the newest: their mean (retrain.history: combined:N).

Forecast combination across estimation windows: Pesaran & Timmermann, Journal of Econometrics 137 (2007); Pesaran & Pick, Journal of
Business & Economic Statistics 29 (2011). All of the past is steady and may be out of date, the newest part of it is neither, and
nobody knows beforehand which counts more. The mean does well without that choice (docs/decisions.md has the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone

from tasks.settling import settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fewer rows teach no model of their own.
LEAST = 20


class _Combined(BaseEstimator):
    """A copy of `estimator` fitted on all rows, and another on the newest. Stands behind the features in a pipeline."""

    def __init__(self, estimator: Any = None):
        self.estimator = estimator

    def fit(self, X: NDArray[Any], y: NDArray[Any], recent: Any = None, sample_weight: Any = None) -> _Combined:
        """recent: (n,) which of the rows (n, inputs) are the newest; where they are all rows, too few, or of one class only,
        they teach no second model.
        """
        every = np.ones(len(y), dtype=bool)
        rows = [every] if recent is None or recent.all() or not self._teach(y[recent]) else [every, recent]
        self.estimators_ = []
        for taught in rows:
            model = clone(self.estimator)
            settle(model, y[taught])
            weights = {} if sample_weight is None else {"sample_weight": sample_weight[taught]}
            self.estimators_.append(model.fit(X[taught], y[taught], **weights))
        return self

    def _teach(self, y: NDArray[Any]) -> bool:
        return len(y) >= LEAST


class CombinedRegressor(RegressorMixin, _Combined):
    """The mean of both predictions."""

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """(n,)."""
        return np.asarray(np.mean([model.predict(X) for model in self.estimators_], axis=0))


class CombinedClassifier(ClassifierMixin, _Combined):
    """The mean of both probabilities: of a class that the newest rows do not hold, half of what all rows say."""

    def fit(
        self, X: NDArray[Any], y: NDArray[Any], recent: Any = None, sample_weight: Any = None
    ) -> CombinedClassifier:
        """See above."""
        self.classes_ = np.unique(y)
        super().fit(X, y, recent, sample_weight)
        return self

    def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
        """(n, k), in the order of classes_."""
        total = np.zeros((len(X), len(self.classes_)))
        for model in self.estimators_:
            total[:, np.searchsorted(self.classes_, model.classes_)] += model.predict_proba(X)
        return np.asarray(total / len(self.estimators_))

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """The likeliest class (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _teach(self, y: NDArray[Any]) -> bool:
        return super()._teach(y) and len(np.unique(y)) > 1
