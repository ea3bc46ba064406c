"""Model versions: registers a challenger, promotes a version, rolls back, and reconciles MLflow's aliases with the
ledger. The ledger comes first. `python -m windvane.flows.model_promotion ROOT` repairs the aliases in a process of
its own.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.ledger import versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.versions import Promotion, Version, VersionFacts
from windvane.tasks import process_environment
from windvane.tasks.errors import Corrupted, InputError, Outage, WindvaneError
from windvane.tasks.io import read_record, set_private_umask, write_json
from windvane.tasks.project import Project
from windvane.tasks.stores import mlflow_client
from windvane.tasks.stores.mlflow_store import NOT_FOUND_CODE, MlflowRefused

if TYPE_CHECKING:
    from windvane.flows.lap.context import LapContext
    from windvane.flows.lap.model_steps import BuiltModel, TrainingData
    from windvane.tasks.models.model_pipeline import ModelConfiguration

# The version's row for the ledger, stored with its run before it is registered: a kill in between loses nothing.
VERSION_RECORD_FILE = "version.json"
# Where in its run's artifacts the model lies.
MODEL_ARTIFACT = "model"


class VersionDeleted(InputError):
    """A version that the ledger knows was deleted in MLflow: it cannot be made champion."""


@dataclass(frozen=True)
class PromotionResult:
    """A promotion that is done, and what of it could not be updated in MLflow (a sentence), or None."""

    move: Promotion
    note: str | None


def run_register_step(
    lap: LapContext, data: TrainingData, built: BuiltModel, spec: ModelConfiguration, summary: dict[str, Any]
) -> Version:
    """Store the model in MLflow and register it as challenger, once per fingerprint."""
    from windvane.tasks.stores.model_files import describe_logged_model

    tracker, settings, run = lap.project.tracker, lap.project.settings, data.run
    opening = versions.find_opening(lap.project.ledger, lap.project.name, data.fingerprint)
    assert opening is not None
    assert opening.record_sha256 is not None
    source = tracker.address(run, MODEL_ARTIFACT)
    version = Version(
        version=0,
        fingerprint=data.fingerprint,
        run_id=run,
        model_uri=lap.project.relative(source),
        manifest_sha256=built.manifest_sha256,
        record_sha256=opening.record_sha256,
        data_version=data.data_version,
        taught_until=None if built.taught_until is None else str(built.taught_until),
        facts=VersionFacts(
            spec=spec.to_json(),
            history=settings.retrain.history,
            columns=asdict(data.columns),
            taught_until=built.taught_until,
            sides=describe_split_settings(lap, data),
            metric=settings.problem.headline,
            positive=data.kind.positive,
            kind=settings.problem.kind,
            target=settings.problem.target,
            id=settings.problem.id,
            time=settings.problem.time,
            summary=summary,
            bulk=built.bulk,
            memory=asdict(built.memory),
            # The run keeps a profile of its table: the next one is compared with it.
            digest=True,
        ),
        registered=now_timestamp(),
    )
    hit_failpoint("register: begin")
    tracker.store(run, built.folder, MODEL_ARTIFACT)
    logged = describe_logged_model(built.folder, run, MODEL_ARTIFACT)
    tracker.log(run, tags={mlflow_client.LOGGED_MODEL_TAG: logged})
    tracker.store(run, data.root / "record.parquet")
    hit_failpoint("register: model stored")
    write_json(version.to_json(), data.root / VERSION_RECORD_FILE)
    tracker.store(run, data.root / VERSION_RECORD_FILE)
    hit_failpoint("register: facts stored")
    number = mlflow_client.register_model(tracker, run, source, data.fingerprint, built.manifest_sha256)
    hit_failpoint("register: in MLflow")
    return _record_version(lap, replace(version, version=number))


def find_known_version(lap: LapContext, fingerprint: str) -> Version | None:
    """The version of this fingerprint, which needs no second fit; None: it is still to be made.

    Raises InputError where its model files were deleted.
    """
    version = versions.find_version_by_fingerprint(lap.project.ledger, lap.project.name, fingerprint)
    version = version or _left_by_a_kill(lap, fingerprint)
    if version is not None and version.collected is not None:
        raise InputError(
            f"data, params and code are those of version {version.version}, whose model files were deleted on "
            f"{version.collected[:10]}, as retention.versions requires. Change split.seed to train a new version from them"
        )
    return version


def _left_by_a_kill(lap: LapContext, fingerprint: str) -> Version | None:
    """A version that was registered by a lap that was killed before it reached the ledger; else None."""
    found = mlflow_client.find_registered_version(lap.project.tracker, fingerprint)
    if found is None:
        return None
    address = lap.project.tracker.address(str(found.run_id), VERSION_RECORD_FILE)
    path = lap.project.fetch(lap.project.relative(address))
    return _record_version(lap, read_record(path, lambda c: replace(Version.from_json(c), version=int(found.version))))


def _record_version(lap: LapContext, version: Version) -> Version:
    versions.record_version(lap.project.ledger, lap.lease, version)
    hit_failpoint("register: in the ledger")
    mlflow_client.set_alias(lap.project.tracker, mlflow_client.CHALLENGER_ALIAS, version.version)
    hit_failpoint("register: challenger")
    return version


def describe_split_settings(lap: LapContext, data: TrainingData) -> dict[str, Any]:
    """What decides in which split a row is: two versions with equal splits never trained each other's test rows."""
    from windvane.tasks.validate.table_profile import PROFILE_FILE, read_profile

    split, problem = lap.project.settings.split, lap.project.settings.problem
    key = read_profile(data.root / PROFILE_FILE).key
    return {**split.model_dump(exclude={"folds"}), "group": problem.group, "key": list(key)}


