"""The door to MLflow: a run per lap with a child per candidate, artifacts, model registry. The ledger decides; MLflow records."""

from __future__ import annotations

import getpass
import json
import math
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from windvane.tasks import errors, process_environment
from windvane.tasks.errors import Corrupted, InputError, WindvaneError
from windvane.tasks.stores import mlflow_limits, mlflow_store
from windvane.tasks.stores.mlflow_store import (
    ALREADY_EXISTS_CODE,
    NOT_FOUND_CODE,
    MlflowRefused,
    translate_store_errors,
)

LAP_TAG = "windvane.lap"
LOGGED_MODEL_TAG = "mlflow.log-model.history"


@dataclass(frozen=True)
class DatasetUse:
    """The table that a run learned from, as MLflow's pages show it: columns by their MLflow types."""

    source: str
    version: str
    rows: int
    columns: Mapping[str, str]


class MlflowTracker:
    """One project's experiment in one MLflow store. `uri` None: SQLite and files in `home`."""

    def __init__(self, project: str, home: Path, uri: str | None) -> None:
        process_environment.set_library_environment()
        from filelock import FileLock
        from mlflow import MlflowClient

        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.project = project
        self.uri = uri or f"sqlite:///{(home / 'mlflow.db').resolve()}"
        location = None if uri else (home / "artifacts").resolve().as_uri()
        self._own = uri is None
        # Where a run's artifacts lie, as MLflow set it at start.
        self._roots: dict[str, str] = {}
        try:
            # Two processes that create the store at once break it for good, so one does it under a lock.
            with FileLock(home / "mlflow.lock"):
                if uri is None:
                    mlflow_store.prepare_mlflow_store(home / mlflow_store.MLFLOW_DATABASE, _print_note)
                with translate_store_errors(self.uri, self._own):
                    self.client: Any = _TranslatingClient(MlflowClient(self.uri), self.uri, self._own)
                self.experiment: str = self._found(location)
        except (sqlite3.Error, OSError, WindvaneError) as e:
            if uri is not None or isinstance(e, InputError):
                raise
            raise errors.explain_disk_error(e.__cause__ or e, home) or Corrupted(
                f"{home / mlflow_store.MLFLOW_DATABASE}: MLflow cannot open its store ({errors.read_first_line(e)}). "
                "Restore it from a backup"
            ) from e

    def _found(self, location: str | None) -> str:
        """The experiment's id; made where there is none. Raises InputError where somebody deleted it in MLflow."""
        found = self.client.get_experiment_by_name(self.project)
        if found is None:
            try:
                return str(self.client.create_experiment(self.project, location))
            except MlflowRefused as e:
                found = self.client.get_experiment_by_name(self.project)  # another machine was faster
                if e.code != ALREADY_EXISTS_CODE or found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise InputError(
                f"the experiment {self.project} was deleted in MLflow, and with it the runs whose models serve. Restore it: "
                f"mlflow experiments restore --experiment-id {found.experiment_id} (or begin anew with another `project`)"
            )
        return str(found.experiment_id)

    def start(self, name: str, lap: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Begin a run; its id. A child names its parent."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        origin = {
            "mlflow.user": read_user_name(),
            "mlflow.source.name": "windvane train",
            "mlflow.source.type": "PROJECT",
        }
        whole = mlflow_limits.cut_values({LAP_TAG: lap, **origin, **nested, **tags}, mlflow_limits.MAX_TAG_LETTERS)
        run = self.client.create_run(self.experiment, tags=whole, run_name=name[: mlflow_limits.MAX_NAME_LETTERS])
        self._roots[run.info.run_id] = run.info.artifact_uri
        return str(run.info.run_id)

    def log(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Params, metrics and tags in one call: a call each costs ten times as much. Undefined metrics are left out. Names and values that
        MLflow does not take are made fit for it (tasks/stores/mlflow_limits.py).
        """
        from mlflow.entities import Metric, Param, RunTag

        moment = int(time.time() * 1000)
        self.client.log_batch(
            run,
            metrics=[
                Metric(mlflow_limits.make_key(k), float(v), moment, 0)
                for k, v in (metrics or {}).items()
                if v is not None and not math.isnan(v)
            ],
            params=[
                Param(*one) for one in mlflow_limits.cut_values(params or {}, mlflow_limits.MAX_PARAM_LETTERS).items()
            ],
            tags=[RunTag(*one) for one in mlflow_limits.cut_values(tags or {}, mlflow_limits.MAX_TAG_LETTERS).items()],
        )

    def log_dataset(self, run: str, used: DatasetUse) -> None:
        """What the run learned from, with its version, in one call."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        table = Dataset(
            name=(Path(used.source).name or used.source)[: mlflow_limits.MAX_NAME_LETTERS],
            digest=used.version[: mlflow_limits.MAX_DIGEST_LETTERS],
            source_type=mlflow_store.get_scheme(used.source) or "local",
            source=json.dumps({"uri": used.source, "dvc": used.version}),
            schema=mlflow_limits.format_schema(used.columns),
            profile=json.dumps({"num_rows": used.rows}),
        )
        self.client.log_inputs(run, [DatasetInput(table, [InputTag("mlflow.data.context", "training")])])

    def choose_run_columns(self, metric: str) -> None:
        """The columns of the view of the runs to which `windvane up` links: what MLflow's own choice leaves out as well."""
        shown = [f"attributes.`{name}`" for name in ("Dataset", "Models", "Source", "User")]
        shown += [f"metrics.`{metric}`", "tags.`windvane.verdict`", "tags.`windvane.version`"]
        view = json.dumps({"selectedColumns": shown})
        self.client.set_experiment_tag(self.experiment, mlflow_store.RUN_VIEW_TAG, view)

    def store(self, run: str, source: Path, at: str | None = None) -> None:
        """Store a file, or all files of a folder, as the run's artifacts under `at`."""
        if source.is_dir():
            self.client.log_artifacts(run, str(source), at)
        else:
            self.client.log_artifact(run, str(source), at)

    def write(self, run: str, text: str, name: str) -> None:
        """Store a text as the run's artifact `name`."""
        self.client.log_text(run, text, name)

    def holds(self, run: str, name: str) -> bool:
        """Whether the run has an artifact of this name at its top."""
        return any(item.path == name for item in self.client.list_artifacts(run))

    def end(self, run: str, status: str = "FINISHED") -> None:
        """Close a run."""
        self.client.set_terminated(run, status)

    def abandon(self, lap: str) -> int:
        """Close, as KILLED, every run of a lap that still is running; how many there were."""
        runs = self.client.search_runs(
            [self.experiment], f"tags.`{LAP_TAG}` = '{lap}' and attributes.status = 'RUNNING'"
        )
        for run in runs:
            self.client.set_terminated(run.info.run_id, "KILLED")
        return len(runs)

    def address(self, run: str, at: str) -> str:
        """Where the run's artifact `at` lies, as a URI."""
        if run not in self._roots:
            self._roots[run] = self.client.get_run(run).info.artifact_uri
        return mlflow_store.join_address(self._roots[run], at)

    def try_out(self) -> str | None:
        """Do what a lap will have to be allowed to: write in the experiment; write, read and delete an artifact of a few bytes.

        What could not be deleted, in words, or None. Raises InputError or Outage that names what to set.
        """
        self.client.set_experiment_tag(self.experiment, "windvane.project", self.project)
        place, content = self.client.get_experiment(self.experiment).artifact_location, uuid4().hex
        name = f"windvane-check-{content[:8]}.txt"
        with tempfile.TemporaryDirectory() as folder, translate_store_errors(self.uri, self._own):
            store, sent = _open_artifacts(place, self.uri), Path(folder) / name
            sent.write_text(content, encoding="ascii")
            store.log_artifact(str(sent))
            sent.unlink()
            came = Path(store.download_artifacts(name, folder)).read_text(encoding="ascii")
            if came != content:
                raise InputError(f"{place}: does not give back what was written there. Fix MLflow's artifact store")
        try:
            with translate_store_errors(self.uri, self._own):
                store.delete_artifacts(name)
        except WindvaneError as e:
            return f"{name} was left in {place}, for it could not be deleted: {e}"
        return None

    def pages(self, files: Path) -> Any:
        """MLflow's server on this store, pages and API, as an ASGI application for one process. `files`: what is uploaded through it."""
        # What `mlflow server` gives its workers. In this process, since the worker would not inherit the bound socket.
        from mlflow.server import constants

        values = {
            constants.BACKEND_STORE_URI_ENV_VAR: self.uri,
            constants.REGISTRY_STORE_URI_ENV_VAR: self.uri,
            constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: files.resolve().as_uri(),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_WORKSPACES": "false",
        }
        os.environ.update(values)
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(self.uri, self.uri, "mlflow-artifacts:/")
        return app

    def url(self, run: str) -> str:
        """Where a person finds the run once the MLflow UI is up, without host and port."""
        return f"#/experiments/{self.experiment}/runs/{run}"

    def page(self, run: str, at: str) -> str:
        """Where a person finds the run's artifact `at`: on the server's pages, where there is one."""
        if not self.uri.startswith("http"):
            return self.address(run, at)
        return f"{mlflow_store.redact_address(self.uri).rstrip('/')}/{self.url(run)}/artifacts/{at}"


