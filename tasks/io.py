"""Where Windvane keeps its own files, who may read them, and how files are written: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from windvane.tasks.errors import Corrupted

STATE_FOLDER = Path(".windvane")
# What DVC's stages write, and what is fetched for them to read.
DATA_FOLDER = STATE_FOLDER / "data"
# What laps hand to stages about earlier laps, as files: up to where the champion was trained, and the digest of the last
# accepted table. What a stage read from a ledger would not be pure.
TRAINED_UNTIL_FILE = DATA_FOLDER / "taught_until.json"
ACCEPTED_SUMMARY_FILE = DATA_FOLDER / "accepted.json"

# In the environment, so that children know it too: the umask that the user had before keep_private().
_UMASK = "WINDVANE_UMASK"


def set_private_umask() -> None:
    """At the start of every process of ours: what it makes is for its owner alone, whatever the umask was."""
    before = os.umask(0o077)
    os.environ.setdefault(_UMASK, f"{before:o}")


def choose_file_mode(path: Path) -> int:
    """The mode of a file that is written at `path`: 0600 below .windvane; elsewhere that of the file which it replaces, or
    the user's own umask.
    """
    if STATE_FOLDER.name in path.absolute().parts:
        return 0o600
    if path.exists():
        return path.stat().st_mode & 0o777
    if _UMASK in os.environ:
        return 0o666 & ~int(os.environ[_UMASK], 8)
    before = os.umask(0o077)  # the only way to read it
    os.umask(before)
    return 0o666 & ~before


def apply_user_umask(path: Path) -> None:
    """Give a file or folder that a library made outside of .windvane the mode that the user's umask gives."""
    if _UMASK in os.environ and path.exists() and path.stat().st_uid == os.geteuid():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~int(os.environ[_UMASK], 8))


def cache_folder() -> Path:
    """Where this account keeps what all its projects may share; all of it can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windvane"


T = TypeVar("T")

# What to do about a file that only a backup holds.
RESTORE_REMEDY = "Restore it from a backup"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour, then rename: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        write(part)
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Rename a file, written whole on the same disk, into place, once it surely lies there. Below .windvane it is its owner's
    alone, elsewhere it has the mode that the user's files have.
    """
    part.chmod(choose_file_mode(path))
    with part.open("rb+") as f:
        os.fsync(f.fileno())
    os.replace(part, path)


def write_json(content: Any, path: Path) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_record(path: Path, make: Callable[[Any], T], remedy: str = RESTORE_REMEDY) -> T:
    """What `make` makes of a JSON file that Windvane wrote. Raises FileNotFoundError, and Corrupted where it cannot be made."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise Corrupted(f"{path}: is damaged ({e}). {remedy}") from e
    try:
        return make(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise Corrupted(f"{path}: is damaged ({type(e).__name__}: {e}). {remedy}") from e


def read_cache(path: Path, make: Callable[[Any], T]) -> T | None:
    """As read_record(), of what can be made again: None where there is no such file, or it is damaged."""
    try:
        return read_record(path, make)
    except (FileNotFoundError, Corrupted):
        return None
