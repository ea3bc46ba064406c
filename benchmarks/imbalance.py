"""Does treating a rare class help? `python benchmarks/imbalance.py TABLE --target COL [--seeds N] [--rows N]` prints it.

Each seed draws other rows: 60 % teach, 40 % judge (the newest, where the table has a time), and every treatment is fitted on the same
rows, at the defaults of each candidate. `untreated` takes the classes as they are and calls the likelier one; `proposed` is what
`windvane init` proposes for the table; the others are the values of search.imbalance, each with a tuned threshold. Differences are
treated minus untreated on the same held-out rows: mean over the seeds, with a 95 % interval from a bootstrap over the rows of each.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.reading import labelled
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.class_balance import UNBALANCED, ClassBalance
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.settings import project_params, settings_proposal

if TYPE_CHECKING:
    import pandas as pd

CANDIDATES = ("linear", "tree", "forest", "boosting")
METRICS = ("average_precision", "f1", "log_loss")
SHARE = 0.6
DRAWS = 300


@dataclass(frozen=True)
class Job:
    """A table, what init proposes for it, and the rows to draw from."""

    chosen: project_params.Settings
    columns: features.FeatureColumns
    frame: pd.DataFrame


def job(table: Path, target: str) -> Job:
    """The table as a lap would see it under the proposal of init."""
    chosen = project_params.parse_settings(dict(settings_proposal.propose_settings(table, target).params))
    frame, columns = labelled(chosen)
    return Job(chosen, columns, frame)


def treatments(chosen: project_params.Settings) -> dict[str, ClassBalance]:
    """Name -> how rare classes are treated; the untreated first, then the proposal."""
    named = {"untreated": UNBALANCED, "proposed": ClassBalance(chosen.search.imbalance, chosen.search.threshold)}
    return named | {name: ClassBalance(name, "f1") for name in ("weights", "oversample", "undersample", "smote")}


def sides(job: Job, rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that teach and rows that judge; in their order, so that with a time the newest judge."""
    drawn = np.random.default_rng(seed).choice(len(job.frame), min(rows, len(job.frame)), replace=False)
    cut = int(SHARE * len(drawn))
    if job.chosen.problem.time is not None:
        drawn = np.sort(drawn)
    return job.frame.iloc[np.sort(drawn[:cut])], job.frame.iloc[np.sort(drawn[cut:])]


def judged(
    job: Job, candidate: str, balance: ClassBalance, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> Predictions:
    """What a fit says of the rows that judge, its classes as 0 and 1 (1: the positive one)."""
    from windvane.tasks.models.problem_types.class_labels import find_positive_class

    kind, cores = definitions.load_problem_type("classification"), len(os.sched_getaffinity(0))
    spec = ModelConfiguration(candidate, {}, balance)
    model = model_pipeline.fit_pipeline(
        spec, kind, job.columns, train, FitOptions(job.chosen.problem.target, seed, cores)
    )
    said = kind.predict(model, features.conform_frame(test, job.columns, "the rows that judge"))
    classes, proba = np.asarray(said.classes), np.asarray(said.proba)
    at = find_positive_class(classes)
    return Predictions((said.value == classes[at]).astype(int), proba[:, [1 - at, at]], np.arange(2))


def gaps(
    truths: list[Any], plain: list[Predictions], treated: list[Predictions], name: str
) -> tuple[float, float, float]:
    """Treated minus untreated: mean over the seeds, and its 95 % bootstrap interval; both share every draw."""
    score = definitions.load_problem_type("classification").metrics[name].score
    rng = np.random.default_rng(0)

    def mean(draws: list[Any]) -> float:
        found = [score(t, b, w) - score(t, a, w) for t, a, b, w in zip(truths, plain, treated, draws, strict=True)]
        return float(np.mean(found))

    drawn = [
        mean([rng.multinomial(len(t), np.full(len(t), 1 / len(t))).astype(float) for t in truths]) for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return mean([None] * len(truths)), float(low), float(high)


def compare(job: Job, candidate: str, seeds: int, rows: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Print a row per treatment; the differences by treatment and metric."""
    from windvane.tasks.models.problem_types.class_labels import find_positive_class

    kind, target = definitions.load_problem_type("classification"), job.chosen.problem.target
    truths: list[Any] = []
    said: dict[str, list[Predictions]] = {name: [] for name in treatments(job.chosen)}
    for seed in range(seeds):
        train, test = sides(job, rows, seed)
        truth = kind.truth(test[target])
        classes = np.unique(truth)
        truths.append((truth == classes[find_positive_class(classes)]).astype(int))
        for name, balance in treatments(job.chosen).items():
            said[name].append(judged(job, candidate, balance, train, test, seed))
        print(candidate, "seed", seed, file=sys.stderr, flush=True)
    plain, found = said["untreated"], {}
    for name, made in said.items():
        scores = {
            m: np.mean([kind.metrics[m].score(t, p, None) for t, p in zip(truths, made, strict=True)]) for m in METRICS
        }
        found[name] = {m: gaps(truths, plain, made, m) for m in METRICS} if name != "untreated" else {}
        cells = [f"{scores[m]:.4f}" + (f" ({_signed(found[name][m])})" if found[name] else "") for m in METRICS]
        print(f"| {candidate} | {name} | " + " | ".join(cells) + " |", flush=True)
    return found


def _signed(gap: tuple[float, float, float]) -> str:
    return f"{gap[0]:+.4f}, {gap[1]:+.4f} to {gap[2]:+.4f}"


def verdict(found: dict[str, tuple[float, float, float]], name: str) -> str:
    """An honest sentence about one treatment of one candidate."""
    said = []
    for metric, (gap, low, high) in found.items():
        better, worse = (low > 0, high < 0) if metric != "log_loss" else (high < 0, low > 0)
        how = "beats it" if better else "is worse" if worse else "cannot be told from it"
        said.append(f"{'is the same' if low == high == 0 else how} on {metric} ({gap:+.4f})")
    return f"{name} beside the untreated model " + ", ".join(said)


def main() -> None:
    """Print the table, then what it says of the proposal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000)
    asked = parser.parse_args()
    work = job(asked.table, asked.target)
    search = work.chosen.search
    rare = work.frame[asked.target].value_counts(normalize=True).min()
    print(
        f"{asked.table.name}, {asked.target} ({rare:.1%} of the rarer class), {asked.seeds} seeds, {asked.rows:,} rows each. "
        f"init proposes metric {work.chosen.problem.headline}, imbalance {search.imbalance}, threshold {search.threshold}.\n"
    )
    print("| candidate | treatment | " + " | ".join(METRICS) + " |\n|---|---|---|---|---|", flush=True)
    found = {name: compare(work, name, asked.seeds, asked.rows) for name in asked.candidates}
    print()
    for name, by_treatment in found.items():
        print("- " + verdict(by_treatment["proposed"], f"{name}: the proposal") + ".")
    ranked = {
        f"{c} with {t}": g for c, by in found.items() for t, g in by.items() if g and g["average_precision"][1] > 0
    }
    print(
        f"- On average precision these beat the untreated model: {', '.join(ranked) or 'none, whatever the candidate'}."
    )


if __name__ == "__main__":
    main()
