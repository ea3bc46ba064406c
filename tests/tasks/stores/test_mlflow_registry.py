"""What people do to MLflow's registry behind our back, and what commands make of it; errors of MLflow in words."""

from __future__ import annotations

import shutil
import sqlite3
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.projects import Folder, quick_project
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.stores.mlflow_store import (
    find_local_path,
    get_parent_address,
    join_address,
    redact_address,
    translate_store_errors,
)

pytestmark = pytest.mark.long

NAME = "texas-house-prices"


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Path:
    """A project with two versions, of which the second serves; tests take copies."""
    folder = quick_project(tmp_path_factory.mktemp("taught") / "project")
    folder.set(search__candidates=["linear"])
    env = {"PREFECT_API_URL": prefect_server}
    assert folder.train(env=env)["verdict"] == "promoted"
    folder.set(search__candidates=["linear", "tree"])
    assert folder.train(env=env)["version"] == 2
    if folder.run("status", "--json").json["champion"]["version"] == 1:
        assert folder.run("promote", "2").status == 0
    return folder.path


@pytest.fixture
def project(two_versions: Path, tmp_path: Path) -> Folder:
    shutil.copytree(two_versions, tmp_path / "copy")
    return Folder(tmp_path / "copy")


def client(folder: Folder) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db")


def alias(folder: Folder) -> int | None:
    from mlflow.exceptions import MlflowException

    try:
        return int(client(folder).get_model_version_by_alias(NAME, "champion").version)
    except MlflowException:
        return None


def champion(folder: Folder) -> int:
    return int(folder.run("status", "--json").json["champion"]["version"])


def refused(folder: Folder, *arguments: str) -> str:
    """The one sentence of a command that is refused for what it was given."""
    ran = folder.run(*arguments)
    assert ran.status == 2, ran.err
    assert "Traceback" not in ran.err
    return ran.err


@pytest.mark.slow
def test_g1_a_version_deleted_in_mlflow_is_never_put_back_however_often_it_is_tried(project: Folder) -> None:
    client(project).delete_model_version(NAME, "1")
    for _ in range(2):
        said = refused(project, "rollback")
        assert "version 1 was deleted in MLflow. Nothing was changed; `windvane train` makes a new one" in said
        assert "version 1 was deleted in MLflow" in refused(project, "promote", "1")
        assert (champion(project), alias(project)) == (2, 2)


@pytest.mark.slow
def test_a_rollback_over_a_deleted_version_names_the_one_that_could_serve(project: Folder, prefect_server: str) -> None:
    project.set(search__candidates=["tree"])
    assert project.train(env={"PREFECT_API_URL": prefect_server})["version"] == 3
    if champion(project) == 2:
        project.run("promote", "3")
    client(project).delete_model_version(NAME, "2")
    assert "`windvane promote 1` puts that one back" in refused(project, "rollback")
    assert project.run("promote", "1", "--json").json == {"from": 3, "to": 1}


@pytest.mark.slow
def test_a_rollback_that_was_killed_before_mlflow_was_told_is_not_made_twice(project: Folder) -> None:
    assert project.run("rollback", "--json").json == {"from": 2, "to": 1}
    with sqlite3.connect(project.path / ".windvane" / "ledger.db") as db:
        db.execute("update promotions set told = 0 where cause = 'rollback'")
    client(project).set_registered_model_alias(NAME, "champion", "2")
    assert project.run("rollback", "--json").json == {"from": 2, "to": 1}
    assert (champion(project), alias(project)) == (1, 1)


@pytest.mark.slow
def test_a_registered_model_deleted_whole_is_registered_again(project: Folder, prefect_server: str) -> None:
    client(project).delete_registered_model(NAME)
    project.set(gate__confidence=0.9)
    ran = project.run("train", env={"PREFECT_API_URL": prefect_server})
    assert ran.status == 0, ran.err
    assert "its 2 versions were registered again from the ledger" in ran.out
    assert alias(project) == champion(project) == 2
    assert project.run("rollback", "--json").json == {"from": 2, "to": 1}


