"""What developers rely on beside the code: hooks, CI, coverage, and pages that name what is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.projects import ROOMS, ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def valid(workflow: Path) -> bool:
    """By GitHub's schema, which the package brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def targets(text: str) -> list[str]:
    """What a script calls make for."""
    return re.findall(r"^make (\w+)$", text, re.MULTILINE)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_workflow_is_one_by_githubs_schema(tmp_path: Path) -> None:
    assert valid(WORKFLOW)
    broken = tmp_path / "ci.yml"
    broken.write_text(WORKFLOW.read_text(encoding="utf-8").replace("runs-on:", "run-on:"), encoding="utf-8")
    assert not valid(broken)


def test_the_workflow_runs_the_steps_of_the_script() -> None:
    job = read_yaml(WORKFLOW)["jobs"]["ci"]
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    assert job["strategy"]["matrix"]["target"] == targets((ROOT / ".ci" / "run").read_text(encoding="utf-8"))


def test_hooks_are_what_make_check_runs_and_need_no_network() -> None:
    (repository,) = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = repository["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    recipe = re.search(r"^check:.*\n\t(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    checks = [" ".join(part.replace("$(BIN)/", "").replace(" .", "").split()) for part in recipe.group(1).split("&&")]
    hooked = [hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in hooks]
    assert hooked == checks


def test_coverage_counts_every_room() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]["run"]
    rooms = {path.name for path in (ROOT / "windvane").iterdir() if path.is_symlink() and path.is_dir()}
    assert set(config["source"]) == rooms


@pytest.mark.parametrize("heading", ["Added", "Changed", "Fixed", "Security", "Removed"])
def test_the_changelog_keeps_its_form(heading: str) -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")
    assert sections[1].startswith("[Unreleased]")
    found = re.findall(r"^### (\w+)$", sections[1], re.MULTILINE)
    assert heading in found
    assert len(found) == len(set(found))


PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))

GUIDES = ["CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md"]


def anchor(heading: str) -> str:
    """As GitHub makes one of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def test_links_in_pages_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
            name, _, part = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if part else []
            if not file.exists() or (part and part not in map(anchor, headings)):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


@pytest.mark.parametrize("guide", GUIDES)
def test_paths_in_guides_are_there(guide: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / guide).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = {word.split("::")[0] for word in re.findall(r"`([\w.][\w./-]*/[\w./:-]*)`", text)}
    assert len(named) > 10
    # What lies in a project's own folder is made when it runs.
    assert [path for path in sorted(named) if not path.startswith(".windvane/") and not (ROOT / path).exists()] == []
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert all(f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") for file, name in tests)


def test_names_in_the_guide_for_developers_are_there() -> None:
    """Of classes, constants and functions: one that was renamed sends a newcomer searching."""
    code = "\n".join(p.read_text(encoding="utf-8") for room in ROOMS for p in (ROOT / room).rglob("*.py"))
    named = set(re.findall(r"`(_?[A-Z]\w{3,}|_?[a-z]+_\w+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert len(named) > 15
    assert [name for name in sorted(named - {"WINDVANE_DATA"}) if not re.search(rf"\b{name}\b", code)] == []


def test_decisions_have_one_form() -> None:
    assert len(DECISIONS) > 100
    for page in DECISIONS:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(rf"# {int(page.stem[:4])}\. \S.*", lines[0]), page.name
        assert re.fullmatch(r"- Date: \d{4}-\d\d-\d\d", lines[2]), page.name
        assert re.fullmatch(r"- Status: (accepted|superseded)", lines[3]), page.name
        headings = [line for line in lines if line.startswith("## ")]
        assert headings == ["## Context", "## Decision", "## Consequences"], page.name


def test_the_index_lists_every_decision_as_it_is() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| \[(.*)\]\((.*)\) \| (\S+) \| (\w+) \|$", index, re.MULTILINE)
    assert sorted(int(row[0]) for row in rows) == list(range(1, len(DECISIONS) + 1))
    for number, title, file, date, status in rows:
        head = (ROOT / "docs" / "decisions" / file).read_text(encoding="utf-8").splitlines()[:4]
        assert head == [f"# {number}. {title}", "", f"- Date: {date}", f"- Status: {status}"]


def test_every_benchmark_stands_in_the_table_and_every_page_is_linked() -> None:
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "benchmarks").glob("*.py"):
        if "__main__" in script.read_text(encoding="utf-8"):
            assert f"benchmarks/{script.name}" in table or f"benchmarks.{script.stem}" in table, script.name
    for page in (ROOT / "benchmarks" / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in table
