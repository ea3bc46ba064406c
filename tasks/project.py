"""A project: its folder, its settings, and the stores it uses, each opened when first used.

Explains why the ledger or MLflow's store cannot be opened, and what to do.
"""

from __future__ import annotations

import copy
import os
import sqlite3
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from windvane.ledger import database, sqlite_files, versions
from windvane.ledger.predictions import PrivacyRules
from windvane.ledger.versions import Version
from windvane.tasks import errors, project_secrets
from windvane.tasks.errors import Corrupted, InputError, Outage, WindvaneError
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.settings import own_code_names
from windvane.tasks.settings import project_params as params
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.stores import mlflow_store
from windvane.tasks.stores.mlflow_client import MlflowTracker

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.models.problem_types.definitions import OwnCode

# How names of exploring laps' work folders begin.
EXPLORING_PREFIX = "explore-"


class Project:
    """The project in `root`, the folder of params.yaml."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self.root = root.resolve()
        self.settings: Settings = settings or params.load_settings(root / params.PARAMS_FILE)
        self.home = self.root / STATE_FOLDER

    @property
    def name(self) -> str:
        """`project` of params.yaml: names the experiment, the registered model, and the rows in the ledger."""
        return self.settings.project

    @cached_property
    def secret(self) -> str:
        """The project's own secret: every server that Windvane starts for it requires it."""
        return project_secrets.read_project_secret(self.home)

    @cached_property
    def ledger(self) -> sa.Engine:
        """The ledger, migrated. Raises what open_project_ledger() names for one that cannot be opened."""
        return open_project_ledger(self)

    @cached_property
    def privacy(self) -> PrivacyRules:
        """What of a request the ledger may keep. Raises InputError for a column that neither schema.yaml nor the champion knows."""
        if not (self.settings.ledger.drop or self.settings.ledger.hash):
            return project_secrets.build_privacy_rules(self.settings, self.home)
        from windvane.tasks.validate import table_schema

        champion = versions.find_champion(self.ledger, self.name)
        agreed = table_schema.load_schema(self.root / table_schema.SCHEMA_FILE)
        known = champion.facts.column_names if champion else set()
        known |= set(agreed.columns) if agreed else set()
        # Before the first lap nothing is known or predicted.
        return project_secrets.build_privacy_rules(self.settings, self.home, known or None)

    @cached_property
    def tracker(self) -> MlflowTracker:
        """MLflow, at MLFLOW_TRACKING_URI or in .windvane/."""
        refuse_missing_mlflow_store(self)
        return MlflowTracker(self.name, self.home, self.tracking_uri)

    def with_settings(self, settings: Settings) -> Project:
        """The same project, with its stores, under other settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def refit_settings(self, version: Version | None, settings: Settings | None = None) -> Settings:
        """`settings`, else those of params.yaml, as they are where a version's configuration is fitted again. What they name of the
        user's own code and is gone has the text that the version was stored with. Raises InputError, Corrupted.
        """
        settings = settings or self.settings
        if version is None:
            return settings
        settings = self._keep_candidate(version, settings)
        return settings.fill_sources(self._read_own_files(version)) if settings.lacks_sources else settings

    def _keep_candidate(self, version: Version, settings: Settings) -> Settings:
        name = str(version.facts.spec["candidate"])
        if not own_code_names.is_own_candidate(name):
            return settings
        try:
            if settings.defines_candidate(name):
                return settings
        except ValueError:
            raise InputError(
                f"version {version.version}: its candidate {name!r} is offered by no installed package any more. Install the package "
                "again, or search anew with `windvane train`"
            ) from None
        own = next((code for code in self._read_own_code(version) if code.role == "candidate"), None)
        return settings if own is None else settings.use_stored_code(name, dict(own.files), own.trusted)

    def watch_settings(self, version: Version) -> Settings:
        """refit_settings(), with metric and loss as the version was judged by: its record and its windows are measured alike, whatever
        became of the file.
        """
        settings = self.refit_settings(version)
        for code in self._read_own_code(version) if settings.problem.own_functions else ():
            settings = settings.use_stored_measure(code.role, code.name, dict(code.files))
        return settings

    def _read_own_code(self, version: Version) -> tuple[OwnCode, ...]:
        from windvane.tasks.stores.model_files import read_stored_code

        return read_stored_code(self.stored(version), version.manifest_sha256)

    def _read_own_files(self, version: Version) -> dict[str, str]:
        """The files of features, metric and loss that a version was stored with."""
        return {
            file: text for code in self._read_own_code(version) if code.role != "candidate" for file, text in code.files
        }

    @property
    def tracking_uri(self) -> str | None:
        """MLFLOW_TRACKING_URI, or None for the project's own store."""
        return os.environ.get("MLFLOW_TRACKING_URI") or None

    def relative(self, address: str) -> str:
        """An artifact's address as the ledger keeps it: relative to the project where it lies inside, so that the folder may move."""
        path = mlflow_store.find_local_path(address)
        inside = path is not None and path.is_absolute() and path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if path is not None and inside else address

    def absolute(self, address: str) -> str:
        """What `relative` returned, as MLflow knows it."""
        path = mlflow_store.find_local_path(address)
        return address if path is None else (self.root / path).as_uri()

    def fetch(self, address: str, digest: str | None = None) -> Path:
        """A local path with the content of what `relative` returned. digest: the sha256 that a downloaded copy must have."""
        path = mlflow_store.find_local_path(address)
        if path is not None:
            return self.root / path
        from windvane.tasks.stores.model_files import fetch_artifact_copy

        return fetch_artifact_copy(address, self.home / "downloads", self.tracking_uri, digest)

    def artifact(self, version: Version, name: str, digest: str | None = None) -> Path:
        """An artifact of the run that made a version, as a local path."""
        return self.fetch(mlflow_store.join_address(mlflow_store.get_parent_address(version.model_uri), name), digest)

    def record(self, version: Version) -> pd.DataFrame:
        """A version's held-out rows with its predictions, as stored when the test split was opened. Raises Corrupted."""
        from windvane.tasks.ingest.table_io import read_parquet
        from windvane.tasks.stores.model_files import hash_file

        path = self.artifact(version, "record.parquet", version.record_sha256)
        if hash_file(path) != version.record_sha256:
            raise Corrupted(
                f"{path}: the held-out predictions of version {version.version} were changed. Restore the file from a backup"
            )
        return read_parquet(path)

    def stored(self, version: Version) -> Path:
        """The local folder of a version's model, its bytes yet to be checked. Raises Corrupted where the store has it no more."""
        try:
            return self.fetch(version.model_uri, version.manifest_sha256)
        except FileNotFoundError as e:
            raise Corrupted(
                f"version {version.version}: {e}. Restore its run's artifacts from a backup, or serve another version"
            ) from None

    def model(self, version: Version) -> Any:
        """A version's fitted pipeline, its bytes checked first. Raises Corrupted."""
        from windvane.tasks.stores.model_files import load_model

        return load_model(self.stored(version), version.manifest_sha256)


