"""Does the data gate find what is planted, and does it leave honest later rows alone? Prints both tables.

    WINDVANE_DATA=... python -m benchmarks.data_gate [--seeds 20] [--half tuned|other|both] [--kept FILE]

Planted: see benchmarks/planted.py. A fault is found if one of its checks warns or stops, with its column, and did not do
so in the clean table. Slices: each real table in 20 growing steps and 20 stretches, each held against the one before; the
contract is proposed from the first 40 % of the rows. A table without time is shuffled (seed 0).
Each seed, and each real table, is a cell that is kept with its commit and the hash of the code that it measures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from benchmarks.planted import KINDS, TABLES, TUNED_KINDS, TUNED_TABLES, Clean, canonical, problem
from windvane.tasks.models import features
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings import project_params, yaml_files
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate import model_checks, table_schema, table_statistics, table_validation
from windvane.tasks.validate.checks import duplicate_checks
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_profile import TableSummary

MEASURED_CODE = ("benchmarks/planted.py", "tasks/validate", "tasks/settings", "tasks/models", "tasks/ingest")
STEPS = 20
FIRST = 0.4
SALES = ["total_volume", "small_hass_sold", "large_hass_sold", "xlarge_hass_sold", "total_bags", "small_bags"]
REAL = {
    "txhousing.parquet": problem("regression", "median", "ts", ["volume"]),
    "king_county_houses.parquet": problem("regression", "price", "ts", ["id"]),
    "nycflights13.parquet": problem(
        "classification", "late15", "ts", ["dep_delay", "air_time", "arr_delay", "cancelled"]
    ),
    "bikeshare_dc_hourly.parquet": problem("regression", "count", "ts"),
    "avocados.parquet": problem("regression", "average_price", "ts", [*SALES, "large_bags", "x_large_bags"]),
    "parking_birmingham.parquet": problem("regression", "occ", "ts", ["Occupancy"]),
    "noaa_rain.parquet": problem("classification", "rain", "seq"),
    "census_income.parquet": problem("classification", "income", "year", ["instance_weight"]),
    "brand_sentiment.parquet": problem("classification", "sentiment", None),
    "online_retail_ii.parquet": problem("regression", "Quantity", "ts", ["rev", "Description", "Invoice"]),
}
# Its columns are exchanged from here on: not clean.
CLEAN_ROWS = {"noaa_rain.parquet": 12_000}


def agreed(frame: pl.DataFrame, chosen: Settings) -> table_schema.TableSchema:
    return table_schema.parse_schema(yaml.safe_load(yaml_files.propose_schema(frame.lazy(), chosen.problem)))


def told(
    frame: pl.DataFrame,
    chosen: Settings,
    schema: table_schema.TableSchema,
    past: TableSummary | None,
    models: bool = False,
) -> set[tuple[str, str | None, str]]:
    """(check, column, level) of all that is not in order; with `models` the step of the lap that needs one, too."""
    seen = table_validation.inspect_table(frame, chosen, schema, past)
    found: list[TableFinding] = list(seen.findings)
    if models and not any(f.level == "stop" for f in found):
        kind = definitions.load_problem_type(chosen.problem.kind)
        labelled = frame.filter(pl.col(chosen.problem.target).is_not_null()).to_pandas()
        found += model_checks.inspect_training_rows(
            chosen, kind, features.select_feature_columns(chosen, seen.profile), labelled, 1
        )
    return {(f.check, f.column, f.level) for f in found if f.level != "pass"}


def planted(seeds: int, half: str, kept: KeptCells, code: str) -> None:
    """Each seed draws a clean table and plants every kind in it."""
    hits: dict[tuple[str, str], list[bool]] = {}
    missed: dict[tuple[str, str], list[str]] = {}
    halves = {"tuned": TUNED_TABLES, "other": tuple(name for name in TABLES if name not in TUNED_TABLES)}
    for group, names in halves.items():
        for i in range(seeds // 2 if half in (group, "both") else 0):
            seed = i if group == "tuned" else 1000 + i
            name = names[i % len(names)]
            cell = f"planted in {name}, seed {seed}"
            for kind, was_found in kept.get(cell, code, lambda n=name, g=group, s=seed: [*trial(n, LEARNABLE[g], s)]):
                hits.setdefault((kind, group), []).append(was_found)
                if not was_found:
                    missed.setdefault((kind, group), []).append(f"{name} ({seed})")
            print(f"{group} {i}: {sum(map(sum, hits.values()))} found, missed {missed}", file=sys.stderr, flush=True)
    print("\n| kind | tuned on | tables | found | 95 % interval | missed |\n|---|---|---|---|---|---|")
    for (kind, group), found in hits.items():
        low, high = wilson(sum(found), len(found))
        which = ", ".join(missed.get((kind, group), ["-"]))
        known = "yes" if kind in TUNED_KINDS and group == "tuned" else "no"
        print(f"| {kind} | {known} | {group} | {sum(found)} of {len(found)} | {low:.0%} to {high:.0%} | {which} |")
    for title, wanted in (
        ("tuned kinds in tuned tables", lambda kind, group: kind in TUNED_KINDS and group == "tuned"),
        ("other kinds in other tables", lambda kind, group: kind not in TUNED_KINDS and group == "other"),
        ("all kinds in other tables", lambda kind, group: group == "other"),
        ("all", lambda kind, group: True),
    ):
        found = [was for key, results in hits.items() if wanted(*key) for was in results]
        low, high = wilson(sum(found), len(found))
        share = sum(found) / max(len(found), 1)
        print(f"| {title} | | | {sum(found)} of {len(found)}, {share:.1%} | {low:.1%} to {high:.1%} | |")


# Faults of which the step of the lap with a model may tell.
MODELLED = ("leak", "label_noise")
# Classes that no model can tell apart, such as late flights, hide wrong labels from everybody.
LEARNABLE = {"tuned": "made 1", "other": "made 3"}


def trial(name: str, learnable: str, seed: int) -> Iterator[tuple[str, bool]]:
    """Whether each kind of fault is found in one clean table; wrong labels in one whose classes can be told apart."""
    clean = TABLES[name](np.random.default_rng(seed))
    yield from faults(clean, seed, [kind for kind in KINDS if kind != "label_noise" or clean.learnable])
    if not clean.learnable:
        yield from faults(TABLES[learnable](np.random.default_rng(seed)), seed, ["label_noise"])


def faults(clean: Clean, seed: int, kinds: list[str]) -> Iterator[tuple[str, bool]]:
    chosen = clean.chosen
    schema = agreed(clean.before, chosen)
    past = table_validation.inspect_table(clean.before, chosen, schema).digest
    before = {(c, n) for c, n, _ in told(clean.now, chosen, schema, past, models=True)}
    for kind in kinds:
        fault = KINDS[kind](clean, np.random.default_rng([seed, list(KINDS).index(kind)]))
        after = {(c, n) for c, n, _ in told(fault.frame, chosen, schema, past, kind in MODELLED)}
        yield kind, bool({(check, fault.column) for check in fault.checks} & after - before)


def slices(data: Path, kept: KeptCells, code: str) -> None:
    print("\n| table | way | slices | stops | warnings in | which |\n|---|---|---|---|---|---|")
    total = {"stop": 0, "warn": 0, "n": 0}
    for file, named in REAL.items():
        for way in ("grows", "stretch"):
            stops = warns = n = 0
            which: dict[str, int] = {}

            def later_slices(file: str = file, named: dict[str, object] = named, way: str = way) -> list[list[Any]]:
                return [[*found] for found in later(canonical(pl.read_parquet(data / file)), file, named, way)]

            for found in kept.get(f"slices of {file}, {way}", code, later_slices):
                n += 1
                stops += any(level == "stop" for *_, level in found)
                warns += bool(found)
                for check, column, level in sorted(found, key=str):
                    key = f"{level} {check}{f':{column}' if column else ''}"
                    which[key] = which.get(key, 0) + 1
            said = ", ".join(f"{k} {v}" for k, v in sorted(which.items(), key=lambda item: -item[1])[:8]) or "-"
            print(f"| {file} | {way} | {n} | {stops} | {warns} | {said} |", flush=True)
            total = {"stop": total["stop"] + stops, "warn": total["warn"] + warns, "n": total["n"] + n}
    for level, name in (("stop", "false stops"), ("warn", "slices with a new warning")):
        low, high = wilson(total[level], total["n"])
        print(f"\n{name}: {total[level]} of {total['n']}, {total[level] / total['n']:.2%} ({low:.2%} to {high:.2%})")


def later(
    frame: pl.DataFrame, file: str, named: dict[str, object], way: str
) -> Iterator[set[tuple[str, str | None, str]]]:
    """What is told of each slice and was not told of the accepted table before it."""
    chosen = project_params.parse_settings({"project": "p", "problem": named, "data": {"source": file}})
    frame = frame.head(CLEAN_ROWS.get(file, len(frame)))
    if chosen.problem.time:
        frame = frame.sort(chosen.problem.time, maintain_order=True)
    else:  # no row is later than another; the file's order is that of its sources
        frame = frame.sample(fraction=1.0, shuffle=True, seed=0)
    first = int(FIRST * len(frame))
    cuts = np.linspace(first, len(frame), STEPS + 1).astype(int)
    schema = agreed(frame[:first], chosen)
    size = int(cuts[1] - cuts[0])
    accepted = frame[:first] if way == "grows" else frame[first - size : first]
    seen = table_validation.inspect_table(accepted, chosen, schema)
    for a, b in pairwise(cuts):
        now = frame[:b] if way == "grows" else frame[a:b]
        usual = {(f.check, f.column) for f in seen.findings if f.level != "pass"}
        seen = table_validation.inspect_table(now, chosen, schema, seen.digest)
        yield {
            (f.check, f.column, f.level)
            for f in seen.findings
            if f.level != "pass" and (f.check, f.column) not in usual
        }


def whole(data: Path, kept: KeptCells, code: str) -> None:
    """Every finding on every table as it is, the models' look and the sides' overlap included."""
    print("\n| table | level | check | column | figure | seconds |\n|---|---|---|---|---|---|")
    for file, named in REAL.items():

        def show(file: str = file, named: dict[str, object] = named) -> None:
            show_findings(data, file, named)

        kept.show(f"findings on {file}", code, show)


def show_findings(data: Path, file: str, named: dict[str, object]) -> None:
    """The lines of one table."""
    chosen = project_params.parse_settings(
        {
            "project": "p",
            "problem": named,
            "data": {"source": file},
            "split": {"strategy": "time" if named["time"] else "random"},
        }
    )
    frame = canonical(pl.read_parquet(data / file))
    if chosen.problem.time:
        frame = frame.sort(chosen.problem.time, maintain_order=True)
    began = time.monotonic()
    seen = table_validation.inspect_table(frame, chosen, agreed(frame, chosen))
    seconds = time.monotonic() - began
    labelled = table_statistics.scan_frame(frame).filter(pl.col(chosen.problem.target).is_not_null()).collect()
    place = np.linspace(0, 1, len(labelled), endpoint=False)
    sides = (1 + (place >= 0.7) + (place >= 0.85)).astype(np.uint8)
    found = [*seen.findings, *duplicate_checks.find_overlap(labelled, sides, chosen)]
    if not any(f.level == "stop" for f in found):
        columns = features.select_feature_columns(chosen, seen.profile)
        train = labelled[: int(0.7 * len(labelled))].to_pandas()
        found += model_checks.inspect_training_rows(
            chosen, definitions.load_problem_type(chosen.problem.kind), columns, train, 2
        )
    for f in [f for f in found if f.level != "pass"]:
        figure = f"{f.figure:.4g}" if isinstance(f.figure, float) else f.figure
        print(f"| {file} | {f.level} | {f.check} | {f.column or ''} | {figure} | {seconds:.2f} |", flush=True)
    if all(f.level == "pass" for f in found):
        print(f"| {file} | pass | | | | {seconds:.2f} |", flush=True)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    z = 1.959964
    middle, half = hits + z * z / 2, z * (hits * (n - hits) / n + z * z / 4) ** 0.5
    return max((middle - half) / (n + z * z), 0.0), min((middle + half) / (n + z * z), 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--half", choices=["tuned", "other", "both"], default="both")
    parser.add_argument("--only", choices=["planted", "slices", "tables"], default=None)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "data_gate.jsonl")
    chosen = parser.parse_args()
    data = Path(os.environ["WINDVANE_DATA"])
    kept, code, began = KeptCells(chosen.kept), hash_code(__file__, *MEASURED_CODE), time.monotonic()
    if chosen.only in (None, "planted"):
        planted(chosen.seeds, chosen.half, kept, code)
    if chosen.only in (None, "slices"):
        slices(data, kept, code)
    if chosen.only in (None, "tables"):
        whole(data, kept, code)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
