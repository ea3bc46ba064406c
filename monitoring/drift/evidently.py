"""The only door to Evidently: runs its report with our limits as thresholds, and reads what exceeds them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from evidently.core.datasets import DataDefinition, Dataset
from evidently.core.report import Report
from evidently.legacy.tests.base_test import TestStatus
from evidently.legacy.ui.dashboards import utils as _colours  # noqa: F401 (sets the colours of its plots)
from evidently.metrics import ValueDrift
from evidently.tests import gte, lte
from numpy.typing import NDArray

from windvane.monitoring.drift.binning import UNREADABLE_BIN, BinnedColumn, distinct
from windvane.monitoring.drift.evidently_metrics import WindowMeasure
from windvane.monitoring.drift.permutation import RowPermutation
from windvane.monitoring.records import DriftFinding, DriftMeasure
from windvane.monitoring.window_frames import name_record_column
from windvane.tasks import process_environment
from windvane.tasks.gate.block_test import FloatArray

# The measures that Evidently has, by its names; the others are ours (monitoring/drift/evidently_metrics.py).
MEASURES = ("wasserstein", "jensenshannon")
# Of more columns than this the others are measured by Evidently too, and not drawn: drawing takes nine tenths of the time.
DRAWN = 50
# What the names of columns end in that only our metrics read.
_RANKS, _UNREADABLE = "\0ranks", "\0unreadable"


@dataclass(frozen=True)
class Reported:
    """What the report found: each measure's value and whether it lies beyond its limits (measures,); whether `broken` columns speak;
    and the report as one HTML page that opens without a network.
    """

    values: FloatArray
    alarms: NDArray[np.bool_]
    broken: bool
    page: str


@contextmanager
def silence_evidently() -> Iterator[None]:
    """Its usage statistics start at its import; its warnings speak of libraries, not of data."""
    process_environment.set_library_environment()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@silence_evidently()
def write_evidently_report(
    exchanges: Sequence[RowPermutation],
    measures: Sequence[Sequence[DriftMeasure]],
    bounds: tuple[FloatArray, FloatArray],
    broken: Sequence[DriftFinding],
    first: Sequence[str] = (),
) -> Reported:
    """Run Evidently's report on the rows of `exchanges`, as cells, and read it.

    measures: those of each exchange; bounds: the least and the most (all measures,) at which each is quiet; broken: columns that are
    gone from the window or appear twice there; first: columns in the order of the page; the first DRAWN are drawn.
    Raises whatever Evidently raises, and ValueError where a test of the report gave no result.
    """
    frame = _Frames(exchanges, broken)
    measured, drawn = [(e, m) for e, some in zip(exchanges, measures, strict=True) for m in some], set(first[:DRAWN])
    shown = [_metric(frame, *one, low, high, drawn) for one, low, high in zip(measured, *bounds, strict=True)]
    gone = [
        WindowMeasure(column=frame.names[f.column], how="columns", value=2 * (f.aspect == "type"), tests=_tests(1, 1))
        for f in broken
    ]
    definition = DataDefinition(
        numerical_columns=[frame.names[c.name] for e in exchanges for c in e.numbers],
        categorical_columns=[frame.names[c.name] for e in exchanges for c in e.categories],
    )
    before, now = (Dataset.from_pandas(frame.side(i), data_definition=definition) for i in (0, 1))
    places = {frame.names[column]: i for i, column in enumerate(first)}
    wanted = sorted((one for one in (*gone, *shown) if one is not None), key=lambda one: places.get(one.column, -1))
    snapshot = Report(wanted, include_tests=True).run(now, before)
    found = [(0.0, False) if one is None else _read(snapshot, one) for one in shown]
    return Reported(
        np.array([value for value, _ in found]),
        np.array([alarm for _, alarm in found], dtype=bool),
        any(_read(snapshot, one)[1] for one in gone),
        str(snapshot.get_html_str(as_iframe=False)),
    )


def _metric(
    frame: _Frames, exchange: RowPermutation, measure: DriftMeasure, low: float, high: float, drawn: set[str]
) -> Any:
    """The report's metric for a measure. None: Evidently takes no column that has no value on one side, and so it is quiet."""
    cells, column = frame.cells[measure.column], frame.names[measure.column]
    if measure.how in MEASURES:
        known = [bool((part >= 0).any()) for part in _halves(exchange, cells.codes)]
        if not all(known):
            return None
        if measure.column in drawn:  # Evidently calls a distance drift that reaches the threshold
            return ValueDrift(column=column, method=measure.how, threshold=float(high))
    more: dict[str, Any] = {}
    if measure.how == "share":
        more["rows"] = min(exchange.reference, exchange.window)
    elif measure.how == "off":
        more["value"] = _commonest(exchange, cells)
    elif measure.how == "correlation":
        others = [c.name for c in exchange.correlated if c.name != measure.column]
        more["beside"] = [frame.names[name] + _RANKS for name in (measure.column, *others)]
    elif measure.how in ("missing", "unreadable") and (cells.codes == UNREADABLE_BIN).any():
        more["beside"] = [column + _UNREADABLE]
    return WindowMeasure(column=column, how=measure.how, tests=_tests(low, high), **more)


