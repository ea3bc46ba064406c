"""What a lap tells MLflow, and what it tells its user at the end: the record of a verdict, in the ledger first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from windvane.flows.console import number
from windvane.flows.judging import Judged
from windvane.flows.lap import Lap
from windvane.flows.outcome import Candidate, Outcome, of_version
from windvane.flows.teaching import Lesson
from windvane.ledger import laps, versions
from windvane.ledger.failpoints import reached
from windvane.ledger.store import now
from windvane.ledger.versions import Judgement, Promotion, Version
from windvane.tasks import fingerprint, thresholds, versioning
from windvane.tasks.errors import WindvaneError
from windvane.tasks.evaluation import Evaluation, HeldOut
from windvane.tasks.places import DATA, HOME
from windvane.tasks.search import Found
from windvane.tasks.settings import PARAMS, raw


def begin(lap: Lap, lesson: Lesson) -> Lesson:
    """Open the lap's run in MLflow, with all that it starts from: params, data, code, environment. The lesson with that run."""
    project, tracker = lap.project, lap.project.tracker
    commit, dirty = _git(lap)
    tags = {
        "windvane.data_version": lesson.data_version,
        "windvane.fingerprint": lesson.mark,
        "windvane.depth": lap.depth,
        "windvane.code": fingerprint.code(),
        "mlflow.source.git.commit": commit,
        "windvane.git.dirty": dirty,
        "windvane.sampled": lesson.sampled or "",
        **_decided(lap),
    }
    if lesson.sampled:
        lap.console.say(f"  note: {lesson.sampled}")
    run = tracker.start(lap.cause, lap.id, {k: v for k, v in tags.items() if v})
    try:
        laps.note(project.ledger, lap.id, mlflow_run=run)
    except BaseException:  # whoever ends this lap would not know that there is a run to close
        tracker.abandon(lap.id)
        raise
    rows = {
        "rows_train": len(lesson.train),
        "rows_validation": len(lesson.validation),
        "columns": len(lesson.columns.names),
    }
    # Values as params.yaml has them: what ${NAME} brings from the environment is never logged.
    written = _flat(project.settings.model_dump()) | _flat(raw(project.root / PARAMS))
    tracker.log(run, params={**written, **rows, **_prefixed("library", fingerprint.libraries())})
    # MLflow copies a file with its mode, and this one is open to others.
    tracker.store(run, Path(shutil.copyfile(project.root / PARAMS, lesson.root / PARAMS)))
    for name in ("profile.json", "digest.json", "split/split.json"):
        tracker.store(run, lesson.root / DATA / name, "data")
    with versioning.pipeline(project.root) as stages:
        tracker.write(run, stages.lock_text(), versioning.LOCK)
    return replace(lesson, run_id=run)


def summary(lap: Lap, lesson: Lesson, found: Found, held: HeldOut, told: Evaluation, fits: int) -> dict[str, Any]:
    """Log what was found out, by how many fitted models; the part of it that every later command repeats."""
    tracker, run = lap.project.tracker, lesson.run
    metric = lap.project.settings.problem.headline
    figures: dict[str, float | None] = {f"test_{name}": score.value for name, score in told.scores.items()}
    for name, score in told.scores.items():
        figures |= {f"test_{name}_low": score.low, f"test_{name}_high": score.high}
    best, threshold = found.best, thresholds.of(held.model)
    chosen: dict[str, Any] = {"candidate": best.candidate, **{f"chosen.{k}": v for k, v in best.spec.params.items()}}
    if threshold is not None:
        chosen["chosen.threshold"] = threshold
    figures |= {f"validation_{name}": value for name, value in best.validation.items()}
    tracker.log(
        run,
        params=chosen,
        metrics={**figures, "fits": float(fits)},
        tags={"windvane.fit": told.diagnosis.name, "mlflow.note.content": _note(found, told, threshold)},
    )
    score = told.scores[metric]
    candidates = [
        asdict(Candidate(r.candidate, r.validation.get(metric), r.train.get(metric), len(r.trials)))
        for r in found.results
    ]
    return {
        "candidates": candidates,
        "chosen": best.candidate,
        "test": score.value,
        "interval": [score.low, score.high],
        "fit": f"{told.diagnosis.name}: {told.diagnosis.because}. {told.diagnosis.adjust}",
    }


