"""The one lap and those who call its steps: nobody has an order of their own, and none forgets a step."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.projects import ROOT
from windvane.flows.lap.context import DirectRunner


def called() -> set[str]:
    """The steps that flows/training.py has called, by the last part of their names."""
    tree = ast.parse((ROOT / "flows" / "training.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("run", "run.submit"):
            found.add(ast.unparse(node.args[0]).rpartition(".")[2])
    return found


def test_replay_has_a_stand_in_for_each_step_and_for_nothing_else() -> None:
    from windvane.flows.replay import simulation

    steps = simulation._Steps(SimpleNamespace(), SimpleNamespace()).instead()  # type: ignore[arg-type]
    assert {step.__name__ for step in steps} == called()


def test_each_task_of_the_table_is_a_step_of_the_lap() -> None:
    from windvane.flows import steps

    assert {policy.work.__name__ for policy in steps.STEP_POLICIES.values()} <= called()
    assert {steps.TASKS[policy.work].name for policy in steps.STEP_POLICIES.values()} == set(steps.STEP_POLICIES)


def test_a_step_beside_others_is_given_what_those_returned() -> None:
    def first(number: int) -> int:
        return number + 1

    def second(number: int, factor: int) -> int:
        return number * factor

    run = DirectRunner()
    begun = run.submit(first, 2)
    assert run.submit(second, begun, 5).result() == 15
    assert (begun.result(), run(second, 2, factor=3)) == (3, 6)


def test_a_simulated_lap_never_falls_back_on_a_real_step(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("real")

    stand_ins: dict[Any, Any] = {}
    with pytest.raises(KeyError):
        DirectRunner(stand_ins)(write, tmp_path / "file")
    assert not (tmp_path / "file").exists()
