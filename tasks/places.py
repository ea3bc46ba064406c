"""Where Windvane keeps what is its own in a project, and who may read it: below .windvane, for the owner's eyes alone.

Nothing else of a project is Windvane's, but for the files that people edit: those are written as the user's umask says.
"""

from __future__ import annotations

import os
from pathlib import Path

HOME = Path(".windvane")
# What DVC's stages write, and what is fetched for them to read.
DATA = HOME / "data"

# In the environment, so that children know it too: the umask that the user had before keep_private().
_UMASK = "WINDVANE_UMASK"


def keep_private() -> None:
    """At the start of every process of ours: what it makes is for its owner alone, whatever the umask was."""
    before = os.umask(0o077)
    os.environ.setdefault(_UMASK, f"{before:o}")


def mode_for(path: Path) -> int:
    """The mode of a file that is written at `path`: 0600 below .windvane; elsewhere that of the file which it replaces, or
    what the user's own umask says.
    """
    if HOME.name in path.absolute().parts:
        return 0o600
    if path.exists():
        return path.stat().st_mode & 0o777
    if _UMASK in os.environ:
        return 0o666 & ~int(os.environ[_UMASK], 8)
    before = os.umask(0o077)  # the only way to read it
    os.umask(before)
    return 0o666 & ~before


def as_the_user_wants(path: Path) -> None:
    """Give a file or folder that a library made outside of .windvane the mode that the user's umask gives."""
    if _UMASK in os.environ and path.exists() and path.stat().st_uid == os.geteuid():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~int(os.environ[_UMASK], 8))


def repair(root: Path) -> None:
    """Close the folders of a project that an earlier version left open to others: whoever cannot enter reads nothing in them."""
    for folder in (root / HOME, root / ".dvc" / "cache", root / ".dvc" / "tmp"):
        if folder.is_dir() and folder.stat().st_mode & 0o077 and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
            for path in folder.rglob("*") if folder.name == HOME.name else ():
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o077)


def cache() -> Path:
    """Where this account keeps what all its projects may share; all of it can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windvane"
