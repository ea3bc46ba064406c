"""How long a large table takes to become a validated, split one, and with how much memory, beside polars alone.

Makes a table of ROWS x 20 (numbers, categories, dates, gaps; seed 0), then measures, each in a process of its own and
all in one run: a polars scan and write with its defaults; the three stages from CSV and from Parquet; what DVC adds;
and a table whose rows are not in the order of time. `python benchmarks/ingest.py [--rows N] [--runs N]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from windvane.tasks import io
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params, yaml_files
from windvane.tasks.split import data_split
from windvane.tasks.stores import dvc_pipeline
from windvane.tasks.validate import table_profile, table_schema, table_validation

CHUNK = 1_000_000
STAGES = ("ingest", "validate", "split")


def make(folder: Path, rows: int) -> None:
    """table.csv, table.parquet and unsorted.parquet: the same cells, in the last with times in no order."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    with (folder / "table.csv").open("wb") as f:
        for start in range(0, rows, CHUNK):
            _chunk(rng, start, min(CHUNK, rows - start)).write_csv(f, include_header=start == 0)
    cells = pl.scan_csv(folder / "table.csv", try_parse_dates=True)
    cells.sink_parquet(folder / "table.parquet")
    scattered = (pl.int_range(pl.len()) * 7_919) % rows
    moved = pl.col("at").min() + pl.duration(seconds=20 * scattered)
    cells.with_columns(at=moved).sink_parquet(folder / "unsorted.parquet")


def _chunk(rng: Any, start: int, rows: int) -> Any:
    import numpy as np
    import polars as pl

    seconds = pl.Series(np.arange(start, start + rows) * 20)
    columns: dict[str, Any] = {
        "at": pl.select(pl.datetime(2015, 1, 1) + pl.duration(seconds=seconds)).to_series().dt.to_string("%F %T")
    }
    columns |= {f"amount_{i}": np.round(rng.normal(10 * i, 5, rows), 3) for i in range(6)}
    columns |= {f"count_{i}": rng.integers(0, 10 ** (i + 1), rows) for i in range(5)}
    words = np.array([f"kind {i}" for i in range(400)])
    columns |= {f"sort_{k}": words[rng.integers(0, k, rows)] for k in (3, 12, 50, 400)}
    gaps = pl.Series(np.round(rng.exponential(3, rows), 2))
    columns["gaps"] = gaps.set(pl.Series(rng.random(rows) < 0.1), None)
    columns["ok"] = rng.random(rows) < 0.3
    days = pl.Series(rng.integers(0, 1000, rows))
    columns["day"] = pl.select(pl.date(2014, 1, 1) + pl.duration(days=days)).to_series().dt.to_string("%F")
    noise = rng.normal(0, 3, rows)
    columns["price"] = np.round(columns["amount_1"] * 3 + columns["count_0"] + noise, 2)
    return pl.DataFrame(columns)


def chosen(source: str) -> project_params.Settings:
    """A problem with a time column, whose newest rows judge."""
    problem = {"kind": "regression", "target": "price", "time": "at"}
    return project_params.parse_settings(
        {"project": "size", "problem": problem, "data": {"source": source}, "split": {"strategy": "time"}}
    )


def agree(root: Path, chosen: project_params.Settings) -> None:
    """schema.yaml, proposed once as before a first lap: no part of any stage."""
    path = root / table_schema.SCHEMA_FILE
    if not path.exists():
        path.write_text(
            yaml_files.propose_schema(table_io.scan_parquet(root / table_profile.TABLE_FILE), chosen.problem),
            encoding="utf-8",
        )


def polars(folder: Path, source: str) -> None:
    """What a person would type who only wants the file as Parquet."""
    import polars as pl

    scan = pl.scan_csv if source.endswith(".csv") else pl.scan_parquet
    scan(folder / source).sink_parquet(folder / "polars.parquet")


def stages() -> dict[str, Callable[[Path, project_params.Settings], None]]:
    """The work of each stage."""
    return {"ingest": ingestion.run_ingest, "validate": table_validation.run_validation, "split": data_split.run_split}


def measure(what: str, folder: Path, source: str) -> dict[str, float]:
    """Seconds of one piece of work, imports apart: on the wall, and of all processors (which busy neighbours lengthen
    less); the process's peak of resident memory.
    """
    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import polars as pl  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    mine = chosen(source)
    if what == "agree":
        agree(folder, mine)
        return {}
    started, used = time.perf_counter(), time.process_time()
    wall = None
    if what == "polars":
        polars(folder, source)
    elif what == "dvc":
        wall = _dvc(folder, mine)
    else:
        stages()[what](folder, mine)
    wall = time.perf_counter() - started if wall is None else wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(wall, 3), "cpu": round(time.process_time() - used, 3), "peak_mb": round(peak)}


