"""Requests and rows per second of the scoring service, beside `mlflow models serve` and a plain FastAPI service.

python benchmarks/serving.py [SECONDS]     # per measurement, 5 unless told; some minutes in all
One machine, one run, one model for all: 100 trees of gradient boosting on the built-in table, trained by `windvane train`. The load comes
from a process of its own on the same machine (benchmarks/load.py), so client and service share its cores.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import load
import psutil
import yaml
from fixed_model import FIXED_MODEL

ROOT = Path(__file__).parent.parent
SYNCS, ROUNDS = 100, 3
OURS, RECORDED, MLFLOW = "windvane, without the ledger", "windvane, with the ledger", "mlflow models serve"
# Seconds in which a service must have answered once.
PATIENCE = 120


@dataclass(frozen=True)
class Measured:
    """A load, and the service's processor milliseconds per request."""

    load: load.Load
    busy: float


def project(folder: Path) -> Path:
    """A taught project; its model's folder."""
    (folder / "data").mkdir()
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["search"] |= FIXED_MODEL
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(
        [sys.executable, "-m", "windvane.cli.main", "train", "--json"], cwd=folder, check=True, capture_output=True
    )
    (engine,) = (folder / ".windvane" / "artifacts").rglob("engine.json")
    return engine.parent


def bodies(model: Path) -> tuple[list[bytes], list[bytes]]:
    """Requests of one row, and of 100 rows, from the newest rows of the table."""
    import pandas as pd

    columns = [c["name"] for c in json.loads((model / "engine.json").read_text())["signature"]["inputs"]]
    frame = pd.read_csv(ROOT / "data" / "txhousing.csv")[columns].dropna().tail(500)

    def body(rows: Any) -> bytes:
        split = json.loads(rows.to_json(orient="split", index=False))
        return load.request("/invocations", json.dumps({"dataframe_split": split}).encode())

    return [body(frame.iloc[i : i + 1]) for i in range(100)], [
        body(frame.iloc[i : i + 100]) for i in range(0, 400, 100)
    ]


@contextmanager
def started(command: list[str], folder: Path, first: bytes) -> Iterator[tuple[int, psutil.Process, float]]:
    """A service; its port, its process, and the seconds until its first answer."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    began = time.perf_counter()
    told = subprocess.DEVNULL
    # mlflow starts `uvicorn` by its name.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env["OMP_NUM_THREADS"] = "1"  # two threads wait for each other in a spin: it would be unfair to the others
    process = subprocess.Popen(
        [*command, str(port)], cwd=folder, env=env, stdout=told, stderr=told, start_new_session=True
    )
    try:
        while not _answers(port, first):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise RuntimeError(f"{command} does not answer")
            time.sleep(0.02)
        yield port, psutil.Process(process.pid), time.perf_counter() - began
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
            process.wait(30)


def _answers(port: int, first: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
            s.sendall(first)
            return b" 200 " in s.recv(1000)
    except OSError:
        return False


def measure(service: tuple[int, psutil.Process], requests: list[bytes], connections: int, seconds: float) -> Measured:
    """The load, and the processor time that the service spent per request: that does not depend on its neighbours."""
    port, process = service
    before = _busy(process)
    told = load.run(port, requests, connections, seconds)
    return Measured(told, 1000 * (_busy(process) - before) / told.answers)


def _busy(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def bare(port: int) -> None:
    """Our service without the ledger; run in the project's folder."""
    from windvane.ledger.predictions import PrivacyRules
    from windvane.serving.http import access_control, server
    from windvane.serving.http.access_control import HostNames
    from windvane.serving.http.request_rows import IdTimeColumns
    from windvane.tasks.project import Project
    from windvane.tasks.settings.serving_section import RolloutRule

    own = Project(Path.cwd())
    known = access_control.parse_api_keys(None)
    listening = server.open_listening_socket("127.0.0.1", port, known)
    home = own.home / "serving"
    server.run_service(
        server.ServedProject(
            own.ledger,
            own.name,
            home,
            own.fetch,
            IdTimeColumns(),
            PrivacyRules(),
            lambda *_: None,  # type: ignore[arg-type, return-value]
        ),
        server.ServingRules(RolloutRule(), recorded=False),
        listening,
        known,
        HostNames("127.0.0.1"),
    )


def plain(model: str, port: int) -> None:
    """What one writes in an afternoon: FastAPI, a frame, the pipeline."""
    import pandas as pd
    import uvicorn
    from fastapi import FastAPI

    from windvane.tasks.stores import model_files

    folder = Path(model)
    pipeline = model_files.load_model(folder, model_files.hash_file(folder / model_files.MANIFEST_FILE))
    app = FastAPI()

    @app.post("/invocations")
    async def invocations(body: dict[str, Any]) -> dict[str, Any]:
        split = body["dataframe_split"]
        frame = pd.DataFrame(split["data"], columns=split["columns"])
        frame["ts"] = pd.to_datetime(frame["ts"]).astype("datetime64[us]")
        return {"predictions": pipeline.predict(frame).tolist()}

    uvicorn.run(app, port=port, log_level="warning")


