"""The line of text of each drift finding: how what moved was before, and how it is now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring.drift.compared_rows import ComparedColumn, read_compared_values
from windvane.monitoring.records import DriftAspect, DriftMeasure

_DISTANCES = {
    "wasserstein": "Wasserstein {:.3g} standard deviations",
    "ks": "Kolmogorov-Smirnov {:.3g}",
    "jensenshannon": "Jensen-Shannon {:.3g}",
}


class FindingTexts:
    """Names what moved between two frames; reads values only for what speaks."""

    def __init__(
        self, reference: pd.DataFrame, window: pd.DataFrame, wanted: list[ComparedColumn], time: str | None
    ) -> None:
        self._parts, self._time = [reference, window], time
        self._wanted = {column.name: column for column in wanted}

    def describe(self, measure: DriftMeasure, value: float) -> tuple[DriftAspect, str]:
        """The finding's aspect (a column missing in all rows is silent) and its line; `value` is what was measured."""
        column = self._wanted[measure.column]
        if measure.aspect == "correlation":
            return "correlation", self._describe_correlation(column)
        values, unreadable = read_compared_values(self._parts, column, self._time)
        gone = np.asarray(values.isna() if column.read == "category" else ~np.isfinite(values), dtype=bool)
        rows = len(self._parts[0])
        if measure.aspect == "missing":
            return _describe_missing(gone & ~unreadable, rows)
        if measure.aspect == "type":
            which = unreadable[rows:]
            such = f", such as {self._parts[1][column.name][which].iloc[0]!r}" if which.any() else ""
            count, before = int(which.sum()), int(unreadable[:rows].sum())
            return "type", f"{count:,} rows cannot be read as a {column.read}{such}; before {before:,}"
        both = np.asarray(values)
        sides = both[:rows][~gone[:rows]], both[rows:][~gone[rows:]]
        if measure.how == "range":
            text = _describe_range(*sides)
        elif column.read != "category":
            text = _describe_numbers(*sides)
        elif measure.how == "new categories":
            text = _describe_new_categories(*sides)
        else:
            text = _describe_categories(*sides)
        named = _DISTANCES.get(measure.how)
        return measure.aspect, text if named is None else f"{text}; {named.format(value)}"

    def _describe_correlation(self, column: ComparedColumn) -> str:
        """Of the pairs with this column the one whose rank correlation moved most."""
        numbers = [c for c in self._wanted.values() if c.read != "category" and c.aspect == "numbers"]
        found = []
        for part in self._parts:
            ranks = pd.DataFrame({c.name: read_compared_values([part], c, self._time)[0] for c in numbers}).rank()
            with np.errstate(divide="ignore", invalid="ignore"):  # a column may be constant on one side
                found.append(ranks.drop(columns=column.name).corrwith(ranks[column.name]))
        before, after = found
        other = (after - before).abs().fillna(0).idxmax()
        return f"rank correlation with {other}: {after[other]:.2f}; before {before[other]:.2f}"


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
    was, now = (pd.Series(side).astype(str).value_counts(normalize=True) for side in (before, after))
    moved = now.sub(was, fill_value=0)
    most = moved.abs().idxmax()
    return f"{most!r} is {now.get(most, 0):.1%} of rows; before {was.get(most, 0):.1%}"


def _describe_new_categories(before: NDArray[Any], after: NDArray[Any]) -> str:
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
