"""The compiled form says what scikit-learn says: every candidate, every column type, alone and in company."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import served_models
from tests.support.tables import ingested
from tests.tasks.models.test_candidates import EVERY, taught
from tests.tasks.models.test_class_balance import COLUMNS as RARE
from tests.tasks.models.test_class_balance import fitted, rare
from tests.tasks.models.test_features import ALL
from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.compiler import compile_pipeline
from windvane.serving.compiled.engine import CompiledEngine, EnginePredictions, _logistic
from windvane.serving.compiled.onnx_trees import CannotCompile
from windvane.serving.signature import InputColumn, ModelSignature
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.settings import project_params as params
from windvane.tasks.settings.monitoring_section import parse_window_length
from windvane.tasks.split.time_windows import RecentWindows
from windvane.tasks.validate import table_profile

pytestmark = pytest.mark.long

TABLES: dict[str, dict[str, Any]] = {
    "txhousing.parquet": {"kind": "regression", "target": "median", "time": "ts", "ignore": ["volume"]},
    "king_county_houses.parquet": {"kind": "regression", "target": "price", "time": "ts"},
    "noaa_rain.parquet": {"kind": "classification", "target": "rain"},
    "census_income.parquet": {"kind": "classification", "target": "income", "ignore": ["instance_weight"]},
}


def form(model: Any, kind: str, columns: FeatureColumns, inputs: pd.DataFrame) -> engine_files.StoredEngine:
    """What is stored beside a model, read again."""
    read = engine_files.read_engine_files(
        engine_files.build_engine_files(
            model, definitions.load_problem_type(kind), columns, engine_files.ComparisonRows(inputs, inputs, 0, 1_000)
        )
    )
    assert read is not None
    return read


def variants(kind: str, name: str) -> list[dict[str, Any]]:
    return (
        [{}, {"log_target": True}]
        if "log_target" in definitions.load_problem_type(kind).candidates[name].space
        else [{}]
    )


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_candidate_agrees_on_every_column_type(kind: str, name: str) -> None:
    k, frame = definitions.load_problem_type(kind), taught(kind)
    inputs = conform_frame(frame, ALL, "x")
    for spec in variants(kind, name):
        made = form(
            model_pipeline.fit_pipeline(ModelConfiguration(name, spec), k, ALL, frame, FitOptions("y", 0, 1)),
            kind,
            ALL,
            inputs,
        )
        assert made.compiled is not None, made.why
        assert "0 of" in made.why
        said = made.compiled.predict(made.sample)
        theirs = Predictions(np.array(made.expected.values), made.expected.proba)
        assert agreement.compare_predictions(said, theirs).accepted


TWO_DAYS = RecentWindows(2, parse_window_length("1d"))


def by_hours(kind: str) -> pd.DataFrame:
    """Rows of every column type in time, each class among the newest."""
    frame = taught(kind)
    return frame.assign(ts=pd.date_range("2024-01-01", periods=len(frame), freq="h"))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_combined_pipelines_are_compiled_into_one_form(kind: str, name: str) -> None:
    k, frame = definitions.load_problem_type(kind), by_hours(kind)
    inputs = conform_frame(frame, ALL, "x")
    for spec in variants(kind, name):
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, spec), k, ALL, frame, FitOptions("y", 0, 1, time="ts", recent=TWO_DAYS)
        )
        assert len(model_pipeline.unwrap_estimators(model)) == 2
        made = form(model, kind, ALL, inputs)
        assert made.compiled is not None, made.why
        assert made.compiled.form == "combined"
        assert ": 0 of" in made.why


def test_combined_pipelines_call_by_their_threshold() -> None:
    frame, k = by_hours("classification"), definitions.load_problem_type("classification")
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    spec = ModelConfiguration("boosting", {"max_iter": 20}, ClassBalance(None, "f1"))
    model = model_pipeline.fit_pipeline(spec, k, ALL, frame, FitOptions("y", 0, 1, time="ts", recent=TWO_DAYS))
    made = form(model, "classification", ALL, conform_frame(frame, ALL, "x"))
    assert isinstance(made.compiled, CompiledEngine), made.why
    assert made.compiled.call is not None


def test_parts_that_know_different_classes_are_answered_by_scikit_learn() -> None:
    frame, k = by_hours("classification"), definitions.load_problem_type("classification")
    frame.loc[TWO_DAYS.among(frame["ts"]) & (frame["y"] == "high"), "y"] = "mid"
    model = model_pipeline.fit_pipeline(
        ModelConfiguration("linear", {}), k, ALL, frame, FitOptions("y", 0, 1, time="ts", recent=TWO_DAYS)
    )
    made = form(model, "classification", ALL, conform_frame(frame, ALL, "x"))
    assert made.compiled is None
    assert "different" in made.why
    assert made.expected.proba is not None


@pytest.mark.slow
@pytest.mark.parametrize("file", TABLES)
def test_every_candidate_agrees_on_real_tables(file: str, whole_table: Callable[[str], Path]) -> None:
    whole = params.parse_settings({"project": "p", "problem": TABLES[file], "data": {"source": file}})
    problem, path = whole.problem, whole_table(file)
    frame = ingested(path, **TABLES[file])
    frame = frame[frame[problem.target].notna()].sample(3_000, random_state=0).reset_index(drop=True)
    columns, k = (
        features.select_feature_columns(whole, table_profile.profile_table(frame)),
        definitions.load_problem_type(problem.kind),
    )
    inputs = conform_frame(frame, columns, file)
    for name in k.candidates:
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, {}), k, columns, frame.head(1_500), FitOptions(problem.target, 0, 1)
        )
        made = form(model, problem.kind, columns, inputs.tail(1_500))
        assert made.compiled is not None, f"{name}: {made.why}"


def boosted() -> tuple[Any, ModelSignature, pd.DataFrame]:
    frame = taught("regression")
    model = model_pipeline.fit_pipeline(
        ModelConfiguration("boosting", {}),
        definitions.load_problem_type("regression"),
        ALL,
        frame,
        FitOptions("y", 0, 1),
    )
    types = engine_files.list_input_types(ALL)
    return (
        model,
        ModelSignature(tuple(InputColumn(n, types[n], True) for n in ALL.names)),
        conform_frame(frame, ALL, "x"),
    )


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
def test_a_threshold_decides_as_the_pipeline_does(threshold: float) -> None:
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import FixedThresholdClassifier

    frame = taught("classification")
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    model = model_pipeline.fit_pipeline(
        ModelConfiguration("forest", {}),
        definitions.load_problem_type("classification"),
        ALL,
        frame,
        FitOptions("y", 0, 1),
    )
    inner = FrozenEstimator(model.named_steps["model"])
    called = FixedThresholdClassifier(inner, threshold=threshold, pos_label="yes", response_method="predict_proba")
    model.steps[-1] = ("model", called.fit(np.zeros((2, 1)), np.array(["no", "yes"])))
    types = engine_files.list_input_types(ALL)
    signature = ModelSignature(tuple(InputColumn(n, types[n], True) for n in ALL.names), ("no", "yes"))
    made = compile_pipeline(model, ALL.names)
    engine = CompiledEngine(made.recipe, made.trees, signature.classes)

    def predict(pipeline: Any, inputs: Any) -> Predictions:
        return Predictions(pipeline.predict(inputs), pipeline.predict_proba(inputs), pipeline.classes_)

    inputs = conform_frame(frame, ALL, "x")
    assert agreement.measure_agreement(engine, model, predict, inputs, signature).accepted
    made.recipe["call"][0] = 0.3
    moved = CompiledEngine(made.recipe, made.trees, signature.classes)
    assert agreement.measure_agreement(moved, model, predict, inputs, signature).changed > 0


@pytest.mark.parametrize("candidate", ["linear", "forest", "boosting"])
@pytest.mark.parametrize("treatment", ["weights", "oversample", "undersample", "smote"])
@pytest.mark.parametrize("threshold", [None, "f1"])
def test_balanced_and_threshold_tuned_classifiers_agree(candidate: str, treatment: str, threshold: str | None) -> None:
    frame = rare()
    model = fitted(frame, ClassBalance(treatment, threshold), candidate)
    inputs = conform_frame(frame, RARE, "x")
    made = form(model, "classification", RARE, inputs)
    assert made.compiled is not None, made.why
    assert "0 of" in made.why
    # Whatever stands around the classifier counts: without it, the answers are others.
    recipe = compile_pipeline(model, RARE.names).recipe
    assert recipe["bent"]
    assert (recipe["call"] is not None) == (threshold is not None)
    bare = CompiledEngine({**recipe, "bent": []}, compile_pipeline(model, RARE.names).trees, model.classes_.tolist())
    signature = ModelSignature(
        tuple(InputColumn(n, engine_files.list_input_types(RARE)[n], True) for n in RARE.names), ("no", "yes")
    )
    assert not agreement.measure_agreement(
        bare, model, definitions.load_problem_type("classification").predict, inputs, signature
    ).accepted


def test_a_sure_score_has_the_same_rest_as_in_scikit_learn() -> None:
    from scipy.special import expit

    raw = np.concatenate([np.linspace(-40, 40, 4_001), [-1e308, -710.0, -700.0, 0.0, 700.0, 1e308]])[:, None]
    likely = expit(raw)
    assert _logistic(raw) == pytest.approx(np.hstack([1 - likely, likely]), rel=1e-12, abs=0)


def test_a_forest_that_is_sure_says_so_exactly() -> None:
    """One row's probability of nothing would else be 1e-16, which differs from nothing by all there is."""
    model, files = served_models.taught(1, "forest", "classification", (("n_estimators", 49),))
    frame = conform_frame(served_models.houses(), served_models.COLUMNS, "x")
    made = engine_files.read_engine_files(
        {name: files[name] for name in (engine_files.ENGINE_FILE, engine_files.TREES_FILE)}
    )
    assert made is not None
    assert made.compiled is not None, made.why
    said, expected = (
        made.compiled.predict(agreement.convert_to_plain_columns(frame, made.signature)).proba,
        model.predict_proba(frame),
    )
    assert said is not None
    assert {0.0, 1.0} <= set(expected.ravel().tolist())
    assert ((said == 0) == (expected == 0)).all()