LEDGER_URL_VARIABLE = "WINDVANE_LEDGER_URL"
LEDGER_FILE = "ledger.db"
# How else people write PostgreSQL's scheme; Windvane brings one driver.
_POSTGRES = ("postgresql://", "postgres://", "postgres+psycopg://")
_NO_ADDRESS = ("Could not parse", "invalid connection option", "invalid port", "invalid dsn", 'missing "="')
_REFUSED = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "permission denied",
    "no pg_hba.conf entry",
)


def open_project_ledger(project: Project) -> sa.Engine:
    """The project's ledger, migrated; made where there never was one.

    Raises InputError for an address that names none, Outage for a server that does not respond, Corrupted for a damaged file, and
    WindvaneError for one that a newer Windvane wrote, or that is gone while MLflow still holds its champion.
    """
    url = find_ledger_address(project)
    try:
        if not database.ledger_exists(url):
            _refuse_missing_ledger(project)
        return database.connect_ledger(url, _note_upgrade)
    except database.NewerLedger as e:
        raise WindvaneError(
            f"{_name_ledger(project)}: the ledger was written by a newer Windvane ({e}). Install that one, or restore a copy from before"
        ) from e
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError) as e:
        raise _explain_ledger_error(project, url, e) from e


def check_project_ledger(project: Project) -> None:
    """For `check`: read every page of a ledger that is a file. Raises Corrupted."""
    url = find_ledger_address(project)
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite") and path.exists() and not sqlite_files.is_database_sound(path):
        raise Corrupted(errors.describe_damaged_database(path))


