"""The gate step of a lap: compares a challenger with the champion on rows that neither was fitted or tuned on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.flows.lap.context import LapContext
from windvane.flows.lap.model_steps import JUDGED_BEFORE_COLUMN, join_training_rows, load_training_data
from windvane.ledger import versions
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.versions import Version
from windvane.monitoring.records import LapDepth
from windvane.tasks.errors import WindvaneError
from windvane.tasks.evaluation import out_of_fold
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, FOLD_COLUMN, LOSS_COLUMN
from windvane.tasks.gate import promotion_gate
from windvane.tasks.gate.promotion_gate import GateEvidence, GateVerdict
from windvane.tasks.ingest.table_io import ROW_KEY, read_parquet, write_parquet
from windvane.tasks.models import features, model_pipeline, own_code, own_metrics
from windvane.tasks.models.model_pipeline import ModelTask
from windvane.tasks.models.problem_types.definitions import OwnCode
from windvane.tasks.models.row_weights import read_row_weights
from windvane.tasks.process_environment import count_cores
from windvane.tasks.project import Project
from windvane.tasks.settings.problem_section import ProblemSettings
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import data_split
from windvane.tasks.stores import model_files


@dataclass(frozen=True)
class Judged:
    """The gate's verdict, the version that the challenger was compared with (None: the baseline), and fits for the comparison."""

    verdict: GateVerdict
    against: int | None
    fits: int = 0


@dataclass(frozen=True)
class ReferenceLosses:
    """The losses to compare with: per record row (n,), on which rows they count, and how they came about."""

    loss: NDArray[np.float64]
    common: NDArray[np.bool_]
    how: str
    # Models fitted for it now.
    fits: int = 0


def run_judge_step(lap: LapContext, challenger: Version) -> Judged:
    """The gate's verdict on a registered version."""
    lap.console.working("judge")
    hit_failpoint("judge: begin")
    try:
        record = lap.project.record(challenger)
    except FileNotFoundError as e:
        raise WindvaneError(
            f"version {challenger.version} cannot be judged: its held-out predictions are gone ({e}). Restore them from a backup"
        ) from None
    against = find_opponent(lap, challenger)
    bench = _read_reference_losses(lap, challenger, against, record)
    if bench is None:

        def refit() -> tuple[NDArray[np.float64], int]:
            assert against is not None
            return _compute_refit_losses(lap, challenger, against, record)

        bench = compute_reference_losses(lap.project, challenger, against, record, refit)
    hit_failpoint("judge: compared")
    _store_reference_losses(lap, challenger, against, record, bench)
    hit_failpoint("judge: remembered")
    result = make_verdict(lap.project.settings, lap.depth, record, bench, challenger, against)
    return Judged(result, against.version if against else None, bench.fits)


def make_verdict(
    settings: Settings,
    depth: LapDepth,
    record: pd.DataFrame,
    bench: ReferenceLosses,
    challenger: Version,
    against: Version | None,
) -> GateVerdict:
    """The gate's verdict on a challenger's record (n rows) beside a bench."""
    rows, problem = record[bench.common], settings.problem
    evidence = GateEvidence(
        challenger=rows[LOSS_COLUMN].to_numpy(dtype="float64"),
        reference=bench.loss[bench.common],
        keys=rows[ROW_KEY].to_numpy(dtype="int64"),
        time=rows[problem.time].to_numpy() if problem.time else None,
        group=rows[problem.group].to_numpy() if problem.group else None,
        fold=rows[FOLD_COLUMN].to_numpy() if FOLD_COLUMN in rows else None,
        slices={name: rows[name].to_numpy() for name in settings.gate.slices},
        loss=own_metrics.load_measured_problem_type(problem, None).loss_name(problem.headline),
        champion=against is not None,
        weights=read_row_weights(rows, problem.weight),
    )
    rule = promotion_gate.resolve_gate_rule(settings.gate.rule, depth)
    result = promotion_gate.judge_challenger(evidence, rule, settings.gate.confidence, settings.gate.margin)
    return replace(result, reason="; ".join([result.reason, *_describe_comparison(bench, rows, challenger, against)]))


def find_opponent(lap: LapContext, challenger: Version) -> Version | None:
    """Whom the challenger must beat: the champion; if it serves itself, the one that it took over from."""
    engine, name = lap.project.ledger, lap.project.name
    champion = versions.find_champion(engine, name)
    if champion is None or champion.version != challenger.version:
        return champion
    earlier = versions.find_previous_champion(engine, name, challenger.version)
    return None if earlier is None else versions.find_version(engine, name, earlier)


def compute_reference_losses(
    project: Project,
    challenger: Version,
    against: Version | None,
    record: pd.DataFrame,
    refitted: Callable[[], tuple[NDArray[np.float64], int]],
) -> ReferenceLosses:
    """The losses of whom the challenger is compared with; `refitted`: those of its configuration on the challenger's rows, and
    how many models were fitted for them.
    """
    all_rows = np.ones(len(record), dtype=bool)
    if against is None:
        return ReferenceLosses(record[BASELINE_LOSS_COLUMN].to_numpy(dtype="float64"), all_rows, "")
    problem = project.settings.problem
    common = _find_unseen_rows(challenger, against, record, problem.time)
    learned = features.FeatureColumns(**{k: tuple(v) for k, v in against.facts.columns.items()})
    if int(common.sum()) >= promotion_gate.MIN_JUDGED_ROWS and set(learned.names) <= set(record.columns):
        loss = compute_record_losses(problem, project.model(against), learned, record)
        return ReferenceLosses(loss, common, "rows new to both")
    loss, fits = refitted()
    how = "both configurations refitted on the same rows, too few being new to both"
    return ReferenceLosses(loss, all_rows, how, fits)


