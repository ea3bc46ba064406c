"""This repository as a project: a lap in a fresh clone of it, as `make train` runs one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Folder, missing

pytestmark = pytest.mark.slow


def test_a_lap_runs_in_a_fresh_clone_and_changes_nothing_that_git_tracks(tmp_path: Path) -> None:
    """Nothing that only the builders' folder has is needed, and no file of the clone is taken for another one."""
    git = shutil.which("git") or missing("git")
    clone = tmp_path / "clone"
    subprocess.run([str(git), "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    folder = Folder(clone)
    folder.set(search__trials=2, search__candidates=["linear"])
    lap = folder.train()
    assert (lap["verdict"], lap["version"]) == ("promoted", 1)
    changed = subprocess.run([str(git), "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert {line[3:] for line in changed.stdout.splitlines()} <= {"params.yaml", "dvc.lock"}
