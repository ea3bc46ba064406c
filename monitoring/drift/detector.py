"""Detects drift between the champion's reference and a window: which rows are compared, whether anything moved, and a
line of text for each finding.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring.drift import binning, calibration, distances, evidently, scipy_distances
from windvane.monitoring.drift.binning import ComparedColumn, read_dates
from windvane.monitoring.drift.calibration import CalibratedScores, SeasonalScores, calibrate_scores
from windvane.monitoring.drift.permutation import Demand, PermutationScorer, RowPermutation
from windvane.monitoring.records import DriftFinding, DriftResult
from windvane.tasks.models.model_pipeline import limit_to_one_thread

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.drift.binning import ComparedColumn
    from windvane.monitoring.drift.distances import Distances, Floats
    from windvane.monitoring.records import DriftAspect, DriftMeasure
    from windvane.tasks.models.features import FeatureColumns

# Fewer rows on either side, and nothing is said.
MIN_DRIFT_ROWS = 20
# Of what an error says at most so many characters are kept.
_LONGEST = 300


def detect_drift(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    *,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None = None,
    hurry: bool = False,
) -> DriftResult:
    """Whether the window (m rows) differs from the reference (n rows) by more than a share `level` of unchanged windows do, by our
    own distances: fast, for history that is played.

    Both hold the feature columns, and where known the prediction, probabilities, the target (NaN: no label yet) and `time`.
    `history`: rows of the same source from before the reference, for what seasons do; predictions need not be there.
    `hurry`: stop counting once the alarm is ruled out; the alarm is the same, limits are rough.
    """
    asked = _asked(reference, window, columns, target, time, level, seed, history)
    if isinstance(asked, DriftResult):
        return asked
    with limit_to_one_thread():
        calibrated = _calibrated(asked, level, distances, hurry=hurry)
        values = np.concatenate([s.values() for s in calibrated.scorers])
        return _drift(asked, calibrated, values, calibrated.alarms, True, asked.notes)


def report(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    *,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None = None,
) -> tuple[DriftResult, str | None]:
    """The same, read from Evidently's report, which runs with our limits as its thresholds; and that report as an HTML page.

    A report that fails leaves the alarm open, with the reason. None for a page: too few rows, or nothing that can be compared.
    """
    asked = _asked(reference, window, columns, target, time, level, seed, history)
    if isinstance(asked, DriftResult):
        return asked, None
    notes = asked.notes
    with limit_to_one_thread():
        try:
            try:
                calibrated = _calibrated(asked, level, distances)
            except Exception as e:  # noqa: BLE001 (whatever is wrong with our distances must not silence the alarm)
                calibrated = _calibrated(asked, level, scipy_distances)
                notes = [*notes, f"limits were found by SciPy's distances, because the fast ones failed: {_named(e)}"]
            read = evidently.write_evidently_report(
                [s.exchange for s in calibrated.scorers],
                [s.measures for s in calibrated.scorers],
                calibrated.bounds(),
                asked.broken,
                calibrated.loudest,
            )
        except Exception as e:  # noqa: BLE001 (whatever fails there, the answer is that nobody can tell, with the reason)
            said = f"cannot tell whether anything moved: its report failed: {_named(e)}"
            certain = [f"{f.column}: {f.said}" for f in asked.broken]
            return DriftResult(
                None, None, None, None, level, (), *asked.sizes, "; ".join([said, *certain, *notes])
            ), None
        return _drift(asked, calibrated, read.values, read.alarms, read.broken, notes), read.page


@dataclass(frozen=True)
class _Asked:
    """What is compared: rows and columns that can be, the target if enough labels have come, and what is broken or left out."""

    rows: SampledRows
    wanted: list[ComparedColumn]
    label: ComparedColumn | None
    broken: list[DriftFinding]
    sizes: tuple[int, int]
    notes: list[str]


@dataclass(frozen=True)
class _Limits:
    """Scorers that know what is usual, and what their measures must exceed to speak."""

    scorers: list[PermutationScorer]
    found: CalibratedScores
    usual: SeasonalScores | None
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
    columns: FeatureColumns,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    history: pd.DataFrame | None,
) -> _Asked | DriftResult:
    """What to compare; a Drift where that says all there is to say."""
    sizes = (len(reference), len(window))
    if min(sizes) < MIN_DRIFT_ROWS:
        few = f"too few rows to say: {sizes[1]:,} in the window, {sizes[0]:,} in the reference; {MIN_DRIFT_ROWS} of each are needed"
        return DriftResult(False, None, None, None, level, (), *sizes, few)
    past = reference.iloc[:0] if history is None or time is None else history
    wanted = binning.list_compared_columns(reference, columns, time)
    broken = binning.find_absent_columns(reference, window, wanted)
    rows, notes = sample_rows(past, reference, window, time, seed)
    wanted, rising = drop_rising_columns(
        rows, [c for c in wanted if c.name in rows.reference and c.name in rows.window]
    )
    label = _find_label_column(rows, target, wanted)
    if not wanted and label is None:
        return DriftResult(bool(broken), None, None, None, level, tuple(broken), *sizes, "no column can be compared")
    return _Asked(rows, wanted, label, broken, sizes, notes + rising)


def _calibrated(asked: _Asked, level: float, by: Distances, *, hurry: bool = False) -> _Limits:
    """Limits for all measures, by exchanging rows."""
    scorers = [PermutationScorer(build_permutation(asked.rows, asked.wanted), by)] if asked.wanted else []
    if asked.label is not None:
        labelled = asked.rows.labelled(asked.label.name)
        scorers.append(PermutationScorer(build_permutation(labelled, [asked.label]), by))
    found = calibrate_scores(scorers, level, hurry=hurry)
    usual = None if asked.rows.time is None else calibration.score_against_past(scorers, level)
    notes = [] if usual is None else [_describe_seasons(usual)]
    return _Limits(scorers, found, usual if isinstance(usual, SeasonalScores) else None, level, notes)


def _drift(
    asked: _Asked, by: _Limits, values: Floats, alarms: NDArray[np.bool_], broken: bool, notes: list[str]
) -> DriftResult:
    """The verdict, of each measure's value and alarm (measures,)."""
    rows, usual = asked.rows, by.usual
    words = FindingTexts(
        rows.reference, rows.window, [*asked.wanted, *([asked.label] if asked.label else [])], rows.time
    )
    findings = sorted(
        (asked.broken if broken else []) + _make_findings(by, values, alarms, words),
        key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect),
    )
    statistic, limit = (
        (by.found.statistic, by.found.limit) if usual is None else (float(usual.scores.max()), usual.limit)
    )
    p = by.found.p if usual is None else max(by.found.p, usual.p)
    said = "; ".join(notes + by.notes) or None
    return DriftResult(
        any(f.alarm for f in findings), statistic, limit, p, by.level, tuple(findings), *asked.sizes, said
    )


