"""A stored version as MLflow loads it by itself: a frame from anywhere in, predictions out.

Each stored model carries a copy of this file and of those that it imports (engine_files.bundle_model_code): with them it needs
neither Windvane nor scikit-learn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.serving.compiled.engine import ENGINE_FILE, TREES_FILE, CompiledEngine, PredictionEngine
from windvane.tasks.ingest.cell_reading import NumberForm
from windvane.tasks.models.frame_reading import list_plain_values, read_frame


class FrameModel:
    """Predicts for frames as pandas reads them from a file: whole numbers, dates as text and missing values are all right."""

    def __init__(self, settings: Mapping[str, Any], engine: PredictionEngine) -> None:
        self._engine = engine
        self._types = {column["name"]: column["type"] for column in settings["signature"]["inputs"]}
        self._dates = next((c["dates"] for c in settings["signature"]["inputs"] if c.get("dates")), None)
        written = (NumberForm.from_json(column.get("numbers")) for column in settings["signature"]["inputs"])
        self._numbers = next((form for form in written if form is not None), None)
        self._missing = {w for column in settings["signature"]["inputs"] for w in column.get("missing_words", ())}
        names = list(self._types)
        self._known: dict[str, set[str]] = {}
        for part in settings["compiled"]["columns"] if settings["compiled"] else ():
            if part["as"] == "table":
                self._known.setdefault(names[part["column"]], set()).update(part["values"])

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> NDArray[Any]:
        """Numbers or classes (n,). Raises ValueError naming columns that are missing or cannot be read."""
        frame = read_frame(
            pd.DataFrame(model_input), self._types, self._known, self._dates, self._numbers, self._missing
        )
        if frame.empty:
            return np.array([])
        return np.array(self._engine.predict(list_plain_values(frame, self._types)).values)


def _load_pyfunc(path: str) -> FrameModel:
    """What MLflow calls with the stored model's folder."""
    folder = Path(path)
    settings = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))
    trees = folder / TREES_FILE
    content = trees.read_bytes() if trees.exists() else None
    return FrameModel(settings, CompiledEngine(settings["compiled"], content, settings["signature"]["classes"]))
