"""The record of a lap in MLflow and in the ledger: the run with what it starts from, the summary, the verdict and the promotion."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from windvane.flows.lap.context import LapContext
from windvane.flows.lap.gate_step import Judged
from windvane.flows.lap.model_steps import TrainingData
from windvane.ledger import laps, versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.versions import GateJudgement, Promotion, Version
from windvane.tasks.console import format_metric
from windvane.tasks.errors import WindvaneError
from windvane.tasks.evaluation.model_evaluation import HeldOutRecord, ModelEvaluation
from windvane.tasks.io import DATA_FOLDER, STATE_FOLDER
from windvane.tasks.lap_outcome import CandidateSummary, LapOutcome, describe_version_outcome
from windvane.tasks.models.problem_types import classification
from windvane.tasks.models.problem_types.definitions import ClassLabel
from windvane.tasks.search.model_search import SearchResult
from windvane.tasks.settings.problem_section import name_metric
from windvane.tasks.settings.project_params import PARAMS_FILE, read_params
from windvane.tasks.stores import dvc_pipeline, fingerprint
from windvane.tasks.stores.mlflow_client import describe_registered_version

# MLflow takes 250.
MAX_RUN_NAME_LETTERS = 200


def start_lap_run(lap: LapContext, data: TrainingData) -> TrainingData:
    """Open the lap's run in MLflow, with all that it starts from: params, data, code, environment. Returns the training data with it."""
    project, tracker = lap.project, lap.project.tracker
    commit, dirty = _read_git_state(lap)
    tags = {
        "windvane.data_version": data.data_version,
        "windvane.fingerprint": data.fingerprint,
        "windvane.depth": lap.depth,
        "windvane.code": fingerprint.hash_model_code(),
        "mlflow.source.git.commit": commit,
        "windvane.git.dirty": dirty,
        "windvane.sampled": data.sampled or "",
        "windvane.exploring": "true" if lap.exploring else "",
        **_make_decision_tags(lap),
    }
    if data.sampled:
        lap.console.print(f"  note: {data.sampled}")
    run = tracker.start(
        f"lap of {now_timestamp()[:16]}Z ({lap.cause})"[:MAX_RUN_NAME_LETTERS],
        lap.id,
        {k: v for k, v in tags.items() if v},
    )
    try:
        laps.record_lap_runs(project.ledger, lap.id, mlflow_run=run)
    except BaseException:  # the process that ends this lap would not know of a run to close
        tracker.abandon(lap.id)
        raise
    rows = {"rows_train": len(data.train), "rows_validation": len(data.validation)}
    rows["columns"] = len(data.columns.names)
    # Values as params.yaml has them: what ${NAME} brings from the environment is never logged.
    written = _flatten(project.settings.model_dump()) | _flatten(read_params(project.root / PARAMS_FILE))
    libraries = {f"library.{name}": version for name, version in fingerprint.list_model_libraries().items()}
    tracker.log(run, params={**written, **rows, **libraries})
    tracker.log_dataset(run, data.dataset(project.settings))
    tracker.choose_run_columns(f"test_{project.settings.problem.headline}")
    # MLflow copies a file with its mode, and this one is open to others.
    tracker.store(run, Path(shutil.copyfile(project.root / PARAMS_FILE, data.root / PARAMS_FILE)))
    for file, text in project.settings.own_sources.items():
        tracker.write(run, text, f"own_code/{file}")
    for name in ("profile.json", "digest.json", "split/split.json"):
        tracker.store(run, data.root / DATA_FOLDER / name, "data")
    with dvc_pipeline.open_dvc_pipeline(project.root) as stages:
        tracker.write(run, stages.lock_text(), dvc_pipeline.LOCK_FILE)
    return replace(data, run_id=run)


def log_lap_summary(
    lap: LapContext,
    data: TrainingData,
    found: SearchResult,
    held: HeldOutRecord,
    evaluation: ModelEvaluation,
    fits: int,
) -> dict[str, Any]:
    """Log what was found out, by how many fitted models; the part of it that every later command repeats."""
    tracker, run = lap.project.tracker, data.run
    metric = lap.project.settings.problem.headline
    figures: dict[str, float | None] = {f"test_{name}": score.value for name, score in evaluation.scores.items()}
    for name, score in evaluation.scores.items():
        figures |= {f"test_{name}_low": score.low, f"test_{name}_high": score.high}
    best, threshold = found.best, classification.get_threshold(held.model)
    chosen: dict[str, Any] = {"candidate": best.candidate, **{f"chosen.{k}": v for k, v in best.spec.params.items()}}
    if threshold is not None:
        chosen["chosen.threshold"] = threshold
    figures |= {f"validation_{name}": value for name, value in best.validation.items()}
    tracker.log(
        run,
        params=chosen,
        metrics={**figures, "fits": float(fits)},
        tags={
            "windvane.fit": evaluation.diagnosis.name,
            "mlflow.note.content": _format_run_note(found, evaluation, threshold, data.kind.positive),
            **({} if data.kind.positive is None else {"windvane.positive": str(data.kind.positive)}),
        },
    )
    score = evaluation.scores[metric]
    candidates = [
        asdict(CandidateSummary(r.candidate, r.validation.get(metric), r.train.get(metric), len(r.trials)))
        for r in found.results
    ]
    return {
        "candidates": candidates,
        "chosen": best.candidate,
        "test": score.value,
        "interval": [score.low, score.high],
        "search": found.ended if lap.depth == "search" else None,
        "goal": evaluation.compare_with_goal(lap.project.settings.problem.goal),
        "fit": f"{evaluation.diagnosis.name}: {evaluation.diagnosis.because}. {evaluation.diagnosis.adjust}",
    }


