"""Making a challenger, step by step: search, evaluate, build, smoke, explain."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from windvane.flows.console import number
from windvane.flows.lap import Lap
from windvane.flows.project import Project
from windvane.ledger import openings, versions
from windvane.serving import stored
from windvane.serving.agreement import Pace
from windvane.serving.weigh import Weight, weigh
from windvane.tasks import (
    artifacts,
    estimators,
    evaluation,
    features,
    label_shift,
    problems,
    sizes,
    tables,
    thresholds,
    trials,
)
from windvane.tasks import search as searching
from windvane.tasks import split as splitting
from windvane.tasks.estimators import Spec
from windvane.tasks.evaluation_files import write_evaluation
from windvane.tasks.profile import PROFILE, read
from windvane.tasks.smoke import Tester

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.settings import Settings

# Bytes of a scoring service without a model, about.
EMPTY_SCORER = 100_000_000
# Rows stored with the model: what the smoke test predicts again.
SAMPLE_ROWS = 20
# The record's column that tells how many earlier laps each row has judged.
JUDGED_BEFORE = "_judged_before"


@dataclass(frozen=True)
class Lesson:
    """What a challenger is taught from: the split by its data version, and the work folder of the fingerprint."""

    mark: str
    data_version: str
    root: Path
    train: pd.DataFrame
    validation: pd.DataFrame
    columns: features.Columns
    kind: problems.Kind
    cores: int
    # That the rows are a sample of those that could teach, in words; None: they are all of them.
    sampled: str | None = None
    # The lap's run in MLflow; None: it has not begun, or it ended long ago.
    run_id: str | None = None

    @property
    def run(self) -> str:
        """The lap's run in MLflow, which has begun."""
        assert self.run_id is not None
        return self.run_id


@dataclass(frozen=True)
class Evaluated:
    """The chosen configuration on the test side, and how many models were fitted for that."""

    held: evaluation.HeldOut
    fits: int


@dataclass(frozen=True)
class Built:
    """A stored, sealed model, not yet registered; fits: how many models were fitted for it."""

    folder: Path
    manifest_sha256: str
    taught_until: str | float | None
    # Which engine answers large batches sooner, as measured; None where there is no compiled form.
    bulk: dict[str, Any] | None
    # What the scorer needs for it.
    memory: Weight
    fits: int


def lesson(lap: Lap, data_version: str, mark: str) -> Lesson:
    """The split sides to learn from, read from where DVC keeps them by their hash, not from the workspace."""
    from windvane.tasks.versioning import pipeline

    root = lap.folder(mark)
    with pipeline(lap.project.root) as stages:
        stages.materialise(root)
    settings = lap.project.settings
    train, validation = splitting.sides(root, settings)
    columns = features.columns(settings, read(root / PROFILE))
    kind, sampled = problems.of(settings.problem.kind), splitting.sampled(root, settings)
    return Lesson(mark, data_version, root, train, validation, columns, kind, cores(), sampled)


def search(lap: Lap, lesson: Lesson, check: Callable[[], None]) -> searching.Found:
    """The ladder of candidates and their tuning. Once finished it is never repeated: the test side may be open by then.

    check: asked after each trial; what it raises ends the search.
    """
    done = lesson.root / "found.json"
    adapter = TypeAdapter(searching.Found)
    if (known := tables.read_cache(done, adapter.validate_python)) is not None:
        return replace(known, fits=0)  # damaged, it is found again from the journal
    settings = lap.project.settings

    def show(progress: searching.Progress) -> None:
        check()
        scores = f"{number(progress.validation)}, best {number(progress.best)}"
        at = f"configuration {progress.trial} of {progress.of}" if progress.trial else "baseline"
        lap.console.working(
            f"{progress.candidate}: {at}, {settings.problem.headline} {scores}, {progress.left:.0f} s left"
        )

    if lap.depth == "refit":
        champion = versions.champion(lap.project.ledger, lap.project.name)
        assert champion is not None
        before = Spec.from_json(champion.facts["spec"])
        spec, said = refit(settings, lesson.kind, taught_rows(lesson), before, labels=lap.remedy == "labels")
        found = searching.only(
            spec, settings, lesson.kind, lesson.columns, lesson.train, lesson.validation, lesson.cores, show
        )
        found = replace(found, notes=(*found.notes, *said))
    else:
        journal = lesson.root / "journal.log"
        found = searching.search(
            settings, lesson.kind, lesson.columns, lesson.train, lesson.validation, journal, lesson.cores, show
        )
    for note in found.notes:
        lap.console.say(f"  note: {note}")
    tables.write_whole(done, lambda part: part.write_bytes(adapter.dump_json(found)))
    return found