def syncs(folder: Path) -> list[float]:
    """Milliseconds of writing 4 KB and fsync, as a transaction does at least."""
    taken = []
    with (folder / "sync").open("wb") as f:
        for _ in range(SYNCS):
            f.write(b"x" * 4096)
            f.flush()
            began = time.perf_counter()
            os.fsync(f.fileno())
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def services(model: Path) -> dict[str, list[str]]:
    """The commands that start them, without the port at their end."""
    me = [sys.executable, str(Path(__file__).resolve())]
    mlflow = ["models", "serve", "-m", str(model), "--env-manager", "local", "--host", "127.0.0.1", "--port"]
    return {
        OURS: [*me, "bare"],
        RECORDED: [sys.executable, "-m", "windvane.cli.main", "serve", "--port"],
        "FastAPI + scikit-learn": [*me, "plain", str(model)],
        MLFLOW: [sys.executable, "-m", "mlflow", *mlflow],
    }


def main(seconds: float) -> None:
    measured: dict[str, list[list[Measured]]] = {}
    taken: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = project(folder)
        singles, hundreds = bodies(model)
        running = {}
        for service, command in services(model).items():
            *running[service], first = stack.enter_context(started(command, folder, singles[0]))
            print(f"{service}: first answer after {first:.1f} s", flush=True)
        # In turns, so that a busy minute of the machine falls on all of them.
        for _ in range(ROUNDS):
            for service, where in running.items():
                loads = ((singles, 16), (singles, 1), (hundreds, 4))
                measured.setdefault(service, []).append([measure(tuple(where), *how, seconds) for how in loads])
            taken.append(syncs(folder))
    show(measured)
    show_syncs(measured, taken)


def show(measured: dict[str, list[list[Measured]]]) -> None:
    """A table of medians over the rounds, and the factors between services within each round."""
    print("| service | 1 row, 16 connections | 1 row, 1 connection | 100 rows, 4 connections | failed |")
    print("|---|---|---|---|---|")

    def middle(values: Any) -> float:
        return statistics.median(values)

    for service, rounds in measured.items():
        cells = []
        for kind, size in ((0, 1), (1, 1), (2, 100)):
            rate = size * middle(r[kind].load.per_second for r in rounds)
            p50, p99 = middle(r[kind].load.p50 for r in rounds), middle(r[kind].load.p99 for r in rounds)
            unit, busy = "rows" if size > 1 else "requests", middle(r[kind].busy for r in rounds)
            cells.append(f"{rate:,.0f} {unit}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, processor {busy:.2f} ms")
        failed = sum(one.load.failed for r in rounds for one in r)
        print(f"| {service} | {' | '.join(cells)} | {failed} |")
    for service, rounds in measured.items():
        pairs = list(zip(rounds, measured[MLFLOW], strict=True))
        many, batch = ([ours[k].load.per_second / theirs[k].load.per_second for ours, theirs in pairs] for k in (0, 2))
        print(
            f"{service}: {middle(many):.1f} times the requests of mlflow ({min(many):.1f} to {max(many):.1f}), "
            f"{middle(batch):.1f} times the rows ({min(batch):.1f} to {max(batch):.1f})"
        )


def show_syncs(measured: dict[str, list[list[Measured]]], taken: list[list[float]]) -> None:
    """What recording costs one connection, beside one fsync of the same round."""
    whole = sorted(one for round in taken for one in round)
    most = whole[int(0.99 * len(whole))]
    print(f"fsync of 4 KB: median {statistics.median(whole):.2f} ms, 99 % within {most:.2f} ms")
    for i, (bare, recorded) in enumerate(zip(measured[OURS], measured[RECORDED], strict=True)):
        without, sync, within = bare[1].load.p50, statistics.median(taken[i]), recorded[1].load.p50
        print(
            f"round {i + 1}, 1 connection, p50: with the ledger {within:.2f} ms; without it and one fsync "
            f"{without:.2f} + {sync:.2f} = {without + sync:.2f} ms"
        )


if __name__ == "__main__":
    # This file has the name of a package that its own services import.
    sys.path[0] = str(ROOT)
    match sys.argv[1:]:
        case ["bare", port]:
            bare(int(port))
        case ["plain", folder, port]:
            plain(folder, int(port))
        case rest:
            main(float(rest[0]) if rest else 5.0)
