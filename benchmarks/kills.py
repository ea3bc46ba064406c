"""kill -9 at random moments of a lap, and what the next lap finds. `python benchmarks/kills.py [--kills N] [--seed S]`.

Each round changes the table, starts `windvane train`, kills it at a moment drawn uniformly over the length of a lap, and runs
`windvane train` again. A table of moments and verdicts is printed; the exit status is 1 if anything was registered twice, stays
running in MLflow, Prefect or the ledger, or if `dvc status` is not clean. The table is kept (--kept FILE) until the code changes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from windvane.flows.orchestration import server

ROOT = Path(__file__).parent.parent
# What a lap that is killed runs through.
MEASURED_CODE = (
    "ledger",
    "flows/training.py",
    "flows/steps.py",
    "flows/lap",
    "flows/model_promotion.py",
    "tasks/stores",
)
TRAIN = [sys.executable, "-m", "windvane.cli.main", "train", "--json"]


@dataclass(frozen=True)
class Killed:
    """One round: killed after so many seconds, what stood in the ledger then, and what the next lap said."""

    after: float
    state: str
    verdict: str
    fits: int
    wrong: tuple[str, ...]


def prepare(folder: Path) -> None:
    """The default project with a search of a few seconds."""
    (folder / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, folder / name)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content["search"] |= {"trials": 6, "candidates": ["linear", "tree", "boosting"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def grow(folder: Path, lap: int) -> None:
    """Another table for every round: one row less, from its beginning (a table whose newest rows are gone is refused)."""
    header, *rows = (ROOT / "data" / "txhousing.csv").read_text().splitlines()
    (folder / "data" / "txhousing.csv").write_text("\n".join([header, *rows[lap:]]) + "\n")


def run(folder: Path, url: str) -> dict[str, object]:
    """A lap that must end well; its outcome."""
    env = {**os.environ, "PREFECT_API_URL": url}
    done = subprocess.run(TRAIN, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the lap after a kill failed:\n{done.stderr}")
    said: dict[str, object] = json.loads(done.stdout)
    return said


def killed(folder: Path, url: str, after: float) -> Killed:
    """Start a lap, kill it, run the next one, and look at everything that is left."""
    env = {**os.environ, "PREFECT_API_URL": url}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(TRAIN, cwd=folder, env=env, stdout=quiet, stderr=quiet)
    time.sleep(after)
    ended = process.poll() is not None
    process.kill()
    process.wait()
    laps = _ask(folder, "ledger.db", "select state from laps order by started desc limit 1")
    state = "ended before" if ended else laps[0][0] if laps else "not begun"
    said = run(folder, url)
    return Killed(after, state, str(said["verdict"]), int(str(said["fits"])), tuple(_wrong(folder, url)))


def _wrong(folder: Path, url: str) -> list[str]:
    wrong = []
    if _ask(folder, "ledger.db", "select 1 from laps where state = 'running'"):
        wrong.append("a lap still runs in the ledger")
    if _ask(folder, "mlflow.db", "select 1 from runs where status = 'RUNNING'"):
        wrong.append("a run still runs in MLflow")
    twice = "select value from model_version_tags where key = 'windvane.fingerprint' group by value having count(*) > 1"
    if _ask(folder, "mlflow.db", twice):
        wrong.append("a fingerprint is registered twice")
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(url, auth_string=os.environ["PREFECT_API_AUTH_STRING"]) as client:
        runs = [*client.read_flow_runs(limit=200), *client.read_task_runs(limit=200)]
    if any(run.state is None or not run.state.is_final() for run in runs):
        wrong.append("a run still runs in Prefect")
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=folder, capture_output=True, text=True, check=False
    )
    if "up to date" not in status.stdout:
        wrong.append(f"dvc status: {status.stdout.strip() or status.stderr.strip()}")
    return wrong


def _ask(folder: Path, name: str, query: str) -> list[tuple[str, ...]]:
    path = folder / ".windvane" / name
    if not path.exists():
        return []
    with sqlite3.connect(path) as db:
        return db.execute(query).fetchall()


def trial(kills: int, seed: int, folder: Path, url: str) -> list[Killed]:
    """`kills` rounds in a new project in `folder`, on the Prefect server at `url`."""
    prepare(folder)
    began = time.monotonic()
    run(folder, url)
    length = time.monotonic() - began
    draw = random.Random(seed)
    rounds = []
    for number in range(1, kills + 1):
        grow(folder, number)
        rounds.append(killed(folder, url, draw.uniform(0.2, length)))
    return rounds


def run_cell(kills: int, seed: int) -> list[dict[str, Any]]:
    """A trial in a new project on a server of its own, as what a file can hold."""
    with tempfile.TemporaryDirectory() as name, server.use_prefect_server(Path(name) / "prefect") as prefect:
        prefect.wait()
        return [asdict(k) for k in trial(kills, seed, Path(name) / "project", prefect.url)]


def main() -> int:
    """Print the table; 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "kills.jsonl")
    chosen = parser.parse_args()
    name, code = f"{chosen.kills} kills, seed {chosen.seed}", hash_code(__file__, *MEASURED_CODE)
    rows = KeptCells(chosen.kept).get(name, code, lambda: run_cell(chosen.kills, chosen.seed))
    rounds = [Killed(**{**row, "wrong": tuple(row["wrong"])}) for row in rows]
    print(f"\nseed {chosen.seed}\n\n| killed after s | state then | next lap | fits | wrong |\n|---|---|---|---|---|")
    for k in rounds:
        print(f"| {k.after:.1f} | {k.state} | {k.verdict} | {k.fits} | {'; '.join(k.wrong) or '-'} |")
    return int(any(k.wrong for k in rounds))


if __name__ == "__main__":
    sys.exit(main())
