"""Coverage of intervals on a window's labels: its figures, what is left out, and an alarm that is seldom false however labels come."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.monitored_tables import answered, problem, rows
from windvane.monitoring.interval_coverage import (
    CoverageRules,
    adjust_watched_level,
    bound_share,
    compute_chance,
    measure_coverage,
)
from windvane.monitoring.records import CoverageResult
from windvane.monitoring.window_frames import INPUTS_STORED_COLUMN, LABEL_ALONE_COLUMN, LABEL_KNOWN_COLUMN
from windvane.tasks.evaluation.adaptive_levels import LevelHistory
from windvane.tasks.evaluation.scores import PREDICTION_COLUMN

FALSE_ALARMS = 0.05
RULES = CoverageRules(problem("regression"), 0.9, FALSE_ALARMS, readable=True)
RECORD = answered(rows(300, 0), record=True)


class Held:
    """Intervals of one width, from so many held-out errors."""

    def __init__(self, errors: Any, needs_inputs: bool = False) -> None:
        self.errors, self.needs_inputs = np.sort(np.abs(errors)), needs_inputs

    def measure(self, frame: pd.DataFrame, predictions: Any, truth: Any, level: float) -> Any:
        off, count = np.abs(truth.astype(float) - predictions.value.astype(float)), len(self.errors)
        limit = self.errors[int(np.ceil((count + 1) * level)) - 1]
        needed = np.searchsorted(self.errors, off) / (count + 1)
        return SimpleNamespace(needed=needed, inside=off <= limit, widths=np.full(len(off), 2 * limit), scores=count)

    def adjust(self, level: float, history: LevelHistory) -> float | None:
        return history.adjust(level, len(self.errors) / (len(self.errors) + 1)) if history.windows else None


def window(errors: Any, labelled: int | None = None) -> pd.DataFrame:
    """A window in which the champion is off by these errors, of which the first few have a label."""
    frame = answered(rows(len(errors), 7))
    frame["y"] = frame[PREDICTION_COLUMN] + errors
    frame.loc[np.arange(len(errors)) >= (len(errors) if labelled is None else labelled), "y"] = np.nan
    return frame.assign(**{INPUTS_STORED_COLUMN: True, LABEL_KNOWN_COLUMN: np.nan, LABEL_ALONE_COLUMN: False})


def normal(count: int, seed: int, scale: float = 1.0) -> Any:
    return np.random.default_rng(seed).normal(size=count) * scale


def test_a_window_like_the_held_out_rows_has_its_figures_and_no_alarm() -> None:
    found = measure_coverage(window(normal(400, 1)), RECORD, Held(normal(1_000, 0)), RULES, None)
    assert found is not None
    assert found.share == pytest.approx(0.9, abs=0.04)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.9 < found.high
    assert (found.rows, found.left_out, found.checks, found.alarm) == (400, 0, 1, False)
    assert found.width == pytest.approx(2 * 1.645, rel=0.1)
    assert "of 400 labels are within, 90 % were promised (95 % interval" in found.text
    assert "alarm" not in found.text


def test_errors_that_grew_alarm_in_plain_words() -> None:
    found = measure_coverage(window(normal(400, 1, scale=1.5)), RECORD, Held(normal(1_000, 0)), RULES, None)
    assert found is not None
    assert found.alarm
    assert "alarm: intervals are too narrow" in found.text
    adjusted = adjust_watched_level(Held(normal(1_000, 0)), [None, found], found)
    assert adjusted.adjusted is not None
    assert adjusted.adjusted > 0.9
    assert "is the level for 0.9" in adjusted.text
    assert "counts" not in adjusted.to_json()


def test_rows_whose_inputs_were_not_kept_are_left_out_and_counted_where_the_inputs_matter() -> None:
    frame = window(normal(100, 1), labelled=60)
    frame.loc[:19, INPUTS_STORED_COLUMN] = False
    counts = [
        (found.rows, found.left_out)
        for held, rules in (
            (Held(normal(99, 0), needs_inputs=True), RULES),
            (Held(normal(99, 0), needs_inputs=True), replace(RULES, readable=False)),
            (Held(normal(99, 0)), replace(RULES, readable=False)),
        )
        if (found := measure_coverage(frame, RECORD, held, rules, None)) is not None
    ]
    assert counts == [(40, 20), (0, 60), (60, 0)]


def test_without_labels_there_is_nothing_and_without_any_usable_row_a_reason() -> None:
    assert measure_coverage(window(normal(50, 1), labelled=0), RECORD, Held(normal(99, 0)), RULES, None) is None
    hidden = replace(RULES, readable=False)
    found = measure_coverage(window(normal(50, 1)), RECORD, Held(normal(99, 0), needs_inputs=True), hidden, None)
    assert found == CoverageResult(0.9, 0, 0, left_out=50)
    assert found is not None
    assert found.text.startswith("unknown at 0.9: 50 labelled rows were left out")


def test_the_same_labels_again_are_no_new_check() -> None:
    frame, held = window(normal(300, 1)), Held(normal(500, 0))
    first = measure_coverage(frame, RECORD, held, RULES, None)
    again = measure_coverage(frame.sample(frac=1, random_state=0), RECORD, held, RULES, first)
    assert again == first


@pytest.mark.parametrize("held", [30, 2_000])
def test_false_alarms_are_seldom_however_many_rows_were_held_out_and_however_labels_come(held: int) -> None:
    """Few held-out rows alone make a true coverage far below the level likely: the binomial would alarm a third of the time."""
    rng, alarms, plain = np.random.default_rng(0), 0, 0
    for _ in range(1_500):
        scores = np.sort(rng.random(held))
        share = scores[int(np.ceil((held + 1) * 0.9)) - 1]
        inside, alarmed = rng.random(600) <= share, False
        for k, labels in enumerate((50, 150, 400, 600), 1):
            chance = compute_chance(int(inside[:labels].sum()), labels, held, 0.9)
            alarmed |= chance <= FALSE_ALARMS / k / (k + 1)
        alarms += alarmed
        plain += compute_chance(int(inside.sum()), 600, 10**7, 0.9) <= FALSE_ALARMS
    assert alarms / 1_500 <= FALSE_ALARMS * 1.3
    assert held > 30 or plain / 1_500 > 0.2


def test_an_alarm_stays_until_the_window_is_no_longer_below_its_level() -> None:
    held = Held(normal(2_000, 0))
    loud = measure_coverage(window(normal(300, 1, 1.5)), RECORD, held, RULES, None)
    more = measure_coverage(window(normal(320, 1, 1.5)), RECORD, held, RULES, loud)
    assert loud is not None
    assert more is not None
    assert (loud.checks, more.checks, more.alarm) == (1, 2, True)
    assert more.limit == pytest.approx(FALSE_ALARMS / 6)
    fixed = measure_coverage(window(normal(330, 1)), RECORD, held, RULES, more)
    assert fixed is not None
    assert not fixed.alarm


def test_the_interval_of_a_share_is_the_exact_one() -> None:
    assert bound_share(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert bound_share(10, 10) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert bound_share(90, 100) == (pytest.approx(0.8238, abs=1e-4), pytest.approx(0.9510, abs=1e-4))
