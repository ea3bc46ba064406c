"""A simulated project and its laps: what was known at a moment of the table's history, with a ledger that is deleted
afterwards. A simulated lap uses the rows, fits and gate of a real one, without DVC, MLflow or Prefect.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa

from windvane.flows.lap import gate_step
from windvane.flows.lap.context import LapDepth
from windvane.flows.lap.model_steps import JUDGED_BEFORE_COLUMN, choose_refit_spec, count_cores
from windvane.ledger import database, decisions, versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.laps import Lease
from windvane.ledger.versions import GateJudgement, Promotion, Version
from windvane.monitoring.history.arrivals import RowArrivals
from windvane.monitoring.history.replay_report import LapEnding
from windvane.monitoring.watch.production import Production, WindowCount, hash_window_state
from windvane.monitoring.watch.windows import WindowSpan
from windvane.tasks import io
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import model_evaluation
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.ingest import ingestion
from windvane.tasks.io import ROW_KEY
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.project import Project
from windvane.tasks.search import model_search
from windvane.tasks.sources import fetch
from windvane.tasks.split import data_split as splitting
from windvane.tasks.split import strategies, time_windows
from windvane.tasks.split import strategies as parting
from windvane.tasks.validate import table_profile

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.evaluation.model_evaluation import HeldOutRecord
    from windvane.tasks.gate.promotion_gate import GateVerdict
    from windvane.tasks.models.features import FeatureColumns
    from windvane.tasks.models.problem_types.definitions import ProblemType
    from windvane.tasks.settings.project_params import Settings


class SimulatedProject(Project):
    """A project whose present is `now`, which whoever plays moves on. Its models and records live in memory."""

    def __init__(self, project: Project, settings: Settings, stream: RowArrivals, folder: Path) -> None:
        super().__init__(project.root, settings)
        self.home, self.stream, self.now = folder, stream, stream.times[0]
        self.models: dict[int, Any] = {}
        self.records: dict[int, pd.DataFrame] = {}
        self.judged: Counter[int] = Counter()
        self._answered: dict[tuple[int, str, str], pd.DataFrame] = {}
        self._references: dict[int, tuple[pd.DataFrame, pd.DataFrame | None]] = {}

    @cached_property
    def ledger(self) -> sa.Engine:
        """A ledger like any other, but for one thing: whatever becomes of it, nobody waits for the disk."""
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
        champion, promotion = (
            versions.find_champion(self.ledger, self.name),
            versions.find_last_promotion(self.ledger, self.name),
        )
        assert champion is not None
        assert promotion is not None
        return champion, promotion

    def answered(self, version: Version, place: WindowSpan) -> pd.DataFrame:
        """A window's rows with what a version says of them, and with their labels, whenever these come."""
        from windvane.monitoring import window_frames
        from windvane.tasks.models.problem_types import definitions

        key = (version.version, place.start, place.end)
        if key not in self._answered:
            rows, kind = (
                self.stream.rows.iloc[self.stream.between(place.start, place.end)],
                definitions.load_problem_type(self.settings.problem.kind),
            )
            record, columns = self.reference(version)[0], window_frames.read_version_columns(version.facts, ())
            self._answered[key] = window_frames.build_source_frame(rows, columns, record, kind, self.model(version))
        return self._answered[key]

    def loss(self, version: Version, place: WindowSpan) -> float:
        """A version's mean loss on a window's labelled rows; NaN without any."""
        from windvane.monitoring import window_frames
        from windvane.tasks.models.problem_types import definitions

        problem, frame = self.settings.problem, self.answered(version, place)
        frame = frame[window_frames.mask_labelled(frame, problem.target)]
        if not len(frame):
            return float("nan")
        return float(
            window_frames.compute_frame_losses(
                frame, self.record(version), definitions.load_problem_type(problem.kind), problem
            ).mean()
        )

    def reference(self, version: Version) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """A version's record as looks want it, and the rows from before it."""
        from windvane.monitoring import window_frames

        if version.version not in self._references:
            columns, time = window_frames.read_version_columns(version.facts, ()), str(self.settings.problem.time)
            record = window_frames.read_like_record(self.record(version), columns)
            rows = self.stream.rows
            before = window_frames.read_like_record(rows[rows[time] < record[time].min()], columns)
            self._references[version.version] = record, before
        return self._references[version.version]


