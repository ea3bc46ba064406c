"""kill -9 around a decision, and what becomes of it. `python benchmarks/decision_kills.py [--kills N] [--seed S]`.

`windvane up` runs, with everything real. In each round the table grows by a window and `windvane monitor` decides to retrain
(retrain.policy: schedule); at a random moment from its start to the end of the lap one of Prefect's server, the runner, the look
or the lap is killed. A look that died is started once more, as the next tick of its schedule would. A table of rounds is printed;
the exit status is 1 if a decision had more than one finished lap or promotion, was not claimed by a living lap or skipped within
two minutes of everything being up again, or if anything was left running in the ledger, MLflow or Prefect. Every ten rounds have a
project of their own and are a cell that is kept (--kept FILE): a second call goes on, and does again what changed.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from prefect.client.orchestration import SyncPrefectClient

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from tests.support.projects import Folder
from tests.support.running_up import Up, standing, until
from windvane.flows.orchestration.server import is_url_ok
from windvane.ledger import database, decisions, laps
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.laps import LeaseHolder

VICTIMS = ("prefect", "runner", "monitor", "lap")
# What the issue allows from being up again to a lap that lives, or a reason why there is none.
ALLOWED = 120.0
DAYS, WINDOW = 240, 7
CELL_ROUNDS = 10
# What a cell measures: who decides, who claims, who runs, and where all of it is recorded.
MEASURED_CODE = (
    "ledger",
    "monitoring/watch",
    "flows/monitoring.py",
    "flows/orchestration",
    "flows/services",
    "flows/training.py",
)


@dataclass(frozen=True)
class Round:
    """One decision: who was killed after how many seconds, how long after that it was claimed, and how it ended."""

    victim: str
    after: float
    claimed: float | None
    claims: int
    ended: str
    wrong: tuple[str, ...]

    @property
    def line(self) -> str:
        """The table's row."""
        wrong = "; ".join(self.wrong) or "-"
        return f"| {self.victim} | {self.after} | {self.claimed} | {self.claims} | {self.ended} | {wrong} |"


def prepare(path: Path) -> Folder:
    """A small table with a day a row, laps of few seconds, and a decision to retrain for every window."""
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    grow(folder, DAYS)
    done = folder.run("init", "days.csv", "--target", "y", "--time", "day", "--kind", "regression")
    if done.status != 0:
        raise SystemExit(done.err)
    folder.set(
        search__candidates=["linear"],
        search__trials=1,
        gate__rule="not_worse",
        monitor__window=f"{WINDOW}d",
        retrain__policy="schedule",
        retrain__cooldown="0d",
        retrain__budget=None,
        retrain__probation=0,
        schedule__monitor=None,
    )
    return folder


def grow(folder: Folder, days: int) -> None:
    """The table up to a day; nothing in it ever changes."""
    draw = np.random.default_rng(0)
    x, noise = draw.normal(size=4000), draw.normal(size=4000)
    frame = pd.DataFrame({"day": pd.date_range("2020-01-02", periods=4000), "x": x, "y": 3 * x + noise})
    frame[:days].to_csv(folder.path / "days.csv", index=False)