def _find_unseen_rows(
    challenger: Version, champion: Version, record: pd.DataFrame, time: str | None
) -> NDArray[np.bool_]:
    """Which record rows the champion was neither fitted nor tuned on. In doubt: none."""
    mine, theirs = challenger.facts.sides, champion.facts.sides
    until = champion.facts.taught_until
    if theirs["strategy"] != "time" and mine == theirs:
        # Sticky sides: a test row was a test row then. What judges out of fold trained the champion.
        tested = record[FOLD_COLUMN] == 0 if FOLD_COLUMN in record else np.ones(len(record), dtype=bool)
        return np.asarray(tested, dtype=bool)
    if time is None or until is None or champion.facts.sides["strategy"] != "time":
        return np.zeros(len(record), dtype=bool)
    limit = pd.Timestamp(until) if isinstance(until, str) else until
    return (record[time] > limit).to_numpy(dtype=bool)


def compute_record_losses(
    problem: ProblemSettings, model: Any, columns: features.FeatureColumns, rows: pd.DataFrame
) -> NDArray[np.float64]:
    """A model's loss (n,) on held-out rows."""
    kind = own_metrics.load_measured_problem_type(problem, problem.positive)
    predictions = kind.predict(model, features.conform_frame(rows, columns, "the held-out rows"))
    return kind.loss(kind.truth(rows[problem.target]), predictions, problem.headline)


def _compute_refit_losses(
    lap: LapContext, challenger: Version, champion: Version, record: pd.DataFrame
) -> tuple[NDArray[np.float64], int]:
    """The champion's configuration and history, fitted on the rows that the challenger's evaluation had before it."""
    settings = lap.project.settings
    history = champion.facts.history or settings.retrain.history  # versions before this fact: as now
    own = _read_model_code(lap.project, champion)
    same = champion.facts.spec == challenger.facts.spec and own == _read_model_code(lap.project, challenger)
    if same and history == settings.retrain.history:
        # The same configuration on the same rows is the same model.
        return record[LOSS_COLUMN].to_numpy(dtype="float64"), 0
    training = load_training_data(lap, challenger.data_version, challenger.fingerprint)
    theirs = settings.model_copy(update={"retrain": settings.retrain.model_copy(update={"history": history})})
    train, validation = data_split.read_training_rows(training.root, theirs)
    rows = join_training_rows(replace(training, train=train, validation=validation))
    spec = model_pipeline.ModelConfiguration.from_json(champion.facts.spec)
    kind = training.kind
    kind = own_code.use_stored_model_code(kind, own)  # its file may have changed since
    task, loss, fits = ModelTask(theirs, kind, training.columns, count_cores()), np.zeros(len(record)), 0
    whole = np.ones(len(record), dtype=bool)
    for judged, known in out_of_fold.split_record(record) if FOLD_COLUMN in record else [(whole, rows)]:
        model = model_pipeline.fit_with_settings(task, spec, known)
        loss[judged] = compute_record_losses(settings.problem, model, training.columns, record[judged])
        fits += 1
    return loss, fits


def _read_model_code(project: Project, version: Version) -> tuple[OwnCode, ...]:
    """The user's own code that a version was stored with and that shapes its model."""
    stored = model_files.read_stored_code(project.stored(version), version.manifest_sha256)
    return tuple(code for code in stored if code.role in ("candidate", "features"))


def _describe_comparison(
    bench: ReferenceLosses, rows: pd.DataFrame, challenger: Version, against: Version | None
) -> list[str]:
    """Which rows judged, for the sentence of the verdict."""
    again = int((rows[JUDGED_BEFORE_COLUMN] > 0).sum())
    result = [f"compared with version {against.version} on {bench.how}"] if against else []
    result += [folds] if (folds := out_of_fold.describe_folds(rows)) is not None else []
    if (newest := challenger.facts.spec.get("balance", {}).get("newest")) is not None:
        result.append(f"its classes are weighted as frequent as in the newest window of labels ({newest})")
    return result + ([f"{again:,} of the rows judged earlier laps too"] if again else [])


def _name_judgement_file(against: Version | None) -> str:
    return f"judgement-against-{against.version if against else 'baseline'}.parquet"


def _store_reference_losses(
    lap: LapContext, challenger: Version, against: Version | None, record: pd.DataFrame, bench: ReferenceLosses
) -> None:
    """Keep the paired losses with the challenger's run: another gate judges them again without refitting."""
    kept = record[[ROW_KEY, LOSS_COLUMN, JUDGED_BEFORE_COLUMN]].assign(
        _reference_loss=bench.loss, _common=bench.common, _how=bench.how
    )
    path = lap.folder(challenger.fingerprint) / _name_judgement_file(against)
    write_parquet(kept, path)
    lap.project.tracker.store(challenger.run_id, path)


def _read_reference_losses(
    lap: LapContext, challenger: Version, against: Version | None, record: pd.DataFrame
) -> ReferenceLosses | None:
    """The paired losses of an earlier judgement against the same champion, or None."""
    name = _name_judgement_file(against)
    if not lap.project.tracker.holds(challenger.run_id, name):
        return None
    kept = read_parquet(lap.project.artifact(challenger, name))
    if not kept[ROW_KEY].equals(record[ROW_KEY]):
        return None
    common = kept["_common"].to_numpy(dtype=bool)
    return ReferenceLosses(kept["_reference_loss"].to_numpy(), common, str(kept["_how"].iloc[0]))
