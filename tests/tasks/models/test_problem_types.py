"""Kinds of problems: metrics against scikit-learn's own, labels of any type, and what a hyperparameter may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from windvane.tasks.models.problem_types import class_labels, definitions
from windvane.tasks.models.problem_types import classification as c
from windvane.tasks.models.problem_types import regression as r
from windvane.tasks.models.problem_types.definitions import ChoiceSet, FloatRange, IntRange, Predictions
from windvane.tasks.settings.problem_section import METRICS_BY_KIND


@pytest.mark.parametrize("name", ["regression", "classification"])
def test_a_kind_has_the_metrics_of_params_yaml_and_the_baseline_first(name: str) -> None:
    kind = definitions.load_problem_type(name)
    assert tuple(kind.metrics) == METRICS_BY_KIND[name]
    assert list(kind.candidates) == ["dummy", "linear", "tree", "forest", "boosting"]
    for candidate in kind.candidates.values():
        assert all(d.refuse(d.default) is None for d in candidate.space.values())
        assert candidate.complexity is None or candidate.complexity in candidate.space


def test_regression_metrics_count_a_weight_as_repeated_rows() -> None:
    truth, said = np.array([1.0, 2.0, 6.0]), Predictions(np.array([1.5, 2.0, 3.0]))
    twice = np.array([0, 1, 1, 2, 2, 2])
    again = Predictions(said.value[twice])
    for metric in r.PROBLEM_TYPE.metrics.values():
        assert metric.score(truth, said, np.array([1, 2, 3])) == pytest.approx(metric.score(truth[twice], again, None))
    assert math.isnan(r.r2(np.ones(3), said, None))


def test_mean_loss_ranks_as_the_headline_does() -> None:
    truth, said = np.array([1.0, 2.0, 6.0]), Predictions(np.array([1.5, 2.0, 3.0]))
    assert r.compute_regression_loss(truth, said, "mae").mean() == pytest.approx(r.mae(truth, said, None))
    assert r.compute_regression_loss(truth, said, "r2").mean() == pytest.approx(r.rmse(truth, said, None) ** 2)
    assert (r.name_regression_loss("mae"), r.name_regression_loss("rmse")) == ("absolute error", "squared error")


def test_only_a_positive_skewed_target_is_tried_on_its_logarithm() -> None:
    prices = np.random.default_rng(0).lognormal(12, 1, 500)
    assert r.suggest_log_target(prices)
    assert not r.suggest_log_target(prices - prices.min())
    assert not r.suggest_log_target(np.log(prices))
    assert not r.suggest_log_target(np.full(9, 5.0))
    assert not c.PROBLEM_TYPE.log_target(prices)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_metrics_agree_with_scikit_learn(k: int, weighted: bool) -> None:
    from sklearn import metrics as m

    rng = np.random.default_rng(k)
    truth = rng.integers(0, k, 300)
    proba = np.round(rng.dirichlet(np.ones(k), 300) * 0.6 + np.eye(k)[truth] * 0.4, 2)
    proba /= proba.sum(axis=1, keepdims=True)
    weights = rng.integers(0, 3, 300).astype(float) if weighted else None
    said = Predictions(proba.argmax(axis=1), proba, np.arange(k))
    average = {"average": "binary" if k == 2 else "macro", "zero_division": 0, "sample_weight": weights}
    auc: dict[str, Any] = {} if k == 2 else {"multi_class": "ovr", "average": "weighted"}
    if k == 2 or not weighted:
        scores = proba[:, 1] if k == 2 else proba
        assert c.roc_auc(truth, said, weights) == pytest.approx(
            m.roc_auc_score(truth, scores, sample_weight=weights, **auc)
        )
    ranked = proba[:, 1] if k == 2 else proba
    assert c.average_precision(truth, said, weights) == pytest.approx(
        m.average_precision_score(truth, ranked, average="macro", sample_weight=weights)
    )
    assert c.precision(truth, said, weights) == pytest.approx(m.precision_score(truth, said.value, **average))
    assert c.recall(truth, said, weights) == pytest.approx(m.recall_score(truth, said.value, **average))
    assert c.f1(truth, said, weights) == pytest.approx(m.f1_score(truth, said.value, **average))
    assert c.log_loss(truth, said, weights) == pytest.approx(m.log_loss(truth, proba, sample_weight=weights))
    assert c.accuracy(truth, said, weights) == pytest.approx(m.accuracy_score(truth, said.value, sample_weight=weights))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([0.0, 1.0, 1.0]), np.array([0, 1])),
        (np.array([False, True, True], dtype=object), np.array([False, True])),
        (np.array(["no", "yes", "yes"], dtype=object), np.array(["no", "yes"])),
        (np.array([0, 1, 1]), np.array([False, True])),
    ],
)
def test_labels_of_any_type_find_their_class(labels: Any, classes: Any) -> None:
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    if classes.dtype == bool:
        labels = labels.astype(bool)
    assert c.accuracy(labels, Predictions(classes[[0, 1, 1]], proba, classes), None) == 1.0


def test_a_class_unseen_in_training_is_wrong_and_dear_but_no_crash() -> None:
    said = Predictions(np.array(["a", "b"]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array(["a", "b"]))
    truth = np.array(["a", "zebra"])
    assert c.accuracy(truth, said, None) == 0.5
    assert c.compute_class_loss(truth, said, "log_loss")[1] == pytest.approx(-math.log(c.MIN_PROBABILITY))


def test_average_precision_of_a_constant_is_the_share_and_nan_without_a_positive_row() -> None:
    proba = np.full((4, 2), 0.5)
    said = Predictions(np.zeros(4, dtype=int), proba, np.arange(2))
    assert c.average_precision(np.array([0, 0, 0, 1]), said, None) == 0.25
    assert math.isnan(c.average_precision(np.zeros(4, dtype=int), said, None))
    three = Predictions(np.arange(3), np.eye(3), np.arange(3))
    assert c.average_precision(np.array([0, 1, 1]), three, None) == pytest.approx((1 + 5 / 6) / 2)


def test_what_is_called_counts_not_the_likeliest_class() -> None:
    said = Predictions(np.array([1, 0]), np.array([[0.7, 0.3], [0.9, 0.1]]), np.arange(2))
    assert c.recall(np.array([1, 0]), said, None) == c.accuracy(np.array([1, 0]), said, None) == 1.0


def test_roc_auc_is_nan_with_one_class_and_leaves_out_an_absent_one() -> None:
    proba = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    said = Predictions(np.array([0, 1, 1]), proba, np.arange(3))
    assert math.isnan(c.roc_auc(np.zeros(3, dtype=int), said, None))
    assert c.roc_auc(np.array([0, 1, 1]), said, None) == 1.0


@pytest.mark.parametrize(
    ("classes", "index"),
    [([0, 1], 1), ([False, True], 1), (["no", "yes"], 1), (["Yes", "nope"], 0), (["cat", "dog"], 1), (["1", "2"], 0)],
)
def test_the_positive_class_is_the_obvious_one_else_the_later(classes: list[Any], index: int) -> None:
    assert class_labels.find_positive_class(np.array(classes)) == index


def test_a_dimension_says_what_it_takes() -> None:
    assert FloatRange(0.1, 1, 0.5).refuse(2) == "must be a number from 0.1 to 1"
    assert FloatRange(0.1, 1, 0.5).refuse(True) is not None
    assert FloatRange(0.1, 1, 0.5).refuse("1e-1") is not None
    assert IntRange(1, 9, 3).refuse(2.5) == "must be a whole number from 1 to 9"
    assert ChoiceSet((False, True), False).refuse(1) == "must be one of false, true"
    assert ChoiceSet((0.0, 0.5), 0.0).refuse(0) is None


def test_grid_points_hold_both_ends_once() -> None:
    assert FloatRange(0.01, 100, 1, log=True).grid(3) == (0.01, 1.0, 100.0)
    assert IntRange(1, 3, 2).grid(9) == (1, 2, 3)
    assert IntRange(2, 32, 10, log=True).grid(3) == (2, 8, 32)
