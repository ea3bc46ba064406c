"""`windvane up` in a process of its own, with everything real: what its tests share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.projects import Folder
from tests.support.waiting import free_port, until
from windvane.flows.services import child_process
from windvane.tasks import project_secrets

# A loaded machine needs a minute for Prefect's first start.
READY_SECONDS = 240


class Up:
    """A running `windvane up`; `told` is the object that it printed."""

    def __init__(self, folder: Folder, process: subprocess.Popen[str], log: Path) -> None:
        self.folder, self.process, self.log = folder, process, log
        self.told: dict[str, Any] = {}

    def wait(self) -> None:
        """Until all is ready."""
        assert self.process.stdout is not None
        with _alarm(self.process):
            line = self.process.stdout.readline()
        assert line, self.words()
        self.told = json.loads(line)

    def address(self, name: str) -> str:
        return str(self.told["services"][name]["address"])

    def pid(self, name: str) -> int:
        """The process that runs a service now: another one after it died."""
        content = json.loads((self.folder.path / ".windvane" / "up.json").read_text())
        return int(content["children"][name][0])

    @property
    def secret(self) -> str:
        """The project's secret."""
        return (self.folder.path / ".windvane" / "secret").read_text()

    def ask(self, name: str, method: str, path: str, **more: Any) -> httpx.Response:
        """A request to MLflow or Prefect, with the secret."""
        key = {"Authorization": f"Bearer {self.secret}"}
        return httpx.request(method, self.address(name) + path, timeout=60, headers=key, **more)

    def service(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {project_secrets.read_project_secret(self.folder.path / '.windvane')}",
            **more.pop("headers", {}),
        }
        return httpx.request(method, self.address("service") + path, headers=headers, timeout=60, **more)

    def words(self) -> str:
        """What it said, and the ends of its services' logs: for whoever reads that a test failed."""
        logs = sorted((self.folder.path / ".windvane" / "up").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in [self.log, *logs])


def mine(folder: Folder) -> list[psutil.Process]:
    """All processes that an `up` of this folder started, at whatever remove."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(child_process.OWNER_VARIABLE) == str(folder.path.resolve() / ".windvane"):
                found.append(process)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def begun(folder: Folder, *arguments: str, **env: str) -> Iterator[Up]:
    """`windvane up --json`, started, perhaps not ready; stopped at the end, and nothing of it is left."""
    folder.set(serve__port=free_port())
    log = folder.path / "up.log"
    command = [sys.executable, "-P", "-m", "windvane.cli.main", "up", "--json", *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder.path, env=folder.environment(env), stdout=subprocess.PIPE, stderr=out, text=True
        )
    up = Up(folder, process, log)
    try:
        yield up
    except BaseException:
        print(up.words())
        raise
    finally:
        process.terminate()
        process.wait(timeout=90)
        assert process.stdout is not None
        process.stdout.close()
    until(lambda: not mine(folder), 30, "a process outlived `up`")


@contextmanager
def standing(folder: Folder, *arguments: str, **env: str) -> Iterator[Up]:
    """`windvane up --json`, ready."""
    with begun(folder, *arguments, **env) as up:
        up.wait()
        yield up


@contextmanager
def _alarm(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whoever waits for its word must not wait for ever."""
    from threading import Timer

    timer = Timer(READY_SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
