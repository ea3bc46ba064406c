"""`windvane up`: which services a project needs, where they listen, and what people see of them. supervisor.py runs them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from windvane.flows.orchestration import server
from windvane.flows.services import child_process, supervisor, up_state
from windvane.flows.services.supervisor import ServiceSpec, SupervisedProcess, Supervisor
from windvane.flows.services.up_state import HEARTBEAT_FILE, UpState
from windvane.ledger.laps import LeaseHolder
from windvane.monitoring.records import Clock
from windvane.serving import service_state
from windvane.serving.http import access_control, auth_middleware
from windvane.serving.http import server as scoring
from windvane.serving.http.auth_middleware import Credentials
from windvane.tasks import process_environment
from windvane.tasks.console import Console, LiveTable
from windvane.tasks.errors import InputError
from windvane.tasks.io import read_cache
from windvane.tasks.project import Project

LOOPBACK_ADDRESS = "127.0.0.1"
# The usual ports, unless `ports` sets others; a port that is taken gives way to one of the next.
DEFAULT_PORTS, PORT_ATTEMPTS = {"mlflow": 5000, "prefect": 4200}, 50
# Seconds between two checks; after which the runner, which polls each minute, is taken for hanging.
STEP_INTERVAL_SECONDS, HEARTBEAT_TIMEOUT_SECONDS = 0.25, 180
TEMPORARY_FOLDER = "tmp"


def run_all_services(project: Project, clock: Clock, console: Console) -> None:
    """Everything at once, until SIGINT or SIGTERM. With `--json`: one object on standard output once all is ready."""
    _ = project.ledger  # an outage of what everything needs shows at once
    with up_state.hold_up_lock(project.home), _collect_stop_signals() as stopping, ExitStack() as sockets:
        left = supervisor.end_orphaned_processes(up_state.read_up_state(project.home), project.home)
        if left:
            console.print(
                f"  note: ended {left} processes that an earlier `windvane up` left behind when it was killed"
            )
        # Prefect's runner keeps its work in the system's temporary folder, under a name that all accounts share.
        shutil.rmtree(project.home / TEMPORARY_FOLDER, ignore_errors=True)
        (project.home / TEMPORARY_FOLDER).mkdir(mode=0o700)
        credentials = Credentials.of(project.home)
        services = _make_services(project, clock, credentials, sockets)
        me = LeaseHolder.me("windvane up")
        by_name = {s.name: s for s in services}
        url, own = by_name["runner"].environment["PREFECT_API_URL"], by_name["prefect"].command is not None
        addresses = {s.name: s.address for s in services}

        def show(children: Mapping[str, SupervisedProcess]) -> None:
            alive = {name: (one.pid, one.born) for name, one in children.items() if one.pid is not None}
            up_state.write_up_state(project.home, UpState(me, clock, url, own, addresses, alive))

        supervised = Supervisor(services, project.home / "up", show)
        try:
            show(supervised.children)
            _supervise_until_stopped(project, supervised, stopping, clock, credentials, console)
        finally:
            console.print("  stopping")
            supervised.stop()
            up_state.clear_up_state(project.home)
            console.print("  stopped")


def _supervise_until_stopped(
    project: Project,
    supervised: Supervisor,
    stopping: list[int],
    clock: Clock,
    credentials: Credentials,
    console: Console,
) -> None:
    screen, announced = LiveTable(console), False
    while not stopping:
        supervised.step()
        screen.show(_make_table_rows(project, supervised))
        if supervised.ready and not announced:
            announced = True
            events = "; the clock is that of the events" if clock == "events" else ""
            links = _format_links(project, supervised, credentials, console.live)
            screen.print("\n".join([f"  all ready; Ctrl-C stops{events}", *links]))
            if console.json:
                console.print_result(_make_json_result(project, supervised, clock))
        time.sleep(STEP_INTERVAL_SECONDS)


@contextmanager
def _collect_stop_signals() -> Iterator[list[int]]:
    """A list that fills when this process is stopped: whatever step it is in comes to its end first."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda n, _frame: received.append(n)) for number in signals]
    try:
        yield received
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _make_services(project: Project, clock: Clock, credentials: Credentials, sockets: ExitStack) -> list[ServiceSpec]:
    """In the order of the table. What the environment names as running elsewhere is used, not started.

    Each port is bound here for as long as `up` runs and handed down: no other program can take it, and while a server is started
    again, requests wait instead of failing.
    """
    home = project.home
    own = {
        child_process.OWNER_VARIABLE: str(home),
        child_process.UP_SECRET_VARIABLE: credentials.secret,
        # The project's folder is the user's: a tasks.py or prefect.py in it is not imported.
        "PYTHONSAFEPATH": "1",
        "TMPDIR": str(home / TEMPORARY_FOLDER),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **process_environment.TELEMETRY_OFF,
    }

    def guard(name: str, url: str, listener: socket.socket, command: tuple[str, ...]) -> ServiceSpec:
        """A child on a socket that is held here. What responds there must prove that it is this project's."""

        def is_ours(_: int | None) -> bool:
            return auth_middleware.check_identity(url, credentials) is True

        return ServiceSpec(name, url, is_ours, command, own, hands=(listener.fileno(),))

    shared, uri, serve = os.environ.get("PREFECT_API_URL"), project.tracking_uri, project.settings.serve
    if shared:
        url = shared.rstrip("/")
        prefect = ServiceSpec("prefect", url.removesuffix("/api"), lambda _: server.is_url_ok(f"{url}/health"))
        own["PREFECT_API_URL"] = url
    else:
        listener, page = _bind_port("prefect", project.settings.ports.prefect, sockets)
        own |= server.make_prefect_environment(home / "prefect", f"{page}/api", credentials)
        server.prepare_prefect_database(home / "prefect")
        command = (sys.executable, "-P", "-m", "windvane.flows.orchestration.server", str(listener.fileno()))
        prefect = guard("prefect", page, listener, command)
    if uri is not None and uri.startswith("http"):
        health = f"{uri.rstrip('/')}/health"
        mlflow = ServiceSpec("mlflow", uri, lambda _: server.is_url_ok(health))
    else:
        listener, page = _bind_port("mlflow", project.settings.ports.mlflow, sockets)
        mlflow = guard("mlflow", page, listener, _make_child_command("mlflow", listener.fileno()))
    known = access_control.parse_api_keys(os.environ.get(access_control.API_KEYS_VARIABLE))
    try:
        listener = sockets.enter_context(scoring.open_listening_socket(serve.host, serve.port, known))
    except InputError as e:
        raise InputError(str(e).replace("with --port", "with serve.port in params.yaml")) from None
    host = LOOPBACK_ADDRESS if serve.host in ("0.0.0.0", "::") else serve.host
    page = f"http://{f'[{host}]' if ':' in host else host}:{serve.port}"
    service = guard("service", page, listener, _make_child_command("service", listener.fileno()))
    runs, after = _make_child_command("runner", clock), ("mlflow", "prefect")
    runner = ServiceSpec("runner", None, lambda pid: _is_runner_alive(home, pid), runs, own, after=after)
    return [mlflow, prefect, service, runner]


