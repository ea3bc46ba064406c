"""Files of own code with commented examples, as `windvane init --with-code` writes them. None is used before params.yaml names it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from windvane.tasks.io import write_whole

_MODELS = '''"""Models of your own: classes with scikit-learn's interface.

In params.yaml: search.candidates: [linear, models.py:Ridge]. `windvane check` reads the file, `windvane train` tries each class first.
A file is self-contained: it may import installed packages, but no other file of the project. Its text is stored with each version.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class Ridge(RegressorMixin, BaseEstimator):
    """For numbers. Every parameter needs a default; random_state and n_jobs are set where there are such."""

    # What the search tunes; search.spaces in params.yaml replaces it.
    search_space = {"alpha": {"low": 0.01, "high": 100.0, "log": True}}

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self, X, y):
        # X: complete and scaled numbers (rows, inputs). What is learned ends with an underscore.
        self.mean_ = y.mean()
        self.coef_ = np.linalg.solve(X.T @ X + self.alpha * np.eye(X.shape[1]), X.T @ (y - self.mean_))
        return self

    def predict(self, X):
        return X @ self.coef_ + self.mean_


class NearestMean(ClassifierMixin, BaseEstimator):
    """For classes: set classes_ in fit, and add predict_proba."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.array([X[y == name].mean(axis=0) for name in self.classes_])
        return self

    def predict_proba(self, X):
        near = 1 / (1 + ((X[:, None] - self.means_) ** 2).sum(axis=2))
        return near / near.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
'''

_FEATURES = '''"""Features of your own. In params.yaml: features: features.py:build (or features.py:add_columns).

They get the columns that a model may see: numbers as floats, categories as text, dates; NaN where a value is missing. What comes back as a
frame is encoded by Windvane as the table's columns are; an array of numbers takes the place of Windvane's encoding.
"""

from sklearn.base import BaseEstimator, TransformerMixin


class Distances(TransformerMixin, BaseEstimator):
    """Learns from the training rows alone, in every fold and every lap anew."""

    def fit(self, X, y=None):
        self.middles_ = {name: float(X[name].median()) for name in X.select_dtypes("number")}
        return self

    def transform(self, X):
        return X.assign(**{f"{name}_from_middle": (X[name] - middle).abs() for name, middle in self.middles_.items()})


def build():
    """A function without arguments returns an unfitted transformer."""
    return Distances()


def add_columns(frame):
    """A function of one frame needs no fit: each row's columns follow from that row alone."""
    return frame.assign(missing=frame.isna().sum(axis=1))
'''

_METRICS = '''"""A metric and a loss of your own. In params.yaml:

    problem:
      metric: metrics.py:within_a_tenth    # ranks candidates
      greater_is_better: true
      loss: metrics.py:too_low_costs_twice # what the gate and monitoring compare; null: Windvane's

For classes the second argument is a frame of probabilities, with a column for each class.
"""

import numpy as np


def within_a_tenth(y_true, y_pred, sample_weight=None):
    """One finite number for all rows. Weights come only where the function takes sample_weight."""
    near = np.abs(y_true - y_pred) <= 0.1 * np.abs(y_true)
    return np.average(near, weights=sample_weight)


def too_low_costs_twice(y_true, y_pred):
    """One number from 0 on for each row, which depends on that row alone: the mean of it is compared."""
    error = y_pred - y_true
    return np.where(error < 0, -2 * error, error)


def mean_chance(y_true, probabilities):
    """For classes: the mean probability of the class that was true."""
    places = probabilities.columns.get_indexer(y_true)
    given = probabilities.to_numpy()[np.arange(len(y_true)), places]
    return np.where(places >= 0, given, 0.0).mean()


def squared_distance(y_true, probabilities):
    """For classes: the Brier score of each row."""
    true = np.asarray(y_true)[:, None] == probabilities.columns.to_numpy()
    return ((probabilities.to_numpy() - true) ** 2).sum(axis=1)
'''

CODE_EXAMPLES = {"models.py": _MODELS, "features.py": _FEATURES, "metrics.py": _METRICS}


def write_code_examples(root: Path) -> tuple[str, ...]:
    """Write the examples that are not there yet; their names. A file that is there is never touched."""
    written = [name for name in CODE_EXAMPLES if not (root / name).exists()]
    for name in written:
        write_whole(root / name, partial(Path.write_text, data=CODE_EXAMPLES[name], encoding="utf-8"))
    return tuple(written)