class SimulatedProduction(Production):
    """What production looks like at the rehearsal's present. Windows are looked at once they are over: of the looks at an open
    one, which production has spent half of its false alarms on by then, none is played.
    """

    looked = 1

    def __init__(self, past: SimulatedProject, console: Console) -> None:
        self._past = past
        super().__init__(past, *past.champion(), "events", console)

    @cached_property
    def now(self) -> str:
        """The rehearsal's present."""
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
        at, (_, known) = self._past.stream.between(place.start, place.end), self._past.stream.known_at(self.now)
        truth = self._past.stream.rows[self.project.settings.problem.target].iloc[
            at.start : min(at.stop, max(known, at.start))
        ]
        rows, labelled = at.stop - at.start, int(truth.notna().sum())
        return WindowCount(place, "source", rows, labelled, hash_window_state(place, "source", rows, labelled))

    def frame(self, count: WindowCount) -> pd.DataFrame:
        """A window's rows with the champion's answers, and the labels that have come."""
        import numpy as np

        frame, problem = self._past.answered(self.champion, count.place), self.project.settings.problem
        start = self._past.stream.between(count.place.start, count.place.end).start
        come = np.arange(start, start + len(frame)) < self._past.stream.known_at(self.now)[1]
        if come.all():
            return frame
        truth = frame[problem.target] if problem.kind == "regression" else frame[problem.target].astype(object)
        return frame.assign(**{problem.target: truth.where(come)})

    def learnable(self) -> pd.DataFrame:
        """The rows whose labels have come."""
        return self._past.learned()[1]

    @cached_property
    def record(self) -> pd.DataFrame:
        """The champion's held-out rows with its predictions."""
        return self._past.reference(self.champion)[0]

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """Rows from before the record."""
        return self._past.reference(self.champion)[1]


def read_history_table(project: Project) -> pd.DataFrame:
    """The rows of data.source, as a lap reads them."""
    fetch.fetch_source(project.root, project.settings.data, project.settings.problem.id)
    with ingestion.open_scratch_folder(project.root) as folder:
        ingestion.write_table(project.root, project.settings, folder / "table.parquet", folder)
        return io.read_parquet(folder / "table.parquet")


@dataclass(frozen=True)
class SimulatedLapResult:
    """What a lap came to, why, how many models were fitted, and by which share its model was better where it was judged."""

    ending: LapEnding
    reason: str
    fits: int = 0
    better: float | None = None


@dataclass(frozen=True)
class SimulatedSplit:
    """Rows that teach, tune and judge, and all that teach in the end."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    final: pd.DataFrame


def run_simulated_lap(
    past: SimulatedProject, lease: Lease, owed: DecisionRecord | None, depth: LapDepth, first: ModelConfiguration
) -> SimulatedLapResult:
    """Teach on what is known at the rehearsal's present, judge, and promote or refuse. `owed`: what it carries out; None: the
    first lap of all, whose configuration is `first` unless it searches.
    """
    engine, id_ = past.ledger, uuid4().hex
    if owed is not None:
        decisions.record_announcement(engine, owed.id)
        claimed = decisions.claim_decision(engine, lease, owed.id, id_)
        assert claimed is not None
    champion = versions.find_champion(engine, past.name)
    try:
        come, rows = past.learned()
        if champion is not None and _has_no_new_rows(rows, champion, past):
            said = f"no new rows since version {champion.version} was taught"
            decisions.finish_claimed_decision(engine, lease, id_, "skipped", f"no new rows: {said}")
            return SimulatedLapResult("skipped", said)
        taught = _SimulatedTraining(past, come, rows, _split_rows(past, rows, champion))
        spec, fits = first if champion is None else taught.again(champion, owed), 1
        if depth == "search":
            found = taught.search(past.home / f"{id_}.log")
            spec, fits = found.best.spec, found.fits + 1
        challenger, held = _evaluate_challenger(taught, spec)
        versions.record_version(engine, lease, challenger)
        verdict = _judge_challenger(taught, challenger, champion, depth)
        if verdict.accepted:  # only now is the model fitted that will serve: of the others nobody would ever ask
            refits = past.settings.split.strategy == "time"
            past.models[challenger.version] = taught.fit(spec, taught.sides.final) if refits else held.model
            fits += refits
        _record_verdict(past, lease, id_, challenger, verdict, champion)
    except InputError as e:  # as in a real lap: what was decided ends here
        decisions.finish_claimed_decision(engine, lease, id_, "skipped", f"the lap stopped: {e}")
        if champion is None:
            raise
        return SimulatedLapResult("skipped", f"the lap stopped: {e}")
    better = None if verdict.too_few or not verdict.reference else (verdict.difference or 0.0) / verdict.reference
    return SimulatedLapResult("promoted" if verdict.accepted else "refused", verdict.reason, fits, better)


@dataclass(frozen=True)
class _SimulatedTraining:
    """What a challenger is taught from: all rows that have come, those with a label, and their sides."""

    past: SimulatedProject
    come: pd.DataFrame
    rows: pd.DataFrame
    sides: SimulatedSplit

    @cached_property
    def kind(self) -> ProblemType:
        return definitions.load_problem_type(self.past.settings.problem.kind)

    @cached_property
    def columns(self) -> FeatureColumns:
        return features.select_feature_columns(self.past.settings, table_profile.profile_table(self.come))

    def fit(self, spec: ModelConfiguration, taught: pd.DataFrame) -> Any:
        return model_pipeline.fit_with_settings(
            self.past.settings, spec, self.kind, self.columns, taught, count_cores()
        )

    def again(self, champion: Version, owed: DecisionRecord | None) -> ModelConfiguration:
        """The champion's configuration, as a real lap refits it."""
        spec, labels = (
            ModelConfiguration.from_json(champion.facts["spec"]),
            owed is not None and owed.remedy == "labels",
        )
        rows = _join_rows(self.sides.train, self.sides.validation)
        return choose_refit_spec(self.past.settings, self.kind, rows, spec, labels=labels)[0]

    def search(self, journal: Path) -> model_search.SearchResult:
        train, validation = self.sides.train, self.sides.validation
        return model_search.search_models(
            self.past.settings,
            self.kind,
            self.columns,
            train,
            validation,
            journal,
            count_cores(),
            lambda progress: None,
        )


