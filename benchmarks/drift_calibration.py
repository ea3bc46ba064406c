"""How often a drift alarm is false, and how often it is right: Windvane's beside Evidently's preset and a test that knows the column.

    python benchmarks/drift_calibration.py [--windows N] [--preset N] [--part unchanged|streams|shifts] [--quick] [--jobs N] [--kept FOLDER]

Prints Markdown. `unchanged`: reference and window are drawn without replacement from one table of 200,000 rows, both anew for every
window: given the table, windows are independent trials, and nothing but the table is shared. The promise is 1 %. `streams`: real
tables (WINDVANE_DATA), by the rules of benchmarks/drift_streams.py. `shifts`: one column of sixteen moves, by a
known amount. `--kept`: what is done is kept there, piece by piece, and a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import drift_streams
from benchmarks.pieces import Work
from benchmarks.preset import run_preset
from windvane.monitoring.drift import detector
from windvane.tasks.models.features import FeatureColumns

LEVEL = 0.01
SIZES, WIDTHS, REFERENCES = (30, 100, 300, 1000, 10_000), (5, 16, 50), (1000, 20_000)
POPULATION = 200_000


@cache
def population(width: int) -> tuple[pd.DataFrame, FeatureColumns]:
    """A table of `width` columns of mixed types, and a prediction; some columns hang together."""
    rng = np.random.default_rng(width)
    common = rng.standard_normal(POPULATION)
    table: dict[str, Any] = {}
    kinds: dict[str, list[str]] = {"numbers": [], "booleans": [], "low": [], "high": []}
    for j in range(width):
        noise, name = rng.standard_normal(POPULATION), f"c{j}"
        kind = ("normal", "few", "heavy", "count", "many", "zeros", "normal", "boolean")[j % 8]
        if kind in ("few", "many"):
            weights = 1 / np.arange(1, (6 if kind == "few" else 300) + 1) ** 1.2
            names = np.array([f"{kind}{i}" for i in range(len(weights))], dtype=object)
            table[name] = rng.choice(names, POPULATION, p=weights / weights.sum())
        elif kind == "heavy":
            table[name] = np.where(rng.random(POPULATION) < 0.05, np.nan, np.exp(1.5 * (0.5 * common + noise)))
        elif kind == "zeros":
            table[name] = np.where(rng.random(POPULATION) < 0.97, 0.0, np.exp(noise))
        elif kind == "count":
            table[name] = rng.poisson(3, POPULATION).astype(float)
        elif kind == "boolean":
            table[name] = (rng.random(POPULATION) < 0.2).astype(float)
        else:
            table[name] = 0.7 * common + 0.7 * noise
        kinds[{"few": "low", "many": "high", "boolean": "booleans"}.get(kind, "numbers")].append(name)
    table["_prediction"] = common + 0.5 * rng.standard_normal(POPULATION)
    return pd.DataFrame(table), FeatureColumns(**{k: tuple(v) for k, v in kinds.items()})


def pair(width: int, reference: int, window: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, FeatureColumns]:
    table, columns = population(width)
    rows = np.random.default_rng(seed).permutation(POPULATION)[: reference + window]
    taken = table.take(rows)
    return taken.iloc[:reference], taken.iloc[reference:], columns


def ours(reference: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns, seed: int) -> bool:
    return detector.detect_drift(
        detector.Comparison(reference, window, columns, target=None, time=None, seed=seed), LEVEL, hurry=True
    ).alarm


def preset(reference: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns) -> tuple[bool, int]:
    categories = [*columns.booleans, *columns.low, *columns.high]
    return run_preset(reference, window, [*columns.numbers, "_prediction"], categories)


def unchanged(size: int, width: int, reference: int, first: int, last: int, presets: int) -> list[int]:
    """[alarms, windows, the preset's alarms, its windows with any drifted column, its windows] of windows first .. last - 1."""
    alarms = said = some = asked = 0
    for seed in range(first, last):
        before, after, columns = pair(width, reference, size, seed)
        alarms += ours(before, after, columns, seed)
        if seed < presets:
            drifted, count = preset(before, after, columns)
            said, some, asked = said + drifted, some + (count > 0), asked + 1
    return [alarms, last - first, said, some, asked]


def interval(count: int, trials: int) -> str:
    """A share in per cent with its exact 95 % interval."""
    if not trials:
        return "-"
    low, high = stats.binomtest(count, trials).proportion_ci(0.95)
    return f"{100 * count / trials:.2f} ({100 * low:.2f}-{100 * high:.2f})"


def table_unchanged(windows: int, presets: int, work: Work) -> None:
    # The shortest first: most cells are known early. The last one is done in pieces, so no core waits for it.
    cells = sorted(product(SIZES, WIDTHS, REFERENCES), key=lambda c: c[1] * (c[0] + c[2]))
    found = work.sums(unchanged, cells, windows, presets)
    print(f"\n## Nothing changed ({windows:,} windows a cell, the preset {presets}; promised {LEVEL:.0%})\n")
    print("| reference | columns | window | alarms, % | above 1 %: p | preset: drift, % | preset: any column, % |")
    print("|---|---|---|---|---|---|---|")
    ps = []
    for cell in sorted(cells, key=lambda c: (c[2], c[1], c[0])):
        alarms, count, said, some, of = found[cell]
        ps.append(stats.binomtest(alarms, count, LEVEL, alternative="greater").pvalue)
        shown = f"{ps[-1]:.3f} | {interval(said, of)} | {interval(some, of)} |"
        print(f"| {cell[2]:,} | {cell[1]} | {cell[0]:,} | {interval(alarms, count)} | {shown}")
    total = sum(v[0] for v in found.values()), sum(v[1] for v in found.values())
    holm = [p * (len(ps) - i) for i, p in enumerate(sorted(ps))]
    worst = f"smallest p after Holm {min(1.0, *holm):.3f}"
    print(f"\nAll cells: {total[0]} of {total[1]:,}, {interval(*total)} %; {worst}.")


SHIFTS: dict[str, tuple[float, ...]] = {
    "mean, standard deviations": (0.1, 0.2, 0.4),
    "scale, times": (1.1, 1.25, 1.5),
    "one category, points": (2, 5, 10),
    "new category, % of rows": (0.3, 1, 3),
    "missing, % of rows": (1, 3, 10),
    "correlation, weaker by": (0.1, 0.2, 0.4),
}


def shifted(what: str, by: float, window: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The window with one column moved: c0 (normal), c1 (few categories) or how c0 hangs together with the others."""
    moved = window.copy()
    if what.startswith("mean"):
        moved["c0"] += by * 0.99
    elif what.startswith("scale"):
        moved["c0"] *= by
    elif what.startswith("one category"):
        moved.loc[rng.random(len(moved)) < by / 100 / (1 - (moved["c1"] == "few2").mean()), "c1"] = "few2"
    elif what.startswith("new"):
        moved.loc[rng.random(len(moved)) < by / 100, "c1"] = "never seen"
    elif what.startswith("missing"):
        moved.loc[rng.random(len(moved)) < by / 100, "c0"] = np.nan
    else:  # c0 and c6 correlate by a half
        mixed = rng.random(len(moved)) < by / 0.5
        moved.loc[mixed, "c0"] = rng.permutation(moved.loc[mixed, "c0"].to_numpy())
    return moved


def oracle(what: str, reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    """One test of the one thing that may have moved, at the same level."""
    if what.startswith(("mean", "scale")):
        p = stats.ks_2samp(reference["c0"], window["c0"]).pvalue
    elif what.startswith("one"):
        counts = pd.DataFrame({i: f["c1"].value_counts() for i, f in enumerate((reference, window))}).fillna(0)
        p = stats.chi2_contingency(counts.to_numpy()).pvalue
    elif what.startswith(("new", "missing")):
        marked = [(f["c1"] == "never seen") if what.startswith("new") else f["c0"].isna() for f in (reference, window)]
        p = stats.fisher_exact([[m.sum(), len(m) - m.sum()] for m in marked]).pvalue
    else:
        found = [np.arctanh(f["c0"].corr(f["c6"], method="spearman")) for f in (reference, window)]
        error = np.sqrt(1.06 / (len(reference) - 3) + 1.06 / (len(window) - 3))
        p = 2 * stats.norm.sf(abs(found[0] - found[1]) / error)
    return bool(p <= LEVEL)


def detection(what: str, by: float, size: int, first: int, last: int, presets: int) -> list[int]:
    """[ours, ours naming the column, the oracle, windows, the preset, its windows] of moved windows first .. last - 1."""
    found = np.zeros(6, dtype=int)
    for seed in range(first, last):
        before, after, columns = pair(16, 5000, size, 10_000 + seed)
        after = shifted(what, by, after, np.random.default_rng(seed))
        said = detector.detect_drift(
            detector.Comparison(before, after, columns, target=None, time=None, seed=seed), LEVEL, hurry=True
        )
        column = "c1" if "category" in what else "c0"
        drifted = seed < presets and preset(before, after, columns)[0]
        found += [said.alarm, column in said.columns, oracle(what, before, after), 1, drifted, seed < presets]
    return [int(n) for n in found]


def table_shifts(windows: int, presets: int, work: Work) -> None:
    cells = [(w, b, s) for s in (300, 1000) for w, bys in SHIFTS.items() for b in bys]
    found = work.sums(detection, cells, windows, presets)
    print(
        f"\n## One column of 16 moved: detected, % ({windows} windows a cell, the preset {presets}; reference 5,000 rows)\n"
    )
    print("| window | what | by | ours | names the column | oracle | preset |\n|---|---|---|---|---|---|---|")
    for (what, by, size), (*ours_, of, said, asked) in found.items():
        shares = " | ".join(f"{100 * n / of:.0f}" for n in ours_)
        print(f"| {size:,} | {what} | {by:g} | {shares} | {100 * said / asked if asked else float('nan'):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--preset", type=int, default=30)
    parser.add_argument("--part", choices=["unchanged", "streams", "shifts"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kept", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the windows, 20 orders of cycles instead of 60"
    )
    chosen = parser.parse_args()
    share = 10 if chosen.quick else 1
    windows, presets = max(chosen.windows // share, 1), chosen.preset // share
    work = Work(chosen.jobs, chosen.kept)
    if chosen.part in (None, "unchanged"):
        table_unchanged(windows, presets, work)
    if chosen.part in (None, "streams"):
        drift_streams.tables(work, 20 if chosen.quick else 60)
    if chosen.part in (None, "shifts"):
        table_shifts(max(windows // 5, 1), presets, work)


if __name__ == "__main__":
    main()
