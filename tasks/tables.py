"""Reading and writing frames, whole or not at all. Owns file formats on disk; knows nothing of what the columns mean."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import pandas as pd

# The one column that ingest adds: a stable 64-bit key of the row (see tasks/ingest.py).
ROW = "_row"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour, then rename: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        write(part)
        with part.open("rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, whole or not at all. Same frame, same bytes: DVC hashes it."""
    write_whole(path, lambda part: frame.to_parquet(part, index=False, compression="zstd"))


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file that a stage wrote."""
    import pandas as pd

    return pd.read_parquet(path, columns=columns)


def write_json(content: Any, path: Path) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_whole(
        path,
        lambda part: part.write_text(
            json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        ),
    )


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
