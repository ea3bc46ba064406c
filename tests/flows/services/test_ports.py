"""`ports` of params.yaml: which values it takes, and what happens when a port is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.projects import Folder
from tests.support.waiting import free_port
from windvane.flows.services import up
from windvane.tasks.errors import InputError

pytestmark = pytest.mark.long


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback on which somebody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("value", [0, -1, 65536, "web", 5000.5, True, [5000], "${PORT}"])
@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_what_is_no_port_is_refused_with_its_path(project: Folder, name: str, value: Any) -> None:
    project.set(ports={name: value})
    ran = project.type("status", env={"PORT": "0"})
    assert ran.status == 2
    assert f"ports.{name}" in ran.err


def test_a_port_may_come_from_the_environment(project: Folder, taken: int) -> None:
    project.set(ports={"mlflow": "${PORT}"})
    assert f"ports.mlflow: port {taken}" in project.run("up", env={"PORT": str(taken)}).err


def test_an_unknown_service_is_refused(project: Folder) -> None:
    project.set(ports={"prefct": 4200})
    ran = project.type("status")
    assert ran.status == 2
    assert "ports.prefect" in ran.err


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_port_that_was_chosen_and_is_taken_is_told_by_its_key(project: Folder, name: str, taken: int) -> None:
    project.set(ports={name: taken})
    ran = project.run("up", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert f"ports.{name}: port {taken}" in ran.err
    assert "null" in ran.err
    assert not (project.path / ".windvane" / "up.json").exists()


def test_a_taken_port_of_the_service_is_told_by_its_key(project: Folder, taken: int) -> None:
    project.set(serve__port=taken)
    ran = project.run("up", "--json")
    assert ran.status == 2
    assert "serve.port" in ran.err


def test_without_a_wish_a_taken_port_gives_way_to_another(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(up.DEFAULT_PORTS, "mlflow", taken)
    with ExitStack() as sockets:
        first, second = (up._bind_port("mlflow", None, sockets)[0].getsockname()[1] for _ in range(2))
        assert len({taken, first, second}) == 3
        # And it is held from then on, also against whoever asks for it by its number.
        with pytest.raises(InputError, match=rf"ports\.prefect: port {first}"):
            up._bind_port("prefect", first, sockets)


def test_a_chosen_port_that_is_free_is_taken() -> None:
    free = free_port()
    with ExitStack() as sockets:
        assert up._bind_port("prefect", free, sockets)[0].getsockname() == ("127.0.0.1", free)


@pytest.mark.parametrize(("mlflow", "prefect", "named"), [(8000, None, "ports.mlflow"), (4321, 4321, "ports.prefect")])
def test_two_of_one_port_are_found_before_anything_starts(
    project: Folder, mlflow: int, prefect: int | None, named: str
) -> None:
    project.set(serve__port=8000, ports={"mlflow": mlflow, "prefect": prefect})
    ran = project.type("check", "--json")
    assert ran.status == 2
    assert any(named in problem and str(mlflow) in problem for problem in ran.json["problems"])


def test_check_says_that_others_could_reach_the_service_without_a_key(project: Folder) -> None:
    project.set(serve__host="0.0.0.0")
    ran = project.type("check", "--json")
    assert ran.status == 2
    assert any("serve.host" in problem and "WINDVANE_API_KEYS" in problem for problem in ran.json["problems"])
