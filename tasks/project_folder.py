"""Which folder a command works in: that of the nearest params.yaml which is Windvane's, from where it was typed upwards."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from windvane.tasks.errors import InputError

PARAMS = "params.yaml"
# Sections that every params.yaml of Windvane has. DVC's own file of that name may have any others.
_OURS = ("project", "problem")
_SECTION = re.compile(r"""^[\s{]*["']?(project|problem)["']?\s*:""", re.MULTILINE)


def enter(given: Path | None, typed: Mapping[str, Any], *, new: bool) -> tuple[Path, dict[str, Any]]:
    """Change to the project's folder; it, and `typed` with each path still naming what it named where it was typed.

    given: what `--project` says; else it is looked for upwards, or is the present folder where the project is a `new` one.
    Raises InputError where there is no such folder.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise InputError("the folder that you are in was deleted. Change to another one") from None
    root = named(given) if given is not None else here.resolve() if new else find(here)
    if root == here.resolve():
        return root, dict(typed)
    os.chdir(root)
    moved = {name: here / value if isinstance(value, Path) else value for name, value in typed.items()}
    if new and "://" not in typed["table"]:
        table = Path(os.path.normpath(here / typed["table"]))
        moved["table"] = str(table.relative_to(root) if table.is_relative_to(root) else table)
    return root, moved


def find(start: Path) -> Path:
    """The nearest folder with a params.yaml of Windvane's: `start`, or one above it. `start` itself where there is none."""
    here = start.resolve()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def named(path: Path) -> Path:
    """The folder that `--project` names, by itself or by its params.yaml. Raises InputError where there is no such folder."""
    folder = path.parent if path.name == PARAMS and not path.is_dir() else path
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "not found"
        raise InputError(f"--project {path}: {what}. Name the project's folder, or its {PARAMS}")
    return folder.resolve()


def _is_project(folder: Path) -> bool:
    """Whether the folder's params.yaml is Windvane's. One that cannot be parsed is, where it looks so: then its fault is named."""
    try:
        text = (folder / PARAMS).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return _SECTION.search(text) is not None
    return isinstance(content, dict) and any(name in content for name in _OURS)