def _make_child_command(name: str, argument: str | int) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "windvane.flows.services.child_process", name, str(argument))


def _bind_port(name: str, wanted: int | None, sockets: ExitStack) -> tuple[socket.socket, str]:
    """A socket that listens on the wanted port of loopback, and its address; without a wish on the usual port, one of the next, or any.

    Raises InputError when the wanted one is taken.
    """
    listener = sockets.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    usual = DEFAULT_PORTS[name]
    for port in (*range(usual, usual + PORT_ATTEMPTS), 0) if wanted is None else (wanted,):
        try:
            listener.bind((LOOPBACK_ADDRESS, port))
            listener.listen(512)
        except OSError:
            continue
        return listener, f"http://{LOOPBACK_ADDRESS}:{listener.getsockname()[1]}"
    raise InputError(
        f"params.yaml: ports.{name}: port {wanted} cannot be used: another program has it, or it is not allowed. "
        f"Choose another, or write null: then it is {usual} or the next free one"
    )


def _format_links(project: Project, supervised: Supervisor, credentials: Credentials, shown: bool) -> list[str]:
    """How a person opens the pages. The links hold the secret: on a terminal only, never in a log."""
    pages = {
        name: one.service.address
        for name, one in supervised.children.items()
        if name in DEFAULT_PORTS and one.service.command is not None and one.service.address is not None
    }
    if not pages:
        return []
    if not shown:
        return ["  MLflow's and Prefect's pages require the project's secret: windvane secret"]
    return [f"  open {line}" for line in up_state.make_page_links(project, pages, credentials)]


def _is_runner_alive(home: Path, pid: int | None) -> bool:
    """Whether the runner has set up its deployments and checked lately."""
    heartbeat = _read_heartbeat(home)
    return heartbeat is not None and heartbeat.pid == pid and time.time() - heartbeat.at < HEARTBEAT_TIMEOUT_SECONDS


@dataclass(frozen=True)
class _Heartbeat:
    """The runner's last state: its process, when (seconds since the epoch), and what it does when."""

    pid: int
    at: float
    does: Mapping[str, str]


def _read_heartbeat(home: Path) -> _Heartbeat | None:
    """The runner's last word; None where there is none, or it is damaged: it speaks again in a moment."""
    return read_cache(home / "up" / HEARTBEAT_FILE, TypeAdapter(_Heartbeat).validate_python)


def _make_table_rows(project: Project, supervised: Supervisor) -> list[dict[str, Any]]:
    rows = []
    for name, one in supervised.children.items():
        more = _describe_service(project, name) if one.ready else ""
        elsewhere = " (runs elsewhere)" if one.service.command is None else ""
        rows.append({"service": name, "state": one.state + elsewhere, "address": one.service.address or "-", "": more})
    return rows


def _describe_service(project: Project, name: str) -> str:
    """What people want to know of a service beside its address."""
    if name == "service":
        state = service_state.read_service_state(project.home / "serving")
        if state is not None and state["version"] is not None:
            return f"version {state['version']}"
        refused = None if state is None else state["refused"]
        return (
            f"refused version {refused['version']}: windvane status" if refused else "no champion yet: windvane train"
        )
    if name == "runner":
        heartbeat = _read_heartbeat(project.home)
        return "; ".join(f"{what}: {when}" for what, when in heartbeat.does.items()) if heartbeat is not None else ""
    return ""


def _make_json_result(project: Project, supervised: Supervisor, clock: Clock) -> dict[str, Any]:
    services = {
        name: {"address": one.service.address, "state": one.state, "pid": one.pid}
        for name, one in supervised.children.items()
    }
    return {"project": project.name, "pid": os.getpid(), "clock": clock, "services": services}
