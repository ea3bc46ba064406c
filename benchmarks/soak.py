"""An hour under `windvane up`: requests at a steady pace, labels, and a look of the watch each minute.

python -m benchmarks.soak [--minutes 60] [--rate 100] [--no-labels]
Prints by minute what each process takes of memory (its share of what is shared, PSS), its handles, and the sizes of logs and
ledger; then, for each process that lives through it, the slope of its memory after the first ten minutes with its 95 %
interval. Ends by itself, with status 1 where a process grows. One machine, one run; the load shares its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import scipy.stats

from benchmarks.played import IGNORE, TARGET, TIME, prepare
from tests.support.projects import ROOT
from tests.support.running_up import Up, mine, standing, until
from windvane.ledger import database, windows

# Minutes in which caches fill and allocators settle; fewer minutes behind them than LEAST say nothing.
WARM_UP_MINUTES, LEAST = 10, 5
# A slope below this is not called growth, even where it is surely above nothing: 3 MB in an hour.
TOLERATED_MB_A_MINUTE = 0.05
WORKERS = 8
SAMPLE_SECONDS = 5.0
LABELS_AT_ONCE = 5_000
PASSING = "passing"
UNTIL = "2010-01-01"


@dataclass
class Minute:
    """What was seen in one: requests answered and failed; MB and handles by process; MB of logs and of the ledger; looks."""

    requests: int = 0
    failed: int = 0
    memory: dict[str, float] = field(default_factory=dict)
    handles: dict[str, int] = field(default_factory=dict)
    logs: float = 0.0
    ledger: float = 0.0
    looks: int = 0


class Load:
    """Requests at `rate` a second until told to stop; a label for each answer of the minute before."""

    def __init__(self, up: Up, rate: float, labels: bool) -> None:
        self._up, self._rate, self._labels = up, rate, labels
        self.requests = self.failed = 0
        self._owed: list[dict[str, Any]] = []
        known = pd.read_csv(ROOT / "data" / "txhousing.csv", parse_dates=[TIME])
        known = known[(known[TIME] < UNTIL) & known[TARGET].notna()].tail(2_000)
        self._truth = known[TARGET].tolist()
        rows = known.drop(columns=[TARGET, *IGNORE]).astype(object)
        self._rows = rows.where(rows.notna(), None).to_dict("records")

    async def run(self, over: asyncio.Event) -> None:
        """Ask."""
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=self._up.address("service"), timeout=30) as http:
            await asyncio.gather(*(self._ask(http, over, began, i) for i in range(WORKERS)))

    async def _ask(self, http: httpx.AsyncClient, over: asyncio.Event, began: float, number: int) -> None:
        turn, start = 0, pd.Timestamp(UNTIL)
        while not over.is_set():
            due = began + (turn * WORKERS + number) / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            at = (turn * WORKERS + number) % len(self._rows)
            # Events come in their order, an hour of theirs each second: each look finds two new days.
            moment = start + pd.Timedelta(hours=time.monotonic() - began)
            row = {**self._rows[at], TIME: moment.strftime("%Y-%m-%dT%H:%M:%S")}
            turn += 1
            try:
                answer = await http.post("/invocations", json={"dataframe_records": [row]})
            except httpx.TransportError:
                self.failed += 1
                continue
            self.requests += 1
            if answer.status_code != 200:
                self.failed += 1
            elif self._labels:
                self._owed.append({"id": answer.json()["ids"][0], "label": self._truth[at]})

    def hand_in(self) -> None:
        """The labels of the minute that is over."""
        owed, self._owed = self._owed, []
        for start in range(0, len(owed), LABELS_AT_ONCE):
            done = self._up.service("POST", "/labels", json=owed[start : start + LABELS_AT_ONCE])
            self.failed += done.status_code != 200


def processes(up: Up) -> Iterator[tuple[str, psutil.Process]]:
    """Those of `up`, by name, with the workers of a server under its name; what the runner starts and ends is `passing`."""
    yield "up", psutil.Process(up.process.pid)
    lasting = {up.pid(name): name for name in up.told["services"] if up.told["services"][name].get("pid")}
    for process in mine(up.folder):
        with suppress(psutil.Error):
            if process.pid == up.process.pid:
                continue
            line = [process, *process.parents()]
            name = next((lasting[one.pid] for one in line if one.pid in lasting), PASSING)
            yield PASSING if name == "runner" and process.pid not in lasting else name, process


def sample(up: Up) -> tuple[dict[str, float], dict[str, int]]:
    """MB and handles of each at this moment."""
    memory: dict[str, float] = defaultdict(float)
    handles: dict[str, int] = defaultdict(int)
    for name, process in processes(up):
        with suppress(psutil.Error, OSError):
            memory[name] += process.memory_full_info().pss / 1e6
            handles[name] += process.num_fds()
    return dict(memory), dict(handles)


def megabytes(folder: Path, *patterns: str) -> float:
    """Of all files below a folder that are named so."""
    sizes = 0
    for pattern in patterns:
        for path in folder.rglob(pattern):
            with suppress(OSError):
                sizes += path.stat().st_size
    return sizes / 1e6


def minutes(up: Up, load: Load, number: int, labels: bool) -> Iterator[Minute]:
    """One after the other, as they pass."""
    engine = database.connect_ledger(f"sqlite:///{up.folder.path / '.windvane' / 'ledger.db'}")
    began = time.monotonic()
    before = (0, 0)
    for i in range(1, number + 1):
        seen: dict[str, list[float]] = defaultdict(list)
        handles: dict[str, int] = {}
        while (left := began + 60 * i - time.monotonic()) > 0:
            time.sleep(min(left, SAMPLE_SECONDS))
            memory, handles = sample(up)
            for name, size in memory.items():
                seen[name].append(size)
        if labels:
            load.hand_in()
        now = (load.requests, load.failed)
        home = up.folder.path / ".windvane"
        yield Minute(
            now[0] - before[0],
            now[1] - before[1],
            # Of what passes, what it took at most.
            {name: max(s) if name == PASSING else float(np.median(s)) for name, s in seen.items()},
            handles,
            megabytes(home, "*.log*") + megabytes(up.folder.path, "up.log"),
            megabytes(home, "ledger.db*"),
            len(windows.list_windows(engine, str(up.told["project"]), 1)),
        )
        before = now


def verdict(name: str, taken: list[float]) -> tuple[bool, str]:
    """Whether a process grows, and the sentence; taken: MB by minute."""
    rest = taken[WARM_UP_MINUTES:]
    if len(rest) < LEAST:
        return False, f"{name}: not judged, {len(taken)} minutes are too few (at least {WARM_UP_MINUTES + LEAST})"
    fit = scipy.stats.linregress(range(len(rest)), rest)
    half = float(scipy.stats.t.ppf(0.975, len(rest) - 2) * fit.stderr)
    low, high = float(fit.slope) - half, float(fit.slope) + half
    grows = low > TOLERATED_MB_A_MINUTE
    said = "grows" if grows else "flat"
    return (
        grows,
        f"{name}: {said}, {fit.slope:+.3f} MB a minute ({low:+.3f} to {high:+.3f}), {rest[-1]:.0f} MB at the end",
    )


def main() -> int:
    """Print a row a minute, then the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=100.0, help="Requests a second.")
    parser.add_argument("--no-labels", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name) / "project", ROOT / "data" / "txhousing.csv", UNTIL, monitor__window="1d")
        folder.set(schedule__monitor="* * * * *", retrain__policy="never", monitor__label_delay="0d")
        print("starting `windvane up`", flush=True)
        with standing(folder, "--clock", "events") as up:
            print("training", flush=True)
            folder.train()
            until(lambda: up.service("GET", "/ping").status_code == 200, what="a champion answers")
            load, over = Load(up, chosen.rate, not chosen.no_labels), asyncio.Event()
            return asyncio.run(play(up, load, over, chosen.minutes, not chosen.no_labels))


