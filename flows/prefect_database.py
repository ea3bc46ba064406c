"""The database of the project's own Prefect server, a file: made whole, from a template where one is at hand.

It holds runs that the ledger knows too: where it is damaged it is set aside and another one is made.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from windvane.ledger import sqlite_files
from windvane.ledger.failpoints import reached
from windvane.tasks import faults
from windvane.tasks.places import cache

DATABASE = "prefect.db"
# Names another database: then Prefect has that one, and this file none.
_ELSEWHERE = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def prepare(home: Path) -> None:
    """Before the server is started: its home, and in it a migrated database where a template is at hand.

    Raises WindvaneError where the disk is full or closed.
    """
    path = home / DATABASE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(home):
            _set_damaged_aside(path)
            if sqlite_files.contents(path) is None and _revision(template()) is not None:
                sqlite_files.make(path, _from_template)
    except _NoTemplate:
        return
    except (OSError, sqlite3.Error) as e:
        if (known := faults.explain(e, home)) is None:
            raise
        raise known from e


def complete(home: Path) -> None:
    """In the server's process, with Prefect imported, before it serves: make the database, or bring a copy of it to this Prefect."""
    if any(name in os.environ for name in _ELSEWHERE):
        return
    path = home / DATABASE
    with _lock(home):
        known = sqlite_files.contents(path)
        if known is not None and known.revision not in (None, _revision(template())) and known.revision != _head():
            copy = sqlite_files.copy_beside(path, f"prefect-{version('prefect')}")
            try:
                sqlite_files.make(path, lambda part: _brought_up(copy, part))
                said = f"{path} was brought to Prefect {version('prefect')}; as it was before: {copy}"
            except Exception as e:  # whatever a migration raises, such as that a newer Prefect wrote it
                if faults.full(e) or faults.closed(e):
                    raise
                known, said = None, f"{path} cannot be brought to Prefect {version('prefect')}; it is kept as {copy}"
                path.unlink()
            print(said, file=sys.stderr, flush=True)
        if known is None:
            sqlite_files.make(path, _migrate)
            sqlite_files.keep_template(path, template())


def _brought_up(copy: Path, part: Path) -> None:
    sqlite_files.vacuum(copy, part)
    _migrate(part)


def template() -> Path:
    """An empty, migrated database of the installed Prefect: spares each further new project half of its boot."""
    return cache() / f"prefect-{version('prefect')}.db"


class _NoTemplate(Exception):
    """The template is junk."""


def _from_template(part: Path) -> None:
    if not sqlite_files.take_template(template(), part):
        raise _NoTemplate


def _set_damaged_aside(path: Path) -> None:
    try:
        known = sqlite_files.contents(path)
    except sqlite3.DatabaseError as e:
        if not faults.damaged(e):
            raise
    else:
        if known is None or not known.half_made:
            return
    aside = sqlite_files.set_aside(path)
    print(f"  note: {path} was damaged; a new one is made, and it is kept as {aside.name}", file=sys.stderr, flush=True)


def _migrate(part: Path) -> None:
    """Prefect's migrations on a file of another name: the server opens its own only when that is whole."""
    import anyio
    from prefect.server.database import dependencies, provide_database_interface
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    async def create() -> None:
        await provide_database_interface().create_db()

    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{part.resolve()}"}):
        dependencies.MODELS_DEPENDENCIES["database_config"] = None
        try:
            reached("prefect: migrating")
            anyio.run(create)
        finally:
            dependencies.MODELS_DEPENDENCIES["database_config"] = None


def _head() -> str:
    """The newest migration that the installed Prefect knows."""
    from alembic.script import ScriptDirectory
    from prefect.server.database import provide_database_interface
    from prefect.server.database.alembic_commands import alembic_config

    config = alembic_config()
    config.set_main_option("version_locations", str(provide_database_interface().orm.versions_dir))
    return str(ScriptDirectory.from_config(config).get_current_head())


def _revision(database: Path) -> str | None:
    try:
        known = sqlite_files.contents(database)
    except (OSError, sqlite3.Error):
        return None
    return None if known is None else known.revision


def _lock(home: Path) -> FileLock:
    return FileLock(home / f"{DATABASE}.lock")
