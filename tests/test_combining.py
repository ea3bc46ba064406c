"""The mean of a model of all rows and one of the newest windows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from test_estimators import EVERY

from tasks import estimators, history, problems, settings, thresholds
from tasks.balance import Balance
from tasks.combining import LEAST, CombinedClassifier
from tasks.errors import InputError
from tasks.estimators import TRUSTED, Spec
from tasks.features import Columns, conform
from tasks.history import Recent
from tasks.watch_settings import window
from tests.conftest import Folder

COLUMNS = Columns(numbers=("x",), booleans=(), low=("word",), high=(), dates=())
TEN_DAYS = Recent(10, window("1d"))


def table(kind: str, rows: int = 1200, seed: int = 0) -> pd.DataFrame:
    """Hours of rows, the newest ten days of which say otherwise than those before."""
    rng = np.random.default_rng(seed)
    times = pd.Series(pd.date_range("2024-01-01", periods=rows, freq="h"))
    frame = pd.DataFrame({"ts": times, "x": rng.normal(size=rows), "word": rng.choice(["a", "b"], rows)})
    level = np.where(TEN_DAYS.among(times), 2.0, 0.0) + frame["x"] + (frame["word"] == "a")
    frame["y"] = np.exp(level + rng.normal(scale=0.1, size=rows))
    if kind == "classification":
        frame["y"] = np.select([level > 2, level > 0.5], ["high", "mid"], "low")
    return frame


def fitted(kind: str, name: str, frame: pd.DataFrame, recent: Recent | None, **params: Any) -> Any:
    return estimators.fit(Spec(name, params), problems.of(kind), COLUMNS, frame, "y", 0, 2, time="ts", recent=recent)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_one_is_taught_by_all_rows_the_other_by_the_newest_alone_and_both_are_stored(kind: str, name: str) -> None:
    k, frame = problems.of(kind), table(kind)
    model = fitted(kind, name, frame, TEN_DAYS)
    inputs = conform(frame.tail(50), COLUMNS, "x")
    read = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED))
    said = k.predict(model, inputs)
    assert np.array_equal(k.predict(read, inputs).value, said.value)
    assert len(estimators.innermost(model)) == 2

    # Otherwise taught by what came before, only the first of them changes.
    other = frame.copy()
    before = ~TEN_DAYS.among(frame["ts"])
    other.loc[before, "y"] = other.loc[before, "y"].sample(frac=1, random_state=1).to_numpy()
    if name != "linear" or kind == "classification":  # linear regression scales its target by all rows
        x = model[:-1].transform(inputs)
        (old, new), (changed, same) = (estimators.innermost(m) for m in (model, fitted(kind, name, other, TEN_DAYS)))
        assert np.array_equal(new.predict(x), same.predict(x))
        assert name == "dummy" or not np.array_equal(old.predict(x), changed.predict(x))


@pytest.mark.parametrize("params", [{}, {"log_target": True}], ids=["plain", "log"])
@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_the_mean_of_both_lies_between_them(name: str, params: dict[str, Any]) -> None:
    frame = table("regression")
    inputs = conform(frame.tail(200), COLUMNS, "x")
    every, mean = (fitted("regression", name, frame, recent, **params).predict(inputs) for recent in (None, TEN_DAYS))
    errors = [float(np.abs(said - frame["y"].tail(200)).mean()) for said in (every, mean)]
    assert errors[1] < 0.9 * errors[0] if name == "linear" else errors[1] < 1.2 * errors[0]
    model = fitted("regression", name, frame, TEN_DAYS, **params)
    combined = model[-1]
    while not hasattr(combined, "estimators_"):
        combined = combined.regressor_
    x = model[:-1].transform(inputs)
    one, two = (part.predict(x) for part in combined.estimators_)
    np.testing.assert_allclose(combined.predict(x), (one + two) / 2)


def test_a_class_that_the_newest_rows_do_not_hold_keeps_half_of_its_probability() -> None:
    frame = table("classification")
    frame.loc[TEN_DAYS.among(frame["ts"]) & (frame["y"] == "high"), "y"] = "mid"
    model = fitted("classification", "linear", frame, TEN_DAYS)
    inputs = conform(frame, COLUMNS, "x")
    proba = model.predict_proba(inputs)
    first, second = model[-1].estimators_
    assert list(second.classes_) == ["low", "mid"]
    at = list(model.classes_).index("high")
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    np.testing.assert_allclose(proba[:, at], first.predict_proba(model[:-1].transform(inputs))[:, at] / 2)


@pytest.mark.parametrize("newest", ["all", "few", "one class"])
def test_newest_rows_that_cannot_teach_leave_the_model_of_all_rows(newest: str) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 1)), np.repeat(["a", "b"], 100)
    recent = np.zeros(200, dtype=bool)
    recent[
        {"all": slice(None), "few": slice(100 - LEAST // 2, 100 + LEAST // 2 - 1), "one class": slice(100, None)}[
            newest
        ]
    ] = True
    model = CombinedClassifier(LogisticRegression()).fit(x, y, recent)
    assert len(model.estimators_) == 1
    np.testing.assert_array_equal(model.predict_proba(x), LogisticRegression().fit(x, y).predict_proba(x))


@pytest.mark.parametrize(
    "balance", [Balance(None, "f1"), Balance(None, None, "7d"), Balance(None, "f1", "7d")], ids=str
)
def test_a_threshold_and_the_newest_classes_go_with_it(balance: Balance) -> None:
    frame = table("classification")
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    k = problems.of("classification")
    inputs, truth = conform(frame.tail(240), COLUMNS, "x"), k.truth(frame["y"].tail(240))
    losses = []
    for recent in (None, TEN_DAYS):
        model = estimators.fit(Spec("linear", {}, balance), k, COLUMNS, frame, "y", 0, 1, time="ts", recent=recent)
        losses.append(float(k.loss(truth, k.predict(model, inputs), "log_loss").mean()))
        assert (thresholds.of(model) is not None) == (balance.threshold is not None)
    assert losses[1] < 0.8 * losses[0]


def test_treated_classes_do_not_go_with_it() -> None:
    spec = Spec("linear", {}, Balance("smote"))
    with pytest.raises(InputError, match=r"retrain\.history: combined .*smote.*expanding"):
        estimators.fit(
            spec, problems.of("classification"), COLUMNS, table("classification"), "y", 0, 1, time="ts", recent=TEN_DAYS
        )


def test_settings_say_what_it_needs() -> None:
    def parsed(**more: Any) -> settings.Settings:
        problem = {"kind": "classification", "target": "y", "time": "ts"}
        return settings.parse({"project": "p", "problem": problem, "data": {"source": "t.csv"}, **more})

    by_time = {"split": {"strategy": "time"}, "monitor": {"window": "1d"}}
    assert history.combined(parsed(retrain={"history": "combined:10"}, **by_time)) == TEN_DAYS
    assert history.combined(parsed(retrain={"history": "trailing:10"}, **by_time)) is None
    assert parsed(retrain={"history": "combined:10"}, **by_time).retrain.trailing is None
    with pytest.raises(InputError, match=r"combined:10 needs split\.strategy time"):
        parsed(retrain={"history": "combined:10"}, split={"strategy": "random"})
    with pytest.raises(InputError, match=r"does not go with search\.imbalance"):
        parsed(retrain={"history": "combined:10"}, search={"imbalance": "weights"}, **by_time)
    with pytest.raises(InputError, match=r"trailing:N .*combined:N"):
        parsed(retrain={"history": "combined:0"}, **by_time)


@pytest.mark.slow
def test_a_lap_teaches_promotes_and_answers_with_it(project: Folder) -> None:
    project.set(retrain__history="combined:24")
    said = project.train()
    assert said["verdict"] == "promoted"
    (engine,) = (project.path / ".windvane" / "artifacts" / said["run_id"]).rglob("engine.json")
    recipe = json.loads(engine.read_text(encoding="utf-8"))
    assert recipe["agreement"]["accepted"] is True
    assert project.train()["verdict"] == "unchanged"
    project.set(retrain__history="expanding")
    again = project.train("--depth", "refit")
    assert again["verdict"] != "unchanged", "another history is another model"
