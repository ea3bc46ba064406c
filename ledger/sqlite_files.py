"""SQLite files (ledger, MLflow, Prefect) that are complete or absent: made under another name and renamed, copied before an upgrade."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from windvane.ledger.failpoints import hit_failpoint

# What SQLite keeps beside a database; left behind by a deleted one, it would be read into the next.
SIDE_FILE_SUFFIXES = ("-wal", "-shm", "-journal")
# How long a reader waits for a writer that commits just now.
SQLITE_BUSY_SECONDS = 20


@dataclass(frozen=True)
class DatabaseContents:
    """A database's tables, and the migration that it was brought to last; None where it does not name one."""

    tables: frozenset[str]
    revision: str | None

    @property
    def half_made(self) -> bool:
        """Whether a migration was cut short: Alembic's work in progress is there, or the note of what it did is not."""
        return self.revision is None or any(name.startswith("_alembic_tmp_") for name in self.tables)


def inspect_database(path: Path) -> DatabaseContents | None:
    """What a database holds; None where there is no file or no table. Raises sqlite3.DatabaseError for a file that is no database."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    with open_database(path) as db:
        tables = frozenset(name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        rows = db.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
    return DatabaseContents(tables, rows[0][0] if rows else None) if tables else None


def open_database(path: Path) -> closing[sqlite3.Connection]:
    """A connection to a database that is there; it is never made by opening it."""
    return closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=SQLITE_BUSY_SECONDS))


def is_database_sound(path: Path) -> bool:
    """Whether every page of a database can be read and agrees with the others. Reads all of it."""
    try:
        with open_database(path) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def create_database(path: Path, work: Callable[[Path], object]) -> None:
    """Have `work` make a database under another name, then rename it to `path`: it is there whole, or not at all.

    Call under a lock of your own. What an earlier, killed attempt left is deleted first.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part*"):
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o600))
        hit_failpoint("store: begin")
        work(part)
        hit_failpoint("store: migrated")
        _finalize_database(part)
        hit_failpoint("store: settled")
        for suffix in SIDE_FILE_SUFFIXES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(part, path)
        _fsync_folder(path.parent)
        hit_failpoint("store: renamed")
    finally:
        for suffix in ("", *SIDE_FILE_SUFFIXES):
            Path(f"{part}{suffix}").unlink(missing_ok=True)


def vacuum_into(source: Path, into: Path) -> None:
    """Write a database's content, with what still is in its write-ahead log, to an empty or missing file."""
    with open_database(source) as db:
        db.execute("VACUUM INTO ?", (str(into),))


def back_up_database(path: Path, before: str) -> Path:
    """A copy of a database beside it, named after what is about to be done and when; whole or not at all."""
    copy = _name_after_now(path, f"before-{before}")
    create_database(copy, lambda part: vacuum_into(path, part))
    return copy


def _name_after_now(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}-{what}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{path.suffix}")


def list_backups(path: Path) -> list[Path]:
    """The copies that back_up_database() took of a database, the newest first."""
    found = path.parent.glob(f"{path.stem}-before-*{path.suffix}")
    return sorted(found, key=lambda copy: copy.name.rsplit("-", 1)[-1], reverse=True)


def set_aside_database(path: Path) -> Path:
    """Rename a damaged database, with what belongs to it, so that another can be made; its new name."""
    aside = _name_after_now(path, "damaged")
    for suffix in (*SIDE_FILE_SUFFIXES, ""):
        if Path(f"{path}{suffix}").exists():
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


def copy_template(template: Path, part: Path) -> bool:
    """Fill `part` from a ready-made database; False, and `part` is empty, where that is missing, half-made or junk."""
    try:
        shutil.copyfile(template, part)
        known = inspect_database(part)
        if known is not None and not known.half_made and is_database_sound(part):
            return True
    except (sqlite3.Error, FileNotFoundError):
        pass  # junk: the next database is made without it, and replaces it
    part.write_bytes(b"")
    for suffix in SIDE_FILE_SUFFIXES:
        Path(f"{part}{suffix}").unlink(missing_ok=True)
    return False


def save_template(database: Path, template: Path) -> None:
    """Keep a database as template for the next; a cache that cannot be written costs time, nothing else."""
    with suppress(OSError, sqlite3.Error):
        create_database(template, lambda part: vacuum_into(database, part))


def _finalize_database(part: Path) -> None:
    """Bring all of a database into the one file, and that to the disk. Raises sqlite3.DatabaseError unless it is sound."""
    with open_database(part) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        mode = db.execute("PRAGMA journal_mode").fetchone()[0]
        # Leaving write-ahead mode empties the log and deletes it; afterwards the file is set to it again.
        db.execute("PRAGMA journal_mode=DELETE")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError(f"{part}: was not written as it should be")
        if mode == "wal":
            db.execute("PRAGMA journal_mode=WAL")
    with part.open("rb+") as f:
        os.fsync(f.fileno())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
