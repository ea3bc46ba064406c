"""The whole loop against MLflow servers of other people: SQLite and PostgreSQL, artifacts passed on and written directly, with users."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.support.mlflow_server import USER, MlflowServer
from tests.support.projects import Folder, Ran, quick_project
from tests.support.served_models import serving
from tests.support.storage_server import Storage

pytestmark = pytest.mark.slow
NAME = "sales"
# database, artifacts passed on by the server, users
SERVERS = {
    "sqlite, proxied": ("sqlite", True, False),
    "postgres, proxied, users": ("postgres", True, True),
    "sqlite, direct, users": ("sqlite", False, True),
    "postgres, direct": ("postgres", False, False),
}
# What MLflow would write on the screen if nobody stopped it.
CHATTER = ("View run", "View experiment", "Downloading artifacts", "it/s]", "Traceback", "🏃")


def stream(start: str, days: int, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Sales, eight a day: a price that follows size and town. `shift` moves the sizes."""
    rng = np.random.default_rng(seed)
    at = pd.date_range(start, periods=days, freq="D").repeat(8) + pd.to_timedelta(np.tile(np.arange(8), days), "h")
    size, town = rng.normal(100 + shift, 20, len(at)), rng.choice(["Ulm", "Bonn", "Kiel"], len(at))
    worth = pd.Series(town).map({"Ulm": 0.0, "Bonn": 40.0, "Kiel": 80.0}).to_numpy()
    price = 3 * size + worth + rng.normal(0, 12, len(at))
    return pd.DataFrame({"at": at, "size": size.round(2), "town": town, "price": price.round(2)})


class Site(Folder):
    """A project that keeps its runs on a server of other people."""

    def __init__(self, path: Path, server: MlflowServer, prefect: str) -> None:
        super().__init__(path)
        self.server = server
        self.env = {"PREFECT_API_URL": prefect, "AWS_EC2_METADATA_DISABLED": "true", **server.client_environment}

    def run(self, *arguments: str, **more: Any) -> Ran:
        """A command with the server's variables; nothing of MLflow's own chatter is on the screen."""
        ran = super().run(*arguments, **{**more, "env": {**self.env, **(more.get("env") or {})}})
        for word in CHATTER:
            assert word not in ran.out + ran.err, ran.out + ran.err
        return ran

    def well(self, *arguments: str, **more: Any) -> Any:
        """The object of a command that must end well."""
        ran = self.run(*arguments, "--json", **more)
        assert ran.status == 0, ran.err
        return ran.json

    def refused(self, *arguments: str, status: int, **more: Any) -> str:
        """The one sentence of a command that must not."""
        ran = self.run(*arguments, **more)
        assert ran.status == status, ran.err
        return next(line for line in ran.err.splitlines() if line.startswith("windvane: "))

    @property
    def champion(self) -> int:
        return int(self.well("status")["champion"]["version"])

    @property
    def alias(self) -> int | None:
        """Where MLflow's alias points."""
        query = {"name": NAME, "alias": "champion"}
        answer = self.server.get("2.0/mlflow/registered-models/alias", **query)
        return int(answer.json()["model_version"]["version"]) if answer.status_code == 200 else None

    def forget(self) -> None:
        """Lose all copies of what lies in MLflow."""
        for name in ("downloads", "serving"):
            shutil.rmtree(self.path / ".windvane" / name, ignore_errors=True)


def site(path: Path, server: MlflowServer, prefect: str) -> Site:
    """A small project, not yet trained."""
    folder = quick_project(path)
    (path / "data" / "txhousing.csv").unlink()
    stream("2025-01-01", 120).to_csv(path / "data" / "sales.csv", index=False)
    folder.set(
        project=NAME,
        problem__target="price",
        problem__time="at",
        problem__ignore=[],
        data__source="data/sales.csv",
        search__candidates=["linear"],
        monitor__window="7d",
        retrain__policy="never",
    )
    return Site(path, server, prefect)


def runs(server: MlflowServer) -> list[dict[str, Any]]:
    """All runs of the project. Its experiment's number is the database's choice: a sequence may skip one."""
    named = server.get("2.0/mlflow/experiments/get-by-name", experiment_name=NAME).json()["experiment"]
    asked = {"experiment_ids": [named["experiment_id"]], "max_results": 100}
    found: list[dict[str, Any]] = server.post("2.0/mlflow/runs/search", **asked).json()["runs"]
    return found


def database(postgres: str) -> str:
    """A new, empty database of a PostgreSQL server."""
    import psycopg

    name = f"mlflow_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return f"{postgres.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="module")
def keys(s3_server: Storage) -> Iterator[Storage]:
    """The shared S3 server under the usual variables, with a bucket of its own for this file."""
    told = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "secret-of-tests"}
    told |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_server.url, "AWS_MAX_ATTEMPTS": "2"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        s3_server.empty()
        yield s3_server


# One has all of it and stands for the others in `make slow`.
EACH = [pytest.param(name, marks=() if name == "postgres, proxied, users" else pytest.mark.trial) for name in SERVERS]


