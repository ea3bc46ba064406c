"""Junk in any file that Windvane wrote below .windvane: never a traceback, never a lost promotion.

The files are found by walking what a lap, a look, an answer of `up` and `score` leave: a new one cannot be forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.projects import Folder, quick_project
from tests.support.running_up import standing

pytestmark = pytest.mark.slow

JUNK = {
    "truncated": lambda content: content[: len(content) // 2],
    "binary": lambda _: os.urandom(600),
    "list": lambda _: b"[]",
    "wrong types": lambda _: json.dumps(
        {"pid": [], "version": {}, "state": 3, "holder": 1, "children": 7, "told": 5}
    ).encode(),
}
# What a broken database does is tests/flows/test_environment_faults.py's matter; locks hold nothing.
APART = ("ledger.db", "mlflow.db")


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Path:
    """A project in which everything was done once."""
    project = quick_project(tmp_path_factory.mktemp("junk") / "project")
    project.set(search__trials=1, search__candidates=["linear"])
    assert project.run("train", env={"PREFECT_API_URL": prefect_server}, timeout=900).status == 0
    with standing(project) as up:
        assert up.service("GET", "/ping").status_code == 200
        kept = {p.relative_to(project.path): p.read_bytes() for p in written(project.path)}
        assert project.run("monitor").status == 0
    for name, content in kept.items():  # what `up` takes away as it ends is left behind when it is killed
        if not (project.path / name).exists() and name.suffix == ".json":
            (project.path / name).write_bytes(content)
    return project.path


def written(root: Path) -> list[Path]:
    """Every file below .windvane that is Windvane's to read."""
    found = [p for p in sorted((root / ".windvane").rglob("*")) if p.is_file() and not p.is_symlink()]
    return [p for p in found if p.suffix != ".lock" and not p.name.startswith(APART)]


def groups(root: Path) -> dict[str, list[Path]]:
    """Files that may be spoilt together: those that can be made again, and apart from them a run's model, record and others."""
    found: dict[str, list[Path]] = {name: [] for name in NAMES}
    for path in written(root):
        parts = path.relative_to(root / ".windvane").parts
        name = parts[0] if parts[0] in NAMES else "made again"
        if name == "artifacts" and "model" in parts:
            name = "artifacts: model"
        elif name == "artifacts" and path.name == "record.parquet":
            name = "artifacts: record"
        found[name].append(path)
    return found


NAMES = ("made again", "artifacts", "artifacts: model", "artifacts: record", "data", "prefect")
# Each file of a group gets another kind of junk; the small ones get each of them in turn.
EACH = [("made again", shift) for shift in range(len(JUNK))] + [(name, 0) for name in NAMES[1:]] + [("artifacts", 2)]
CASES = [pytest.param(*case, marks=() if case in EACH[::5] else pytest.mark.trial) for case in EACH]


@pytest.mark.parametrize(("name", "shift"), CASES)
def test_junk_ends_no_command_in_a_traceback_and_loses_no_promotion(
    lived_in: Path, tmp_path: Path, name: str, shift: int, prefect_server: str
) -> None:
    root = tmp_path / "project"
    shutil.copytree(lived_in, root, symlinks=True)
    spoilt = groups(root)[name]
    assert spoilt, f"nothing is left in the group {name}: take it out"
    kinds = list(JUNK.values())
    for i, path in enumerate(spoilt):
        content = path.read_bytes()
        path.unlink()  # it may be a link to DVC's cache
        path.write_bytes(kinds[(i + shift) % len(kinds)](content))
    project, before = Folder(root), promotions(root)
    env = {} if name == "prefect" else {"PREFECT_API_URL": prefect_server}
    # Another table, so that the lap reads all that the one before it left.
    lines = (root / "data" / "txhousing.csv").read_text().splitlines()
    (root / "data" / "txhousing.csv").write_text("\n".join(lines[:-40]) + "\n")
    for command in ("check", "status", "monitor", "train"):
        ran = project.run(command, env=env, timeout=900)
        assert "Traceback" not in ran.err + ran.out, f"{command}: {ran.err[-3000:]}"
        if ran.status not in (0, 2 if command == "check" else 0):
            assert ran.err.strip().splitlines()[-1].startswith("windvane: "), ran.err
        print(f"{name}, {shift}, {command}: {ran.status} {ran.err.strip()[-200:]}", file=sys.stderr)
    assert promotions(root)[: len(before)] == before


def promotions(root: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(root / ".windvane" / "ledger.db")) as db:
        return db.execute("select from_version, to_version, promoted from promotions order by id").fetchall()
