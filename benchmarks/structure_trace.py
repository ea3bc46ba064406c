"""Which product files do a lap, a request and a monitoring pass execute? Part of `python -m benchmarks.structure --trace`.

A small made table in a temporary folder: a first lap, a service that answers one row, then rows that came later and a monitoring
pass over them. All processes that a command starts count, Prefect's server among them; benchmarks/traced/ records.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.structure import ROOMS, ROOT
from tests.support.projects import Folder, quick_project
from tests.support.served_models import serving
from tests.support.tables import houses

LEARNED_ROWS, LATER_ROWS = 600, 90
REQUESTS = 5
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Executed:
    """Product files of which a function ran, and all that were loaded or ran."""

    ran: frozenset[str]
    loaded: frozenset[str]


def trace() -> dict[str, Executed]:
    """One lap, one request, one monitoring pass of a small project."""
    with tempfile.TemporaryDirectory(prefix="windvane-structure-") as name:
        folder = small_project(Path(name) / "project")
        lap = recorded(folder, Path(name) / "lap", "train")
        request = one_request(folder, Path(name) / "request")
        rows = houses(LEARNED_ROWS + LATER_ROWS)
        rows.to_csv(folder.path / "data" / "houses.csv", index=False)
        monitoring = recorded(folder, Path(name) / "pass", "monitor")
    return {
        "one lap (`windvane train`)": lap,
        "one request (`POST /invocations`)": request,
        "one monitoring pass (`windvane monitor`)": monitoring,
    }


def small_project(path: Path) -> Folder:
    """A regression with time, two candidates and few trials."""
    folder = quick_project(path)
    houses(LEARNED_ROWS).to_csv(folder.path / "data" / "houses.csv", index=False)
    folder.set(
        problem__target="price",
        problem__time="day",
        problem__ignore=[],
        data__source="data/houses.csv",
        search__candidates=["linear", "boosting"],
        search__trials=2,
        monitor__window="1mo",
        retrain__policy="never",
    )
    return folder


def environment(records: Path) -> dict[str, str]:
    """With which a process and all that it starts record into `records`."""
    records.mkdir()
    return {
        "PYTHONPATH": str(ROOT / "benchmarks" / "traced"),
        "WINDVANE_TRACE_RECORDS": str(records),
        "WINDVANE_TRACE_ROOT": str(ROOT.resolve()),
        "WINDVANE_TRACE_ROOMS": ",".join(ROOMS),
    }


def recorded(folder: Folder, records: Path, command: str) -> Executed:
    """What a command executes, with its child processes."""
    ran = folder.run(command, "--json", env=environment(records), timeout=600)
    if ran.status != 0:
        raise SystemExit(f"windvane {command} failed: {ran.err}")
    return read_records(records)


def one_request(folder: Folder, records: Path) -> Executed:
    """What the service executes from a request to its answer: files seen in each of several, so that no background work counts."""
    row = houses(1).drop(columns="price").astype({"day": str}).to_dict("records")[0]
    env = environment(records)
    seen: list[Executed] = []
    with serving(folder, **env, WINDVANE_TRACE_RESETS="1") as (_, port), httpx.Client(timeout=ANSWER_SECONDS) as client:
        address = f"http://127.0.0.1:{port}/invocations"
        for _ in range(REQUESTS + 1):  # the first opens the connection and fills caches: it does not count
            forget(records)
            client.post(address, json={"dataframe_records": [row]}).raise_for_status()
            seen.append(read_records(records))
    counted = seen[1:]
    return Executed(
        frozenset.intersection(*(one.ran for one in counted)), frozenset.intersection(*(one.loaded for one in counted))
    )


def forget(records: Path) -> None:
    """Have the recorder forget what it saw, and wait until it has."""
    (records / "reset").touch()
    deadline = time.monotonic() + ANSWER_SECONDS
    while (records / "reset").exists():
        if time.monotonic() > deadline:
            raise SystemExit("the recorder in the service does not answer")
        time.sleep(0.01)


def read_records(records: Path) -> Executed:
    """The files that any process recorded."""
    lines = [line for record in records.iterdir() for line in record.read_text().splitlines()]
    found: Mapping[str, set[str]] = {"ran": set(), "loaded": set()}
    for line in lines:
        what, _, path = line.partition(" ")
        found[what].add(path)
    return Executed(frozenset(found["ran"]), frozenset(found["ran"] | found["loaded"]))
