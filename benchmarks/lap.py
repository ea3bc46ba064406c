"""What does Windvane add to the fits? `python benchmarks/lap.py [--runs N] [--long]` prints the table of benchmarks/docs/laps.md.

In turn, in one run: a bare script (benchmarks/bare_lap.py: the same fits, the same MLflow calls), `windvane train` with
Prefect's server and MLflow's store at hand, with nothing running on a project used before, on a fresh one, and a lap
with nothing changed. Whole processes: wall seconds, and of the process itself (with the children
that it waited for) processor seconds, which a busy neighbour disturbs less, and the largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from windvane.flows.orchestration import server

ROOT = Path(__file__).parent.parent
# About a minute of fitting on two cores: the default table, searched longer.
LONG = {"search": {"trials": 120, "candidates": ["forest", "boosting"]}}


@dataclass(frozen=True)
class Run:
    """One timed process."""

    seconds: float
    processor: float
    megabytes: float
    steps: Mapping[str, float]


def project(folder: Path, used: Path | None, long: bool) -> Path:
    """The default project in `folder`; with `used`, on the stores that an earlier project of another name left."""
    (folder / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, folder / name)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content["project"] = folder.name
    for section, values in (LONG if long else {}).items():
        content[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    if used is not None:
        shutil.copytree(used, folder / ".windvane", ignore=shutil.ignore_patterns("data"))
    return folder


def timed(command: list[str], folder: Path, env: Mapping[str, str]) -> Run:
    """Run a command to its end; raises when it fails."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")}
    log = folder / "benchmark.log"
    began = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env={**clean, **env}, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed in {folder}")
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    steps = json.loads(lines[-1]).get("steps", {}) if lines else {}
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="a job with about a minute of fitting")
    chosen = parser.parse_args()
    train = [sys.executable, "-m", "windvane.cli.main", "train", "--json"]
    bare = [sys.executable, str(ROOT / "benchmarks" / "bare_lap.py")]
    kinds = [
        "bare script",
        "windvane, servers running",
        "windvane, nothing running",
        "windvane, fresh project",
        "nothing changed",
    ]
    runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name, server.use_prefect_server(Path(name) / "prefect") as prefect:
        base = Path(name)
        prefect.wait()
        # A first project migrates every store; what it leaves is the past of a "project used before".
        first = project(base / "first", None, long=False)
        timed(train, first, {})
        used = first / ".windvane"
        for i in range(chosen.runs):
            for kind in kinds[:4]:
                fresh = kind.endswith("fresh project")
                folder = project(base / f"{kinds.index(kind)}-{i}", None if fresh else used, chosen.long)
                env = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/.windvane/mlflow.db"} if kind == kinds[0] else {}
                env |= {"PREFECT_API_URL": prefect.url} if kind == kinds[1] else {}
                runs[kind].append(timed(bare if kind == kinds[0] else train, folder, env))
                if kind == kinds[1]:
                    runs[kinds[4]].append(timed(train, folder, env))
                print(f"{kind}: {runs[kind][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    report(runs, chosen.runs, chosen.long)


def report(runs: dict[str, list[Run]], count: int, long: bool) -> None:
    """Medians, and ratios pair by pair: each round's runs stand side by side in time."""
    print(f"\n{'A minute of fitting' if long else 'The default job'}: medians of {count} rounds in turn;", end=" ")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print("| | wall s | beside the bare script | seconds more | processor s | peak MB |\n|---|---|---|---|---|---|")
    base = [run.seconds for run in runs["bare script"]]
    for kind, these in runs.items():
        walls = [run.seconds for run in these]
        ratio = statistics.median(w / b for w, b in zip(walls, base, strict=True))
        more = statistics.median(w - b for w, b in zip(walls, base, strict=True))
        processor = statistics.median(run.processor for run in these)
        memory = statistics.median(run.megabytes for run in these)
        print(
            f"| {kind} | {statistics.median(walls):.2f} | {ratio:.2f} x | {more:+.1f} | {processor:.1f} | {memory:.0f} |"
        )
    steps = runs["windvane, servers running"]
    print("\nWhere a lap spends its time (servers running):\n\n| step | s |\n|---|---|")
    for step in steps[0].steps:
        print(f"| {step} | {statistics.median(run.steps[step] for run in steps):.2f} |")


if __name__ == "__main__":
    main()
