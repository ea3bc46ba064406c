"""What Evidently's report shows beyond Evidently's own metrics: one metric of ours, with a test at its limits. Imports Evidently.

Evidently's own distances without a drawing, for wide tables; numbers of rows that are missing, unreadable, out of range, of a new
or of another than the commonest category; how far apart distribution functions, shares and rank correlations are. Written beside
monitoring/drift/permutation.py, which counts draws: `tests/monitoring/test_evidently_report.py` holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

from windvane.monitoring.drift.binning import ONE_ROW, RARE
from windvane.monitoring.drift.permutation import COUNTED


class WindowMeasure(SingleValueMetric):
    """One column of the window against the reference, by `how` (a key of this file's table).

    `beside`: the columns that it needs too; `value`: the commonest value, or what was counted before; `rows` of the smaller side.
    """

    column: str
    how: str
    beside: tuple[str, ...] = ()
    value: str | float | None = None
    rows: int = 0


class WindowMeasureCalculation(SingleValueCalculation[WindowMeasure]):
    """Its value, without a drawing: the report's table of tests shows it with its limits."""

    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> SingleValue:
        """See WindowMeasure."""
        _, measure = _MEASURES[self.metric.how]
        result = self.result(float(measure(self.metric, reference_data.as_dataframe(), current_data.as_dataframe())))
        result.widget = []
        return result

    def display_name(self) -> str:
        """What the table of tests calls it."""
        return f"{self.metric.column}: {_MEASURES[self.metric.how][0]}"


def _evidentlys(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    kind = ColumnType.Numerical if of.how == "wasserstein" else ColumnType.Categorical
    sides = [side[of.column].dropna() for side in (reference, window)]
    return float(np.nan_to_num(get_stattest(*sides, kind, of.how)(*sides, kind, None).drift_score))


def _kolmogorov_smirnov(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    sides = [side[of.column].dropna().to_numpy() for side in (reference, window)]
    if not all(map(len, sides)):
        return 0.0
    values = np.unique(np.concatenate(sides))
    below = [np.searchsorted(np.sort(side), values, side="right") / len(side) for side in sides]
    return float(np.abs(below[0] - below[1]).max())


def _share(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    counts = pd.DataFrame({0: reference[of.column].value_counts(), 1: window[of.column].value_counts()}).fillna(0)
    if not (counts.sum() > 0).all():
        return 0.0
    both = counts.sum(axis=1) / counts.to_numpy().sum()
    common = np.minimum(both, 1 - both) * of.rows >= COUNTED
    moved = (counts / counts.sum()).diff(axis=1)[1].abs() / np.sqrt(np.maximum(both * (1 - both), 1e-9))
    return float(moved[common].max()) if common.any() else 0.0


def _correlation(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    moved = _fisher(of, window) - _fisher(of, reference)
    return float(np.abs(moved).max())


def _fisher(of: WindowMeasure, side: pd.DataFrame) -> Any:
    """Of the rank scores of `beside`, whose first is the column's own, the correlations of the first with the others."""
    scores = side[list(of.beside)].to_numpy(dtype=np.float64)
    scores = scores - scores.mean(axis=0)
    spread = np.sqrt(np.maximum((scores**2).mean(axis=0), 1e-9))
    found = (scores[:, :1] * scores[:, 1:]).mean(axis=0) / (spread[0] * spread[1:])
    return np.arctanh(np.clip(found, -0.999, 0.999))


def _unreadable(of: WindowMeasure, _: pd.DataFrame, window: pd.DataFrame) -> float:
    return float(np.nansum(window[list(of.beside)].to_numpy())) if of.beside else 0.0


def _range(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    known, values = reference[of.column].dropna(), window[of.column].dropna()
    if not len(known):
        return float(len(values))
    return float(max((values < known.min()).sum(), (values > known.max()).sum()))


def _new_categories(of: WindowMeasure, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    values = window[of.column].dropna()
    new = ~values.isin(reference[of.column].dropna().unique()) & ~values.astype(str).str.startswith(RARE)
    return float((new | (values == ONE_ROW)).sum())


# How -> what the table of tests calls it, and its function.
_MEASURES: dict[str, tuple[str, Callable[[WindowMeasure, pd.DataFrame, pd.DataFrame], float]]] = {
    "wasserstein": ("Wasserstein distance (normed)", _evidentlys),
    "jensenshannon": ("Jensen-Shannon distance", _evidentlys),
    "ks": ("Kolmogorov-Smirnov distance", _kolmogorov_smirnov),
    "share": ("share that moved most, in its standard deviations", _share),
    "correlation": ("rank correlation that moved most (Fisher's z)", _correlation),
    "missing": ("rows without a value", lambda of, _, new: new[of.column].isna().sum() - _unreadable(of, _, new)),
    "unreadable": ("rows that cannot be read", _unreadable),
    "off": ("rows off the commonest value", lambda of, _, new: (new[of.column].dropna() != of.value).sum()),
    "range": ("rows beyond one end of the reference", _range),
    "new categories": ("rows of categories that the reference has not", _new_categories),
    "columns": ("columns of this name", lambda of, *_: float(of.value or 0)),
}
