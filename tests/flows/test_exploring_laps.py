"""Exploring laps, and a table of 150 rows that serves: Iris, by what `init` proposes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.projects import Folder
from windvane.cli.main import main
from windvane.flows import exploration, training
from windvane.flows.lap import model_steps
from windvane.flows.lap.context import DirectRunner, open_lap, track_lap
from windvane.monitoring.records import LapDepth
from windvane.tasks.console import Console
from windvane.tasks.lap_outcome import ExplorationResult
from windvane.tasks.project import Project

pytestmark = pytest.mark.slow

Laps = tuple[Folder, list[ExplorationResult], dict[str, Any]]


def run_in_process(folder: Folder, depth: LapDepth = "search") -> dict[str, Any]:
    """A lap by its own steps, one after the other, without Prefect."""
    with (
        pytest.MonkeyPatch.context() as patch,
        open_lap(Project(folder.path), "test", depth, Console(json=True)) as held,
    ):
        patch.chdir(folder.path)
        # The only step that speaks to Prefect.
        patch.setattr(model_steps, "publish_data_artifact", lambda *_: None)
        with track_lap(held) as lap:
            return training.run_lap(lap, DirectRunner()).to_json()


def explore_in_process(folder: Folder) -> ExplorationResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        return exploration.explore(Project(folder.path), "explore", Console(json=True))


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Laps:
    """The project after two exploring laps, what these found, and the lap behind them."""
    from sklearn.datasets import load_iris

    folder = Folder(tmp_path_factory.mktemp("iris"))
    frame = load_iris(as_frame=True).frame
    frame["species"] = frame.pop("target").map({0: "setosa", 1: "versicolor", 2: "virginica"})
    frame.to_csv(folder.path / "iris.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        for command in (["init", "iris.csv", "--target", "species"], ["check"]):
            ran = CliRunner().invoke(main, command)
            assert ran.exit_code == 0, ran.output
    folder.set(search__trials=3)
    explored = [explore_in_process(folder) for _ in range(2)]
    assert [rows(folder, table) for table in ("judged_rows", "openings", "versions", "judgements")] == [0, 0, 0, 0]
    return folder, explored, run_in_process(folder)


def rows(folder: Folder, table: str) -> int:
    with sqlite3.connect(folder.path / ".windvane" / "ledger.db") as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_e3_an_exploring_lap_scores_candidates_and_opens_no_test(iris: Laps) -> None:
    _, (first, second), _ = iris
    assert [c.name for c in first.candidates] == ["dummy", "linear", "tree", "forest"]
    for candidate in first.candidates:
        assert candidate.low is not None
        assert candidate.validation is not None
        assert candidate.high is not None
        assert candidate.low <= candidate.validation <= candidate.high
    assert first.run_id != second.run_id
    assert [c.validation for c in first.candidates] == [c.validation for c in second.candidates]
    screen = first.text()
    assert "95 % interval" in screen
    assert "the search tried 3 configurations, all that were planned" in screen
    assert "then once: windvane train" in screen
    assert first.to_json()["verdict"] == "explored"


def test_e3_n2_its_runs_are_in_mlflow_and_tagged(iris: Laps) -> None:
    folder, explored, lap = iris
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'iris'")
    found = client.search_runs([experiment.experiment_id], "tags.`windvane.exploring` = 'true'")
    assert {run.info.run_id for run in found} == {one.run_id for one in explored}
    assert {run.info.status for run in found} == {"FINISHED"}
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{explored[0].run_id}'")
    assert {run.info.run_name for run in children} == {"dummy", "linear", "tree", "forest"}
    assert all("validation_log_loss_low" in run.data.metrics for run in children)
    assert "windvane.exploring" not in client.get_run(lap["run_id"]).data.tags


def test_e3_n3_a_lap_behind_it_is_not_unchanged(iris: Laps) -> None:
    folder, explored, lap = iris
    assert lap["verdict"] == "promoted"
    assert lap["chosen"] == explored[0].chosen
    assert lap["data_version"] == explored[0].data_version
    assert lap["search"] == explored[0].reason
    assert not list((folder.path / ".windvane" / "laps").glob("*"))


def test_a_lap_right_behind_it_takes_its_search_over(iris: Laps) -> None:
    folder, explored, lap = iris
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")

    def read_fit_seconds(run: str) -> dict[str, float]:
        children = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{run}'")
        return {child.info.run_name: child.data.metrics["fit_seconds"] for child in children}

    # Fits that were measured once: another search would have taken other times.
    assert read_fit_seconds(lap["run_id"]) == read_fit_seconds(explored[0].run_id)
    assert explored[0].fits > explored[1].fits == len(explored[1].candidates)


def test_exploring_and_a_refit_exclude_each_other(iris: Laps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(iris[0].path)
    ran = CliRunner().invoke(main, ["train", "--explore", "--depth", "refit"])
    assert ran.exit_code == 2
    assert "Leave one of them out" in ran.output


def test_d6_iris_serves_by_the_proposal_of_init(iris: Laps, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, lap = iris
    assert (lap["verdict"], lap["version"]) == ("promoted", 1)
    assert "on 150 rows in 6 fold blocks" in lap["reason"]
    assert "by models that were fitted without them" in lap["reason"]
    assert lap["interval"][0] < lap["test"] < lap["interval"][1]
    monkeypatch.chdir(folder.path)
    ran = CliRunner().invoke(main, ["train", "--json"])
    assert json.loads(ran.stdout)["verdict"] == "unchanged"
    # Another split: no row is new to the champion, and its configuration is fitted fold by fold beside the challenger's.
    folder.set(split__seed=1)
    again = run_in_process(folder, "refit")
    assert (again["verdict"], again["version"]) == ("promoted", 2)
    assert "both configurations refitted on the same rows" in again["reason"]
    assert "fold blocks" in again["reason"]
