"""Tries the user's own code on a few rows before a search: what cannot be stored, gives another value the second time, or breaks on an
empty row ends the lap before a second is spent on it and before anything is registered.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import conform_frame
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.own_features import OwnFeatures
from windvane.tasks.models.own_modules import explain_own_errors
from windvane.tasks.models.problem_types.definitions import CandidateModel, OwnCodeError, Predictions, ProblemType
from windvane.tasks.search import search_plan
from windvane.tasks.stores import model_files

# Enough to fit anything once; few enough for a second or two.
TRIAL_ROWS = 400
TRIAL_ROWS_OF_A_CLASS = 6
_SINGLE_ROWS = 3
# Sums of a batch and of a single row may be added up in another order.
_TOLERANCE = 1e-6


def try_own_code(task: ModelTask, rows: pd.DataFrame) -> None:
    """Try metric, loss and features, and each own candidate of the search at its defaults, on some of these labelled rows. Raises
    OwnCodeError with what is wrong.
    """
    if not any(map(task.problem_type.list_own_code, task.problem_type.candidates)):
        return
    _try_measures(task, _take_rows(task, rows))
    if task.problem_type.features is not None:
        _try_features(task, _take_rows(task, rows))
    for name in search_plan.list_candidates(task.settings, task.problem_type):
        candidate = task.problem_type.candidates[name]
        if candidate.own is not None:
            # Threads of several cores could hide behind luck what one shows, and a few rows need no more.
            _try_candidate(replace(task, cores=1), candidate, _take_rows(task, rows))


def _try_measures(task: ModelTask, rows: pd.DataFrame) -> None:
    kind, problem = task.problem_type, task.settings.problem
    truth = kind.truth(rows[problem.target])
    made, named = _make_up_predictions(kind, truth), problem.own_functions
    if (name := named.get("metric")) is not None:
        score = kind.metrics[problem.headline].score
        weights = np.random.default_rng(0).uniform(0.5, 1.5, len(truth))
        for counts in (None, weights):
            found = [score(truth, made, counts) for _ in range(2)]
            if not np.isfinite(found).all():
                raise OwnCodeError(
                    f"{name}: the metric of {len(truth)} rows is NaN or infinite. Return a finite number"
                )
            if found[0] != found[1]:
                raise OwnCodeError(
                    f"{name}: the metric has another value the second time. Draw nothing by chance in it"
                )
    if (name := named.get("loss")) is not None:
        losses, again = (kind.loss(truth, made, problem.headline) for _ in range(2))
        if not np.array_equal(losses, again):
            raise OwnCodeError(f"{name}: the loss has another value the second time. Draw nothing by chance in it")
        for at in np.linspace(0, len(truth) - 1, _SINGLE_ROWS).astype(int):
            row = slice(at, at + 1)
            alone = kind.loss(truth[row], _take(made, row), problem.headline)
            if not np.allclose(alone, losses[row], rtol=_TOLERANCE):
                raise OwnCodeError(
                    f"{name}: the loss of a single row is another than among others. A row's loss may depend on its own row alone"
                )


def _make_up_predictions(kind: ProblemType, truth: NDArray[Any]) -> Predictions:
    """Predictions (n,) that are neither right nor constant: the next row's truth, of classes with half of the probability."""
    other = np.roll(truth, 1)
    if kind.continuous:
        return Predictions(other)
    classes, codes = np.unique(other, return_inverse=True)
    proba = (np.eye(len(classes))[codes] + 1 / len(classes)) / 2
    return Predictions(other, proba, classes, kind.positive)


def _try_features(task: ModelTask, rows: pd.DataFrame) -> None:
    kind, seed = task.problem_type, task.settings.split.seed
    assert kind.features is not None
    own = tuple(code for code in kind.own if code.role == "features")
    name, inputs = own[0].name, conform_frame(rows, task.columns, "training rows")
    truth = kind.truth(rows[task.settings.problem.target])

    def fit() -> OwnFeatures:
        assert kind.features is not None
        with explain_own_errors(own, "fit"):
            return OwnFeatures(kind.features(), False, kind.continuous, seed).fit(inputs, truth)

    def transform(features: OwnFeatures, frame: pd.DataFrame, doing: str = "transform") -> NDArray[Any]:
        with explain_own_errors(own, doing):
            return features.transform(frame)

    def compare(one: NDArray[Any], other: NDArray[Any], wrong: str) -> None:
        if not (one.shape == other.shape and np.allclose(one, other, _TOLERANCE, _TOLERANCE, equal_nan=True)):
            raise OwnCodeError(f"{name}: {wrong}")

    features = fit()
    found = transform(features, inputs)
    compare(
        found, transform(features, inputs), "gives other features the second time. Draw nothing by chance in transform"
    )
    compare(
        found, transform(fit(), inputs), "two fits on the same rows give other features. Draw all chance from a seed"
    )
    alone = "gives a row other features among others than alone, or in another order. A row's features may depend on its own values alone"
    compare(found[::-1], transform(features, inputs.iloc[::-1]), alone)
    for at in np.linspace(0, len(rows) - 1, _SINGLE_ROWS).astype(int):
        compare(found[[at]], transform(features, inputs.iloc[[at]]), alone)
    transform(features, _make_empty_row(task), "transform of a row without values")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.skops"
        digest = model_files.save_pipeline(features, path, own)
        with explain_own_errors(own, "loading the stored features"):
            stored = model_files.load_pipeline(path, digest, own)
    assert stored is not None
    lost = "gives other features once stored and loaded. Keep all that it has learned in attributes of the object"
    compare(found, transform(stored, inputs, "transform of the stored features"), lost)


