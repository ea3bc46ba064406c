"""The only door to Evidently: it draws the report and decides nothing.

Its import takes seconds, and only a report pays for it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring.drift import binning
from windvane.monitoring.drift.binning import ComparedColumn
from windvane.tasks import process_environment

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from windvane.monitoring.records import DriftResult
    from windvane.tasks.models.features import FeatureColumns

# The measures that monitoring/drift/statistics.py resamples, by Evidently's names.
NUMBER_METHOD, CATEGORY_METHOD = "wasserstein", "jensenshannon"
# So many rows of a side are drawn: the page and its time grow with them.
MAX_REPORT_ROWS = 5_000
# Rarer categories are drawn as one.
_MAX_CATEGORIES = 50
_OTHER_CATEGORY = "(other)"
# Thresholds with which Evidently says of a column what we say.
_ALWAYS_THRESHOLD, _NEVER_THRESHOLD = 1e-12, 1e12


@dataclass(frozen=True)
class EvidentlyDistances:
    """Evidently's distance of every column that it can take, and why it cannot take the others."""

    distances: dict[str, float]
    left_out: dict[str, str]
    rows: tuple[int, int]


def write_evidently_report(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    *,
    target: str | None,
    time: str | None,
    seed: int,
    path: Path,
    drift: DriftResult | None = None,
) -> EvidentlyDistances:
    """Evidently's drift report as one page at `path` that opens without a network, and what it measured.

    Frames as in monitoring.drift.detector.detect_drift, whose verdict `drift` the page repeats: its own thresholds would contradict it. A
    column that Evidently cannot take is left out, with the reason. At most MOST rows of a side are drawn.
    """
    with _silence_evidently():
        snapshot, left_out, rows = _run_report(reference, window, columns, target, time, seed, drift)
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_text(_render_page(snapshot), encoding="utf-8")
        os.replace(unfinished, path)
        return EvidentlyDistances(_read_distances(snapshot), left_out, rows)


def run_evidently_preset(
    reference: pd.DataFrame, window: pd.DataFrame, numbers: list[str], categories: list[str]
) -> tuple[bool, int]:
    """What Evidently's preset, as it comes, says of two frames: drift (at least half of the columns), and how many columns.

    Its own tests of the columns, chosen as it chooses them, without its drawings, which take nine tenths of the time
    (`tests/test_drift.py` holds the answers against the preset's own).
    """
    with _silence_evidently():
        from evidently.legacy.calculations.stattests import get_stattest
        from evidently.legacy.core import ColumnType

        kinds = dict.fromkeys(numbers, ColumnType.Numerical) | dict.fromkeys(categories, ColumnType.Categorical)
        drifted = 0
        for name, kind in kinds.items():
            sides = [frame[name].replace([-np.inf, np.inf], np.nan).dropna() for frame in (reference, window)]
            drifted += get_stattest(*sides, kind, None)(*sides, kind, None).drifted
        return bool(drifted >= 0.5 * len(kinds)), int(drifted)


def _run_report(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: FeatureColumns,
    target: str | None,
    time: str | None,
    seed: int,
    drift: DriftResult | None,
) -> tuple[Any, dict[str, str], tuple[int, int]]:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    wanted = binning.list_compared_columns(reference, columns, time)
    if target is not None and target in reference and target in window:
        known = reference[target].dtype.kind in "fiu"
        classes = any(c.aspect == "prediction" and c.read == "category" for c in wanted)
        wanted.append(ComparedColumn(target, "target", "number" if known and not classes else "category"))
    parts = [_sample_report_rows(binning.drop_repeated_columns(frame), seed) for frame in (reference, window)]
    sane, left_out = _prepare_frames(parts, wanted, time)
    rows = (len(parts[0]), len(parts[1]))
    numbers = [n for n in sane[0] if sane[0][n].dtype.kind == "f"]
    categories = [n for n in sane[0] if n not in numbers]
    definition = _definition(numbers, categories)
    speaking = set() if drift is None else set(drift.columns)
    thresholds = (
        None
        if drift is None
        else {n: _ALWAYS_THRESHOLD if n in speaking else _NEVER_THRESHOLD for n in numbers + categories}
    )
    preset = DataDriftPreset(
        num_method=NUMBER_METHOD,
        cat_method=CATEGORY_METHOD,
        per_column_threshold=thresholds,
        drift_share=0.5 / max(len(numbers + categories), 1),  # one column is enough
        include_tests=False,
    )
    current, before = _dataset(sane[1], definition), _dataset(sane[0], definition)
    return Report([preset] if numbers or categories else []).run(current, before), left_out, rows


def _prepare_frames(
    parts: list[pd.DataFrame], wanted: list[ComparedColumn], time: str | None
) -> tuple[list[pd.DataFrame], dict[str, str]]:
    """Frames of floats and words that Evidently can take, and why the other columns are left out."""
    import pandas as pd

    frames: list[dict[str, Any]] = [{}, {}]
    left_out = {}
    for column in wanted:
        if any(column.name not in part for part in parts):
            left_out[column.name] = "not on both sides"
            continue
        values, _ = binning.read_compared_values(parts, column, time)
        words = pd.Series(values) if column.read != "category" else _merge_rare_words(values)
        halves = words[: len(parts[0])].reset_index(drop=True), words[len(parts[0]) :].reset_index(drop=True)
        if any(not half.notna().any() for half in halves):
            left_out[column.name] = "no value on one side"
            continue
        for frame, half in zip(frames, halves, strict=True):
            frame[column.name] = half
    return [pd.DataFrame(frame) for frame in frames], left_out


def _merge_rare_words(values: pd.Series) -> pd.Series:
    """Words, of which the rare ones are one."""
    words = values.where(values.isna(), values.astype(str))
    kept = words.value_counts().index[:_MAX_CATEGORIES]
    return words.where(words.isna() | words.isin(kept), _OTHER_CATEGORY)


def _sample_report_rows(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    if len(frame) <= MAX_REPORT_ROWS:
        return frame
    return frame.iloc[np.sort(np.random.default_rng(seed).choice(len(frame), MAX_REPORT_ROWS, replace=False))]


def _definition(numbers: list[str], categories: list[str]) -> Any:
    from evidently import DataDefinition

    return DataDefinition(numerical_columns=numbers, categorical_columns=categories)


def _dataset(frame: pd.DataFrame, definition: Any) -> Any:
    from evidently import Dataset

    return Dataset.from_pandas(frame, data_definition=definition)


def _read_distances(snapshot: Any) -> dict[str, float]:
    found = {}
    for metric in snapshot.dict()["metrics"]:
        if "ValueDrift" in metric["metric_name"]:
            found[str(metric["config"]["column"])] = float(metric["value"])
    return found


def _render_page(snapshot: Any) -> str:
    return str(snapshot.get_html_str(as_iframe=False))


@contextmanager
def _silence_evidently() -> Iterator[None]:
    """Its usage statistics ask before it is imported; its warnings speak of libraries, not of data."""
    process_environment.set_library_environment()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
