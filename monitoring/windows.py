"""How production is cut into windows, and what a look at one may spend. Pure: reads no ledger and no clock.

Each window has monitor.false_alarms as its budget. A look while it is still open spends a part: half of what is left of the
first half, so that all such looks together spend less than half. The look at the closed window has the other half, or all of
it where there was no look before. An open window is looked at again only when its rows have doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from windvane.ledger.moments import moment
from windvane.ledger.store import stamp
from windvane.tasks import history
from windvane.tasks.watch_settings import Window

_STEP = timedelta(microseconds=1)


@dataclass(frozen=True)
class Place:
    """A window's place in time, ledger text: from `start` (included) to `end` (not); closed: it is over."""

    start: str
    end: str
    closed: bool


def after(taught_until: str | float | None, promoted: str) -> str:
    """Where a champion's windows begin: just behind what it was taught, else when it was promoted. Ledger text."""
    if taught_until is None:
        return promoted
    return stamp(datetime.fromisoformat(moment(taught_until)) + _STEP)


def spans(first: str, newest: str, window: Window, begin: str, now: str) -> list[Place]:
    """The windows on the calendar from the one with row `first` to the one with row `newest`, none before `begin`."""
    places = []
    start = history.begin(datetime.fromisoformat(max(first, begin)), window)
    while (text := stamp(start)) <= newest:
        end = history.end(start, window)
        places.append(Place(max(text, begin), stamp(end), stamp(end) <= now))
        start = end
    return places


def by_rows(times: Sequence[str], rows: int, start: str) -> list[Place]:
    """Windows of so many rows from `start` on; times (n,) of the rows since then, in order. Rows of one time stay together."""
    places, at = [], 0
    while at < len(times):
        last = at + rows - 1
        closed = last < len(times)
        edge = times[min(last, len(times) - 1)]
        end = stamp(datetime.fromisoformat(edge) + _STEP)
        places.append(Place(start, end, closed))
        while at < len(times) and times[at] <= edge:
            at += 1
        start = end
    return places


def level(false_alarms: float, looks: int, closed: bool) -> float:
    """The level of the next look at a window that was looked at `looks` times before."""
    if closed:
        return false_alarms / 2 if looks else false_alarms
    return float(false_alarms / 2 ** (looks + 2))


def due(looks: int, before: int, rows: int, was_closed: bool, closed: bool) -> bool:
    """Whether a window is to be looked at: never before, closed since, or open with twice the rows of the look `before`."""
    if looks == 0:
        return True
    if closed:
        return not was_closed
    return not was_closed and rows >= 2 * before


def present(newest: str | None, arrived: str | None, wall: datetime, window: Window) -> str:
    """Now in the events' own time: the wall's clock where rows arrive about when they happen, else the newest row's time.

    newest, arrived: the time of the row that came last, and when it came (ledger text; None: that is not known, so as now).
    """
    if newest is None:
        return stamp(wall)
    length = window.span or (timedelta(days=28) * window.months if window.months else timedelta(days=1))
    came = wall if arrived is None else datetime.fromisoformat(arrived)
    lag = came.astimezone(UTC) - datetime.fromisoformat(newest)
    return max(stamp(wall), newest) if lag < length else newest
