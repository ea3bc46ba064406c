"""What columns whose file declares their types hold beyond the canonical types. Looks at values; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

# 0001-01-01 and 10000-01-01, in days since 1970.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_897


def past_whole(scan: pl.LazyFrame, schema: pl.Schema) -> set[str]:
    """Whole numbers past int64: ids and hashes, of which floats would make many equal."""
    import polars as pl

    names = [name for name, kind in schema.items() if kind in (pl.UInt64, pl.Int128)]
    return _where(
        scan, {n: pl.col(n).cast(pl.Int64, strict=False).null_count() > pl.col(n).null_count() for n in names}
    )


def with_gaps(scan: pl.LazyFrame, schema: pl.Schema) -> set[str]:
    """Whole numbers that must become floats, because some are missing."""
    import polars as pl

    return _where(scan, {n: pl.col(n).null_count() > 0 for n, kind in schema.items() if kind.is_integer()})


def past_calendar(scan: pl.LazyFrame, schema: pl.Schema) -> set[str]:
    """Dates that lie outside the years 1 to 9999, where neither Python nor a cast to microseconds can follow."""
    import polars as pl

    wanted = {}
    for name, kind in schema.items():
        unit = kind.time_unit if isinstance(kind, pl.Datetime) else None
        day = {"ms": 86_400_000, "us": 86_400_000_000, "ns": None, None: 1}[unit]
        if (kind == pl.Date or unit) and day:
            counted = pl.col(name).to_physical().cast(pl.Int64)
            wanted[name] = (counted.min() < _FIRST_DAY * day) | (counted.max() >= _LAST_DAY * day)
    return _where(scan, wanted)


def _where(scan: pl.LazyFrame, wanted: dict[str, Any]) -> set[str]:
    """Names of the columns of which an expression of one value holds, in one pass."""
    if not wanted:
        return set()
    found = scan.select(expression.alias(name) for name, expression in wanted.items()).collect(engine="streaming")
    return {name for name, yes in found.row(0, named=True).items() if yes}
