"""A simulated project: what was known at a moment of the table's history, with a ledger that is deleted afterwards. Its laps
use the rows, fits and gate of real ones, without DVC, MLflow or Prefect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import sqlalchemy as sa
from numpy.typing import NDArray

from windvane.flows import model_promotion, training
from windvane.flows.lap import data_steps, gate_step, model_steps, push_step, run_records
from windvane.flows.lap.context import (
    DirectRunner,
    LapContext,
    claim_lap_decision,
    clear,
    compute_fingerprint,
    find_stopped_outcome,
    find_unchanged_outcome,
    finish_lap,
    make_no_new_rows_outcome,
    run_fetch_step,
)
from windvane.flows.lap.gate_step import Judged
from windvane.flows.lap.model_steps import (
    JUDGED_BEFORE_COLUMN,
    Evaluated,
    TrainingData,
    choose_refit_spec,
    join_training_rows,
)
from windvane.flows.orchestration import libraries
from windvane.ledger import database, decisions, versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.laps import Lease
from windvane.ledger.versions import Promotion, Version, VersionFacts
from windvane.monitoring import window_frames
from windvane.monitoring.history.loss_matrix import RowArrivals
from windvane.monitoring.history.replay_report import LapEnding
from windvane.monitoring.records import LapDepth
from windvane.monitoring.watch.production import Production, WindowCount, count_source_rows
from windvane.monitoring.watch.windows import WindowSpan
from windvane.tasks.console import Console, SilentConsole
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import model_evaluation
from windvane.tasks.evaluation.model_evaluation import HeldOutRecord
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.ingest.table_io import ROW_KEY
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.models import features, model_pipeline, own_code, own_metrics
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.process_environment import count_cores
from windvane.tasks.project import Project
from windvane.tasks.search import model_search
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.sources.fetch import FetchResult
from windvane.tasks.split import data_split, strategies, time_windows
from windvane.tasks.stores import fingerprint
from windvane.tasks.validate import table_profile


class SimulatedProject(Project):
    """A project whose present is `now`, which the player moves on. Its models and records live in memory."""

    def __init__(self, project: Project, settings: Settings, stream: RowArrivals, folder: Path) -> None:
        super().__init__(project.root, settings)
        self.home, self.stream, self.now = folder, stream, stream.times[0]
        self.models: dict[int, Any] = {}
        self.records: dict[int, pd.DataFrame] = {}
        self.judged: Counter[int] = Counter()
        # What a lap is working on, by fingerprint.
        self.work: dict[str, Any] = {}
        self._answered: dict[tuple[int, str, str], pd.DataFrame] = {}
        self._references: dict[int, tuple[pd.DataFrame, pd.DataFrame | None]] = {}

    @cached_property
    def ledger(self) -> sa.Engine:
        """A ledger like any other, but for one thing: it never waits for the disk."""
        engine = database.connect_ledger(f"sqlite:///{self.home / 'ledger.db'}")
        engine.dispose()
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        return engine

    def model(self, version: Version) -> Any:
        """A version's fitted pipeline."""
        return self.models[version.version]

    def record(self, version: Version) -> pd.DataFrame:
        """A version's held-out rows with its predictions."""
        return self.records[version.version]

    def learned(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows that have come by now, and those of them whose label has."""
        (come, known), rows = self.stream.known_at(self.now), self.stream.rows
        return rows.iloc[:come], rows.iloc[:known][rows[self.settings.problem.target].iloc[:known].notna()]

    def champion(self) -> tuple[Version, Promotion]:
        """Which version serves, and how it came to."""
        champion = versions.find_champion(self.ledger, self.name)
        promotion = versions.find_last_promotion(self.ledger, self.name)
        assert champion is not None
        assert promotion is not None
        return champion, promotion

    def answered(self, version: Version, place: WindowSpan) -> pd.DataFrame:
        """A window's rows with a version's predictions, and with their labels, whenever these come."""
        key = (version.version, place.start, place.end)
        if key not in self._answered:
            rows = self.stream.rows.iloc[self.stream.between(place.start, place.end)]
            record, columns = self.reference(version)[0], window_frames.read_version_columns(version.facts, ())
            kind, model = (
                own_metrics.load_measured_problem_type(self.settings.problem, self.settings.problem.positive),
                self.model(version),
            )
            self._answered[key] = window_frames.build_source_frame(rows, columns, record, kind, model)
        return self._answered[key]

    def loss(self, version: Version, place: WindowSpan) -> float:
        """A version's mean loss on a window's labelled rows; NaN without any."""
        problem, frame = self.settings.problem, self.answered(version, place)
        frame = frame[window_frames.mask_labelled(frame, problem.target)]
        if not len(frame):
            return float("nan")
        kind = own_metrics.load_measured_problem_type(problem, problem.positive)
        losses = window_frames.compute_frame_losses(frame, self.record(version), kind, problem)
        return window_frames.average_losses(problem, frame, losses)

    def reference(self, version: Version) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """A version's record as checks need it, and the rows from before it."""
        if version.version not in self._references:
            columns, time = window_frames.read_version_columns(version.facts, ()), str(self.settings.problem.time)
            record = window_frames.read_like_record(self.record(version), columns)
            rows = self.stream.rows
            before = window_frames.read_like_record(rows[rows[time] < record[time].min()], columns)
            self._references[version.version] = record, before
        return self._references[version.version]


class SimulatedProduction(Production):
    """What production looks like at the simulation's present. Windows are checked once they are over: of the checks of an open
    one, which production has spent half of its false alarms on by then, none is played.
    """

    checked = 1
    measured_by_evidently = False

    def __init__(self, past: SimulatedProject, console: Console) -> None:
        self._past = past
        super().__init__(past, *past.champion(), "events", console)

    @cached_property
    def now(self) -> str:
        """The simulation's present."""
        return self._past.now

    @cached_property
    def state(self) -> dict[str, Any]:
        """What there is to learn from."""
        return {"labels": [], "source": list(self._past.stream.known_at(self.now))}

    def places(self) -> list[WindowSpan]:
        """The champion's windows that are over, in the order of time."""
        return self._past.stream.places(self.project.settings.monitor.cut, self.begin, self.now)

    def count(self, place: WindowSpan) -> WindowCount:
        """How many rows a window has, and how many of them a label by now."""
        stream = self._past.stream
        at, (_, known) = stream.between(place.start, place.end), stream.known_at(self.now)
        truth = stream.rows[self.project.settings.problem.target].iloc[at.start : min(at.stop, max(known, at.start))]
        return count_source_rows(place, at.stop - at.start, int(truth.notna().sum()))

    def frame(self, count: WindowCount) -> pd.DataFrame:
        """A window's rows with the champion's predictions, and the labels that have come."""
        frame, problem = self._past.answered(self.champion, count.place), self.project.settings.problem
        start = self._past.stream.between(count.place.start, count.place.end).start
        come = np.arange(start, start + len(frame)) < self._past.stream.known_at(self.now)[1]
        if come.all():
            return frame
        truth = frame[problem.target] if problem.kind == "regression" else frame[problem.target].astype(object)
        return frame.assign(**{problem.target: truth.where(come)})

    def learnable(self) -> tuple[pd.DataFrame, float]:
        """The rows whose labels have come: all of them."""
        return self._past.learned()[1], 1.0

    @cached_property
    def record(self) -> pd.DataFrame:
        """The champion's held-out rows with its predictions."""
        return self._past.reference(self.champion)[0]

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """Rows from before the record."""
        return self._past.reference(self.champion)[1]


@dataclass(frozen=True)
class SimulatedLapResult:
    """What a lap came to, why, how many models were fitted, and by which share its model was better where it was judged."""

    ending: LapEnding
    reason: str
    fits: int = 0
    better: float | None = None


def run_simulated_lap(
    past: SimulatedProject, lease: Lease, pending: DecisionRecord | None, depth: LapDepth, first: ModelConfiguration
) -> SimulatedLapResult:
    """Train on what is known at the simulation's present, judge, and promote or refuse. `pending`: what it carries out; None: the
    first lap of all, whose configuration is `first` unless it searches.
    """
    lap = LapContext(past, lease, "replay", depth, SilentConsole())
    one: LapContext | None = lap
    if pending is not None:
        decisions.record_announcement(past.ledger, pending.id)
        one = claim_lap_decision(lap, pending.id)
    assert one is not None
    one = replace(one, depth=depth, on_record=True)
    try:
        outcome = training.run_lap(one, DirectRunner(_Steps(past, first).instead()))
    except InputError as e:  # as in a real lap: what was decided ends here
        decisions.finish_claimed_decision(past.ledger, lease, one.id, "skipped", f"the lap stopped: {e}")
        if pending is None:
            raise
        return SimulatedLapResult("skipped", f"the lap stopped: {e}")
    finally:
        past.work.clear()
    if outcome.verdict == "unchanged":
        return SimulatedLapResult("skipped", outcome.reason)
    gate = fingerprint.hash_gate_settings(past.settings)
    judged = versions.find_judgement(past.ledger, past.name, outcome.version, gate)
    assert judged is not None
    verdict, better = judged.verdict, None
    if verdict["reference"] and not verdict["too_few"]:
        better = (verdict["difference"] or 0.0) / verdict["reference"]
    return SimulatedLapResult("promoted" if judged.accepted else "refused", verdict["reason"], outcome.fits, better)


@dataclass(frozen=True, kw_only=True)
class _SimulatedTraining(TrainingData):
    """With the test rows, all that train the model that would serve, and all that have a label."""

    test: pd.DataFrame
    final: pd.DataFrame
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Built:
    """The evaluated model: the one that would serve is fitted only if it may (judge)."""

    held: HeldOutRecord
    fits: int = 0


@dataclass(frozen=True)
class _Steps:
    """The stand-ins. What a real lap keeps in files, in the work folder and in MLflow, the simulated project keeps in memory."""

    past: SimulatedProject
    first: ModelConfiguration

    def instead(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """Step -> what is called in its place; the ledger's part is the same."""
        idle: tuple[Callable[..., Any], ...] = (
            training.repair,
            find_stopped_outcome,
            find_unchanged_outcome,
            data_steps.run_ingest_step,
            data_steps.run_validate_step,
            libraries.import_heavy_modules,
            model_promotion.find_known_version,
            model_steps.run_inspect_step,
            model_steps.run_smoke_step,
            model_steps.run_explain_step,
            run_records.close_run,
            model_promotion.run_promote_step,
            push_step.run_push_step,
        )
        return {
            **dict.fromkeys(idle, _nothing),
            run_fetch_step: lambda *_: FetchResult(False, 0, 0, None),
            data_steps.run_split_step: lambda _: "",
            data_steps.find_no_new_rows_outcome: self.nothing_to_learn,
            compute_fingerprint: self.fingerprint,
            model_steps.load_training_data: self.data,
            run_records.start_lap_run: lambda _, data: data,
            model_steps.start_smoke_tester: nullcontext,
            model_steps.run_search_step: self.search,
            model_steps.run_evaluate_step: self.evaluate,
            model_steps.run_build_step: lambda _lap, _data, _spec, held: _Built(held),
            run_records.log_lap_summary: _summary,
            model_promotion.run_register_step: self.register,
            gate_step.run_judge_step: self.judge,
            run_records.record_lap_verdict: run_records.record_lap_verdict,
            clear: lambda _, hashed: self.past.work.pop(hashed),
            finish_lap: _finish,
        }

    def nothing_to_learn(self, lap: LapContext) -> LapOutcome | None:
        """The end of a lap where no row is new to the champion; else None."""
        rows, champion = self.past.learned()[1], versions.find_champion(self.past.ledger, self.past.name)
        if champion is None or len(rows) > champion.facts.rows:
            return None
        until = str(data_split.find_trained_until(rows, self.past.settings))
        return make_no_new_rows_outcome(lap, champion) if until <= str(champion.facts.taught_until) else None

    def fingerprint(self, _: LapContext, __: str) -> str:
        """A name of its own for each version."""
        return f"simulated-{len(self.past.records) + 1}"

    def data(self, _: LapContext, data_version: str, hashed: str) -> _SimulatedTraining:
        """The splits that a lap would cut of what has come, large ones sampled as it samples them."""
        past, settings = self.past, self.past.settings
        come, labelled = past.learned()
        rows, champion = labelled.reset_index(drop=True), versions.find_champion(past.ledger, past.name)
        parted = strategies.split_rows(rows, settings, champion.facts.taught_until if champion else None)

        def taken(side: pd.DataFrame, judging: bool) -> pd.DataFrame:
            most, side = strategies.choose_row_limit(settings, judging=judging), side.reset_index(drop=True)
            if most is None or len(side) <= most:
                return side
            known = pl.from_pandas(side[strategies.list_sampling_columns(settings)])
            return side.iloc[strategies.pick_rows(known, settings, most, newest=not judging)].reset_index(drop=True)

        train = time_windows.select_recent_rows(taken(rows[parted.train], False), settings)
        validation, test = taken(rows[parted.validation], True), taken(rows[parted.test], True)
        columns = features.select_feature_columns(settings, table_profile.profile_table(come))
        kind, by_time = (
            own_code.load_project_problem_type(settings, settings.problem.positive),
            settings.split.strategy == "time",
        )
        data = TrainingData(hashed, data_version, past.home, train, validation, columns, kind, count_cores())
        final = time_windows.select_recent_rows(taken(rows, False), settings) if by_time else join_training_rows(data)
        past.work[hashed] = _SimulatedTraining(**vars(data), test=test, final=final, rows=labelled)
        return past.work[hashed]

    def search(self, lap: LapContext, data: _SimulatedTraining) -> model_search.SearchResult:
        """A search as it is, or the configuration to refit, which nothing has to be fitted for."""
        settings = self.past.settings
        if lap.depth == "search":
            journal = self.past.home / f"{lap.id}.log"
            return model_search.search_models(data.task(settings), data.train, data.validation, journal, _nothing)
        champion, spec = versions.find_champion(self.past.ledger, self.past.name), self.first
        if champion is not None:
            before, rows = ModelConfiguration.from_json(champion.facts.spec), join_training_rows(data)
            spec, _notes = choose_refit_spec(settings, data.kind, rows, before, labels=lap.remedy == "labels")
        only = model_search.CandidateResult(spec.candidate, spec, {}, {}, (), 0.0)
        return model_search.SearchResult((only,), only, None, 0)

    def evaluate(self, _: LapContext, data: _SimulatedTraining, spec: ModelConfiguration) -> Evaluated:
        """The held-out record, with how often its rows have judged before."""
        held = model_evaluation.predict_held_out(
            data.task(self.past.settings), spec, data.train, data.validation, lambda: data.test
        )
        keys = held.record[ROW_KEY].tolist()
        held.record.insert(0, JUDGED_BEFORE_COLUMN, [self.past.judged[row] for row in keys])
        self.past.judged.update(keys)
        return Evaluated(held, 1)

    def register(
        self,
        lap: LapContext,
        data: _SimulatedTraining,
        built: _Built,
        spec: ModelConfiguration,
        summary: dict[str, Any],
    ) -> Version:
        """A version in the simulated project's ledger; its record and model in memory."""
        past, settings = self.past, self.past.settings
        until, number = data_split.find_trained_until(data.final, settings), len(past.records) + 1
        facts = VersionFacts(
            spec=spec.to_json(),
            columns=asdict(data.columns),
            taught_until=until,
            sides={**settings.split.model_dump(exclude={"folds"}), "group": settings.problem.group, "key": []},
            metric=settings.problem.headline,
            kind=settings.problem.kind,
            rows=len(data.rows),
            summary=summary,
        )
        hashed, taught_until = data.fingerprint, None if until is None else str(until)
        version = Version(number, hashed, hashed, "", "", "", hashed, taught_until, facts, now_timestamp())
        past.records[number], past.models[number] = built.held.record, built.held.model
        versions.record_version(past.ledger, lap.lease, version)
        return version

    def judge(self, lap: LapContext, challenger: Version) -> Judged:
        """The gate's word, on the evidence of a real lap; and then the model that will serve."""
        past, data, number = self.past, self.past.work[challenger.fingerprint], challenger.version
        against, record = gate_step.find_opponent(lap, challenger), past.record(challenger)

        def refitted() -> tuple[NDArray[np.float64], int]:
            assert against is not None
            if against.facts.spec == challenger.facts.spec:
                return record[LOSS_COLUMN].to_numpy(dtype="float64"), 0
            model = self._fit(data, ModelConfiguration.from_json(against.facts.spec), join_training_rows(data))
            return gate_step.compute_record_losses(past.settings.problem, model, data.columns, record), 1

        bench = gate_step.compute_reference_losses(past, challenger, against, record, refitted)
        verdict, fits = gate_step.make_verdict(past.settings, lap.depth, record, bench, challenger, against), bench.fits
        if not verdict.accepted:
            del past.models[number]
        elif past.settings.split.strategy == "time":  # only now: a rejected one never predicts
            past.models[number] = self._fit(data, ModelConfiguration.from_json(challenger.facts.spec), data.final)
            fits += 1
        return Judged(verdict, None if against is None else against.version, fits)

    def _fit(self, data: TrainingData, spec: ModelConfiguration, rows: pd.DataFrame) -> Any:
        return model_pipeline.fit_with_settings(data.task(self.past.settings), spec, rows)


def _nothing(*_: Any) -> None:
    """A step that has nothing to do in a simulated project."""


def _summary(_lap: LapContext, _data: TrainingData, found: model_search.SearchResult, *_: Any) -> dict[str, Any]:
    """The part of an outcome that replay does not use."""
    return {"candidates": [], "chosen": found.best.candidate, "test": None, "interval": [None, None], "fit": ""}


def _finish(lap: LapContext, outcome: LapOutcome) -> None:
    """The end of a decision for which there was nothing to learn."""
    if lap.decision is not None:
        text = f"no new rows: {outcome.reason}"
        decisions.finish_claimed_decision(lap.project.ledger, lap.lease, lap.id, "skipped", text)