async def play(up: Up, load: Load, over: asyncio.Event, number: int, labels: bool) -> int:
    """The load in the loop, the measuring beside it in a thread."""
    asking = asyncio.create_task(load.run(over))
    try:
        seen = await asyncio.to_thread(table, up, load, number, labels)
    finally:
        over.set()
        await asking
    names = [name for name in seen[-1].memory if name != PASSING and all(name in minute.memory for minute in seen)]
    judged = [verdict(name, [minute.memory[name] for minute in seen]) for name in names]
    print("\n".join(said for _, said in judged))
    passes = {state: count_passes(up, state) for state in ("COMPLETED", "FAILED", "CRASHED")}
    print("monitoring passes: " + ", ".join(f"{count} {state.lower()}" for state, count in passes.items()))
    asked, failed = sum(minute.requests for minute in seen), sum(minute.failed for minute in seen)
    print(
        f"{asked:,} requests, {failed} failed; {1e6 * (seen[-1].ledger - seen[0].ledger) / max(1, asked):.0f} bytes of ledger each"
    )
    spoilt = failed + passes["FAILED"] + passes["CRASHED"] or not passes["COMPLETED"]
    return 1 if any(grows for grows, _ in judged) or spoilt else 0


def count_passes(up: Up, state: str) -> int:
    """Monitoring passes that ended so."""
    wanted = {"flows": {"name": {"any_": ["monitor"]}}, "flow_runs": {"state": {"type": {"any_": [state]}}}}
    return int(up.ask("prefect", "POST", "/api/flow_runs/count", json=wanted).json())


def table(up: Up, load: Load, number: int, labels: bool) -> list[Minute]:
    """The minutes, each printed when it is over: MB (handles) of each process."""
    seen: list[Minute] = []
    for minute in minutes(up, load, number, labels):
        if not seen:
            columns = [name for name in minute.memory if name != PASSING]
            print("| minute | requests | failed | " + " | ".join((*columns, PASSING)) + " | logs | ledger | windows |")
            print("|---" * (len(columns) + 7) + "|")
        seen.append(minute)
        cells = [f"{minute.memory.get(c, 0):.1f} MB ({minute.handles.get(c, 0)})" for c in (*columns, PASSING)]
        end = f"{minute.logs:.2f} MB | {minute.ledger:.1f} MB | {minute.looks} |"
        print(f"| {len(seen)} | {minute.requests:,} | {minute.failed} | {' | '.join(cells)} | {end}", flush=True)
    return seen


if __name__ == "__main__":
    sys.exit(main())
