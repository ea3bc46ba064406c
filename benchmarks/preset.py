"""Evidently's data drift preset as a drift alarm, beside which the project's own is measured. No part of the product."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from windvane.monitoring.drift.evidently import silence_evidently
from windvane.monitoring.history import backtest
from windvane.monitoring.history.loss_matrix import MatrixJob
from windvane.monitoring.history.simulation import DriftAlarm
from windvane.tasks.models.features import FeatureColumns

# More rows make the preset slower, and its distances no other.
MAX_ROWS = 2000


def run_preset(
    reference: pd.DataFrame, window: pd.DataFrame, numbers: list[str], categories: list[str]
) -> tuple[bool, int]:
    """What the preset, as it comes, says of two frames: drift (at least half of the columns), and how many columns.

    Its own tests of the columns, chosen as it chooses them, without its drawings, which take nine tenths of the time
    (`tests/monitoring/test_drift_detector.py` holds the answers against the preset's own).
    """
    with silence_evidently():
        from evidently.legacy.calculations.stattests import get_stattest
        from evidently.legacy.core import ColumnType

        kinds = dict.fromkeys(numbers, ColumnType.Numerical) | dict.fromkeys(categories, ColumnType.Categorical)
        drifted = 0
        for name, kind in kinds.items():
            sides = [frame[name].replace([-np.inf, np.inf], np.nan).dropna() for frame in (reference, window)]
            drifted += get_stattest(*sides, kind, None)(*sides, kind, None).drifted
        return bool(drifted >= 0.5 * len(kinds)), int(drifted)


def make_preset_alarm(job: MatrixJob, kept: Path) -> DriftAlarm:
    """The preset at its defaults as an alarm of a history: half of the columns or more."""

    def rings(_: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns) -> bool:
        sides = [side.iloc[:: max(1, len(side) // MAX_ROWS)] for side in (reference, window)]
        # A column without a value ends its whole report.
        seen = {name for name in columns.names if all(side[name].notna().any() for side in sides)}
        categories = columns.booleans + columns.low + columns.high
        with contextlib.redirect_stdout(sys.stderr):
            said = run_preset(
                sides[0], sides[1], [n for n in columns.numbers if n in seen], [n for n in categories if n in seen]
            )
        return said[0]

    return backtest.make_cached_alarm(job, "preset", kept, rings, lambda: None)
