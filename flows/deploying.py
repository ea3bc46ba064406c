"""Registering a challenger, and letting a version serve: in the ledger first, then in MLflow's aliases."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from windvane.flows.project import Project
from windvane.ledger import openings, versions
from windvane.ledger.store import now
from windvane.ledger.versions import Promotion, Version
from windvane.tasks import artifacts, registry
from windvane.tasks.errors import Corrupted, InputError, WindvaneError
from windvane.tasks.smoke import Tester
from windvane.tasks.tables import read_json, write_json

if TYPE_CHECKING:
    from windvane.flows.lap import Lap
    from windvane.flows.teaching import Built, Lesson
    from windvane.tasks.estimators import Spec

# The version's row for the ledger, stored with its run before it is registered: a kill in between loses nothing.
FACTS = "version.json"


def register(lap: Lap, lesson: Lesson, built: Built, spec: Spec, summary: dict[str, Any]) -> Version:
    """Store the model in MLflow and register it as challenger, once per fingerprint."""
    tracker, settings, run = lap.project.tracker, lap.project.settings, lap.run_id
    assert run is not None
    opening = openings.find(lap.project.ledger, lap.project.name, lesson.mark)
    assert opening is not None
    assert opening.record_sha256 is not None
    source = tracker.address(run, "model")
    version = Version(
        version=0,
        fingerprint=lesson.mark,
        run_id=run,
        model_uri=lap.project.relative(source),
        manifest_sha256=built.manifest_sha256,
        record_sha256=opening.record_sha256,
        data_version=lesson.data_version,
        taught_until=None if built.taught_until is None else str(built.taught_until),
        facts={
            "spec": spec.to_json(),
            "history": settings.retrain.history,
            "columns": asdict(lesson.columns),
            "taught_until": built.taught_until,
            "sides": sides(lap, lesson),
            "metric": settings.problem.headline,
            "kind": settings.problem.kind,
            "target": settings.problem.target,
            "id": settings.problem.id,
            "time": settings.problem.time,
            "summary": summary,
            "bulk": built.bulk,
            # The run keeps what its table looked like: the next one is compared with it.
            "digest": True,
        },
        registered=now(),
    )
    tracker.store(run, built.folder, "model")
    tracker.store(run, lesson.root / "record.parquet")
    write_json(asdict(version), lesson.root / FACTS)
    tracker.store(run, lesson.root / FACTS)
    number = registry.register(tracker, run, source, lesson.mark, built.manifest_sha256)
    return _recorded(lap, replace(version, version=number))


def adopted(lap: Lap, mark: str) -> Version | None:
    """A version that was registered by a lap that was killed before it could tell the ledger; else None."""
    found = registry.find(lap.project.tracker, mark)
    if found is None:
        return None
    address = lap.project.tracker.address(str(found.run_id), FACTS)
    content = read_json(lap.project.fetch(lap.project.relative(address)))
    return _recorded(lap, Version(**{**content, "version": int(found.version)}))


def deleted(version: Version) -> InputError:
    """What is said of a lap that comes to a version whose model files are gone."""
    moment = "" if version.collected is None else version.collected[:10]
    return InputError(
        f"data, params and code are those of version {version.version}, whose model files were deleted on {moment}, as "
        "retention.versions asks. Change split.seed to train a new version from them"
    )


def _recorded(lap: Lap, version: Version) -> Version:
    versions.add(lap.project.ledger, lap.lease, version)
    registry.point(lap.project.tracker, registry.CHALLENGER, version.version)
    return version


def sides(lap: Lap, lesson: Lesson) -> dict[str, Any]:
    """What decides on which side a row stands: two versions with equal sides never taught each other's test rows."""
    from windvane.tasks.profile import PROFILE, read

    split, problem = lap.project.settings.split, lap.project.settings.problem
    key = read(lesson.root / PROFILE).key
    return {**split.model_dump(exclude={"folds"}), "group": problem.group, "key": list(key)}


