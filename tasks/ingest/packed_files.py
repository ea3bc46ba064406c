"""Packed files, unpacked as they are read. Imports nothing heavy for gzip."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, cast

from windvane.tasks.ingest.cell_reading import find_packing


def open_unpacked(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked as they are read. Reading raises UNPACK_ERRORS."""
    match find_packing(path):
        case None:
            return path.open("rb")
        case "gzip":
            return cast("IO[bytes]", gzip.open(path))
        case packing:
            import pyarrow as pa  # only for zstd, which Python's own library learns in 3.14

            # Arrow's own stream has no lines.
            return io.BufferedReader(pa.input_stream(str(path), compression=packing))
