"""The user's own metric and loss: functions of truth and predictions, which the problem type then has beside Windvane's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.tasks.models.own_modules import explain_own_errors, load_own_function
from windvane.tasks.models.problem_types.definitions import (
    ClassLabel,
    Metric,
    OwnCode,
    OwnCodeError,
    Predictions,
    ProblemType,
    load_problem_type,
)
from windvane.tasks.settings.problem_section import ProblemSettings

_WEIGHTS = "sample_weight"


def load_measured_problem_type(problem: ProblemSettings, positive: ClassLabel | None) -> ProblemType:
    """The problem type of params.yaml, of two classes with the `positive` one, with the user's own metric and loss. Runs their code.

    Raises OwnCodeError naming what cannot be imported or is no function.
    """
    kind = load_problem_type(problem.kind, positive)
    if not problem.own_functions:
        return kind
    own, headline, known = [], problem.headline, problem.built_in_metric
    metrics, objectives, loss, loss_name = kind.metrics, kind.objectives, kind.loss, kind.loss_name
    if (name := problem.own_functions.get("metric")) is not None:
        function, code = load_own_function("metric", name, problem.own_sources)
        metrics = {**metrics, headline: _make_metric(headline, bool(problem.greater_is_better), function, code)}
        own.append(code)
    if (name := problem.own_functions.get("loss")) is not None:
        function, code = load_own_function("loss", name, problem.own_sources)
        measure, called = _make_loss(function, code), name.rpartition(":")[2]
        own.append(code)
    else:
        measure, called = None, kind.loss_name(known)
        objectives = {**objectives, **({headline: objectives[known]} if known in objectives else {})}

    def compare(truth: NDArray[Any], made: Predictions, metric: str) -> NDArray[Any]:
        if metric == headline and measure is not None:
            return measure(truth, made)
        return loss(truth, made, known if metric == headline else metric)

    return replace(
        kind,
        metrics=metrics,
        objectives=objectives,
        loss=compare,
        loss_name=lambda metric: called if metric == headline else loss_name(metric),
        own=tuple(own),
    )


def _make_metric(name: str, greater_is_better: bool, function: Callable[..., Any], code: OwnCode) -> Metric:
    weighted = _WEIGHTS in _list_parameters(function)

    def score(truth: NDArray[Any], made: Predictions, weights: NDArray[Any] | None) -> float:
        given = {_WEIGHTS: weights.copy()} if weighted and weights is not None else {}
        with explain_own_errors((code,), "the metric"):
            value = function(*_form_arguments(truth, made), **given)
        if isinstance(value, bool) or not np.isscalar(value) or not isinstance(value, int | float | np.number):
            raise OwnCodeError(
                f"{code.name}: returns {type(value).__name__}, and a metric is one number. Return a float for all rows"
            )
        return float(value) if math.isfinite(value) else float("nan")

    return Metric(name, greater_is_better, score, own=True, weighted=weighted)


def _make_loss(function: Callable[..., Any], code: OwnCode) -> Callable[[NDArray[Any], Predictions], NDArray[Any]]:
    def measure(truth: NDArray[Any], made: Predictions) -> NDArray[Any]:
        if not len(truth):
            return np.empty(0)
        with explain_own_errors((code,), "the loss"):
            found = np.asarray(function(*_form_arguments(truth, made)))
        if found.shape != truth.shape or found.dtype.kind not in "fiub":
            raise OwnCodeError(
                f"{code.name}: the loss of {len(truth)} rows returns {found.shape} of {found.dtype}. Return one number per row"
            )
        found = found.astype(np.float64)
        if not (np.isfinite(found).all() and (found >= 0).all()):
            raise OwnCodeError(
                f"{code.name}: the loss returns NaN, infinity or less than 0. Return a finite number from 0 on for every row"
            )
        return found

    return measure


def _form_arguments(truth: NDArray[Any], made: Predictions) -> tuple[Any, Any]:
    """What the user's function is given, their own to change: of numbers two arrays (n,); of classes the true classes (n,), written as
    the model knows them, and a frame of probabilities with a column for each class.
    """
    if made.proba is None:
        return np.array(truth), np.array(made.value)
    from windvane.tasks.models.problem_types.classification import encode_labels

    classes = np.asarray(made.classes)
    codes = encode_labels(truth, made)
    known = np.where(codes >= 0, classes.astype(object)[codes], np.asarray(truth, dtype=object))
    if classes.dtype.kind in "biuf":
        known = known.astype(classes.dtype)
    return known, pd.DataFrame(np.array(made.proba, dtype=np.float64), columns=classes)


def _list_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return ()
