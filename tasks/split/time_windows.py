"""Windows on the calendar, and which past a model is fitted on: all of it, or the last windows (retrain.history).

Reads no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.tasks.errors import InputError
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.settings.project_params import Settings

# Days and weeks are counted from a Monday.
_FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
# Fewer rows do not train (tasks/split/strategies.py).
_MIN_ROWS = 20


@dataclass(frozen=True)
class RecentWindows:
    """The last `windows` windows of rows, which train a second model beside the one of all rows (retrain.history: combined:N)."""

    windows: int
    window: WindowLength

    def among(self, times: pd.Series) -> NDArray[np.bool_]:
        """Which of the moments (n,) lie in them, counted back from the newest."""
        return mask_newest_windows(times, self.window, self.windows)


def find_window_start(moment: datetime, window: WindowLength) -> datetime:
    """When the window that holds `moment` begins: months and spans lie on the calendar, in UTC. Not for windows of rows."""
    if window.months is not None:
        month = (moment.year * 12 + moment.month - 1) // window.months * window.months
        return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
    assert window.span is not None
    return moment - (moment - _FIRST_MONDAY) % window.span


def number_windows(times: pd.Series, window: WindowLength) -> NDArray[np.int64]:
    """The number of the calendar window that each moment (n,) falls into, see find_window_start(); neighbours differ by one."""
    if window.months is not None:
        return np.asarray((times.dt.year * 12 + times.dt.month - 1) // window.months, dtype=np.int64)
    return np.asarray((times - pd.Timestamp(_FIRST_MONDAY).tz_localize(None)) // window.span, dtype=np.int64)


def shift_by_windows(moment: datetime, window: WindowLength, windows: int) -> datetime:
    """So many windows after `moment`; before it where negative."""
    if window.months is not None:
        month = moment.year * 12 + moment.month - 1 + windows * window.months
        return moment.replace(year=month // 12, month=month % 12 + 1, day=min(moment.day, 28))
    assert window.span is not None
    return moment + windows * window.span


def select_recent_rows(rows: pd.DataFrame, chosen: Settings) -> pd.DataFrame:
    """The rows of the last windows that retrain.history names, counted back from the newest; all with `expanding`.

    Raises InputError where that leaves too few to train on.
    """
    keep, window, time = chosen.retrain.trailing, chosen.monitor.cut, chosen.problem.time
    if keep is None or time is None or not len(rows):
        return rows
    wanted = mask_newest_windows(rows[time], window, keep)
    if wanted.sum() < _MIN_ROWS:
        raise InputError(
            f"retrain.history: {chosen.retrain.history} leaves {int(wanted.sum())} rows to learn from. Name more windows, or "
            "write expanding"
        )
    return rows[wanted].reset_index(drop=True)


def choose_recent_windows(chosen: Settings) -> RecentWindows | None:
    """The windows whose rows train a second model, by retrain.history; None: there is none."""
    windows = chosen.retrain.combined
    return None if windows is None else RecentWindows(windows, chosen.monitor.cut)


def mask_newest_windows(times: pd.Series, window: WindowLength, windows: int) -> NDArray[np.bool_]:
    """Which of the moments (n,) lie in the last so many windows, counted back from the newest."""
    if window.rows is not None:
        wanted = times.rank(method="max", ascending=False) <= windows * window.rows
    elif hasattr(last := times.max(), "to_pydatetime"):
        moment = last.to_pydatetime(warn=False).replace(tzinfo=UTC)
        wanted = times > shift_by_windows(moment, window, -windows).replace(tzinfo=None)
    else:  # a number that only orders the rows counts in seconds, as in the ledger
        whole = window.span or timedelta(days=365.25 / 12) * (window.months or 1)
        wanted = times > last - windows * whole.total_seconds()
    return np.asarray(wanted, dtype=np.bool_)
