"""Does the watch see what is there, and nothing else? `python -m benchmarks.replay_changes --part known|unchanged [--seeds N]`.

WINDVANE_DATA names the folder of the tables. Both parts are `windvane replay` without its picture, with a small gradient boosting, no
cool-down and no budget.

known: noaa_rain in windows of 1,000 rows, whose columns are permuted from row 12,000 on. A line a window.
unchanged: five tables whose rows are shuffled among their times, 6,000 rows each in 40 windows, under the policy `drift`: nothing changes,
so whoever retrains errs. Each table and seed is a cell that is kept
(--kept FILE). Intervals of 95 % (Clopper & Pearson, Biometrika 26 (1934)).
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from scipy.stats import beta

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from benchmarks.streams import SMALL, STREAMS, job
from windvane.flows.replay import history_replay
from windvane.flows.replay.history_replay import ReplayOptions
from windvane.monitoring.history.replay_report import ReplayResult
from windvane.tasks.console import SilentConsole
from windvane.tasks.project import Project
from windvane.tasks.settings.project_params import Settings

TABLES = ("txhousing", "avocados", "king_county", "parking", "bikeshare")
ROWS, WINDOWS = 6_000, 40
PERMUTED, WINDOW = 12_000, 1_000


def project(folder: Path, settings: Settings, rows: pd.DataFrame, window: int) -> Project:
    """Rows as a project whose watch is free to retrain."""
    path = folder / "rows.parquet"
    rows.drop(columns=[c for c in rows if str(c).startswith("_")]).to_parquet(path, index=False)
    content = settings.model_dump(mode="json")
    content["data"] = {"source": str(path)}
    content["monitor"]["window"] = window
    content["retrain"] |= {"cooldown": "0d", "budget": None}
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return Project(folder)


def played(name: str, policy: str, window: int, seed: int | None = None) -> ReplayResult:
    """A stream's replay; `seed`: its rows shuffled among their times, and thinned to ROWS."""
    whole = job(next(s for s in STREAMS if s.name == name), "expanding")
    rows, time = whole.cut.rows, str(whole.settings.problem.time)
    if seed is not None:
        times = rows[time].iloc[:: max(1, len(rows) // ROWS)].iloc[:ROWS]
        rows = rows.sample(len(times), random_state=seed).assign(**{time: times.to_numpy()})
    with tempfile.TemporaryDirectory() as folder:
        made = project(Path(folder), whole.settings, rows, window)
        return history_replay.replay_table(made, ReplayOptions(policy=policy), SilentConsole(), SMALL)


def known() -> None:
    """A line a window of noaa_rain."""
    story = played("noaa_rain", "staleness", WINDOW)
    print(
        "| rows from | alarm | what the look found | decision | Windvane | never retrained |\n|---|---|---|---|---|---|"
    )
    first = (story.trained_rows + WINDOW - 1) // WINDOW
    for at, c in enumerate(story.chapters, first):
        said = c.ending or c.action
        alarm = "alarm" if c.alarm else ""
        print(f"| {at * WINDOW:,} | {alarm} | {c.cause} | {said} | {c.loss:.3f} | {c.never:.3f} |", flush=True)


def list_actions(name: str, seed: int) -> list[str]:
    """What was decided in each window of a shuffled table."""
    return [str(c.action) for c in played(name, "drift", ROWS // WINDOWS, seed).chapters]


def unchanged(seeds: int, kept: KeptCells) -> None:
    """How often a model is trained again for drift on a shuffled table."""
    code = hash_code(
        __file__, "monitoring", "flows/replay", "tasks/ingest", "tasks/models", "tasks/split", "tasks/gate"
    )
    print("| table | windows | retrained for drift | stopped | share | 95 % |\n|---|---|---|---|---|---|")
    every = list[str]()
    for name in (*TABLES, "all"):
        if name != "all":
            actions = [
                a
                for seed in range(seeds)
                for a in kept.get(f"{name}, seed {seed}", code, partial(list_actions, name, seed))
            ]
            every += actions
        chosen = every if name == "all" else actions
        count, found = len(chosen), chosen.count("retrain")
        low = beta.ppf(0.025, found, count - found + 1) if found else 0.0
        high = beta.ppf(0.975, found + 1, count - found)
        stopped = chosen.count("stop")
        print(f"| {name} | {count} | {found} | {stopped} | {found / count:.2%} | {low:.2%} to {high:.2%} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["known", "unchanged"], required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "replay_changes.jsonl")
    chosen = parser.parse_args()
    if chosen.part == "known":
        known()
    else:
        unchanged(chosen.seeds, KeptCells(chosen.kept))


if __name__ == "__main__":
    main()
