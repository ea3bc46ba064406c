"""The project's own Prefect server on loopback, for as long as a command needs it.

Never Prefect's ephemeral server: it loses task runs. The server is a child that ends when its parent does,
however the parent ends: it watches the pipe that the parent holds open.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from windvane.flows import prefect_database, standing
from windvane.tasks import faults, places
from windvane.tasks.errors import Outage

# A fresh database takes 15-60 s to migrate on a loaded machine.
BOOT_SECONDS = 180
STOP_SECONDS = 20


@dataclass
class Server:
    """A Prefect API: somebody else's (no process), or our own child."""

    url: str
    process: subprocess.Popen[bytes] | None
    log: Path | None

    def answers(self) -> bool:
        """Whether the API is up."""
        return healthy(self.url)

    def wait(self) -> None:
        """Return once the API answers. Raises Outage when it died or never comes up."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.answers():
            if self.process is None:
                raise Outage(
                    f"PREFECT_API_URL: the Prefect server at {self.url} does not answer. Start it, or unset PREFECT_API_URL"
                )
            if self.process.poll() is not None or time.monotonic() > deadline:
                if self.log is not None and (faults.no_room(self.log) or faults.says_full(self.log)):
                    raise faults.disk_full(self.log.parent)
                raise Outage(
                    f"the Prefect server did not start; its last words are in {self.log}. Run the command again"
                )
            time.sleep(0.05)


@contextmanager
def running(home: Path) -> Iterator[Server]:
    """The server that PREFECT_API_URL names, else our own, started at once and stopped at the end.

    Sets the environment that Prefect reads at its import, so enter before importing it. The server boots
    while the caller imports; call wait() before the first flow.
    """
    shared = os.environ.get("PREFECT_API_URL")
    if shared:
        yield Server(shared.rstrip("/"), None, None)
        return
    if (up := standing.running(home.parent)) is not None and up.prefect is not None:
        # Two servers on one database would both keep its schedules.
        with _told(environment(home, up.prefect)):
            yield Server(up.prefect, None, None)
        return
    prefect_database.prepare(home)
    log = home / "server.log"
    # The child binds nothing itself: with the socket open from the start the port cannot be taken meanwhile.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        told = environment(home, url)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "windvane.flows.server", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **told},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
    try:
        with _told(told):
            yield Server(url, process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself, within STOP_SECONDS at the most: nobody has to wait for that


@contextmanager
def _told(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def environment(home: Path, url: str) -> Mapping[str, str]:
    """What Prefect reads at its import, in the server and in whoever uses it."""
    return {
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_API_URL": url,
        # Where the address is missing, an error is better than a server that nobody knows of.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def healthy(url: str) -> bool:
    """Whether the API answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serve(descriptor: int) -> None:
    """The child: Prefect's API and UI on an already bound socket, until standard input closes."""
    places.keep_private()
    listener = socket.socket(fileno=descriptor)
    import uvicorn
    from prefect.server.api.server import create_app

    prefect_database.complete(Path(os.environ["PREFECT_HOME"]))
    server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning", timeout_graceful_shutdown=3))

    def follow_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(STOP_SECONDS)
        os._exit(0)

    threading.Thread(target=follow_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
