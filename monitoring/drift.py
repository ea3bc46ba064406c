"""Has anything moved between the champion's reference and a window? Owns the verdict.

In production Evidently's report measures, and the alarm is read from its tests (report()). What counts as unusual is ours, because its
rules of thumb are no trigger: its p-values are not corrected for the number of columns, and its thresholds do not know how large a
window is. So its thresholds are our limits. History that is played is measured by our own distances (measure()); both give the same
alarm, which `tests/test_drift_report.py` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import distances, evidently, scipy_distances, seasons, sides, wording
from windvane.monitoring import rows as looked_at
from windvane.monitoring.calibration import Calibrated, calibrate
from windvane.monitoring.evidence import Drift, Finding
from windvane.monitoring.measures import Demand, Scorer
from windvane.monitoring.seasons import Usual
from windvane.monitoring.sides import Compared
from windvane.tasks.estimators import one_thread

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.distances import Distances, Floats
    from windvane.monitoring.rows import Rows
    from windvane.tasks.features import Columns

# Fewer rows on either side, and nothing is said.
FEWEST = 20
# Of what an error says at most so many characters are kept.
_LONGEST = 300


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
    """Whether the window (m rows) differs from the reference (n rows) by more than a share `level` of unchanged windows do, by our
    own distances: fast, for history that is played.

    Both hold the feature columns, and where known the prediction, probabilities, the target (NaN: no label yet) and `time`.
    `history`: rows of the same source from before the reference, for what seasons do; predictions need not be there.
    `hurry`: stop counting once the alarm is ruled out; the alarm is the same, limits are rough.
    """
    asked = _asked(reference, window, columns, target, time, level, seed, history)
    if isinstance(asked, Drift):
        return asked
    with one_thread():
        calibrated = _calibrated(asked, level, distances, hurry=hurry)
        values = np.concatenate([s.values() for s in calibrated.scorers])
        return _drift(asked, calibrated, values, calibrated.alarms, True, asked.notes)


def report(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Columns,
    *,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None = None,
) -> tuple[Drift, str | None]:
    """The same, read from Evidently's report, which runs with our limits as its thresholds; and that report as an HTML page.

    A report that fails leaves the alarm open, with the reason. None for a page: too few rows, or nothing that can be compared.
    """
    asked = _asked(reference, window, columns, target, time, level, seed, history)
    if isinstance(asked, Drift):
        return asked, None
    notes = asked.notes
    with one_thread():
        try:
            try:
                calibrated = _calibrated(asked, level, distances)
            except Exception as e:  # noqa: BLE001 (whatever is wrong with our distances must not silence the alarm)
                calibrated = _calibrated(asked, level, scipy_distances)
                notes = [*notes, f"limits were found by SciPy's distances, because the fast ones failed: {_named(e)}"]
            read = evidently.report(
                [s.exchange for s in calibrated.scorers],
                [s.measures for s in calibrated.scorers],
                calibrated.bounds(),
                asked.broken,
                calibrated.loudest,
            )
        except Exception as e:  # noqa: BLE001 (whatever fails there, the answer is that nobody can tell, with the reason)
            said = f"cannot tell whether anything moved: its report failed: {_named(e)}"
            certain = [f"{f.column}: {f.said}" for f in asked.broken]
            return Drift(None, None, None, None, level, (), *asked.sizes, "; ".join([said, *certain, *notes])), None
        return _drift(asked, calibrated, read.values, read.alarms, read.broken, notes), read.page


@dataclass(frozen=True)
class _Asked:
    """What is compared: rows and columns that can be, the target if enough labels have come, and what is broken or left out."""

    rows: Rows
    wanted: list[Compared]
    label: Compared | None
    broken: list[Finding]
    sizes: tuple[int, int]
    notes: list[str]


@dataclass(frozen=True)
class _Limits:
    """Scorers that know what is usual, and what their measures must exceed to speak."""

    scorers: list[Scorer]
    found: Calibrated
    usual: Usual | None
    level: float
    notes: list[str]

    @property
    def scores(self) -> Floats:
        """(measures,) how far each moved: 1 is one standard deviation of unchanged windows."""
        return self.found.scores if self.usual is None else self.usual.scores

    @property
    def limits(self) -> Floats:
        """(measures,) the scores that they must exceed."""
        return self.found.limits if self.usual is None else np.full(len(self.scores), self.usual.limit)

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """(measures,) which do."""
        return self.found.alarms & (self.scores > self.limits) if self.usual is not None else self.found.alarms

    @property
    def loudest(self) -> list[str]:
        """The columns, those first that seem to have moved most."""
        return list(dict.fromkeys(self.found.measures[i].column for i in np.argsort(-self.scores, kind="stable")))

    def bounds(self) -> tuple[Floats, Floats]:
        """The same limits in Evidently's units: the least and the most (measures,) at which each is quiet."""
        demands = [Demand(self.found.limits, np.ones(len(self.found.limits)))]
        if self.usual is not None:
            demands.append(Demand(self.limits, self.usual.slack))
        ends = np.cumsum([len(s.measures) for s in self.scorers])[:-1]
        parts = zip(
            *(zip(np.split(d.limits, ends), np.split(d.slack, ends), strict=True) for d in demands), strict=True
        )
        found = [s.bounds([Demand(*one) for one in part]) for s, part in zip(self.scorers, parts, strict=True)]
        return np.concatenate([low for low, _ in found]), np.concatenate([high for _, high in found])