def read_user_name() -> str:
    """Who runs this process; the number of an account without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class _TranslatingClient:
    """MLflow's client, whose methods raise errors of ours."""

    def __init__(self, client: Any, where: str, own: bool) -> None:
        self._client, self._where, self._own = client, where, own

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **more: Any) -> Any:
            with translate_store_errors(self._where, self._own):
                return method(*arguments, **more)

        return call


def download_artifact(address: str, into: Path, tracking_uri: str | None) -> Path:
    """An artifact, a file or a folder, in an existing empty folder; where. Raises FileNotFoundError where there is none."""
    process_environment.set_library_environment()
    import mlflow.artifacts

    where = tracking_uri or address
    try:
        with translate_store_errors(where):
            return Path(mlflow.artifacts.download_artifacts(address, dst_path=str(into), tracking_uri=tracking_uri))
    except (WindvaneError, FileNotFoundError) as e:
        # Some stores report "internal error" for what is not there: only a list of what lies beside it shows it.
        if isinstance(e, FileNotFoundError) or _is_gone(address, where, tracking_uri):
            raise FileNotFoundError(f"{address}: is not in MLflow's artifact store") from e
        raise


def _print_note(text: str) -> None:
    """A line for the person at the screen: a store is opened where no console is at hand."""
    print(f"  note: {text}", file=sys.stderr, flush=True)


