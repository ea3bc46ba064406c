"""The level that late labels lead to: it keeps its promise through a shift, and follows from the windows alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windvane.tasks.evaluation.adaptive_levels import LEAST_SHARE, LEVELS, LevelHistory, count_by_level

HELD, LABELS = 2_000, 500
SORTED = np.sort(np.abs(np.random.default_rng(1).normal(size=HELD)))
MOST = HELD / (HELD + 1)
UNHURRIED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def counts(errors: Any) -> tuple[int, ...]:
    """Labels of a window by the level that they need, beside the held-out errors."""
    return count_by_level(np.searchsorted(SORTED, np.abs(errors)) / (HELD + 1))


def coverage(level: float, scale: float) -> float:
    """The share of new errors of this scale within the interval at a level."""
    limit = SORTED[int(np.ceil((HELD + 1) * level - 1e-9)) - 1]
    fresh = np.random.default_rng(2).normal(size=50_000) * scale
    return float(np.mean(np.abs(fresh) <= limit))


def play(scale: Callable[[int], float], windows: int, seed: int, level: float = 0.9) -> list[tuple[float, float]]:
    """Coverage of each window to come by the adjusted level, and by the plain one."""
    rng, seen, found = np.random.default_rng(seed), list[tuple[int, ...]](), []
    for i in range(windows):
        found.append((coverage(LevelHistory.of(seen).adjust(level, MOST), scale(i)), coverage(level, scale(i))))
        seen.append(counts(rng.normal(size=LABELS) * scale(i)))
    return found


@pytest.mark.parametrize("scale", [1.4, 1.8, 0.6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_behind_a_shift_coverage_is_back_within_five_windows_and_plain_conformal_is_not(
    scale: float, seed: int
) -> None:
    found = play(lambda i: 1.0 if i < 4 else scale, 16, seed)
    assert found[4][0] == pytest.approx(found[4][1], abs=0.03)  # no label has shown it yet
    adapted, plain = np.array(found[4 + 5 :]).T
    assert 0.88 <= adapted.mean() <= 0.92
    assert np.abs(adapted - 0.9).max() <= 0.035  # what 500 labels a window leave to chance
    assert not 0.88 <= plain.mean() <= 0.92


def test_without_a_shift_the_level_stays_where_it_is() -> None:
    assert all(abs(adapted - 0.9) < 0.035 for adapted, _ in play(lambda _: 1.0, 12, 5))


@UNHURRIED
@given(st.lists(st.lists(st.floats(0, 1), max_size=30), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_restarts_change_nothing(windows: list[list[float]], chance: Any) -> None:
    one = LevelHistory.of(count_by_level(np.array(needed)) for needed in windows)
    mixed = [chance.sample(needed, len(needed)) for needed in windows]
    kept = json.loads(json.dumps([count_by_level(np.array(needed)) for needed in mixed]))
    again = LevelHistory.of(kept)
    assert one == again
    assert one.adjust(0.9, MOST) == again.adjust(0.9, MOST) == again.adjust(0.9, MOST)


@UNHURRIED
@given(st.lists(st.lists(st.floats(0, 1), max_size=200), max_size=8), st.floats(0.05, 0.99), st.floats(0.9, 0.9999))
def test_the_level_is_bounded(windows: list[list[float]], level: float, most: float) -> None:
    found = LevelHistory.of(count_by_level(np.array(needed)) for needed in windows).adjust(level, most)
    assert LEAST_SHARE * level - 2e-6 <= found <= max(most, level) + 1e-6


@UNHURRIED
@given(st.lists(st.floats(0, 1), min_size=1, max_size=100), st.floats(0.1, 0.95))
def test_a_window_moves_the_level_to_where_its_own_step_ends(needed: list[float], level: float) -> None:
    found = LevelHistory.of([count_by_level(np.array(needed))])
    after = found.adjust(level, 1.0)
    if LEAST_SHARE * level < after < 1.0:
        places = np.concatenate([[0.0], LEVELS, [1.0]])
        shares = np.concatenate([[0.0], np.cumsum(found.windows[0])]) / len(needed)
        held = np.interp(after, places, shares)
        assert after == pytest.approx(level + 0.005 * len(needed) * (level - held), abs=1e-4 * len(needed))


def test_labels_that_no_interval_holds_widen_and_windows_without_labels_change_nothing() -> None:
    missed = count_by_level(np.full(50, MOST))
    assert LevelHistory.of([missed]).adjust(0.9, MOST) > 0.9
    assert LevelHistory.of([(), missed, ()]) == LevelHistory.of([missed])
    assert LevelHistory.of([()]).adjust(0.9, MOST) == 0.9


def test_labels_are_counted_by_the_first_level_above_what_they_need() -> None:
    found = count_by_level(np.array([0.0, 0.005, 0.9, 0.9999]))
    assert [LEVELS[i] if i < len(LEVELS) else None for i in np.flatnonzero(found)] == [0.005, 0.01, 0.901, None]
