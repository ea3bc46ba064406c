"""Small seeded parts of benchmarks/kills.py and first_starts.py: kill -9 at random and at named moments, and what the next lap finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import first_starts, kills

pytestmark = pytest.mark.slow


def test_after_a_kill_the_next_lap_ends_well_and_nothing_is_left(tmp_path: Path, prefect_server: str) -> None:
    rounds = kills.trial(2, seed=1, folder=tmp_path / "project", url=prefect_server)
    assert [k.wrong for k in rounds] == [(), ()]
    assert {k.verdict for k in rounds} <= {"promoted", "refused", "unchanged"}


POINTS = ["promote: before commit"]
POINTS += [pytest.param(point, marks=pytest.mark.trial) for point in ("register: in MLflow", "promote: champion")]


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_at_a_named_point_a_version_is_judged_and_promoted_once(
    tmp_path: Path, prefect_server: str, point: str
) -> None:
    cell = first_starts.Laps(tmp_path / "project", prefect_server).killed(point)
    assert (cell.phase, cell.wrong) == (f"after {point!r}", ())
