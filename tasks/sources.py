"""Where rows come from: a path, read as it stands. Leaves formats to tasks/readers.py, types to tasks/canonical.py.

A new kind of source (a database, a glob, an address) is a new reader in `_readers()`; nothing else changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import raw, readers
from tasks.data_settings import Data, expand
from tasks.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# In these every cell is text.
_UNTYPED = (".csv", ".tsv")


@dataclass(frozen=True)
class Source:
    """A file's cells: an Arrow table with distinct names and at least one row.

    `typed`: the file says which cells are numbers. In a CSV every cell is text, or null.
    """

    path: Path
    table: pa.Table
    typed: bool

    def where(self, row: int) -> str:
        """Where people find data row `row` (from 0) in the file: "line 7", or "row 6" where there are no lines."""
        if self.path.suffix.lower() == ".parquet":
            return f"row {row + 1}"
        return f"line {readers.line_of(self.path, row, header=not self.typed)}"


def read(path: Path, ignore: tuple[str, ...] = ()) -> Source:
    """Read CSV, TSV, Parquet or JSON lines, by suffix.

    `ignore`: columns that may hold a mixture (kept as text). Raises InputError naming file, line and remedy.
    """
    known = _readers()
    if path.suffix.lower() not in known:
        raise InputError(f"{path}: cannot tell its format. Name a file that ends in {', '.join(known)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name one file in it")
    if not path.is_file():
        raise InputError(f"{path}: not found. {_nearby(path, tuple(known))}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty. Export the table again, with a header and rows")
    suffix = path.suffix.lower()
    source = Source(path, known[suffix](path, ignore), typed=suffix not in _UNTYPED)
    _check_names(source)
    if source.table.num_rows == 0:
        raise InputError(f"{path}: has column names and no rows. Export the table again, with its rows")
    return source


def files(root: Path, data: Data) -> tuple[Path, ...]:
    """What ingest reads: the local file, the tables of a local folder by name, or the parts that the last fetch recorded.

    Parts with labels from production come last, behind a local file too. Raises InputError when nothing was fetched yet.
    """
    record = raw.read(root)
    if not data.local:
        if record is None or not record.own:
            raise InputError(
                f"{raw.RECORD}: there is no whole snapshot of {data.where}. Run `windvane train`: it fetches first"
            )
        return tuple(root / part.path for part in (*record.own, *record.labelled))
    path = root / expand(data.source, "data.source")
    tables = sorted(p for p in path.iterdir() if p.suffix.lower() in _readers()) if path.is_dir() else []
    return (*(tables or [path]), *(root / part.path for part in (record.labelled if record else ())))


def read_all(paths: tuple[Path, ...], ignore: tuple[str, ...] = ()) -> Source:
    """Read several files of one table, one behind the other; a column that is missing in one of them is empty there."""
    import pyarrow as pa

    read_ones = [read(path, ignore) for path in paths]
    if len(read_ones) == 1:
        return read_ones[0]
    if len({source.typed for source in read_ones}) > 1:
        raise InputError(f"{paths[0].parent}: holds files with types and files without. Use one format for all")
    try:
        table = pa.concat_tables([source.table for source in read_ones], promote_options="permissive")
    except pa.ArrowInvalid as e:
        raise InputError(f"{paths[0].parent}: files do not fit together: {e}. Give their columns one type") from None
    return Source(paths[0].parent, table, read_ones[0].typed)


def _readers() -> dict[str, Callable[[Path, tuple[str, ...]], pa.Table]]:
    lines = dict.fromkeys((".jsonl", ".ndjson", ".json"), readers.json_lines)
    return {**dict.fromkeys(_UNTYPED, readers.delimited), ".parquet": readers.parquet, **lines}


def _nearby(path: Path, suffixes: tuple[str, ...]) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} here; paths count from the folder of params.yaml"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in suffixes)
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {path.parent / near[0]}?"
    return (
        f"Tables in {path.parent}: {', '.join(names[:5])}"
        if names
        else f"There is no table in {path.parent}; put it there, or name another path"
    )


def _check_names(source: Source) -> None:
    names = source.table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{source.path}: column {twice[0]!r} stands {names.count(twice[0])} times. Give each column a name of "
            "its own"
        )
    if "" in names:
        raise InputError(
            f"{source.path}: column {names.index('') + 1} has no name. Give it one in the header, or delete it"
        )
