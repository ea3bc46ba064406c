"""Detects drift between the champion's reference and a window: which rows are compared, whether anything moved, and a
line of text for each finding.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring.drift import binning, calibration, statistics
from windvane.monitoring.drift.binning import ComparedColumn, read_dates
from windvane.monitoring.drift.calibration import CalibratedScores, SeasonalScores, calibrate_scores
from windvane.monitoring.drift.permutation import PermutationScorer, RowPermutation
from windvane.monitoring.records import DriftFinding, DriftResult
from windvane.tasks.models.model_pipeline import limit_to_one_thread

if TYPE_CHECKING:
    import pandas as pd

    # MOVED
    from numpy.typing import NDArray

    from windvane.monitoring.drift.binning import ComparedColumn
    from windvane.monitoring.records import DriftAspect, DriftMeasure
    from windvane.tasks.models.features import FeatureColumns

# Fewer rows on either side, and nothing is said.
MIN_DRIFT_ROWS = 20


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
    """Whether the window (m rows) differs from the reference (n rows) by more than a share `level` of unchanged windows do.

    Both hold the feature columns, and where known the prediction, probabilities, the target (NaN: no label yet) and `time`.
    `history`: rows of the same source from before the reference, for what seasons do; predictions need not be there.
    `hurry`: stop counting once the alarm is ruled out; the alarm is the same, limits are rough.
    """
    sizes = (len(reference), len(window))
    if min(sizes) < MIN_DRIFT_ROWS:
        few = f"too few rows to say: {sizes[1]:,} in the window, {sizes[0]:,} in the reference; {MIN_DRIFT_ROWS} of each are needed"
        return DriftResult(False, None, None, None, level, (), *sizes, few)
    past = reference.iloc[:0] if history is None or time is None else history
    # Small products: a second thread only waits, and next to a busy neighbour it waits long.
    with limit_to_one_thread():
        return _compare_samples(past, reference, window, columns, target, time, level, seed, hurry)


def _compare_samples(
    past: pd.DataFrame,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    target: str | None,
    time: str | None,
    level: float,
    seed: int,
    hurry: bool,
) -> DriftResult:
    sizes = (len(reference), len(window))
    wanted = binning.list_compared_columns(reference, columns, time)
    broken = binning.find_absent_columns(reference, window, wanted)
    rows, notes = sample_rows(past, reference, window, time, seed)
    wanted, rising = drop_rising_columns(
        rows, [c for c in wanted if c.name in rows.reference and c.name in rows.window]
    )
    label = _find_label_column(rows, target, wanted)
    scorers = [PermutationScorer(build_permutation(rows, wanted))] if wanted else []
    if label is not None:
        scorers.append(PermutationScorer(build_permutation(rows.labelled(label.name), [label])))
    if not any(scorer.measures for scorer in scorers):
        return DriftResult(bool(broken), None, None, None, level, tuple(broken), *sizes, "no column can be compared")
    found = calibrate_scores(scorers, level, hurry=hurry)
    usual = None if time is None else calibration.score_against_past(scorers, level)
    notes += rising + ([] if usual is None else [_describe_seasons(usual)])
    usual = usual if isinstance(usual, SeasonalScores) else None
    words = FindingTexts(rows.reference, rows.window, [*wanted, *([label] if label else [])], time)
    findings = sorted(
        broken + _make_findings(found, usual, words), key=lambda f: (not f.alarm, -f.distance, f.column, f.aspect)
    )
    statistic, limit = (found.statistic, found.limit) if usual is None else (float(usual.scores.max()), usual.limit)
    p = found.p if usual is None else max(found.p, usual.p)
    alarm = any(f.alarm for f in findings)
    return DriftResult(alarm, statistic, limit, p, level, tuple(findings), *sizes, "; ".join(notes) or None)


def _find_label_column(rows: SampledRows, target: str | None, wanted: list[ComparedColumn]) -> ComparedColumn | None:
    """The target, if enough labels have come."""
    import pandas as pd

    if target is None or min(len(part) for part in rows.labelled(target).parts[1:]) < MIN_DRIFT_ROWS:
        return None
    values = rows.reference[target]
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
    return ComparedColumn(target, "target", "number" if number and not classes else "category")


def _make_findings(found: CalibratedScores, usual: SeasonalScores | None, words: FindingTexts) -> list[DriftFinding]:
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
        findings.append(DriftFinding(column, aspect, float(distances[i]), float(limits[i]), bool(alarms[i]), said))
    return findings


def _describe_seasons(usual: SeasonalScores | int) -> str:
    if isinstance(usual, int):
        there = (
            f"{calibration.MIN_EARLIER_WINDOWS} earlier stretches as long as the window are needed, there are {usual}"
        )
        return f"seasons are not part of 'unchanged': {there}"
    return f"held against {usual.stretches} earlier stretches as long as this one"


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


class FindingTexts:
    """Says what moved between two frames; looks at values only for what speaks."""

    def __init__(
        self, reference: pd.DataFrame, window: pd.DataFrame, wanted: list[ComparedColumn], time: str | None
    ) -> None:
        self._parts, self._time = [reference, window], time
        self._wanted = {column.name: column for column in wanted}

    def of(self, measure: DriftMeasure, *, speaks: bool) -> tuple[DriftAspect, str]:
        """The finding's aspect (a column missing in all rows is silent) and its line."""
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
        return measure.aspect, said

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
    moved, apart = statistics.compute_number_distances(before, after)
    low, middle, high = np.quantile(after, [0.1, 0.5, 0.9])
    was = np.quantile(before, [0.1, 0.5, 0.9])
    return (
        f"median {middle:.4g} (80 % within {low:.4g} to {high:.4g}); before {was[1]:.4g} ({was[0]:.4g} to {was[2]:.4g}); "
        f"Wasserstein {moved:.3g} standard deviations, Kolmogorov-Smirnov {apart:.3g}"
    )


def _describe_categories(before: NDArray[Any], after: NDArray[Any]) -> str:
    import pandas as pd

    was, now = (pd.Series(side).astype(str).value_counts(normalize=True) for side in (before, after))
    moved = now.sub(was, fill_value=0)
    most = moved.abs().idxmax()
    names = moved.index
    apart = statistics.compute_jensen_shannon(
        was.reindex(names, fill_value=0).to_numpy(), now.reindex(names, fill_value=0).to_numpy()
    )
    return (
        f"{most!r} is {now.get(most, 0):.1%} of rows; before {was.get(most, 0):.1%}; Jensen-Shannon {float(apart):.3g}"
    )


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
