"""`windvane up`: which services a project needs, where they answer, and what people see of it. flows/supervisor.py runs them."""

from __future__ import annotations

import json
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

from windvane.flows import access, child, prefect_database, server, standing, supervisor
from windvane.flows.console import Console, Screen
from windvane.flows.project import Project
from windvane.flows.standing import Clock, Standing
from windvane.flows.supervisor import Child, Service, Supervisor
from windvane.ledger.leases import Holder
from windvane.serving import guard, state
from windvane.serving.guard import Credentials
from windvane.tasks import library_environment
from windvane.tasks.errors import InputError
from windvane.tasks.tables import read_cache

LOOPBACK = "127.0.0.1"
# Where people look for them, unless `ports` says where; a port that is taken gives way to one of the next.
PORTS, NEXT = {"mlflow": 5000, "prefect": 4200}, 50
# Seconds between two looks; after which the runner, which looks every minute, is taken for hanging.
STEP, BEAT = 0.25, 180
RUNNER = "runner.json"
TEMPORARY = "tmp"


def up(project: Project, clock: Clock, console: Console) -> None:
    """Everything at once, until SIGINT or SIGTERM. With `--json`: one object on standard output once all is ready."""
    _ = project.ledger  # an outage of what everything stands on is told at once
    with standing.alone(project.home), _until_told() as stopping, ExitStack() as sockets:
        left = supervisor.sweep(standing.read(project.home), project.home)
        if left:
            console.say(f"  note: ended {left} processes that an earlier `windvane up` left behind when it was killed")
        # Prefect's runner keeps its work in the system's temporary folder, under a name that all accounts share.
        shutil.rmtree(project.home / TEMPORARY, ignore_errors=True)
        (project.home / TEMPORARY).mkdir(mode=0o700)
        credentials = Credentials.of(project.home)
        services = _services(project, clock, credentials, sockets)
        me = Holder.me("windvane up")
        by_name = {s.name: s for s in services}
        url, own = by_name["runner"].environment["PREFECT_API_URL"], by_name["prefect"].command is not None
        addresses = {s.name: s.address for s in services}

        def told(children: Mapping[str, Child]) -> None:
            alive = {name: (one.pid, one.born) for name, one in children.items() if one.pid is not None}
            standing.write(project.home, Standing(me, clock, url, own, addresses, alive))

        watched = Supervisor(services, project.home / "up", told)
        try:
            told(watched.children)
            _watch(project, watched, stopping, clock, credentials, console)
        finally:
            console.say("  stopping")
            watched.stop()
            standing.clear(project.home)
            console.say("  stopped")


def _watch(
    project: Project, watched: Supervisor, stopping: list[int], clock: Clock, credentials: Credentials, console: Console
) -> None:
    screen, told = Screen(console), False
    while not stopping:
        watched.step()
        screen.show(_rows(project, watched))
        if watched.ready and not told:
            told = True
            events = "; the clock is that of the events" if clock == "events" else ""
            screen.say("\n".join([f"  all ready; Ctrl-C stops{events}", *_links(watched, credentials, console.live)]))
            if console.json:
                print(json.dumps(_facts(project, watched, clock)), flush=True)
        time.sleep(STEP)


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """A list that fills when this process is told to stop: whatever step it is in comes to its end first."""
    told: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda n, _frame: told.append(n)) for number in signals]
    try:
        yield told
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _services(project: Project, clock: Clock, credentials: Credentials, sockets: ExitStack) -> list[Service]:
    """In the order of the table. What the environment names as running elsewhere is used, not started.

    Each port is bound here for as long as `up` runs and handed down: nobody else can take it, and while a server is started
    again, requests wait instead of failing.
    """
    home = project.home
    own = {
        child.MARK: str(home),
        child.SECRET: credentials.secret,
        # The project's folder is the user's: a tasks.py or prefect.py in it is not imported.
        "PYTHONSAFEPATH": "1",
        "TMPDIR": str(home / TEMPORARY),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **library_environment.OFF,
    }
    shared = os.environ.get("PREFECT_API_URL")
    if shared:
        url = shared.rstrip("/")
        orders = Service("prefect", url.removesuffix("/api"), lambda _: server.healthy(url))
        told = {"PREFECT_API_URL": url}
    else:
        listener = _listen("prefect", project.settings.ports.prefect, sockets)
        page = f"http://{LOOPBACK}:{guard.port_of(listener)}"
        told = dict(server.environment(home / "prefect", f"{page}/api", credentials))
        prefect_database.prepare(home / "prefect")
        orders = Service(
            "prefect",
            page,
            lambda _: guard.check_identity(page, credentials) is True,
            (sys.executable, "-P", "-m", "windvane.flows.server", str(listener.fileno())),
            own | told,
            hands=(listener.fileno(),),
        )
    own |= told
    return [
        _tracking(project, own, credentials, sockets),
        orders,
        _scoring(project, own, credentials, sockets),
        Service(
            "runner", None, lambda pid: _beats(home, pid), _role("runner", clock), own, after=("mlflow", "prefect")
        ),
    ]


