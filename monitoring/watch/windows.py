"""How production is cut into windows, when a window is checked, and which share of its false alarms a check may use."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from windvane.ledger.database import format_timestamp, to_timestamp
from windvane.tasks.settings.monitoring_section import WindowLength

_STEP = timedelta(microseconds=1)


@dataclass(frozen=True)
class WindowSpan:
    """A window's place in time, ledger text: from `start` (included) to `end` (not); closed: it is over."""

    start: str
    end: str
    closed: bool


def find_calendar_start(time: Any, window: WindowLength) -> datetime:
    """Where the window on the calendar begins that holds a row of this time (a value of the table)."""
    from windvane.tasks.split import time_windows

    return time_windows.find_window_start(datetime.fromisoformat(to_timestamp(time)), window)


def find_first_window_start(taught_until: str | float | None, promoted: str) -> str:
    """Where a champion's windows begin: just behind its training data, else when it was promoted. Ledger text."""
    if taught_until is None:
        return promoted
    return format_timestamp(datetime.fromisoformat(to_timestamp(taught_until)) + _STEP)


def list_calendar_windows(first: str, newest: str, window: WindowLength, begin: str, now: str) -> list[WindowSpan]:
    """The windows on the calendar from the one with row `first` to the one with row `newest`, none before `begin`."""
    from windvane.tasks.split import time_windows

    places = []
    start = find_calendar_start(max(first, begin), window)
    while (text := format_timestamp(start)) <= newest:
        end = time_windows.shift_by_windows(start, window, 1)
        places.append(WindowSpan(max(text, begin), format_timestamp(end), format_timestamp(end) <= now))
        start = end
    return places


def list_row_windows(times: Sequence[str], rows: int, start: str) -> list[WindowSpan]:
    """Windows of so many rows from `start` on; times (n,) of the rows since then, in order. Rows of one time stay together."""
    places, at = [], 0
    while at < len(times):
        last = at + rows - 1
        edge = times[min(last, len(times) - 1)]
        end = format_timestamp(datetime.fromisoformat(edge) + _STEP)
        places.append(WindowSpan(start, end, last < len(times)))
        start, at = end, bisect_right(times, edge)
    return places


def compute_check_level(false_alarms: float, checks: int, closed: bool) -> float:
    """The level of the next check of a window that was checked `checks` times before."""
    if closed:
        return false_alarms / 2 if checks else false_alarms
    return float(false_alarms / 2 ** (checks + 2))


def is_check_due(checks: int, before: int, rows: int, was_closed: bool, closed: bool) -> bool:
    """Whether a window is to be checked: never before, closed since, or open with twice the rows of the check `before`."""
    if checks == 0:
        return True
    if closed:
        return not was_closed
    return not was_closed and rows >= 2 * before


def find_event_time(newest: str | None, arrived: str | None, wall: datetime, window: WindowLength) -> str:
    """Now in the events' own time: the wall's clock where rows arrive about when they happen, else the newest row's time.

    newest, arrived: the time of the row that came last, and when it came (ledger text; None: that is not known, so as now).
    """
    if newest is None:
        return format_timestamp(wall)
    length = window.span or (timedelta(days=28) * window.months if window.months else timedelta(days=1))
    came = wall if arrived is None else datetime.fromisoformat(arrived)
    lag = came.astimezone(UTC) - datetime.fromisoformat(newest)
    return max(format_timestamp(wall), newest) if lag < length else newest
