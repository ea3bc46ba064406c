"""The model steps of a lap: inspect the training rows, search, evaluate, build, smoke-test and explain a challenger."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from pydantic import TypeAdapter

from windvane.flows.lap.context import LapContext
from windvane.ledger import versions
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.agreement import EngineSpeed
from windvane.serving.model_cache import ModelMemory, measure_model_memory
from windvane.tasks import io
from windvane.tasks.console import format_metric
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import evaluation_files, model_evaluation, out_of_fold, scores
from windvane.tasks.evaluation.evaluation_files import write_evaluation
from windvane.tasks.gate import block_test, promotion_gate
from windvane.tasks.ingest import table_io
from windvane.tasks.io import read_record
from windvane.tasks.models import class_balance, features, model_pipeline, own_code, own_metrics
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import class_labels, classification, definitions
from windvane.tasks.process_environment import count_cores
from windvane.tasks.project import Project
from windvane.tasks.reports import data_report
from windvane.tasks.search import cross_validation, model_search
from windvane.tasks.settings import serving_section
from windvane.tasks.settings.problem_section import name_metric
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import data_split
from windvane.tasks.stores import model_files, own_code_trial
from windvane.tasks.stores.dvc_pipeline import open_dvc_pipeline
from windvane.tasks.stores.mlflow_client import DatasetUse
from windvane.tasks.stores.model_files import SmokeTester
from windvane.tasks.validate import findings, model_checks, table_profile, table_schema, table_statistics
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_profile import PROFILE_FILE, read_profile

# Bytes of a scoring service without a model, about.
EMPTY_SERVICE_BYTES = 100_000_000
# Rows stored with the model: what the smoke test predicts again.
SMOKE_SAMPLE_ROWS = 20
# What a search found, in the lap's work folder.
FOUND_FILE = "found.json"
# The record's column: how many earlier laps each row has judged.
JUDGED_BEFORE_COLUMN = "_judged_before"
_MLFLOW_TYPES = {"number": "double", "boolean": "boolean", "category": "string", "date": "datetime"}


@dataclass(frozen=True)
class TrainingData:
    """What a challenger is trained on: the split by its data version, and the work folder of the fingerprint."""

    fingerprint: str
    data_version: str
    root: Path
    train: pd.DataFrame
    validation: pd.DataFrame
    columns: features.FeatureColumns
    kind: definitions.ProblemType
    cores: int
    # That the rows are a sample of the training rows, in words; None: they are all of them.
    sampled: str | None = None
    # The lap's run in MLflow; None: not started, or ended long ago.
    run_id: str | None = None

    @property
    def run(self) -> str:
        """The lap's run in MLflow, which has started."""
        assert self.run_id is not None
        return self.run_id

    def dataset(self, settings: Settings) -> DatasetUse:
        """The table and its data version, as MLflow's pages show what a run learned from."""
        types = {name: _MLFLOW_TYPES[kind] for name, kind in engine_files.list_input_types(self.columns).items()}
        types[settings.problem.target] = "double" if self.kind.continuous else "string"
        return DatasetUse(settings.data.source, self.data_version, len(self.train) + len(self.validation), types)

    def task(self, settings: Settings) -> ModelTask:
        """What models are made for under these settings."""
        return ModelTask(settings, self.kind, self.columns, self.cores)


@dataclass(frozen=True)
class Evaluated:
    """The chosen configuration on the test split, and how many models were fitted for that."""

    held: model_evaluation.HeldOutRecord
    fits: int


@dataclass(frozen=True)
class BuiltModel:
    """A stored, sealed model, not yet registered; fits: how many models were fitted for it."""

    folder: Path
    manifest_sha256: str
    taught_until: str | float | None
    # Which engine predicts large batches faster, as measured; None: there is no compiled form.
    bulk: dict[str, Any] | None
    # What the scorer needs for it.
    memory: ModelMemory
    fits: int


