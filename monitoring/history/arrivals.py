"""A table's rows in the order in which they and their labels came: what was known at a moment, which windows were over."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from windvane.ledger.database import format_timestamp, to_timestamp
from windvane.monitoring.history import loss_matrix
from windvane.monitoring.watch.windows import WindowSpan, find_calendar_start, list_calendar_windows, list_row_windows
from windvane.tasks.errors import InputError
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.settings.project_params import Settings


@dataclass(frozen=True)
class RowArrivals:
    """A table's rows in the order of time, and when each came (ledger text). Labels come so much later than their rows."""

    rows: pd.DataFrame
    times: list[str]
    delay: timedelta

    def known_at(self, now: str) -> tuple[int, int]:
        """How many rows had come before a moment, and how many of them could have their label."""
        come = bisect_left(self.times, now)
        late = format_timestamp(datetime.fromisoformat(now) - self.delay)
        return come, min(come, bisect_right(self.times, late))

    def between(self, start: str, end: str) -> slice:
        """Where the rows from a moment (included) to another (not) are."""
        return slice(bisect_left(self.times, start), bisect_left(self.times, end))

    def places(self, window: WindowLength, begin: str, now: str) -> list[WindowSpan]:
        """The windows from `begin` on that are over at `now` and have rows."""
        # The first row after it shows that a window of rows is full.
        new = self.times[bisect_left(self.times, begin) : bisect_left(self.times, now) + 1]
        if not new:
            return []
        if window.rows is None:
            found = list_calendar_windows(new[0], new[-1], window, begin, now)
        else:
            found = list_row_windows(new, window.rows, begin)
        filled = ((place, self.between(place.start, place.end)) for place in found if place.closed and place.end <= now)
        return [place for place, at in filled if at.stop > at.start]


def order_arrivals(rows: pd.DataFrame, time: str, delay: timedelta) -> RowArrivals:
    """A table's rows as they came."""
    ordered = rows.sort_values(time, kind="stable").reset_index(drop=True)
    return RowArrivals(ordered, [to_timestamp(value) for value in ordered[time].tolist()], delay)


def find_replay_start(known: RowArrivals, settings: Settings, since: str | None) -> str:
    """Where play begins, ledger text: at the first window after the first quarter of them, or with the one that holds the first
    row from `since` on. Raises InputError.
    """
    time, window = str(settings.problem.time), settings.monitor.window
    cut = loss_matrix.cut_into_windows(known.rows, time, window)
    at = int(cut.edges[loss_matrix.find_first_window(cut.count)])
    if since is not None:
        try:
            at = bisect_left(known.times, to_timestamp(since))
        except ValueError as e:
            raise InputError(f"--from: {e}") from None
        if not known.times[0] < known.times[min(at, len(known.times) - 1)] or at == len(known.times):
            raise InputError(
                f"--from: {since} leaves no rows before it to train on, or none after it to play: the table goes from "
                f"{known.times[0][:10]} to {known.times[-1][:10]}. Name a date in between"
            )
    if settings.monitor.cut.rows is not None:
        return known.times[at]
    return format_timestamp(find_calendar_start(known.times[at], settings.monitor.cut))
