"""What a process sets up first: the project's folder, and environment variables that switch off usage statistics of libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from windvane.tasks.errors import InputError

PROJECT_FILE = "params.yaml"
# Sections that every params.yaml of Windvane has. DVC's own file of that name may have any others.
_OURS = ("project", "problem")
_SECTION = re.compile(r"""^[\s{]*["']?(project|problem)["']?\s*:""", re.MULTILINE)


def enter_project(given: Path | None, typed: Mapping[str, Any], *, new: bool) -> tuple[Path, dict[str, Any]]:
    """Change to the project's folder; it, and `typed` with each path still naming what it named where it was typed.

    given: the value of `--project`; else it is looked for upwards, or is the present folder where the project is a `new` one.
    Raises InputError where there is no such folder.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise InputError("the folder that you are in was deleted. Change to another one") from None
    root = resolve_project(given) if given is not None else here.resolve() if new else find_project(here)
    if root == here.resolve():
        return root, dict(typed)
    os.chdir(root)
    moved = {name: here / value if isinstance(value, Path) else value for name, value in typed.items()}
    if new and "://" not in typed["table"]:
        table = Path(os.path.normpath(here / typed["table"]))
        moved["table"] = str(table.relative_to(root) if table.is_relative_to(root) else table)
    return root, moved


def find_project(start: Path) -> Path:
    """The nearest folder with a params.yaml of Windvane's: `start`, or one above it. `start` itself where there is none."""
    here = start.resolve()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def resolve_project(path: Path) -> Path:
    """The folder that `--project` names, by itself or by its params.yaml. Raises InputError where there is no such folder."""
    folder = path.parent if path.name == PROJECT_FILE and not path.is_dir() else path
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "not found"
        raise InputError(f"--project {path}: {what}. Name the project's folder, or its {PROJECT_FILE}")
    return folder.resolve()


def _is_project(folder: Path) -> bool:
    """Whether the folder's params.yaml is Windvane's. One that cannot be parsed is, where it resembles one: then its fault is named."""
    try:
        text = (folder / PROJECT_FILE).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return _SECTION.search(text) is not None
    return isinstance(content, dict) and any(name in content for name in _OURS)


# Usage statistics, off whatever the environment sets. Each is read at its library's import, or later. Optuna, Polars and
# scikit-learn send none; DVC's own setting is in its configuration too (tasks/stores/dvc_pipeline.py).
TELEMETRY_OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",  # Evidently, Prefect, and others that follow the convention
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # ONNX Runtime sends events to its makers since 1.29, also on Linux; only this, set before its import, stops all of them.
    "ORT_DISABLE_TELEMETRY": "1",
}
# Where the user has set another value, that counts.
LIBRARY_DEFAULTS: Mapping[str, str] = {
    # Progress bars, "View run ... at" and log lines are no output of a command; the last costs a request per run, too.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A stored model has requirements of its own; a uv.lock in the project's folder is that of something else.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # Through the server, as with uploads: the storage behind it need not be reachable from here. A request less per file, too.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    # A server that is away is waited for about a quarter of a minute (0, 2, 4 and 8 s), not four.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "PREFECT_LOGGING_COLORS": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def set_library_environment() -> None:
    """Set all of it, for this process and those that it starts. Call before any of the libraries is imported."""
    os.environ.update(TELEMETRY_OFF)
    for name, value in LIBRARY_DEFAULTS.items():
        os.environ.setdefault(name, value)


def count_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
