"""The champion's loss on a window's labelled rows against its own record. Estimates nothing: see estimate.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import answers
from windvane.monitoring.evidence import Quality
from windvane.tasks.gate import MIN_ROWS
from windvane.tasks.paired import MIN_BLOCKS, Blocks, paired

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Problem

_CONFIDENCE = 0.95


def measure(
    record: pd.DataFrame, window: pd.DataFrame, kind: Kind, problem: Problem, *, known_until: str | None = None
) -> Quality:
    """Mean loss of a window's labelled rows, and by how much it lies above the record's, with a 95 % interval.

    record: the champion's held-out rows (see monitoring/answers.py). window: rows with its predictions, target missing where
    no label has come. Both sides' sampling error counts. Each side has its bounds by blocks of time or group where rows
    depend on each other (tasks/paired.py); the bounds of the difference follow by MOVER (Zou & Donner, Statistics in
    Medicine 27, 2008): squared distances of both sides from their bounds add up. So a skewed loss keeps a skewed interval.
    `loss` is None below 30 labelled rows; `low` and `high` are None where a side has fewer than five blocks.
    """
    own = answers.record_losses(record)
    reference = float(own.mean()) if len(own) else float("nan")
    known = window[answers.labelled(window, problem.target)]
    share = f"labels of {len(known):,} of {len(window):,} rows"
    if len(known) < MIN_ROWS or len(own) < MIN_ROWS:
        few = share if len(known) < MIN_ROWS else f"a record of {len(own):,} rows"
        return Quality(
            None, reference, None, None, len(known), False, f"{few}: at least {MIN_ROWS} are needed", known_until
        )
    loss = answers.losses(known, record, kind, problem)
    sides = (answers.parts(known, problem), answers.parts(record, problem))
    low, high = difference(loss, own, *sides)
    how = f"{share}; {_said(sides[0])} against {_said(sides[1])}"
    if low is None:
        how += f": an interval needs at least {MIN_BLOCKS}"
    return Quality(float(loss.mean()), reference, low, high, len(known), False, how, known_until)


def difference(
    window: NDArray[np.float64],
    record: NDArray[np.float64],
    of_window: tuple[Blocks, ...],
    of_record: tuple[Blocks, ...],
) -> tuple[float | None, float | None]:
    """95 % bounds of mean(window (m,)) - mean(record (n,)), each side resting on its blocks; None with too few."""
    if min(of_window[0].count, of_record[0].count) < MIN_BLOCKS:
        return None, None
    a, b = _bounds(window, of_window), _bounds(record, of_record)
    centre = float(window.mean() - record.mean())
    low = centre - float(np.hypot(window.mean() - a[0], b[1] - record.mean()))
    high = centre + float(np.hypot(a[1] - window.mean(), record.mean() - b[0]))
    return low, high


def _bounds(loss: NDArray[np.float64], blocks: tuple[Blocks, ...]) -> tuple[float, float]:
    """Two one-sided bounds of a mean: the lower one of the losses, and of their negatives."""
    one_sided = (1 + _CONFIDENCE) / 2
    both = paired(np.stack([loss, -loss]), blocks, one_sided).low
    return float(both[0]), -float(both[1])


def _said(blocks: tuple[Blocks, ...]) -> str:
    unit = {"time": "blocks of time", "group": "bins of groups", "row": "rows"}
    return " and ".join(f"{b.count:,} {unit[b.kind]}" for b in blocks)
