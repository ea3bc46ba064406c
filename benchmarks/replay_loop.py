"""What does `windvane replay` cost beside a bare loop? `python -m benchmarks.replay_loop [--runs N]` prints processor and wall seconds.

40 windows over 60,000 rows of bikeshare (WINDVANE_DATA names the folder of the tables), a small gradient boosting. First the replay, which
looks at every window, decides by the policy `staleness`, judges and promotes; then scikit-learn alone on a ready array of floats repeats
each of its fits and predictions, on as many rows, in the same order. Drawing and MLflow are left out on both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from sklearn.pipeline import Pipeline

from benchmarks.replay_changes import project as as_project
from benchmarks.streams import SMALL, STREAMS, job
from windvane.flows.replay import history_replay
from windvane.flows.replay.history_replay import ReplayOptions
from windvane.monitoring.history.loss_matrix import MatrixJob, cut_into_windows
from windvane.monitoring.history.replay_report import ReplayResult
from windvane.tasks.console import SilentConsole
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.project import Project
from windvane.tasks.validate import table_profile

ROWS, WINDOWS = 60_000, 40
# One that trains no challengers, so that what is measured is the loop and not what the default policy has it fit.
POLICY = "staleness"
# (whether a fit, on how many rows)
Work = list[tuple[bool, int]]


def project(folder: Path) -> tuple[Project, MatrixJob]:
    """The stream as a project, and as a lap would read it."""
    whole = job(next(s for s in STREAMS if s.name == "bikeshare"), "expanding")
    rows = whole.cut.rows.iloc[:ROWS]
    made = as_project(folder, whole.settings, rows, ROWS // WINDOWS)
    return made, MatrixJob(cut_into_windows(rows, "ts", ROWS // WINDOWS), whole.settings, SMALL, None)


def ours(at: Project) -> tuple[ReplayResult, Work]:
    """A replay, and what it fitted and predicted."""
    work: Work = []

    def noted(fit: bool, place: int, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            work.append((fit, len(arguments[place])))
            return function(*arguments, **more)

        return call

    with (
        mock.patch.object(model_pipeline, "fit_pipeline", noted(True, 3, model_pipeline.fit_pipeline)),
        mock.patch.object(Pipeline, "predict", noted(False, 1, Pipeline.predict)),
    ):
        return history_replay.replay_table(at, ReplayOptions(policy=POLICY), SilentConsole(), SMALL), work


def bare(history: MatrixJob, work: Work) -> None:
    """The same fits and predictions."""
    rows, kind = history.cut.rows, definitions.load_problem_type(history.settings.problem.kind)
    columns = features.select_feature_columns(history.settings, table_profile.profile_table(rows))
    pipeline = model_pipeline.build_pipeline(SMALL, kind, columns, 0, 1)
    inputs = pipeline[:-1].fit_transform(features.conform_frame(rows, columns, "rows"), rows["count"])
    truth = rows["count"].to_numpy(dtype="float64")
    learner: Any = None
    with model_pipeline.limit_to_one_thread():
        for fit, count in work:
            if fit:
                learner = model_pipeline.build_pipeline(SMALL, kind, columns, 0, 1)[-1].fit(
                    inputs[:count], truth[:count]
                )
            else:
                learner.predict(inputs[-count:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    took: dict[str, list[tuple[float, float]]] = {"bare loop": [], "replay": []}
    with tempfile.TemporaryDirectory() as folder:
        at, history = project(Path(folder))
        story, work = ours(at)  # and everything is imported
        for _ in range(chosen.runs):
            for name, run in (("bare loop", lambda: bare(history, work)), ("replay", lambda: ours(at))):
                began = time.process_time(), time.perf_counter()
                run()
                took[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    fits = sum(fit for fit, _ in work)
    print(
        f"{len(story.chapters)} windows played, {fits} fits, {len(work) - fits} predictions; {story.ours.retrains} retrainings, "
        f"{story.ours.refused} refused\n"
    )
    print("| | processor s | beside the loop | wall s | beside the loop |\n|---|---|---|---|---|")
    medians = {name: [statistics.median(one) for one in zip(*runs, strict=True)] for name, runs in took.items()}
    for name, (processor, wall) in medians.items():
        loop = medians["bare loop"]
        print(f"| {name} | {processor:.1f} | {processor / loop[0]:.2f} x | {wall:.1f} | {wall / loop[1]:.2f} x |")


if __name__ == "__main__":
    main()
