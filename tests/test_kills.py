"""A small seeded part of benchmarks/kills.py: kill -9 at random moments, and what the next lap finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kills

pytestmark = pytest.mark.slow


def test_after_a_kill_the_next_lap_ends_well_and_nothing_is_left(tmp_path: Path, prefect_server: str) -> None:
    rounds = kills.trial(2, seed=1, folder=tmp_path / "project", url=prefect_server)
    assert [k.wrong for k in rounds] == [(), ()]
    assert {k.verdict for k in rounds} <= {"promoted", "refused", "unchanged"}
