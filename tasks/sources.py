"""Which files the rows come from, in order. Leaves formats to tasks/readers.py, types to tasks/canonical.py.

A table is one file, or several whose rows follow one another: a folder, or the parts that a fetched source has left.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windvane.tasks import raw
from windvane.tasks.data_settings import Data, expand
from windvane.tasks.errors import InputError
from windvane.tasks.places import HOME

# Endings of tables, and of how they may be packed.
CSV, JSON, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".parquet",)
PACKED = (".gz", ".zst")
KNOWN = (*CSV, *PARQUET, *JSON)


def files(root: Path, data: Data) -> tuple[Path, ...]:
    """The files whose rows make the table, in order. Raises InputError where there are none.

    A local file, or a local folder's files sorted by name; for every other source the parts that the last fetch
    recorded. Parts with labels from production come last.
    """
    record = raw.read(root)
    labelled = tuple(root / part.path for part in (record.labelled if record else ()))
    if not data.local:
        if record is None or not record.own:
            raise InputError(
                f"{raw.RECORD}: there is no whole snapshot of {data.where}. Run `windvane train`: it fetches first"
            )
        return (*(root / part.path for part in record.own), *labelled)
    path = root / expand(data.source, "data.source")
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root / HOME)):
        raise InputError(
            f"data.source: {path}: is where Windvane itself writes what it has read. Put your table outside of {HOME}, as "
            "data/houses.csv, and name that"
        )
    return (*(_inside(path) if path.is_dir() else (path,)), *labelled)


def _inside(folder: Path) -> tuple[Path, ...]:
    found = sorted(p for p in folder.iterdir() if p.is_file() and ending(p) in KNOWN and not p.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: is a folder without tables. Put files that end in {', '.join(KNOWN)} there")
    return tuple(found)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Around all that reads a source (`name`, for people): InputError where it may not be read, or goes meanwhile."""
    try:
        yield
    except PermissionError:
        raise InputError(
            f"{name}: you have no permission to read it. Name a file that you may read, or set its rights: chmod"
        ) from None
    except FileNotFoundError:
        raise InputError(
            f"{name}: was there, and is gone now. Put it back, and see to it that nobody moves it meanwhile"
        ) from None


def ending(path: Path) -> str:
    """What a file's name says of its format, in lower case: ".csv" of both a.csv and a.csv.gz."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def packed(path: Path) -> bool:
    """Whether the file is compressed as a whole."""
    return path.suffix.lower() in PACKED


def require(path: Path) -> None:
    """Raise InputError unless `path` is a file that is not empty and whose name tells its format."""
    if not str(path).isprintable():
        raise InputError(f"{str(path)!r}: has a line break or another sign in its name that cannot be shown. Rename it")
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name one file in it")
    if ending(path) not in KNOWN:
        raise InputError(f"{path}: cannot tell its format. Name a file that ends in {', '.join(KNOWN)}")
    if not path.is_file():
        if path.exists():
            raise InputError(f"{path}: is a pipe, a socket or a device, not a file. Save its content in a file first")
        raise InputError(f"{path}: not found. {_nearby(path)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty. Export the table again, with a header and rows")


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} here: paths count from the folder of params.yaml. Name another path"
    names = sorted(p.name for p in path.parent.iterdir() if ending(p) in KNOWN)
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {path.parent / near[0]}?"
    return (
        f"Tables in {path.parent}: {', '.join(names[:5])}"
        if names
        else f"There is no table in {path.parent}; put it there, or name another path"
    )
