"""What can go wrong, and who must act: every message states what, where, and what to do next. Also errors of disks in words."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of one fault in many places, so many are named in a message.
LISTED_MESSAGES = 5


def join_messages(messages: Iterable[str]) -> str:
    """Messages of one type as one: the first SHOWN, and how many more there are."""
    text = list(messages)
    more = [f"and {len(text) - LISTED_MESSAGES} more such columns"] if len(text) > LISTED_MESSAGES else []
    return "; ".join([*text[:LISTED_MESSAGES], *more])


def read_first_line(error: BaseException) -> str:
    """The first line of an error's text, without a full stop; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class WindvaneError(Exception):
    """Base of all errors raised on purpose; its text is shown to the user as it is."""

    exit_code = 1


class InputError(WindvaneError):
    """The user's input is at fault: one message that states what, where, and what to do."""

    exit_code = 2


class Outage(WindvaneError):
    """A store or server that should respond does not. Never to be read as "there is none"."""


class Corrupted(WindvaneError):
    """Stored bytes differ from the hash that was recorded when they were written."""


class SealedError(WindvaneError):
    """The test split was opened a second time, or outside the evaluation."""


# With less than this free, whatever failed had no room.
FULL_DISK_BYTES = 256 * 1024
# A first lap on a small table writes some 10 MB: with less, it would end in the middle.
MIN_FREE_BYTES = 50_000_000

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


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one behind it, means that a disk is full."""
    return _has_errno(error, errno.ENOSPC, errno.EDQUOT) or _mentions(error, _FULL)


def is_access_denied(error: BaseException) -> bool:
    """Whether an error, or one behind it, means that something must not be written or read."""
    return _has_errno(error, errno.EROFS, errno.EACCES, errno.EPERM) or _mentions(error, _CLOSED)


def is_database_damaged(error: BaseException) -> bool:
    """Whether an error, or one behind it, means that an SQLite file is none, or none any more."""
    return _mentions(error, _DAMAGED)


def explain_disk_error(error: BaseException, place: Path) -> WindvaneError | None:
    """The sentence for an error of the disk or of rights, or None where it is about something else.

    place: the file or folder in use, named where the error names none.
    """
    if isinstance(error, WindvaneError):
        return None
    if is_disk_full(error) or has_no_room(place):
        return make_disk_full_error(place)
    if is_access_denied(error):
        causes = [e for e in _list_causes(error) if isinstance(e, OSError)]
        named = next((e.filename for e in causes if e.filename), place)
        text = next((e.strerror for e in causes if e.strerror), None) or next(
            w for w in _CLOSED if _mentions(error, (w,))
        )
        return InputError(
            f"{named}: cannot be read or written ({text}). Give yourself the right to it (chmod, chown, or a mount that "
            "is not read-only), then run the command again"
        )
    if is_database_damaged(error):
        return Corrupted(_name_damaged_database(place))
    return None


def check_writable(folder: Path) -> None:
    """For `check`: whether files can be made in a folder, and MIN_FREE_BYTES are free. Raises what explain() makes of it."""
    if not folder.exists():
        folder = folder.parent
    trial = folder / f".windvane-{secrets.token_hex(4)}.part"
    try:
        trial.write_bytes(b" ")
    except OSError as e:
        raise explain_disk_error(OSError(e.errno, e.strerror, str(folder)), folder) or e from e
    finally:
        trial.unlink(missing_ok=True)
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        raise WindvaneError(
            f"{folder}: the disk has less than {MIN_FREE_BYTES // 1_000_000} MB left. Free some space: a lap needs more"
        )


def make_disk_full_error(place: Path) -> WindvaneError:
    """The sentence for a disk without room."""
    return WindvaneError(
        f"{place}: the disk is full. Free some space, then run the same command again: what was finished is kept"
    )


def has_no_room(place: Path) -> bool:
    """Whether the disk of a folder (or of the nearest one that is there) has no room left."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free < FULL_DISK_BYTES
    except OSError:
        return False


def log_reports_full_disk(log: Path) -> bool:
    """Whether the end of a log, of a process that died, shows that a disk is full."""
    try:
        words = log.read_bytes()[-100_000:].decode("utf-8", "replace").lower()
    except OSError:
        return False
    return any(word in words for word in _FULL)


def _name_damaged_database(home: Path) -> str:
    """Name the damaged one of a project's databases, and what to do."""
    from windvane.ledger import sqlite_files

    for path in (home / "ledger.db", home / "mlflow.db"):
        if path.exists() and not sqlite_files.is_database_sound(path):
            return describe_damaged_database(path)
    return f"{home}: one of its databases is damaged. Restore it from a backup"


def describe_damaged_database(path: Path) -> str:
    """The sentence for a damaged database: which copy of it there is, else what is lost without it."""
    from windvane.ledger import sqlite_files

    copies = sqlite_files.list_backups(path)
    instead = f"or from the copy {copies[0].name} beside it" if copies else "Windvane itself took no copy"
    return f"{path}: is damaged; nothing was changed in it. Restore it from a backup ({instead}), then run the command again"


def _list_causes(error: BaseException) -> Iterator[BaseException]:
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


def _has_errno(error: BaseException, *codes: int) -> bool:
    return any(isinstance(e, OSError) and e.errno in codes for e in _list_causes(error))


def _mentions(error: BaseException, words: tuple[str, ...]) -> bool:
    text = "\n".join(str(e).lower() for e in _list_causes(error))
    return any(word in text for word in words)
