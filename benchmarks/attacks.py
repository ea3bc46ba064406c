"""What each server of a project answers to whoever should get nothing: a table of attacks, each with the answer it got.

`python -m benchmarks.attacks [--senders 2000]`: a small project, one lap, `windvane up`, and then from another process:
every route of every server (found in the applications themselves, so that a new one is not forgotten) without the secret, with a
wrong one, under a foreign name and from a foreign page; the known attacks on Prefect's API, on labels and on MLflow's store; paths
that leave their folder; bodies and headers that never end. Exit status 1 if one of them got in or put a server out of work.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from tests.support.projects import Folder, quick_project
from tests.support.running_up import Up, standing
from windvane.tasks import project_secrets

EVIL = "evil.example"
FOREIGN = f"http://{EVIL}"
REFUSED = frozenset({400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 431, "closed"})
ANSWER_SECONDS = 30.0
Status = int | str


@dataclass(frozen=True)
class Row:
    """An attack on a server: how often it was tried, which answers came, and the tries that got in."""

    server: str
    attack: str
    answers: Mapping[Status, int]
    breaches: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As a row of the table."""
        got = ", ".join(f"{status} ({count})" for status, count in sorted(self.answers.items(), key=str))
        verdict = "held" if not self.breaches else "GOT IN: " + "; ".join(self.breaches[:5])
        return f"| {self.server} | {self.attack} | {sum(self.answers.values())} | {got} | {verdict} |"


@dataclass
class Target:
    """One server: where it answers, its routes as (method, path), and what may be had without the secret."""

    name: str
    address: str
    routes: list[tuple[str, str]]
    open_reads: frozenset[str]
    open_to_all: bool = False
    rows: list[Row] = field(default_factory=list)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Status:
        """The status that a request got, its path sent as it is; `closed` where the connection ended without one."""
        return self.answer(method, path, headers, body)[0]

    def answer(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[Status, bytes]:
        """Status and body."""
        to = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(to.hostname), to.port, timeout=ANSWER_SECONDS)
        given = {"Host": f"{to.hostname}:{to.port}", **(headers or {})}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read(100_000)
        except (http.client.HTTPException, ConnectionError):
            return "closed", b""
        finally:
            connection.close()

    def tried(
        self, attack: str, tries: Mapping[str, Status], held: Callable[[str, Status], bool] | None = None
    ) -> None:
        """Record what came of the tries, by name; held says of one whether it was refused."""
        good = held or (lambda _, status: status in REFUSED)
        breaches = tuple(f"{what}: {status}" for what, status in tries.items() if not good(what, status))
        self.rows.append(Row(self.name, attack, Counter(tries.values()), breaches))


def prefect_routes() -> list[tuple[str, str]]:
    """Every route of Prefect's server, sockets as GET."""
    from prefect.server.api.server import create_app

    return sorted(set(_flat(create_app().routes)))


def mlflow_routes() -> list[tuple[str, str]]:
    """Every route of MLflow's server: FastAPI's own, and Flask's behind them."""
    from mlflow.server import app as flask
    from mlflow.server.fastapi_app import app

    found = set(_flat(app.routes))
    for rule in flask.url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "1", rule.rule)
        found |= {(method, path) for method in rule.methods or () if method not in ("OPTIONS", "HEAD")}
    return sorted(found)


def service_routes() -> list[tuple[str, str]]:
    """Every route of the scoring service."""
    from windvane.serving.http.app import ScoringApp

    return sorted(ScoringApp(*[None] * 6).routes)  # type: ignore[arg-type]


