"""The fingerprint's code: an edit of what shapes a model changes it, an edit of anything else does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from windvane.tasks.stores import fingerprint


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of tasks/, whose code is hashed."""
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "tasks" / "stores" / "fingerprint.py"))
    return tmp_path / "tasks"


def edited(path: Path) -> str:
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    return fingerprint.hash_model_code()


@pytest.mark.parametrize(
    "name",
    [
        "split/strategies.py",
        "models/problem_types/classification.py",
        "models/features.py",
        "ingest/readers.py",
        "io.py",
    ],
)
def test_what_shapes_a_model_is_in_the_code(copied: Path, name: str) -> None:
    before = fingerprint.hash_model_code()
    assert edited(copied / name) != before


@pytest.mark.parametrize("name", ["reports/style.py", "evaluation/plots.py", "console.py", "stores/mlflow_client.py"])
def test_what_shapes_none_is_not(copied: Path, name: str) -> None:
    before = fingerprint.hash_model_code()
    assert edited(copied / name) == before
