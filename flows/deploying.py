"""Registering a challenger, and letting a version serve: in the ledger first, then in MLflow's aliases."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from windvane.flows.project import Project
from windvane.ledger import openings, versions
from windvane.ledger.failpoints import reached
from windvane.ledger.store import now
from windvane.ledger.versions import Promotion, Version
from windvane.tasks import artifacts, registry
from windvane.tasks.errors import Corrupted, InputError, Outage, WindvaneError
from windvane.tasks.smoke import Tester
from windvane.tasks.store_errors import NOT_THERE, Refused
from windvane.tasks.tables import read_record, write_json

if TYPE_CHECKING:
    from windvane.flows.lap import Lap
    from windvane.flows.teaching import Built, Lesson
    from windvane.tasks.estimators import Spec

# The version's row for the ledger, stored with its run before it is registered: a kill in between loses nothing.
FACTS = "version.json"


class VersionGone(InputError):
    """A version that the ledger knows was deleted in MLflow: it cannot be made champion."""


@dataclass(frozen=True)
class Moved:
    """A promotion that is done, and what of it MLflow could not be told (a sentence), or None."""

    move: Promotion
    note: str | None


def register(lap: Lap, lesson: Lesson, built: Built, spec: Spec, summary: dict[str, Any]) -> Version:
    """Store the model in MLflow and register it as challenger, once per fingerprint."""
    tracker, settings, run = lap.project.tracker, lap.project.settings, lesson.run
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
            "memory": built.memory.to_json(),
            # The run keeps what its table looked like: the next one is compared with it.
            "digest": True,
        },
        registered=now(),
    )
    reached("register: begin")
    tracker.store(run, built.folder, "model")
    tracker.store(run, lesson.root / "record.parquet")
    reached("register: model stored")
    write_json(asdict(version), lesson.root / FACTS)
    tracker.store(run, lesson.root / FACTS)
    reached("register: facts stored")
    number = registry.register(tracker, run, source, lesson.mark, built.manifest_sha256)
    reached("register: in MLflow")
    return _recorded(lap, replace(version, version=number))


def registered(lap: Lap, mark: str) -> Version | None:
    """The version of this fingerprint, which needs no second fit; None: it is still to be made.

    Raises InputError where its model files were deleted.
    """
    version = versions.built_from(lap.project.ledger, lap.project.name, mark) or _left_by_a_kill(lap, mark)
    if version is not None and version.collected is not None:
        raise InputError(
            f"data, params and code are those of version {version.version}, whose model files were deleted on "
            f"{version.collected[:10]}, as retention.versions asks. Change split.seed to train a new version from them"
        )
    return version


def _left_by_a_kill(lap: Lap, mark: str) -> Version | None:
    """A version that was registered by a lap that was killed before it could tell the ledger; else None."""
    found = registry.find(lap.project.tracker, mark)
    if found is None:
        return None
    address = lap.project.tracker.address(str(found.run_id), FACTS)
    path = lap.project.fetch(lap.project.relative(address))
    return _recorded(lap, read_record(path, lambda c: Version(**{**c, "version": int(found.version)})))


def _recorded(lap: Lap, version: Version) -> Version:
    versions.add(lap.project.ledger, lap.lease, version)
    reached("register: in the ledger")
    registry.point(lap.project.tracker, registry.CHALLENGER, version.version)
    reached("register: challenger")
    return version


def sides(lap: Lap, lesson: Lesson) -> dict[str, Any]:
    """What decides on which side a row stands: two versions with equal sides never taught each other's test rows."""
    from windvane.tasks.profile import PROFILE, read

    split, problem = lap.project.settings.split, lap.project.settings.problem
    key = read(lesson.root / PROFILE).key
    return {**split.model_dump(exclude={"folds"}), "group": problem.group, "key": list(key)}


def promote(lap: Lap, move: Promotion) -> None:
    """The last step of a lap whose challenger was accepted."""
    if (note := tell(lap.project, move)) is not None:
        lap.console.say(f"  note: {note}")


def tell(project: Project, move: Promotion) -> str | None:
    """Tell MLflow what the ledger has recorded: `champion` points to the version that serves. What cannot be, in words, or None.

    Raises Outage, or InputError where MLflow lets us not: the next lap tells it then.
    """
    tracker, note = project.tracker, None
    reached("promote: begin")
    try:
        registry.point(tracker, registry.CHAMPION, move.to_version)
        reached("promote: champion")
        if registry.alias(tracker, registry.CHALLENGER) == move.to_version:
            registry.point(tracker, registry.CHALLENGER, None)
    except Refused as e:
        if e.code != NOT_THERE:
            raise
        note = (
            f"version {move.to_version} serves, but was deleted in MLflow: the alias champion cannot point to it. It serves on "
            "from its files; `windvane train` registers the next one"
        )
    reached("promote: aliases")
    versions.told(project.ledger, project.name, move)
    reached("promote: recorded")
    return note


def told_if_possible(project: Project, move: Promotion) -> str | None:
    """tell(), where an outage of MLflow is no more than a note: the promotion is done, and the ledger says so."""
    try:
        return tell(project, move)
    except WindvaneError as e:
        return f"version {move.to_version} serves; its alias in MLflow follows at the next lap: {e}"


