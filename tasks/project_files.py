"""The files of a project: what `windvane init` writes, what git keeps, and the stages of dvc.yaml by name."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from windvane.tasks.errors import InputError
from windvane.tasks.io import (
    ACCEPTED_SUMMARY_FILE,
    DATA_FOLDER,
    STATE_FOLDER,
    TRAINED_UNTIL_FILE,
    write_json,
    write_whole,
)
from windvane.tasks.settings import project_params
from windvane.tasks.settings.code_examples import CODE_EXAMPLES

# What a lap reports to stages about earlier laps, as it is before the first.
FIRST_STAGE_INPUTS = {TRAINED_UNTIL_FILE: {"taught_until": None}, ACCEPTED_SUMMARY_FILE: None}


def run_stage(name: str, root: Path) -> None:
    """Do the work of a stage in this folder, as its params.yaml sets. Raises WindvaneError."""
    from windvane.tasks.ingest import ingestion
    from windvane.tasks.split import data_split
    from windvane.tasks.validate import table_validation

    write_stage_inputs(root)
    stages = {
        "ingest": ingestion.run_ingest,
        "validate": table_validation.run_validation,
        "split": data_split.run_split,
    }
    stages[name](root, project_params.load_settings(root / project_params.PARAMS_FILE))


def write_stage_inputs(root: Path) -> None:
    """Write the files through which laps speak to stages, where there are none yet."""
    for path, content in FIRST_STAGE_INPUTS.items():
        if not (root / path).exists():
            write_json(content, root / path)


# What git must not hold: tables, models, predictions and secrets. DVC keeps its own cache out by .dvc/.gitignore.
IGNORE_RULE = f"/{STATE_FOLDER}/"
_SAME_IGNORE_RULES = {IGNORE_RULE, f"/{STATE_FOLDER}", f"{STATE_FOLDER}/", f"{STATE_FOLDER}"}
# What a person commits after `init`; dvc.lock joins them with the first lap.
COMMITTED_FILES = (
    "params.yaml",
    "schema.yaml",
    "dvc.yaml",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".gitignore",
)
_WRITTEN_FILES = (
    *COMMITTED_FILES,
    *CODE_EXAMPLES,
    ".dvc/config.local",
    *(path.as_posix() for path in FIRST_STAGE_INPUTS),
)
# From the innermost outwards.
_WRITTEN_FOLDERS = (".dvc", DATA_FOLDER.as_posix(), STATE_FOLDER.as_posix())


@contextmanager
def undo_on_failure(root: Path) -> Iterator[None]:
    """Put every file that `init` writes back to what it was, should the work inside fail.

    Raises InputError in place of an OSError: what could not be written, and why.
    """
    before = {name: path.read_bytes() if (path := root / name).is_file() else None for name in _WRITTEN_FILES}
    copies = set(root.glob("*.yaml.bak*"))
    try:
        yield
    except BaseException as e:
        for path in set(root.glob("*.yaml.bak*")) - copies:
            path.unlink()
        for name, content in before.items():
            path = root / name
            now = path.read_bytes() if path.is_file() else None
            if content is None and now is not None:
                path.unlink()
            elif content is not None and now != content:
                write_whole(path, partial(Path.write_bytes, data=content))
        for name in _WRITTEN_FOLDERS:
            with suppress(OSError):  # not there, or not empty
                (root / name).rmdir()
        if isinstance(e, OSError):
            where, why = e.filename2 or e.filename or root, e.strerror or type(e).__name__
            message = f"{where}: cannot be written ({why}). Nothing was changed: fix that, then run it again"
            raise InputError(message) from e
        raise


def ignore_state_folder(root: Path) -> bool:
    """Have git pass over .windvane: a line in .gitignore, unless there is one. Whether it was added."""
    if not _missing(root):
        return False
    path = root / ".gitignore"
    before = path.read_bytes() if path.exists() else b""
    start = before if not before or before.endswith(b"\n") else before + b"\n"
    write_whole(path, lambda part: part.write_bytes(start + IGNORE_RULE.encode() + b"\n"))
    return True


def is_state_tracked(root: Path) -> bool:
    """Whether git holds files of .windvane."""
    command = ["git", "ls-files", "--", STATE_FOLDER.as_posix()]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:  # no git, no repository
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def explain_tracked_state(root: Path) -> InputError:
    """The message where git holds .windvane."""
    line = "" if not _missing(root) else f" && echo {IGNORE_RULE} >> .gitignore"
    return InputError(
        f"{root / STATE_FOLDER}: is tracked by git, and with it data, models, predictions and secrets. Take it out of git (the files "
        f"stay), then commit: cd {shlex.quote(str(root))} && git rm -r -q --cached {STATE_FOLDER}{line}"
    )


def _missing(root: Path) -> bool:
    path = root / ".gitignore"
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    return not any(line.strip() in _SAME_IGNORE_RULES for line in text.splitlines())
