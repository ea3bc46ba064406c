"""Checksums inside Parquet files: polars reads past them, so a flipped byte would become another value in silence."""

from __future__ import annotations

from pathlib import Path

# A field of type i32 that follows the one before it, in Thrift's compact protocol.
_NEXT_INT = 0x15


def verify(path: Path) -> None:
    """Read the whole file where its pages carry checksums, as Spark writes them. Raises pyarrow's errors, OSError."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if not _carries(file, path):
            return
        for _ in file.iter_batches():
            pass


def _carries(file: object, path: Path) -> bool:
    """Whether the first page's header has its fourth field, crc (parquet-format, parquet.thrift: PageHeader)."""
    meta = file.metadata  # type: ignore[attr-defined]
    if not meta.num_row_groups or not meta.num_columns:
        return False
    column = meta.row_group(0).column(0)
    with path.open("rb") as f:
        f.seek(column.dictionary_page_offset or column.data_page_offset)
        head = iter(f.read(64))
    for _ in range(3):  # type, uncompressed and compressed size
        if next(head, None) != _NEXT_INT:
            return False
        while next(head, 0) & 0x80:
            pass
    return next(head, None) == _NEXT_INT