def run_promote_step(lap: LapContext, move: Promotion) -> None:
    """The last step of a lap whose challenger was accepted."""
    if (note := update_champion_alias(lap.project, move)) is not None:
        lap.console.print(f"  note: {note}")


def update_champion_alias(project: Project, move: Promotion) -> str | None:
    """Bring MLflow up to what the ledger has recorded: `champion` points to the version that serves. What cannot be, in words, or None.

    Raises Outage, or InputError where MLflow lets us not: the next lap updates it.
    """
    tracker, note = project.tracker, None
    hit_failpoint("promote: begin")
    try:
        mlflow_client.set_alias(tracker, mlflow_client.CHAMPION_ALIAS, move.to_version)
        hit_failpoint("promote: champion")
        if mlflow_client.get_alias(tracker, mlflow_client.CHALLENGER_ALIAS) == move.to_version:
            mlflow_client.set_alias(tracker, mlflow_client.CHALLENGER_ALIAS, None)
    except MlflowRefused as e:
        if e.code != NOT_FOUND_CODE:
            raise
        note = (
            f"version {move.to_version} serves, but was deleted in MLflow: the alias champion cannot point to it. It serves on "
            "from its files; `windvane train` registers the next one"
        )
    hit_failpoint("promote: aliases")
    versions.record_alias_update(project.ledger, project.name, move)
    hit_failpoint("promote: recorded")
    return note


def try_champion_alias(project: Project, move: Promotion) -> str | None:
    """Bring MLflow up to date, where an outage of MLflow is no more than a note: the promotion is done, and the ledger has it."""
    try:
        return update_champion_alias(project, move)
    except WindvaneError as e:
        return f"version {move.to_version} serves; its alias in MLflow follows at the next lap: {e}"


def update_newest_alias(project: Project) -> None:
    """Record the newest promotion in MLflow, and any that comes meanwhile: two writers at once end with the newer one."""
    synced: str | None = None
    while (last := versions.find_last_promotion(project.ledger, project.name)) is not None and last.promoted != synced:
        update_champion_alias(project, last)
        synced = last.promoted


def promote_manually(project: Project, number: int, cause: str, reason: str | None = None) -> PromotionResult:
    """Make a version champion because a person (or, with a `reason`, monitoring) wants it. MLflow, bytes and predictions are checked first.

    Raises VersionDeleted where MLflow has it no more: nothing has moved then.
    """
    from windvane.tasks.stores.model_files import SmokeTester

    version = versions.find_version(project.ledger, project.name, number)
    if version is None:
        raise InputError(
            f"version {number} of {project.name} was never registered. `windvane versions` lists those there are"
        )
    if version.collected is not None:
        raise InputError(
            f"version {number} of {project.name} cannot serve: its model files were deleted on {version.collected[:10]}, as "
            "retention.versions requires. Promote one whose files `windvane versions` lists as kept, or run `windvane train`"
        )
    last = versions.find_last_promotion(project.ledger, project.name)
    serving = None if last is None else last.to_version
    if serving == number:
        raise InputError(f"version {number} of {project.name} serves already. Nothing was changed")
    with closing(SmokeTester()) as tester:  # imports while MLflow responds
        silent = _refuse_deleted_version(project, version, serving)
        tester.test(project.stored(version), version.manifest_sha256)
    move = versions.make_promotion(serving, number, cause, reason or f"{cause} by a person")
    versions.record_promotion(project.ledger, project.name, move)
    if silent is not None:
        return PromotionResult(move, f"the alias champion in MLflow follows at the next lap: {silent}")
    return PromotionResult(move, try_champion_alias(project, move))


def roll_back_manually(project: Project) -> PromotionResult:
    """Put back the champion before this one. A rollback that never reached MLflow is sent again instead: nothing moves twice."""
    champion = require_champion(project)
    last = versions.find_last_promotion(project.ledger, project.name)
    assert last is not None
    if last.cause == "rollback" and not last.told:
        note = try_champion_alias(project, last)
        return PromotionResult(last, note or "this rollback was made before, and MLflow knows of it now")
    earlier = versions.find_previous_champion(project.ledger, project.name, champion.version)
    if earlier is None:
        raise InputError(
            f"version {champion.version} was the first champion: there is none to go back to. Nothing was changed"
        )
    return promote_manually(project, earlier, "rollback")


