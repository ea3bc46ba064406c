"""What is Windvane's own is its owner's alone, whatever the umask; what is the user's has the modes that the user wants."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Folder
from tests.support.running_up import standing
from windvane.tasks import io

pytestmark = pytest.mark.long


@contextmanager
def umask(value: int) -> Iterator[None]:
    """What the processes that are started meanwhile inherit."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> dict[str, str]:
    """What below a folder, and the folder itself, somebody else could read, write or enter."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    return {str(path.relative_to(folder)): oct(mode(path)) for path in paths if path.exists() and mode(path) & 0o077}


@pytest.mark.slow
def test_a_lap_scores_and_everything_that_stands_are_private_and_the_users_files_are_the_users(
    project: Folder, prefect_server: str
) -> None:
    with umask(0o000):
        lap = project.run("train", env={"PREFECT_API_URL": prefect_server}, timeout=900)
        assert lap.status == 0, lap.err
        with standing(project) as up:
            assert up.service("GET", "/ping").status_code == 200
            assert open_to_others(project.path / ".windvane") == {}
    with umask(0o022):
        assert project.run("score", "data/txhousing.csv", "out.csv").status == 0
        assert project.run("monitor").status == 0
    with umask(0o000):
        assert project.run("score", "data/txhousing.csv", "open.csv").status == 0
    assert open_to_others(project.path / ".windvane") == {}
    assert mode(project.path / ".dvc" / "cache") == 0o700
    assert mode(project.path / "out.csv") == 0o644
    assert mode(project.path / "open.csv") == 0o666
    assert mode(project.path / "schema.yaml") == 0o666
    assert mode(project.path / "dvc.lock") in (0o666, 0o644)
    assert mode(project.path / ".dvc" / "config") == 0o666
    assert mode(project.path / ".dvc") == 0o777


def test_init_writes_files_for_everybody_whom_the_umask_lets_in(empty: Folder) -> None:
    shutil.copy(ROOT / "data" / "txhousing.csv", empty.path / "t.csv")
    with umask(0o027):
        assert empty.run("init", "t.csv", "--target", "median").status == 0
    assert {mode(empty.path / name) for name in ("params.yaml", "schema.yaml", "dvc.yaml", ".dvc/config")} == {0o640}
    assert open_to_others(empty.path / ".windvane") == {}


def test_a_file_that_is_written_again_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.touch(mode=0o600)
    path.chmod(0o604)
    io.write_json([], path)
    assert mode(path) == 0o604


def test_the_umask_of_the_user_is_handed_on_to_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib; from windvane.tasks import io; io.set_private_umask();"
        "again = sys.argv[1:]; "
        "subprocess.run([sys.executable, '-c', again[0]], check=True) if again else "
        "(io.write_json(1, pathlib.Path('a')), io.write_json(1, pathlib.Path('.windvane/b')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "WINDVANE_UMASK"}
    with umask(0o002):
        subprocess.run([sys.executable, "-c", code, code], cwd=tmp_path, env=environment, check=True)
    assert [mode(tmp_path / "a"), mode(tmp_path / ".windvane"), mode(tmp_path / ".windvane" / "b")] == [
        0o664,
        0o700,
        0o600,
    ]
