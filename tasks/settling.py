"""Adjusts an estimator to what scikit-learn refuses for the rows at hand. Owns no hyperparameter's value."""

from __future__ import annotations

from typing import Any


def settle(model: Any, truth: Any) -> None:
    """No more rows per tree than there are in `truth` (n,), and no early stopping where a class has too few rows to
    stand on both sides of it."""
    import numpy as np

    params = model.get_params(deep=False)
    if params.get("max_samples") is not None and params["max_samples"] >= len(truth):
        model.set_params(max_samples=None)
    if params.get("early_stopping") and hasattr(model, "predict_proba"):
        counts = np.unique(truth, return_counts=True)[1]
        if counts.min() < 2 or len(truth) * params["validation_fraction"] < len(counts):
            model.set_params(early_stopping=False)
