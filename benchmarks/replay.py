"""What does a replay cost beside a bare loop? `python -m benchmarks.replay [--runs N] [--cores N]` prints seconds of both, in turn.

40 windows over 60,000 rows of bikeshare (WINDVANE_DATA names the folder of the tables), a small gradient boosting taught before every
window from the first quarter on and scored on all windows after it. The bare loop is scikit-learn alone on a ready array of floats, one
after another in one process; ours reads rows through the project's features, hashes windows, keeps what it found, and plays
all policies.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.streams import SMALL, STREAMS, job
from windvane.monitoring.history import backtest, loss_matrix
from windvane.monitoring.history.loss_matrix import MatrixJob, cut_into_windows
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.validate import table_profile

ROWS, WINDOWS = 60_000, 40


def asked() -> MatrixJob:
    """The history."""
    whole = job(next(s for s in STREAMS if s.name == "bikeshare"), "expanding")
    return replace(whole, cut=cut_into_windows(whole.cut.rows.iloc[:ROWS], "ts", ROWS // WINDOWS))


def bare(history: MatrixJob) -> float:
    """Seconds of the same fits and predictions."""
    rows, kind = history.cut.rows, definitions.load_problem_type(history.settings.problem.kind)
    columns = features.select_feature_columns(history.settings, table_profile.profile_table(rows))
    pipeline = model_pipeline.build_pipeline(SMALL, kind, columns, 0, 1)
    inputs = pipeline[:-1].fit_transform(features.conform_frame(rows, columns, "rows"), rows["count"])
    truth, edges = rows["count"].to_numpy(dtype="float64"), history.cut.edges
    first = loss_matrix.find_first_window(history.cut.count)
    began = time.perf_counter()
    for model in range(first - loss_matrix.count_held_out_windows(first, None), history.cut.count):
        learner = model_pipeline.build_pipeline(SMALL, kind, columns, 0, 1)[-1]
        with model_pipeline.limit_to_one_thread():
            learner.fit(inputs[: edges[model]], truth[: edges[model]])
            loss = np.abs(truth[edges[model] :] - learner.predict(inputs[edges[model] :]))
        for j in range(model, history.cut.count):
            loss[edges[j] - edges[model] : edges[j + 1] - edges[model]].mean()
    return time.perf_counter() - began


def ours(history: MatrixJob, cores: int) -> tuple[float, float]:
    """Seconds of the matrix and of every policy on it; the same again with the losses kept."""
    with tempfile.TemporaryDirectory() as folder:
        took = []
        for _ in range(2):
            began = time.perf_counter()
            made = loss_matrix.build_loss_matrix(history, Path(folder), cores)
            backtest.compare_policies({"expanding": made}, 0.5)
            took.append(time.perf_counter() - began)
    return took[0], took[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    history = asked()
    pairs = []
    for run in range(chosen.runs):
        pairs.append((bare(history), *ours(history, chosen.cores)))
        print(run, [round(x, 1) for x in pairs[-1]], file=sys.stderr, flush=True)
    loop, first, again = (statistics.median(one) for one in zip(*pairs, strict=True))
    print(f"| {WINDOWS} windows of {ROWS // WINDOWS:,} rows | s | beside the loop |\n|---|---|---|")
    for name, took in (("bare loop, one process", loop), ("replay", first), ("replay, losses kept", again)):
        print(f"| {name} | {took:.1f} | {took / loop:.2f} x |")


if __name__ == "__main__":
    main()
