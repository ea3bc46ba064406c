"""A small seeded part of benchmarks/decision_kills.py: kill -9 around a decision, and exactly one lap of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import decision_kills

pytestmark = pytest.mark.slow


def test_whatever_is_killed_a_decision_ends_in_one_lap(tmp_path: Path) -> None:
    rounds, left = decision_kills.trial(3, seed=1, folder=decision_kills.prepare(tmp_path / "project"))
    assert [r.victim for r in rounds] == ["nobody", "runner", "monitor", "lap"]
    assert [r.wrong for r in rounds] == [()] * 4
    assert all(r.ended.split(":")[0] in ("done", "skipped") for r in rounds)
    assert left == ()
