"""`windvane up`: which services a project needs, where they answer, and what people see of it. flows/supervisor.py runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windvane.flows import child, prefect_database, server, standing, supervisor
from windvane.flows.console import Console, Screen
from windvane.flows.project import Project
from windvane.flows.standing import Clock, Standing
from windvane.flows.supervisor import Child, Service, Supervisor, answers
from windvane.ledger.leases import Holder
from windvane.serving import state
from windvane.tasks.errors import InputError
from windvane.tasks.tables import read_cache

LOOPBACK = "127.0.0.1"
# Where people look for them; a port that is taken gives way to one of the next.
MLFLOW, PREFECT, NEXT = 5000, 4200, 50
# Seconds between two looks; after which the runner, which looks every minute, is taken for hanging.
STEP, BEAT = 0.25, 180
RUNNER = "runner.json"


def up(project: Project, clock: Clock, console: Console) -> None:
    """Everything at once, until SIGINT or SIGTERM. With `--json`: one object on standard output once all is ready."""
    _ = project.ledger  # an outage of what everything stands on is told at once
    with standing.alone(project.home), _until_told() as stopping, socket.socket() as prefect:
        left = supervisor.sweep(standing.read(project.home), project.home)
        if left:
            console.say(f"  note: ended {left} processes that an earlier `windvane up` left behind when it was killed")
        services = _services(project, clock, prefect)
        me = Holder.me("windvane up")
        url = next(s.environment["PREFECT_API_URL"] for s in services if s.name == "runner")
        addresses = {s.name: s.address for s in services}

        def told(children: Mapping[str, Child]) -> None:
            alive = {name: (one.pid, one.born) for name, one in children.items() if one.pid is not None}
            standing.write(project.home, Standing(me, clock, url, addresses, alive))

        watched = Supervisor(services, project.home / "up", told)
        try:
            told(watched.children)
            _watch(project, watched, stopping, clock, console)
        finally:
            console.say("  stopping")
            watched.stop()
            standing.clear(project.home)
            console.say("  stopped")


def _watch(project: Project, watched: Supervisor, stopping: list[int], clock: Clock, console: Console) -> None:
    screen, told = Screen(console), False
    while not stopping:
        watched.step()
        screen.show(_rows(project, watched))
        if watched.ready and not told:
            told = True
            screen.say("  all ready; Ctrl-C stops" + ("; the clock is that of the events" if clock == "events" else ""))
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


def _services(project: Project, clock: Clock, prefect: socket.socket) -> list[Service]:
    """In the order of the table. What the environment names as running elsewhere is used, not started."""
    home, own = project.home, {child.MARK: str(project.home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    shared = os.environ.get("PREFECT_API_URL")
    if shared:
        url = shared.rstrip("/")
        orders = Service("prefect", url.removesuffix("/api"), lambda _: answers(f"{url}/health"))
        told = {"PREFECT_API_URL": url}
    else:
        # Bound here for as long as `up` runs: while the server is started again, requests wait instead of failing.
        url = f"http://{LOOPBACK}:{_bind(prefect, PREFECT)}/api"
        told = dict(server.environment(home / "prefect", url))
        prefect_database.prepare(home / "prefect")
        command = (sys.executable, "-P", "-m", "windvane.flows.server", str(prefect.fileno()))
        orders = Service(
            "prefect",
            url.removesuffix("/api"),
            lambda _: server.healthy(url),
            command,
            own | told,
            hands=(prefect.fileno(),),
        )
    own |= told
    serve = project.settings.serve
    at = f"http://{LOOPBACK if serve.host in ('0.0.0.0', '::') else serve.host}:{serve.port}"
    _free(serve.host, serve.port)
    return [
        _tracking(project, own),
        orders,
        Service("service", at, lambda _: answers(f"{at}/version"), _role("service"), own),
        Service(
            "runner", None, lambda pid: _beats(home, pid), _role("runner", clock), own, after=("mlflow", "prefect")
        ),
    ]


def _tracking(project: Project, own: Mapping[str, str]) -> Service:
    uri = project.tracking_uri
    if uri is not None and uri.startswith("http"):
        return Service("mlflow", uri, lambda _: answers(f"{uri.rstrip('/')}/health"))
    with socket.socket() as probe:
        port = _bind(probe, MLFLOW)
    url = f"http://{LOOPBACK}:{port}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Service("mlflow", url, lambda _: answers(f"{url}/health"), _role("mlflow", str(port)), {**own, **quiet})


def _role(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "windvane.flows.child", name, *arguments)


def _bind(listener: socket.socket, port: int) -> int:
    """Bind to a port of loopback, or to one of the next if it is taken, or to any; which one."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for one in (*range(port, port + NEXT), 0):
        try:
            listener.bind((LOOPBACK, one))
            listener.listen(512)
        except OSError:
            continue
        return int(listener.getsockname()[1])
    raise AssertionError("the system always has a free port")


def _free(host: str, port: int) -> None:
    from windvane.serving import keys, server

    known = keys.read(os.environ.get(keys.VARIABLE))
    try:
        server.listen(host, port, known).close()
    except InputError as e:
        raise InputError(str(e).replace("with --port", "with serve.port in params.yaml")) from None


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
