"""The champion's loss on a window's labelled rows against its own record, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import window_frames
from windvane.monitoring.records import PerformanceResult
from windvane.tasks.gate.block_test import MIN_BLOCKS, RowBlocks, bound_paired_difference
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.models.problem_types.definitions import ProblemType
    from windvane.tasks.settings.project_params import ProblemSettings

_CONFIDENCE = 0.95


def measure_window_loss(
    record: pd.DataFrame,
    window: pd.DataFrame,
    kind: ProblemType,
    problem: ProblemSettings,
    *,
    known_until: str | None = None,
) -> PerformanceResult:
    """Mean loss of a window's labelled rows, and by how much it lies above the record's, with a 95 % interval.

    record: the champion's held-out rows (see monitoring/window_frames.py). window: rows with its predictions, target missing where
    no label has come. Both sides' sampling error counts. Each side has its bounds by blocks of time or group where rows
    depend on each other (tasks/gate/block_test.py); the bounds of the difference follow by MOVER (Zou & Donner, Statistics in
    Medicine 27, 2008): squared distances of both sides from their bounds add up. So a skewed loss keeps a skewed interval.
    `loss` is None below 30 labelled rows; `low` and `high` are None where a side has fewer than five blocks.
    """
    own = window_frames.get_record_losses(record)
    reference = float(own.mean()) if len(own) else float("nan")
    known = window[window_frames.mask_labelled(window, problem.target)]
    share = f"labels of {len(known):,} of {len(window):,} rows"
    if len(known) < MIN_JUDGED_ROWS or len(own) < MIN_JUDGED_ROWS:
        few = share if len(known) < MIN_JUDGED_ROWS else f"a record of {len(own):,} rows"
        return PerformanceResult(
            None, reference, None, None, len(known), False, f"{few}: at least {MIN_JUDGED_ROWS} are needed", known_until
        )
    loss = window_frames.compute_frame_losses(known, record, kind, problem)
    sides = (window_frames.form_frame_blocks(known, problem), window_frames.form_frame_blocks(record, problem))
    low, high = bound_mean_difference(loss, own, *sides)
    how = f"{share}; {_describe_blocks(sides[0])} against {_describe_blocks(sides[1])}"
    if low is None:
        how += f": an interval needs at least {MIN_BLOCKS}"
    return PerformanceResult(float(loss.mean()), reference, low, high, len(known), False, how, known_until)


def bound_mean_difference(
    window: NDArray[np.float64],
    record: NDArray[np.float64],
    of_window: tuple[RowBlocks, ...],
    of_record: tuple[RowBlocks, ...],
) -> tuple[float | None, float | None]:
    """95 % bounds of mean(window (m,)) - mean(record (n,)), each side resting on its blocks; None with too few."""
    if min(of_window[0].count, of_record[0].count) < MIN_BLOCKS:
        return None, None
    a, b = _bound_mean(window, of_window), _bound_mean(record, of_record)
    centre = float(window.mean() - record.mean())
    low = centre - float(np.hypot(window.mean() - a[0], b[1] - record.mean()))
    high = centre + float(np.hypot(a[1] - window.mean(), record.mean() - b[0]))
    return low, high


def _bound_mean(loss: NDArray[np.float64], blocks: tuple[RowBlocks, ...]) -> tuple[float, float]:
    """Two one-sided bounds of a mean: the lower one of the losses, and of their negatives."""
    one_sided = (1 + _CONFIDENCE) / 2
    both = bound_paired_difference(np.stack([loss, -loss]), blocks, one_sided).low
    return float(both[0]), -float(both[1])


def _describe_blocks(blocks: tuple[RowBlocks, ...]) -> str:
    unit = {"time": "blocks of time", "group": "bins of groups", "row": "rows"}
    return " and ".join(f"{b.count:,} {unit[b.kind]}" for b in blocks)
