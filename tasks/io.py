"""Where Windvane keeps its own files, who may read them, and how files are written: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from windvane.tasks.errors import Corrupted

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

STATE_FOLDER = Path(".windvane")
# What DVC's stages write, and what is fetched for them to read.
DATA_FOLDER = STATE_FOLDER / "data"

# In the environment, so that children know it too: the umask that the user had before keep_private().
_UMASK = "WINDVANE_UMASK"


def set_private_umask() -> None:
    """At the start of every process of ours: what it makes is for its owner alone, whatever the umask was."""
    before = os.umask(0o077)
    os.environ.setdefault(_UMASK, f"{before:o}")


def choose_file_mode(path: Path) -> int:
    """The mode of a file that is written at `path`: 0600 below .windvane; elsewhere that of the file which it replaces, or
    what the user's own umask says.
    """
    if STATE_FOLDER.name in path.absolute().parts:
        return 0o600
    if path.exists():
        return path.stat().st_mode & 0o777
    if _UMASK in os.environ:
        return 0o666 & ~int(os.environ[_UMASK], 8)
    before = os.umask(0o077)  # the only way to read it
    os.umask(before)
    return 0o666 & ~before


def apply_user_umask(path: Path) -> None:
    """Give a file or folder that a library made outside of .windvane the mode that the user's umask gives."""
    if _UMASK in os.environ and path.exists() and path.stat().st_uid == os.geteuid():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~int(os.environ[_UMASK], 8))


def close_open_folders(root: Path) -> None:
    """Close the folders of a project that an earlier version left open to others: whoever cannot enter reads nothing in them."""
    for folder in (root / STATE_FOLDER, root / ".dvc" / "cache", root / ".dvc" / "tmp"):
        if not (folder.is_dir() and _is_open_to_others(folder) and folder.stat().st_uid == os.geteuid()):
            continue
        try:
            folder.chmod(0o700)
        except OSError:  # a disk that is read-only: whatever writes next says so
            continue
        if folder.name == STATE_FOLDER.name and not _is_open_to_others(folder):  # some disks know no modes
            for path in folder.rglob("*"):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o077)


def _is_open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def cache_folder() -> Path:
    """Where this account keeps what all its projects may share; all of it can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windvane"


T = TypeVar("T")

# What to do about a file that only a backup holds.
RESTORE_REMEDY = "Restore it from a backup"
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


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour, then rename: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        write(part)
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Rename a file, written whole on the same disk, into place, once it surely lies there. Below .windvane it is its owner's
    alone, elsewhere it has the mode that the user's files have.
    """
    part.chmod(choose_file_mode(path))
    with part.open("rb+") as f:
        os.fsync(f.fileno())
    os.replace(part, path)


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
    import polars as pl

    return pl.scan_parquet(path, glob=False)


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file that a stage wrote, to look at: the frame's values are not to be set."""
    rows = scan_parquet(path)
    return convert_to_pandas(
        (rows.select(columns) if columns else rows).collect(engine="streaming"), count_missing(path), shared=True
    )


def read_frame_cache(path: Path) -> pd.DataFrame | None:
    """As read_parquet(), of rows that can be made again: None where there is no such file, or it is damaged."""
    import polars as pl
    import pyarrow as pa

    try:
        return read_parquet(path) if path.exists() else None
    except (OSError, ValueError, pl.exceptions.PolarsError, pa.ArrowException):
        return None


def convert_to_pandas(frame: pl.DataFrame, missing: Mapping[str, int], *, shared: bool = False) -> pd.DataFrame:
    """Rows of a table as models take them. `missing`: gaps in the whole table's columns, by which true/false keeps
    its type (bool, or boolean with gaps) in any part of it. `shared`: values stay where they are, if they can.
    """
    import polars as pl

    dtypes = {name: "boolean" if missing[name] else "bool" for name, kind in frame.schema.items() if kind == pl.Boolean}
    return frame.to_pandas(split_blocks=shared).astype(dtypes)


def count_missing(path: Path) -> dict[str, int]:
    """Missing values in each column of a Parquet file that a stage wrote, as its row groups state them."""
    import pyarrow.parquet as pq

    meta = pq.read_metadata(path)
    counts: dict[str, int] = {}
    for group in (meta.row_group(i) for i in range(meta.num_row_groups)):
        for column in (group.column(i) for i in range(meta.num_columns)):
            # Nothing is stated of a column without a single value.
            missing = column.num_values if column.statistics is None else column.statistics.null_count
            counts[column.path_in_schema] = counts.get(column.path_in_schema, 0) + missing
    return counts


def read_column_ends(path: Path) -> dict[str, ColumnEnds]:
    """The ends of each column of a Parquet file that a stage wrote, as its row groups state them: nothing is read."""
    import pyarrow.parquet as pq

    meta, missing = pq.read_metadata(path), count_missing(path)
    found: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in missing}
    for group in (meta.row_group(i) for i in range(meta.num_row_groups)):
        for column in (group.column(i) for i in range(meta.num_columns)):
            # Long words are cut short in a statement.
            if column.physical_type != "BYTE_ARRAY" and column.statistics is not None and column.statistics.has_min_max:
                lows, highs = found[column.path_in_schema]
                lows.append(column.statistics.min)
                highs.append(column.statistics.max)
    return {
        name: ColumnEnds(missing[name], min(lows, default=None), max(highs, default=None))
        for name, (lows, highs) in found.items()
    }


def read_distinct_words(path: Path, names: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The different words of columns of few, from the dictionaries in which each row group lists its own: the cells, a
    number each, are not turned into words.
    """
    import pyarrow.parquet as pq

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
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def write_json(content: Any, path: Path) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_whole(
        path,
        lambda part: part.write_text(
            json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        ),
    )


def read_json(path: Path, remedy: str = RESTORE_REMEDY) -> Any:
    """Read a JSON file that Windvane wrote. Raises FileNotFoundError, and Corrupted with the remedy for any other content."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise Corrupted(f"{path}: is damaged ({e}). {remedy}") from e


def read_record(path: Path, make: Callable[[Any], T], remedy: str = RESTORE_REMEDY) -> T:
    """What `make` makes of a JSON file that Windvane wrote. Raises FileNotFoundError, and Corrupted where it cannot be made."""
    content = read_json(path, remedy)
    try:
        return make(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise Corrupted(f"{path}: is damaged ({type(e).__name__}: {e}). {remedy}") from e


def read_cache(path: Path, make: Callable[[Any], T]) -> T | None:
    """As read_record(), of what can be made again: None where there is no such file, or it is damaged."""
    try:
        return read_record(path, make)
    except (FileNotFoundError, Corrupted):
        return None
