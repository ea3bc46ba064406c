"""Parquet files that stages write and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from windvane.tasks.io import write_whole

# The one column that ingest adds: a stable 64-bit key of the row (see tasks/ingest/ingestion.py).
ROW_KEY = "_row"
# Rows of a group in a Parquet file: as many columns of as many rows are in memory at once.
ROW_GROUP_ROWS = 250_000


@dataclass(frozen=True)
class ColumnEnds:
    """A column's missing values, and its lowest and highest value; None for words, and where it has no value."""

    missing: int
    low: Any
    high: Any


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, whole or not at all. Same frame, same bytes: DVC hashes it."""
    write_whole(path, lambda part: frame.to_parquet(part, index=False, compression="zstd"))


def sink_parquet(scan: pl.LazyFrame, path: Path) -> None:
    """Write a stream of rows as Parquet, in their order. Same rows, same bytes, on any number of cores: the row groups
    have a size of their own.
    """
    scan.sink_parquet(path, compression="lz4", row_group_size=ROW_GROUP_ROWS)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """The rows of a Parquet file as a stream. Brackets and stars in a path are its own: no pattern."""
    return pl.scan_parquet(path, glob=False)


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file that a stage wrote, to inspect: the frame's values are not to be set."""
    rows = scan_parquet(path)
    return convert_to_pandas(
        (rows.select(columns) if columns else rows).collect(engine="streaming"), count_missing(path), shared=True
    )


def read_frame_cache(path: Path) -> pd.DataFrame | None:
    """As read_parquet(), of rows that can be made again: None where there is no such file, or it is damaged."""
    try:
        return read_parquet(path) if path.exists() else None
    except (OSError, ValueError, pl.exceptions.PolarsError, pa.ArrowException):
        return None


def convert_to_pandas(frame: pl.DataFrame, missing: Mapping[str, int], *, shared: bool = False) -> pd.DataFrame:
    """Rows of a table as models take them. `missing`: gaps in the whole table's columns, by which true/false keeps
    its type (bool, or boolean with gaps) in any part of it. `shared`: values stay where they are, if they can.
    """
    dtypes = {name: "boolean" if missing[name] else "bool" for name, kind in frame.schema.items() if kind == pl.Boolean}
    return frame.to_pandas(split_blocks=shared).astype(dtypes)


def count_missing(path: Path) -> dict[str, int]:
    """Missing values in each column of a Parquet file that a stage wrote, as its row groups state them."""
    counts: dict[str, int] = {}
    for column in _list_column_chunks(path):
        # Nothing is stated of a column without a single value.
        missing = column.num_values if column.statistics is None else column.statistics.null_count
        counts[column.path_in_schema] = counts.get(column.path_in_schema, 0) + missing
    return counts


def read_column_ends(path: Path) -> dict[str, ColumnEnds]:
    """The ends of each column of a Parquet file that a stage wrote, as its row groups state them: nothing is read."""
    missing = count_missing(path)
    ends: dict[str, list[Any]] = {name: [] for name in missing}
    for column in _list_column_chunks(path):
        # Long words are cut short in a statement.
        if column.physical_type != "BYTE_ARRAY" and column.statistics is not None and column.statistics.has_min_max:
            ends[column.path_in_schema] += [column.statistics.min, column.statistics.max]
    return {name: ColumnEnds(missing[name], min(of, default=None), max(of, default=None)) for name, of in ends.items()}


def _list_column_chunks(path: Path) -> list[pq.ColumnChunkMetaData]:
    """What each row group states of each of its columns."""
    meta = pq.read_metadata(path)
    return [meta.row_group(i).column(j) for i in range(meta.num_row_groups) for j in range(meta.num_columns)]


def read_distinct_words(path: Path, names: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The different words of columns of few, from the dictionaries in which each row group lists its own: the cells, a
    number each, are not turned into words.
    """
    found: dict[str, set[str]] = {name: set() for name in names}
    with pq.ParquetFile(path, read_dictionary=list(names)) as file:
        for group in range(file.num_row_groups if names else 0):
            columns = file.read_row_group(group, columns=list(names))
            for name, listed in found.items():
                for chunk in columns[name].chunks:
                    listed.update(chunk.dictionary.to_pylist())
    return {name: frozenset(listed) for name, listed in found.items()}


def count_parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file."""
    return int(pq.read_metadata(path).num_rows)
