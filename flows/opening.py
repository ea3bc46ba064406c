"""Opening the ledger, and what it means, in a sentence with its remedy, when it cannot be opened."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import faults, mlflow_store
from windvane.tasks.errors import Corrupted, InputError, Outage, WindvaneError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from windvane.flows.project import Project

VARIABLE = "WINDVANE_LEDGER_URL"
FILE = "ledger.db"
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


def ledger(project: Project) -> sa.Engine:
    """The project's ledger, migrated; made where there never was one.

    Raises InputError for an address that names none, Outage for a server that does not answer, Corrupted for a damaged file, and
    WindvaneError for one that a newer Windvane wrote, or that is gone while MLflow still holds its champion.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from windvane.ledger import store

    url = address(project)
    try:
        if not store.exists(url):
            _none_is_missed(project)
        return store.connect(url, _upgraded)
    except store.NewerLedger as e:
        raise WindvaneError(
            f"{_named(project)}: the ledger was written by a newer Windvane ({e}). Install that one, or restore a copy from before"
        ) from e
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError) as e:
        raise _said(project, url, e) from e


def sound(project: Project) -> None:
    """For `check`: read every page of a ledger that is a file. Raises Corrupted."""
    from windvane.ledger import sqlite_files

    url = address(project)
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite") and path.exists() and not sqlite_files.sound(path):
        raise Corrupted(faults.damaged_file(path))


def address(project: Project) -> str:
    """The ledger's address as SQLAlchemy takes it: WINDVANE_LEDGER_URL, or a file of the project. Raises InputError."""
    given = os.environ.get(VARIABLE)
    if not given:
        return f"sqlite:///{project.home / FILE}"
    for short in _POSTGRES:
        if given.startswith(short):
            return "postgresql+psycopg://" + given.removeprefix(short)
    if not given.startswith(("postgresql+psycopg://", "sqlite:///")):
        scheme = given.partition(":")[0] if "://" in given else "none"
        raise InputError(
            f"{VARIABLE}: its scheme ({scheme}) is not one that a ledger can have. Write postgresql://USER:PASSWORD@HOST/DATABASE, "
            "or sqlite:////PATH/ledger.db"
        )
    return given


def _none_is_missed(project: Project) -> None:
    """Before a new ledger is made: where MLflow holds a champion there was one, and it is not to be forgotten in silence."""
    if project.tracking_uri is not None:
        return
    version = mlflow_store.champion(project.home / mlflow_store.FILE, project.name)
    if version is not None:
        raise WindvaneError(
            f"{_named(project)}: the ledger is gone, though MLflow holds version {version} of {project.name} as champion. Restore it "
            f"from a backup; or to begin anew on purpose, delete {project.home / mlflow_store.FILE} too"
        )


def no_store_is_missed(project: Project) -> None:
    """Before the project's own MLflow store is opened: where the ledger has a champion there was one. Raises WindvaneError."""
    from windvane.ledger import versions

    path = project.home / mlflow_store.FILE
    if project.tracking_uri is not None or (path.exists() and path.stat().st_size):
        return
    last = versions.last_promotion(project.ledger, project.name)
    if last is not None:
        raise WindvaneError(
            f"{path}: MLflow's store is gone, though the ledger holds version {last.to_version} of {project.name} as champion. "
            f"Restore it from a backup, or set MLFLOW_TRACKING_URI where it was; or to begin anew on purpose, delete {FILE} too"
        )


def _said(project: Project, url: str, error: Exception) -> WindvaneError:
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        if faults.damaged(error):
            return Corrupted(faults.damaged_file(path))
        said = f"{_named(project)}: the ledger cannot be opened ({_first_line(error)}). Restore it from a backup"
        return faults.explain(error, path) or Outage(said)
    return _of_server(_named(project), _first_line(error), error)


def _of_server(where: str, first: str, error: Exception) -> WindvaneError:
    kind: type[WindvaneError] = Outage
    said = f"does not answer ({first}). Start its server, or correct the address"
    if isinstance(error, ImportError):
        kind, said = (
            InputError,
            f"needs psycopg, which is not installed ({first}). Install it: pip install 'psycopg[binary]'",
        )
    elif any(word in str(error) for word in _REFUSED):
        kind, said = InputError, f"is refused ({first}). Correct the user, the password or the database in the address"
    elif any(word in str(error) for word in _NO_ADDRESS):
        kind, said = (
            InputError,
            f"has an address that cannot be read ({first}). Write postgresql://USER:PASSWORD@HOST/DATABASE",
        )
    elif faults.full(error):
        kind, said = (
            WindvaneError,
            "has no room: its server's disk is full. Free some space there, then run the command again",
        )
    return kind(f"{where}: the ledger {said}")


def _named(project: Project) -> str:
    return VARIABLE if os.environ.get(VARIABLE) else str(project.home / FILE)


def _upgraded(copy: Path) -> None:
    print(f"  note: the ledger was upgraded; as it was before: {copy}", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    """The driver's own words; SQLAlchemy's own come after them."""
    told = getattr(error, "orig", None) or error
    line = (str(told).strip().splitlines() or [type(told).__name__])[0].rstrip(".")
    return line.removeprefix("connection failed: ")
