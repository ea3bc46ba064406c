"""The door to MLflow's runs: one experiment, a parent run per lap, a child per candidate. Owns no decision."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from windvane.tasks.errors import Outage

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

        home.mkdir(parents=True, exist_ok=True)
        self.project = project
        self.uri = uri or f"sqlite:///{(home / 'mlflow.db').resolve()}"
        location = None if uri else (home / "artifacts").resolve().as_uri()
        try:
            # Two processes that create the store at once break it for good, so one does it under a lock.
            with FileLock(home / "mlflow.lock"):
                self.client: MlflowClient = MlflowClient(self.uri)
                found = self.client.get_experiment_by_name(project)
                self.experiment: str = (
                    found.experiment_id if found else self.client.create_experiment(project, location)
                )
        except (MlflowException, SQLAlchemyError) as e:
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

    def show(self, host: str, port: int) -> None:
        """Serve MLflow's pages on this store until told to stop. One worker: a person looks at them, and laps go to the store itself."""
        from mlflow.cli import cli

        options = ["--backend-store-uri", self.uri, "--host", host, "--port", str(port), "--workers", "1"]
        options += ["--uvicorn-opts", "--log-level warning"]
        cli(["server", *options], standalone_mode=False)

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


def delete(uri: str, tracking_uri: str | None = None) -> str | None:
    """Delete all that lies at an artifact's URI, through MLflow; why it was left, where its store cannot or does not."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        get_artifact_repository(uri, tracking_uri=tracking_uri).delete_artifacts()
    except NotImplementedError:
        return "MLflow cannot delete in this kind of store"
    except (MlflowException, OSError, *_clients_errors()) as e:
        return _first_line(e)
    return None


def size(uri: str, tracking_uri: str | None = None) -> int:
    """Bytes of all that lies at an artifact's URI, as its store says. Raises Outage."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        store = get_artifact_repository(uri, tracking_uri=tracking_uri)
        folders, found = [""], 0
        while folders:
            for item in store.list_artifacts(folders.pop() or None):
                if item.is_dir:
                    folders.append(item.path)
                else:
                    found += item.file_size or 0
    except (MlflowException, OSError, *_clients_errors()) as e:
        raise Outage(
            f"{uri}: the store of model files does not answer ({_first_line(e)}). Start it, then run again"
        ) from e
    return found


def _clients_errors() -> tuple[type[Exception], ...]:
    """What the clients of S3 and HTTP raise on their own, where they are installed."""
    from requests.exceptions import RequestException

    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (RequestException,)
    return (RequestException, BotoCoreError, ClientError)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
