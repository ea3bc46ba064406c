"""Has anything moved between the champion's reference and a window? Owns the verdict; leaves the report to its own file.

Evidently measures and draws (monitoring/evidently.py). What counts as unusual is ours, because its rules of thumb are no
trigger: its p-values are not corrected for the number of columns, and its thresholds do not know how large a window is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from monitoring import seasons, sides, wording
from monitoring.calibration import Calibrated, calibrate
from monitoring.cells import read_dates
from monitoring.evidence import Drift, Finding
from monitoring.exchange import Exchange
from monitoring.measures import Scorer
from monitoring.seasons import Usual
from monitoring.sides import Compared

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from monitoring.cells import Cells
    from tasks.features import Columns

# Fewer rows on either side, and nothing is said.
FEWEST = 20
# More rows than this of a side are sampled.
MOST = 20_000
# With time, a window is exchanged in about so many blocks of rows that follow each other.
_BLOCKS = 10


@dataclass(frozen=True)
class _Rows:
    """The rows to compare, in order: `past` before the reference (may be empty), reference, window."""

    past: pd.DataFrame
    reference: pd.DataFrame
    window: pd.DataFrame
    time: str | None
    seed: int

    @property
    def parts(self) -> list[pd.DataFrame]:
        return [self.past, self.reference, self.window]

    def labelled(self, target: str) -> _Rows:
        """Only the rows whose label has come."""
        kept = [part[part[target].notna()] if target in part else part.iloc[:0] for part in self.parts]
        return _Rows(*kept, self.time, self.seed)


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
    wanted = sides.compared(reference, columns, time)
    findings = sides.broken(reference, window, wanted)
    past = reference.iloc[:0] if history is None or time is None else history
    rows, notes = _taken(past, reference, window, time, seed)
    wanted = [c for c in wanted if c.name in rows.reference and c.name in rows.window]
    wanted, still = _still(rows, wanted)
    notes += still
    scorers = [_scorer(rows, wanted)] if wanted else []
    if target is not None and min(len(part) for part in rows.labelled(target).parts[1:]) >= FEWEST:
        classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
        classes |= not _numeric(rows.reference[target])
        label = Compared(target, "target", "category" if classes else "number")
        wanted = [*wanted, label]
        scorers.append(_scorer(rows.labelled(target), [label]))
    if not any(scorer.measures for scorer in scorers):
        return Drift(bool(findings), None, None, None, level, tuple(findings), *sizes, "no column can be compared")
    found = calibrate(scorers, level, hurry=hurry)
    usual = None
    if time is not None:
        past_said = seasons.usual(scorers, level)
        usual = None if isinstance(past_said, int) else past_said
        notes.append(_seasons_said(past_said))
    findings += _findings(found, usual, wording.Words(rows.reference, rows.window, wanted, time))
    return _verdict(found, usual, findings, level, sizes, notes)


def _verdict(
    found: Calibrated, usual: Usual | None, findings: list[Finding], level: float, sizes: tuple[int, int], notes: list[str]
) -> Drift:
    ordered = tuple(sorted(findings, key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect)))
    statistic, limit = (found.statistic, found.limit) if usual is None else (float(usual.scores.max()), usual.limit)
    p = found.p if usual is None else max(found.p, usual.p)
    alarm = any(f.alarm for f in ordered)
    return Drift(alarm, statistic, limit, p, level, ordered, *sizes, "; ".join(notes) or None)


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


def _scorer(rows: _Rows, wanted: Sequence[Compared]) -> Scorer:
    """The columns as cells, in an order of rows that neither the table's order nor the columns' order decides."""
    cut = [sides.cut(rows.parts, column, rows.time) for column in sorted(wanted, key=lambda c: c.name)]
    past, reference, window = (len(part) for part in rows.parts)
    key = np.zeros(past + reference + window, dtype=np.uint64)
    for cells in cut:
        weight = np.uint64(zlib.crc32(cells.name.encode()) * 0x9E3779B97F4A7C15 % 2**64 | 1)
        key += (cells.codes.astype(np.int64).view(np.uint64) + np.uint64(3)) ** np.uint64(3) * weight
    clock = _clock(rows)
    side = np.repeat([0, 1, 2], [past, reference, window])
    order = np.lexsort((key, side) if clock is None else (key, clock, side))
    ordered = [_reordered(cells, order) for cells in cut]
    run = None if rows.time is None else max(window // _BLOCKS, 1)
    return Scorer(Exchange(ordered, reference, window, rows.seed, run, before=past))


def _reordered(cells: Cells, order: NDArray[np.int64]) -> Cells:
    from dataclasses import replace

    return replace(cells, codes=cells.codes[order])


def _clock(rows: _Rows) -> NDArray[np.float64] | None:
    return None if rows.time is None else np.concatenate([read_dates(part[rows.time])[0] for part in rows.parts])


def _taken(
    past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, time: str | None, seed: int
) -> tuple[_Rows, list[str]]:
    """At most MOST rows of the reference and of the window; with time evenly spread, and the past as thinly as the window."""
    notes, kept = [], []
    for name, frame in (("reference", reference), ("window", window)):
        part = sides.once(frame)
        if len(part) > MOST:
            notes.append(f"{MOST:,} of {len(part):,} rows of the {name} were looked at")
            rng = np.random.default_rng(seed)
            if time is None:
                part = part.iloc[np.sort(rng.choice(len(part), MOST, replace=False))]
            else:
                part = part.sort_values(time, kind="stable").iloc[np.linspace(0, len(part) - 1, MOST).round().astype(int)]
        kept.append(part)
    thin = -(-len(window) // MOST)
    return _Rows(sides.once(past).iloc[::thin], kept[0], kept[1], time, seed), notes


def _still(rows: _Rows, wanted: list[Compared]) -> tuple[list[Compared], list[str]]:
    """Without the columns that only ever rise with the clock: no window is ever like the reference in them."""
    clock = _clock(rows)
    if clock is None:
        return wanted, []
    rising = set()
    for column in wanted:
        if column.read != "category" and column.aspect == "numbers":
            numbers, _ = sides.values(rows.parts, column, None)
            known = np.isfinite(numbers) & np.isfinite(clock)
            if column.read == "number" and known.any() and sides.follows(clock[known], numbers[known]):
                rising.add(column.name)
    said = f"not compared, because they rise with the clock: {', '.join(sorted(rising))}" if rising else ""
    return [c for c in wanted if c.name not in rising], [said] if said else []


def _numeric(values: pd.Series) -> bool:
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _seasons_said(usual: Usual | int) -> str:
    if isinstance(usual, int):
        few = f"only {usual}" if usual else "none"
        return f"seasons are not part of 'unchanged': of the {seasons.FEWEST} earlier stretches as long as this one that it takes there are {few}"
    return f"held against {usual.stretches} earlier stretches as long as this one"
