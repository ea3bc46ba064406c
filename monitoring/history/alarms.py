"""Drift alarms for a history that is played: a champion's held-out rows against a window, remembered in a file. Decides nothing.

Slow beside all else that is played: each alarm is a look at two frames, and each champion asks anew.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.monitoring.history import matrix
from windvane.monitoring.history.matrix import Job
from windvane.monitoring.history.playing import Alarm
from windvane.tasks import features, profile, tables

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.features import Columns

# More rows make Evidently's preset slower, and its distances no other.
MOST = 2000
# (past, reference, window, columns) -> whether it alarms.
Rings = Callable[["pd.DataFrame", "pd.DataFrame", "pd.DataFrame", "Columns"], bool]


def calibrated(job: Job, level: float, kept: Path, report: Callable[[], None] = lambda: None) -> Alarm:
    """The project's own alarm at this level, on the features alone: what models say of past windows is not kept."""
    from windvane.monitoring import drift

    time, seed = job.settings.problem.time, job.settings.split.seed

    def rings(past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, columns: Columns) -> bool:
        return (
            drift.measure(
                reference, window, columns, target=None, time=time, level=level, seed=seed, history=past, hurry=True
            ).alarm
            is True
        )

    return _remembered(job, f"calibrated-{level:g}", kept, rings, report)


def preset(job: Job, kept: Path, report: Callable[[], None] = lambda: None) -> Alarm:
    """Evidently's preset at its defaults: half of the columns or more."""
    from windvane.monitoring import evidently

    def rings(_: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, columns: Columns) -> bool:
        sides = [side.iloc[:: max(1, len(side) // MOST)] for side in (reference, window)]
        # A column without a value ends its whole report.
        seen = {name for name in columns.names if all(side[name].notna().any() for side in sides)}
        categories = columns.booleans + columns.low + columns.high
        with contextlib.redirect_stdout(sys.stderr):
            said = evidently.preset_says(
                sides[0], sides[1], [n for n in columns.numbers if n in seen], [n for n in categories if n in seen]
            )
        return said[0]

    return _remembered(job, "preset", kept, rings, report)


def _remembered(job: Job, name: str, kept: Path, rings: Rings, report: Callable[[], None]) -> Alarm:
    known = tables.read_cache(kept, dict) or {}
    digests = job.cut.digests()

    def alarm(model: int, window: int) -> bool:
        begin = model - matrix.held_out(model, job.trailing)
        key = "-".join((name, digests[begin], digests[model - 1], digests[window]))
        if key not in known:
            report()
            known[key] = _rings(job, begin, model, window, rings)
            tables.write_json(known, kept)
        return bool(known[key])

    return alarm


def _rings(job: Job, begin: int, model: int, window: int, rings: Rings) -> bool:
    """The rows of windows begin .. model - 1 against those of a window; columns as the former have them."""
    reference = job.cut.rows.iloc[job.cut.edges[begin] : job.cut.edges[model]]
    columns = features.columns(job.settings, profile.of(reference))

    def side(rows: pd.DataFrame) -> pd.DataFrame:
        seen, time = features.conform(rows, columns, "rows"), str(job.settings.problem.time)
        return seen if time in seen else seen.assign(**{time: rows[time]})

    past = job.cut.rows.iloc[: job.cut.edges[begin]]
    return bool(rings(side(past), side(reference), side(job.cut.window(window)), columns))