def test_what_a_large_batch_costs_is_measured_beside_the_comparison() -> None:
    model, signature, inputs = boosted()
    made, pace = compile_pipeline(model, ALL.names), agreement.EngineSpeed()
    engine, predict = CompiledEngine(made.recipe, made.trees, None), definitions.load_problem_type("regression").predict
    agreement.measure_agreement(engine, model, predict, inputs, signature, pace)
    assert pace.rows == len(inputs)
    assert 0 < pace.compiled < 1
    assert 0 < pace.plain < 1
    assert agreement.EngineSpeed(2e-6, 1e-6, 5_000).to_json() == {
        "engine": "scikit-learn",
        "batch": 5_000,
        "microseconds": {"compiled": 2.0, "scikit-learn": 1.0},
    }
    assert agreement.EngineSpeed(1e-6, 2e-6, 5_000).to_json()["engine"] == "compiled"


def test_a_form_that_answers_otherwise_is_found_out() -> None:
    model, signature, inputs = boosted()
    made = compile_pipeline(model, ALL.names)
    predict = definitions.load_problem_type("regression").predict
    moved = {**made.recipe, "columns": [dict(c) for c in made.recipe["columns"]]}
    date = next(c for c in moved["columns"] if c["as"] == "date")
    date["origin"] += 400
    right, wrong = (CompiledEngine(recipe, made.trees, None) for recipe in (made.recipe, moved))
    assert agreement.measure_agreement(right, model, predict, inputs, signature).accepted
    assert not agreement.measure_agreement(wrong, model, predict, inputs, signature).accepted


