"""Do rows that judge also teach: the same content on two sides, or the same group. Called by the split stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from windvane.tasks import tables
from windvane.tasks.findings import Finding
from windvane.tasks.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

CHECKS = {
    "overlap": "no row is both a training row and a held-out row",
    "group_overlap": "no group is in both",
}
# As the split stage numbers the sides of a row.
TRAIN, VALIDATION, TEST = 1, 2, 3
# Rows that say little agree by chance; a leak of this size flatters the score.
LIMIT = 0.01
# Larger tables are looked at in a part that keeps what is alike together.
COMPARED = 200_000
# A part is chosen by at least so many columns, whose values make so many different hashes to each bucket; how many
# values a column has shows in the first rows.
LEAST, BUCKET, FIRST = 3, 10_000, 10_000
_PLACE = "_place in the table"


def find(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame, sides: NDArray[np.uint8], chosen: Settings
) -> Iterator[Finding]:
    """Findings on a split. `frame`: the n rows of table.parquet in their order; `sides`: (n,), 0 for no label."""
    import polars as pl

    from windvane.tasks.measure import lazy

    problem, about = chosen.problem, "about " if len(sides) > COMPARED else ""
    hidden = {problem.id, problem.time, tables.ROW, *problem.ignore}
    scan = frame if isinstance(frame, pl.LazyFrame) else lazy(frame)
    names = [name for name in scan.collect_schema() if name not in hidden]
    share = _alike(scan, names, sides)
    if share > LIMIT:
        yield Finding(
            "overlap",
            "warn",
            None,
            share,
            LIMIT,
            f"{about}{share:.1%} of the held-out rows equal a training row in all that a model sees: the score "
            "flatters. Delete the copies in the source, or name problem.group so that they stay on one side",
        )
    # Under a split by time a group goes on: what is asked is how it does later.
    if problem.group and chosen.split.strategy != "time":
        groups = scan.select(pl.col(problem.group).hash(seed=0)).collect(engine="streaming")
        both = shared(groups.to_series().to_numpy(), sides)
        if both:
            yield Finding(
                "group_overlap",
                "warn",
                problem.group,
                both,
                0.0,
                f"{about}{both:.1%} of the rows that judge belong to a {problem.group!r} that teaches too: what is learned about "
                "it flatters the score. Set split.strategy: group",
            )


def _alike(scan: pl.LazyFrame, names: list[str], sides: NDArray[np.uint8]) -> float:
    """Share of the judging rows whose named cells all stand in a row that teaches too; 0 where rows say little.

    Up to COMPARED rows all are compared. Of more, those whose values in a few columns fall into one bucket, as those of
    alike rows do. Rows that are alike in all columns are so in these few: only where that holds for too many, the other
    columns are read, which costs as much as all the rest of the split.
    """
    import numpy as np

    every = -(-len(sides) // COMPARED)
    scan = scan.with_row_index(_PLACE)
    if every > 1:
        told = _content(_telling(scan, names, every * BUCKET))
        if _shared(*_sided(scan, told, told % every == 0, sides)) <= LIMIT:
            return 0.0
        hashes, kept = _sided(scan, _content(names), told % every == 0, sides)
    else:
        hashes, kept = _sided(scan, _content(names), None, sides)
    # Rows that say little agree by chance.
    return _shared(hashes, kept) if len(np.unique(hashes)) > len(hashes) / 2 else 0.0


def _sided(
    scan: pl.LazyFrame, content: pl.Expr, within: pl.Expr | None, sides: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hashes of the content of the rows `within` (None: all), and their sides."""
    rows = scan if within is None else scan.filter(within)
    kept = rows.select(_PLACE, content).collect(engine="streaming")
    return kept["content"].to_numpy(), sides[kept[_PLACE].to_numpy()]


def _telling(scan: pl.LazyFrame, names: list[str], wanted: int) -> list[str]:
    """Columns with the most values among the first rows, as many as can make `wanted` different hashes."""
    first = scan.select(names).head(FIRST).collect(engine="streaming")
    values = {name: first[name].n_unique() for name in names}
    order = sorted(names, key=lambda name: (-values[name], name))
    made, taken = 1, 0
    while taken < len(order) and (made < wanted or taken < LEAST):
        made, taken = made * values[order[taken]], taken + 1
    return order[:taken]


def _content(names: list[str]) -> pl.Expr:
    """A hash of the named cells of each row. One flat sum: a chain of thousands of additions takes polars half a minute
    to plan.
    """
    import polars as pl

    return pl.sum_horizontal(pl.col(name).hash(seed=j) // 4096 for j, name in enumerate(names)).alias("content")


def shared(keys: NDArray[Any], sides: NDArray[np.uint8]) -> float:
    """Share of the rows on the test side whose key stands on the train or validation side too. Both (n,)."""
    import polars as pl

    if len(keys) > COMPARED:  # equal keys fall into one part
        kept = pl.Series(keys).hash(seed=1).to_numpy() % -(-len(keys) // COMPARED) == 0
        keys, sides = keys[kept], sides[kept]
    return _shared(keys, sides)


def _shared(keys: NDArray[Any], sides: NDArray[np.uint8]) -> float:
    import polars as pl

    judging = pl.Series(keys[sides == TEST])
    teaching = pl.Series(keys[(sides == TRAIN) | (sides == VALIDATION)]).unique()
    return float(judging.is_in(teaching.implode()).mean() or 0.0) if len(judging) else 0.0  # type: ignore[arg-type]
