"""The supervisor on small services: what dies is started again, and nothing outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from windvane.flows.services import child_process, supervisor, up_state
from windvane.flows.services.supervisor import ServiceSpec, Supervisor
from windvane.flows.services.up_state import UpState
from windvane.ledger.laps import LeaseHolder
from windvane.tasks.errors import InputError

pytestmark = pytest.mark.long

# A service with a process of its own below it, as MLflow's server has one; it says where both are, and that it is ready.
SERVICE = """
import os, subprocess, sys, time
from windvane.flows.services.child_process import end_group_with_parent
end_group_with_parent()
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as said:
    said.write(f"{os.getpid()} {below.pid}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""
# A supervisor in a process of its own, to be killed.
PARENT = """
import sys, time
from pathlib import Path
from windvane.flows.services import up_state
from windvane.flows.services.up_state import UpState
from windvane.flows.services.supervisor import Supervisor
from windvane.ledger.laps import LeaseHolder
from tests.flows.services.test_supervisor import service
home = Path(sys.argv[1])
with up_state.hold_up_lock(home):
    def told(children):
        alive = {name: (one.pid, one.born) for name, one in children.items()}
        up_state.write_up_state(home, UpState(LeaseHolder.me("up"), children=alive))
    watched = Supervisor([service(home, "one")], home / "up", told)
    while True:
        watched.step()
        time.sleep(0.02)
"""


def service(home: Path, name: str, after: tuple[str, ...] = ()) -> ServiceSpec:
    said = home / f"{name}.said"
    command = (sys.executable, "-c", SERVICE, str(said))

    def healthy(pid: int | None) -> bool:
        return said.exists() and said.read_text().split()[0] == str(pid)

    return ServiceSpec(name, None, healthy, command, {child_process.OWNER_VARIABLE: str(home)}, after)


def until(true: Callable[[], bool], step: Callable[[], None] = lambda: None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        step()
        time.sleep(0.02)


def processes(home: Path, name: str) -> list[int]:
    until((home / f"{name}.said").exists)
    return [int(pid) for pid in (home / f"{name}.said").read_text().split()]


def lives(pid: int) -> bool:
    # It may end between any two questions.
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def gone(pids: list[int]) -> bool:
    return not any(map(lives, pids))


@pytest.fixture
def watched(tmp_path: Path) -> Supervisor:
    services = [service(tmp_path, "one"), service(tmp_path, "two", ("one",))]
    return Supervisor(services, tmp_path / "up", lambda _: None)


def test_services_start_in_their_order_and_all_stop(tmp_path: Path, watched: Supervisor) -> None:
    watched.step()
    assert watched.children["two"].pid is None
    assert watched.children["two"].state == "waiting"
    until(lambda: watched.ready, watched.step)
    pids = processes(tmp_path, "one") + processes(tmp_path, "two")
    watched.stop()
    until(lambda: gone(pids))


def test_what_dies_is_started_again_with_its_whole_group(tmp_path: Path, watched: Supervisor) -> None:
    until(lambda: watched.ready, watched.step)
    first = processes(tmp_path, "one")
    os.kill(first[0], signal.SIGKILL)
    until(lambda: not watched.ready, watched.step)
    until(lambda: watched.ready, watched.step)
    until(lambda: gone(first))
    assert processes(tmp_path, "one")[0] != first[0]
    watched.stop()


def test_a_service_that_keeps_dying_is_started_ever_more_seldom(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('worn out')")
    watched = Supervisor([ServiceSpec("one", None, lambda _: False, command)], tmp_path / "up", lambda _: None)
    one, waits = watched.children["one"], []
    for deaths in (1, 2, 3):
        until(lambda deaths=deaths: one.deaths == deaths, watched.step)  # type: ignore[misc]
        waits.append(one._next_start - time.monotonic())
    assert waits[0] < waits[1] < waits[2]
    assert "worn out" in one.log.last_words()


def test_what_keeps_dying_says_how_often_and_why(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('worn out')")
    watched = Supervisor([ServiceSpec("one", None, lambda _: False, command)], tmp_path / "up", lambda _: None)
    one = watched.children["one"]
    until(lambda: one.deaths == 2, watched.step)
    assert one.state == "died 2 times, started again (see one.log): worn out"


def test_one_that_hangs_holds_up_neither_the_others_nor_the_end(tmp_path: Path) -> None:
    import threading

    let_go = threading.Event()

    def hangs(_: int | None) -> bool:
        return let_go.wait(600)

    code = "import time\nfrom windvane.flows.services.child_process import end_group_with_parent\nend_group_with_parent()\ntime.sleep(600)"
    hanging = ServiceSpec("hanging", None, hangs, (sys.executable, "-c", code))
    watched = Supervisor([hanging, service(tmp_path, "two")], tmp_path / "up", lambda _: None)
    until(lambda: watched.children["two"].ready, watched.step)
    assert not watched.children["hanging"].ready
    watched.stop()
    let_go.set()


def test_what_another_start_would_not_mend_is_told(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; print('windvane: no key', file=sys.stderr); sys.exit(2)")
    watched = Supervisor([ServiceSpec("one", None, lambda _: False, command)], tmp_path / "up", lambda _: None)
    with pytest.raises(InputError, match=r"^no key$"):
        until(lambda: False, watched.step)


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    pids = processes(tmp_path, "one")
    parent.kill()
    parent.wait()
    until(lambda: gone(pids))
    assert up_state.read_running_up(tmp_path) is None
    with up_state.hold_up_lock(tmp_path):
        pass  # and the next one may begin


def test_what_was_left_behind_is_found_and_nothing_else(tmp_path: Path) -> None:
    def begin(home: Path, said: str) -> subprocess.Popen[bytes]:
        # Its pipe stays open: it does not learn of the end of whoever started it.
        command = [sys.executable, "-c", SERVICE, str(tmp_path / f"{said}.said")]
        environment = {**os.environ, child_process.OWNER_VARIABLE: str(home)}
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)

    mine, leaderless, other = begin(tmp_path, "mine"), begin(tmp_path, "leaderless"), begin(tmp_path / "b", "other")
    born = {p.pid: psutil.Process(p.pid).create_time() for p in (mine, leaderless, other)}
    pids = {name: processes(tmp_path, name) for name in ("mine", "leaderless", "other")}
    leaderless.kill()
    leaderless.wait()
    me = LeaseHolder.me("up")
    # Of another project, and with another birth: a number that was given to somebody else meanwhile.
    children = {"a": (mine.pid, born[mine.pid]), "b": (leaderless.pid, born[leaderless.pid])}
    strangers = {"c": (other.pid, born[other.pid]), "d": (os.getpid(), 1.0)}
    try:
        assert supervisor.end_orphaned_processes(UpState(me, children={**children, **strangers}), tmp_path) == 3
        until(lambda: gone([*pids["mine"], pids["leaderless"][1]]))
        assert not gone(pids["other"])
    finally:
        for process in (mine, other):
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            process.wait()


def test_a_second_one_is_told_who_runs_already(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    processes(tmp_path, "one")
    until(lambda: up_state.read_up_state(tmp_path) is not None)  # the child may be faster than who started it
    with pytest.raises(InputError, match=f"process {parent.pid}"), up_state.hold_up_lock(tmp_path):
        raise AssertionError("two at once")
    parent.kill()
    parent.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"holder": 1, "children": {}}', '{"children": 1}'])
def test_a_spoilt_file_of_the_last_up_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "up.json").write_text(content)
    assert up_state.read_running_up(tmp_path) is None