def promote(lap: Lap, move: Promotion) -> None:
    """The last step of a lap whose challenger was accepted."""
    tell(lap.project, move)


def tell(project: Project, move: Promotion) -> None:
    """Tell MLflow what the ledger has recorded: `champion` points to the version that serves."""
    tracker = project.tracker
    registry.point(tracker, registry.CHAMPION, move.to_version)
    if registry.alias(tracker, registry.CHALLENGER) == move.to_version:
        registry.point(tracker, registry.CHALLENGER, None)
    versions.told(project.ledger, project.name, move)


def tell_last(project: Project) -> None:
    """Tell MLflow of the newest promotion, and of any that comes meanwhile: two that tell at once end with the newer one."""
    told: str | None = None
    while (last := versions.last_promotion(project.ledger, project.name)) is not None and last.promoted != told:
        tell(project, last)
        told = last.promoted


def by_hand(project: Project, number: int, cause: str, reason: str | None = None) -> Promotion:
    """Make a version champion because a person (or, with a `reason`, the watch) says so; bytes and answers are checked first."""
    version = versions.numbered(project.ledger, project.name, number)
    if version is None:
        raise InputError(
            f"version {number} of {project.name} was never registered. `windvane versions` lists those there are"
        )
    if version.collected is not None:
        raise InputError(
            f"version {number} of {project.name} cannot serve: its model files were deleted on {version.collected[:10]}, as "
            "retention.versions asks. Promote one whose files `windvane versions` lists as kept, or run `windvane train`"
        )
    last = versions.last_promotion(project.ledger, project.name)
    serving = None if last is None else last.to_version
    if serving == number:
        raise InputError(f"version {number} of {project.name} serves already. Nothing was changed")
    with closing(Tester()) as tester:
        tester.test(project.fetch(version.model_uri), version.manifest_sha256)
    move = versions.promotion(serving, number, cause, reason or f"{cause} by a person")
    versions.promote(project.ledger, project.name, move)
    tell(project, move)
    return move


def reconcile(project: Project) -> str | None:
    """Bring MLflow's alias and the ledger together; what was done, in words, or None.

    An alias that lags behind is repaired. One that somebody moved in the UI is adopted as a manual promotion, if the
    version's bytes are those that the ledger recorded; otherwise it is put back.
    """
    last = versions.last_promotion(project.ledger, project.name)
    if last is None:
        return None
    pointed = registry.alias(project.tracker, registry.CHAMPION)
    if pointed == last.to_version:
        if not last.told:
            tell(project, last)
        return None
    moved = versions.numbered(project.ledger, project.name, pointed) if pointed is not None and last.told else None
    if moved is not None:
        try:
            artifacts.verify(project.fetch(moved.model_uri), moved.manifest_sha256)
        except Corrupted as e:
            moved, refusal = None, str(e)
        else:
            move = versions.promotion(
                last.to_version, moved.version, "adopted", "the alias was moved by hand in MLflow"
            )
            versions.promote(project.ledger, project.name, move)
            versions.told(project.ledger, project.name, move)
            return f"version {moved.version} was made champion by hand in MLflow: adopted and recorded"
        tell(project, last)
        return f"the alias champion was moved to version {pointed}, whose bytes are not those recorded: put back. {refusal}"
    tell(project, last)
    return f"the alias champion pointed to {pointed or 'nothing'}: put back to version {last.to_version}"


def champion_or_complain(project: Project) -> Version:
    """The version that serves. Raises InputError when nothing was ever promoted."""
    version = versions.champion(project.ledger, project.name)
    if version is None:
        last = versions.last_promotion(project.ledger, project.name)
        if last is not None:
            raise WindvaneError(
                f"the ledger promoted version {last.to_version}, but has no record of it. Restore the ledger"
            )
        raise InputError(f"{project.name} has no champion yet. Run `windvane train` first")
    return version
