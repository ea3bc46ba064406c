"""The file tree of docs/architecture.md: one line for each product file, and none for what is not there."""

from __future__ import annotations

import re
import subprocess

from tests.support.projects import ROOMS, ROOT

LONGEST_LINE = 110


def tree_lines() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^## Every file\n.*?^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block.group(1).splitlines()


def described_paths(lines: list[str]) -> list[str]:
    """Path of each line; its folders are the lines above it that stand further left."""
    folders: list[str] = []
    paths = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, description = line.strip().partition(" ")
        assert description.strip(), f"says nothing: {line}"
        paths.append("".join(folders[:depth]) + name)
        if name.endswith("/"):
            folders = [*folders[:depth], name]
    return paths


def product_paths() -> set[str]:
    """Every file that git knows in the rooms; a folder, with a slash, stands for itself and its __init__.py."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *ROOMS, "windvane"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [path for path in listed if path and (ROOT / path).is_file()]
    folders = {"/".join(path.split("/")[:depth]) + "/" for path in files for depth in range(1, path.count("/") + 1)}
    return folders | {path for path in files if not path.endswith("/__init__.py")}


def test_every_product_file_has_one_line() -> None:
    paths = described_paths(tree_lines())
    assert sorted(paths) == sorted(set(paths)), "a file has two lines"
    product = product_paths()
    assert len(product) > 150
    missing, gone = product - set(paths), set(paths) - product
    assert not missing, f"docs/architecture.md needs a line for: {', '.join(sorted(missing))}"
    assert not gone, f"docs/architecture.md has a line for what is not there: {', '.join(sorted(gone))}"


def test_no_line_of_the_tree_is_longer_than_a_screen() -> None:
    assert [line for line in tree_lines() if len(line) > LONGEST_LINE] == []


def test_a_nested_line_belongs_to_the_folders_above_it() -> None:
    lines = ["a/   first", "  b/   second", "    c.py  third", "  d.py  fourth", "e/   fifth", "  f.py  sixth"]
    assert described_paths(lines) == ["a/", "a/b/", "a/b/c.py", "a/d.py", "e/", "e/f.py"]
