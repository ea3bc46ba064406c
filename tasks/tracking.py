"""The door to MLflow's runs: one experiment, a parent run per lap, a child per candidate. Owns no decision."""

from __future__ import annotations

import math
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from windvane.tasks import faults, mlflow_store
from windvane.tasks.errors import Corrupted, Outage

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow refuses longer values.
LONGEST_PARAM = 6000
LAP_TAG = "windvane.lap"


class Tracker:
    """One project's experiment in one MLflow store. `uri` None: SQLite and files in `home`."""

    def __init__(self, project: str, home: Path, uri: str | None) -> None:
        from filelock import FileLock
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.project = project
        self.uri = uri or f"sqlite:///{(home / 'mlflow.db').resolve()}"
        location = None if uri else (home / "artifacts").resolve().as_uri()
        try:
            # Two processes that create the store at once break it for good, so one does it under a lock.
            with FileLock(home / "mlflow.lock"):
                if uri is None:
                    mlflow_store.ready(home / mlflow_store.FILE, _note)
                self.client: MlflowClient = MlflowClient(self.uri)
                found = self.client.get_experiment_by_name(project)
                self.experiment: str = (
                    found.experiment_id if found else self.client.create_experiment(project, location)
                )
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as e:
            if uri is None:
                raise faults.explain(e, home) or Corrupted(
                    f"{home / mlflow_store.FILE}: MLflow cannot open its store ({_first_line(e)}). Restore it from a backup"
                ) from e
            raise Outage(
                f"MLflow at {self.uri} does not answer: {_first_line(e)}. Start it, or unset MLFLOW_TRACKING_URI"
            ) from e

    def start(self, name: str, lap: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Begin a run; its id. A child names its parent."""
        nested = {"mlflow.parentRunId": parent} if parent else {}
        run = self.client.create_run(self.experiment, tags={LAP_TAG: lap, **nested, **tags}, run_name=name)
        return str(run.info.run_id)

    def log(
        self,
        run: str,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Params, metrics and tags in one call: a call each costs ten times as much. Undefined metrics are left out."""
        from mlflow.entities import Metric, Param, RunTag

        moment = int(time.time() * 1000)
        self.client.log_batch(
            run,
            metrics=[
                Metric(k, float(v), moment, 0)
                for k, v in (metrics or {}).items()
                if v is not None and not math.isnan(v)
            ],
            params=[Param(k, str(v)[:LONGEST_PARAM]) for k, v in (params or {}).items()],
            tags=[RunTag(k, v) for k, v in (tags or {}).items()],
        )

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
        """Close, as KILLED, every run of a lap that still says it is running; how many there were."""
        runs = self.client.search_runs(
            [self.experiment], f"tags.`{LAP_TAG}` = '{lap}' and attributes.status = 'RUNNING'"
        )
        for run in runs:
            self.client.set_terminated(run.info.run_id, "KILLED")
        return len(runs)

    def address(self, run: str, at: str) -> str:
        """Where the run's artifact `at` lies, as a URI."""
        return f"{self.client.get_run(run).info.artifact_uri.rstrip('/')}/{at}"

    def pages(self, files: Path) -> Any:
        """MLflow's server on this store, pages and API, as an ASGI application for one process. `files`: what is uploaded through it."""
        # What `mlflow server` tells its workers. In this process, since the worker would not inherit the bound socket.
        from mlflow.server import constants

        told = {
            constants.BACKEND_STORE_URI_ENV_VAR: self.uri,
            constants.REGISTRY_STORE_URI_ENV_VAR: self.uri,
            constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: files.resolve().as_uri(),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_WORKSPACES": "false",
        }
        os.environ.update(told)
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(self.uri, self.uri, "mlflow-artifacts:/")
        return app

    def url(self, run: str) -> str:
        """Where a person finds the run once the MLflow UI is up, without host and port."""
        return f"#/experiments/{self.experiment}/runs/{run}"


def local(uri: str, into: Path, tracking_uri: str | None = None) -> Path:
    """A local path with an artifact's content: the file itself where the store is a folder, else a download.

    Does not import MLflow for a folder: scoring starts in a fraction of the time.
    """
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        return Path(unquote(parsed.path))
    import mlflow.artifacts

    into.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(into), tracking_uri=tracking_uri))


def _note(text: str) -> None:
    """A line for whoever sits before the screen: a store is opened where no console is at hand."""
    print(f"  note: {text}", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