def _has_no_new_rows(rows: pd.DataFrame, champion: Version, past: SimulatedProject) -> bool:
    until = str(champion.facts["taught_until"])
    return len(rows) <= champion.facts["rows"] and str(splitting.find_trained_until(rows, past.settings)) <= until


def _split_rows(past: SimulatedProject, rows: pd.DataFrame, champion: Version | None) -> SimulatedSplit:
    """The sides that a lap would cut, large ones sampled as it samples them."""
    settings, rows = past.settings, rows.reset_index(drop=True)
    parted = parting.split_rows(rows, settings, champion.facts["taught_until"] if champion else None)

    def taken(side: pd.DataFrame, judging: bool) -> pd.DataFrame:
        import polars as pl

        most, side = strategies.choose_row_limit(settings, judging=judging), side.reset_index(drop=True)
        if most is None or len(side) <= most:
            return side
        known = pl.from_pandas(side[strategies.list_sampling_columns(settings)])
        return side.iloc[strategies.pick_rows(known, settings, most, newest=not judging)].reset_index(drop=True)

    train = time_windows.select_recent_rows(taken(rows[parted.train], False), settings)
    validation, test = taken(rows[parted.validation], True), taken(rows[parted.test], True)
    if settings.split.strategy == "time":
        return SimulatedSplit(train, validation, test, time_windows.select_recent_rows(taken(rows, False), settings))
    return SimulatedSplit(train, validation, test, _join_rows(train, validation))


def _join_rows(train: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """What the evaluated model is fitted on."""
    import pandas as pd

    return pd.concat([train, validation], ignore_index=True) if len(validation) else train


def _evaluate_challenger(taught: _SimulatedTraining, spec: ModelConfiguration) -> tuple[Version, HeldOutRecord]:
    """A challenger with its held-out record, not yet in the ledger."""
    past, sides = taught.past, taught.sides
    held = model_evaluation.predict_held_out(
        past.settings,
        taught.kind,
        taught.columns,
        spec,
        sides.train,
        sides.validation,
        lambda: sides.test,
        count_cores(),
    )
    keys = held.record[ROW_KEY].tolist()
    held.record.insert(0, JUDGED_BEFORE_COLUMN, [past.judged[row] for row in keys])
    past.judged.update(keys)
    number = len(past.records) + 1
    past.records[number] = held.record
    until = splitting.find_trained_until(sides.final, past.settings)
    return _make_version(past, number, spec, taught.columns, taught.rows, until), held


def _judge_challenger(
    taught: _SimulatedTraining, challenger: Version, champion: Version | None, depth: LapDepth
) -> GateVerdict:
    """The gate's word, on the evidence of a real lap."""
    past = taught.past
    record = past.record(challenger)

    def refitted() -> NDArray[np.float64]:
        assert champion is not None
        if champion.facts["spec"] == challenger.facts["spec"]:
            return record[LOSS_COLUMN].to_numpy(dtype="float64")
        rows = _join_rows(taught.sides.train, taught.sides.validation)
        model = taught.fit(ModelConfiguration.from_json(champion.facts["spec"]), rows)
        return gate_step.compute_record_losses(past.settings.problem, model, taught.columns, record)

    bench = gate_step.compute_reference_losses(past, challenger, champion, record, refitted)
    return gate_step.make_verdict(past.settings, depth, record, bench, challenger, champion)


def _record_verdict(
    past: SimulatedProject, lease: Lease, id_: str, challenger: Version, verdict: GateVerdict, champion: Version | None
) -> None:
    """Into the ledger: the verdict, the promotion that follows, and the end of the decision."""
    against = None if champion is None else champion.version
    judgement = GateJudgement(
        challenger.version, against, "rehearsal", verdict.accepted, verdict.to_json(), now_timestamp()
    )
    move = versions.make_promotion(against, challenger.version, "lap", verdict.reason) if verdict.accepted else None
    versions.record_judgement(past.ledger, lease, judgement, move, id_)


def _make_version(
    past: SimulatedProject,
    number: int,
    spec: ModelConfiguration,
    columns: FeatureColumns,
    rows: pd.DataFrame,
    until: parting.TimeValue,
) -> Version:
    settings = past.settings
    facts = {
        "spec": spec.to_json(),
        "columns": asdict(columns),
        "taught_until": until,
        "sides": {**settings.split.model_dump(exclude={"folds"}), "group": settings.problem.group, "key": []},
        "kind": settings.problem.kind,
        "rows": len(rows),
    }
    mark = f"rehearsal-{number}"
    return Version(number, mark, mark, "", "", "", mark, None if until is None else str(until), facts, now_timestamp())
