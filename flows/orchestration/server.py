"""The Prefect server that a command uses: the project's own on loopback behind the project's secret, with its
database, or one that runs elsewhere. Never Prefect's ephemeral server: it loses task runs. The own server ends when
its parent does.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
from filelock import FileLock

from windvane.flows.services import up_state
from windvane.ledger import sqlite_files
from windvane.ledger.failpoints import hit_failpoint
from windvane.serving.http import auth_middleware
from windvane.serving.http.auth_middleware import AsgiApp, AsgiMessage, AsgiReceive, AsgiScope, AsgiSend, Credentials
from windvane.tasks import errors, io, process_environment
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.io import cache_folder

PREFECT_DATABASE_FILE, _DATABASE_LOCK_FILE = "prefect.db", "prefect.db.lock"
# Names another database: then Prefect has that one, and this file none.
_OTHER_DATABASE_VARIABLES = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def prepare_prefect_database(home: Path) -> None:
    """Before the server is started: its home, and in it a migrated database where a template is at hand.

    Raises WindvaneError where the disk is full or closed.
    """
    path = home / PREFECT_DATABASE_FILE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(home / _DATABASE_LOCK_FILE):
            _set_damaged_aside(path)
            if sqlite_files.inspect_database(path) is None and _read_revision(find_prefect_template()) is not None:
                with suppress(_NoTemplate):
                    sqlite_files.create_database(path, _from_template)
    except (OSError, sqlite3.Error) as e:
        if (known := errors.explain_disk_error(e, home)) is None:
            raise
        raise known from e


def complete_prefect_database(home: Path) -> None:
    """In the server's process, with Prefect imported, before it serves: make the database, or bring a copy of it to this Prefect."""
    if any(name in os.environ for name in _OTHER_DATABASE_VARIABLES):
        return
    path = home / PREFECT_DATABASE_FILE
    with FileLock(home / _DATABASE_LOCK_FILE):
        known = sqlite_files.inspect_database(path)
        if (
            known is not None
            and known.revision not in (None, _read_revision(find_prefect_template()))
            and known.revision != _read_newest_migration()
        ):
            copy = sqlite_files.back_up_database(path, f"prefect-{version('prefect')}")

            def upgrade(part: Path) -> None:
                sqlite_files.vacuum_into(copy, part)
                _migrate(part)

            try:
                sqlite_files.create_database(path, upgrade)
                note = f"{path} was brought to Prefect {version('prefect')}; as it was before: {copy}"
            except Exception as e:  # whatever a migration raises, such as that a newer Prefect wrote it
                if errors.is_disk_full(e) or errors.is_access_denied(e):
                    raise
                known, note = None, f"{path} cannot be brought to Prefect {version('prefect')}; it is kept as {copy}"
                path.unlink()
            print(note, file=sys.stderr, flush=True)
        if known is None:
            sqlite_files.create_database(path, _migrate)
            sqlite_files.save_template(path, find_prefect_template())


def find_prefect_template() -> Path:
    """An empty, migrated database of the installed Prefect: spares each further new project half of its boot."""
    return cache_folder() / f"prefect-{version('prefect')}.db"


class _NoTemplate(Exception):
    """The template is junk."""


def _from_template(part: Path) -> None:
    if not sqlite_files.copy_template(find_prefect_template(), part):
        raise _NoTemplate


def _set_damaged_aside(path: Path) -> None:
    try:
        known = sqlite_files.inspect_database(path)
    except sqlite3.DatabaseError as e:
        if not errors.is_database_damaged(e):
            raise
    else:
        if known is None or not known.half_made:
            return
    aside = sqlite_files.set_aside_database(path)
    print(f"  note: {path} was damaged; a new one is made, and it is kept as {aside.name}", file=sys.stderr, flush=True)


def _migrate(part: Path) -> None:
    """Prefect's migrations on a file of another name: the server opens its own only when that is whole."""
    import anyio
    from prefect.server.database import dependencies, provide_database_interface
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    async def create() -> None:
        await provide_database_interface().create_db()

    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{part.resolve()}"}):
        dependencies.MODELS_DEPENDENCIES["database_config"] = None
        try:
            hit_failpoint("prefect: migrating")
            anyio.run(create)
        finally:
            dependencies.MODELS_DEPENDENCIES["database_config"] = None