def refit(
    settings: Settings, kind: problems.Kind, rows: pd.DataFrame, spec: Spec, *, labels: bool
) -> tuple[Spec, tuple[str, ...]]:
    """The champion's configuration for a refit on these (n) rows, with what label drift asks for (`labels`), and that in words.

    Once it follows the newest rows' classes it goes on to, until a search: without weights all of the past would count again.
    """
    time = settings.problem.time
    if spec.balance.newest is None and not labels:
        return spec, ()
    if kind.continuous or time is None:
        return spec, (
            "label drift, and a plain refit: rows are weighted for classes, and where problem.time says which are new",
        )
    window = str(settings.monitor.window)
    now = label_shift.shares(kind.truth(rows[settings.problem.target]), rows[time], settings.monitor.cut)
    return replace(spec, balance=replace(spec.balance, newest=window)), (label_shift.said(now, window),)


def evaluate(lap: Lap, lesson: Lesson, spec: Spec) -> Evaluated:
    """Open the test side, once per fingerprint, and keep the predictions as the record."""
    lap.console.working("evaluate")
    engine, name, settings = lap.project.ledger, lap.project.name, lap.project.settings
    path = lesson.root / "record.parquet"
    opening = openings.find(engine, name, lesson.mark)
    if opening and opening.record_sha256 and path.exists() and artifacts.sha256(path) == opening.record_sha256:
        taught = taught_rows(lesson)
        model = _fitted(lap, lesson, spec, taught)
        return Evaluated(evaluation.HeldOut(tables.read_parquet(path), model), 1)

    def open_test() -> pd.DataFrame:
        openings.open_side(engine, name, lesson.mark)
        return splitting.open_test(lesson.root, settings, splitting.Permit(lesson.mark))

    held = evaluation.held_out(
        settings, lesson.kind, lesson.columns, spec, lesson.train, lesson.validation, open_test, lesson.cores
    )
    earlier = openings.judged_before(engine, name, held.record[tables.ROW].tolist())
    held.record.insert(0, JUDGED_BEFORE, held.record[tables.ROW].map(lambda row: earlier.get(row, 0)))
    tables.write_parquet(held.record, path)
    openings.close_side(engine, name, lesson.mark, artifacts.sha256(path), held.record[tables.ROW].tolist())
    return Evaluated(held, 2)


def build(lap: Lap, lesson: Lesson, spec: Spec, held: evaluation.HeldOut) -> Built:
    """The model that would serve: with time refitted on all rows up to the cutoff, else the one that was evaluated."""
    lap.console.working("build")
    settings = lap.project.settings
    taught, model, fits = taught_rows(lesson), held.model, 0
    if settings.split.strategy == "time":
        # The test side has judged: its predictions are recorded, so its rows may teach now.
        taught = splitting.final_rows(lesson.root, settings, splitting.Permit(lesson.mark))
        model, fits = _fitted(lap, lesson, spec, taught), 1
    if settings.retrain.combined is not None and len(estimators.innermost(model)) == 1:
        why = "rare classes are treated" if spec.balance.treatment else "these hold all rows, or too few to teach"
        lap.console.say(f"  note: no second model of the newest windows ({settings.retrain.history}): {why}")
    if (threshold := thresholds.of(model)) is not None:
        lap.project.tracker.log(lesson.run, params={"served.threshold": threshold})
    folder = lesson.root / "model"
    _empty(folder)
    inputs = features.conform(taught, lesson.columns, "training rows")
    sample = inputs.tail(SAMPLE_ROWS)
    asked, pace = _asked(lesson, inputs), Pace()
    engine = stored.files(model, lesson.kind, lesson.columns, inputs, asked, settings.split.seed, pace=pace)
    bulk = pace.to_json() if stored.is_compiled(engine) else None
    digest = artifacts.save(model, folder, sample, lesson.kind.predict(model, sample).value, lesson.kind.name, engine)
    memory = weigh(folder, digest, lesson.kind.name)
    lap.console.say(
        f"  memory in the scoring service: {sizes.shown(memory.kept)}, while it is loaded {sizes.shown(memory.peak)}"
    )
    if (heavy := too_heavy(lap.project, memory)) is not None:
        lap.console.say(f"  note: {heavy}")
    return Built(folder, digest, splitting.taught_until(taught, settings), bulk, memory, fits)