def _flat(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI keeps an included router as it is
            yield from _flat(route.original_router.routes, prefix + route.include_context.prefix)
            continue
        path = prefix + re.sub(r"\{[^}]*\}", str(uuid4()), getattr(route, "path", ""))
        inner = getattr(route, "routes", None) or getattr(getattr(route, "app", None), "routes", None)
        if inner:
            yield from _flat(inner, path)
        else:
            for method in getattr(route, "methods", None) or ("GET",):
                if method not in ("OPTIONS", "HEAD"):
                    yield method, path or "/"


def every_route(target: Target, own: str) -> None:
    """All routes without the secret, with wrong ones, under a foreign name, from a foreign page."""

    def basic(password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"windvane:{password}".encode()).decode()}

    right = basic(own)

    def each(headers: Mapping[str, str]) -> dict[str, Status]:
        return {f"{method} {path}": target.ask(method, path, headers, _body(method)) for method, path in target.routes}

    def open_ones(what: str, status: Status) -> bool:
        method, path = what.split(" ", 1)
        return status in REFUSED or (method in ("GET", "HEAD") and path in target.open_reads)

    if not target.open_to_all:
        target.tried("every route without the secret", each({}), open_ones)
        target.tried("every route with a wrong secret", each(basic("0" * 64)), open_ones)
        target.tried(
            "every route with another project's cookie",
            each({"Cookie": "windvane-000000000000=" + "0" * 64}),
            open_ones,
        )
    probes = frozenset({"/ping", "/health"}) if target.open_to_all else frozenset()

    def probe(what: str, status: Status) -> bool:
        return status in REFUSED or what.split(" ", 1)[1] in probes

    target.tried("every route under a foreign Host, with the secret", each({**right, "Host": EVIL}), probe)
    target.tried(
        "every route from a foreign page, with the secret",
        each({**right, "Origin": FOREIGN}),
        lambda what, status: status in REFUSED or (target.open_to_all and what.startswith("GET ")),
    )
    target.tried(
        "every route from a page without origin",
        each({**right, "Origin": "null"}),
        lambda what, status: status in REFUSED or (target.open_to_all and what.startswith("GET ")),
    )


def _body(method: str) -> bytes | None:
    return b"{}" if method in ("POST", "PUT", "PATCH", "DELETE") else None


def twisted(target: Target, own: str) -> None:
    """Paths that leave their folder, names that are no path, two hosts, and requests for another server."""
    bearer = {"Authorization": f"Bearer {own}"}
    up = ("../" * 8, "..%2f" * 8, "%2e%2e/" * 8, "..\\" * 8, "..%5c" * 8, "....//" * 8, "%252e%252e%252f" * 8)
    roots = (
        "/",
        "/static/",
        "/static-files/",
        "/assets/",
        "/get-artifact?run_uuid=x&path=",
        "/api/2.0/mlflow-artifacts/artifacts/",
        "/docs/",
    )
    paths = [f"{root}{step}{file}" for root in roots for step in up for file in ("etc/passwd", ".windvane/secret")]
    told: dict[str, Status] = {}
    leaks = {}
    for path in paths:
        status, body = target.answer("GET", path, bearer)
        told[path] = status
        leaks[path] = b"root:x:0" in body or own.encode() in body
    target.tried("paths that leave their folder, with the secret", told, lambda what, _: not leaks[what])
    to = urlsplit(target.address)
    twice = {
        "two hosts": raw(to, f"GET / HTTP/1.1\r\nHost: {to.netloc}\r\nHost: {EVIL}\r\n\r\n".encode()),
        "another server's address": raw(to, f"GET http://{EVIL}/ HTTP/1.1\r\nHost: {EVIL}\r\n\r\n".encode()),
        "no host": raw(to, b"GET /model HTTP/1.1\r\n\r\n"),
        "a header of a megabyte": raw(
            to, b"GET /model HTTP/1.1\r\nHost: " + to.netloc.encode() + b"\r\nX: " + b"a" * 2**20 + b"\r\n\r\n"
        ),
        "bytes that are no HTTP": raw(to, os.urandom(512)),
        "both lengths": raw(
            to,
            f"POST /labels HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
        ),
    }
    target.tried("two hosts, no host, another's address, no HTTP", twice)