def _read_newest_migration() -> str:
    """The newest migration that the installed Prefect knows."""
    from alembic.script import ScriptDirectory
    from prefect.server.database import provide_database_interface
    from prefect.server.database.alembic_commands import alembic_config

    config = alembic_config()
    config.set_main_option("version_locations", str(provide_database_interface().orm.versions_dir))
    return str(ScriptDirectory.from_config(config).get_current_head())


def _read_revision(database: Path) -> str | None:
    try:
        known = sqlite_files.inspect_database(database)
    except (OSError, sqlite3.Error):
        return None
    return None if known is None else known.revision


def check_prefect_access(url: str) -> None:
    """Request something that needs credentials, as a lap will, with those that Prefect itself finds. Raises InputError, Outage."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            client.read_flow_runs(limit=1)
    except httpx.HTTPStatusError as e:
        if e.response.status_code in (401, 403):
            raise InputError(
                f"PREFECT_API_URL: the Prefect server at {url} does not let this machine in ({e.response.status_code}). Set "
                "PREFECT_API_AUTH_STRING (for Prefect Cloud PREFECT_API_KEY) to what it requires"
            ) from None
        raise Outage(
            f"PREFECT_API_URL: {url} responds with {e.response.status_code}. Is it a Prefect API? Its address ends in /api"
        ) from e
    except ValueError as e:  # no JSON, or another's
        raise Outage(
            f"PREFECT_API_URL: what responds at {url} is no Prefect API. Correct the address: it ends in /api"
        ) from e
    except httpx.HTTPError as e:
        raise Outage(
            f"PREFECT_API_URL: the Prefect server at {url} does not respond ({e}). Start it, or correct the address"
        ) from e


# A fresh database takes 15-60 s to migrate on a loaded machine.
BOOT_TIMEOUT_SECONDS = 180
STOP_TIMEOUT_SECONDS = 20
# The only paths of Prefect's that need no secret: whether the server lives.
OPEN_PREFECT_PATHS = ("/api/health", "/api/ready")
# Sockets whose clients send the secret in their first message and in no header. Prefect itself requires it there.
SELF_AUTHENTICATING_PATHS = ("/api/events/out", "/api/logs/out")


@dataclass
class PrefectServer:
    """A Prefect API: somebody else's (no process, no credentials), that of `windvane up`, or our own child."""

    url: str
    process: subprocess.Popen[bytes] | None
    log: Path | None
    credentials: Credentials | None = None

    def answers(self) -> bool:
        """Whether the API is up. Raises Outage where another server responds than the one that should."""
        if self.credentials is None:
            return is_url_ok(f"{self.url}/health")
        ours = auth_middleware.check_identity(self.url, self.credentials)
        if ours is False:
            raise Outage(
                f"the server at {self.url} does not know this project's secret. If it was renewed, start `windvane up` again"
            )
        return ours is True

    def wait(self) -> None:
        """Return once the API responds. Raises Outage when it died or never comes up."""
        deadline = time.monotonic() + BOOT_TIMEOUT_SECONDS
        while not self.answers():
            late = time.monotonic() > deadline
            if self.process is not None and (late or self.process.poll() is not None):
                if self.log is not None and (errors.has_no_room(self.log) or errors.log_reports_full_disk(self.log)):
                    raise errors.make_disk_full_error(self.log.parent)
                raise Outage(
                    f"the Prefect server did not start; its last words are in {self.log}. Run the command again"
                )
            where = f"at {self.url} does not respond"
            if self.process is None and self.credentials is None:
                raise Outage(f"PREFECT_API_URL: the Prefect server {where}. Start it, or unset PREFECT_API_URL")
            if late:
                raise Outage(f"the Prefect server of `windvane up` {where}. Start `windvane up` again")
            time.sleep(0.05)


