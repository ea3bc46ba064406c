"""The mean of a model of all rows and one of the newest windows."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import yaml
from click.testing import CliRunner

from tests.support.projects import Folder
from tests.tasks.models.test_candidates import EVERY
from windvane.cli.main import main
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import model_inspection
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import (
    MIN_SECOND_MODEL_ROWS,
    TRUSTED_TYPES,
    FitOptions,
    ModelConfiguration,
    ModelTask,
)
from windvane.tasks.models.problem_types import classification, definitions
from windvane.tasks.settings import project_params
from windvane.tasks.settings.monitoring_section import parse_window_length
from windvane.tasks.split import time_windows
from windvane.tasks.split.time_windows import RecentWindows

pytestmark = pytest.mark.long

COLUMNS = FeatureColumns(numbers=("x",), booleans=(), low=("word",), high=(), dates=())
TEN_DAYS = RecentWindows(10, parse_window_length("1d"))


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


def fitted(kind: str, name: str, frame: pd.DataFrame, recent: RecentWindows | None, **params: Any) -> Any:
    return model_pipeline.fit_pipeline(
        ModelConfiguration(name, params),
        definitions.load_problem_type(kind),
        COLUMNS,
        frame,
        FitOptions("y", 0, 2, time="ts", recent=recent),
    )


def parts(model: Any) -> list[Any]:
    """Of all rows, and of the newest."""
    return list(model[-1].models)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_one_is_taught_by_all_rows_the_other_by_the_newest_alone_and_both_are_stored(kind: str, name: str) -> None:
    k, frame = definitions.load_problem_type(kind), table(kind)
    model = fitted(kind, name, frame, TEN_DAYS)
    inputs = conform_frame(frame.tail(50), COLUMNS, "x")
    read = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED_TYPES))
    said = k.predict(model, inputs)
    assert np.array_equal(k.predict(read, inputs).value, said.value)
    assert len(model_pipeline.unwrap_estimators(model)) == 2

    # Otherwise taught by what came before, only the first of them changes.
    other = frame.copy()
    before = ~TEN_DAYS.among(frame["ts"])
    other.loc[before, "y"] = other.loc[before, "y"].sample(frac=1, random_state=1).to_numpy()
    (old, new), (changed, same) = (parts(m) for m in (model, fitted(kind, name, other, TEN_DAYS)))
    assert np.array_equal(new.predict(inputs), same.predict(inputs))
    assert name == "dummy" or not np.array_equal(old.predict(inputs), changed.predict(inputs))


@pytest.mark.parametrize("params", [{}, {"log_target": True}], ids=["plain", "log"])
@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_it_says_the_mean_of_what_each_of_them_says(name: str, params: dict[str, Any]) -> None:
    frame = table("regression")
    inputs = conform_frame(frame.tail(200), COLUMNS, "x")
    mean, every = (fitted("regression", name, frame, recent, **params) for recent in (TEN_DAYS, None))
    newest = fitted("regression", name, frame[TEN_DAYS.among(frame["ts"])], None, **params)
    np.testing.assert_array_equal(mean.predict(inputs), (every.predict(inputs) + newest.predict(inputs)) / 2)


def test_a_class_that_the_newest_rows_do_not_hold_keeps_half_of_its_probability() -> None:
    frame = table("classification")
    frame.loc[TEN_DAYS.among(frame["ts"]) & (frame["y"] == "high"), "y"] = "mid"
    model = fitted("classification", "linear", frame, TEN_DAYS)
    inputs = conform_frame(frame, COLUMNS, "x")
    proba = model.predict_proba(inputs)
    first, second = parts(model)
    assert list(second.classes_) == ["low", "mid"]
    at = list(model.classes_).index("high")
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    np.testing.assert_allclose(proba[:, at], first.predict_proba(inputs)[:, at] / 2)


@pytest.mark.parametrize("newest", ["all", "few", "one class"])
def test_newest_rows_that_cannot_teach_leave_the_model_of_all_rows(newest: str) -> None:
    frame = table("classification")
    recent = {
        "all": RecentWindows(99, TEN_DAYS.window),
        "few": RecentWindows(MIN_SECOND_MODEL_ROWS - 1, parse_window_length("1h")),
    }.get(newest, TEN_DAYS)
    if newest == "one class":
        frame.loc[TEN_DAYS.among(frame["ts"]), "y"] = "low"
    alone = fitted("classification", "linear", frame, recent)
    assert len(model_pipeline.unwrap_estimators(alone)) == 1
    inputs = conform_frame(frame, COLUMNS, "x")
    said, plain = (m.predict_proba(inputs) for m in (alone, fitted("classification", "linear", frame, None)))
    np.testing.assert_array_equal(said, plain)


@pytest.mark.parametrize(
    "balance", [ClassBalance(None, "f1"), ClassBalance(None, None, "7d"), ClassBalance(None, "f1", "7d")], ids=str
)
def test_a_threshold_and_the_newest_classes_go_with_it(balance: ClassBalance) -> None:
    frame = table("classification")
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    k = definitions.load_problem_type("classification")
    inputs, truth = conform_frame(frame.tail(240), COLUMNS, "x"), k.truth(frame["y"].tail(240))
    losses = []
    for recent in (None, TEN_DAYS):
        model = model_pipeline.fit_pipeline(
            ModelConfiguration("linear", {}, balance),
            k,
            COLUMNS,
            frame,
            FitOptions("y", 0, 1, time="ts", recent=recent),
        )
        losses.append(float(k.loss(truth, k.predict(model, inputs), "log_loss").mean()))
        assert (classification.get_threshold(model) is not None) == (balance.threshold is not None)
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "recent",
    [RecentWindows(9, parse_window_length(100)), RecentWindows(3, parse_window_length(100)), TEN_DAYS],
    ids=str,
)
def test_folds_tune_on_what_serves(recent: RecentWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[pd.DataFrame] = []
    fit = model_pipeline._fit_once

    def told(spec: ModelConfiguration, kind: Any, columns: FeatureColumns, rows: pd.DataFrame, *rest: Any) -> Any:
        taught.append(rows)
        return fit(spec, kind, columns, rows, *rest)

    monkeypatch.setattr(model_pipeline, "_fit_once", told)
    frame, spec = table("classification"), ModelConfiguration("linear", {}, ClassBalance(None, "f1"))
    frame["y"] = np.where(frame["y"] == "high", "yes", "no")
    model_pipeline.fit_pipeline(
        spec,
        definitions.load_problem_type("classification"),
        COLUMNS,
        frame,
        FitOptions("y", 0, 1, time="ts", recent=recent),
    )
    newest = set(frame.index[recent.among(frame["ts"])])
    (every, second), *folds = [taught[i : i + 2] for i in range(0, len(taught), 2)]
    assert (len(every), set(second.index)) == (len(frame), newest)
    assert len(folds) == classification.THRESHOLD_FOLDS
    for rows, last in folds:
        assert set(last.index) == newest & set(rows.index)


def test_under_a_treatment_all_rows_teach_alone() -> None:
    spec, frame = ModelConfiguration("linear", {}, ClassBalance("weights")), table("classification")
    k, inputs = definitions.load_problem_type("classification"), conform_frame(frame, COLUMNS, "x")
    one, other = (
        model_pipeline.fit_pipeline(spec, k, COLUMNS, frame, FitOptions("y", 0, 1, time="ts", recent=recent))
        for recent in (TEN_DAYS, None)
    )
    np.testing.assert_array_equal(one.predict_proba(inputs), other.predict_proba(inputs))


@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_newest_rows_without_any_value_teach_nothing(name: str) -> None:
    frame = table("regression")
    frame.loc[TEN_DAYS.among(frame["ts"]), ["x", "word"]] = None
    assert len(model_pipeline.unwrap_estimators(fitted("regression", name, frame, TEN_DAYS))) == 1


def test_settings_say_what_it_needs() -> None:
    def parsed(**more: Any) -> project_params.Settings:
        problem = {"kind": "classification", "target": "y", "time": "ts"}
        return project_params.parse_settings({"project": "p", "problem": problem, "data": {"source": "t.csv"}, **more})

    by_time = {"split": {"strategy": "time"}, "monitor": {"window": "1d"}}
    assert time_windows.choose_recent_windows(parsed(retrain={"history": "combined:10"}, **by_time)) == TEN_DAYS
    assert time_windows.choose_recent_windows(parsed(retrain={"history": "trailing:10"}, **by_time)) is None
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
    content = json.loads(engine.read_text(encoding="utf-8"))
    assert content["compiled"]["form"] == "combined"
    assert content["agreement"]["accepted"] is True
    assert project.train()["verdict"] == "unchanged"
    project.set(retrain__history="combined:1", monitor__window=10)
    again = project.run("train", "--depth", "refit", "--json")
    assert again.json["verdict"] != "unchanged", "another history is another model"
    assert "0.0 % better" not in again.json["reason"], "and is held against the one before it"
    assert "no second model of the newest windows (combined:1)" in again.err


PROJECT = """
project: turning
problem: {kind: regression, target: y, time: ts}
data: {source: t.csv}
split: {strategy: time}
search: {candidates: [linear, tree], trials: 2}
monitor: {window: 1d}
retrain: {policy: schedule, history: "combined:3", cooldown: 0d, budget: null}
"""


def test_every_fit_of_a_replay_is_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[RecentWindows | None] = []
    fit = model_pipeline.fit_pipeline

    def spy(*given: Any, **named: Any) -> Any:
        told.append(inspect.signature(fit).bind(*given, **named).arguments["options"].recent)
        return fit(*given, **named)

    monkeypatch.setattr(model_pipeline, "fit_pipeline", spy)
    monkeypatch.chdir(tmp_path)
    table("regression").to_csv("t.csv", index=False)
    Path("params.yaml").write_text(PROJECT, encoding="utf-8")
    done = CliRunner().invoke(main, ["replay", "--search", "--from", "2024-02-14", "--json"])
    assert done.exit_code == 0, done.output
    assert len(told) > 10
    assert set(told) == {RecentWindows(3, parse_window_length("1d"))}


def test_curves_are_of_what_serves() -> None:
    chosen = project_params.parse_settings(yaml.safe_load(PROJECT))
    frame = table("regression")
    scorer = model_inspection.CurveScorer(
        ModelTask(chosen, definitions.load_problem_type("regression"), COLUMNS, 1),
        model_inspection.CurveRows(frame, frame.tail(50), True, ()),
    )
    assert len(model_pipeline.unwrap_estimators(scorer.fit(ModelConfiguration("linear", {}), frame))) == 2