def find_ledger_address(project: Project) -> str:
    """The ledger's address as SQLAlchemy takes it: WINDVANE_LEDGER_URL, or a file of the project. Raises InputError."""
    given = os.environ.get(LEDGER_URL_VARIABLE)
    if not given:
        return f"sqlite:///{project.home / LEDGER_FILE}"
    for short in _POSTGRES:
        if given.startswith(short):
            return "postgresql+psycopg://" + given.removeprefix(short)
    if not given.startswith(("postgresql+psycopg://", "sqlite:///")):
        scheme = given.partition(":")[0] if "://" in given else "none"
        raise InputError(
            f"{LEDGER_URL_VARIABLE}: its scheme ({scheme}) is not one that a ledger can have. "
            "Write postgresql://USER:PASSWORD@HOST/DATABASE, or sqlite:////PATH/ledger.db"
        )
    return given


def _refuse_missing_ledger(project: Project) -> None:
    """Before a new ledger is made: where MLflow holds a champion there was one, and it is not to be forgotten in silence."""
    if project.tracking_uri is not None:
        return
    version = mlflow_store.read_champion_alias(project.home / mlflow_store.MLFLOW_DATABASE, project.name)
    if version is not None:
        raise WindvaneError(
            f"{_name_ledger(project)}: the ledger is gone, though MLflow holds version {version} of {project.name} as champion. Restore it "
            f"from a backup; or to begin anew on purpose, delete {project.home / mlflow_store.MLFLOW_DATABASE} too"
        )


def refuse_missing_mlflow_store(project: Project) -> None:
    """Before the project's own MLflow store is opened: where the ledger has a champion there was one. Raises WindvaneError."""
    path = project.home / mlflow_store.MLFLOW_DATABASE
    if project.tracking_uri is not None or (path.exists() and path.stat().st_size):
        return
    last = versions.find_last_promotion(project.ledger, project.name)
    if last is not None:
        raise WindvaneError(
            f"{path}: MLflow's store is gone, though the ledger holds version {last.to_version} of {project.name} as champion. "
            f"Restore it from a backup, or set MLFLOW_TRACKING_URI where it was; or to begin anew on purpose, delete {LEDGER_FILE} too"
        )


def _explain_ledger_error(project: Project, url: str, error: Exception) -> WindvaneError:
    # The driver's own words; SQLAlchemy's own come after them.
    first = errors.read_first_line(getattr(error, "orig", None) or error).removeprefix("connection failed: ")
    where = f"{_name_ledger(project)}: the ledger"
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        if errors.is_database_damaged(error):
            return Corrupted(errors.describe_damaged_database(path))
        message = f"{where} cannot be opened ({first}). Restore it from a backup"
        return errors.explain_disk_error(error, path) or Outage(message)
    kind: type[WindvaneError] = InputError
    if isinstance(error, ImportError):
        message = f"needs psycopg, which is not installed ({first}). Install it: pip install 'psycopg[binary]'"
    elif any(word in str(error) for word in _REFUSED):
        message = f"is refused ({first}). Correct the user, the password or the database in the address"
    elif any(word in str(error) for word in _NO_ADDRESS):
        message = f"has an address that cannot be read ({first}). Write postgresql://USER:PASSWORD@HOST/DATABASE"
    elif errors.is_disk_full(error):
        kind = WindvaneError
        message = "has no room: its server's disk is full. Free some space there, then run the command again"
    else:
        kind, message = Outage, f"does not respond ({first}). Start its server, or correct the address"
    return kind(f"{where} {message}")


def _name_ledger(project: Project) -> str:
    return LEDGER_URL_VARIABLE if os.environ.get(LEDGER_URL_VARIABLE) else str(project.home / LEDGER_FILE)


def _note_upgrade(copy: Path) -> None:
    print(f"  note: the ledger was upgraded; as it was before: {copy}", file=sys.stderr, flush=True)