def load_training_data(lap: LapContext, data_version: str, fingerprint: str) -> TrainingData:
    """The splits to learn from, read from where DVC keeps them by their hash, not from the workspace."""
    root = lap.folder(fingerprint)
    with open_dvc_pipeline(lap.project.root) as stages:
        stages.materialise(root)
    settings = lap.project.settings
    train, validation = data_split.read_training_rows(root, settings)
    columns = features.select_feature_columns(settings, read_profile(root / PROFILE_FILE))
    kind, sampled = _load_problem_type(settings, train), data_split.describe_sampled_split(root, settings)
    return TrainingData(fingerprint, data_version, root, train, validation, columns, kind, count_cores(), sampled)


def _load_problem_type(settings: Settings, train: pd.DataFrame) -> definitions.ProblemType:
    """The problem type; of two classes it names the positive one, also where problem.positive does not."""
    problem = settings.problem
    kind = own_metrics.load_measured_problem_type(problem, problem.positive)
    if kind.continuous or len(classes := np.unique(kind.truth(train[problem.target]))) != 2:
        return own_code.load_project_problem_type(settings)
    positive = classes[class_labels.find_positive_class(classes, problem.positive)].item()
    return own_code.load_project_problem_type(settings, positive)


def run_search_step(lap: LapContext, data: TrainingData) -> model_search.SearchResult:
    """The ladder of candidates and their tuning. Once finished it is never repeated: the test split may be open by then. What an
    exploring lap of the same fingerprint found just before is taken over.
    """
    done, explored = data.root / FOUND_FILE, replace(lap, exploring=True).folder(data.fingerprint) / FOUND_FILE
    adapter = TypeAdapter(model_search.SearchResult)
    for path in (done, explored):
        if (known := io.read_cache(path, adapter.validate_python)) is None:
            continue  # damaged, it is found again from the journal
        if path != done:
            lap.console.print("  note: nothing has changed since `windvane train --explore`: its search is used")
            io.write_whole(done, lambda part: part.write_bytes(adapter.dump_json(known)))
        return replace(known, fits=0)
    settings = lap.project.settings
    metric = name_metric(settings.problem.headline, data.kind.positive)
    own_code_trial.try_own_code(data.task(settings), join_training_rows(data))

    def show(progress: model_search.TrialProgress) -> None:
        scores = f"{format_metric(progress.validation)}, best {format_metric(progress.best)}"
        at = f"configuration {progress.trial} of {progress.of}" if progress.trial else "baseline"
        lap.console.working(f"{progress.candidate}: {at}, {metric} {scores}, {progress.left:.0f} s left")

    if lap.depth == "refit":
        champion = versions.find_champion(lap.project.ledger, lap.project.name)
        assert champion is not None
        before = ModelConfiguration.from_json(champion.facts.spec)
        spec, notes = choose_refit_spec(
            settings, data.kind, join_training_rows(data), before, labels=lap.remedy == "labels"
        )
        found = model_search.score_single_configuration(data.task(settings), spec, data.train, data.validation, show)
        found = replace(found, notes=(*found.notes, *notes))
    else:
        journal = data.root / "journal.log"
        found = model_search.search_models(data.task(settings), data.train, data.validation, journal, show)
    for note in found.notes:
        lap.console.print(f"  note: {note}")
    io.write_whole(done, lambda part: part.write_bytes(adapter.dump_json(found)))
    return found


def choose_refit_spec(
    settings: Settings, kind: definitions.ProblemType, rows: pd.DataFrame, spec: ModelConfiguration, *, labels: bool
) -> tuple[ModelConfiguration, tuple[str, ...]]:
    """The champion's configuration for a refit on these (n) rows, with what label drift requires (`labels`), and that in words.

    Once it follows the newest rows' classes it goes on to, until a search: without weights all of the past would count again.
    """
    time = settings.problem.time
    if spec.balance.newest is None and not labels:
        return spec, ()
    if kind.continuous or time is None:
        why = (
            "label drift, and a plain refit: rows are weighted for classes, and where problem.time shows which are new"
        )
        return spec, (why,)
    window, truth = str(settings.monitor.window), kind.truth(rows[settings.problem.target])
    now = class_balance.estimate_class_shares(truth, rows[time], settings.monitor.cut)
    followed = replace(spec, balance=replace(spec.balance, newest=window))
    return followed, (class_balance.describe_class_shares(now, window),)


