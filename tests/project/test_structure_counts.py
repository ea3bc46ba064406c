"""The counts of benchmarks/structure.py on a made tree of a few files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks import structure

FILES = {
    "tasks/__init__.py": "",
    "tasks/io.py": "class Row:\n    pass\n\n\ndef read(path):\n    import json\n\n    return json.loads(path)\n",
    "tasks/split.py": (
        "from windvane.tasks import io\n"
        "from windvane.tasks.gate import judge\n"
        "class Row:\n    pass\n"
        "def read(path):\n    return io.read(path), judge\n"
    ),
    "tasks/gate.py": "from . import split\ndef judge():\n    return split\ndef _read():\n    pass\n",
    "flows/__init__.py": "",
    "flows/lap.py": (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import windvane.flows.steps\n"
        "class Lap:\n    def run(self, a, b, c, d, e, f, g):\n        pass\n"
    ),
    "flows/steps.py": (
        "from windvane.flows.lap import Lap\n"
        "def wide(a, /, b, c, d, *args, e, f, **more):\n    pass\n"
        "def narrow(a, b, c, d, e, f, g):\n    return Lap\n"
        "@main.command()\n"
        "def typed(a, b, c, d, e, f, g, h, i):\n"
        "    from windvane.tasks import gate\n"
        "    def inner():\n        import os\n"
    ),
}


def test_a_tree_is_counted() -> None:
    metrics = structure.measure(FILES)
    counts, examples = metrics.counts, metrics.examples
    assert counts["product files"] == "7"
    assert counts["product lines"] == str(sum(len(text.splitlines()) for text in FILES.values()))
    assert counts["largest file, lines"] == "10"
    assert examples["largest file, lines"] == "flows/steps.py"
    assert (counts["largest folder, files"], examples["largest folder, files"]) == ("4", "tasks")
    assert counts["import statements inside functions"] == "3"
    assert counts["TYPE_CHECKING blocks"] == "1"


def test_all_kinds_of_parameters_count_and_click_commands_do_not() -> None:
    metrics = structure.measure(FILES)
    # `wide` has eight with *args and **more, `run` and `narrow` seven, `typed` is a command.
    assert metrics.counts["functions with more than 7 parameters"] == "1"
    assert metrics.examples["functions with more than 7 parameters"] == "flows/steps.py:wide"


def test_public_names_of_two_files_are_found_and_private_ones_are_not() -> None:
    examples = structure.measure(FILES).examples
    assert examples["public class names defined twice or more"] == "Row 2"
    assert examples["public function names defined twice or more"] == "read 2"


def test_circles_are_told_by_where_their_imports_stand() -> None:
    counts = structure.measure(FILES).counts
    assert counts["import circles at import (files in them)"] == "1 (2)"  # split and gate, one import of them relative
    assert counts["import circles, with TYPE_CHECKING imports"] == "2 (2, 2)"  # lap and steps
    assert counts["import circles, with imports inside functions"] == "2 (2, 2)"


def write_tree(root: Path) -> None:
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    (root / "windvane").mkdir()
    for room in ("tasks", "flows"):
        (root / "windvane" / room).symlink_to(Path("..") / room)


def test_links_are_not_counted_twice(tmp_path: Path) -> None:
    write_tree(tmp_path)
    assert structure.sources(tmp_path) == FILES


def test_a_commit_is_counted_as_its_working_tree_was(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_io.py").write_text("", encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "tree"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "tasks" / "later.py").write_text("", encoding="utf-8")
    assert structure.sources_at("HEAD", tmp_path) == FILES
