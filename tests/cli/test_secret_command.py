"""`windvane secret`, and what happens where the server that should be the project's own is another one."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.projects import ROOT, Folder
from windvane.flows.orchestration import server
from windvane.flows.services import up, up_state
from windvane.flows.services.supervisor import ServiceSpec, Supervisor
from windvane.flows.services.up_state import UpState
from windvane.ledger.laps import LeaseHolder
from windvane.serving.http import auth_middleware
from windvane.serving.http.auth_middleware import Credentials, SecretMiddleware
from windvane.tasks import project_secrets
from windvane.tasks.errors import Outage
from windvane.tasks.project import Project

pytestmark = pytest.mark.long


@pytest.fixture
def settled(tmp_path: Path) -> Folder:
    """A project without a table."""
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return Folder(tmp_path)


def test_a_new_secret_takes_the_place_of_the_old_one(settled: Folder) -> None:
    first = settled.type("secret", "--json").json
    assert settled.type("secret", "--json").json == first
    renewed = settled.type("secret", "--renew", "--json").json
    assert renewed != first
    assert (
        settled.type("secret", "--json").json
        == renewed
        == {"secret": Credentials.of(settled.path / ".windvane").secret}
    )


def test_a_spoilt_secret_is_named_with_the_command_that_mends_it(settled: Folder) -> None:
    (settled.path / ".windvane").mkdir()
    (settled.path / ".windvane" / "secret").write_text("mine")
    ran = settled.type("secret")
    assert (ran.status, "windvane secret --renew" in ran.err, "Traceback" in ran.err) == (2, True, False)
    assert settled.type("secret", "--renew").status == 0
    assert settled.type("secret").status == 0


def test_links_are_printed_on_a_terminal_and_never_in_a_log(tmp_path: Path) -> None:
    credentials = Credentials.of(tmp_path)
    run, elsewhere = ("true",), None
    services = [
        ServiceSpec("mlflow", "http://127.0.0.1:5000", lambda _: True, run),
        ServiceSpec("prefect", "http://prefect.example", lambda _: True, elsewhere),
        ServiceSpec("service", "http://127.0.0.1:8000", lambda _: True, run),
    ]
    watched = Supervisor(services, tmp_path / "up", lambda _: None)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    project = Project(tmp_path)
    # What runs elsewhere does not know this secret.
    assert up._format_links(project, watched, credentials, True) == [
        f"  open MLflow   http://127.0.0.1:5000/?secret={credentials.secret}"
    ]
    assert credentials.secret not in "".join(up._format_links(project, watched, credentials, False))


def test_h1_n3_the_link_to_mlflow_opens_the_runs_of_the_project(settled: Folder) -> None:
    project, credentials = Project(settled.path), Credentials.of(settled.path)
    addresses = {"mlflow": "http://127.0.0.1:5000", "prefect": "http://127.0.0.1:4200"}
    first, second = up_state.make_page_links(project, addresses, credentials)
    assert first.endswith(f"/?secret={credentials.secret}")
    project.home.mkdir()
    with closing(sqlite3.connect(project.home / "mlflow.db")) as db:
        db.execute("create table experiments (experiment_id, name)")
        db.execute("create table experiment_tags (experiment_id, key, value)")
        db.execute("insert into experiments values (0, 'Default'), (7, ?)", (project.name,))
        db.commit()
        # Before the first lap there is no view of the runs, and MLflow would go elsewhere.
        assert up_state.make_page_links(project, addresses, credentials) == [first, second]
        db.execute("insert into experiment_tags values (7, 'mlflow.sharedViewState.laps', '{}')")
        db.commit()
    linked = up_state.make_page_links(project, addresses, credentials)
    view = "workflowType=machine_learning&viewStateShareKey=laps"
    assert linked == [f"{first}#/experiments/7/runs?{view}", second]


class Served:
    """A guarded application on a real port, that keeps the headers of what reaches its port."""

    def __init__(self, credentials: Credentials) -> None:
        self.headers: list[Any] = []
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        inner = SecretMiddleware(self._inside, credentials, listener.getsockname()[1])

        async def outside(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.headers += scope["headers"]
            await inner(scope, receive, send)

        self._server = auth_middleware.make_uvicorn_server(outside)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    async def _inside(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def up_with_an_older_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A project whose `up` runs, and whose secret was renewed since."""
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / ".windvane"
    served = Served(Credentials.of(home))
    project_secrets.renew_project_secret(home)
    up_state.write_up_state(home, UpState(LeaseHolder.me("up"), prefect=f"{served.url}/api", starts_prefect=True))
    yield served
    served.stop()


def test_a_server_with_another_secret_is_told_from_ones_own_and_gets_no_secret(
    up_with_an_older_secret: Served, tmp_path: Path
) -> None:
    home = tmp_path / ".windvane"
    with server.use_prefect_server(home / "prefect") as prefect:
        with pytest.raises(Outage, match=r"does not know this project's secret.*start `windvane up` again"):
            prefect.wait()
        assert os.environ["PREFECT_API_AUTH_STRING"] == Credentials.of(home).basic
    assert up_with_an_older_secret.headers
    assert Credentials.of(home).secret not in str(up_with_an_older_secret.headers)
    assert "PREFECT_API_AUTH_STRING" not in os.environ


def test_refusals_are_many_at_once_and_small(tmp_path: Path) -> None:
    import httpx

    served = Served(Credentials.of(tmp_path))
    try:
        with httpx.Client(base_url=served.url, timeout=60) as client, ThreadPoolExecutor(8) as threads:
            body = b"x" * 3_000_000
            answers = list(threads.map(lambda _: client.post("/api/flows/", content=body), range(40)))
        assert {answer.status_code for answer in answers} == {401}
        assert max(len(answer.content) for answer in answers) < 200
    finally:
        served.stop()
