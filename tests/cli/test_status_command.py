"""`windvane status`: what is running is named as it is, also before there is a champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.projects import Folder
from tests.support.served_models import made_project
from windvane.flows.services import up, up_state
from windvane.flows.services.up_state import UpState
from windvane.ledger.laps import LeaseHolder
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
    ran = folder.run("status")
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