def _make_empty_row(task: ModelTask) -> pd.DataFrame:
    return conform_frame(pd.DataFrame({column: [None] for column in task.columns.names}), task.columns, "an empty row")


def _take_rows(task: ModelTask, rows: pd.DataFrame) -> pd.DataFrame:
    """Some rows, evenly, and of each class at least a few."""
    target = task.settings.problem.target
    taken = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), TRIAL_ROWS)).astype(int))
    if not task.problem_type.continuous:
        places = pd.Series(np.arange(len(rows))).groupby(task.problem_type.truth(rows[target]))
        taken = np.union1d(taken, places.head(TRIAL_ROWS_OF_A_CLASS).to_numpy())
    return rows.iloc[taken].reset_index(drop=True)


def _try_candidate(task: ModelTask, candidate: CandidateModel, rows: pd.DataFrame) -> None:
    name = candidate.name
    spec = ModelConfiguration(name, candidate.defaults, ClassBalance(task.settings.search.imbalance))
    inputs = conform_frame(rows, task.columns, "training rows")
    model = model_pipeline.fit_with_settings(task, spec, rows)
    found = _predict(task, candidate, model, inputs)
    if not _is_same(found, _predict(task, candidate, model, inputs)):
        raise OwnCodeError(f"{name}: predicts otherwise the second time. Draw nothing by chance in predict()")
    again = _predict(task, candidate, model_pipeline.fit_with_settings(task, spec, rows), inputs)
    if not _is_same(found, again):
        raise OwnCodeError(
            f"{name}: two fits on the same rows predict otherwise. Draw all chance from a constructor's parameter random_state, which "
            "Windvane sets"
        )
    for at in np.linspace(0, len(rows) - 1, _SINGLE_ROWS).astype(int):
        alone = _predict(task, candidate, model, inputs.iloc[[at]])
        if not _is_same(_take(found, slice(at, at + 1)), alone):
            raise OwnCodeError(
                f"{name}: predicts a single row otherwise than among others. A prediction may depend on its own row alone"
            )
    _predict(task, candidate, model, _make_empty_row(task), "predict of a row without values")
    own = task.problem_type.list_own_code(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        digest = model_files.save_pipeline(model, path, own)
        with explain_own_errors(own, "loading the stored model"):
            stored = model_files.load_pipeline(path, digest, own)
    if not _is_same(found, _predict(task, candidate, stored, inputs, "predict of the stored model")):
        raise OwnCodeError(
            f"{name}: predicts otherwise once stored and loaded. Keep all that it has learned in attributes of the object"
        )


def _predict(
    task: ModelTask, candidate: CandidateModel, model: Any, inputs: pd.DataFrame, doing: str = "predict"
) -> Predictions:
    """Predictions for n rows, of the right shape and finite."""
    with (
        explain_own_errors(task.problem_type.list_own_code(candidate.name), doing),
        model_pipeline.limit_to_one_thread(),
    ):
        found = task.problem_type.predict(model, inputs)
    n, proba = len(inputs), found.proba
    if found.value.shape != (n,):
        raise OwnCodeError(
            f"{candidate.name}: {doing} of {n} rows returns {found.value.shape}, not ({n},). Return one value per row"
        )
    if found.value.dtype.kind == "f" and not np.isfinite(found.value).all():
        raise OwnCodeError(f"{candidate.name}: {doing} returns NaN or infinity. Return a finite number for every row")
    if proba is None:
        return found
    k = len(np.asarray(found.classes))
    if proba.shape != (n, k):
        raise OwnCodeError(
            f"{candidate.name}: predict_proba of {n} rows and {k} classes returns {proba.shape}, not ({n}, {k}). Return a column per class"
        )
    if not (np.isfinite(proba).all() and (proba >= 0).all() and np.allclose(proba.sum(axis=1), 1, atol=_TOLERANCE)):
        raise OwnCodeError(
            f"{candidate.name}: predict_proba returns what are no probabilities. Each row must hold numbers from 0 to 1 that sum to 1"
        )
    return found


def _take(found: Predictions, rows: slice) -> Predictions:
    return replace(found, value=found.value[rows], proba=None if found.proba is None else found.proba[rows])


def _is_same(one: Predictions, other: Predictions) -> bool:
    """Numbers alike within a rounding error; classes by their probabilities, for a tie may fall to either side."""
    if one.proba is not None and other.proba is not None:
        return one.proba.shape == other.proba.shape and np.allclose(
            one.proba, other.proba, rtol=_TOLERANCE, atol=_TOLERANCE
        )
    return bool(np.allclose(one.value, other.value, rtol=_TOLERANCE))
