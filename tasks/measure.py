"""Counts over a whole table in few streaming scans with polars. Owns the scans; knows nothing of what the counts mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from windvane.tasks import tables

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import polars as pl

Shape = Literal["number", "boolean", "date", "words"]
# Up to here different values are counted exactly. Beyond, only where a sample shows at most FEW of them; HyperLogLog
# estimates the others within ten percent or so: memory stays bounded, and nothing hangs on the digits of such a count.
EXACT_ROWS = 1_000_000
FEW = 10_000
# The words of a text are counted in so many different values.
_TEXTS = 10_000
# A check looks at so many rows, evenly spaced, wherever the whole table is not needed.
SAMPLE = 50_000
# Whether values are few shows in more of them.
MANY = 2 * SAMPLE


@dataclass(frozen=True)
class Counts:
    """One column over all rows. `low`, `high`: finite numbers, dates as they are, None for words; `words`: blanks + 1
    in an average value of words, 0 where they were not counted. `values`: the different words, where they were listed.
    """

    name: str
    shape: Shape
    missing: int
    distinct: int
    low: Any
    high: Any
    infinite: int
    words: float
    values: frozenset[str] | None = None

    @property
    def constant(self) -> bool:
        """A missing value counts as a value of its own."""
        return self.distinct + (self.missing > 0) <= 1


@dataclass(frozen=True)
class Look:
    """What is known of a scan beforehand: its rows, some of them (evenly spaced), and the file that holds just these rows,
    if a stage wrote one: it states what its columns hold.
    """

    rows: int
    sample: pl.DataFrame
    file: Path | None


def lazy(frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Any frame with canonical types as a scan, NaN as missing."""
    import polars as pl

    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        frame = pl.from_pandas(frame)
    scan = frame.lazy()
    floats = [name for name, kind in scan.collect_schema().items() if kind.is_float()]
    return scan.with_columns(pl.col(floats).fill_nan(None)) if floats else scan


def counts(scan: pl.LazyFrame, look: Look | None = None) -> tuple[int, tuple[Counts, ...]]:
    """Rows of the scan, and the counts of every column but tables.ROW, by name. Memory does not grow with the rows.

    `look`: what need not be looked up again.
    """
    import polars as pl

    schema = {name: kind for name, kind in scan.collect_schema().items() if name != tables.ROW}
    rows = look.rows if look else int(scan.select(pl.len()).collect(engine="streaming").item())
    file = look.file if look else None
    ends = tables.ends(file) if file else _ends(scan, schema)
    listed: dict[str, frozenset[str]] = {}
    if rows <= EXACT_ROWS:
        distinct = _single(scan, {name: pl.col(name).drop_nulls().n_unique() for name in schema})
    else:
        sample = look.sample if look else spread(scan, rows, MANY)
        distinct, listed = _distinct(scan, schema, ends, rows, sample, file)
    found = [
        replace(_counts(scan, name, kind, rows, ends[name], distinct[name]), values=listed.get(name))
        for name, kind in schema.items()
    ]
    return rows, tuple(sorted(found, key=lambda c: c.name))


def told(distinct: int, rows: int) -> str:
    """How many different values counts() found in `rows` rows, in words: an estimate says that it is one."""
    if rows <= EXACT_ROWS or distinct <= FEW:
        return f"{distinct:,}"
    return f"about {float(f'{distinct:.2g}'):,.0f}"


def shape(kind: Any) -> Shape:
    """What a canonical polars type holds."""
    import polars as pl

    if kind == pl.Boolean:
        return "boolean"
    if kind.is_numeric():
        return "number"
    return "date" if kind.is_temporal() else "words"


def _single(scan: pl.LazyFrame, wanted: dict[Any, Any]) -> dict[Any, Any]:
    """The value of each expression. Names are the user's: positions cannot clash."""
    looks = [expression.alias(str(i)) for i, expression in enumerate(wanted.values())]
    return dict(zip(wanted, scan.select(looks).collect(engine="streaming").row(0), strict=True)) if looks else {}


