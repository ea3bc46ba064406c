"""What a monitoring pass over large windows takes, and a large file of labels: seconds and peak memory of both commands.

    python -m benchmarks.monitoring [--policies NAME ...] [--rows N ...] [--windows N ...] [--labels N] [--kept FOLDER]

Prints Markdown, whose cells are kept in FOLDER with the code that they measure: a run that was killed goes on. A lap trains a linear
model on 5,000 rows of made sales (seed 0); then the ledger (SQLite) is filled with `--rows` labelled predictions a window, and one
pass checks all windows, report and imports included, in a process of its own: under `regret` it trains and scores challengers too.
Then a file of `--labels` labels of those predictions is recorded, in a ledger of its own.
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
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from tests.support.projects import Folder, quick_project
from windvane.ledger import database
from windvane.ledger.predictions import (
    Prediction,
    PrivacyRules,
    compile_prediction_insert,
    draw_tier,
    prepare_prediction_rows,
)
from windvane.ledger.schema import labels

NAME, TRAINED_UNTIL, WINDOW = "sales", datetime(2025, 6, 29, 23), timedelta(days=7)
TOWNS = np.array(["Ulm", "Bonn", "Kiel", "Jena"], dtype=object)
# What a pass and a file of labels run.
MEASURED = ("cli", "flows/monitoring.py", "ledger", "monitoring", "tasks")
# Of a window; more rows are copies of these.
MADE_ROWS = 100_000


def sales(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """A price that follows size, age and town."""
    frame = pd.DataFrame(
        {"size": rng.normal(100, 20, rows), "age": rng.uniform(0, 40, rows), "town": rng.choice(TOWNS, rows)}
    )
    return frame.round(2).assign(price=lambda t: (3 * t["size"] - 2 * t["age"] + rng.normal(0, 12, rows)).round(2))


def project(path: Path, policy: str) -> Folder:
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
        retrain__policy=policy,
    )
    if (lap := folder.run("train", "--json", timeout=3600)).status:
        raise SystemExit(lap.err)
    return folder


def fill(folder: Folder, rows: int, windows: int) -> None:
    """Predictions of the champion's kind, with labels, evenly over whole windows: some are made, the others are copies with other ids."""
    engine = database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}")
    rng, insert, made_rows = np.random.default_rng(1), compile_prediction_insert(engine), min(MADE_ROWS, rows)
    begin = TRAINED_UNTIL + timedelta(hours=1)
    for window in range(windows):
        made, first = sales(made_rows, rng), window * rows
        times = [database.format_timestamp(begin + WINDOW * (window + i / made_rows)) for i in range(made_rows)]
        said = (3 * made["size"] - 2 * made["age"]).tolist()
        inputs = made.drop(columns="price").to_dict("records")
        given = [
            Prediction(f"r{first + i:09d}", 1, {**row, "at": t}, {"prediction": p}, time=t)
            for i, (t, row, p) in enumerate(zip(times, inputs, said, strict=True))
        ]
        stored = [(*r[:6], r[5], *r[7:]) for r in prepare_prediction_rows(NAME, given, PrivacyRules())]
        known = [
            {"project": NAME, "id": one.id, "at": t, "label": json.dumps(y), "received": t, "source": "file"}
            for one, t, y in zip(given, times, made["price"].tolist(), strict=True)
        ]
        with engine.begin() as db:
            driver: Any = db.connection.driver_connection
            driver.executemany(insert, stored)
            db.execute(labels.insert(), known)
            driver.create_function("tier_of", 2, draw_tier, deterministic=True)
        of_made = f"id BETWEEN 'r{first:09d}' AND 'r{first + made_rows - 1:09d}'"
        for more in range(made_rows, rows, made_rows):
            new_id = f"printf('r%09d', CAST(substr(id, 2) AS INTEGER) + {more})"
            columns = f"project, {new_id}, version, role, content + {more}, time, received, inputs, output"
            with engine.begin() as db:
                driver = db.connection.driver_connection
                tier = f"tier_of({new_id}, content + {more})"
                driver.execute(f"INSERT INTO predictions SELECT {columns}, {tier} FROM predictions WHERE {of_made}")
                columns = f"project, {new_id}, at, label, received, source"
                driver.execute(f"INSERT INTO labels SELECT {columns} FROM labels WHERE {of_made}")
    engine.dispose()


def label_lines(count: int) -> Iterator[str]:
    yield "id,label\n"
    for i in range(count):
        yield f"r{i:09d},{200 + i % 97}\n"


def timed(folder: Folder, *arguments: str) -> dict[str, Any]:
    """A command in a process of its own: its seconds, processor seconds and peak memory (GB), and its JSON as `said`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "windvane.cli.main", *arguments, "--json"]
    process = subprocess.Popen(command, cwd=folder.path, env=folder.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"`windvane {' '.join(arguments)}` ended with {process.returncode}")
    seconds, processor = time.perf_counter() - began, used.ru_utime + used.ru_stime
    return {"seconds": seconds, "processor": processor, "memory": used.ru_maxrss / 2**20, "said": json.loads(out)}


def measure_pass(policy: str, rows: int, windows: int) -> dict[str, Any]:
    """One pass over so many new windows."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch) / "project", policy)
        fill(folder, rows, windows)
        return timed(folder, "monitor")


def measure_labels(count: int) -> dict[str, Any]:
    """A file of so many labels, half of them corrections of known ones."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch) / "project", "staleness")
        fill(folder, max(count // 2, 1), 1)
        file = Path(scratch) / "labels.csv"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(label_lines(count))
        return timed(folder, "labels", str(file))


def figures(cell: dict[str, Any]) -> str:
    return f"{cell['seconds']:.1f} | {cell['processor']:.1f} | {cell['memory']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["staleness", "regret"], choices=["staleness", "regret"])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="of a window")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--labels", type=int, default=3_000_000, help="in the file; 0: no file")
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER, help="where finished cells are kept")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cells, code = KeptCells(chosen.kept / "monitoring.jsonl"), hash_code(__file__, *MEASURED)
    print("| policy | rows of a window | windows | seconds | processor seconds | peak memory, GB | decision |")
    print("|---|---|---|---|---|---|---|")
    for policy, rows, windows in product(chosen.policies, chosen.rows, chosen.windows):
        work = partial(measure_pass, policy, rows, windows)
        cell = cells.get(f"{policy} rows={rows} windows={windows}", code, work)
        print(f"| {policy} | {rows:,} | {windows} | {figures(cell)} | {cell['said']['decision']} |", flush=True)
    if chosen.labels:
        cell = cells.get(f"labels={chosen.labels}", code, partial(measure_labels, chosen.labels))
        print("\n| labels in the file | seconds | processor seconds | peak memory, GB |\n|---|---|---|---|")
        print(f"| {chosen.labels:,} | {figures(cell)} |")


if __name__ == "__main__":
    main()