def too_heavy(project: Project, memory: Weight) -> str | None:
    """Why the scoring service will not load a version beside the champion, in words; None: as far as one can tell it will."""
    most = project.settings.serve.most_memory
    champion = versions.champion(project.ledger, project.name)
    beside = (champion.facts.get("memory") or {}).get("kept", 0) if champion is not None else 0
    if most is None or EMPTY_SCORER + beside + memory.peak <= most:
        return None
    return (
        f"serve.memory is {sizes.shown(most)}, and the service takes about {sizes.shown(EMPTY_SCORER + beside)} before it loads "
        "this version: it will refuse it and keep the one before. Raise serve.memory, or choose smaller models in "
        "search.candidates"
    )


def _fitted(lap: Lap, lesson: Lesson, spec: Spec, rows: pd.DataFrame) -> Any:
    return estimators.taught(lap.project.settings, spec, lesson.kind, lesson.columns, rows, lesson.cores)


def _asked(lesson: Lesson, taught: pd.DataFrame) -> pd.DataFrame:
    """The validation rows, on which a compiled form is compared with the pipeline; with folds those that taught."""
    return features.conform(lesson.validation, lesson.columns, "validation rows") if len(lesson.validation) else taught


def tester() -> AbstractContextManager[Tester]:
    """A process that will try the stored model, started early: it mostly imports."""
    return closing(Tester())


def smoke(_: Lap, built: Built, tester: Tester) -> None:
    """Have a fresh process load the stored model, and compare its answers."""
    tester.test(built.folder, built.manifest_sha256)


def explain(lap: Lap, lesson: Lesson, found: searching.Found, held: evaluation.HeldOut) -> evaluation.Evaluation:
    """Scores with intervals, curves, the diagnosis of the fit, plots: into MLflow, beside one child run per candidate."""
    lap.console.working("explain")
    settings, tracker, run = lap.project.settings, lap.project.tracker, lesson.run
    told = evaluation.evaluate(
        settings,
        lesson.kind,
        lesson.columns,
        found.best.spec,
        lesson.train,
        lesson.validation,
        held.record,
        lesson.cores,
    )
    if lesson.sampled:
        told = replace(told, notes=(lesson.sampled, *told.notes))
    folder = lesson.root / "evaluation"
    _empty(folder)
    write_evaluation(folder, settings, lesson.kind, told, held.record, found)
    for result in found.results:
        _candidate(lap, found, result, lesson)
    tracker.store(run, folder, "evaluation")
    return told


def _candidate(lap: Lap, found: searching.Found, result: searching.Result, lesson: Lesson) -> None:
    """A child run for a candidate: the same metric names for each, its trials as one table and plot."""
    tracker, settings = lap.project.tracker, lap.project.settings
    child = tracker.start(result.candidate, lap.id, {}, parent=lesson.run)
    scores = {**_prefixed("validation", result.validation), **_prefixed("train", result.train)}
    tracker.log(
        child,
        params={"candidate": result.candidate, **result.spec.params},
        metrics={**scores, "fit_seconds": result.seconds, "trials": len(result.trials)},
    )
    folder = lesson.root / "trials" / result.candidate
    metric = lesson.kind.metrics[settings.problem.headline]
    tracker.store(child, trials.write(folder, replace(found, results=(result,)), metric, settings.problem.target))
    for trial in result.trials if lap.trial_runs else ():
        run = tracker.start(f"{result.candidate} {trial.number}", lap.id, {}, parent=child)
        tracker.log(
            run,
            params=trial.params,
            metrics={f"validation_{metric.name}": trial.validation, "fit_seconds": trial.seconds},
        )
        tracker.end(run)
    tracker.end(child)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prefixed(side: str, scores: Any) -> dict[str, float | None]:
    return {f"{side}_{name}": value for name, value in scores.items()}


def taught_rows(lesson: Lesson) -> pd.DataFrame:
    """The rows that the evaluated model is fitted on: train and validation, never test."""
    import pandas as pd

    return pd.concat([lesson.train, lesson.validation], ignore_index=True) if len(lesson.validation) else lesson.train


def _empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
