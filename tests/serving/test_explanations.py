"""Why a prediction is what it is: effects add up to it, exactly where trees or linear models predict, and equal the shap package's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.serving.test_compiled_models import TWO_DAYS, by_hours, form, variants
from tests.tasks.models.test_candidates import EVERY, taught
from tests.tasks.models.test_class_balance import COLUMNS as RARE
from tests.tasks.models.test_class_balance import fitted, rare
from tests.tasks.models.test_features import ALL
from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.engine import CompiledEngine, EnginePredictions, PlainColumns
from windvane.serving.compiled.explanations import Explanations, PredictionExplainer
from windvane.serving.compiled.tree_shap import TreeShap, count_path_values
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions

pytestmark = pytest.mark.long
ROWS = 1_000
SMALL: dict[str, dict[str, Any]] = {"forest": {"n_estimators": 10}, "boosting": {"max_iter": 30}}


def fit(kind: str, name: str, params: dict[str, Any], frame: pd.DataFrame, **options: Any) -> Any:
    configuration, problem = ModelConfiguration(name, params), definitions.load_problem_type(kind)
    return model_pipeline.fit_pipeline(configuration, problem, ALL, frame, FitOptions("y", 0, 1, **options))


def explained(
    model: Any, kind: str, columns: FeatureColumns, frame: pd.DataFrame
) -> tuple[Explanations, EnginePredictions, list[Any]]:
    """Explanations of a frame's rows by the compiled form, as it is stored and read again; and the model's classes."""
    inputs = conform_frame(frame, columns, "x")
    made = form(model, kind, columns, inputs)
    assert made.compiled is not None, made.why
    plain = agreement.convert_to_plain_columns(inputs, made.signature)
    predictions = made.compiled.predict(plain)
    found = made.make_explainer(made.compiled).explain(plain, predictions)
    return found, predictions, list(made.signature.classes or ())


def on_scale(found: Explanations, predictions: EnginePredictions, classes: list[Any]) -> Any:
    """What base and effects must add up to (n,)."""
    if found.scale == "prediction":
        return np.array(predictions.values)
    assert predictions.proba is not None
    called = np.array([classes.index(value) for value in predictions.values])
    likely = predictions.proba[np.arange(len(called)), called]
    return np.log(likely / (1 - likely)) if found.scale == "log-odds" else likely


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("combined", [False, True])
def test_base_and_effects_add_up_to_what_was_predicted(kind: str, name: str, combined: bool) -> None:
    frame = by_hours(kind)
    for params in variants(kind, name):
        model = fit(kind, name, params, frame, **({"time": "ts", "recent": TWO_DAYS} if combined else {}))
        found, predictions, classes = explained(model, kind, ALL, frame)
        assert found.effects.shape == (len(frame), len(ALL.names))
        curved = bool(params) or (combined and kind == "classification" and name in ("linear", "boosting"))
        assert found.exact is not curved
        if found.scale != "score":
            wanted = on_scale(found, predictions, classes)
            np.testing.assert_allclose(found.base + found.effects.sum(axis=1), wanted, rtol=1e-5, atol=1e-6)
        if name != "dummy":
            assert np.abs(found.effects).max() > 0


def test_two_classes_are_explained_in_log_odds_of_the_one_that_is_called() -> None:
    frame = by_hours("classification")
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    for name in ("linear", "boosting"):
        found, predictions, classes = explained(fit("classification", name, {}, frame), "classification", ALL, frame)
        assert (found.scale, found.exact) == ("log-odds", True)
        assert set(predictions.values) == {"yes", "no"}
        wanted = on_scale(found, predictions, classes)
        np.testing.assert_allclose(found.base + found.effects.sum(axis=1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("candidate", ["linear", "forest", "boosting"])
@pytest.mark.parametrize("treatment", ["weights", "smote"])
def test_corrected_probabilities_are_explained_as_they_are_answered(candidate: str, treatment: str) -> None:
    frame = rare()
    model = fitted(frame, ClassBalance(treatment, "f1"), candidate)
    found, predictions, classes = explained(model, "classification", RARE, frame)
    assert found.exact is (candidate != "forest")
    wanted = on_scale(found, predictions, classes)
    sure = np.isfinite(wanted)
    np.testing.assert_allclose((found.base + found.effects.sum(axis=1))[sure], wanted[sure], rtol=1e-5, atol=1e-6)


def owners(engine: CompiledEngine, made: engine_files.StoredEngine) -> Any:
    return made.make_explainer(engine)._owners


@pytest.mark.parametrize("name", ["tree", "forest", "boosting"])
@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_effects_equal_those_of_the_shap_package(kind: str, name: str) -> None:
    import shap

    frame = pd.concat([taught(kind)] * 8, ignore_index=True).head(ROWS)
    model = fit(kind, name, SMALL.get(name, {}), frame)
    made = form(model, kind, ALL, conform_frame(frame, ALL, "x"))
    assert isinstance(made.compiled, CompiledEngine), made.why
    plain = agreement.convert_to_plain_columns(conform_frame(frame, ALL, "x"), made.signature)
    found = made.make_explainer(made.compiled).explain(plain, made.compiled.predict(plain))
    estimator = model.named_steps["model"]
    while hasattr(estimator, "regressor_"):
        estimator = estimator.regressor_
    theirs = np.asarray(shap.TreeExplainer(estimator).shap_values(made.compiled.matrix(plain), check_additivity=False))
    if kind == "classification":
        called = [list(made.signature.classes or ()).index(v) for v in made.compiled.predict(plain).values]
        theirs = theirs[np.arange(len(theirs)), :, called]
    theirs = theirs @ owners(made.compiled, made)
    assert len(theirs) == ROWS
    np.testing.assert_allclose(found.effects, theirs, atol=1e-6 * max(1.0, float(np.abs(theirs).max())))


def test_linear_effects_are_those_of_the_shap_package() -> None:
    import shap

    frame = taught("regression")
    model = fit("regression", "linear", {}, frame)
    inputs = conform_frame(frame, ALL, "x")
    made = form(model, "regression", ALL, inputs)
    assert isinstance(made.compiled, CompiledEngine)
    assert made.recipe is not None
    plain = agreement.convert_to_plain_columns(inputs, made.signature)
    found = made.make_explainer(made.compiled).explain(plain, made.compiled.predict(plain))
    matrix, linear = made.compiled.matrix(plain), made.recipe["model"]
    explainer = shap.LinearExplainer(
        (np.array(linear["weights"][0]), linear["intercept"][0]), shap.maskers.Independent(matrix, len(matrix))
    )
    (_, _, scale), *more = made.recipe["back"]  # the target is standardised
    assert more == []
    theirs = explainer.shap_values(matrix) * scale @ owners(made.compiled, made)
    np.testing.assert_allclose(found.effects, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())


def test_a_large_forest_is_explained_in_pieces_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from windvane.serving.compiled import tree_shap

    frame = taught("regression")
    whole, *_ = explained(fit("regression", "forest", SMALL["forest"], frame), "regression", ALL, frame)
    monkeypatch.setattr(tree_shap, "_KEPT_VALUES", 0)
    monkeypatch.setattr(tree_shap, "_TABLE_VALUES", 50)
    pieces, *_ = explained(fit("regression", "forest", SMALL["forest"], frame), "regression", ALL, frame)
    np.testing.assert_allclose(pieces.effects, whole.effects, rtol=1e-9, atol=1e-9 * np.abs(whole.effects).max())


def test_a_forest_that_is_too_large_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    from windvane.serving.compiled import explanations

    frame = taught("regression")
    model = fit("regression", "forest", SMALL["forest"], frame)
    exact, *_ = explained(model, "regression", ALL, frame)
    monkeypatch.setattr(explanations, "MAX_EXACT_VALUES", 100)
    found, predictions, _ = explained(model, "regression", ALL, frame)
    assert (exact.exact, found.exact) == (True, False)
    np.testing.assert_allclose(found.base + found.effects.sum(axis=1), predictions.values, rtol=1e-9)
    assert np.corrcoef(found.effects.ravel(), exact.effects.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("params", [{"max_depth": 1}, {"max_depth": 4}, {}])
def test_values_on_paths_are_counted_before_they_are_made(params: dict[str, Any]) -> None:
    from sklearn.tree import DecisionTreeRegressor

    from windvane.serving.compiled.onnx_trees import read_sklearn_tree, stack_trees

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 30))
    tree = DecisionTreeRegressor(**params, random_state=0).fit(inputs, inputs[:, 0] + rng.normal(size=200)).tree_
    nodes = stack_trees([read_sklearn_tree(tree, tree.value[:, 0, :])], 1)

    def walk(node: int, depth: int) -> int:
        if tree.children_left[node] < 0:
            return depth * ((depth + 1) // 2)
        return walk(tree.children_left[node], depth + 1) + walk(tree.children_right[node], depth + 1)

    assert count_path_values(nodes) == walk(0, 0)


def test_a_tree_without_a_split_only_moves_the_base() -> None:
    one = {
        "feature": np.array([0]),
        "threshold": np.zeros(1),
        "left": np.array([-1]),
        "right": np.array([-1]),
        "missing_left": np.zeros(1, dtype=bool),
        "cover": np.array([10.0]),
        "weights": np.array([[3.0]]),
    }
    found = TreeShap(one, 2)
    assert found.base.tolist() == [3.0]
    assert found.explain(np.zeros((2, 2))).tolist() == [[[0.0], [0.0]]] * 2


class Sum:
    """An engine that no compiled form is known of."""

    form = "scikit-learn"

    def predict(self, columns: PlainColumns) -> EnginePredictions:
        a, b = (np.array(values, dtype="float64") for values in columns[:2])
        return EnginePredictions((3 * a + b).tolist())


def test_what_is_not_compiled_is_estimated_and_adds_up_too() -> None:
    frame = taught("regression")
    signature = form(fit("regression", "dummy", {}, frame), "regression", ALL, conform_frame(frame, ALL, "x")).signature
    count = len(signature.inputs)
    background = [[1.0, 3.0]] * 2 + [["x", "y"]] * (count - 2)
    rows = [[5.0, 7.0], [2.0, 2.0]] + [["x", "z"]] * (count - 2)
    explainer = PredictionExplainer(Sum(), signature, None, None, background)
    predictions = Sum().predict(rows)
    found = explainer.explain(rows, predictions)
    assert (found.scale, found.exact) == ("prediction", False)
    np.testing.assert_allclose(found.base + found.effects.sum(axis=1), predictions.values)
    assert (found.effects[:, 2:] == 0).all()
    # A sum has no interactions: each column's effect is its distance from the stored rows'.
    mean = found.base / 4
    np.testing.assert_allclose(found.effects[:, 0], 3 * (np.array([5.0, 7.0]) - mean))
    np.testing.assert_allclose(explainer.explain(rows, predictions).effects, found.effects)


def test_the_largest_effects_are_named_and_the_rest_is_their_sum() -> None:
    found = Explanations(("a", "b", "c"), "prediction", True, np.array([10.0]), np.array([[1.0, -5.0, 2.0]]))
    assert found.list_reasons(2) == [
        {"base": 10.0, "effects": [{"column": "b", "effect": -5.0}, {"column": "c", "effect": 2.0}], "rest": 1.0}
    ]
    assert found.list_reasons(9)[0]["rest"] == 0.0
    columns = {name: list(values) for name, values in found.list_columns(2).items()}
    assert columns == {
        "explained_base": [10.0],
        "reason_1": ["b"],
        "effect_1": [-5.0],
        "reason_2": ["c"],
        "effect_2": [2.0],
        "effect_rest": [1.0],
    }
