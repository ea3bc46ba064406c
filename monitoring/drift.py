"""Has anything moved between the champion's reference and a window? Owns the verdict; leaves the report to its own file.

Evidently measures and draws (monitoring/evidently.py). What counts as unusual is ours, because its rules of thumb are no
trigger: its p-values are not corrected for the number of columns, and its thresholds do not know how large a window is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import rows as looked_at
from windvane.monitoring import seasons, sides, wording
from windvane.monitoring.calibration import Calibrated, calibrate
from windvane.monitoring.evidence import Drift, Finding
from windvane.monitoring.measures import Scorer
from windvane.monitoring.seasons import Usual
from windvane.monitoring.sides import Compared
from windvane.tasks.estimators import one_thread

if TYPE_CHECKING:
    import pandas as pd

    from windvane.monitoring.rows import Rows
    from windvane.tasks.features import Columns

# Fewer rows on either side, and nothing is said.
FEWEST = 20


def measure(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Columns,
    *,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None = None,
    hurry: bool = False,
) -> Drift:
    """Whether the window (m rows) differs from the reference (n rows) by more than a share `level` of unchanged windows do.

    Both hold the feature columns, and where known the prediction, probabilities, the target (NaN: no label yet) and `time`.
    `history`: rows of the same source from before the reference, for what seasons do; predictions need not be there.
    `hurry`: stop counting once the alarm is ruled out; the alarm is the same, limits are rough.
    """
    sizes = (len(reference), len(window))
    if min(sizes) < FEWEST:
        few = f"too few rows to say: {sizes[1]:,} in the window, {sizes[0]:,} in the reference; {FEWEST} of each are needed"
        return Drift(False, None, None, None, level, (), *sizes, few)
    past = reference.iloc[:0] if history is None or time is None else history
    # Small products: a second thread only waits, and next to a busy neighbour it waits long.
    with one_thread():
        return _compared(past, reference, window, columns, target, time, level, seed, hurry)


def _compared(
    past: pd.DataFrame,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Columns,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    hurry: bool,
) -> Drift:
    sizes = (len(reference), len(window))
    wanted = sides.compared(reference, columns, time)
    broken = sides.broken(reference, window, wanted)
    rows, notes = looked_at.taken(past, reference, window, time, seed)
    wanted, rising = looked_at.still(rows, [c for c in wanted if c.name in rows.reference and c.name in rows.window])
    label = _label(rows, target, wanted)
    scorers = [Scorer(looked_at.exchange(rows, wanted))] if wanted else []
    if label is not None:
        scorers.append(Scorer(looked_at.exchange(rows.labelled(label.name), [label])))
    if not any(scorer.measures for scorer in scorers):
        return Drift(bool(broken), None, None, None, level, tuple(broken), *sizes, "no column can be compared")
    found = calibrate(scorers, level, hurry=hurry)
    usual = None if time is None else seasons.usual(scorers, level)
    notes += rising + ([] if usual is None else [_seasons_said(usual)])
    usual = usual if isinstance(usual, Usual) else None
    words = wording.Words(rows.reference, rows.window, [*wanted, *([label] if label else [])], time)
    findings = sorted(
        broken + _findings(found, usual, words), key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect)
    )
    statistic, limit = (found.statistic, found.limit) if usual is None else (float(usual.scores.max()), usual.limit)
    p = found.p if usual is None else max(found.p, usual.p)
    alarm = any(f.alarm for f in findings)
    return Drift(alarm, statistic, limit, p, level, tuple(findings), *sizes, "; ".join(notes) or None)


def _label(rows: Rows, target: str | None, wanted: list[Compared]) -> Compared | None:
    """The target, if enough labels have come."""
    import pandas as pd

    if target is None or min(len(part) for part in rows.labelled(target).parts[1:]) < FEWEST:
        return None
    values = rows.reference[target]
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
    return Compared(target, "target", "number" if number and not classes else "category")


def _findings(found: Calibrated, usual: Usual | None, words: wording.Words) -> list[Finding]:
    """One finding per column and aspect: of its measures the one that says most."""
    distances = found.scores if usual is None else usual.scores
    limits = found.limits if usual is None else np.full(len(distances), usual.limit)
    alarms = found.alarms if usual is None else found.alarms & (distances > usual.limit)
    loudest: dict[tuple[str, str], int] = {}
    for i in np.lexsort((-distances / limits, ~alarms)):
        measure = found.measures[i]
        loudest.setdefault((measure.column, measure.aspect), int(i))
    findings = []
    for i in loudest.values():
        aspect, said = words.of(found.measures[i], speaks=bool(alarms[i]))
        column = found.measures[i].column
        findings.append(Finding(column, aspect, float(distances[i]), float(limits[i]), bool(alarms[i]), said))
    return findings


def _seasons_said(usual: Usual | int) -> str:
    if isinstance(usual, int):
        there = f"{seasons.FEWEST} earlier stretches as long as the window are needed, there are {usual}"
        return f"seasons are not part of 'unchanged': {there}"
    return f"held against {usual.stretches} earlier stretches as long as this one"