def _dvc(folder: Path, mine: project_params.Settings) -> float:
    """What DVC adds to the three stages: its hashing, its cache, dvc.lock."""
    import yaml

    (folder / project_params.PARAMS_FILE).write_text(yaml.safe_dump(mine.model_dump(mode="json")), encoding="utf-8")
    work = 0.0
    added = 0.0
    for name, do in stages().items():

        def timed(do: Callable[[Path, project_params.Settings], None] = do) -> None:
            nonlocal work
            started = time.perf_counter()
            do(folder, mine)
            work += time.perf_counter() - started

        started = time.perf_counter()
        with dvc_pipeline.open_dvc_pipeline(folder) as pipeline:
            pipeline.run(name, timed)
        added += time.perf_counter() - started
    linked = os.stat(folder / table_profile.TABLE_FILE).st_nlink > 1
    print(
        f".windvane/data/table.parquet is {'a link into' if linked else 'a copy of what lies in'} DVC's cache",
        file=sys.stderr,
    )
    return added - work


def apart(what: str, folder: Path, source: str) -> dict[str, float]:
    """Measure in a process of its own: its seconds and its peak of resident memory."""
    command = [sys.executable, __file__, "--measure", what, "--folder", str(folder), "--source", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    print(f"  {what} {source}: {done.stdout.strip()} {done.stderr.strip()}", file=sys.stderr)
    content: dict[str, float] = json.loads(done.stdout)
    return content


def table(folder: Path, rows: int, runs: int) -> str:
    """All figures as Markdown: medians of `runs` rounds, in each of which everything is measured in turn."""
    work = [("polars", s) for s in ("table.csv", "table.parquet")]
    work += [(stage, s) for s in ("table.csv", "table.parquet") for stage in STAGES]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(runs):
        for what, source in work:
            found.setdefault((what, source), []).append(apart(what, folder, source))
            if what == "ingest":
                apart("agree", folder, source)
    lines = ["| work | wall s | CPU s | rows a second | peak MB | beside polars |", "|---|---|---|---|---|---|"]
    for source in ("table.csv", "table.parquet"):
        name = source.removeprefix("table.").replace("csv", "CSV").replace("parquet", "Parquet")
        alone = found["polars", source]
        lines.append(_line(f"polars: {name} to Parquet", alone, rows, ""))
        lines += [_line(f"{stage}, from {name}", found[stage, source], rows, "") for stage in STAGES]
        whole = [_sum([found[stage, source][i] for stage in STAGES]) for i in range(runs)]
        wall, cpu = (
            statistics.median(w[k] / a[k] for w, a in zip(whole, alone, strict=True)) for k in ("seconds", "cpu")
        )
        lines.append(_line(f"**{name} to validated, split Parquet**", whole, rows, f"{wall:.2f} x (CPU {cpu:.2f} x)"))
    once = apart("ingest", folder, "unsorted.parquet")
    lines.append(_line("ingest of times in no order, from Parquet", [once], rows, ""))
    once = apart("dvc", folder, "table.csv")
    lines.append(_line("DVC's hashing and caching (CPU and peak: with the stages)", [once], rows, ""))
    return "\n".join(lines)


def _sum(measured: list[dict[str, float]]) -> dict[str, float]:
    """Stages one after the other."""
    total = {key: sum(m[key] for m in measured) for key in ("seconds", "cpu")}
    return {**total, "peak_mb": max(m["peak_mb"] for m in measured)}


def _line(name: str, measured: list[dict[str, float]], rows: int, beside: str) -> str:
    wall, cpu = (statistics.median(m[key] for m in measured) for key in ("seconds", "cpu"))
    peak = max(m["peak_mb"] for m in measured)
    return f"| {name} | {wall:.2f} | {cpu:.2f} | {rows / wall:,.0f} | {peak:,.0f} | {beside} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the tables are made; else a temporary folder here")
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--measure")
    parser.add_argument("--source", default="table.csv")
    args = parser.parse_args()
    if args.make:
        make(args.folder, args.rows)
        return
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder, args.source)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder or ".", prefix=".ingest-") as name:
        folder = Path(name)
        # A repository of its own: what git ignores in another, DVC does not see.
        subprocess.run(["git", "init", "--quiet", name], check=True)
        dvc_pipeline.prepare_dvc_folder(folder)
        table_profile.write_summary(None, folder / io.ACCEPTED_SUMMARY_FILE)
        io.write_json({"taught_until": None}, folder / io.TRAINED_UNTIL_FILE)
        # Not in this process: its children would begin with its peak of memory.
        subprocess.run([sys.executable, __file__, "--make", "--folder", name, "--rows", str(args.rows)], check=True)
        size = (folder / "table.csv").stat().st_size / 1e9
        figures = table(folder, args.rows, args.runs)
    cores, system = len(os.sched_getaffinity(0)), f"{platform.system()} {platform.machine()}"
    print(f"{cores} cores, Python {platform.python_version()}, {system}; {args.rows:,} rows x 20, CSV {size:.2f} GB.\n")
    print(figures)


if __name__ == "__main__":
    main()
