"""Attacks on everything that `windvane up` runs; the whole table is that of `python -m benchmarks.attacks`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import attacks
from tests.support.projects import quick_project
from tests.support.running_up import standing

pytestmark = pytest.mark.slow

# Connections that send slowly: enough to fill what one server takes at once without a bound.
SENDERS = 300


def test_nobody_gets_in_and_nobody_is_kept_out(tmp_path: Path) -> None:
    folder = quick_project(tmp_path / "project")
    with standing(folder) as up:
        folder.train()
        rows = attacks.attack(up, SENDERS)
        routes = {target.name: len(target.routes) for target in attacks.targets(up)}
    assert [row.line for row in rows if row.breaches] == []
    # Found in the applications: an empty list of routes would pass every attack.
    assert routes["prefect"] > 200
    assert routes["mlflow"] > 200
    assert routes["service"] == 10
    assert {row.server for row in rows} == set(routes)