def _tracking(project: Project, own: Mapping[str, str], credentials: Credentials, sockets: ExitStack) -> Service:
    uri = project.tracking_uri
    if uri is not None and uri.startswith("http"):
        health = f"{uri.rstrip('/')}/health"
        return Service("mlflow", uri, lambda _: server.answers(health))
    listener = _listen("mlflow", project.settings.ports.mlflow, sockets)
    url = f"http://{LOOPBACK}:{guard.port_of(listener)}"
    return _guarded("mlflow", url, listener, own, credentials)


def _scoring(project: Project, own: Mapping[str, str], credentials: Credentials, sockets: ExitStack) -> Service:
    from windvane.serving import keys
    from windvane.serving import server as scoring

    serve = project.settings.serve
    try:
        listener = scoring.listen(serve.host, serve.port, keys.read(os.environ.get(keys.VARIABLE)))
    except InputError as e:
        raise InputError(str(e).replace("with --port", "with serve.port in params.yaml")) from None
    sockets.enter_context(listener)
    host = LOOPBACK if serve.host in ("0.0.0.0", "::") else serve.host
    return _guarded(
        "service", f"http://{f'[{host}]' if ':' in host else host}:{serve.port}", listener, own, credentials
    )


def _guarded(name: str, url: str, listener: socket.socket, own: Mapping[str, str], credentials: Credentials) -> Service:
    """A child on a socket that is held here. What answers there must prove that it is this project's."""
    number = listener.fileno()
    return Service(
        name,
        url,
        lambda _: guard.check_identity(url, credentials) is True,
        _role(name, str(number)),
        own,
        hands=(number,),
    )


def _role(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "windvane.flows.child", name, *arguments)


def _listen(name: str, wanted: int | None, sockets: ExitStack) -> socket.socket:
    """A socket that listens on the wanted port of loopback; without a wish on the usual one, or one of the next, or any.

    Raises InputError when the wanted one is taken.
    """
    listener = sockets.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    usual = PORTS[name]
    for port in (*range(usual, usual + NEXT), 0) if wanted is None else (wanted,):
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(512)
        except OSError:
            continue
        return listener
    raise InputError(
        f"params.yaml: ports.{name}: port {wanted} cannot be used: another program has it, or it is not allowed. "
        f"Choose another, or write null: then it is {usual} or the next free one"
    )


def _links(watched: Supervisor, credentials: Credentials, shown: bool) -> list[str]:
    """How a person opens the pages. The links hold the secret: on a terminal only, never in a log."""
    pages = {
        name: one.service.address
        for name, one in watched.children.items()
        if name in PORTS and one.service.command is not None and one.service.address is not None
    }
    if not pages:
        return []
    if not shown:
        return ["  MLflow's and Prefect's pages ask for the project's secret: windvane secret"]
    return [f"  open {line}" for line in access.links(pages, credentials)]


def _beats(home: Path, pid: int | None) -> bool:
    """Whether the runner has set up its deployments and looked round lately."""
    said = _said(home)
    return said is not None and said.pid == pid and time.time() - said.at < BEAT


@dataclass(frozen=True)
class _Beat:
    """What the runner last said: its process, when (seconds since the epoch), and what it does when."""

    pid: int
    at: float
    does: Mapping[str, str]


def _said(home: Path) -> _Beat | None:
    """The runner's last word; None where there is none, or it is damaged: it speaks again in a moment."""
    return read_cache(home / "up" / RUNNER, lambda c: _Beat(int(c["pid"]), float(c["at"]), dict(c["does"])))


def _rows(project: Project, watched: Supervisor) -> list[dict[str, Any]]:
    rows = []
    for name, one in watched.children.items():
        more = _more(project, name) if one.ready else ""
        elsewhere = " (runs elsewhere)" if one.service.command is None else ""
        rows.append({"service": name, "state": one.state + elsewhere, "address": one.service.address or "-", "": more})
    return rows


def _more(project: Project, name: str) -> str:
    """What people want to know of a service beside its address."""
    if name == "service":
        told = state.read(project.home / "serving")
        return (
            "no champion yet: windvane train"
            if told is None or told["version"] is None
            else f"version {told['version']}"
        )
    if name == "runner":
        said = _said(project.home)
        return "; ".join(f"{what}: {when}" for what, when in said.does.items()) if said is not None else ""
    return ""


def _facts(project: Project, watched: Supervisor, clock: Clock) -> dict[str, Any]:
    services = {
        name: {"address": one.service.address, "state": one.state, "pid": one.pid}
        for name, one in watched.children.items()
    }
    return {"project": project.name, "pid": os.getpid(), "clock": clock, "services": services}