@pytest.fixture(scope="module", params=EACH)
def server(request: pytest.FixtureRequest, keys: Storage, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind of server, for the whole loop."""
    kind, proxied, users = SERVERS[request.param]
    folder = tmp_path_factory.mktemp("mlflow")
    at = f"sqlite:///{folder}/mlflow.db" if kind == "sqlite" else database(request.getfixturevalue("postgres"))
    running = MlflowServer(folder, at, f"s3://bucket/{folder.name}", proxied, users).start()
    running.wait()
    yield running
    running.kill()


def with_more(folder: Site, days: int, shift: float = 0.0) -> None:
    """The table, and as many days more."""
    table = pd.concat([stream("2025-01-01", 120), stream("2025-05-01", days, seed=1, shift=shift)])
    table.to_csv(folder.path / "data" / "sales.csv", index=False)


def test_the_whole_loop_runs_on_it_and_outlives_its_outages(
    server: MlflowServer, tmp_path: Path, prefect_server: str
) -> None:
    project = site(tmp_path / "project", server, prefect_server)
    assert project.run("check").status == 0
    first = project.well("train")
    assert (first["verdict"], first["version"], project.alias) == ("promoted", 1, 1)
    assert project.well("train")["verdict"] == "unchanged"

    with_more(project, 60, shift=25)
    seen = project.well("monitor")
    assert seen["drift"]["alarm"]
    assert any("watch: " in run["info"]["run_name"] for run in runs(server))
    second = project.well("train", "--depth", "refit")
    assert (second["verdict"], second["version"], project.alias) == ("promoted", 2, 2)

    rows = project.path / "new.csv"
    stream("2025-08-01", 5).drop(columns="price").to_csv(rows, index=False)
    project.forget()
    assert project.well("score", "new.csv", "scored.csv")["version"] == 2
    scored = pd.read_csv(project.path / "scored.csv")
    with serving(project, **project.env) as (_, port):
        told = pd.read_csv(rows).to_dict("records")
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": told}, timeout=60)
    assert answer.json()["model_version"] == 2
    np.testing.assert_allclose(answer.json()["predictions"], scored["prediction"], rtol=1e-6)

    assert project.well("rollback") == {"from": 2, "to": 1}
    assert (project.champion, project.alias) == (1, 1)
    assert project.well("promote", "2") == {"from": 1, "to": 2}
    assert (project.champion, project.alias) == (2, 2)
    if server.auth:
        _knows_its_user(project)
    # What it does in an outage is one sentence, and nothing is lost by it.
    _in_the_middle_of_a_lap(project)
    _while_it_scores_and_serves(project)
    _while_it_goes_back(project)


def _knows_its_user(project: Site) -> None:
    """Without, and with wrong credentials: one sentence that names the variables, beforehand and at the lap."""
    none = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}
    wrong = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    assert "requires credentials. Set MLFLOW_TRACKING_USERNAME" in project.run("check", env=none).out
    assert "does not accept these credentials. Fix MLFLOW_TRACKING_USERNAME" in project.run("check", env=wrong).out
    assert "MLFLOW_TRACKING_USERNAME" in project.refused("rollback", status=2, env=wrong)
    assert project.champion == 2
    if not project.server.proxied:
        gone = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        ran = project.run("check", env=gone)
        assert ran.status == 2
        assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in ran.out
        away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
        assert "artifact store" in project.run("check", env=away).out


@pytest.mark.parametrize("server", [each for each in EACH if SERVERS[each.values[0]][2]], indirect=True)
def test_a_user_who_may_only_read_is_told_so_by_check(
    server: MlflowServer, tmp_path: Path, prefect_server: str
) -> None:
    answer = server.post("2.0/mlflow/experiments/create", name="theirs")
    assert answer.status_code == 200, answer.text
    project = site(tmp_path / "project", server, prefect_server)
    project.set(project="theirs")
    ran = project.run("check")
    assert ran.status == 2
    assert "does not allow this" in ran.out
    assert "grant EDIT" in ran.out


def _in_the_middle_of_a_lap(project: Site) -> None:
    project.set(search__trials=8, search__candidates=["linear", "boosting"])
    process = project.start("train", env=project.env)
    laps = project.path / ".windvane" / "laps"
    _until(process, lambda: list(laps.glob("*/journal.log")))
    project.server.kill()
    _, err = process.communicate(timeout=400)
    assert process.returncode == 1, err
    (said,) = [line for line in err.splitlines() if line.startswith("windvane: ")]
    assert f"MLflow at {project.server.url} does not respond" in said
    assert "Traceback" not in err
    project.server.start().wait()
    assert project.well("train")["version"] == 3
    if project.champion == 2:
        project.well("promote", "3")
    assert "RUNNING" not in {run["info"]["status"] for run in runs(project.server)}


def _while_it_scores_and_serves(project: Site) -> None:
    stream("2025-08-01", 5).drop(columns="price").to_csv(project.path / "new.csv", index=False)
    project.forget()
    project.well("promote", "2")  # which has a copy from now on
    project.well("promote", "3")
    project.well("score", "new.csv", "first.csv")
    with serving(project, **project.env):
        pass
    project.server.kill()
    ran = project.run("score", "new.csv", "second.csv", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.status == 0, ran.err
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "mlflow" not in imported
    assert (project.path / "first.csv").read_bytes() == (project.path / "second.csv").read_bytes()
    with serving(project, **project.env) as (_, port):
        assert httpx.get(f"http://127.0.0.1:{port}/model", timeout=60).json()["version"] == 3


def _while_it_goes_back(project: Site) -> None:
    """A script that tries again does not go one further back, and the next lap tells MLflow."""
    for _ in range(2):
        ran = project.run("rollback", "--json")
        assert (ran.status, ran.json) == (0, {"from": 3, "to": 2})
        assert "follows at the next lap" in ran.err
        assert project.champion == 2
    project.server.start().wait()
    assert project.alias == 3
    assert project.run("train").status == 0
    assert project.alias == project.champion


def _until(process: subprocess.Popen[str], true: Any) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