@contextmanager
def use_prefect_server(home: Path) -> Iterator[PrefectServer]:
    """The server that PREFECT_API_URL names, else our own, started at once and stopped at the end.

    Sets the environment that Prefect reads at its import, so enter before importing it. The server boots
    while the caller imports; call wait() before the first flow.
    """
    shared = (os.environ.get("PREFECT_API_URL") or "").rstrip("/")
    up = up_state.read_running_up(home.parent)
    own = up is not None and up.starts_prefect
    if shared and not (up is not None and own and shared == up.prefect):
        # A foreign server: it gets the environment's credentials, never the project's secret.
        yield PrefectServer(shared, None, None)
        return
    credentials = Credentials.of(home.parent)
    if up is not None and up.prefect is not None:
        # Two servers on one database would both keep its schedules.
        environment = (
            make_prefect_environment(home, up.prefect, credentials) if own else {"PREFECT_API_URL": up.prefect}
        )
        with _set_environment(environment):
            yield PrefectServer(up.prefect, None, None, credentials=credentials if own else None)
        return
    prepare_prefect_database(home)
    log = home / "server.log"
    # The child binds nothing itself: with the socket open from the start the port cannot be taken meanwhile.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        environment = make_prefect_environment(home, url, credentials)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "windvane.flows.orchestration.server", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
    try:
        with _set_environment(environment):
            yield PrefectServer(url, process, log, credentials)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself, within STOP_SECONDS at the most: no need to wait for that


@contextmanager
def _set_environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def make_prefect_environment(home: Path, url: str, credentials: Credentials) -> Mapping[str, str]:
    """What Prefect reads at its import, in the server and in its clients. Holds the secret: never for a command line."""
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
        # Where the address is missing, an error is better than a server that is not found.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        **process_environment.TELEMETRY_OFF,
    }


def is_url_ok(url: str) -> bool:
    """Whether a GET returns 200. Nothing of the project's is sent."""
    try:
        return httpx.get(url, timeout=5, follow_redirects=True).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def guard_prefect_app(app: AsgiApp, home: Path, port: int) -> AsgiApp:
    """Prefect's application behind the guard. `home`: its own, below .windvane; the environment holds the secret."""
    credentials = Credentials.of(home.parent, os.environ["PREFECT_SERVER_API_AUTH_STRING"].partition(":")[2])
    basic = "Basic " + b64encode(credentials.basic.encode()).decode()
    return auth_middleware.SecretMiddleware(
        _without_login(app, credentials),
        credentials,
        port,
        OPEN_PREFECT_PATHS,
        SELF_AUTHENTICATING_PATHS,
        inner_authorization=basic,
    )


def _without_login(app: AsgiApp, credentials: Credentials) -> AsgiApp:
    """Prefect's own check must not require another login of a person whom the guard has let in.

    Its page requests /ui-settings whether to show a login form, and where the API is: under the name by which the page was
    opened. A socket's first message gets the secret, which a page does not have.
    """

    async def asked_once(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if not scope.get(auth_middleware.AUTHENTICATED_SCOPE_KEY):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await app(scope, _with_token(receive, credentials.basic), send)
        elif scope["path"] == "/ui-settings":
            await _ui_settings(app, scope, receive, send)
        else:
            await app(scope, receive, send)

    return asked_once


def _with_token(receive: AsgiReceive, token: str) -> AsgiReceive:
    async def receives() -> AsgiMessage:
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


async def _ui_settings(app: AsgiApp, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
    started: list[AsgiMessage] = []
    body = bytearray()

    async def collect(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            started.append(message)
        else:
            body.extend(message.get("body", b""))

    plain = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
    await app({**scope, "headers": plain}, receive, collect)
    content = bytes(body)
    if started[0]["status"] == 200:
        host = auth_middleware.get_header_values(plain, b"host")[0].decode()
        content = json.dumps({**json.loads(content), "auth": None, "api_url": f"http://{host}/api"}).encode()
    headers = [(name, value) for name, value in started[0]["headers"] if name.lower() != b"content-length"]
    await send({**started[0], "headers": [*headers, (b"content-length", str(len(content)).encode())]})
    await send({"type": "http.response.body", "body": content})


def serve_prefect(descriptor: int) -> None:
    """The child: Prefect's API and UI on an already bound socket, until standard input closes."""
    io.set_private_umask()
    process_environment.set_library_environment()
    listener = socket.socket(fileno=descriptor)
    home = Path(os.environ["PREFECT_HOME"])
    os.chdir(home)  # before Prefect is imported: it would follow files in the user's folder
    from prefect.server.api.server import create_app

    complete_prefect_database(home)
    server = auth_middleware.make_uvicorn_server(guard_prefect_app(create_app(), home, listener.getsockname()[1]))

    def follow_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(STOP_TIMEOUT_SECONDS)
        os._exit(0)

    threading.Thread(target=follow_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    serve_prefect(int(sys.argv[1]))
