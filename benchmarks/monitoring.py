"""What a monitoring pass over large windows takes, and a large file of labels: seconds and peak memory of both commands.

    python -m benchmarks.monitoring [--rows N ...] [--windows N] [--labels N] [--kept FOLDER]

Prints Markdown. A lap trains a linear model on 5,000 rows of made sales (seed 0); then the ledger (SQLite) is filled with `--rows`
labelled predictions a window, and one pass checks all windows, report and imports included, in a process of its own. Then a file
of `--labels` labels of those predictions is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.support.projects import Folder, quick_project
from windvane.ledger import database
from windvane.ledger.schema import labels, predictions

NAME, TRAINED_UNTIL, WINDOW = "sales", datetime(2025, 6, 29, 23), timedelta(days=7)
TOWNS = np.array(["Ulm", "Bonn", "Kiel", "Jena"], dtype=object)
CHUNK_ROWS = 50_000


def sales(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """A price that follows size, age and town."""
    frame = pd.DataFrame(
        {"size": rng.normal(100, 20, rows), "age": rng.uniform(0, 40, rows), "town": rng.choice(TOWNS, rows)}
    )
    return frame.round(2).assign(price=lambda t: (3 * t["size"] - 2 * t["age"] + rng.normal(0, 12, rows)).round(2))


def project(path: Path) -> Folder:
    """A project after its first lap."""
    folder = quick_project(path)
    rows = sales(5000, np.random.default_rng(0))
    start = TRAINED_UNTIL - timedelta(hours=len(rows) - 1)
    rows.assign(at=pd.date_range(start, periods=len(rows), freq="h")).to_csv(path / "data" / "sales.csv", index=False)
    folder.set(
        project=NAME,
        problem__target="price",
        problem__time="at",
        problem__ignore=[],
        data__source="data/sales.csv",
        search__candidates=["linear"],
        search__trials=1,
        monitor__window="7d",
        # The default refits challengers too, on all rows: a lap's work, beside what a pass reads.
        retrain__policy="staleness",
    )
    if (lap := folder.run("train", "--json", timeout=3600)).status:
        raise SystemExit(lap.err)
    return folder


def fill(folder: Folder, rows: int, windows: int) -> None:
    """Predictions of the champion's kind, with labels, evenly over whole windows."""
    engine, rng = (
        database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}"),
        np.random.default_rng(1),
    )
    begin = TRAINED_UNTIL + timedelta(hours=1)
    step = WINDOW / rows
    with engine.begin() as db:
        for first in range(0, rows * windows, CHUNK_ROWS):
            some = range(first, min(first + CHUNK_ROWS, rows * windows))
            made = sales(len(some), rng)
            times = [database.format_timestamp(begin + i * step) for i in some]
            said = (3 * made["size"] - 2 * made["age"]).tolist()
            inputs = made.drop(columns="price").to_dict("records")
            given = [
                {
                    "project": NAME,
                    "id": f"r{i:09d}",
                    "version": 1,
                    "role": "champion",
                    "content": i,
                    "time": t,
                    "received": t,
                }
                | {"inputs": {**row, "at": t}, "output": {"prediction": p}}
                for i, t, row, p in zip(some, times, inputs, said, strict=True)
            ]
            known = [
                {"project": NAME, "id": f"r{i:09d}", "at": t, "label": json.dumps(y), "received": t, "source": "file"}
                for i, t, y in zip(some, times, made["price"].tolist(), strict=True)
            ]
            db.execute(predictions.insert(), given)
            db.execute(labels.insert(), known)
    engine.dispose()


def label_lines(count: int) -> Iterator[str]:
    yield "id,label\n"
    for i in range(count):
        yield f"r{i:09d},{200 + i % 97}\n"


def timed(folder: Folder, *arguments: str) -> tuple[str, dict[str, Any]]:
    """(seconds | processor seconds | peak memory in GB, the JSON) of a command in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "windvane.cli.main", *arguments, "--json"]
    process = subprocess.Popen(command, cwd=folder.path, env=folder.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"`windvane {' '.join(arguments)}` ended with {process.returncode}")
    spent, used_cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    return f"{spent:.1f} | {used_cpu:.1f} | {used.ru_maxrss / 2**20:.2f}", json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="of a window")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--labels", type=int, default=3_000_000)
    parser.add_argument("--kept", type=Path, help="a folder for the projects; deleted at the end without it")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as scratch:
        home = chosen.kept or Path(scratch)
        print(
            "| rows of a window | windows | seconds | processor seconds | peak memory, GB | decision |\n|---|---|---|---|---|---|"
        )
        for rows in chosen.rows:
            folder = project(home / f"rows-{rows}")
            fill(folder, rows, chosen.windows)
            figures, said = timed(folder, "monitor")
            print(f"| {rows:,} | {chosen.windows} | {figures} | {said['decision']} |", flush=True)
        if chosen.labels:
            file = home / "labels.csv"
            with file.open("w", encoding="utf-8") as out:
                out.writelines(label_lines(chosen.labels))
            print("\n| labels in the file | seconds | processor seconds | peak memory, GB |\n|---|---|---|---|")
            print(f"| {chosen.labels:,} | {timed(folder, 'labels', str(file))[0]} |")


if __name__ == "__main__":
    main()
