"""`windvane status`: what is running is named as it is, also before there is a champion."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.projects import Folder
from tests.support.served_models import made_project
from windvane.flows.services import up, up_state
from windvane.flows.services.up_state import UpState
from windvane.ledger import laps
from windvane.ledger.laps import LeaseHolder
from windvane.ledger.schema import leases
from windvane.serving import service_state
from windvane.tasks.project import Project

pytestmark = pytest.mark.long
REFUSED = {"version": 1, "reason": "it takes too much memory", "at": "2024-01-01"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A project without a champion."""
    params = "project: houses\nproblem: {kind: regression, target: price}\ndata: {source: houses.csv}\n"
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / ".windvane" / "serving").mkdir(parents=True)
    return Folder(tmp_path)


def shown(folder: Folder, beginning: str) -> str:
    """The line of `windvane status` that begins so."""
    ran = folder.type("status")
    assert ran.status == 0, ran.err
    assert "None" not in ran.out + ran.err
    (line,) = [line.strip() for line in (ran.out + ran.err).splitlines() if line.strip().startswith(beginning)]
    return line


def test_h3_a_service_without_a_champion_waits_for_one(folder: Folder) -> None:
    service_state.write_service_state(folder.path / ".windvane" / "serving", None, None, None)
    assert shown(folder, "service:").startswith("service: waits for a champion; next: windvane train, process ")


def test_h3_n1_a_service_that_refused_the_first_champion_serves_nothing_and_says_why(folder: Folder) -> None:
    service_state.write_service_state(folder.path / ".windvane" / "serving", None, None, REFUSED)
    assert shown(folder, "service:").startswith("service: serves nothing, process ")
    assert shown(folder, "it refused").endswith("version 1: it takes too much memory")


def test_h3_n2_the_screen_of_up_names_the_version_that_was_refused(folder: Folder) -> None:
    project = Project(folder.path)
    assert up._describe_service(project, "service") == "no champion yet: windvane train"
    service_state.write_service_state(project.home / "serving", None, None, REFUSED)
    assert up._describe_service(project, "service") == "refused version 1: windvane status"


def test_h3_n3_an_up_whose_services_have_no_address_yet_is_named_by_its_process(folder: Folder) -> None:
    me = LeaseHolder.me("windvane up")
    up_state.write_up_state(folder.path / ".windvane", UpState(me, services={"mlflow": None, "runner": None}))
    assert shown(folder, "up:") == f"up: process {me.pid}"


def test_a_service_with_a_champion_names_it(tmp_path: Path) -> None:
    folder = made_project(tmp_path)
    (tmp_path / ".windvane" / "serving").mkdir(exist_ok=True)
    service_state.write_service_state(tmp_path / ".windvane" / "serving", 1, "2024-01-01T10:00:00.000000", None)
    assert shown(folder, "service:").startswith("service: version 1 serving since 2024-01-01T10:00:00Z, process ")


def killed_lap(engine: sa.Engine, since: str = "another machine") -> str:
    """A lap on record as running, whose process ended without a word: where its lease says it ran, and how long ago."""
    holder = LeaseHolder("windvane train", since, 2**22 + 1, 0.0, "2026-01-01T00:00:00")
    token = laps._try_lease(engine, "houses", holder)
    assert isinstance(token, int)
    laps.record_lap_start(engine, laps.Lease("houses", token, ()), f"lap-{token}", "manual")
    return f"lap-{token}"


def test_a_killed_lap_is_interrupted_and_says_what_to_do(folder: Folder) -> None:
    killed_lap(Project(folder.path).ledger, socket.gethostname())
    line = shown(folder, "last lap:")
    assert "interrupted: its process is gone; next: windvane train" in line
    assert "running" not in line
    assert json.loads(folder.type("status", "--json").out)["last_lap"]["state"] == "interrupted"


def test_a_lap_that_runs_is_running_and_one_on_a_silent_machine_is_interrupted_when_its_lease_ends(
    folder: Folder,
) -> None:
    engine = Project(folder.path).ledger
    with laps.hold_lease(engine, "houses", "windvane train", lambda _: None) as lease:
        laps.record_lap_start(engine, lease, "alive", "manual")
        assert shown(folder, "last lap:").endswith("running")
        laps.record_lap_end(engine, "alive", "finished")
    killed_lap(engine)
    assert shown(folder, "last lap:").endswith("running"), "its machine may live: nobody here can see its process"
    with engine.begin() as db:
        db.execute(sa.update(leases).values(expires="2026-01-01T00:00:00.000000+00:00"))
    assert "interrupted" in shown(folder, "last lap:")


def test_a_killed_lap_is_interrupted_also_while_another_command_holds_the_lease(folder: Folder) -> None:
    engine = Project(folder.path).ledger
    killed_lap(engine, socket.gethostname())
    with laps.hold_lease(engine, "houses", "windvane monitor", lambda _: None):
        assert "interrupted" in shown(folder, "last lap:")
