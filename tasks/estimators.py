"""A configuration -> a pipeline, fitted or not. Owns how features, logarithm and model join."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from tasks.errors import InputError
from tasks.features import Columns, conform, transformer
from tasks.problems import Kind, Value

if TYPE_CHECKING:
    import pandas as pd

# What skops does not trust by itself and our pipelines hold; whoever loads a model trusts these and nothing else.
TRUSTED: tuple[str, ...] = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.model_selection._split.KFold",
    "sklearn.tree._tree.Tree",
    "tasks.features.DateParts",
)


@dataclass(frozen=True)
class Spec:
    """A configuration: a candidate's name and all its hyperparameters."""

    candidate: str
    params: dict[str, Value]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the ledger and MLflow."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Spec:
        """The configuration that to_json wrote."""
        return cls(content["candidate"], dict(content["params"]))


def build(spec: Spec, kind: Kind, columns: Columns, seed: int, cores: int) -> Any:
    """Unfitted Pipeline(features, model); the model learns the logarithm of the target if `log_target` says so.

    `cores` bounds the threads of forests here, of all else in fit(). Raises InputError on an unknown candidate.
    """
    import numpy as np
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    candidate = kind.candidates.get(spec.candidate)
    if candidate is None:
        known = ", ".join(kind.candidates)
        raise InputError(f"search.candidates: {spec.candidate!r} is not known to {kind.name}. Choose from {known}")
    params = {**candidate.defaults, **spec.params}
    model = candidate.build(params, seed, cores)
    if params.get("log_target"):
        # Numpy's own functions, because skops stores them by name.
        model = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp, check_inverse=False)
    features = transformer(columns, scaled=candidate.scaled, continuous=kind.continuous, seed=seed)
    return Pipeline([("features", features), ("model", model)])


def fit(spec: Spec, kind: Kind, columns: Columns, frame: pd.DataFrame, target: str, seed: int, cores: int) -> Any:
    """The pipeline fitted on every row of `frame`: it holds the columns and the target, which is nowhere missing.

    Same arguments, same pipeline, whatever `cores`: at most so many threads. Columns without a value in these rows are
    not learned from. Convergence warnings are not shown: unsettled() tells.
    """
    from sklearn.exceptions import ConvergenceWarning

    inputs = conform(frame, columns, "training rows")
    truth = kind.truth(frame[target])
    pipeline = build(spec, kind, columns.filled(inputs), seed, cores)
    _settle(pipeline, truth)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(inputs, truth)
    model = _innermost(pipeline)
    if "n_jobs" in model.get_params(deep=False):
        # Threads add up a forest's trees in the order in which they come; one thread gives the same sum each time.
        model.set_params(n_jobs=None)
    return pipeline


def one_thread() -> AbstractContextManager[Any]:
    """A context in which OpenMP and BLAS use one thread: a forest's trees share the cores, boosting uses one.

    The threads of a boosting stage wait for each other in a spin, which beside any neighbour costs many times what they
    bring (docs/decisions.md has the figures).
    """
    from threadpoolctl import threadpool_limits

    return cast("AbstractContextManager[Any]", threadpool_limits(limits=1))


def unsettled(pipeline: Any) -> str | None:
    """A note for people if a linear model used up its iterations before it settled, else None."""
    import numpy as np

    model = _innermost(pipeline)
    limit, used = getattr(model, "max_iter", None), getattr(model, "n_iter_", None)
    if limit is None or used is None or hasattr(model, "n_trees_per_iteration_") or np.max(used) < limit:
        return None
    return f"stopped after {limit} iterations before it settled; its scores are those of an early stop"


def _innermost(pipeline: Any) -> Any:
    model = pipeline.named_steps["model"]
    while hasattr(model, "regressor"):
        model = getattr(model, "regressor_", model.regressor)
    return model


def _settle(pipeline: Any, truth: Any) -> None:
    """Adjust what scikit-learn refuses for these rows: more rows per tree than there are, and a stratified side for
    early stopping where a class has too few rows for it."""
    import numpy as np

    model = _innermost(pipeline)
    params = model.get_params(deep=False)
    if params.get("max_samples") is not None and params["max_samples"] >= len(truth):
        model.set_params(max_samples=None)
    if params.get("early_stopping") and hasattr(model, "predict_proba"):
        counts = np.unique(truth, return_counts=True)[1]
        if counts.min() < 2 or len(truth) * params["validation_fraction"] < len(counts):
            model.set_params(early_stopping=False)
