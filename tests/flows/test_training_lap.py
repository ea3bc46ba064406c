"""A lap from end to end, with a real Prefect server, a real MLflow store and real DVC."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.projects import Folder, quick_project
from tests.support.waiting import until
from windvane.tasks.stores.mlflow_client import read_user_name

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> tuple[Folder, dict[str, Any]]:
    """A project after its first lap; tests that change it take a copy."""
    folder = quick_project(tmp_path_factory.mktemp("taught") / "project")
    return folder, folder.train(env={"PREFECT_API_URL": prefect_server})


@pytest.fixture
def copied(taught: tuple[Folder, dict[str, Any]], tmp_path: Path) -> Folder:
    """A project after its first lap, moved to another folder: what the ledger holds must not name the old place."""
    shutil.copytree(taught[0].path, tmp_path / "copy")
    return Folder(tmp_path / "copy")


@pytest.fixture(scope="module")
def second(
    taught: tuple[Folder, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory, prefect_server: str
) -> Folder:
    """A project after its first lap and one with another search; tests that change it take a copy."""
    folder = Folder(tmp_path_factory.mktemp("second") / "project")
    shutil.copytree(taught[0].path, folder.path)
    folder.set(search__trials=4)
    said = folder.train("--cause", "another search", env={"PREFECT_API_URL": prefect_server})
    assert said["version"] == 2
    return folder


@pytest.fixture
def relearned(second: Folder, tmp_path: Path) -> Folder:
    """A copy of the project after its second lap."""
    shutil.copytree(second.path, tmp_path / "copy")
    return Folder(tmp_path / "copy")


def mlflow_runs(folder: Folder, where: str = "") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")
    experiment = client.get_experiment_by_name("texas-house-prices")
    return list(client.search_runs([experiment.experiment_id], where))


def ledger(folder: Folder, query: str) -> list[Any]:
    with sqlite3.connect(folder.path / ".windvane" / "ledger.db") as db:
        return db.execute(query).fetchall()


@contextmanager
def prefect_client(url: str) -> Iterator[Any]:
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(url, auth_string=os.environ["PREFECT_API_AUTH_STRING"]) as client:
        yield client


def test_the_first_lap_promotes_and_says_all_that_the_contract_names(taught: tuple[Folder, dict[str, Any]]) -> None:
    _, said = taught
    assert {"run_id", "data_version", "metric", "candidates", "test", "depth", "verdict", "reason", "version"} <= set(
        said
    )
    assert (said["verdict"], said["version"], said["champion"], said["depth"]) == ("promoted", 1, 1, "search")
    names = [candidate["name"] for candidate in said["candidates"]]
    assert names == ["dummy", "linear", "tree", "boosting"]
    baseline, *others = [candidate["validation"] for candidate in said["candidates"]]
    assert min(others) < baseline
    assert said["interval"][0] <= said["test"] <= said["interval"][1]


def test_a_compiled_form_that_agreed_stands_beside_the_model(taught: tuple[Folder, dict[str, Any]]) -> None:
    folder, said = taught
    (engine,) = (folder.path / ".windvane" / "artifacts" / said["run_id"]).rglob("engine.json")
    told = json.loads(engine.read_text(encoding="utf-8"))
    assert told["agreement"]["accepted"] is True
    assert "engine.json" in (engine.parent / "manifest.json").read_text(encoding="utf-8")
    ((facts,),) = ledger(folder, "SELECT facts FROM versions")
    memory = json.loads(facts)["memory"]
    assert 0 < memory["kept"] <= memory["peak"] < 500_000_000


def test_the_engine_for_large_batches_is_measured_and_used(copied: Folder) -> None:
    (facts,) = ledger(copied, "SELECT facts FROM versions")
    bulk = json.loads(facts[0])["bulk"]
    assert bulk["batch"] == 5_000
    assert bulk["engine"] == min(bulk["microseconds"], key=bulk["microseconds"].__getitem__)
    ran = copied.run("score", "data/txhousing.csv", "out.parquet", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["engine"] == bulk["engine"]


def test_dvc_agrees_with_what_the_lap_recorded(taught: tuple[Folder, dict[str, Any]]) -> None:
    folder, said = taught
    assert "up to date" in folder.dvc("status")
    assert said["data_version"] in (folder.path / "dvc.lock").read_text()
    assert folder.dvc("repro").count("didn't change") == 3


def test_mlflow_holds_a_parent_and_a_comparable_child_per_candidate(taught: tuple[Folder, dict[str, Any]]) -> None:
    folder, said = taught
    from mlflow import MlflowClient

    parent, *none = mlflow_runs(folder, "tags.`windvane.fingerprint` like '%'")
    children = mlflow_runs(folder, f"tags.`mlflow.parentRunId` = '{said['run_id']}'")
    assert none == []
    assert {run.info.run_name for run in children} == {"dummy", "linear", "tree", "boosting"}
    assert len({frozenset(run.data.metrics) for run in children}) == 1
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.data.tags["windvane.data_version"] == said["data_version"]
    assert parent.data.metrics["test_mae"] == pytest.approx(said["test"])
    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")
    kept = {item.path for item in client.list_artifacts(said["run_id"])}
    assert {"dvc.lock", "params.yaml", "record.parquet", "model", "evaluation", "data"} <= kept
    assert int(client.get_model_version_by_alias("texas-house-prices", "champion").version) == 1


def test_h1_the_run_of_a_lap_carries_what_mlflows_pages_show(taught: tuple[Folder, dict[str, Any]]) -> None:
    folder, said = taught
    (run,) = mlflow_runs(folder, f"attributes.run_id = '{said['run_id']}'")
    tags = run.data.tags
    assert run.info.run_name == f"version 1: {said['chosen']}, promoted (manual)"
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("windvane train", "PROJECT")
    assert tags["mlflow.user"] == read_user_name()
    assert (tags["windvane.verdict"], tags["windvane.version"]) == ("promoted", "1")
    assert run.data.metrics["test_mae"] == pytest.approx(said["test"])
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("txhousing.csv", said["data_version"])
    columns = {c["name"]: c["type"] for c in json.loads(used.dataset.schema)["mlflow_colspec"]}
    assert columns["median"] == "double"
    (logged,) = json.loads(tags["mlflow.log-model.history"])
    assert (logged["artifact_path"], logged["run_id"]) == ("model", said["run_id"])
    (example,) = (folder.path / ".windvane" / "artifacts" / said["run_id"]).rglob("input_example.json")
    assert len(json.loads(example.read_text())["data"]) == 3


def test_h1_n1_candidates_are_compared_by_names_that_all_of_them_have(taught: tuple[Folder, dict[str, Any]]) -> None:
    folder, said = taught
    children = mlflow_runs(folder, f"tags.`mlflow.parentRunId` = '{said['run_id']}'")
    every = sorted({name for run in children for name in run.data.params})
    differing = [name for name in every if len({run.data.params.get(name) for run in children}) > 1]
    # MLflow's comparison draws the first three names that differ.
    assert all(set(differing[:3]) <= set(run.data.params) for run in children), differing
    assert {run.inputs.dataset_inputs[0].dataset.digest for run in children} == {said["data_version"]}


def test_h1_n2_the_registered_version_is_described_by_its_verdict(taught: tuple[Folder, dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    folder, said = taught
    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")
    version = client.get_model_version("texas-house-prices", "1")
    assert version.description.startswith(f"**promoted**: {said['reason']}")
    assert said["data_version"] in version.description


def test_h1_n4_the_list_of_runs_has_columns_for_metric_verdict_and_version(
    taught: tuple[Folder, dict[str, Any]],
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{taught[0].path}/.windvane/mlflow.db")
    tags = client.get_experiment_by_name("texas-house-prices").tags
    shown = json.loads(tags["mlflow.sharedViewState.laps"])["selectedColumns"]
    assert {"metrics.`test_mae`", "tags.`windvane.verdict`", "tags.`windvane.version`"} <= set(shown)


def test_c4_the_champion_predicts_its_own_source_as_pandas_reads_it(
    taught: tuple[Folder, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = taught
    predict = (
        "import mlflow, pandas; mlflow.set_tracking_uri('sqlite:///.windvane/mlflow.db'); "
        "model = mlflow.pyfunc.load_model('models:/texas-house-prices@champion'); "
        "print(model.predict(pandas.read_csv('data/txhousing.csv')).tolist())"
    )
    command = [sys.executable, "-c", predict]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # What MLflow left in the model's folder does no harm.
    ran = folder.run("score", "data/txhousing.csv", str(tmp_path / "out.parquet"))
    assert ran.status == 0, ran.err
    predicted = pd.read_parquet(tmp_path / "out.parquet")["prediction"].tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(predicted, rel=1e-9)


def test_the_data_page_stands_with_the_run_and_is_linked_from_prefect(
    taught: tuple[Folder, dict[str, Any]], prefect_server: str
) -> None:
    folder, said = taught
    import httpx
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")
    kept = {item.path for item in client.list_artifacts(said["run_id"], "data")}
    assert {
        "data/report.html",
        "data/findings.json",
        "data/digest.json",
        "data/profile.json",
    } <= kept
    assert "This table can train a model" in client.get_run(said["run_id"]).data.tags["windvane.data"]
    user, _, password = os.environ["PREFECT_API_AUTH_STRING"].partition(":")
    wanted = {"artifacts": {"key": {"any_": ["data"]}}}
    found = httpx.post(f"{prefect_server}/artifacts/filter", json=wanted, auth=(user, password)).json()
    (mine,) = [artifact for artifact in found if said["run_id"] in artifact["data"]]
    assert "data/report.html" in mine["data"]
    assert mine["flow_run_id"]
    assert (folder.path / "schema.yaml").exists()


def test_a_table_in_another_unit_is_stopped_and_with_the_old_one_back_nothing_is_refitted(
    copied: Folder, prefect_server: str
) -> None:
    before = copied.train()["data_version"]
    source = copied.path / "data" / "txhousing.csv"
    good = source.read_bytes()
    table = pd.read_csv(source)
    table.assign(listings=table["listings"] * 1000).to_csv(source, index=False)
    ran = copied.run("train", "--json", env={"PREFECT_API_URL": prefect_server})
    assert (ran.status, ran.out) == (2, "")
    assert "schema.yaml: data/txhousing.csv: column 'listings' lies outside" in ran.err
    assert "'listings' is 1000 times what it was in the last accepted table" in ran.err
    assert "accept in schema.yaml" in ran.err
    source.write_bytes(good)
    again = copied.train(env={"PREFECT_API_URL": prefect_server})
    assert (again["version"], again["fits"], again["data_version"]) == (1, 0, before)
    assert "up to date" in copied.dvc("status")


def test_every_task_run_of_a_lap_is_read_back_as_completed(relearned: Folder, prefect_server: str) -> None:
    ((mark,),) = ledger(relearned, "select id from laps where cause = 'another search'")
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    with prefect_client(prefect_server) as client:
        where = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"lap-{mark}"]))
        (run,) = client.read_flow_runs(flow_run_filter=where)
        tasks = client.read_task_runs(flow_run_filter=where)
    assert run.state_name == "Completed"
    names = {task.name.rsplit("-", 1)[0] for task in tasks}
    assert {"ingest", "validate", "split", "inspect", "search", "evaluate", "build", "smoke", "explain"} <= names
    assert {task.state_name for task in tasks} == {"Completed"}


def test_nothing_changed_is_said_without_a_fit_or_a_heavy_import(copied: Folder) -> None:
    ran = copied.run("train", "--json", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.json["verdict"] == "unchanged"
    assert ran.json["fits"] == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "dvc.repo" in imported
    assert not imported & {"sklearn", "mlflow", "prefect", "pandas", "optuna", "evidently", "jinja2"}
    assert "up to date" in copied.dvc("status")


def test_another_gate_judges_again_without_refitting(copied: Folder, prefect_server: str) -> None:
    copied.set(gate__confidence=0.9)
    again = copied.train(env={"PREFECT_API_URL": prefect_server})
    assert (again["fits"], again["judgement"], again["version"]) == (0, 2, 1)
    assert "judgement 2" in again["reason"]
    assert "90 %" in again["reason"]
    assert "up to date" in copied.dvc("status")
    assert copied.train()["verdict"] == "unchanged"


def test_a_changed_row_teaches_again_and_the_old_version_serves_until_beaten(
    copied: Folder, prefect_server: str
) -> None:
    before = copied.train()["data_version"]
    source = copied.path / "data" / "txhousing.csv"
    text = source.read_text()
    assert "Abilene,2000,1,72.0," in text
    source.write_text(text.replace("Abilene,2000,1,72.0,", "Abilene,2000,1,73.0,"))
    again = copied.train(env={"PREFECT_API_URL": prefect_server})
    assert again["data_version"] != before
    assert again["version"] == 2
    assert again["fits"] > 3
    assert again["verdict"] in ("promoted", "refused")
    assert "version 1" in again["reason"]
    assert "up to date" in copied.dvc("status")


def test_a_refit_keeps_the_configuration_and_needs_only_to_be_no_worse(copied: Folder, prefect_server: str) -> None:
    again = copied.train("--depth", "refit", env={"PREFECT_API_URL": prefect_server})
    assert again["depth"] == "refit"
    assert [candidate["name"] for candidate in again["candidates"]][1:] == [copied.train()["chosen"]]
    assert "worse is allowed" in again["reason"]


def test_a_giveaway_whose_order_is_folded_stops_the_lap_before_the_first_fit(
    project: Folder, prefect_server: str
) -> None:
    source = project.path / "data" / "txhousing.csv"
    table = pd.read_csv(source)
    # Decides the target, but folds its order: no correlation shows that.
    table["median"] = (table["median"].clip(80_000, 200_000) / 5000).round() * 5000
    table["code"] = table["median"].where(table["median"] < table["median"].median(), -table["median"]).fillna(0)
    table.to_csv(source, index=False)
    ran = project.run("train", "--json", env={"PREFECT_API_URL": prefect_server})
    assert ran.status == 2, ran.err
    assert ran.err.count("windvane: ") == 1
    assert "'code' alone decides 'median'" in ran.err
    assert "Traceback" not in ran.err
    assert not list((project.path / ".windvane").glob("laps/*/journal.log"))
    assert ledger(project, "select count(*) from openings") == [(0,)]
    assert ledger(project, "select state from laps") == [("failed",)]


def test_four_at_once_make_one_version(project: Folder, prefect_server: str) -> None:
    started = [project.start("train", "--json", env={"PREFECT_API_URL": prefect_server}) for _ in range(4)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], [err for _, err in ended]
    said = [json.loads(out) for out, _ in ended]
    assert sorted(outcome["verdict"] for outcome in said) == ["promoted", "unchanged", "unchanged", "unchanged"]
    waiting = [outcome["reason"] for outcome in said if outcome["verdict"] == "unchanged"]
    assert all("Waited for windvane train (process" in reason for reason in waiting)
    assert ledger(project, "select count(*) from versions") == [(1,)]
    assert len(mlflow_runs(project, "tags.`windvane.fingerprint` like '%'")) == 1


def test_a_lap_killed_while_it_searches_keeps_its_trials_and_leaves_nothing_running(
    project: Folder, prefect_server: str
) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    project.set(search__trials=12)
    process = project.start("train", "--json", env=env)

    def trials() -> int:
        return sum(path.read_text().count('"state":1,') for path in project.path.glob(".windvane/laps/*/journal.log"))

    until(lambda: trials() >= 5 or process.poll() is not None, 240, "five trials are finished", pause=0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    finished = trials()
    said = project.train(env=env)
    assert said["verdict"] == "promoted"
    whole = 2 + 12 + 2 + 1  # the baseline's two forms, the trials, the evaluation with its baseline, the final refit
    assert 5 <= finished <= 14
    assert said["fits"] <= whole - finished
    assert ledger(project, "select state from laps order by started") == [("crashed",), ("finished",)]
    assert {run.info.status for run in mlflow_runs(project)} == {"FINISHED", "KILLED"}
    (dead,) = ledger(project, "select id from laps where state = 'crashed'")[0]
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    with prefect_client(prefect_server) as client:
        where = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"lap-{dead}"]))
        assert {run.state_name for run in client.read_flow_runs(flow_run_filter=where)} == {"Crashed"}
        assert all(task.state.is_final() for task in client.read_task_runs(flow_run_filter=where))


def stored_model(folder: Folder) -> Path:
    (uri,) = ledger(folder, "select model_uri from versions")[0]
    return folder.path / str(uri)


def test_score_answers_with_the_champion(copied: Folder) -> None:
    table = pd.read_csv(copied.path / "data" / "txhousing.csv")
    ran = copied.run("score", "data/txhousing.csv", "scored.parquet", "--json")
    assert ran.status == 0, ran.err
    scored = pd.read_parquet(copied.path / "scored.parquet")
    assert (ran.json["rows"], ran.json["version"]) == (len(table), 1)
    labelled = scored.assign(median=pd.to_numeric(scored["median"])).dropna(subset=["median"])
    baseline = (labelled["median"] - labelled["median"].median()).abs().mean()
    assert (labelled["prediction"] - labelled["median"]).abs().mean() < baseline / 2
    again = copied.run("score", "scored.parquet", "again.csv")
    assert again.status == 0, again.err
    assert len(pd.read_csv(copied.path / "again.csv")) == len(table)


@pytest.mark.parametrize("name", ["model.skops", "MLmodel", "manifest.json", "sample.parquet"])
def test_a_flipped_byte_is_refused_by_name(copied: Folder, name: str) -> None:
    stored = stored_model(copied) / name
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    ran = copied.run("score", "data/txhousing.csv", "scored.csv")
    assert ran.status == 1
    assert name in ran.err
    assert "Traceback" not in ran.err
    assert not (copied.path / "scored.csv").exists()


def test_a_pickle_in_the_models_place_is_never_opened(copied: Folder) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path(copied.path / "exploded").touch, ())

    (stored_model(copied) / "model.skops").write_bytes(pickle.dumps(Bomb()))
    ran = copied.run("score", "data/txhousing.csv", "scored.csv")
    assert ran.status == 1
    assert "model.skops" in ran.err
    assert not (copied.path / "exploded").exists()


def test_promote_and_rollback_move_the_champion_and_mlflow_follows(relearned: Folder) -> None:
    if relearned.run("status", "--json").json["champion"]["version"] == 1:
        assert relearned.run("rollback").status == 2  # version 1 came first
        assert relearned.run("promote", "2", "--json").json == {"from": 1, "to": 2}
    assert relearned.run("status", "--json").json["champion"]["version"] == 2
    assert relearned.run("rollback", "--json").json == {"from": 2, "to": 1}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{relearned.path}/.windvane/mlflow.db")
    assert client.get_model_version_by_alias("texas-house-prices", "champion").version == 1
    assert relearned.run("promote", "9").status == 2


def test_an_alias_moved_by_hand_in_mlflow_is_adopted_and_a_lost_one_is_put_back(
    relearned: Folder, prefect_server: str
) -> None:
    from mlflow import MlflowClient

    env = {"PREFECT_API_URL": prefect_server}
    serving = relearned.run("status", "--json").json["champion"]["version"]
    client = MlflowClient(f"sqlite:///{relearned.path}/.windvane/mlflow.db")
    client.set_registered_model_alias("texas-house-prices", "champion", str(3 - serving))
    relearned.set(gate__confidence=0.9)
    relearned.train(env=env)
    causes = [cause for (cause,) in ledger(relearned, "select cause from promotions order by id")]
    assert "adopted" in causes
    client.delete_registered_model_alias("texas-house-prices", "champion")
    relearned.set(gate__confidence=0.8)
    relearned.train(env=env)
    champion = relearned.run("status", "--json").json["champion"]["version"]
    assert int(client.get_model_version_by_alias("texas-house-prices", "champion").version) == champion


def test_without_its_mlflow_store_a_project_says_what_is_gone(copied: Folder, prefect_server: str) -> None:
    promotions = "select from_version, to_version, promoted from promotions order by id"
    before = ledger(copied, promotions)
    (copied.path / ".windvane" / "mlflow.db").unlink()
    source = copied.path / "data" / "txhousing.csv"
    source.write_text("\n".join(source.read_text().splitlines()[:-40]) + "\n")
    for command in ("status", "train"):
        ran = copied.run(command, env={"PREFECT_API_URL": prefect_server})
        assert "Traceback" not in ran.err, ran.err[-3000:]
    assert "MLflow's store is gone, though the ledger holds version 1" in ran.err
    assert ledger(copied, promotions) == before


def test_the_ledger_may_live_in_postgresql_and_a_secret_from_the_environment_is_logged_nowhere(
    project: Folder, prefect_server: str, postgres: str
) -> None:
    from mlflow import MlflowClient

    project.set(project="${NAME_OF_IT}")
    env = {"PREFECT_API_URL": prefect_server, "WINDVANE_LEDGER_URL": postgres, "NAME_OF_IT": "houses"}
    said = project.train("--cause", "secrets", env=env)
    assert said["verdict"] == "promoted"
    assert project.train(env=env)["verdict"] == "unchanged"
    assert not (project.path / ".windvane" / "ledger.db").exists()
    run = MlflowClient(f"sqlite:///{project.path}/.windvane/mlflow.db").get_run(said["run_id"])
    assert run.data.params["project"] == "${NAME_OF_IT}"
    artifacts = project.path / ".windvane" / "artifacts"
    assert not [path for path in artifacts.rglob("params.yaml") if "houses" in path.read_text().split("source")[0]]


def test_the_project_starts_a_prefect_server_of_its_own_and_stops_it(project: Folder) -> None:
    import psutil

    def left() -> list[Any]:
        return [p for p in psutil.process_iter(["environ"]) if str(project.path) in str(p.info["environ"])]

    assert project.train()["verdict"] == "promoted"
    until(lambda: not left(), what="the project's own Prefect server ends")


def test_a_lap_lets_go_of_what_the_ledger_has_kept_long_enough(copied: Folder) -> None:
    from tests.support.ledgers import answer, put
    from windvane.flows.lap import context as laps
    from windvane.ledger.labels import PredictionQuery, read_labelled_predictions
    from windvane.tasks.console import Console
    from windvane.tasks.lap_outcome import LapOutcome
    from windvane.tasks.project import Project

    project = Project(copied.path)
    put(project.ledger, project.name, answer("old"), received="2001-01-01T00:00:00.000000+00:00")
    put(project.ledger, project.name, answer("new"))
    (told,) = ledger(copied, "SELECT outcome FROM laps")
    with laps.open_lap(project, "test", "search", Console(False)) as lap, laps.track_lap(lap):
        laps.finish_lap(lap, LapOutcome.from_json(json.loads(told[0])))
    assert [
        one.id for one in read_labelled_predictions(project.ledger, project.name, PredictionQuery(unlabelled=True))
    ] == ["new"]


def test_mlflow_is_told_of_a_rollback_by_a_process_of_its_own(copied: Folder) -> None:
    from mlflow import MlflowClient

    from windvane.flows.services.scoring_service import repair_aliases_elsewhere
    from windvane.ledger import versions
    from windvane.tasks.errors import Outage
    from windvane.tasks.project import Project

    project = Project(copied.path)
    client = MlflowClient(f"sqlite:///{copied.path}/.windvane/mlflow.db")
    client.delete_registered_model_alias(project.name, "champion")
    versions.record_promotion(
        project.ledger, project.name, versions.make_promotion(1, 1, "rollback", "canary: it failed")
    )
    repair_aliases_elsewhere(copied.path)
    assert int(client.get_model_version_by_alias(project.name, "champion").version) == 1
    last = versions.find_last_promotion(project.ledger, project.name)
    assert last is not None
    assert last.told
    (copied.path / ".windvane" / "mlflow.db").write_bytes(b"not a database, but something else altogether")
    with pytest.raises(Outage, match="The next lap updates it"):
        repair_aliases_elsewhere(copied.path)


def test_a_misspelt_private_column_ends_check_lap_and_service(copied: Folder) -> None:
    copied.set(ledger__drop=["citi"], search__trials=5)
    for command in (("check",), ("train",), ("serve", "--port", "0"), ("erase", "--where", "city=Waco")):
        ran = copied.run(*command)
        assert ran.status == 2, (command, ran.err)
        assert "ledger.drop" in ran.err + ran.out
        assert "Did you mean 'city'?" in ran.err + ran.out
        assert "Traceback" not in ran.err