def _find_label_column(rows: SampledRows, target: str | None, wanted: list[ComparedColumn]) -> ComparedColumn | None:
    """The target, if enough labels have come."""
    import pandas as pd

    if target is None or min(len(part) for part in rows.labelled(target).parts[1:]) < MIN_DRIFT_ROWS:
        return None
    values = rows.reference[target]
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
    return ComparedColumn(target, "target", "number" if number and not classes else "category")


def _make_findings(by: _Limits, values: Floats, alarms: NDArray[np.bool_], words: FindingTexts) -> list[DriftFinding]:
    """One finding per column and aspect: of its measures the one that says most."""
    loudest: dict[tuple[str, str], int] = {}
    for i in np.lexsort((-by.scores / by.limits, ~alarms)):
        measure = by.found.measures[i]
        loudest.setdefault((measure.column, measure.aspect), int(i))
    findings = []
    for i in loudest.values():
        measure, alarm = by.found.measures[i], bool(alarms[i])
        aspect, said = words.of(measure, float(values[i]), speaks=alarm)
        findings.append(DriftFinding(measure.column, aspect, float(by.scores[i]), float(by.limits[i]), alarm, said))
    return findings


def _describe_seasons(usual: SeasonalScores | int) -> str:
    if isinstance(usual, int):
        there = (
            f"{calibration.MIN_EARLIER_WINDOWS} earlier stretches as long as the window are needed, there are {usual}"
        )
        return f"seasons are not part of 'unchanged': {there}"
    return f"held against {usual.stretches} earlier stretches as long as this one"


