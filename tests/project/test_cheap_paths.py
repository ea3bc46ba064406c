"""The paths that must start fast, and the heavy libraries that each does without. Elsewhere imports stand at the top."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Folder, quick_project

FITTING = {"sklearn", "scipy", "matplotlib", "mlflow", "prefect", "evidently", "optuna", "skops", "imblearn", "alembic"}
TABLES = {"numpy", "pandas", "polars", "pyarrow"}
# Command -> what it does not import, on a project whose model serves and whose data are as they were. `serve`, which runs on:
# tests/serving/test_champion_swaps.py.
CHEAP_PATHS = {
    "status": FITTING | TABLES | {"dvc", "jinja2", "apprise", "rich"},
    "versions": FITTING | TABLES | {"dvc", "jinja2", "apprise"},
    "train": FITTING | TABLES | {"jinja2", "apprise"},
    # With traffic it does without tables too: tests/monitoring/test_monitoring_pass.py.
    "monitor": FITTING | {"dvc", "jinja2"},
    "check": FITTING | {"dvc", "jinja2", "apprise", "rich"},
}
HELP = FITTING | TABLES | {"dvc", "jinja2", "sqlalchemy", "pydantic", "apprise", "rich"}


def imported_by(folder: Path, *arguments: str) -> set[str]:
    """Top-level packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "windvane.cli.main", *arguments],
        cwd=folder,
        env=Folder(folder).environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("command", [[], ["train"], ["init"], ["score"], ["up"]])
def test_help_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    assert not imported_by(tmp_path, *command, "--help") & HELP


def test_init_needs_no_library_that_fits(tmp_path: Path) -> None:
    shutil.copy(ROOT / "data" / "txhousing.csv", tmp_path)
    assert not imported_by(tmp_path, "init", "txhousing.csv", "--target", "median") & FITTING


@pytest.mark.slow
def test_cheap_paths_import_nothing_heavy(tmp_path: Path) -> None:
    project = quick_project(tmp_path / "project")
    project.train()
    assert project.run("monitor").status == 0  # the first pass; what follows finds nothing new
    heavy = {command: sorted(imported_by(project.path, command) & without) for command, without in CHEAP_PATHS.items()}
    assert heavy == {command: [] for command in CHEAP_PATHS}