def _ends(scan: pl.LazyFrame, schema: dict[str, Any]) -> dict[str, tables.Ends]:
    import polars as pl

    wanted = {(name, "missing"): pl.col(name).null_count() for name in schema}
    for name, kind in schema.items():
        if kind != pl.Null and shape(kind) != "words":
            wanted |= {(name, "low"): pl.col(name).min(), (name, "high"): pl.col(name).max()}
    got = _single(scan, wanted)
    return {name: tables.Ends(got[name, "missing"], got.get((name, "low")), got.get((name, "high"))) for name in schema}


def _distinct(
    scan: pl.LazyFrame,
    schema: dict[str, Any],
    ends: dict[str, tables.Ends],
    rows: int,
    sample: pl.DataFrame,
    file: Path | None,
) -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    """Different values of each column of many rows, an estimate where the sample has more than FEW; few words by name."""
    import polars as pl

    found, many, few = {}, [], []
    for name, kind in schema.items():
        e = ends[name]
        if e.missing == rows or (e.low is not None and e.low == e.high) or shape(kind) == "boolean":
            found[name] = 0 if e.missing == rows else 1 if e.low == e.high else 2
            continue
        seen = sample[name].drop_nulls().n_unique()
        if seen > FEW:
            many.append(name)
        # Of whole numbers all that lie between the ends may have been seen: then there are no others.
        elif kind.is_integer() and e.high - e.low + 1 == seen:
            found[name] = seen
        else:
            few.append(name)
    words = tuple(name for name in few if shape(schema[name]) == "words")
    listed = tables.words(file, words) if file else {}
    few = [name for name in few if name not in listed]
    # One scan a column, side by side: a scan of one column keeps one core busy.
    scans = [scan.select(pl.col(name).drop_nulls()).group_by(name).agg() for name in few]
    scans += [scan.select(pl.col(name).approx_n_unique()) for name in many]
    got = dict(zip([*few, *many], pl.collect_all(scans, engine="streaming"), strict=True))
    listed |= {name: frozenset(got[name][name]) for name in few if name in words}
    found |= {name: len(values) for name, values in listed.items()} | {name: len(got[name]) for name in few}
    for name in many:
        # HyperLogLog counts a missing value as one more.
        found[name] = min(got[name].item() - (ends[name].missing > 0), rows - ends[name].missing)
    return found, {name: values for name, values in listed.items() if len(values) <= FEW}


def _counts(scan: pl.LazyFrame, name: str, kind: Any, rows: int, ends: tables.Ends, distinct: int) -> Counts:
    low, high, infinite = ends.low, ends.high, 0
    if kind.is_float() and low is not None and (math.isinf(low) or math.isinf(high)):
        infinite, low, high = _finite(scan, name)
    words = _words(scan, name, rows) if shape(kind) == "words" and distinct else 0.0
    return Counts(name, shape(kind), ends.missing, distinct, low, high, infinite, words)


def _finite(scan: pl.LazyFrame, name: str) -> tuple[int, Any, Any]:
    """How many infinite values there are, and the ends of the others."""
    import polars as pl

    values = pl.col(name).filter(pl.col(name).is_finite())
    got = _single(scan, {"infinite": pl.col(name).is_infinite().sum(), "low": values.min(), "high": values.max()})
    return got["infinite"], got["low"], got["high"]


def _words(scan: pl.LazyFrame, name: str, rows: int) -> float:
    """Each value counts once: a text that comes back is still one text."""
    import polars as pl

    some = scan.select(pl.col(name).drop_nulls())
    if rows > EXACT_ROWS:
        some = some.head(MANY)
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


def drawn(scan: pl.LazyFrame, rows: int, most: int, also: pl.Expr | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What spread() gives, and the rows of which `also` holds (None: all), in one reading."""
    import polars as pl

    if also is None:
        every = scan.collect(engine="streaming")
        return spread(every.lazy(), rows, most), every
    index = "_position in the scan"
    even = pl.col(index) % -(-rows // most) == 0
    kept = scan.with_row_index(index).filter(even | also).collect(engine="streaming")
    return kept.filter(even).drop(index), kept.filter(also).drop(index)
