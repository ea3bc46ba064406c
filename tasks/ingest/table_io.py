"""Tables on disk: Parquet files that stages write and read, and CSV or Parquet read and written in pieces of bounded
size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# Rows held in memory at a time.
PIECE_ROWS = 50_000
PIECE_FORMATS = (".csv", ".parquet")


def check_piece_files(source: Path, target: Path) -> None:
    """Raise InputError where a file is missing, or its name tells of no format that is read and written here."""
    for path in (source, target):
        if path.suffix.lower() not in PIECE_FORMATS:
            raise InputError(f"{path}: is neither CSV nor Parquet. Let its name end in .csv or .parquet")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: is the file that is scored. Name another for the predictions")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}. Make it first, or name another place")
    if not source.exists():
        raise InputError(
            f"{source}: not found. Name a CSV or Parquet file with the columns that the model was taught on"
        )


def read_pieces(source: Path) -> Iterator[pa.Table]:
    """Pieces of a file, all of one schema: Parquet's own; CSV as text, as written. Raises InputError."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if source.suffix.lower() == ".csv":
            # Whoever reads the text reads each column as the type that he knows.
            for frame in pd.read_csv(
                source, chunksize=PIECE_ROWS, dtype="str", encoding="utf-8-sig", keep_default_na=True
            ):
                schema = pa.schema([(name, pa.string()) for name in frame.columns])
                yield pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        else:
            file = pq.ParquetFile(source)
            for batch in file.iter_batches(PIECE_ROWS):
                yield pa.Table.from_batches([batch])
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, pa.ArrowInvalid) as e:
        raise InputError(
            f"{source}: cannot be read ({str(e).splitlines()[0]}). Write it anew as UTF-8 CSV or as Parquet"
        ) from e


def write_pieces(tables: Iterator[pa.Table], path: Path, suffix: str) -> None:
    """Write pieces of one schema to one file, each as it comes."""
    import pyarrow.parquet as pq

    if suffix == ".csv":
        for i, table in enumerate(tables):
            table.to_pandas().to_csv(path, mode="a", header=i == 0, index=False)
        return
    writer = None
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
