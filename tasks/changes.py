"""How the rows of two snapshots of a source differ: new, updated, deleted. Knows nothing of where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks.origins.files import scan
from windvane.tasks.raw import Changes

if TYPE_CHECKING:
    import polars as pl


def between(before: Sequence[Path], after: Sequence[Path], ids: Sequence[str]) -> Changes | None:
    """Compare the rows of two lists of files, in memory only 8 bytes a row and the ids.

    `ids`: columns that may tell rows apart, the first that is unique on both sides does; without one, whole rows count, and
    an update is a deletion and a new row. None when a file cannot be read.
    """
    import polars as pl

    try:
        old, new = _rows(before), _rows(after)
        shared = set(old.collect_schema()) & set(new.collect_schema())
        for name in [name for name in ids if name in shared]:
            one, two = _keyed(old, name), _keyed(new, name)
            if one["id"].is_unique().all() and two["id"].is_unique().all():
                both = one.join(two, on="id", how="inner", nulls_equal=True)
                updated = int((both["row"] != both["row_right"]).sum())
                return Changes(new=len(two) - len(both), updated=updated, deleted=len(one) - len(both), by=name)
        counts = _counted(old).join(_counted(new), on="row", how="full", coalesce=True).fill_null(0)
        more = (counts["len_right"].cast(pl.Int64) - counts["len"].cast(pl.Int64)).to_frame("more")["more"]
    except pl.exceptions.PolarsError:
        return None
    return Changes(
        new=int(more.clip(lower_bound=0).sum()),
        updated=0,
        deleted=int((-more).clip(lower_bound=0).sum()),
        by="whole rows",
    )


def _rows(paths: Sequence[Path]) -> pl.LazyFrame:
    """All rows, a cell that is a number as float64 and any other as text: a change of type alone is no change."""
    import polars as pl
    import polars.selectors as cs

    def plain(path: Path) -> pl.LazyFrame:
        frame = scan(path)
        return frame.with_columns(
            cs.numeric().cast(pl.Float64), (~cs.numeric() & ~cs.string() & ~cs.nested()).cast(pl.String)
        )

    return pl.concat([plain(path) for path in paths], how="diagonal_relaxed")


def _hash(frame: pl.LazyFrame) -> pl.Expr:
    import polars as pl

    return pl.struct(sorted(frame.collect_schema())).hash(seed=0).alias("row")


def _keyed(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    import polars as pl

    return frame.select(pl.col(name).cast(pl.String).alias("id"), _hash(frame)).collect(engine="streaming")


def _counted(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.select(_hash(frame)).collect(engine="streaming").group_by("row").len()
