"""The door to MLflow's model registry: versions and aliases. The ledger decides; the registry is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windvane.tasks.errors import WindvaneError
from windvane.tasks.store_errors import NOT_THERE, THERE_ALREADY, Refused
from windvane.tasks.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
FINGERPRINT_TAG = "windvane.fingerprint"
MANIFEST_TAG = "windvane.manifest_sha256"


@dataclass(frozen=True)
class Entry:
    """What MLflow keeps of a version: the run that made it, where its model lies, what it was made from, and its manifest's sha256."""

    run: str
    source: str
    fingerprint: str
    manifest_sha256: str


def register(tracker: Tracker, run: str, source: str, fingerprint: str, manifest_sha256: str) -> int:
    """Register a stored model, once per fingerprint however often it is tried; the version's number."""
    if known := find(tracker, fingerprint, manifest_sha256):
        return int(known.version)
    _name(tracker)
    return _number(tracker, Entry(run, source, fingerprint, manifest_sha256))


def _name(tracker: Tracker) -> None:
    """Make the registered model, unless it is there."""
    try:
        tracker.client.create_registered_model(tracker.project)
    except Refused as e:
        if e.code != THERE_ALREADY:
            raise


def _number(tracker: Tracker, entry: Entry) -> int:
    """Register one more version, whether or not it is known; its number."""
    tags = {FINGERPRINT_TAG: entry.fingerprint, MANIFEST_TAG: entry.manifest_sha256}
    create = tracker.client.create_model_version
    return int(create(tracker.project, entry.source, entry.run, tags=tags, await_creation_for=0).version)


def find(tracker: Tracker, fingerprint: str, manifest_sha256: str | None = None) -> ModelVersion | None:
    """The registered version with this fingerprint (and manifest), or None."""
    query = f"name = '{tracker.project}' and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'"
    for version in tracker.client.search_model_versions(query):
        if manifest_sha256 in (None, version.tags.get(MANIFEST_TAG)):
            return version
    return None


def holds(tracker: Tracker, version: int, manifest_sha256: str) -> bool:
    """Whether MLflow has this version, and it is the one with this manifest. False: somebody deleted it there."""
    try:
        found = tracker.client.get_model_version(tracker.project, str(version))
    except Refused as e:
        if e.code != NOT_THERE:
            raise
        return False
    return bool(found.tags.get(MANIFEST_TAG) == manifest_sha256)


def is_there(tracker: Tracker) -> bool:
    """Whether MLflow has the registered model at all."""
    try:
        tracker.client.get_registered_model(tracker.project)
    except Refused as e:
        if e.code != NOT_THERE:
            raise
        return False
    return True


def restore(tracker: Tracker, known: Mapping[int, Entry]) -> None:
    """Register versions again under their numbers, after the whole registered model was deleted.

    MLflow counts from 1: the numbers between are taken, and given up again. Raises WindvaneError where it counts otherwise.
    """
    _name(tracker)
    filler = next(iter(known.values()))
    for wanted in range(1, max(known) + 1):
        number = _number(tracker, known.get(wanted, filler))
        if number != wanted:
            raise WindvaneError(
                f"the registered model {tracker.project} was deleted in MLflow, and its versions cannot be registered again: MLflow "
                f"gives number {number} where {wanted} is next. Restore MLflow's database from a backup"
            )
        if wanted not in known:
            tracker.client.delete_model_version(tracker.project, str(number))


def alias(tracker: Tracker, name: str) -> int | None:
    """The version that an alias points to, or None when there is no such alias."""
    try:
        return int(tracker.client.get_model_version_by_alias(tracker.project, name).version)
    except Refused as e:
        if e.code in (NOT_THERE, "INVALID_PARAMETER_VALUE"):
            return None
        raise


def point(tracker: Tracker, name: str, version: int | None) -> None:
    """Make an alias point to a version; None takes the alias away."""
    if version is None:
        tracker.client.delete_registered_model_alias(tracker.project, name)
    else:
        tracker.client.set_registered_model_alias(tracker.project, name, str(version))


def describe(tracker: Tracker, version: int, text: str) -> None:
    """Set a version's description, as MLflow's page of it shows; nothing where somebody has deleted it there."""
    try:
        tracker.client.update_model_version(tracker.project, str(version), description=text)
    except Refused as e:
        if e.code != NOT_THERE:
            raise
