"""The files that `windvane init` writes into a project: all of them or none, and which of them git is to keep."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from windvane.tasks import stage
from windvane.tasks.errors import InputError
from windvane.tasks.places import DATA, HOME
from windvane.tasks.tables import write_whole

# What git must not hold: tables, models, predictions and secrets. DVC keeps its own cache out by .dvc/.gitignore.
IGNORED = f"/{HOME}/"
_SAME = {IGNORED, f"/{HOME}", f"{HOME}/", f"{HOME}"}
# What a person commits after `init`; dvc.lock joins them with the first lap.
COMMITTED = ("params.yaml", "schema.yaml", "dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".gitignore")
_WRITTEN = (*COMMITTED, ".dvc/config.local", *(path.as_posix() for path in stage.BEFORE_THE_FIRST_LAP))
# From the innermost outwards.
_FOLDERS = (".dvc", DATA.as_posix(), HOME.as_posix())


@contextmanager
def all_or_nothing(root: Path) -> Iterator[None]:
    """Put every file that `init` writes back to what it was, should the work inside fail.

    Raises InputError in place of an OSError: what could not be written, and why.
    """
    before = {name: path.read_bytes() if (path := root / name).is_file() else None for name in _WRITTEN}
    copies = set(root.glob("*.yaml.bak*"))
    try:
        yield
    except BaseException as e:
        for path in set(root.glob("*.yaml.bak*")) - copies:
            path.unlink()
        for name, content in before.items():
            _restore(root / name, content)
        for name in _FOLDERS:
            with suppress(OSError):  # not there, or not empty
                (root / name).rmdir()
        if isinstance(e, OSError):
            where, why = e.filename2 or e.filename or root, e.strerror or type(e).__name__
            raise InputError(
                f"{where}: cannot be written ({why}). Nothing was changed: fix that, then run it again"
            ) from e
        raise


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        if path.is_file():
            path.unlink()
    elif not path.is_file() or path.read_bytes() != content:
        write_whole(path, lambda part: part.write_bytes(content))


def ignore(root: Path) -> bool:
    """Have git pass over .windvane: a line in .gitignore, unless there is one. Whether it was added."""
    if not _missing(root):
        return False
    path = root / ".gitignore"
    before = path.read_bytes() if path.exists() else b""
    start = before if not before or before.endswith(b"\n") else before + b"\n"
    write_whole(path, lambda part: part.write_bytes(start + IGNORED.encode() + b"\n"))
    return True


def tracked(root: Path) -> bool:
    """Whether git holds files of .windvane."""
    command = ["git", "ls-files", "--", HOME.as_posix()]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:  # no git, no repository
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def untrack(root: Path) -> InputError:
    """What is said where git holds .windvane."""
    line = "" if not _missing(root) else f" && echo {IGNORED} >> .gitignore"
    return InputError(
        f"{root / HOME}: is tracked by git, and with it data, models, predictions and secrets. Take it out of git (the files "
        f"stay), then commit: cd {shlex.quote(str(root))} && git rm -r -q --cached {HOME}{line}"
    )


def _missing(root: Path) -> bool:
    path = root / ".gitignore"
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    return not any(line.strip() in _SAME for line in text.splitlines())
