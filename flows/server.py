"""The project's own Prefect server on loopback, for as long as a command needs it, behind the project's secret.

Never Prefect's ephemeral server: it loses task runs. The server is a child that ends when its parent does,
however the parent ends: it watches the pipe that the parent holds open.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from windvane.flows import prefect_database, standing
from windvane.serving import guard
from windvane.serving.guard import App, Credentials, Message, Receive, Scope, Send
from windvane.tasks import faults, library_environment, places
from windvane.tasks.errors import Outage

# A fresh database takes 15-60 s to migrate on a loaded machine.
BOOT_SECONDS = 180
STOP_SECONDS = 20
# The only paths of Prefect's that need no secret: whether the server lives.
OPEN_PATHS = ("/api/health", "/api/ready")
# Sockets whose clients bring the secret in their first message and in no header. Prefect itself asks for it there.
SELF_AUTHENTICATING = ("/api/events/out", "/api/logs/out")


@dataclass
class Server:
    """A Prefect API: somebody else's (no process, no credentials), that of `windvane up`, or our own child."""

    url: str
    process: subprocess.Popen[bytes] | None
    log: Path | None
    credentials: Credentials | None = None

    def answers(self) -> bool:
        """Whether the API is up. Raises Outage where another server answers than the one that should."""
        if self.credentials is None:
            return healthy(self.url)
        ours = guard.check_identity(self.url, self.credentials)
        if ours is False:
            raise Outage(
                f"the server at {self.url} does not know this project's secret. If it was renewed, start `windvane up` again"
            )
        return ours is True

    def wait(self) -> None:
        """Return once the API answers. Raises Outage when it died or never comes up."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.answers():
            late = time.monotonic() > deadline
            if self.process is not None:
                if late or self.process.poll() is not None:
                    if self.log is not None and (faults.no_room(self.log) or faults.says_full(self.log)):
                        raise faults.disk_full(self.log.parent)
                    raise Outage(
                        f"the Prefect server did not start; its last words are in {self.log}. Run the command again"
                    )
            elif self.credentials is None:
                raise Outage(
                    f"PREFECT_API_URL: the Prefect server at {self.url} does not answer. Start it, or unset PREFECT_API_URL"
                )
            elif late:
                raise Outage(
                    f"the Prefect server of `windvane up` at {self.url} does not answer. Start `windvane up` again"
                )
            time.sleep(0.05)


@contextmanager
def running(home: Path) -> Iterator[Server]:
    """The server that PREFECT_API_URL names, else our own, started at once and stopped at the end.

    Sets the environment that Prefect reads at its import, so enter before importing it. The server boots
    while the caller imports; call wait() before the first flow.
    """
    shared = (os.environ.get("PREFECT_API_URL") or "").rstrip("/")
    up = standing.running(home.parent)
    own = up is not None and up.starts_prefect
    if shared and not (up is not None and own and shared == up.prefect):
        # Somebody else's: it is asked with what the environment holds for it, never with the project's secret.
        yield Server(shared, None, None)
        return
    credentials = Credentials.of(home.parent)
    if up is not None and up.prefect is not None:
        # Two servers on one database would both keep its schedules.
        with _told(environment(home, up.prefect, credentials) if own else {"PREFECT_API_URL": up.prefect}):
            yield Server(up.prefect, None, None, credentials=credentials if own else None)
        return
    prefect_database.prepare(home)
    log = home / "server.log"
    # The child binds nothing itself: with the socket open from the start the port cannot be taken meanwhile.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{guard.port_of(listener)}/api"
        told = environment(home, url, credentials)
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
            yield Server(url, process, log, credentials)
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


def environment(home: Path, url: str, credentials: Credentials) -> Mapping[str, str]:
    """What Prefect reads at its import, in the server and in whoever uses it. Holds the secret: never for a command line."""
    page, home = url.removesuffix("/api"), home.resolve()
    return {
        "PREFECT_HOME": str(home),
        # Prefect also reads .env, prefect.toml and pyproject.toml where it runs, which is the user's folder: what there names
        # another server, or another account with it, counts less than these.
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_KEY": "",
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": credentials.basic,
        "PREFECT_SERVER_API_AUTH_STRING": credentials.basic,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{page},{page.replace('127.0.0.1', 'localhost')}",
        # Where the address is missing, an error is better than a server that nobody knows of.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        **library_environment.OFF,
    }


def healthy(url: str) -> bool:
    """Whether somebody else's API answers."""
    return answers(f"{url}/health")


def answers(url: str) -> bool:
    """Whether a GET is answered with 200. Nothing of the project's is sent."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def guarded(app: App, home: Path, port: int) -> App:
    """Prefect's application behind the guard. `home`: its own, below .windvane; the environment holds the secret."""
    credentials = Credentials.of(home.parent, os.environ["PREFECT_SERVER_API_AUTH_STRING"].partition(":")[2])
    basic = "Basic " + b64encode(credentials.basic.encode()).decode()
    return guard.Guard(
        _without_login(app, credentials), credentials, port, OPEN_PATHS, SELF_AUTHENTICATING, inner_authorization=basic
    )


def _without_login(app: App, credentials: Credentials) -> App:
    """Prefect's own check must not ask a person again whom the guard has let in.

    Its page asks /ui-settings whether to show a login form, and where the API is: under the name by which the page was opened. A socket's
    first message gets the secret, which a page does not have.
    """

    async def asked_once(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get(guard.AUTHENTICATED):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await app(scope, _with_token(receive, credentials.basic), send)
        elif scope["path"] == "/ui-settings":
            await _ui_settings(app, scope, receive, send)
        else:
            await app(scope, receive, send)

    return asked_once


def _with_token(receive: Receive, token: str) -> Receive:
    async def receives() -> Message:
        message = await receive()
        text = message.get("text")
        if message["type"] == "websocket.receive" and text and len(text) < 10_000 and '"auth"' in text:
            try:
                content = json.loads(text)
            except ValueError:
                return message
            if isinstance(content, dict) and content.get("type") == "auth":
                return {**message, "text": json.dumps({**content, "token": token})}
        return message

    return receives


async def _ui_settings(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    started: list[Message] = []
    body = bytearray()

    async def collect(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.append(message)
        else:
            body.extend(message.get("body", b""))

    plain = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
    await app({**scope, "headers": plain}, receive, collect)
    content = bytes(body)
    if started[0]["status"] == 200:
        host = guard.values(plain, b"host")[0].decode()
        content = json.dumps({**json.loads(content), "auth": None, "api_url": f"http://{host}/api"}).encode()
    headers = [(name, value) for name, value in started[0]["headers"] if name.lower() != b"content-length"]
    await send({**started[0], "headers": [*headers, (b"content-length", str(len(content)).encode())]})
    await send({"type": "http.response.body", "body": content})


def serve(descriptor: int) -> None:
    """The child: Prefect's API and UI on an already bound socket, until standard input closes."""
    places.keep_private()
    library_environment.prepare()
    listener = socket.socket(fileno=descriptor)
    home = Path(os.environ["PREFECT_HOME"])
    os.chdir(home)  # before Prefect is imported: it would follow files in the user's folder
    from prefect.server.api.server import create_app

    prefect_database.complete(home)
    server = guard.make_server(guarded(create_app(), home, guard.port_of(listener)))

    def follow_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(STOP_SECONDS)
        os._exit(0)

    threading.Thread(target=follow_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve(int(sys.argv[1]))
