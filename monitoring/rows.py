"""Which rows of reference and window are looked at, and in which order. Knows no measure and no limit."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import sides
from windvane.monitoring.cells import read_dates
from windvane.monitoring.exchange import Exchange

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.sides import Compared

# More rows than this of a side are sampled; with time, of which a reference holds many windows, more than the other.
MOST, MOST_IN_TIME = 20_000, 100_000
# With time, a window is exchanged in about so many blocks of rows that follow each other.
_BLOCKS = 10


@dataclass(frozen=True)
class Rows:
    """The rows to compare, in order: `past` before the reference (may be empty), reference, window."""

    past: pd.DataFrame
    reference: pd.DataFrame
    window: pd.DataFrame
    time: str | None
    seed: int

    @property
    def parts(self) -> list[pd.DataFrame]:
        """All three, oldest first."""
        return [self.past, self.reference, self.window]

    def labelled(self, target: str) -> Rows:
        """Only the rows whose label has come."""

        def known(part: pd.DataFrame) -> pd.DataFrame:
            return part[part[target].notna()] if target in part else part.iloc[:0]

        return Rows(known(self.past), known(self.reference), known(self.window), self.time, self.seed)


def taken(
    past: pd.DataFrame, reference: pd.DataFrame, window: pd.DataFrame, time: str | None, seed: int
) -> tuple[Rows, list[str]]:
    """The rows that are looked at. With time every k-th of all parts, so that stretches as long as the window stay so."""
    parts = [sides.once(frame) for frame in (past, reference, window)]
    if time is None:
        rng = np.random.default_rng(seed)
        kept = [p if len(p) <= MOST else p.iloc[np.sort(rng.choice(len(p), MOST, replace=False))] for p in parts]
    else:
        every = max(-(-len(reference) // MOST_IN_TIME), -(-len(window) // MOST), 1)
        kept = [part.sort_values(time, kind="stable").iloc[::every] for part in parts]
        kept[0] = kept[0].iloc[-MOST_IN_TIME:]
    notes = [
        f"{len(k):,} of {len(p):,} rows of the {name} were compared"
        for name, p, k in zip(("past", "reference", "window"), parts, kept, strict=True)
        if len(k) < len(p)
    ]
    return Rows(kept[0], kept[1], kept[2], time, seed), notes


def still(rows: Rows, wanted: list[Compared]) -> tuple[list[Compared], list[str]]:
    """Without the columns that only ever rise with the clock: no window is ever like the reference in them."""
    clock = _clock(rows)
    if clock is None:
        return wanted, []
    rising = set()
    for column in wanted:
        if column.read != "category" and column.aspect == "numbers":
            numbers, _ = sides.values(rows.parts, column, None)
            known = np.isfinite(numbers) & np.isfinite(clock)
            if column.read == "number" and known.any() and sides.follows(clock[known], numbers[known]):
                rising.add(column.name)
    said = f"not compared, because they rise with the clock: {', '.join(sorted(rising))}" if rising else ""
    return [c for c in wanted if c.name not in rising], [said] if said else []


def exchange(rows: Rows, wanted: Sequence[Compared]) -> Exchange:
    """The columns as cells, in an order of rows that neither the table's order nor the columns' order decides."""
    cut = [sides.cut(rows.parts, column, rows.time) for column in sorted(wanted, key=lambda c: c.name)]
    past, reference, window = (len(part) for part in rows.parts)
    key = np.zeros(past + reference + window, dtype=np.uint64)
    for cells in cut:
        weight = np.uint64(zlib.crc32(cells.name.encode()) * 0x9E3779B97F4A7C15 % 2**64 | 1)
        key += (cells.codes.astype(np.int64).view(np.uint64) + np.uint64(3)) ** np.uint64(3) * weight
    clock = _clock(rows)
    side = np.repeat([0, 1, 2], [past, reference, window])
    order = np.lexsort((key, side) if clock is None else (key, clock, side))
    ordered = [replace(cells, codes=cells.codes[order]) for cells in cut]
    run = None if rows.time is None else max(window // _BLOCKS, 1)
    return Exchange(ordered, reference, window, rows.seed, run, before=past)


def _clock(rows: Rows) -> NDArray[np.float64] | None:
    return None if rows.time is None else np.concatenate([read_dates(part[rows.time])[0] for part in rows.parts])
