"""The whole loop against MLflow servers of other people: SQLite and PostgreSQL, artifacts passed on and written directly, with users."""

from __future__ import annotations

import shutil
import signal
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

from tests.conftest import Folder, Ran, quick_project
from tests.mlflow_server import USER, MlflowServer
from tests.served import serving
from tests.storage_server import Storage

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


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, keys: Storage, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each kind of server, for the whole loop."""
    kind, proxied, users = SERVERS[request.param]
    folder = tmp_path_factory.mktemp("mlflow")
    at = f"sqlite:///{folder}/mlflow.db" if kind == "sqlite" else database(request.getfixturevalue("postgres"))
    running = MlflowServer(folder, at, f"s3://bucket/{folder.name}", proxied, users).start()
    running.wait()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def taught(keys: Storage, tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Site]:
    """A project with two versions on a server whose files can be copied: the second serves. Tests take copies of all of it."""
    folder = tmp_path_factory.mktemp("faults")
    running = MlflowServer(folder / "mlflow", f"sqlite:///{folder}/mlflow/mlflow.db", f"{folder}/mlflow/files").start()
    running.wait()
    made = site(folder / "project", running, prefect_server)
    try:
        assert made.well("train")["verdict"] == "promoted"
        with_more(made, 60)
        made.well("train", "--depth", "refit")
        if made.champion == 1:
            assert made.well("promote", "2") == {"from": 1, "to": 2}
        yield made
    finally:
        running.kill()


@pytest.fixture
def fault(taught: Site, tmp_path: Path) -> Iterator[Site]:
    """A copy of that project on a server of its own, which may be killed and whose versions may be deleted."""
    taught.server.kill()
    shutil.copytree(taught.server.folder, tmp_path / "mlflow")
    shutil.copytree(taught.path, tmp_path / "project")
    old, new = str(taught.server.folder), str(tmp_path / "mlflow")
    running = MlflowServer(tmp_path / "mlflow", f"sqlite:///{new}/mlflow.db", f"{new}/files").start()
    assert old != new
    running.wait()
    yield Site(tmp_path / "project", running, taught.env["PREFECT_API_URL"])
    running.kill()


def with_more(folder: Site, days: int, shift: float = 0.0) -> None:
    """The table, and as many days more."""
    table = pd.concat([stream("2025-01-01", 120), stream("2025-05-01", days, seed=1, shift=shift)])
    table.to_csv(folder.path / "data" / "sales.csv", index=False)


def test_the_whole_loop_runs_on_it(server: MlflowServer, tmp_path: Path, prefect_server: str) -> None:
    project = site(tmp_path / "project", server, prefect_server)
    assert project.run("check").status == 0
    first = project.well("train")
    assert (first["verdict"], first["version"], project.alias) == ("promoted", 1, 1)
    assert project.well("train")["verdict"] == "unchanged"

    with_more(project, 60, shift=25)
    seen = project.well("monitor")
    assert seen["drift"]["alarm"]
    assert "watch: " in server.post("2.0/mlflow/runs/search", experiment_ids=["1"]).text
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


def _knows_its_user(project: Site) -> None:
    """Without, and with wrong credentials: one sentence that names the variables, beforehand and at the lap."""
    none = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}
    wrong = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    assert "asks for credentials. Set MLFLOW_TRACKING_USERNAME" in project.run("check", env=none).err
    assert "does not accept these credentials. Mend MLFLOW_TRACKING_USERNAME" in project.run("check", env=wrong).err
    assert "MLFLOW_TRACKING_USERNAME" in project.refused("rollback", status=2, env=wrong)
    assert project.champion == 2
    if not project.server.proxied:
        gone = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        ran = project.run("check", env=gone)
        assert ran.status == 2
        assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in ran.err
        away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
        assert "artifact store" in project.run("check", env=away).err


def test_a_user_who_may_only_read_is_told_so_by_check(
    server: MlflowServer, tmp_path: Path, prefect_server: str
) -> None:
    if not server.auth:
        pytest.skip("this server has no users")
    answer = server.post("2.0/mlflow/experiments/create", name="theirs")
    assert answer.status_code == 200, answer.text
    project = site(tmp_path / "project", server, prefect_server)
    project.set(project="theirs")
    ran = project.run("check")
    assert ran.status == 2
    assert "does not allow this" in ran.err
    assert "grant EDIT" in ran.err


def test_scoring_and_serving_need_neither_mlflow_nor_its_server_once_a_copy_is_at_hand(fault: Site) -> None:
    stream("2025-08-01", 5).drop(columns="price").to_csv(fault.path / "new.csv", index=False)
    fault.forget()
    fault.well("score", "new.csv", "first.csv")
    with serving(fault, **fault.env) as (_, _port):
        pass
    fault.server.kill()
    ran = fault.run("score", "new.csv", "second.csv", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.status == 0, ran.err
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "mlflow" not in imported
    assert (fault.path / "first.csv").read_bytes() == (fault.path / "second.csv").read_bytes()
    with serving(fault, **fault.env) as (process, port):
        assert httpx.get(f"http://127.0.0.1:{port}/model", timeout=60).json()["version"] == 2
        process.send_signal(signal.SIGTERM)


def test_a_version_deleted_in_mlflow_is_never_put_back_however_often_it_is_tried(fault: Site) -> None:
    fault.server.delete("2.0/mlflow/model-versions/delete", name=NAME, version="1")
    for _ in range(2):
        said = fault.refused("rollback", status=2)
        assert "version 1 was deleted in MLflow. Nothing was changed; `windvane train` makes a new one" in said
        assert "version 1 was deleted in MLflow" in fault.refused("promote", "1", status=2)
        assert (fault.champion, fault.alias) == (2, 2)
    assert "was never registered" in fault.refused("promote", "7", status=2)


def test_a_rollback_during_an_outage_moves_once_and_the_next_lap_tells_mlflow(fault: Site) -> None:
    fault.server.kill()
    ran = fault.run("rollback", "--json")
    assert (ran.status, ran.json) == (0, {"from": 2, "to": 1})
    assert "follows at the next lap" in ran.err
    again = fault.run("rollback", "--json")  # a script that tries again
    assert (again.status, again.json) == (0, {"from": 2, "to": 1})
    assert fault.champion == 1
    fault.server.start().wait()
    assert fault.alias == 2
    fault.run("train")
    assert fault.alias == fault.champion


def test_a_registered_model_deleted_whole_is_registered_again(fault: Site) -> None:
    fault.server.delete("2.0/mlflow/registered-models/delete", name=NAME)
    assert fault.alias is None
    fault.set(gate__confidence=0.6)
    ran = fault.run("train")
    assert ran.status == 0, ran.err
    assert "its 2 versions were registered again from the ledger" in ran.err
    assert fault.alias == fault.champion
    assert fault.well("rollback") == {"from": 2, "to": 1}


def test_a_champion_deleted_in_mlflow_serves_on_and_laps_say_so(fault: Site) -> None:
    fault.server.delete("2.0/mlflow/model-versions/delete", name=NAME, version="2")
    fault.set(gate__confidence=0.6)
    ran = fault.run("train")
    assert ran.status == 0, ran.err
    assert "version 2 serves, but was deleted in MLflow" in ran.err
    assert fault.champion == 2
    assert fault.well("train")["verdict"] == "unchanged"


def test_a_deleted_experiment_is_named_with_its_remedy(fault: Site) -> None:
    fault.server.post("2.0/mlflow/experiments/delete", experiment_id="1").raise_for_status()
    fault.set(search__trials=2)
    said = fault.refused("train", status=2)
    assert "was deleted in MLflow" in said
    assert "mlflow experiments restore --experiment-id 1" in said
    assert "mlflow experiments restore --experiment-id 1" in fault.run("check").err
    fault.server.post("2.0/mlflow/experiments/restore", experiment_id="1").raise_for_status()
    assert fault.run("train").status == 0


def test_an_outage_in_the_middle_of_a_lap_is_one_sentence_and_the_next_run_goes_on(fault: Site) -> None:
    fault.set(search__trials=6, search__candidates=["linear", "tree", "boosting"])
    process = fault.start("train", env=fault.env)
    laps = fault.path / ".windvane" / "laps"
    _until(process, lambda: list(laps.glob("*/journal.log")))
    fault.server.kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    (said,) = [line for line in err.splitlines() if line.startswith("windvane: ")]
    assert f"MLflow at {fault.server.url} does not answer" in said
    assert "Traceback" not in err
    fault.server.start().wait()
    again = fault.well("train")
    assert again["version"] == 3
    states = fault.server.post("2.0/mlflow/runs/search", experiment_ids=["1"], max_results=100).json()["runs"]
    assert "RUNNING" not in {run["info"]["status"] for run in states}


def test_a_version_that_was_registered_and_never_judged_is_judged_by_the_next_lap(fault: Site) -> None:
    fault.set(search__trials=4)
    process = fault.start("train", env=fault.env)
    _until(
        process, lambda: fault.server.get("2.0/mlflow/model-versions/get", name=NAME, version="3").status_code == 200
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    after = fault.well("train")
    assert (after["version"], after["fits"]) == (3, 0)
    assert after["verdict"] in ("promoted", "refused", "unchanged")
    runs = fault.server.get("2.0/mlflow/runs/get", run_id=after["run_id"]).json()["run"]
    assert runs["info"]["status"] in ("FINISHED", "KILLED")
    assert "windvane.verdict" in {tag["key"] for tag in runs["data"]["tags"]}


def _until(process: subprocess.Popen[str], true: Any) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_certificate_that_nobody_knows_names_its_variable() -> None:
    import ssl

    import requests

    from windvane.tasks.errors import InputError
    from windvane.tasks.store_errors import in_words

    with pytest.raises(InputError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"), in_words("https://mlflow.example"):
        raise requests.exceptions.SSLError(ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED]"))


def test_a_password_in_an_address_is_not_shown() -> None:
    from windvane.tasks.addresses import shown

    assert shown("postgresql+psycopg://me:secret@host:5432/db?password=x") == "postgresql+psycopg://host:5432/db"
