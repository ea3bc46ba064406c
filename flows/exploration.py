"""An exploring lap, `windvane train --explore`: the data steps and the search of a lap, and nothing behind them.

It reads train and validation rows only. It opens no test split, registers no version and gives no verdict, so that it may run any number
of times without wearing out the rows that judge. Its run in MLflow has the tag windvane.exploring.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from windvane.flows.lap import data_steps, model_steps, run_records
from windvane.flows.lap.context import (
    LapContext,
    compute_fingerprint,
    open_lap,
    run_fetch_step,
    track_lap,
)
from windvane.flows.lap.model_steps import TrainingData
from windvane.flows.orchestration import libraries
from windvane.ledger import laps
from windvane.tasks import io
from windvane.tasks.console import Console
from windvane.tasks.evaluation import out_of_fold
from windvane.tasks.lap_outcome import CandidateSummary, ExplorationResult
from windvane.tasks.models.model_pipeline import limit_to_one_thread
from windvane.tasks.project import EXPLORING_PREFIX, Project
from windvane.tasks.search.model_search import SearchResult


def explore(project: Project, cause: str, console: Console, *, trial_runs: bool = False) -> ExplorationResult:
    """Search on train and validation; the scores with intervals. A plain call, without Prefect: a person waits for it.

    The ledger knows that it ran, and how it ended; `windvane train` is `unchanged` by versions, of which it makes none.
    """
    os.chdir(project.root)
    libraries.silence_libraries()
    with open_lap(project, cause, "search", console) as held:
        with track_lap(replace(held, exploring=True, trial_runs=trial_runs)) as lap:
            run_fetch_step(lap)
            data_steps.run_ingest_step(lap)
            data_steps.run_validate_step(lap)
            data_version = data_steps.run_split_step(lap)
            libraries.import_heavy_modules(project)
            fingerprint = compute_fingerprint(lap, data_version)
            data = run_records.start_lap_run(lap, model_steps.load_training_data(lap, data_version, fingerprint))
            with limit_to_one_thread():
                result = score_candidates(lap, data, model_steps.run_search_step(lap, data))
            project.tracker.end(data.run)
            laps.record_lap_end(project.ledger, lap.id, "finished", result.to_json())
        # A lap of the same fingerprint need not search again. All else goes, with what killed ones left: no other explores.
        found = (data.root / model_steps.FOUND_FILE).read_bytes()
        for folder in (project.home / "laps").glob(f"{EXPLORING_PREFIX}*"):
            shutil.rmtree(folder, ignore_errors=True)
        data.root.mkdir()
        io.write_whole(data.root / model_steps.FOUND_FILE, lambda part: part.write_bytes(found))
    console.print(result.text())
    return result


def score_candidates(lap: LapContext, data: TrainingData, found: SearchResult) -> ExplorationResult:
    """What an exploring lap ends with: each candidate's validation score with its interval, and a child run for it."""
    settings, tracker = lap.project.settings, lap.project.tracker
    metric, best = settings.problem.headline, found.best
    candidates = []
    for result in found.results:
        lap.console.working(f"explore: {result.candidate}")
        score = out_of_fold.score_configuration(data.task(settings), result.spec, data.train, data.validation)
        value = result.validation[metric]
        # Of folds the search takes the mean, the interval is of all their rows together: it is widened to hold both.
        ends = [(value, end) for end in (score.low, score.high) if end is not None]
        low, high = (min(ends[0]), max(ends[1])) if ends else (None, None)
        model_steps.log_candidate_run(
            lap, found, result, data, {f"validation_{metric}_low": low, f"validation_{metric}_high": high}
        )
        summary = CandidateSummary(result.candidate, value, result.train.get(metric), len(result.trials))
        candidates.append(replace(summary, low=low, high=high))
    tracker.log(
        data.run,
        params={"candidate": best.candidate, **{f"chosen.{k}": v for k, v in best.spec.params.items()}},
        metrics={f"validation_{name}": value for name, value in best.validation.items()},
    )
    return ExplorationResult(
        run_id=data.run,
        data_version=data.data_version,
        metric=metric,
        candidates=tuple(candidates),
        chosen=best.candidate,
        params=best.spec.params,
        rows=len(data.validation) or len(data.train),
        reason=found.ended,
        fits=found.fits + len(found.results),
        seconds=lap.seconds,
        positive=data.kind.positive,
    )