def delete_artifacts(uri: str, tracking_uri: str | None = None) -> str | None:
    """Delete all that lies at an artifact's URI, through MLflow; why it was left, where its store cannot or does not."""
    try:
        with translate_store_errors(tracking_uri or uri):
            _open_artifacts(uri, tracking_uri).delete_artifacts()
    except NotImplementedError:
        return "MLflow cannot delete in this type of store"
    except WindvaneError as e:
        return str(e)
    return None


def measure_artifacts(uri: str, tracking_uri: str | None = None) -> int:
    """Bytes of all that lies at an artifact's URI, as its store reports. Raises Outage or InputError."""

    def measure(store: Any, folder: str | None) -> int:
        listed = store.list_artifacts(folder)
        return sum(measure(store, item.path) if item.is_dir else item.file_size or 0 for item in listed)

    with translate_store_errors(tracking_uri or uri):
        return measure(_open_artifacts(uri, tracking_uri), None)


def _open_artifacts(uri: str, tracking_uri: str | None) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)


def _is_gone(address: str, where: str, tracking_uri: str | None) -> bool:
    name, beside = address.rstrip("/").rpartition("/")[2], mlflow_store.get_parent_address(address)
    try:
        with translate_store_errors(where):
            listed = _open_artifacts(beside, tracking_uri).list_artifacts()
    except MlflowRefused:
        return True
    except WindvaneError:
        return False
    return all(item.path.rpartition("/")[2] != name for item in listed)


CHAMPION_ALIAS = "champion"
CHALLENGER_ALIAS = "challenger"
FINGERPRINT_TAG = "windvane.fingerprint"
MANIFEST_TAG = "windvane.manifest_sha256"


@dataclass(frozen=True)
class RegisteredVersion:
    """What MLflow keeps of a version: the run that made it, where its model lies, what it was made from, and its manifest's sha256."""

    run: str
    source: str
    fingerprint: str
    manifest_sha256: str


