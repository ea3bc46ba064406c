"""scikit-learn itself as an engine: for a version without a compiled form. Slow and heavy, but always the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.serving.engine import Answer, Columns
from windvane.serving.stored import SCIKIT_LEARN

if TYPE_CHECKING:
    import pandas as pd

    from windvane.serving.signature import Signature


class ScikitLearn:
    """Answers from the stored pipeline."""

    form = SCIKIT_LEARN

    def __init__(self, folder: Path, manifest_sha256: str, kind: str, signature: Signature) -> None:
        from windvane.tasks import artifacts, problems

        self._model = artifacts.load(folder, manifest_sha256)
        self._kind = problems.of(kind)
        self._signature = signature

    def predict(self, columns: Columns) -> Answer:
        """See serving.engine.Engine."""
        said = self._kind.predict(self._model, self._frame(columns))
        return Answer(said.value.tolist(), said.proba)

    def _frame(self, given: Columns) -> pd.DataFrame:
        """Plain columns as the frame that the pipeline was taught on (tasks.features.conform)."""
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {}
        for column, values in zip(self._signature.inputs, given, strict=True):
            if column.type == "category":
                columns[column.name] = np.array([np.nan if v is None else v for v in values], dtype=object)
            elif column.type == "date":
                moments = [np.datetime64("NaT") if v is None else np.datetime64(int(v), "us") for v in values]
                columns[column.name] = np.array(moments, dtype="datetime64[us]")
            else:
                columns[column.name] = np.array(values, dtype="float64")
        return pd.DataFrame(columns)