@pytest.mark.slow
def test_a_champion_deleted_in_mlflow_serves_on_and_laps_say_so(project: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    client(project).delete_model_version(NAME, "2")
    project.set(gate__confidence=0.9)
    ran = project.run("train", env=env)
    assert ran.status == 0, ran.err
    assert "version 2 serves, but was deleted in MLflow" in ran.out
    assert champion(project) == 2
    assert project.train(env=env)["verdict"] == "unchanged"


@pytest.mark.slow
def test_an_alias_on_a_version_of_somebody_else_is_put_back(project: Folder, prefect_server: str) -> None:
    ours = client(project).get_model_version(NAME, "1")
    theirs = client(project).create_model_version(NAME, ours.source, ours.run_id)
    client(project).set_registered_model_alias(NAME, "champion", theirs.version)
    project.set(gate__confidence=0.9)
    ran = project.run("train", env={"PREFECT_API_URL": prefect_server})
    assert ran.status == 0, ran.err
    assert "version 3, which the ledger does not know: put back to version 2" in ran.out
    assert alias(project) == 2


@pytest.mark.slow
def test_a_deleted_experiment_is_named_with_its_remedy(project: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    number = client(project).get_experiment_by_name(NAME).experiment_id
    client(project).delete_experiment(number)
    project.set(gate__confidence=0.9)
    said = project.run("train", env=env)
    assert said.status == 2, said.err
    assert f"mlflow experiments restore --experiment-id {number}" in said.err
    assert "Traceback" not in said.err
    client(project).restore_experiment(number)
    assert project.run("train", env=env).status == 0


@pytest.mark.slow
def test_a_version_that_was_registered_and_never_judged_is_judged_by_the_next_lap(
    project: Folder, prefect_server: str
) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    project.set(search__candidates=["tree"])
    process = project.start("train", env=env)

    def registered() -> bool:
        with sqlite3.connect(project.path / ".windvane" / "ledger.db") as db:
            return bool(db.execute("select 1 from versions where version = 3").fetchone())

    deadline = time.monotonic() + 240
    while not registered():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    process.kill()
    process.communicate()
    after = project.train(env=env)
    # No more than the champion's configuration, on the rows that the two are compared on.
    assert (after["version"], after["fits"]) in ((3, 0), (3, 1))
    with sqlite3.connect(project.path / ".windvane" / "ledger.db") as db:
        assert db.execute("select count(*) from judgements where version = 3").fetchone() == (1,)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///a%20b/model", "/a b/model"),
        ("/a b/model#1?", "/a b/model#1?"),
        (".windvane/artifacts/1/r/artifacts/model", ".windvane/artifacts/1/r/artifacts/model"),
        ("mlflow-artifacts:/1/r/artifacts/model", None),
        ("mlflow-artifacts://host:5000/1/r/artifacts/model", None),
        ("s3://bucket/1/r/artifacts/model", None),
        ("runs:/r/model", None),
        ("models:/sales/1", None),
        ("abfss://c@account.dfs.core.windows.net/1/r/model", None),
    ],
)
def test_an_address_is_on_disk_or_elsewhere(address: str, path: str | None) -> None:
    found = find_local_path(address)
    assert (None if found is None else str(found)) == path


@pytest.mark.parametrize("root", ["mlflow-artifacts:/1/r", "s3://b/1/r", "file:///tmp/a%20b/r", "runs:/r", "a b/r"])
def test_what_lies_beside_an_address_has_one_too(root: str) -> None:
    assert join_address(get_parent_address(f"{root}/model"), "data/split.json") == f"{root}/data/split.json"
    assert join_address(f"{root}/", "model") == f"{root}/model"


def test_settings_of_an_address_stay_behind_its_path() -> None:
    assert (
        join_address(get_parent_address("s3://b/r/model?endpoint=x"), "version.json")
        == "s3://b/r/version.json?endpoint=x"
    )


def test_a_password_in_an_address_is_not_shown() -> None:
    assert (
        redact_address("postgresql+psycopg://me:secret@host:5432/db?password=x") == "postgresql+psycopg://host:5432/db"
    )
    assert redact_address("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


def failing(error: Exception) -> str:
    with pytest.raises((InputError, Outage)) as caught, translate_store_errors("https://me:secret@mlflow.example"):
        raise error
    assert "secret" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_errors_of_servers_and_storage_name_the_variable_to_set() -> None:
    import boto3.exceptions
    import botocore.exceptions as aws
    import requests

    denied = aws.ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    certificate = requests.exceptions.SSLError(ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED"))
    assert "Set MLFLOW_TRACKING_SERVER_CERT_PATH" in failing(certificate)
    assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in failing(aws.NoCredentialsError())
    assert "InputError" in failing(denied)
    assert "Fix AWS_ACCESS_KEY_ID" in failing(boto3.exceptions.S3UploadFailedError(f"Failed to upload: {denied}"))
    assert "Set AWS_CA_BUNDLE" in failing(aws.SSLError(endpoint_url="https://s3", error="SSL validation failed"))
    assert "Outage" in failing(aws.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"))
    assert "Outage" in failing(requests.exceptions.ConnectionError("[Errno 111] Connection refused"))


def test_an_error_of_ours_is_not_hidden_in_words() -> None:
    with pytest.raises(KeyError), translate_store_errors("http://127.0.0.1"):
        raise KeyError("a mistake in the code")