def _commonest(exchange: RowPermutation, cells: BinnedColumn) -> str | float:
    codes = np.concatenate(_halves(exchange, cells.codes))
    value = cells.stands_for[np.bincount(codes[codes >= 0], minlength=cells.size).argmax()]
    return float(value) if cells.kind == "number" else str(value)


def _tests(low: float, high: float) -> list[Any]:
    return [lte(float(high))] + ([gte(float(low))] if np.isfinite(low) else [])


def _read(snapshot: Any, metric: Any) -> tuple[float, bool]:
    """A metric's value, and whether one of its tests failed."""
    result = snapshot.metric_results[metric.metric_id]
    states = {test.status for test in result.tests}
    if not states or states - {TestStatus.SUCCESS, TestStatus.FAIL}:
        raise ValueError(f"its test of {metric.column!r} gave no result")
    return float(result.value), TestStatus.FAIL in states


class _Frames:
    """The rows of exchanges as Evidently takes them: each value as what represents its cell, and beside it what our metrics need."""

    def __init__(self, exchanges: Sequence[RowPermutation], broken: Sequence[DriftFinding]) -> None:
        self._exchanges = exchanges
        self.cells = {c.name: c for e in exchanges for c in (*e.numbers, *e.categories)}
        named = list(dict.fromkeys([*self.cells, *(f.column for f in broken)]))
        self.names = dict(zip(named, distinct([name_record_column(name) for name in named]), strict=True))

    def side(self, which: int) -> pd.DataFrame:
        """The rows of the reference (0) or of the window (1)."""
        columns: dict[str, pd.Series] = {}
        for exchange in self._exchanges:
            for cells in (*exchange.numbers, *exchange.categories):
                codes, name = _halves(exchange, cells.codes)[which], self.names[cells.name]
                values = np.full(len(codes), np.nan, dtype=float if cells.kind == "number" else object)
                values[codes >= 0] = cells.stands_for[codes[codes >= 0]]
                columns[name] = pd.Series(values)
                if (cells.codes == UNREADABLE_BIN).any():
                    columns[name + _UNREADABLE] = pd.Series((codes == UNREADABLE_BIN).astype(float))
            for cells, scores in zip(exchange.correlated, exchange.rank_scores.T, strict=True):
                columns[self.names[cells.name] + _RANKS] = pd.Series(_halves(exchange, scores)[which])
        return pd.DataFrame(columns)


def _halves(exchange: RowPermutation, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of values (rows,) of an exchange those of the reference, and those of the window."""
    cut = exchange.before + exchange.reference
    return rows[exchange.before : cut], rows[cut:]