def test_one_row_in_ten_thousand_may_differ_and_no_class() -> None:
    assert agreement.EngineAgreement(10_000, 1, 0, 1.0).accepted
    assert not agreement.EngineAgreement(9_999, 1, 0, 1.0).accepted
    assert not agreement.EngineAgreement(100_000, 0, 1, 0.0).accepted
    classes = np.array(["a", "b"])
    close = Predictions(classes[[1]], np.array([[0.499999, 0.500001]]), classes)
    clear = Predictions(classes[[1]], np.array([[0.4999, 0.5001]]), classes)
    assert agreement.compare_predictions(EnginePredictions(["a"], close.proba), close).changed == 0
    assert agreement.compare_predictions(EnginePredictions(["a"], clear.proba), clear).changed == 1


def test_what_is_not_known_is_not_compiled_and_said() -> None:
    model, _, inputs = boosted()

    class Shifted(type(model.named_steps["model"])):  # type: ignore[misc]
        def predict(self, X: Any) -> Any:
            return super().predict(X) + 1

    model.named_steps["model"].__class__ = Shifted
    with pytest.raises(CannotCompile, match="Shifted"):
        compile_pipeline(model, ALL.names)
    made = form(model, "regression", ALL, inputs)
    assert made.compiled is None
    assert "scikit-learn predicts" in made.why