def tell_last(project: Project) -> None:
    """Tell MLflow of the newest promotion, and of any that comes meanwhile: two that tell at once end with the newer one."""
    told: str | None = None
    while (last := versions.last_promotion(project.ledger, project.name)) is not None and last.promoted != told:
        tell(project, last)
        told = last.promoted


def by_hand(project: Project, number: int, cause: str, reason: str | None = None) -> Moved:
    """Make a version champion because a person (or, with a `reason`, the watch) says so. MLflow, bytes and answers are checked first.

    Raises VersionGone where MLflow has it no more: nothing has moved then.
    """
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
    with closing(Tester()) as tester:  # imports while MLflow is asked
        silent = _refuse_gone(project, version, serving)
        tester.test(project.stored(version), version.manifest_sha256)
    move = versions.promotion(serving, number, cause, reason or f"{cause} by a person")
    versions.promote(project.ledger, project.name, move)
    if silent is not None:
        return Moved(move, f"the alias champion in MLflow follows at the next lap: {silent}")
    return Moved(move, told_if_possible(project, move))


def back(project: Project) -> Moved:
    """Put back the champion before this one. A rollback that MLflow was never told of is told again instead: nothing moves twice."""
    champion = champion_or_complain(project)
    last = versions.last_promotion(project.ledger, project.name)
    assert last is not None
    if last.cause == "rollback" and not last.told:
        note = told_if_possible(project, last)
        return Moved(last, note or "this rollback was made before, and MLflow knows of it now")
    earlier = versions.before(project.ledger, project.name, champion.version)
    if earlier is None:
        raise InputError(
            f"version {champion.version} was the first champion: there is none to go back to. Nothing was changed"
        )
    return by_hand(project, earlier, "rollback")


def _refuse_gone(project: Project, version: Version, serving: int | None) -> str | None:
    """Raise VersionGone where MLflow has the version no more. MLflow's outage, in words, or None: a rollback need not wait for it."""
    try:
        if registry.holds(project.tracker, version.version, version.manifest_sha256):
            return None
        other = _another(project, {version.version, serving})
    except Outage as e:
        return str(e)
    advice = "`windvane train` makes a new one" if other is None else f"`windvane promote {other}` puts that one back"
    raise VersionGone(f"version {version.version} was deleted in MLflow. Nothing was changed; {advice}")


def _another(project: Project, but: set[int | None]) -> int | None:
    """The version that served last and that MLflow still has, without some."""
    for number in versions.champions(project.ledger, project.name):
        found = None if number in but else versions.numbered(project.ledger, project.name, number)
        if found is not None and registry.holds(project.tracker, number, found.manifest_sha256):
            return number
    return None


def reconcile(project: Project) -> str | None:
    """Bring MLflow's registry and the ledger together; what was done, in words, or None.

    An alias that lags behind is repaired. One that somebody moved in the UI is adopted as a manual promotion, if the
    version's bytes are those that the ledger recorded; otherwise it is put back. A registered model that somebody deleted is
    registered again.
    """
    last = versions.last_promotion(project.ledger, project.name)
    if last is None:
        return _restored(project)
    pointed = registry.alias(project.tracker, registry.CHAMPION)
    if pointed is None and (note := _restored(project)) is not None:
        return f"{note}{_also(tell(project, last))}"
    if pointed == last.to_version:
        return None if last.told else tell(project, last)
    return _adopted(project, last, pointed) if last.told else _put_back(project, last, pointed)


def _adopted(project: Project, last: Promotion, pointed: int | None) -> str:
    """Somebody moved the alias in MLflow: a manual promotion, if the version's bytes are those that were recorded."""
    version = None if pointed is None else versions.numbered(project.ledger, project.name, pointed)
    if version is None:
        return _put_back(project, last, pointed)
    try:
        artifacts.verify(project.stored(version), version.manifest_sha256)
    except Corrupted as e:
        note = f"the alias champion was moved to version {pointed}, whose bytes are not those recorded: put back. {e}"
        return f"{note}{_also(tell(project, last))}"
    move = versions.promotion(last.to_version, version.version, "adopted", "the alias was moved by hand in MLflow")
    versions.promote(project.ledger, project.name, move)
    versions.told(project.ledger, project.name, move)
    return f"version {version.version} was made champion by hand in MLflow: adopted and recorded"


def _put_back(project: Project, last: Promotion, pointed: int | None) -> str:
    """The alias points elsewhere: to where the ledger says, again."""
    if (note := tell(project, last)) is not None:
        return note
    known = pointed is None or versions.numbered(project.ledger, project.name, pointed) is not None
    whom = (
        "nothing" if pointed is None else f"version {pointed}" + ("" if known else ", which the ledger does not know")
    )
    return f"the alias champion pointed to {whom}: put back to version {last.to_version}"


def _also(note: str | None) -> str:
    return "" if note is None else f". Besides, {note}"


def _restored(project: Project) -> str | None:
    """Register all versions again where the registered model was deleted whole; what was done, in words, or None."""
    known = versions.listed(project.ledger, project.name)
    if not known or registry.is_there(project.tracker):
        return None
    entries = {
        v.version: registry.Entry(v.run_id, project.absolute(v.model_uri), v.fingerprint, v.manifest_sha256)
        for v in known
    }
    registry.restore(project.tracker, entries)
    several = f"its {len(known)} versions were" if len(known) > 1 else "its version was"
    return f"the registered model {project.name} had been deleted in MLflow: {several} registered again from the ledger"


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
