"""How many rows does a candidate need? `python benchmarks/few_rows.py FOLDER [--draws N]` prints it for the tables of a folder.

Each draw takes N rows at random, fits every candidate at its defaults on them, and judges on 2,000 other rows by the loss of the gate.
A cell is the median over tables and draws of the candidate's loss relative to the best candidate of that draw (0: the best itself),
and in how many draws it was the best. Tables that are not in the folder are left out. Each table is a cell
that is kept (--kept FILE) with its commit and the hash of the code that it measures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from benchmarks.reading import labelled
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings import project_params, settings_proposal

TABLES = {
    "txhousing": "median",
    "king_county_houses": "price",
    "parking_birmingham": "occ",
    "avocados": "average_price",
    "noaa_rain": "rain",
    "census_income": "income",
    "nycflights13": "late15",
}
CANDIDATES = ("linear", "tree", "forest", "boosting")
ROWS = (100, 200, 500, 1_000, 2_000)
JUDGES = 2_000


def drawn(table: Path, target: str, draws: int) -> dict[int, list[dict[str, float]]]:
    """Rows -> the loss of each candidate in each draw."""
    chosen = project_params.parse_settings(dict(settings_proposal.propose_settings(table, target).params))
    frame, columns = labelled(chosen)
    kind = definitions.load_problem_type(chosen.problem.kind)
    found: dict[int, list[dict[str, float]]] = {}
    for rows in ROWS:
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(frame))
            train, test = frame.iloc[order[:rows]], frame.iloc[order[rows : rows + JUDGES]]
            if train[target].nunique() > 1:
                found.setdefault(rows, []).append(
                    {name: _loss(name, kind, columns, train, test, target, seed) for name in CANDIDATES}
                )
    return found


def _loss(name: str, kind: Any, columns: Any, train: Any, test: Any, target: str, seed: int) -> float:
    model = model_pipeline.fit_pipeline(
        ModelConfiguration(name, {}), kind, columns, train, FitOptions(target, seed, len(os.sched_getaffinity(0)))
    )
    said = kind.predict(model, features.conform_frame(test, columns, "the rows that judge"))
    return float(kind.loss(kind.truth(test[target]), said, next(iter(kind.metrics))).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "few_rows.jsonl")
    asked = parser.parse_args()
    kept, code = KeptCells(asked.kept), hash_code(__file__, "tasks/models", "tasks/settings")
    gathered: dict[int, list[dict[str, float]]] = {rows: [] for rows in ROWS}
    for name, target in TABLES.items():
        if not (path := asked.folder / f"{name}.parquet").exists():
            continue
        cell = f"{name}, {asked.draws} draws"
        for rows, losses in kept.get(cell, code, lambda p=path, t=target: [*drawn(p, t, asked.draws).items()]):
            gathered[rows] += losses
        print(name, file=sys.stderr, flush=True)
    print("| rows | " + " | ".join(CANDIDATES) + " |\n|---|" + "---|" * len(CANDIDATES))
    for rows, losses in gathered.items():
        cells = []
        for name in CANDIDATES:
            above = statistics.median(loss[name] / min(loss.values()) - 1 for loss in losses)
            best = sum(loss[name] == min(loss.values()) for loss in losses)
            cells.append(f"+{above:.0%}, best {best} of {len(losses)}")
        print(f"| {rows:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
