"""Cuts a table's rows into windows in the order of time. Knows no model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from windvane.tasks import history, watch_settings
from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So many windows at least: with fewer there is no first quarter to learn from and no history to play.
FEWEST = 8


@dataclass(frozen=True)
class Cut:
    """Rows in order of time, and where each window begins among them: window k is rows edges[k] to edges[k + 1] - 1.

    starts: the windows' first moments as text, for people.
    """

    rows: pd.DataFrame
    edges: NDArray[np.int64]
    starts: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many windows."""
        return len(self.edges) - 1

    def window(self, k: int) -> pd.DataFrame:
        """The rows of window k."""
        return self.rows.iloc[self.edges[k] : self.edges[k + 1]]

    def before(self, k: int, windows: int | None) -> pd.DataFrame:
        """The rows of the `windows` windows before window k; None: of all."""
        first = 0 if windows is None else max(0, k - windows)
        return self.rows.iloc[self.edges[first] : self.edges[k]]

    def digests(self) -> tuple[str, ...]:
        """A hash of each window's rows, in their order: what a loss on it depends on."""
        hashes = pd.util.hash_pandas_object(self.rows, index=False).to_numpy()
        names = ",".join(f"{name}:{dtype}" for name, dtype in self.rows.dtypes.items()).encode()
        parts = (hashes[self.edges[k] : self.edges[k + 1]].tobytes() for k in range(self.count))
        return tuple(hashlib.sha256(names + part).hexdigest()[:16] for part in parts)


def cut(rows: pd.DataFrame, time: str, window: str | int) -> Cut:
    """Rows by windows of a duration (`7d`, `1mo`) or of a number of rows; a last window that is not, or may not be, full is left out.

    By duration, windows lie on the calendar as production's do (tasks/history.py); those without a row are left out. By rows,
    rows of one moment may fall on both sides of an edge. Raises InputError if there are fewer than FEWEST.
    """
    try:
        size = watch_settings.window(window)
    except ValueError as e:
        raise InputError(f"monitor.window: {e}") from None
    ordered = rows.sort_values(time, kind="stable").reset_index(drop=True)
    if size.rows is not None:
        edges = np.arange(0, len(ordered) + 1, size.rows, dtype=np.int64)
    elif pd.api.types.is_datetime64_any_dtype(ordered[time]):
        changes = np.flatnonzero(np.diff(history.numbers(ordered[time], size))) + 1
        edges = np.concatenate([[0], changes]).astype(np.int64)
    else:
        raise InputError(f"monitor.window: {window} is a duration, but problem.time is a number. Give a number of rows")
    if len(edges) - 1 < FEWEST:
        raise InputError(
            f"monitor.window: {window} cuts the table into {max(len(edges) - 1, 0)} full windows, and fewer than {FEWEST} are no "
            "history. Name a shorter window"
        )
    starts = tuple(str(ordered[time].iloc[e]) for e in edges[:-1])
    return Cut(ordered.iloc[: edges[-1]], edges, starts)
