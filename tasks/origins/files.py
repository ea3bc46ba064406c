"""Files as a source names them, wherever they lie: their endings, and how many rows they hold. Leaves cells to ingest.

A fetched file stays as it came, byte for byte: what a cell of a CSV means can only be told from the whole table, and a
message about line 7 must mean line 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
_PACKED = (".gz", ".zst")


@dataclass(frozen=True)
class Listed:
    """A file of a source: its name there, and what changes when its content does."""

    name: str
    etag: str
    bytes: int


def suffix(name: str) -> str | None:
    """The ending that says how to read a file, such as .csv.gz; None for a file that is no table."""
    path = Path(name.lower())
    packed = path.suffix if path.suffix in _PACKED else ""
    kind = Path(path.stem).suffix if packed else path.suffix
    return kind + packed if kind in _TABLES else None


def endings() -> str:
    """What a table's name may end in, for people."""
    return f"{', '.join(_TABLES)}, each also with {' or '.join(_PACKED)}"


def scan(path: Path) -> pl.LazyFrame:
    """A file's rows, of a CSV every cell as text. Raises polars' own errors where it is damaged."""
    import polars as pl

    ending = suffix(path.name) or ""
    if ending.startswith(".parquet"):
        return pl.scan_parquet(path, glob=False)
    if ending.startswith((".csv", ".tsv")):
        return pl.scan_csv(path, infer_schema=False, separator="\t" if ending.startswith(".tsv") else ",")
    return pl.scan_ndjson(path, infer_schema_length=None)


def rows(path: Path) -> int | None:
    """How many rows a file holds; None where it cannot be read: ingest will say why."""
    import polars as pl

    try:
        return int(scan(path).select(pl.len()).collect(engine="streaming").item())
    except pl.exceptions.PolarsError:
        return None
