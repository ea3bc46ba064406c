"""Failures of the disk and of rights, in a sentence with their remedy, wherever they come up: full, read-only, damaged."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from windvane.tasks.errors import Corrupted, InputError, WindvaneError

# With less than this free, whatever failed had no room.
NO_ROOM_BYTES = 256 * 1024
# A first lap on a small table writes some 10 MB: with less, it would end in the middle.
LITTLE_ROOM_BYTES = 50_000_000

_FULL = ("no space left on device", "disk quota exceeded", "database or disk is full", "not enough space")
_CLOSED = (
    "read-only file system",
    "attempt to write a readonly database",
    "permission denied",
    "unable to open database file",
)
_DAMAGED = (
    "file is not a database",
    "database disk image is malformed",
    "file is encrypted",
    "malformed database schema",
)


def full(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that a disk is full."""
    return any(
        (isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)) or _says(e, _FULL) for e in _behind(error)
    )


def closed(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that something must not be written or read."""
    codes = (errno.EROFS, errno.EACCES, errno.EPERM)
    return any((isinstance(e, OSError) and e.errno in codes) or _says(e, _CLOSED) for e in _behind(error))


def damaged(error: BaseException) -> bool:
    """Whether an error, or one behind it, says that an SQLite file is none, or none any more."""
    return any(_says(e, _DAMAGED) for e in _behind(error))


def explain(error: BaseException, place: Path) -> WindvaneError | None:
    """The sentence for an error of the disk or of rights, or None where it is about something else.

    place: the file or folder in use, named where the error names none.
    """
    if isinstance(error, WindvaneError):
        return None
    named = next((Path(str(e.filename)) for e in _behind(error) if isinstance(e, OSError) and e.filename), place)
    if full(error) or no_room(place):
        return disk_full(place)
    if closed(error):
        return InputError(
            f"{named}: cannot be read or written ({_reason(error)}). Give yourself the right to it (chmod, chown, or a mount that "
            "is not read-only), then run the command again"
        )
    if damaged(error):
        return Corrupted(_which(place))
    return None


def writable(folder: Path) -> None:
    """For `check`: make and delete a file of LITTLE_ROOM_BYTES in a folder. Raises what explain() makes of it."""
    if not folder.exists():
        folder = folder.parent
    trial = folder / f".windvane-{secrets.token_hex(4)}.part"
    try:
        if shutil.disk_usage(folder).free < LITTLE_ROOM_BYTES:
            raise WindvaneError(
                f"{folder}: the disk has less than {LITTLE_ROOM_BYTES // 1_000_000} MB left. Free some space: a lap needs more"
            )
        trial.write_bytes(b" ")
    except OSError as e:
        raise explain(OSError(e.errno, e.strerror, str(folder)), folder) or e from e
    finally:
        trial.unlink(missing_ok=True)


def disk_full(place: Path) -> WindvaneError:
    """The sentence for a disk without room."""
    return WindvaneError(
        f"{place}: the disk is full. Free some space, then run the same command again: what was finished is kept"
    )


def no_room(place: Path) -> bool:
    """Whether the disk of a folder (or of the nearest one that is there) has no room left."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free < NO_ROOM_BYTES
    except OSError:
        return False


def _which(home: Path) -> str:
    """Name the damaged one of a project's databases, and what to do."""
    from windvane.ledger import sqlite_files

    found = [home / name for name in ("ledger.db", "mlflow.db") if (home / name).exists()]
    broken = [path for path in found if not sqlite_files.sound(path)]
    return damaged_file(broken[0]) if broken else f"{home}: one of its databases is damaged. Restore it from a backup"


def damaged_file(path: Path) -> str:
    """The sentence for a damaged database: which copy of it there is, else what is lost without it."""
    from windvane.ledger import sqlite_files

    copies = sqlite_files.copies(path)
    instead = f"or from the copy {copies[0].name} beside it" if copies else "Windvane itself took no copy"
    return f"{path}: is damaged; nothing was changed in it. Restore it from a backup ({instead}), then run the command again"


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__cause__, one.__context__, getattr(one, "orig", None)]


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(word in said for word in words)


def _reason(error: BaseException) -> str:
    for e in _behind(error):
        if isinstance(e, OSError) and e.strerror:
            return e.strerror
    return next(word for e in _behind(error) for word in _CLOSED if _says(e, (word,)))