def raw(to: Any, request: bytes) -> Status:
    """The status that some bytes got."""
    with socket.create_connection((to.hostname, to.port), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(request)
            line = connection.recv(4096).split(b"\r\n", 1)[0].split()
        except ConnectionError:
            return "closed"
    return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") else "closed"


def code_through_prefect(target: Target, own: str, folder: Path) -> None:
    """Field case A1: a deployment made to run a command, by whoever reaches the port."""
    mark = folder / "executed"
    step = {"prefect.deployments.steps.run_shell_script": {"script": f"touch {mark}"}}
    change = json.dumps(
        {
            "pull_steps": [step],
            "path": "/tmp",
            "entrypoint": "windvane.flows.orchestration.scheduled_flows.monitor_flow",
        }
    ).encode()
    good = {"Authorization": f"Bearer {own}", "Content-Type": "application/json"}
    status, body = target.answer("POST", "/api/deployments/filter", good, b"{}")
    assert status == 200, status
    ids = [one["id"] for one in json.loads(body)]
    assert ids
    told: dict[str, Status] = {}
    for how, headers in {
        "without the secret": {"Content-Type": "application/json"},
        "from a foreign page": {"Content-Type": "application/json", "Origin": FOREIGN},
        "as text, without preflight": {"Content-Type": "text/plain", "Origin": FOREIGN},
        "with a foreign page's secret": {**good, "Origin": FOREIGN},
        "under a foreign name": {**good, "Host": EVIL},
    }.items():
        for one in ids:
            told[f"change a deployment {how} {one}"] = target.ask("PATCH", f"/api/deployments/{one}", headers, change)
            told[f"run it {how} {one}"] = target.ask("POST", f"/api/deployments/{one}/create_flow_run", headers, b"{}")
    preflight = {
        "Origin": FOREIGN,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "content-type",
    }
    told["preflight"] = target.ask("OPTIONS", f"/api/deployments/{ids[0]}", preflight)
    time.sleep(5)  # the runner asks every two seconds
    if mark.exists():
        told["the command ran"] = 200
    target.tried("run code through a deployment (A1)", told)


def forged_labels(target: Target, own: str) -> None:
    """Field case A2 and its neighbours."""
    body = b'[{"id":"x","label":1}]'
    with_own = {"Authorization": f"Bearer {own}"}
    json_, text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    told = {
        "as text, from a foreign page": target.ask("POST", "/labels", {**text, "Origin": FOREIGN}, body),
        "as text": target.ask("POST", "/labels", text, body),
        "as text, with the secret": target.ask("POST", "/labels", {**text, **with_own}, body),
        "as a form, with the secret": target.ask("POST", "/labels", {**form, **with_own}, body),
        "without a type, with the secret": target.ask("POST", "/labels", with_own, body),
        "without the secret": target.ask("POST", "/labels", json_, body),
        "with a wrong secret": target.ask("POST", "/labels", {**json_, "Authorization": "Bearer " + "0" * 64}, body),
        "from a foreign page, with the secret": target.ask(
            "POST", "/labels", {**json_, **with_own, "Origin": FOREIGN}, body
        ),
        "under a foreign name, with the secret": target.ask(
            "POST", "/labels", {**json_, **with_own, "Host": EVIL}, body
        ),
    }
    target.tried("forged labels (A2)", told)


def heavy_bodies(target: Target) -> None:
    """Bodies that are too large, too deep, or never end."""
    json_ = {"Content-Type": "application/json"}
    deep = b'{"dataframe_records":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    to = urlsplit(target.address)
    head = f"POST /invocations HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n"
    told: dict[str, Status] = {
        "deeply nested": target.ask("POST", "/invocations", json_, deep),
        "seventeen megabytes": target.ask("POST", "/invocations", json_, b"[" + b" " * 17 * 2**20 + b"]"),
        "a length of a hundred gigabytes": raw(to, f"{head}Content-Length: 100000000000\r\n\r\n".encode()),
        "a negative length": raw(to, f"{head}Content-Length: -1\r\n\r\n".encode()),
        "a chunk of a gigabyte that does not come": raw(
            to, f"{head}Transfer-Encoding: chunked\r\n\r\n40000000\r\n".encode()
        ),
        "numbers without end": target.ask("POST", "/invocations", json_, b'{"instances":[[' + b"9" * 10**6 + b"]]}"),
    }
    target.tried("oversized, nested and endless bodies", told)
    target.tried("answers afterwards", {"/ping": target.ask("GET", "/ping")}, lambda _, status: status == 200)


def slow_senders(target: Target, senders: int) -> None:
    """Field case I7: connections that send a header line every five seconds, and one that asks in the meantime."""
    to, open_, stop = urlsplit(target.address), list[socket.socket](), threading.Event()
    for _ in range(senders):
        try:
            connection = socket.create_connection((to.hostname, to.port), timeout=5)
            connection.sendall(f"GET /model HTTP/1.1\r\nHost: {to.netloc}\r\n".encode())
            open_.append(connection)
        except OSError:
            continue

    def trickle() -> None:
        while not stop.wait(5):
            for connection in open_:
                with contextlib.suppress(OSError):
                    connection.sendall(b"X-A: b\r\n")

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    told: dict[str, Status] = {}
    for second in range(30):
        told[f"/ping after {second} s"] = target.ask("GET", "/ping")
        told[f"/model after {second} s"] = target.ask("GET", "/model")
        time.sleep(1)
    stop.set()
    thread.join()
    for connection in open_:
        connection.close()
    target.tried(
        f"{senders:,} connections that send a header line every 5 s (I7): others are answered",
        told,
        lambda _, s: s == 200,
    )


def temporary_server(folder: Folder) -> Row:
    """The Prefect server of a single lap, found by its process, while the lap runs."""
    folder.set(split__seed=7)
    lap = folder.start("train")
    told: dict[str, Status] = {}
    breaches = []
    while lap.poll() is None:
        for port in _listening(lap.pid):
            target = Target("prefect", f"http://127.0.0.1:{port}", [], frozenset())
            for how, headers in {
                "": {},
                " from a foreign page": {"Origin": FOREIGN},
                " under a foreign name": {"Host": EVIL},
            }.items():
                try:
                    status = target.ask(
                        "POST", "/api/deployments/filter", {"Content-Type": "application/json", **headers}, b"{}"
                    )
                except OSError:
                    continue
                told[f"{len(told)}{how}"] = status
                if status not in REFUSED:
                    breaches.append(f"port {port}{how}: {status}")
        time.sleep(0.5)
    lap.communicate()
    if not told:
        breaches.append("the server was never found")
    return Row("prefect", "the server of a single lap, without the secret", Counter(told.values()), tuple(breaches))


def _listening(pid: int) -> list[int]:
    found = []
    for process in psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []:
        with contextlib.suppress(psutil.Error):
            found += [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return found


def targets(up: Up) -> tuple[Target, Target, Target]:
    """Prefect, MLflow and the scoring service of a running `windvane up`."""
    from windvane.flows.orchestration.server import OPEN_PREFECT_PATHS as PREFECT_OPEN

    return (
        Target("prefect", up.address("prefect"), prefect_routes(), frozenset({*PREFECT_OPEN, "/windvane-health"})),
        Target("mlflow", up.address("mlflow"), mlflow_routes(), frozenset({"/health", "/windvane-health"})),
        Target("service", up.address("service"), service_routes(), frozenset(), open_to_all=True),
    )


def attack(up: Up, senders: int) -> list[Row]:
    """All attacks on what `up` runs; a row each."""
    own = project_secrets.read_project_secret(up.folder.path / ".windvane")
    prefect, mlflow, service = targets(up)
    for target in (prefect, mlflow, service):
        every_route(target, own)
        twisted(target, own)
    code_through_prefect(prefect, own, up.folder.path)
    forged_labels(service, own)
    heavy_bodies(service)
    slow_senders(service, senders)
    return [row for target in (prefect, mlflow, service) for row in target.rows]


def main() -> int:
    """Attack, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--senders", type=int, default=2_000, help="Connections that send slowly.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="windvane-attacks-") as name:
        folder = quick_project(Path(name) / "project")
        folder.train()
        rows = [temporary_server(folder)]
        with standing(folder) as up:
            rows += attack(up, chosen.senders)
    print("| server | attack | tries | answers (how often) | |\n|---|---|---|---|---|")
    for row in rows:
        print(row.line)
    return 1 if any(row.breaches for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