def register_model(tracker: MlflowTracker, run: str, source: str, fingerprint: str, manifest_sha256: str) -> int:
    """Register a stored model, once per fingerprint however often it is tried; the version's number."""
    if known := find_registered_version(tracker, fingerprint, manifest_sha256):
        return int(known.version)
    _ensure_registered_model(tracker)
    return _create_version(tracker, RegisteredVersion(run, source, fingerprint, manifest_sha256))


def _ensure_registered_model(tracker: MlflowTracker) -> None:
    """Make the registered model, unless it is there."""
    try:
        tracker.client.create_registered_model(tracker.project)
    except MlflowRefused as e:
        if e.code != ALREADY_EXISTS_CODE:
            raise


def _create_version(tracker: MlflowTracker, entry: RegisteredVersion) -> int:
    """Register one more version, whether or not it is known; its number."""
    tags = {FINGERPRINT_TAG: entry.fingerprint, MANIFEST_TAG: entry.manifest_sha256}
    create = tracker.client.create_model_version
    return int(create(tracker.project, entry.source, entry.run, tags=tags, await_creation_for=0).version)


def find_registered_version(tracker: MlflowTracker, fingerprint: str, manifest_sha256: str | None = None) -> Any | None:
    """The registered version with this fingerprint (and manifest), or None."""
    query = f"name = '{tracker.project}' and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'"
    found = tracker.client.search_model_versions(query)
    return next((version for version in found if manifest_sha256 in (None, version.tags.get(MANIFEST_TAG))), None)


def has_registered_version(tracker: MlflowTracker, version: int, manifest_sha256: str) -> bool:
    """Whether MLflow has this version, and it is the one with this manifest. False: somebody deleted it there."""
    found = _find(tracker.client.get_model_version, tracker.project, str(version))
    return found is not None and found.tags.get(MANIFEST_TAG) == manifest_sha256


def has_registered_model(tracker: MlflowTracker) -> bool:
    """Whether MLflow has the registered model at all."""
    return _find(tracker.client.get_registered_model, tracker.project) is not None


def _find(method: Callable[..., Any], *arguments: str, **more: str) -> Any | None:
    """What a method of MLflow's client returns; None where MLflow does not have what it is about."""
    try:
        return method(*arguments, **more)
    except MlflowRefused as e:
        if e.code != NOT_FOUND_CODE:
            raise
        return None


def restore_registered_versions(tracker: MlflowTracker, known: Mapping[int, RegisteredVersion]) -> None:
    """Register versions again under their numbers, after the whole registered model was deleted.

    MLflow counts from 1: the numbers between are taken, and given up again. Raises WindvaneError where it counts otherwise.
    """
    _ensure_registered_model(tracker)
    filler = next(iter(known.values()))
    for wanted in range(1, max(known) + 1):
        number = _create_version(tracker, known.get(wanted, filler))
        if number != wanted:
            raise WindvaneError(
                f"the registered model {tracker.project} was deleted in MLflow, and its versions cannot be registered again: MLflow "
                f"gives number {number} where {wanted} is next. Restore MLflow's database from a backup"
            )
        if wanted not in known:
            tracker.client.delete_model_version(tracker.project, str(number))


def get_alias(tracker: MlflowTracker, name: str) -> int | None:
    """The version that an alias points to, or None when there is no such alias."""
    try:
        return int(tracker.client.get_model_version_by_alias(tracker.project, name).version)
    except MlflowRefused as e:
        if e.code in (NOT_FOUND_CODE, "INVALID_PARAMETER_VALUE"):
            return None
        raise


def set_alias(tracker: MlflowTracker, name: str, version: int | None) -> None:
    """Make an alias point to a version; None takes the alias away."""
    if version is None:
        tracker.client.delete_registered_model_alias(tracker.project, name)
    else:
        tracker.client.set_registered_model_alias(tracker.project, name, str(version))


def describe_registered_version(tracker: MlflowTracker, version: int, text: str) -> None:
    """Set a version's description, as MLflow's page of it shows; nothing where somebody has deleted it there."""
    text = text[: mlflow_limits.MAX_DESCRIPTION_LETTERS]
    _find(tracker.client.update_model_version, tracker.project, str(version), description=text)
