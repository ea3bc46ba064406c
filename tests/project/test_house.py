"""The house itself: the sealed test side, start-up, and that what is written about it is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.projects import ROOMS, ROOT
from windvane.tasks.errors import SealedError
from windvane.tasks.settings import project_params

SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
# Who may name the reader of the test side: its own file, and the steps that evaluate and then refit with the ledger's permit.
MAY_OPEN = {"tasks/split/data_split.py", "flows/lap/model_steps.py", "tasks/evaluation/model_evaluation.py"}


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found | {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_nobody_but_the_evaluation_opens_the_test_side() -> None:
    opening = {str(p.relative_to(ROOT)) for p in SOURCES if names_in(p) & {"open_test", "final_rows", "sides.parquet"}}
    assert opening <= MAY_OPEN


def test_the_test_side_stays_shut_without_a_permit(tmp_path: Path) -> None:
    from windvane.tasks.split import data_split

    with pytest.raises(SealedError):
        data_split.open_test_rows(tmp_path, None, None)  # type: ignore[arg-type]


def test_what_tells_prefect_does_not_import_it_before_the_server_is_named() -> None:
    code = (
        "import sys, windvane.flows.monitoring, windvane.flows.orchestration.deployments\n"
        "import windvane.flows.orchestration.server; sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_of_the_program_stands_in_the_docs() -> None:
    from windvane.cli.main import main

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"`windvane {name}" in text
        for option in command.params:
            for word in option.opts:
                assert not word.startswith("--") or f"`{word}" in text, f"{name} {word}"
    told = set(re.findall(r"`windvane ([a-z]+)", text))
    assert told == set(main.commands)


def test_every_key_of_params_yaml_is_commented_and_known() -> None:
    path = ROOT / "params.yaml"
    told = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, section in content.items():
        model = project_params.Settings.model_fields[name].annotation
        if isinstance(section, dict):
            fields = set(model.model_fields)  # type: ignore[union-attr]
            assert set(section) <= fields
            # What few people need does not stand in everybody's file, but in the docs.
            assert all(f"`{name}.{field}`" in told for field in fields - set(section))
    keyed = [line for line in path.read_text().splitlines() if re.match(r"  \w+:", line) or line.startswith("project:")]
    assert [line for line in keyed if "#" not in line] == []


def test_everything_installed_is_pinned_and_nothing_tells_where_from() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", pin) for pin in pins)
    assert "://" not in text


def test_figures_in_the_docs_name_the_command_that_prints_them() -> None:
    for path in [ROOT / "README.md", *(ROOT / "benchmarks").rglob("*.md")]:
        for block in re.split(r"\n(?=#)", path.read_text(encoding="utf-8")):
            if re.search(r"\d(?:\.\d+)? ?(?:s|ms|%|x)\b", block) and "|" in block:
                assert "`" in block, f"{path.name}: a table of figures without its command: {block[:80]}"


def test_every_test_that_security_md_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"
