"""The project's own MLflow store, a file: made whole and renamed into place, upgraded on a copy, healed where it was half made.

MLflow migrates a store in place, in many steps: one that is killed meanwhile, or finds the disk full, never opens again.
A store on a server is that server's matter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.ledger import sqlite_files
from windvane.ledger.failpoints import reached
from windvane.ledger.sqlite_files import Contents
from windvane.tasks import faults
from windvane.tasks.errors import Corrupted, WindvaneError
from windvane.tasks.places import cache

if TYPE_CHECKING:
    import sqlalchemy as sa

FILE = "mlflow.db"
# Tables that hold what people would miss.
_HISTORY = ("runs", "registered_models", "model_versions", "logged_models")


def ready(path: Path, note: Callable[[str], None]) -> None:
    """Bring the store into being, or to what the installed MLflow reads. Call under the store's lock, before MLflow opens it.

    note: is told of a copy that was taken, or of what was healed. Raises Corrupted for a damaged store, WindvaneError for one
    that a newer MLflow wrote; sqlite3.Error and OSError where the disk does not let it.
    """
    try:
        known = sqlite_files.contents(path)
        if known is not None and not known.half_made and known.revision == _revision(_template()):
            return
        if known is None or not _history(path, known):
            if known is None or known.half_made or known.revision != _head():
                sqlite_files.make(path, _fill)
            return
    except sqlite3.DatabaseError as e:
        if faults.damaged(e):
            raise Corrupted(faults.damaged_file(path)) from e
        raise
    if not known.half_made and known.revision == _head():
        return
    if not known.half_made and not _knows(str(known.revision)):
        raise WindvaneError(
            f"{path}: was written by a newer MLflow than the {version('mlflow')} that is installed. Install that one again, or "
            f"restore a copy from before{_named(path)}"
        )
    _upgrade(path, known, note)


def sound(path: Path) -> None:
    """For `check`: read every page of the store, without MLflow. Raises Corrupted. Half-made is sound: it heals."""
    if path.exists() and path.stat().st_size and not sqlite_files.sound(path):
        raise Corrupted(faults.damaged_file(path))


def champion(path: Path, name: str) -> str | None:
    """The version that carries the alias champion, read without MLflow; None where there is none, or no store."""
    try:
        known = sqlite_files.contents(path)
        if known is None or "registered_model_aliases" not in known.tables:
            return None
        with sqlite_files.opened(path) as db:
            query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'"
            row = db.execute(query, (name,)).fetchone()
    except sqlite3.Error:  # it is damaged: whoever opens it says so
        return None
    return None if row is None else str(row[0])


def _fill(part: Path) -> None:
    """An empty store: from the template of this MLflow, or by its migrations, which then become the template."""
    if sqlite_files.take_template(_template(), part) and _complete(part):
        return
    part.write_bytes(b"")
    _migrate(part)
    sqlite_files.keep_template(part, _template())


def _upgrade(path: Path, known: Contents, note: Callable[[str], None]) -> None:
    """Bring a store with history to this MLflow: on a copy, which takes its place only when nothing is missing in it."""
    copy = sqlite_files.copy_beside(path, f"mlflow-{version('mlflow')}")
    counted = _counts(path, known)

    def work(part: Path) -> None:
        sqlite_files.vacuum(copy, part)
        _unfinished(part)
        reached("store: copied")
        _migrate(part)
        if not _complete(part) or _counts(part, known) != counted:
            raise _Incomplete

    try:
        sqlite_files.make(path, work)
    except Exception as e:  # whatever a migration raises; the store itself was not touched
        if faults.full(e) or faults.closed(e):
            copy.unlink(missing_ok=True)
            raise
        earlier = [one.name for one in sqlite_files.copies(path) if one != copy]
        raise WindvaneError(
            f"{path}: an upgrade of it was cut short once, and MLflow cannot finish it; nothing was changed now. Restore "
            + (f"the copy {earlier[-1]} beside it" if earlier else "it from a backup")
            + f", then run the command again ({copy.name} is as it is now)"
        ) from e
    note(f"MLflow's store was brought to MLflow {version('mlflow')}; as it was before: {copy}")


class _Incomplete(RuntimeError):
    """A migrated store that lacks tables or rows."""


def _unfinished(part: Path) -> None:
    """Take away what a migration that was cut short left: its copy of a table, or give that the name of the one already gone."""
    known = sqlite_files.contents(part)
    with sqlite_files.opened(part) as db:
        for name in sorted(known.tables) if known else ():
            if name.startswith("_alembic_tmp_"):
                table = name.removeprefix("_alembic_tmp_")
                assert known is not None
                if table in known.tables:
                    db.execute(f'DROP TABLE "{name}"')
                else:
                    db.execute(f'ALTER TABLE "{name}" RENAME TO "{table}"')
        db.commit()


def _history(path: Path, known: Contents) -> bool:
    return any(_counts(path, known).values())


def _counts(path: Path, known: Contents) -> dict[str, int]:
    """Rows of the tables that hold history, a table's unfinished copy counted for it where it alone is left."""
    counts = {}
    tables = sqlite_files.contents(path)
    assert tables is not None
    with sqlite_files.opened(path) as db:
        for name in _HISTORY:
            here = next((t for t in (name, f"_alembic_tmp_{name}") if t in tables.tables), None)
            if name in known.tables or f"_alembic_tmp_{name}" in known.tables:
                counts[name] = 0 if here is None else int(db.execute(f'SELECT count(*) FROM "{here}"').fetchone()[0])
    return counts


def _migrate(part: Path) -> None:
    from mlflow.store.db import utils

    with _engine(part) as engine:
        if utils._is_empty_database(engine):
            utils._initialize_tables(engine)
        else:
            utils._upgrade_db(engine)


def _complete(part: Path) -> bool:
    """Whether MLflow would find all that it needs."""
    from mlflow.store.db import utils

    with _engine(part) as engine:
        return bool(utils._all_tables_exist(engine) and utils._get_schema_version(engine) == _head())


@contextmanager
def _engine(part: Path) -> Iterator[sa.Engine]:
    """An engine that leaves nothing open."""
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    engine = sa.create_engine(f"sqlite:///{part}", poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def _head() -> str:
    from mlflow.store.db import utils

    return str(utils._get_latest_schema_revision())


def _knows(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError
    from mlflow.store.db import utils

    try:
        return ScriptDirectory.from_config(utils._get_alembic_config("")).get_revision(revision) is not None
    except CommandError:
        return False


def _template() -> Path:
    """An empty, migrated store of the installed MLflow: spares each further new project its migrations."""
    return cache() / f"mlflow-{version('mlflow')}.db"


def _revision(template: Path) -> str | None:
    try:
        known = sqlite_files.contents(template)
    except (OSError, sqlite3.Error):
        return None
    return None if known is None else known.revision


def _named(path: Path) -> str:
    copies = sqlite_files.copies(path)
    return f", such as {copies[0].name}" if copies else ""
