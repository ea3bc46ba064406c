"""Rows in the order of their time, in bounded memory. Owns the sort; knows nothing of what a time may be."""

from __future__ import annotations

from pathlib import Path

from windvane.tasks import tables

# Rows in memory at once while a large table is sorted.
CHUNK = 1_000_000


def is_sorted(table: Path, time: str) -> bool:
    """Whether each row's time is that of the row before it, or later."""
    import polars as pl

    falls = (pl.col(time).diff().cast(pl.Int64) if _dated(table, time) else pl.col(time).diff()) < 0
    return not tables.scan(table).select(falls.any()).collect(engine="streaming").item()


def _dated(table: Path, time: str) -> bool:

    return tables.scan(table).collect_schema()[time].is_temporal()


def sort(table: Path, time: str, target: Path) -> None:
    """Write the rows of `table` to `target` by `time`; rows of one time keep their order. No time may be missing.

    By ranges of time with about CHUNK rows each, so that one range at a time is in memory (a single time with more
    rows than that is one range). The table is read once per range.
    """
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq

    scan = tables.scan(table)
    times = scan.select(time).collect().to_series().sort()
    starts = np.unique(times.to_physical().gather_every(CHUNK).to_numpy())
    schema = None
    writer = None
    physical = pl.col(time).to_physical()
    try:
        for i, start in enumerate(starts):
            within = physical >= start
            if i + 1 < len(starts):
                within &= physical < starts[i + 1]
            part = scan.filter(within).collect(engine="streaming").sort(time, maintain_order=True).to_arrow()
            if writer is None:
                schema = part.schema
                writer = pq.ParquetWriter(target, schema, compression="lz4")
            writer.write_table(part, row_group_size=tables.ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()