def conclude(
    lap: Lap, challenger: Version, judged: Judged, move: Promotion | None, fits: int, steps: Mapping[str, float]
) -> Outcome:
    """Record the verdict, with it the promotion that follows, and the end of the decision that the lap carries out; what to say.

    move: the promotion; None: the challenger is refused, or serves already. fits: of models before the judgement, and steps:
    seconds by name, both for the outcome.
    """
    verdict, against = judged.verdict, judged.against
    project, engine = lap.project, lap.project.ledger
    nth = versions.times_judged(engine, project.name, challenger.version) + 1
    reason = verdict.reason + (f" (judgement {nth} of this version)" if nth > 1 else "")
    champion = versions.champion(engine, project.name)
    serves = champion is not None and champion.version == challenger.version
    if serves and not verdict.accepted:
        reason += f". Version {challenger.version} serves already and keeps serving; `windvane rollback` would put back version {against}"
    outcome = Outcome.from_json(
        {
            **of_version(challenger),
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
    judgement = Judgement(
        challenger.version, against, fingerprint.gate(project.settings), verdict.accepted, kept, now()
    )
    reached("judge: decided")
    versions.decide(engine, lap.lease, judgement, move, lap.id)
    reached("judge: in the ledger")
    return outcome


def close_run(lap: Lap, outcome: Outcome) -> None:
    """Close the challenger's run in MLflow with the verdict that the ledger has."""
    tracker = lap.project.tracker
    tags = {
        "windvane.verdict": outcome.verdict,
        "windvane.reason": outcome.reason,
        "windvane.version": str(outcome.version),
    }
    try:
        tracker.log(outcome.run_id, tags=tags)
        tracker.end(outcome.run_id)
    except WindvaneError as e:  # the ledger has the verdict
        lap.console.say(f"  note: the run in MLflow has no verdict: {e}")
    reached("judge: told")


def _decided(lap: Lap) -> dict[str, str]:
    """The decision that this lap carries out, for whoever finds its run."""
    one = lap.decision
    if one is None:
        return {}
    told = {"decision": one.id, "cause": one.reason, "remedy": one.remedy, "window": one.window}
    figures = {"gain_expected": one.gain, "cost": one.cost}
    told |= {name: f"{value:.3g}" for name, value in figures.items() if value is not None}
    return {f"windvane.{name}": value for name, value in told.items()}


def _note(found: Found, told: Evaluation, threshold: float | None) -> str:
    """The run's description, as MLflow shows it on top of its page."""
    best = found.best
    score = told.scores[told.metric]
    lines = [
        f"**{best.candidate}** of {len(found.results)} candidates: test {told.metric} {number(score.value)} "
        f"(95 % {number(score.low)} to {number(score.high)})",
        "",
        f"Fit: **{told.diagnosis.name}**. {told.diagnosis.because}. {told.diagnosis.adjust}",
        "",
        *(_called(found, threshold) if threshold is not None else ()),
        *(f"Note: {note}." for note in found.notes),
        "",
        "Compare the candidates: select this run's children and press Compare. Plots are under Artifacts, `evaluation/`.",
    ]
    return "\n".join(lines)


def _called(found: Found, threshold: float) -> tuple[str, ...]:
    return (
        f"Called positive from a probability of **{number(threshold)}** on, where {found.best.spec.balance.threshold} is best "
        "on folds of the rows that it was fitted on; a version refitted on newer rows has its own (`served.threshold`).",
    )


def _git(lap: Lap) -> tuple[str, str]:
    """The commit, and whether the tree was dirty; both empty without git. dvc.lock and the lap's own file do not count."""
    root = lap.project.root

    def ask(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return "", ""
    own = (":(exclude)dvc.lock", f":(exclude){HOME}")
    return commit, str(bool(ask("status", "--porcelain", "--", ".", *own))).lower()


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, as a person would say them."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _prefixed(prefix: str, values: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