def run_evaluate_step(lap: LapContext, data: TrainingData, spec: ModelConfiguration) -> Evaluated:
    """Open the test split, once per fingerprint, and keep the predictions as the record."""
    lap.console.working("evaluate")
    engine, name, settings = lap.project.ledger, lap.project.name, lap.project.settings
    path = data.root / "record.parquet"
    opening = versions.find_opening(engine, name, data.fingerprint)
    if opening and opening.record_sha256 and path.exists() and model_files.hash_file(path) == opening.record_sha256:
        model = model_pipeline.fit_with_settings(data.task(settings), spec, join_training_rows(data))
        return Evaluated(model_evaluation.HeldOutRecord(table_io.read_parquet(path), model), 1)

    def open_test() -> pd.DataFrame:
        versions.open_test_split(engine, name, data.fingerprint)
        return data_split.open_test_rows(data.root, settings, data_split.TestPermit(data.fingerprint))

    held = model_evaluation.predict_held_out(data.task(settings), spec, data.train, data.validation, open_test)
    fits = 2
    if settings.split.strategy != "time" and len(held.record) < promotion_gate.MIN_JUDGED_ROWS:
        record, more = _judge_all_rows(lap, data, spec, held.record)
        held, fits = replace(held, record=record), fits + more
    earlier = versions.count_earlier_judgements(engine, name, held.record[table_io.ROW_KEY].tolist())
    held.record.insert(0, JUDGED_BEFORE_COLUMN, held.record[table_io.ROW_KEY].map(lambda row: earlier.get(row, 0)))
    table_io.write_parquet(held.record, path)
    versions.close_test_split(
        engine, name, data.fingerprint, model_files.hash_file(path), held.record[table_io.ROW_KEY].tolist()
    )
    return Evaluated(held, fits)


