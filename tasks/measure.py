"""Counts over a whole table in one streaming scan with polars. Owns the scan; knows nothing of what the counts mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks import tables

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Shape = Literal["number", "boolean", "date", "words"]
# Up to here different values are counted exactly. Beyond, HyperLogLog estimates them within a few percent: memory stays
# bounded, and nothing hangs on the last digit of a count that large. Up to FEW they are then counted again, exactly.
EXACT_ROWS = 1_000_000
FEW = 10_000
# The words of a text are counted in so many different values.
_TEXTS = 10_000
# A check looks at so many rows, evenly spaced, wherever the whole table is not needed.
SAMPLE = 50_000


@dataclass(frozen=True)
class Counts:
    """One column over all rows. `low`, `high`: finite numbers, dates as they are, None for words; `words`: blanks + 1
    in an average value of words, 0 where they were not counted.
    """

    name: str
    shape: Shape
    missing: int
    distinct: int
    low: Any
    high: Any
    infinite: int
    words: float

    @property
    def constant(self) -> bool:
        """A missing value counts as a value of its own."""
        return self.distinct + (self.missing > 0) <= 1


def lazy(frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Any frame with canonical types as a scan, NaN as missing."""
    import polars as pl

    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        frame = pl.from_pandas(frame)
    scan = frame.lazy()
    floats = [name for name, kind in scan.collect_schema().items() if kind.is_float()]
    return scan.with_columns(pl.col(floats).fill_nan(None)) if floats else scan


def counts(scan: pl.LazyFrame) -> tuple[int, tuple[Counts, ...]]:
    """Rows of the scan, and the counts of every column but tables.ROW, by name. Memory does not grow with the rows."""
    import polars as pl

    schema = {name: kind for name, kind in scan.collect_schema().items() if name != tables.ROW}
    rows = int(scan.select(pl.len()).collect(engine="streaming").item())
    # Names are the user's: positions cannot clash.
    wanted = [e for i, (name, kind) in enumerate(schema.items()) for e in _expressions(i, name, kind, rows)]
    got = scan.select(wanted).collect(engine="streaming").row(0, named=True) if wanted else {}
    found = [_counts(scan, i, name, kind, rows, got) for i, (name, kind) in enumerate(schema.items())]
    return rows, tuple(sorted(found, key=lambda c: c.name))


def shape(kind: Any) -> Shape:
    """What a canonical polars type holds."""
    import polars as pl

    if kind == pl.Boolean:
        return "boolean"
    if kind.is_numeric():
        return "number"
    return "date" if kind.is_temporal() else "words"


def _expressions(i: int, name: str, kind: Any, rows: int) -> list[Any]:
    import polars as pl

    column = pl.col(name)
    wanted = [column.null_count().alias(f"{i} missing")]
    if kind == pl.Null:
        return wanted
    distinct = column.drop_nulls().n_unique() if rows <= EXACT_ROWS else column.approx_n_unique()
    wanted.append(distinct.alias(f"{i} distinct"))
    if shape(kind) != "words" or rows > EXACT_ROWS:
        wanted += [column.min().alias(f"{i} low"), column.max().alias(f"{i} high")]
    if kind.is_float():
        wanted.append(column.is_infinite().sum().alias(f"{i} infinite"))
    return wanted


def _counts(scan: pl.LazyFrame, i: int, name: str, kind: Any, rows: int, got: dict[str, Any]) -> Counts:
    missing, distinct = got[f"{i} missing"], got.get(f"{i} distinct", 0)
    low, high, infinite = got.get(f"{i} low"), got.get(f"{i} high"), got.get(f"{i} infinite") or 0
    present = rows - missing
    if rows > EXACT_ROWS:
        # HyperLogLog counts a missing value as one more, and may be one off where it matters most.
        estimate = max(distinct - (missing > 0), 2)
        distinct = 0 if present == 0 else 1 if low == high else min(estimate, present)
        if 1 < distinct <= FEW:
            distinct = _exactly(scan, name)
    if infinite:
        low, high = _finite(scan, name)
    words = 0.0
    if shape(kind) == "words":
        low = high = None
        words = _words(scan, name, rows) if distinct else 0.0
    return Counts(name, shape(kind), missing, distinct, low, high, infinite, words)


def _exactly(scan: pl.LazyFrame, name: str) -> int:
    import polars as pl

    values = scan.select(pl.col(name).drop_nulls()).group_by(name).agg()
    return int(values.select(pl.len()).collect(engine="streaming").item())


def _finite(scan: pl.LazyFrame, name: str) -> tuple[Any, Any]:
    import polars as pl

    values = pl.col(name).filter(pl.col(name).is_finite())
    found = scan.select(values.min().alias("low"), values.max().alias("high")).collect(engine="streaming")
    return found.row(0)


def _words(scan: pl.LazyFrame, name: str, rows: int) -> float:
    """Each value counts once: a text that comes back is still one text."""
    import polars as pl

    some = scan.select(pl.col(name).drop_nulls())
    if rows > EXACT_ROWS:
        some = some.head(5 * SAMPLE)
    values = some.unique(maintain_order=True).head(_TEXTS)
    return float(values.select(pl.col(name).str.count_matches(" ", literal=True).mean()).collect().item() or 0) + 1


def spread(scan: pl.LazyFrame, rows: int, most: int = SAMPLE) -> pl.DataFrame:
    """At most `most` rows, evenly spaced over the scan's `rows`, in their order."""
    import polars as pl

    if rows <= most:
        return scan.collect(engine="streaming")
    step = -(-rows // most)
    index = "_position in the scan"
    kept = scan.with_row_index(index).filter(pl.col(index) % step == 0).drop(index)
    return kept.collect(engine="streaming")