def record_lap_verdict(
    lap: LapContext, challenger: Version, judged: Judged, move: Promotion | None, fits: int, steps: Mapping[str, float]
) -> LapOutcome:
    """Record the verdict, with it the promotion that follows, and the end of the decision that the lap carries out; the message.

    move: the promotion; None: the challenger is refused, or serves already. fits: of models before the judgement, and steps:
    seconds by name, both for the outcome.
    """
    verdict, against = judged.verdict, judged.against
    project, engine = lap.project, lap.project.ledger
    nth = versions.count_judgements(engine, project.name, challenger.version) + 1
    reason = verdict.reason + (f" (judgement {nth} of this version)" if nth > 1 else "")
    champion = versions.find_champion(engine, project.name)
    serves = champion is not None and champion.version == challenger.version
    if serves and not verdict.accepted:
        reason += f". Version {challenger.version} serves already and keeps serving; `windvane rollback` would put back version {against}"
    outcome = LapOutcome.from_json(
        {
            **describe_version_outcome(challenger),
            "depth": lap.depth,
            "verdict": "promoted" if verdict.accepted else "refused",
            "reason": reason,
            "champion": challenger.version if move or serves else champion.version if champion else None,
            "judgement": nth,
            "fits": fits + judged.fits,
            "steps": dict(steps),
            "seconds": lap.seconds,
        }
    )
    kept = {"outcome": outcome.to_json(), **verdict.to_json()}
    gate = fingerprint.hash_gate_settings(project.settings)
    judgement = GateJudgement(challenger.version, against, gate, verdict.accepted, kept, now_timestamp())
    hit_failpoint("judge: decided")
    versions.record_judgement(engine, lap.lease, judgement, move, lap.id)
    hit_failpoint("judge: in the ledger")
    return outcome


def close_run(lap: LapContext, outcome: LapOutcome) -> None:
    """Close the challenger's run in MLflow with the verdict that the ledger has."""
    tracker = lap.project.tracker
    tags = {"verdict": outcome.verdict, "reason": outcome.reason, "version": str(outcome.version)}
    try:
        logged = {f"windvane.{name}": value for name, value in tags.items()}
        cause = laps.read_lap_causes(lap.project.ledger, lap.project.name).get(outcome.run_id, lap.cause)
        logged["mlflow.runName"] = f"version {outcome.version}: {outcome.chosen}, {outcome.verdict} ({cause})"[
            :MAX_RUN_NAME_LETTERS
        ]
        tracker.log(outcome.run_id, tags=logged)
        tracker.end(outcome.run_id)
        describe_registered_version(tracker, outcome.version, _format_version_description(outcome))
    except WindvaneError as e:  # the ledger has the verdict
        lap.console.print(f"  note: the run in MLflow has no verdict: {e}")
    hit_failpoint("judge: told")


def _format_version_description(outcome: LapOutcome) -> str:
    """A registered version's description in MLflow: the verdict with its reason, and how good the version is."""
    low, high = outcome.interval
    score = f"{format_metric(outcome.test)} (95 % {format_metric(low)} to {format_metric(high)})"
    return (
        f"**{outcome.verdict}**: {outcome.reason}\n\n{outcome.chosen}: test {outcome.metric} {score}, "
        f"data version {outcome.data_version}"
    )


def _make_decision_tags(lap: LapContext) -> dict[str, str]:
    """The decision that this lap carries out, for anyone who finds its run."""
    one = lap.decision
    if one is None:
        return {}
    tags = {"decision": one.id, "cause": one.reason, "remedy": one.remedy, "window": one.window}
    figures = {"gain_expected": one.gain, "cost": one.cost}
    tags |= {name: f"{value:.3g}" for name, value in figures.items() if value is not None}
    return {f"windvane.{name}": value for name, value in tags.items()}


def _format_run_note(
    found: SearchResult, evaluation: ModelEvaluation, threshold: float | None, positive: ClassLabel | None
) -> str:
    """The run's description, as MLflow shows it on top of its page."""
    best = found.best
    score, metric = evaluation.scores[evaluation.metric], name_metric(evaluation.metric, positive)
    threshold_note = []
    if threshold is not None:
        threshold_note.append(
            f"Called {positive!r} from a probability of **{format_metric(threshold)}** on, where {best.spec.balance.threshold} is best "
            "on folds of the rows that it was fitted on; a version refitted on newer rows has its own (`served.threshold`)."
        )
    lines = [
        f"**{best.candidate}** of {len(found.results)} candidates: test {metric} {format_metric(score.value)} "
        f"(95 % {format_metric(score.low)} to {format_metric(score.high)})",
        "",
        f"Fit: **{evaluation.diagnosis.name}**. {evaluation.diagnosis.because}. {evaluation.diagnosis.adjust}",
        "",
        *threshold_note,
        *(f"Note: {note}." for note in found.notes),
        "",
        "Compare the candidates: select this run's children and press Compare. Plots are under Artifacts, `evaluation/`.",
    ]
    return "\n".join(lines)


def _read_git_state(lap: LapContext) -> tuple[str, str]:
    """The commit, and whether the tree was dirty; both empty without git. dvc.lock and the lap's own file do not count."""
    root = lap.project.root

    def read_git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = read_git("rev-parse", "HEAD")
    if not commit:
        return "", ""
    own = (":(exclude)dvc.lock", f":(exclude){STATE_FOLDER}")
    return commit, str(bool(read_git("status", "--porcelain", "--", ".", *own))).lower()


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, as a person would write them."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