def _judge_all_rows(
    lap: LapContext, data: TrainingData, spec: ModelConfiguration, record: pd.DataFrame
) -> tuple[pd.DataFrame, int]:
    """The record of too few test rows, completed with the other rows out of fold (tasks/evaluation/out_of_fold.py), and how many
    models were fitted for that.

    Where the lap searched, each fold's models come from a search of their own on the other folds' rows: together these have
    search.trials and search.timeout once more. A refit keeps the champion's configuration, which earlier laps chose.
    """
    settings, task = lap.project.settings, data.task(lap.project.settings)
    folds, fits = block_test.MIN_BLOCKS, 0

    def choose(fold: int, rows: pd.DataFrame) -> ModelConfiguration:
        nonlocal fits
        fits += 1
        lap.console.working(f"evaluate: fold {fold} of {folds}")
        if lap.depth == "refit":
            return spec
        most = cross_validation.count_possible_folds(settings, data.kind, rows)
        split = {"strategy": "kfold", "folds": min(settings.split.folds or cross_validation.DEFAULT_FOLDS, most)}
        # A list that a person wrote is tried whole.
        share = 1 if settings.search.method == "manual" else folds
        search = {"trials": -(-settings.search.trials // share), "timeout": settings.search.timeout / folds}
        inner = settings.model_copy(
            update={
                "split": settings.split.model_copy(update=split),
                "search": settings.search.model_copy(update=search),
            }
        )
        journal = data.root / "folds" / f"{fold}.log"
        found = model_search.search_models(replace(task, settings=inner), rows, rows[:0], journal, lambda _: None)
        fits += found.fits
        return found.best.spec

    try:
        whole = out_of_fold.complete_record(task, record, join_training_rows(data), choose)
    except InputError as e:  # a fold's rows may be too few for what all rows allow
        lap.console.print(f"  note: the {len(record)} test rows judge alone: {e}")
        whole = None
    if whole is None:
        return record, fits
    how = (
        "in the champion's configuration"
        if lap.depth == "refit"
        else "in configurations that were searched without them too"
    )
    lap.console.print(f"  note: {out_of_fold.describe_folds(whole)}, {how}")
    return whole, fits


def run_build_step(
    lap: LapContext, data: TrainingData, spec: ModelConfiguration, held: model_evaluation.HeldOutRecord
) -> BuiltModel:
    """The model that would serve: with time refitted on all rows up to the cutoff, else the one that was evaluated."""
    lap.console.working("build")
    settings = lap.project.settings
    fitted, model, fits = join_training_rows(data), held.model, 0
    if settings.split.strategy == "time":
        # The test split has judged: its predictions are recorded, its rows may train now.
        fitted = data_split.read_final_rows(data.root, settings, data_split.TestPermit(data.fingerprint))
        model, fits = model_pipeline.fit_with_settings(data.task(settings), spec, fitted), 1
    if settings.retrain.combined is not None and len(model_pipeline.unwrap_estimators(model)) == 1:
        why = "rare classes are treated" if spec.balance.treatment else "these hold all rows, or too few to train on"
        lap.console.print(f"  note: no second model of the newest windows ({settings.retrain.history}): {why}")
    if (threshold := classification.get_threshold(model)) is not None:
        lap.project.tracker.log(data.run, params={"served.threshold": threshold})
    folder = data.root / "model"
    _remove_folder(folder)
    inputs = features.conform_frame(fitted, data.columns, "training rows")
    sample = inputs.tail(SMOKE_SAMPLE_ROWS)
    # A compiled form is compared with the pipeline on the validation rows; with folds on the training rows.
    comparison_rows, pace = inputs, EngineSpeed()
    if len(data.validation):
        comparison_rows = features.conform_frame(data.validation, data.columns, "validation rows")
    compared = engine_files.ComparisonRows(
        inputs, comparison_rows, settings.split.seed, held=_read_held_out_rows(data, settings, held.record)
    )
    profile = read_profile(data.root / PROFILE_FILE)
    cells = engine_files.TableCells(
        tuple(column.name for column in profile.columns),
        frozenset(column.name for column in profile.columns if column.missing),
        frozenset(settings.data.format.keep_words),
        settings.data.format.missing_words,
        settings.data.format.dates,
        settings.data.format.numbers,
    )
    engine = engine_files.build_engine_files(model, data.kind, data.columns, compared, pace, cells)
    bulk = pace.to_json() if engine_files.has_compiled_form(engine) else None
    predicted = data.kind.predict(model, sample).value
    code = None if bulk is None else engine_files.bundle_model_code()
    digest = model_files.save_model(
        model, folder, sample, predicted, engine, code, data.kind.list_own_code(spec.candidate)
    )
    memory = measure_model_memory(folder, digest, data.kind.name)
    lap.console.print(
        f"  memory in the scoring service: {serving_section.format_size(memory.kept)}, "
        f"while it is loaded {serving_section.format_size(memory.peak)}"
    )
    if (heavy := explain_memory_refusal(lap.project, memory)) is not None:
        lap.console.print(f"  note: {heavy}")
    return BuiltModel(folder, digest, data_split.find_trained_until(fitted, settings), bulk, memory, fits)


def _read_held_out_rows(
    data: TrainingData, settings: Settings, record: pd.DataFrame
) -> tuple[pd.DataFrame, definitions.Predictions, NDArray[Any]]:
    """The record's rows: inputs, the evaluated model's predictions, and what was true."""
    truth = data.kind.truth(record[settings.problem.target])
    inputs = features.conform_frame(record, data.columns, "test rows")
    return inputs, scores.read_predictions(record, truth, data.kind.positive), truth


def explain_memory_refusal(project: Project, memory: ModelMemory) -> str | None:
    """Why the scoring service will not load a version beside the champion, in words; None: as far as is known it will."""
    most = project.settings.serve.most_memory
    champion = versions.find_champion(project.ledger, project.name)
    before = EMPTY_SERVICE_BYTES + ((champion.facts.memory or {}).get("kept", 0) if champion is not None else 0)
    if most is None or before + memory.peak <= most:
        return None
    taken = serving_section.format_size(before)
    return (
        f"serve.memory is {serving_section.format_size(most)}, and the service takes about {taken} before it loads "
        "this version: it will refuse it and keep the one before. Raise serve.memory, or choose smaller models in "
        "search.candidates"
    )


def start_smoke_tester() -> AbstractContextManager[SmokeTester]:
    """A process that will try the stored model, started early: it mostly imports."""
    return closing(SmokeTester())


def run_smoke_step(_: LapContext, built: BuiltModel, tester: SmokeTester) -> None:
    """Have a fresh process load the stored model, and compare its predictions."""
    tester.test(built.folder, built.manifest_sha256)


def run_explain_step(
    lap: LapContext, data: TrainingData, found: model_search.SearchResult, held: model_evaluation.HeldOutRecord
) -> model_evaluation.ModelEvaluation:
    """Scores with intervals, curves, the diagnosis of the fit, plots: into MLflow, beside one child run per candidate."""
    lap.console.working("explain")
    settings, tracker, run = lap.project.settings, lap.project.tracker, data.run
    evaluation = model_evaluation.evaluate_model(
        data.task(settings), found.best.spec, data.train, data.validation, held.record
    )
    apart = [f.message for f in findings.read_findings(data.root / findings.FINDINGS_FILE) if f.is_set_aside]
    goal = evaluation.compare_with_goal(settings.problem.goal)
    notes = (*apart, goal, data.sampled, out_of_fold.describe_folds(held.record))
    evaluation = replace(evaluation, notes=(*(note for note in notes if note), *evaluation.notes))
    folder = data.root / "evaluation"
    _remove_folder(folder)
    write_evaluation(folder, settings, data.kind, evaluation, held.record, found)
    for result in found.results:
        log_candidate_run(lap, found, result, data)
    tracker.store(run, folder, "evaluation")
    return evaluation


def log_candidate_run(
    lap: LapContext,
    found: model_search.SearchResult,
    result: model_search.CandidateResult,
    data: TrainingData,
    more: Mapping[str, float | None] | None = None,
) -> None:
    """A child run for a candidate: the same metric names for each (and `more`), its trials as one table and plot."""
    tracker, settings = lap.project.tracker, lap.project.settings
    child = tracker.start(result.candidate, lap.id, {}, parent=data.run)
    tracker.log_dataset(child, data.dataset(settings))
    scores = {f"validation_{name}": value for name, value in result.validation.items()}
    scores |= {f"train_{name}": value for name, value in result.train.items()}
    tracker.log(
        child,
        # MLflow's comparison draws the first three names by the alphabet that differ: they must be of all candidates.
        params={
            "candidate": result.candidate,
            "configurations": len(result.trials),
            "features": "scaled, one-hot" if data.kind.candidates[result.candidate].scaled else "as they are",
            "ladder": [one.candidate for one in found.results].index(result.candidate) + 1,
            **{f"model.{name}": value for name, value in result.spec.params.items()},
        },
        metrics={**scores, **(more or {}), "fit_seconds": result.seconds, "trials": len(result.trials)},
    )
    folder = data.root / "trials" / result.candidate
    metric = data.kind.metrics[settings.problem.headline]
    mine, of = (
        replace(found, results=(result,)),
        evaluation_files.name_subject(metric.name, settings.problem.target, data.kind),
    )
    tracker.store(child, evaluation_files.write_trials(folder, mine, metric, of))
    for trial in result.trials if lap.trial_runs else ():
        run = tracker.start(f"{result.candidate} {trial.number}", lap.id, {}, parent=child)
        figures = {f"validation_{metric.name}": trial.validation, "fit_seconds": trial.seconds}
        tracker.log(run, params=trial.params, metrics=figures)
        tracker.end(run)
    tracker.end(child)


def join_training_rows(data: TrainingData) -> pd.DataFrame:
    """The rows that the evaluated model is fitted on: train and validation, never test."""
    return pd.concat([data.train, data.validation], ignore_index=True) if len(data.validation) else data.train


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)


INSPECTION_REPORT_FILE, INSPECTION_FINDINGS_FILE = "report.html", "findings.json"


def run_inspect_step(lap: LapContext, data: TrainingData) -> None:
    """All that was found in the data onto one page, stored with the run."""
    lap.console.working("inspect")
    settings, tracker, run = lap.project.settings, lap.project.tracker, data.run
    folder = data.root / "inspection"
    if not (folder / INSPECTION_FINDINGS_FILE).exists():  # already done in a lap that goes on after a kill
        agreed = table_schema.load_schema(lap.project.root / table_schema.SCHEMA_FILE)
        before = findings.read_findings(data.root / findings.FINDINGS_FILE)
        path = data.root / data_split.SPLIT_FOLDER / data_split.SPLIT_RECORD_FILE
        sides = read_record(path, lambda record: tuple(TableFinding(**f) for f in record.get("findings", ())))
        seen = model_checks.inspect_training_rows(settings, data.kind, data.columns, data.train, data.cores)
        seen = findings.accept_findings((*sides, *seen), agreed.accept if agreed else ())
        whole = findings.accept_findings((*before, *seen), ())
        _write_data_report(lap, data, whole, folder / INSPECTION_REPORT_FILE)
        findings.write_findings(whole, folder / INSPECTION_FINDINGS_FILE)
    whole = findings.read_findings(folder / INSPECTION_FINDINGS_FILE)
    tracker.store(run, folder, "data")
    tracker.log(run, tags={"windvane.data": data_report.describe_data_verdict(whole)})
    publish_data_artifact(lap, run, whole)
    for finding in whole:
        if finding.check in model_checks.MODEL_CHECKS and finding.level == "warn":
            lap.console.print(f"  note: {finding.message}")


def _write_data_report(lap: LapContext, data: TrainingData, whole: tuple[TableFinding, ...], path: Path) -> None:
    scan = table_io.scan_parquet(data.root / table_profile.TABLE_FILE)
    scan = scan.filter(pl.col(lap.project.settings.problem.target).is_not_null())
    rows = int(scan.select(pl.len()).collect(engine="streaming").item())
    now = table_profile.read_summary(data.root / table_profile.SUMMARY_FILE)
    assert now is not None
    then = table_profile.read_summary(lap.project.root / io.ACCEPTED_SUMMARY_FILE)
    sample = table_statistics.sample_evenly(table_statistics.scan_frame(scan), rows)
    data_report.write_data_report(data_report.DataReport(lap.project.settings, now, then, whole, sample), path)


def publish_data_artifact(lap: LapContext, run_id: str, whole: tuple[TableFinding, ...]) -> None:
    """The verdict and what needs attention, as an artifact of the Prefect run, with the way to the page."""
    from prefect.artifacts import create_markdown_artifact

    address = lap.project.tracker.page(run_id, f"data/{INSPECTION_REPORT_FILE}")
    attention = [f for f in whole if f.level != "pass"]
    rows = [
        f"| {f.level} | {_escape_cell(f.check)} | {_escape_cell(f.column or '')} | {_escape_cell(f.message)} |"
        for f in attention
    ]
    table = ["| | check | column | |", "|---|---|---|---|", *rows] if rows else []
    link = address.replace(" ", "%20").replace(")", "%29")
    page = f"[The data page]({link}), in MLflow under Artifacts, `data/{INSPECTION_REPORT_FILE}` of run `{run_id}`."
    text = "\n".join([f"**{data_report.describe_data_verdict(whole)}**", "", *table, "", page])
    create_markdown_artifact(text, key="data", description=data_report.describe_data_verdict(whole))


def _escape_cell(text: str) -> str:
    """A text in a Markdown table: no line break, bar, tag or link of its own."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]|":
        flat = flat.replace(sign, "\\" + sign)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