def _asked(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Columns,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None,
) -> _Asked | Drift:
    """What to compare; a Drift where that says all there is to say."""
    sizes = (len(reference), len(window))
    if min(sizes) < FEWEST:
        few = f"too few rows to say: {sizes[1]:,} in the window, {sizes[0]:,} in the reference; {FEWEST} of each are needed"
        return Drift(False, None, None, None, level, (), *sizes, few)
    past = reference.iloc[:0] if history is None or time is None else history
    wanted = sides.compared(reference, columns, time)
    broken = sides.broken(reference, window, wanted)
    rows, notes = looked_at.taken(past, reference, window, time, seed)
    wanted, rising = looked_at.still(rows, [c for c in wanted if c.name in rows.reference and c.name in rows.window])
    label = _label(rows, target, wanted)
    if not wanted and label is None:
        return Drift(bool(broken), None, None, None, level, tuple(broken), *sizes, "no column can be compared")
    return _Asked(rows, wanted, label, broken, sizes, notes + rising)


def _calibrated(asked: _Asked, level: float, by: Distances, *, hurry: bool = False) -> _Limits:
    """Limits for all measures, by exchanging rows."""
    scorers = [Scorer(looked_at.exchange(asked.rows, asked.wanted), by)] if asked.wanted else []
    if asked.label is not None:
        labelled = asked.rows.labelled(asked.label.name)
        scorers.append(Scorer(looked_at.exchange(labelled, [asked.label]), by))
    found = calibrate(scorers, level, hurry=hurry)
    usual = None if asked.rows.time is None else seasons.usual(scorers, level)
    notes = [] if usual is None else [_seasons_said(usual)]
    return _Limits(scorers, found, usual if isinstance(usual, Usual) else None, level, notes)


def _drift(
    asked: _Asked, by: _Limits, values: Floats, alarms: NDArray[np.bool_], broken: bool, notes: list[str]
) -> Drift:
    """The verdict, of each measure's value and alarm (measures,)."""
    rows, usual = asked.rows, by.usual
    words = wording.Words(
        rows.reference, rows.window, [*asked.wanted, *([asked.label] if asked.label else [])], rows.time
    )
    findings = sorted(
        (asked.broken if broken else []) + _findings(by, values, alarms, words),
        key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect),
    )
    statistic, limit = (
        (by.found.statistic, by.found.limit) if usual is None else (float(usual.scores.max()), usual.limit)
    )
    p = by.found.p if usual is None else max(by.found.p, usual.p)
    said = "; ".join(notes + by.notes) or None
    return Drift(any(f.alarm for f in findings), statistic, limit, p, by.level, tuple(findings), *asked.sizes, said)


def _label(rows: Rows, target: str | None, wanted: list[Compared]) -> Compared | None:
    """The target, if enough labels have come."""
    import pandas as pd

    if target is None or min(len(part) for part in rows.labelled(target).parts[1:]) < FEWEST:
        return None
    values = rows.reference[target]
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
    return Compared(target, "target", "number" if number and not classes else "category")


def _findings(by: _Limits, values: Floats, alarms: NDArray[np.bool_], words: wording.Words) -> list[Finding]:
    """One finding per column and aspect: of its measures the one that says most."""
    loudest: dict[tuple[str, str], int] = {}
    for i in np.lexsort((-by.scores / by.limits, ~alarms)):
        measure = by.found.measures[i]
        loudest.setdefault((measure.column, measure.aspect), int(i))
    findings = []
    for i in loudest.values():
        measure, alarm = by.found.measures[i], bool(alarms[i])
        aspect, said = words.of(measure, float(values[i]), speaks=alarm)
        findings.append(Finding(measure.column, aspect, float(by.scores[i]), float(by.limits[i]), alarm, said))
    return findings


def _seasons_said(usual: Usual | int) -> str:
    if isinstance(usual, int):
        there = f"{seasons.FEWEST} earlier stretches as long as the window are needed, there are {usual}"
        return f"seasons are not part of 'unchanged': {there}"
    return f"held against {usual.stretches} earlier stretches as long as this one"


def _named(error: Exception) -> str:
    """An error in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:_LONGEST]}" if said else type(error).__name__