def _named(error: Exception) -> str:
    """An error in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:_LONGEST]}" if said else type(error).__name__


# More rows than this of a side are sampled; with time, of which a reference holds many windows, more than the other.
MAX_SAMPLE_ROWS, MAX_TIMED_SAMPLE_ROWS = 20_000, 100_000
# With time, a window is exchanged in about so many blocks of rows that follow each other.
_WINDOW_BLOCKS = 10


@dataclass(frozen=True)
class SampledRows:
    """The rows to compare, in order: `past` before the reference (may be empty), reference, window."""

    past: pd.DataFrame
    reference: pd.DataFrame
    window: pd.DataFrame
    time: str | None
    seed: int

    @property
    def parts(self) -> list[pd.DataFrame]:
        """All three, oldest first."""
        return [self.past, self.reference, self.window]

    def labelled(self, target: str) -> SampledRows:
        """Only the rows whose label has come."""

        def known(part: pd.DataFrame) -> pd.DataFrame:
            return part[part[target].notna()] if target in part else part.iloc[:0]

        return SampledRows(known(self.past), known(self.reference), known(self.window), self.time, self.seed)


def sample_rows(
    past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, time: str | None, seed: int
) -> tuple[SampledRows, list[str]]:
    """The rows that are looked at. With time every k-th of all parts, so that stretches as long as the window stay so."""
    parts = [binning.drop_repeated_columns(frame) for frame in (past, reference, window)]
    if time is None:
        rng = np.random.default_rng(seed)
        kept = [
            p if len(p) <= MAX_SAMPLE_ROWS else p.iloc[np.sort(rng.choice(len(p), MAX_SAMPLE_ROWS, replace=False))]
            for p in parts
        ]
    else:
        every = max(-(-len(reference) // MAX_TIMED_SAMPLE_ROWS), -(-len(window) // MAX_SAMPLE_ROWS), 1)
        kept = [part.sort_values(time, kind="stable").iloc[::every] for part in parts]
        kept[0] = kept[0].iloc[-MAX_TIMED_SAMPLE_ROWS:]
    notes = [
        f"{len(k):,} of {len(p):,} rows of the {name} were compared"
        for name, p, k in zip(("past", "reference", "window"), parts, kept, strict=True)
        if len(k) < len(p)
    ]
    return SampledRows(kept[0], kept[1], kept[2], time, seed), notes


def drop_rising_columns(rows: SampledRows, wanted: list[ComparedColumn]) -> tuple[list[ComparedColumn], list[str]]:
    """Without the columns that only ever rise with the clock: no window is ever like the reference in them."""
    clock = _read_clock(rows)
    if clock is None:
        return wanted, []
    rising = set()
    for column in wanted:
        if column.read != "category" and column.aspect == "numbers":
            numbers, _ = binning.read_compared_values(rows.parts, column, None)
            known = np.isfinite(numbers) & np.isfinite(clock)
            if column.read == "number" and known.any() and binning.rises_with_clock(clock[known], numbers[known]):
                rising.add(column.name)
    said = f"not compared, because they rise with the clock: {', '.join(sorted(rising))}" if rising else ""
    return [c for c in wanted if c.name not in rising], [said] if said else []


def build_permutation(rows: SampledRows, wanted: Sequence[ComparedColumn]) -> RowPermutation:
    """The columns as cells, in an order of rows that neither the table's order nor the columns' order decides."""
    cut = [binning.bin_column(rows.parts, column, rows.time) for column in sorted(wanted, key=lambda c: c.name)]
    past, reference, window = (len(part) for part in rows.parts)
    key = np.zeros(past + reference + window, dtype=np.uint64)
    for cells in cut:
        weight = np.uint64(zlib.crc32(cells.name.encode()) * 0x9E3779B97F4A7C15 % 2**64 | 1)
        key += (cells.codes.astype(np.int64).view(np.uint64) + np.uint64(3)) ** np.uint64(3) * weight
    clock = _read_clock(rows)
    side = np.repeat([0, 1, 2], [past, reference, window])
    order = np.lexsort((key, side) if clock is None else (key, clock, side))
    ordered = [replace(cells, codes=cells.codes[order]) for cells in cut]
    run = None if rows.time is None else max(window // _WINDOW_BLOCKS, 1)
    return RowPermutation(ordered, reference, window, rows.seed, run, before=past)


def _read_clock(rows: SampledRows) -> NDArray[np.float64] | None:
    return None if rows.time is None else np.concatenate([read_dates(part[rows.time])[0] for part in rows.parts])


_UNCHANGED_TEXT = "as usual"
_DISTANCES = {
    "wasserstein": "Wasserstein {:.3g} standard deviations",
    "ks": "Kolmogorov-Smirnov {:.3g}",
    "jensenshannon": "Jensen-Shannon {:.3g}",
}


class FindingTexts:
    """Says what moved between two frames; looks at values only for what speaks."""

    def __init__(
        self, reference: pd.DataFrame, window: pd.DataFrame, wanted: list[ComparedColumn], time: str | None
    ) -> None:
        self._parts, self._time = [reference, window], time
        self._wanted = {column.name: column for column in wanted}

    def of(self, measure: DriftMeasure, value: float, *, speaks: bool) -> tuple[DriftAspect, str]:
        """The finding's aspect (a column missing in all rows is silent) and its line; `value` is what was measured."""
        if not speaks:
            return measure.aspect, _UNCHANGED_TEXT
        column = self._wanted[measure.column]
        if measure.aspect == "correlation":
            return "correlation", self._hanging(column)
        values, unreadable = binning.read_compared_values(self._parts, column, self._time)
        gone = np.asarray(values.isna() if column.read == "category" else ~np.isfinite(values), dtype=bool)
        if measure.aspect == "missing":
            return _describe_missing(gone & ~unreadable, len(self._parts[0]))
        if measure.aspect == "type":
            return "type", self._unreadable(column, unreadable)
        before, after = (v[~g] for v, g in zip(self._halves(np.asarray(values)), self._halves(gone), strict=True))
        if measure.how == "range":
            said = _describe_range(before, after)
        elif column.read != "category":
            said = _describe_numbers(before, after)
        else:
            said = (
                _describe_new_categories(before, after)
                if measure.how == "new categories"
                else _describe_categories(before, after)
            )
        named = _DISTANCES.get(measure.how)
        return measure.aspect, said if named is None else f"{said}; {named.format(value)}"

    def _halves(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = len(self._parts[0])
        return values[:rows], values[rows:]

    def _unreadable(self, column: ComparedColumn, unreadable: NDArray[np.bool_]) -> str:
        before, after = self._halves(unreadable)
        such = f", such as {self._parts[1][column.name][after].iloc[0]!r}" if after.any() else ""
        return f"{int(after.sum()):,} rows cannot be read as a {column.read}{such}; before {int(before.sum()):,}"

    def _hanging(self, column: ComparedColumn) -> str:
        """Of the pairs with this column the one whose rank correlation moved most."""
        names = [c.name for c in self._wanted.values() if c.read != "category" and c.aspect == "numbers"]
        with np.errstate(divide="ignore", invalid="ignore"):  # a column may be constant on one side
            both = self._ranked(names, column)
        other = (both[1] - both[0]).abs().fillna(0).idxmax()
        return f"rank correlation with {other}: {both[1][other]:.2f}; before {both[0][other]:.2f}"

    def _ranked(self, names: list[str], column: ComparedColumn) -> list[pd.Series]:
        """Rank correlations of the column with the others, on each side."""
        import pandas as pd

        found = []
        for part in self._parts:
            read = {n: binning.read_compared_values([part], self._wanted[n], self._time)[0] for n in names}
            ranks = pd.DataFrame(read).rank()
            found.append(ranks.drop(columns=column.name).corrwith(ranks[column.name]))
        return found


def _describe_missing(gone: NDArray[np.bool_], rows: int) -> tuple[DriftAspect, str]:
    before, after = float(gone[:rows].mean()), float(gone[rows:].mean())
    if after == 1:
        return "silent", f"all {len(gone) - rows:,} rows are missing; before {before:.1%}"
    return "missing", f"missing in {after:.1%} of rows; before {before:.1%}"


def _describe_numbers(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    if not len(before) or not len(after):
        return "no values to compare"
    low, middle, high = np.quantile(after, [0.1, 0.5, 0.9])
    was = np.quantile(before, [0.1, 0.5, 0.9])
    return (
        f"median {middle:.4g} (80 % within {low:.4g} to {high:.4g}); before {was[1]:.4g} ({was[0]:.4g} to {was[2]:.4g})"
    )


def _describe_categories(before: NDArray[Any], after: NDArray[Any]) -> str:
    import pandas as pd

    was, now = (pd.Series(side).astype(str).value_counts(normalize=True) for side in (before, after))
    moved = now.sub(was, fill_value=0)
    most = moved.abs().idxmax()
    return f"{most!r} is {now.get(most, 0):.1%} of rows; before {was.get(most, 0):.1%}"


def _describe_new_categories(before: NDArray[Any], after: NDArray[Any]) -> str:
    import pandas as pd

    counts = pd.Series(after).value_counts()
    new = counts[~counts.index.isin(pd.unique(pd.Series(before)))]
    if not len(new):
        return "rare categories are more frequent than before"
    more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
    return f"{int(new.sum()):,} rows in categories not seen before: {new.index[0]!r}{more}"


def _describe_range(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    if not len(before):
        return f"{len(after):,} rows have a value; before none had"
    low, high = float(before.min()), float(before.max())
    under, over = int((after < low).sum()), int((after > high).sum())
    worst = float(after.max()) if over >= under else float(after.min())
    return f"{under + over:,} rows beyond all seen before ({low:.4g} to {high:.4g}), as far as {worst:.4g}"
