"""A candidate of a user's own, in a file beside params.yaml, and a small table for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from windvane.tasks.models import own_code
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelTask
from windvane.tasks.settings import project_params
from windvane.tasks.settings.project_params import Settings

RIDGE = """import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Mine(RegressorMixin, BaseEstimator):
    search_space = {"alpha": {"low": 0.01, "high": 10.0, "log": True}}

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self, X, y):
        self.mean_ = y.mean()
        self.coef_ = np.linalg.solve(X.T @ X + self.alpha * np.eye(X.shape[1]), X.T @ (y - self.mean_))
        return self

    def predict(self, X):
        return np.array([row @ self.coef_ + self.mean_ for row in X])
"""
CLASSES = """import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Mine(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.array([X[y == c].mean(axis=0) for c in self.classes_])
        return self

    def predict_proba(self, X):
        near = np.exp(-((X[:, None] - self.means_) ** 2).sum(axis=2)) + 1e-9
        return near / near.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
"""
METRICS = """import numpy as np


def profit(y_true, y_pred, sample_weight=None):
    return np.average(100 - 3 * np.abs(y_true - y_pred), weights=sample_weight)


def middle(y_true, y_pred):
    return np.median(np.abs(y_true - y_pred))


def loss(y_true, y_pred):
    return np.where(y_pred > y_true, 3.0, 1.0) * np.abs(y_true - y_pred)


def gain(y_true, probabilities):
    return (np.where(y_true == "high", 5.0, -1.0) * (probabilities["high"] > 0.2)).mean()


def class_loss(y_true, probabilities):
    return np.where(y_true == "high", 5.0 * probabilities["low"], probabilities["high"])
"""
FEATURES = """import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin


class Means(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.centre_ = X["a"].mean()
        return self

    def transform(self, X):
        return X.assign(square=(X["a"] - self.centre_) ** 2, both=X["c"] + "!")


class Numbers(Means):
    def transform(self, X):
        return np.column_stack([X["a"] - self.centre_, X["c"] == "x"])


def build():
    return Means()


def numbers():
    return Numbers()


def by_row(frame):
    return frame.assign(square=frame["a"] ** 2)
"""
COLUMNS = FeatureColumns(numbers=("a",), low=("c",))


def make_own_table(rows: int = 300, kind: str = "regression") -> pd.DataFrame:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=rows), "c": draw.choice(["x", "y"], rows)})
    frame["y"] = 10 + frame.a * 2 + (frame.c == "x") + draw.normal(size=rows) / 10
    if kind == "classification":
        frame["y"] = np.where(frame["y"] > 10, "high", "low")
    return frame


def read_own_settings(
    folder: Path, text: str = RIDGE, kind: str = "regression", name: str = "models.py:Mine", **search: Any
) -> Settings:
    """Settings of a project in `folder` whose models.py holds `text`."""
    (folder / "models.py").write_text(text, encoding="utf-8")
    content = {
        "project": "own",
        "problem": {"kind": kind, "target": "y"},
        "data": {"source": "table.csv"},
        "search": {"candidates": [name], **search},
    }
    return project_params.parse_settings(content, folder / "params.yaml")


def read_measured_settings(
    folder: Path, text: str = METRICS, kind: str = "regression", features: str | None = None, **problem: Any
) -> Settings:
    """Settings of a project in `folder` with Windvane's linear model, whose metrics.py (with `features` features.py) holds `text`."""
    (folder / ("metrics.py" if features is None else "features.py")).write_text(text, encoding="utf-8")
    whole = {
        "project": "own",
        "problem": {"kind": kind, "target": "y", **problem},
        "data": {"source": "table.csv"},
        "features": features,
        "search": {"candidates": ["linear"], "trials": 2},
    }
    return project_params.parse_settings(whole, folder / "params.yaml")


def make_own_task(settings: Settings) -> ModelTask:
    return ModelTask(settings, own_code.load_project_problem_type(settings), COLUMNS, 1)
