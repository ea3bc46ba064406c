"""The door to MLflow's model registry: versions and aliases. The ledger decides; the registry is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windvane.tasks.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
FINGERPRINT_TAG = "windvane.fingerprint"
MANIFEST_TAG = "windvane.manifest_sha256"


def register(tracker: Tracker, run: str, source: str, fingerprint: str, manifest_sha256: str) -> int:
    """Register a stored model, once per fingerprint however often it is tried; the version's number."""
    from mlflow.exceptions import MlflowException

    client, name = tracker.client, tracker.project
    if known := find(tracker, fingerprint, manifest_sha256):
        return int(known.version)
    try:
        client.create_registered_model(name)
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {FINGERPRINT_TAG: fingerprint, MANIFEST_TAG: manifest_sha256}
    return int(client.create_model_version(name, source, run, tags=tags, await_creation_for=0).version)


def find(tracker: Tracker, fingerprint: str, manifest_sha256: str | None = None) -> ModelVersion | None:
    """The registered version with this fingerprint (and manifest), or None."""
    query = f"name = '{tracker.project}' and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'"
    for version in tracker.client.search_model_versions(query):
        if manifest_sha256 in (None, version.tags.get(MANIFEST_TAG)):
            return version
    return None


def alias(tracker: Tracker, name: str) -> int | None:
    """The version that an alias points to, or None when there is no such alias."""
    from mlflow.exceptions import MlflowException

    try:
        return int(tracker.client.get_model_version_by_alias(tracker.project, name).version)
    except MlflowException as e:
        if e.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
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
    from mlflow.exceptions import MlflowException

    try:
        tracker.client.update_model_version(tracker.project, str(version), description=text)
    except MlflowException as e:
        if e.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
