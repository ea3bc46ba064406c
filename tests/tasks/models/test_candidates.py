"""Configuration -> pipeline: every candidate fits every column type, the same twice, and survives skops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import skops.io

from tests.tasks.models.test_features import ALL, table
from windvane.tasks.errors import InputError
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import TRUSTED_TYPES, FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions

pytestmark = pytest.mark.long

EVERY = [
    (kind, name) for kind in ("regression", "classification") for name in definitions.load_problem_type(kind).candidates
]


def taught(kind: str) -> pd.DataFrame:
    frame = table()
    frame["y"] = np.exp(frame["n"].fillna(0) + (frame["c"] == "x"))
    if kind == "classification":
        frame["y"] = pd.cut(frame["y"], [0, 0.8, 1.6, np.inf], labels=["low", "mid", "high"]).astype("str")
    return frame


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_same_seed_same_model_and_skops_keeps_it(kind: str, name: str) -> None:
    k, frame = definitions.load_problem_type(kind), taught(kind)
    params = {"log_target": True} if "log_target" in k.candidates[name].space else {}
    models = [
        model_pipeline.fit_pipeline(ModelConfiguration(name, params), k, ALL, frame, FitOptions("y", 3, cores))
        for cores in (1, 2)
    ]
    stored = skops.io.dumps(models[0])
    models.append(skops.io.loads(stored, trusted=list(TRUSTED_TYPES)))
    inputs = conform_frame(frame, ALL, "x")
    said = [k.predict(m, inputs) for m in models]
    for other in said[1:]:
        assert np.array_equal(said[0].value, other.value)
        assert said[0].proba is None or np.array_equal(said[0].proba, other.proba)
    blank = conform_frame(frame.head(2).assign(n=np.nan, b=None, c=None, h="never seen", d=pd.NaT), ALL, "x")
    assert len(k.predict(models[2], blank).value) == 2


def test_every_trusted_type_is_needed() -> None:
    needed: set[str] = set()
    for kind, name in EVERY:
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, {}), definitions.load_problem_type(kind), ALL, taught(kind), FitOptions("y", 0, 1)
        )
        needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    balanced = ModelConfiguration("linear", {}, ClassBalance("weights"))
    model = model_pipeline.fit_pipeline(
        balanced, definitions.load_problem_type("classification"), ALL, taught("classification"), FitOptions("y", 0, 1)
    )
    needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    elsewhere = {  # tests/tasks/models: test_model_averaging.py and test_own_features.py
        "windvane.tasks.models.model_pipeline.AveragedClassifier",
        "windvane.tasks.models.model_pipeline.AveragedRegressor",
        "windvane.tasks.models.own_features.OwnFeatures",
    }
    assert needed | elsewhere == set(TRUSTED_TYPES)


@pytest.mark.parametrize(
    "labels", [[True, False], [0, 1], [0.0, 1.0], ["no", "yes"], ["c", "a"], [0.5, 1.5], [3, 1]], ids=str
)
@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_labels_of_any_type(labels: list[object], name: str) -> None:
    k, frame = definitions.load_problem_type("classification"), table()
    frame["y"] = [labels[int(v > 0)] for v in frame["n"].fillna(0)]
    model = model_pipeline.fit_pipeline(ModelConfiguration(name, {}), k, ALL, frame, FitOptions("y", 0, 1))
    assert k.scores(k.truth(frame["y"]), k.predict(model, conform_frame(frame, ALL, "x")))["accuracy"] > 0.9


@pytest.mark.parametrize("name", list(definitions.load_problem_type("regression").candidates))
def test_columns_without_a_value_or_a_difference_do_no_harm(name: str) -> None:
    frame = taught("regression").assign(n=np.nan, c="same", d=pd.Timestamp("2024-01-01"))
    model = model_pipeline.fit_pipeline(
        ModelConfiguration(name, {}), definitions.load_problem_type("regression"), ALL, frame, FitOptions("y", 0, 1)
    )
    later = conform_frame(taught("regression"), ALL, "x")
    assert np.isfinite(model.predict(later)).all()


def test_a_class_of_one_row_does_not_stop_boosting() -> None:
    frame = taught("classification")
    frame.loc[0, "y"] = "once"
    model = model_pipeline.fit_pipeline(
        ModelConfiguration("boosting", {"max_iter": 10}),
        definitions.load_problem_type("classification"),
        ALL,
        frame,
        FitOptions("y", 0, 1),
    )
    assert "once" in model.classes_


def test_a_linear_model_that_did_not_settle_says_so(recwarn: pytest.WarningsRecorder) -> None:
    frame = taught("classification")
    spec = ModelConfiguration("linear", {"l1_ratio": 1.0, "C": 100.0, "max_passes": 5, "tol": 1e-8})
    model = model_pipeline.fit_pipeline(
        spec, definitions.load_problem_type("classification"), ALL, frame, FitOptions("y", 0, 1)
    )
    assert "5 iterations" in str(model_pipeline.explain_nonconvergence(model))
    assert not [w for w in recwarn if "converge" in str(w.message)]
    tree = model_pipeline.fit_pipeline(
        ModelConfiguration("tree", {}),
        definitions.load_problem_type("classification"),
        ALL,
        frame,
        FitOptions("y", 0, 1),
    )
    assert model_pipeline.explain_nonconvergence(tree) is None


def test_a_spec_survives_json_and_an_unknown_candidate_is_refused() -> None:
    spec = ModelConfiguration("forest", {"max_depth": 8, "log_target": False})
    assert ModelConfiguration.from_json(spec.to_json()) == spec
    with pytest.raises(InputError, match="'svm' is not known to regression"):
        model_pipeline.build_pipeline(
            ModelConfiguration("svm", {}), definitions.load_problem_type("regression"), FeatureColumns(("n",)), 0, 1
        )
