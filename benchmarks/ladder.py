"""Does the ladder climb? `python benchmarks/ladder.py [--seeds N] [--trials N] [TABLE]` prints RMSE per candidate over random splits.

King County house prices by default (examples/), split 70/15/15 at random with each seed; every candidate is chosen on the validation
side and scored once on the test side, as a lap does it. Medians over the seeds; nothing is tracked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.reading import labelled
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelTask
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.search.model_search import search_models
from windvane.tasks.settings import project_params, settings_proposal
from windvane.tasks.split import strategies

ROOT = Path(__file__).parent.parent


def scores(table: Path, target: str, seed: int, trials: int) -> dict[str, float]:
    """Test RMSE of each candidate's best configuration on one split."""
    proposal = settings_proposal.propose_settings(table, target)
    content = dict(proposal.params)
    content["problem"] = {**content["problem"], "metric": "rmse"}
    content["split"] = {"strategy": "random", "validation": 0.15, "test": 0.15, "seed": seed}
    content["search"] = {"trials": trials, "timeout": 3600}
    chosen = project_params.parse_settings(content)
    frame, columns = labelled(chosen)
    sides = strategies.split_rows(frame, chosen, None)
    train, validation, test = (
        frame[side].reset_index(drop=True) for side in (sides.train, sides.validation, sides.test)
    )
    kind, cores = definitions.load_problem_type("regression"), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        found = search_models(
            ModelTask(chosen, kind, columns, cores), train, validation, Path(folder) / "j.log", lambda _: None
        )
    truth = kind.truth(test[target])
    rmse = {}
    for result in found.results:
        model = model_pipeline.fit_pipeline(result.spec, kind, columns, train, FitOptions(target, seed, cores))
        said = kind.predict(model, features.conform_frame(test, columns, "the test side"))
        rmse[result.candidate] = kind.metrics["rmse"].score(truth, said, None)
    return rmse


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, default=ROOT / "examples" / "king_county_houses.parquet")
    parser.add_argument("--target", default="price")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    chosen = parser.parse_args()
    rows = []
    for seed in range(chosen.seeds):
        rows.append(scores(chosen.table, chosen.target, seed, chosen.trials))
        print(seed, {name: round(value) for name, value in rows[-1].items()}, file=sys.stderr, flush=True)
    print(
        f"\nTest RMSE, {chosen.seeds} seeds, {chosen.trials} trials\n\n| candidate | median | lowest | highest |\n|---|---|---|---|"
    )
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")


if __name__ == "__main__":
    main()