def _refuse_deleted_version(project: Project, version: Version, serving: int | None) -> str | None:
    """Raise VersionDeleted where MLflow has the version no more. MLflow's outage, in words, or None: a rollback need not wait for it."""
    try:
        if mlflow_client.has_registered_version(project.tracker, version.version, version.manifest_sha256):
            return None
        other = _find_other_champion(project, {version.version, serving})
    except Outage as e:
        return str(e)
    advice = "`windvane train` makes a new one" if other is None else f"`windvane promote {other}` puts that one back"
    raise VersionDeleted(f"version {version.version} was deleted in MLflow. Nothing was changed; {advice}")


def _find_other_champion(project: Project, but: set[int | None]) -> int | None:
    """The version that served last and that MLflow still has, without some."""
    for number in versions.list_champions(project.ledger, project.name):
        found = None if number in but else versions.find_version(project.ledger, project.name, number)
        if found is not None and mlflow_client.has_registered_version(project.tracker, number, found.manifest_sha256):
            return number
    return None


def reconcile_model_registry(project: Project) -> str | None:
    """Bring MLflow's registry and the ledger together; what was done, in words, or None.

    An alias that lags behind is repaired. One that somebody moved in the UI is adopted as a manual promotion, if the
    version's bytes are those that the ledger recorded; otherwise it is put back. A registered model that somebody deleted is
    registered again.
    """
    last = versions.find_last_promotion(project.ledger, project.name)
    if last is None:
        return _restore_registered_model(project)
    pointed = mlflow_client.get_alias(project.tracker, mlflow_client.CHAMPION_ALIAS)
    if pointed is None and (note := _restore_registered_model(project)) is not None:
        return f"{note}{_append_note(update_champion_alias(project, last))}"
    if pointed == last.to_version:
        return None if last.told else update_champion_alias(project, last)
    return _adopt_moved_alias(project, last, pointed) if last.told else _restore_alias(project, last, pointed)


def _adopt_moved_alias(project: Project, last: Promotion, pointed: int | None) -> str:
    """Somebody moved the alias in MLflow: a manual promotion, if the version's bytes are those that were recorded."""
    from windvane.tasks.stores import model_files

    version = None if pointed is None else versions.find_version(project.ledger, project.name, pointed)
    if version is None:
        return _restore_alias(project, last, pointed)
    try:
        model_files.verify_folder(project.stored(version), version.manifest_sha256)
    except Corrupted as e:
        note = f"the alias champion was moved to version {pointed}, whose bytes are not those recorded: put back. {e}"
        return f"{note}{_append_note(update_champion_alias(project, last))}"
    why = "the alias was moved manually in MLflow"
    move = versions.make_promotion(last.to_version, version.version, "adopted", why)
    versions.record_promotion(project.ledger, project.name, move)
    versions.record_alias_update(project.ledger, project.name, move)
    return f"version {version.version} was made champion manually in MLflow: adopted and recorded"


def _restore_alias(project: Project, last: Promotion, pointed: int | None) -> str:
    """The alias points elsewhere: to where the ledger has it, again."""
    if (note := update_champion_alias(project, last)) is not None:
        return note
    whom = "nothing" if pointed is None else f"version {pointed}"
    if pointed is not None and versions.find_version(project.ledger, project.name, pointed) is None:
        whom += ", which the ledger does not know"
    return f"the alias champion pointed to {whom}: put back to version {last.to_version}"


def _append_note(note: str | None) -> str:
    return "" if note is None else f". Besides, {note}"


def _restore_registered_model(project: Project) -> str | None:
    """Register all versions again where the registered model was deleted whole; what was done, in words, or None."""
    known = versions.list_versions(project.ledger, project.name)
    if not known or mlflow_client.has_registered_model(project.tracker):
        return None
    entries = {
        v.version: mlflow_client.RegisteredVersion(
            v.run_id, project.absolute(v.model_uri), v.fingerprint, v.manifest_sha256
        )
        for v in known
    }
    mlflow_client.restore_registered_versions(project.tracker, entries)
    several = f"its {len(known)} versions were" if len(known) > 1 else "its version was"
    return f"the registered model {project.name} had been deleted in MLflow: {several} registered again from the ledger"


def require_champion(project: Project) -> Version:
    """The version that serves. Raises InputError when nothing was ever promoted."""
    version = versions.find_champion(project.ledger, project.name)
    if version is None:
        last = versions.find_last_promotion(project.ledger, project.name)
        if last is not None:
            raise WindvaneError(
                f"the ledger promoted version {last.to_version}, but has no record of it. Restore the ledger"
            )
        raise InputError(f"{project.name} has no champion yet. Run `windvane train` first")
    return version


def run_alias_repair() -> int:
    """Record the project's last promotion in MLflow; 1, and why on standard error, where that fails."""
    set_private_umask()
    process_environment.set_library_environment()
    try:
        update_newest_alias(Project(Path(sys.argv[1])))
    except WindvaneError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_alias_repair())
