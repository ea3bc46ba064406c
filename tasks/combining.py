"""The mean of two fitted pipelines of one configuration: of all rows, and of the newest (retrain.history: combined:N).

Forecast combination across estimation windows: Pesaran & Timmermann, Journal of Econometrics 137 (2007); Pesaran & Pick, Journal of
Business & Economic Statistics 29 (2011). All of the past is steady and may be out of date, the newest part of it is neither, and
nobody knows beforehand which counts more. The mean does well without that choice (benchmarks/docs/retraining.md has the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

# Fewer rows teach no model of their own.
LEAST = 20


def combined(models: list[Any]) -> Any:
    """One pipeline of fitted ones, which answers with their mean. The first knows all classes."""
    from sklearn.pipeline import Pipeline

    made = CombinedClassifier(models) if hasattr(models[0], "classes_") else CombinedRegressor(models)
    return Pipeline([("features", "passthrough"), ("model", made)])


def teaches(truth: NDArray[Any], continuous: bool) -> bool:
    """Whether rows with these targets (n,) can teach a second model."""
    return len(truth) >= LEAST and (continuous or len(np.unique(truth)) > 1)


class _Combined(BaseEstimator):
    """Of fitted pipelines; learns nothing itself."""

    def __init__(self, models: Any = None):
        self.models = models

    def fit(self, X: Any, y: Any = None) -> _Combined:
        """Nothing: each of them is fitted on rows of its own."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class CombinedRegressor(RegressorMixin, _Combined):
    """The mean of their predictions."""

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """(n,)."""
        return np.asarray(np.mean([model.predict(X) for model in self.models], axis=0))


class CombinedClassifier(ClassifierMixin, _Combined):
    """The mean of their probabilities: of a class that the newest rows do not hold, half of what all rows say."""

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
