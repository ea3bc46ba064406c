"""The interval form that a version was stored with, as monitoring reads it: labels beside intervals that no request was given."""

from __future__ import annotations

from typing import Any

import pandas as pd
from numpy.typing import NDArray

from windvane.ledger.versions import Version
from windvane.monitoring import window_frames
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.agreement import convert_to_plain_columns
from windvane.serving.compiled.intervals import LabelMeasures, PredictionIntervals, TooFewScores
from windvane.serving.signature import ModelSignature
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation.adaptive_levels import LevelHistory
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.project import Project
from windvane.tasks.stores import model_files


class VersionIntervals:
    """See monitoring.interval_coverage.StoredIntervals."""

    def __init__(self, intervals: PredictionIntervals, columns: FeatureColumns, signature: ModelSignature) -> None:
        self._intervals, self._columns, self._signature = intervals, columns, signature
        self.needs_inputs = intervals.needs_inputs

    def measure(
        self, rows: pd.DataFrame, predictions: Predictions, truth: NDArray[Any], level: float
    ) -> LabelMeasures | None:
        """Labels (n,) of rows beside their intervals; None: the inputs cannot be read, or the level cannot be promised."""
        try:
            plain = None
            if self.needs_inputs:
                plain = convert_to_plain_columns(conform_frame(rows, self._columns, "the window"), self._signature)
            return self._intervals.measure_labels(plain, predictions, truth, level)
        except (InputError, TooFewScores):
            return None

    def adjust(self, level: float, history: LevelHistory) -> float | None:
        """The level that keeps this one, by the labels of the windows so far; None without any."""
        return self._intervals.adjust_level(level, history)


def load_stored_intervals(project: Project, version: Version) -> VersionIntervals | None:
    """A version's interval form, its bytes checked first; None where it was stored without one. Raises Corrupted."""
    content = model_files.read_verified_files(
        project.stored(version), version.manifest_sha256, engine_files.ENGINE_FILES
    )
    form = engine_files.read_engine_files(content)
    if form is None or (intervals := form.make_intervals(form.compiled)) is None:
        return None
    return VersionIntervals(intervals, window_frames.read_version_columns(version.facts, ()), form.signature)
