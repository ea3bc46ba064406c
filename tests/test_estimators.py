"""Configuration -> pipeline: every candidate fits every column type, the same twice, and survives skops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import skops.io
from test_features import ALL, table

from windvane.tasks import estimators, problems
from windvane.tasks.balance import Balance
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import TRUSTED, Spec
from windvane.tasks.features import Columns, conform

EVERY = [(kind, name) for kind in ("regression", "classification") for name in problems.of(kind).candidates]


def taught(kind: str) -> pd.DataFrame:
    frame = table()
    frame["y"] = np.exp(frame["n"].fillna(0) + (frame["c"] == "x"))
    if kind == "classification":
        frame["y"] = pd.cut(frame["y"], [0, 0.8, 1.6, np.inf], labels=["low", "mid", "high"]).astype("str")
    return frame


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_same_seed_same_model_and_skops_keeps_it(kind: str, name: str) -> None:
    k, frame = problems.of(kind), taught(kind)
    params = {"log_target": True} if "log_target" in k.candidates[name].space else {}
    models = [estimators.fit(Spec(name, params), k, ALL, frame, "y", 3, cores) for cores in (1, 2)]
    stored = skops.io.dumps(models[0])
    models.append(skops.io.loads(stored, trusted=list(TRUSTED)))
    inputs = conform(frame, ALL, "x")
    said = [k.predict(m, inputs) for m in models]
    for other in said[1:]:
        assert np.array_equal(said[0].value, other.value)
        assert said[0].proba is None or np.array_equal(said[0].proba, other.proba)
    blank = conform(frame.head(2).assign(n=np.nan, b=None, c=None, h="never seen", d=pd.NaT), ALL, "x")
    assert len(k.predict(models[2], blank).value) == 2


def test_every_trusted_type_is_needed() -> None:
    needed: set[str] = set()
    for kind, name in EVERY:
        model = estimators.fit(Spec(name, {}), problems.of(kind), ALL, taught(kind), "y", 0, 1)
        needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    balanced = Spec("linear", {}, Balance("weights"))
    model = estimators.fit(balanced, problems.of("classification"), ALL, taught("classification"), "y", 0, 1)
    needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(model)))
    combined = {
        f"windvane.tasks.combining.Combined{kind}" for kind in ("Classifier", "Regressor")
    }  # tests/test_combining.py
    assert needed | combined == set(TRUSTED)


@pytest.mark.parametrize(
    "labels", [[True, False], [0, 1], [0.0, 1.0], ["no", "yes"], ["c", "a"], [0.5, 1.5], [3, 1]], ids=str
)
@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_labels_of_any_type(labels: list[object], name: str) -> None:
    k, frame = problems.of("classification"), table()
    frame["y"] = [labels[int(v > 0)] for v in frame["n"].fillna(0)]
    model = estimators.fit(Spec(name, {}), k, ALL, frame, "y", 0, 1)
    assert k.scores(k.truth(frame["y"]), k.predict(model, conform(frame, ALL, "x")))["accuracy"] > 0.9


@pytest.mark.parametrize("name", list(problems.of("regression").candidates))
def test_columns_without_a_value_or_a_difference_do_no_harm(name: str) -> None:
    frame = taught("regression").assign(n=np.nan, c="same", d=pd.Timestamp("2024-01-01"))
    model = estimators.fit(Spec(name, {}), problems.of("regression"), ALL, frame, "y", 0, 1)
    later = conform(taught("regression"), ALL, "x")
    assert np.isfinite(model.predict(later)).all()


def test_a_class_of_one_row_does_not_stop_boosting() -> None:
    frame = taught("classification")
    frame.loc[0, "y"] = "once"
    model = estimators.fit(Spec("boosting", {"max_iter": 10}), problems.of("classification"), ALL, frame, "y", 0, 1)
    assert "once" in model.classes_


def test_a_linear_model_that_did_not_settle_says_so(recwarn: pytest.WarningsRecorder) -> None:
    frame = taught("classification")
    spec = Spec("linear", {"l1_ratio": 1.0, "C": 100.0, "max_passes": 5, "tol": 1e-8})
    model = estimators.fit(spec, problems.of("classification"), ALL, frame, "y", 0, 1)
    assert "5 iterations" in str(estimators.unsettled(model))
    assert not [w for w in recwarn if "converge" in str(w.message)]
    tree = estimators.fit(Spec("tree", {}), problems.of("classification"), ALL, frame, "y", 0, 1)
    assert estimators.unsettled(tree) is None


def test_a_spec_survives_json_and_an_unknown_candidate_is_refused() -> None:
    spec = Spec("forest", {"max_depth": 8, "log_target": False})
    assert Spec.from_json(spec.to_json()) == spec
    with pytest.raises(InputError, match="'svm' is not known to regression"):
        estimators.build(Spec("svm", {}), problems.of("regression"), Columns(("n",)), 0, 1)