def test_the_stored_form_is_plain_json_that_says_how_well_it_agreed() -> None:
    model, _, inputs = boosted()
    files = engine_files.build_engine_files(
        model, definitions.load_problem_type("regression"), ALL, engine_files.ComparisonRows(inputs, inputs, 0)
    )
    told = json.loads(files[engine_files.ENGINE_FILE])
    assert told["agreement"]["rows"] > 10_000
    assert told["why"].startswith("compared with scikit-learn: 0 of 10,")
    assert told["agreement"]["accepted"] is True
    assert set(files) == {engine_files.ENGINE_FILE, engine_files.TREES_FILE, engine_files.NODES_FILE}
    assert (
        engine_files.build_engine_files(
            model, definitions.load_problem_type("regression"), ALL, engine_files.ComparisonRows(inputs, inputs, 0)
        )
        == files
    )


def test_missing_values_are_allowed_where_training_had_them() -> None:
    model, _, inputs = boosted()
    made = form(model, "regression", ALL, inputs.assign(n=0.0))
    assert {c.name: c.missing for c in made.signature.inputs} == {
        "n": False,
        "b": True,
        "c": True,
        "h": True,
        "d": True,
    }


SAME = {
    "number": st.floats(-3e38, 3e38) | st.integers(-(10**15), 10**15) | st.none(),
    "boolean": st.booleans() | st.none() | st.sampled_from(["true", " NO ", "y", "0", "1.0", ""]),
    "category": st.text(max_size=5) | st.integers(-(10**9), 10**9) | st.none() | st.floats(-1e6, 1e6),
    "date": st.datetimes().map(lambda d: d.isoformat())
    | st.dates().map(str)
    | st.sampled_from(["", "2024-05", "2024", "2024-05-31T12:00:00Z", "2024-05-31 12:00+02:00", None]),
}


@settings(deadline=None, max_examples=200, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(sorted(SAME)))
def test_a_value_is_read_as_training_reads_it(data: st.DataObject, kind: Any) -> None:
    value = data.draw(SAME[kind])
    group = {"number": "numbers", "boolean": "booleans", "category": "low", "date": "dates"}[kind]
    frame = pd.DataFrame({"x": pd.Series([value, None], dtype=object)})
    whole = conform_frame(frame, FeatureColumns(**{group: ("x",)}), "x")
    signature = ModelSignature((InputColumn("x", kind, True),))
    (reader,) = signature.from_json
    expected = agreement.convert_to_plain_columns(whole.head(1), signature)[0]
    assert reader.read([value]) == expected
    assert reader.read([value] * 9) == expected * 9


WIDE = FeatureColumns(numbers=("a", "b", "c"))


def predict_extremes(kind: str, name: str, **options: Any) -> None:
    """Predict rows of nothing but the numbers far out that comparisons use, as scikit-learn does it, with warnings as errors."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 3)), columns=list(WIDE.names))
    frame["y"] = frame["a"] if kind == "regression" else np.where(frame["a"] > 0, "yes", "no")
    frame["ts"] = pd.date_range("2024-01-01", periods=300, freq="h")
    k, spec = definitions.load_problem_type(kind), {"n_estimators": 10} if name == "forest" else {}
    model = model_pipeline.fit_pipeline(
        ModelConfiguration(name, spec), k, WIDE, frame, FitOptions("y", 0, 1, **options)
    )
    rows = pd.DataFrame({column: np.repeat(agreement._EXTREME_NUMBERS, 400) for column in WIDE.names})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert len(k.predict(model, rows).value) == len(rows)


def test_e6_a_forest_is_compared_without_a_warning_of_numpys() -> None:
    """It adds up all cells of a forest's input as single floats."""
    predict_extremes("regression", "forest")


def test_e6_n1_a_forest_of_classes_too() -> None:
    predict_extremes("classification", "forest")


def test_e6_n2_a_tree_too() -> None:
    predict_extremes("regression", "tree")
    predict_extremes("classification", "tree")


def test_e6_n3_two_forests_that_predict_together_too() -> None:
    predict_extremes("regression", "forest", time="ts", recent=TWO_DAYS)