class Field:
    """A standing project whose parts are killed."""

    def __init__(self, folder: Folder, up: Up) -> None:
        self.folder, self.up = folder, up
        self.engine = database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}")
        self.days = DAYS

    def ask(self, query: str) -> list[Any]:
        """Rows of the ledger."""
        with database.open_snapshot(self.engine) as db:
            return [tuple(row) for row in db.exec_driver_sql(query)]

    def look(self) -> subprocess.Popen[str]:
        """`windvane monitor`, in a process of its own."""
        return self.folder.start("monitor", "--json")

    def holder(self) -> LeaseHolder | None:
        """Whoever holds the lease and lives: a lap."""
        rows = self.ask("select holder from leases where holder is not null")
        found = None if not rows or rows[0][0] == "null" else LeaseHolder(**json.loads(rows[0][0]))
        return found if found is not None and found.alive() else None

    def decision(self, before: set[str]) -> DecisionRecord | None:
        """The decision to retrain that was not there before."""
        new = [d for d in decisions.list_decisions(self.engine, self.name, acting=True) if d.id not in before]
        return new[-1] if new else None

    @property
    def name(self) -> str:
        """The project's."""
        return str(self.up.told["project"])

    def well(self) -> bool:
        """Whether everything that `up` runs is there again."""
        beat = json.loads((self.folder.path / ".windvane" / "up" / "runner.json").read_text())
        runner = self.up.pid("runner")
        return (
            beat["pid"] == runner
            and psutil.pid_exists(runner)
            and is_url_ok(self.up.address("prefect") + "/api/health")
        )

    def round(self, victim: str, after: float) -> Round:
        """One decision and one kill."""
        self.days += WINDOW
        grow(self.folder, self.days)
        before = {d.id for d in decisions.list_decisions(self.engine, self.name, acting=True)}
        counted = [self.ask(q)[0][0] for q in (FINISHED, PROMOTED)]
        looking = self.look()
        struck = self._strike(victim, after, looking)
        until(self.well, 240, "everything is up again")
        began = time.monotonic()
        looking.communicate(timeout=300)
        while (entry := self.decision(before)) is None:  # its look died before it
            looking = self.look()
            _, said = looking.communicate(timeout=300)
            began = time.monotonic()
            if self.decision(before) is None:
                return Round(victim, struck, None, 0, "nothing decided", (said.strip()[-500:] or "no decision",))
        self.until_taken(entry)
        claimed = round(time.monotonic() - began, 1)
        until(lambda: not self.now(entry).open, 300, "the decision ends")
        until(lambda: not self.ask("select 1 from laps where state = 'running'"), 60, "the lap ends")
        last = self.now(entry)
        laps, moves = (self.ask(q)[0][0] - n for q, n in zip((FINISHED, PROMOTED), counted, strict=True))
        wrong = [f"{n} {what}" for n, what in ((laps, "finished laps"), (moves, "promotions")) if n > 1]
        wrong += [f"claimed after {claimed} s"] if claimed > ALLOWED else []
        return Round(victim, struck, claimed, last.claims, f"{last.state}: {str(last.note)[:60]}", tuple(wrong))

    def now(self, entry: DecisionRecord) -> DecisionRecord:
        """The decision as it stands now."""
        found = decisions.find_decision(self.engine, entry.id)
        assert found is not None
        return found

    def until_taken(self, entry: DecisionRecord) -> None:
        """Until a living lap has claimed it, or it has ended."""
        until(
            lambda: (
                not (e := self.now(entry)).open
                or (e.state == "claimed" and e.token == laps.find_living_token(self.engine, self.name))
            ),
            300,
            "a living lap claims the decision",
        )

    def _strike(self, victim: str, after: float, looking: subprocess.Popen[str]) -> float:
        """Kill the victim so many seconds after the look began; a lap is waited for. After how many seconds it was."""
        began = time.monotonic()
        time.sleep(after)
        if victim == "monitor":
            looking.kill()
        elif victim == "lap":
            # A lap that is over, or waits for the look, cannot be killed: the first that lives from now on is.
            deadline = time.monotonic() + ALLOWED
            while (holder := self.holder()) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if holder is not None and psutil.pid_exists(holder.pid):
                psutil.Process(holder.pid).kill()
                until(lambda: not holder.alive(), 30, "the lap is dead")
        elif victim != "nobody":
            psutil.Process(self.up.pid(victim)).kill()
        return round(time.monotonic() - began, 1)

    def left(self) -> tuple[str, ...]:
        """What still runs in Prefect or MLflow when nothing does."""
        wrong = []
        with SyncPrefectClient(self.up.address("prefect") + "/api", auth_string=f"windvane:{self.up.secret}") as client:
            runs = [*client.read_flow_runs(limit=200), *client.read_task_runs(limit=200)]
        stuck = [run for run in runs if run.state is not None and run.state.type.value in ("PENDING", "RUNNING")]
        if stuck:
            wrong.append(f"{len(stuck)} runs still run in Prefect")
        with closing(sqlite3.connect(self.folder.path / ".windvane" / "mlflow.db")) as db:
            if db.execute("select 1 from runs where status = 'RUNNING'").fetchall():
                wrong.append("a run still runs in MLflow")
        return tuple(wrong)


HEAD = "| killed | after s | claimed or skipped after s | claims | ended | wrong |\n|---|---|---|---|---|---|"
FINISHED = "select count(*) from laps where state = 'finished'"
PROMOTED = "select count(*) from promotions"


def trial(kills: int, seed: int, folder: Folder) -> tuple[list[Round], tuple[str, ...]]:
    """`kills` rounds in a prepared project, and what was left running after the last."""
    draw = random.Random(seed)
    with standing(folder) as up:
        folder.train()
        field = Field(folder, up)
        began = time.monotonic()
        first = field.round("nobody", 0.0)
        length = time.monotonic() - began
        rounds = [first]
        print(f"{HEAD}\n{first.line}", flush=True)  # as they come: a run that is cut short has told what it saw
        for number in range(kills):
            victim = VICTIMS[(number + seed) % len(VICTIMS)]
            rounds.append(field.round(victim, draw.uniform(0.0, length)))
            print(rounds[-1].line, flush=True)
        time.sleep(2)
        return rounds, field.left()


def main() -> int:
    """Print the table; 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "decision_kills.jsonl")
    chosen = parser.parse_args()
    kept, code = KeptCells(chosen.kept), hash_code(__file__, *MEASURED_CODE)
    rounds, left = list[Round](), list[str]()
    for first in range(0, chosen.kills, CELL_ROUNDS):
        count, seed = min(CELL_ROUNDS, chosen.kills - first), chosen.seed + first
        cell = kept.get(f"{count} kills, seed {seed}", code, lambda c=count, s=seed: run_cell(c, s))
        rounds += [Round(**{**row, "wrong": tuple(row["wrong"])}) for row in cell["rounds"]]
        left += cell["left"]
    print("\n".join(["", HEAD, *(r.line for r in rounds)]))
    print(f"\n{len(rounds)} decisions; left: {'; '.join(left) or 'nothing'}; seed {chosen.seed}")
    return int(bool(left) or any(r.wrong for r in rounds))


def run_cell(kills: int, seed: int) -> dict[str, Any]:
    """A trial in a new project, as what a file can hold."""
    with tempfile.TemporaryDirectory() as name:
        rounds, left = trial(kills, seed, prepare(Path(name) / "project"))
    return {"rounds": [asdict(r) for r in rounds], "left": list(left)}


if __name__ == "__main__":
    sys.exit(main())
