"""The rules of the house that can be counted: names, folders, parameters, circles, and what the fingerprint of a model sees."""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest

from benchmarks import structure
from tests.support.projects import ROOT
from windvane.tasks.settings import project_params
from windvane.tasks.stores import fingerprint

MAX_FOLDER_FILES = 20
FILES = structure.sources(ROOT)
TREES = {path: ast.parse(text, path) for path, text in FILES.items()}


def test_no_public_class_name_stands_in_two_files() -> None:
    assert structure.defined_twice(TREES, ast.ClassDef) == {}


def test_no_folder_holds_more_than_twenty_files() -> None:
    folders = Counter(path.rsplit("/", 1)[0] for path in FILES)
    assert {folder: count for folder, count in folders.items() if count > MAX_FOLDER_FILES} == {}


def test_no_function_has_more_than_seven_parameters_but_the_command_lines() -> None:
    wide = [
        f"{path}:{function.name}"
        for path, tree in TREES.items()
        for function in structure.functions(tree)
        if structure.too_many_parameters(function)
    ]
    assert wide == []


def test_no_imports_go_in_a_circle_not_even_those_inside_functions() -> None:
    imports = {path: list(structure.imported(path, tree, FILES.keys())) for path, tree in TREES.items()}
    assert structure.circles_of(imports, {"top", "function"}) == []


# the fingerprint -------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the rooms to edit, which tasks/stores/fingerprint.py takes for its own."""
    for room in ("cli", "flows", "tasks", "templates"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    own = fingerprint.hash_model_code()
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "tasks" / "stores" / "fingerprint.py"))
    assert fingerprint.hash_model_code() == own
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text, f"{path}: no {before!r} to edit"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_what_shapes_no_model_leaves_the_fingerprint_as_it_is(house: Path) -> None:
    before = fingerprint.hash_model_code()
    rooms = ("tasks/reports", "templates", "cli", "tasks/evaluation", "tasks/gate", "tasks/stores", "flows")
    hashed = {house / name for name in fingerprint.MODEL_CODE if name.endswith(".py")}
    for room in rooms:
        files = [path for path in sorted((house / room).rglob("*")) if path.suffix in (".py", ".css", ".html")]
        files = [path for path in files if path not in hashed]
        assert files, f"{room} holds nothing to edit"
        for path in files:
            with path.open("a", encoding="utf-8") as f:
                f.write("\n\n")
    assert fingerprint.hash_model_code() == before


def test_another_release_of_a_library_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = project_params.load_settings(ROOT / "params.yaml")
    known = {fingerprint.compute_fingerprint(settings, "data", "search")}
    for library in fingerprint.MODEL_LIBRARIES:
        with monkeypatch.context() as patch:
            patch.setattr(
                fingerprint, "version", lambda name, other=library: "0" if name == other else metadata.version(name)
            )
            known.add(fingerprint.compute_fingerprint(settings, "data", "search"))
    assert len(known) == 1 + len(fingerprint.MODEL_LIBRARIES)


def test_a_split_rule_and_a_metric_change_the_fingerprint(house: Path) -> None:
    known = {fingerprint.hash_model_code()}
    edits = (
        ("tasks/split/strategies.py", "MIN_SPLIT_ROWS = ", "MIN_SPLIT_ROWS = 1 + "),
        ("tasks/models/problem_types/regression.py", "np.abs(truth", "np.square(truth"),
        ("tasks/models/problem_types/classification.py", "2 * hits", "3 * hits"),
        ("tasks/models/features.py", "from __future__", "# edited\nfrom __future__"),
        ("tasks/ingest/table_io.py", "ROW_GROUP_ROWS = ", "ROW_GROUP_ROWS = 1 + "),
        ("tasks/evaluation/model_evaluation.py", "pd.concat([train, validation]", "pd.concat([validation, train]"),
        ("flows/lap/model_steps.py", "from __future__", "# edited\nfrom __future__"),
    )
    for path, before, after in edits:
        edit(house / path, before, after)
        known.add(fingerprint.hash_model_code())
    assert len(known) == 1 + len(edits)
