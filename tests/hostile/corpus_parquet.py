"""Parquet that is broken or empty, and how the corpus writes Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.hostile.case import Case, houses, typed


def table(**more: Any) -> Any:
    """The clean table as Arrow, with columns more or otherwise (Arrow arrays)."""
    import pyarrow as pa

    return pa.table({**{name: pa.array(column) for name, column in typed(houses()).items()}, **more})


def parquet(make: Callable[[], Any] = table, **options: Any) -> Callable[[Path], None]:
    """Writes what `make` gives as Parquet."""

    def write(path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(make(), path, **options)

    return write


def array(name: str, make: Callable[[Any], Any]) -> Callable[[Path], None]:
    """The clean table with one column that `make` builds from the pyarrow module."""

    def whole() -> Any:
        import pyarrow as pa

        return table(**{name: make(pa)})

    return parquet(whole)


def spoilt(spoil: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    """Parquet whose bytes are changed after it was written."""

    def write(path: Path) -> None:
        parquet(write_page_checksum=True)(path)
        path.write_bytes(spoil(bytearray(path.read_bytes())))

    return write


def flip(at: int) -> Callable[[bytearray], bytearray]:
    def change(content: bytearray) -> bytearray:
        content[at] ^= 0xFF
        return content

    return change


def no_row_group(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.ParquetWriter(path, table().schema).close()


def many_row_groups(path: Path) -> None:
    parquet(row_group_size=7)(path)


def twice(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(column) for column in typed(houses()).values()]
    pq.write_table(pa.table(columns, names=["day", "size", "size", "town", "price"]), path)


def no_column(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({}), path)


PAGES = (
    Case("Parquet in name only", b"PAR1 nothing PAR1", "stop", ("damaged",), "marks and rubbish"),
    Case("Parquet of 4 bytes", b"PAR1", "stop", ("damaged",), "a copy that broke off at once"),
    Case("Parquet without its end", spoilt(lambda b: b[:-100]), "stop", ("damaged",), "a copy that broke off"),
    Case("Parquet without its middle", spoilt(lambda b: b[:500] + b[1500:]), "stop", ("damaged",), "lost blocks"),
    Case("Parquet with a flipped byte", spoilt(flip(300)), "stop", ("damaged",), "the page's checksum tells"),
    Case(
        "Parquet with a flipped byte in its footer",
        spoilt(flip(-6)),
        "stop",
        ("damaged",),
        "its length is wrong: a footer of gigabytes",
    ),
    Case("encrypted Parquet", spoilt(lambda b: b[:-4] + b"PARE"), "stop", ("damaged",), "no key, no rows"),
    Case("Parquet of zero row groups", no_row_group, "stop", ("no rows",), "a writer that got nothing"),
    Case("Parquet of zero rows", parquet(lambda: table().slice(0, 0)), "stop", ("no rows",), "as above"),
    Case("Parquet of zero columns", no_column, "stop", (), "as above"),
    Case(
        "Parquet in many row groups",
        many_row_groups,
        "pass",
        (),
        "29 groups of 7 rows",
        reads={"rooms": (float(houses()["rooms"][0]),)},
    ),
    Case("names twice in Parquet", twice, "stop", ("'size'", "2 times"), "allowed there, useless here"),
)
CASES = tuple(replace(case, file="t.parquet") for case in PAGES)
