"""What the champion answered on a frame, and what its answers cost where labels are known. Fits and judges nothing.

A frame has the record's columns: inputs, target (missing where no label has come), prediction and probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.tasks import scores
from windvane.tasks.scores import BASELINE_LOSS, LOSS, PREDICTION

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.paired import Blocks
    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Problem


def labelled(frame: pd.DataFrame, target: str) -> NDArray[np.bool_]:
    """Rows (n,) whose label has come; none if the frame has no such column."""
    if target not in frame:
        return np.zeros(len(frame), dtype=bool)
    return np.asarray(frame[target].notna().to_numpy(dtype=bool))


def predictions(frame: pd.DataFrame, record: pd.DataFrame, kind: Kind, target: str) -> Predictions:
    """Predictions (n,) of a frame; the record says which columns are probabilities, and what type classes have."""
    names = list(record.columns[list(record.columns).index(BASELINE_LOSS) + 1 :])
    only = frame[[PREDICTION]].assign(**{BASELINE_LOSS: np.nan}).join(frame[names])
    return scores.predictions(only, kind.truth(record[target]))


def losses(frame: pd.DataFrame, record: pd.DataFrame, kind: Kind, problem: Problem) -> NDArray[np.float64]:
    """Loss (m,) of the rows of `frame`, all labelled, in the problem's own additive loss."""
    made = predictions(frame, record, kind, problem.target)
    return np.asarray(kind.loss(kind.truth(frame[problem.target]), made, problem.headline), dtype=np.float64)


def record_losses(record: pd.DataFrame) -> NDArray[np.float64]:
    """Loss (n,) of the champion's held-out rows, as stored at promotion."""
    return np.asarray(record[LOSS].to_numpy(dtype=np.float64))


def parts(frame: pd.DataFrame, problem: Problem) -> tuple[Blocks, ...]:
    """How rows of a frame depend on each other: by time, by group, or not at all. The order of rows does not matter."""
    from windvane.tasks.paired import Blocks, blocks

    time = frame[problem.time].to_numpy() if problem.time is not None and problem.time in frame else None
    group = frame[problem.group].to_numpy() if problem.group is not None and problem.group in frame else None
    if time is None and group is None:
        return (Blocks("row", np.arange(len(frame), dtype=np.int64)),)
    return blocks(np.arange(len(frame), dtype=np.int64), time, group)
