"""Do rows that judge also teach: the same content on two sides, or the same group. Called by the split stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks import tables
from tasks.findings import Finding
from tasks.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

CHECKS = {
    "overlap": "no row stands both where it teaches and where it judges",
    "group_overlap": "no group does",
}
# As the split stage numbers the sides of a row.
TRAIN, VALIDATION, TEST = 1, 2, 3
# Rows that say little agree by chance; a leak of this size flatters the score.
LIMIT = 0.01
# Larger tables are looked at in a part that keeps what is alike together.
COMPARED = 200_000


def find(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame, sides: NDArray[np.uint8], chosen: Settings
) -> Iterator[Finding]:
    """Findings on a split. `frame`: the n rows of data/table.parquet in their order; `sides`: (n,), 0 for no label."""
    import numpy as np
    import polars as pl

    from tasks.measure import lazy

    problem = chosen.problem
    hidden = {problem.id, problem.time, tables.ROW, *problem.ignore}
    scan = lazy(frame)
    names = [name for name in scan.collect_schema() if name not in hidden]
    # One flat sum: a chain of thousands of additions takes polars half a minute to plan.
    content = pl.sum_horizontal(pl.col(name).hash(seed=j) // 4096 for j, name in enumerate(names))
    wanted = [content.alias("content")]
    if problem.group:
        wanted.append(pl.col(problem.group).hash(seed=0).alias("group"))
    hashes = scan.select(wanted).collect(engine="streaming")
    rows = hashes["content"].to_numpy()
    if len(np.unique(rows[:: max(len(rows) // COMPARED, 1)])) > min(len(rows), COMPARED) / 2:
        share = shared(rows, sides)
        if share > LIMIT:
            yield Finding(
                "overlap",
                "warn",
                None,
                share,
                LIMIT,
                f"{share:.1%} of the rows that judge also stand, in all that a model sees, among those that teach: the "
                "score flatters. Delete the copies in the source, or name problem.group so that they stay on one side",
            )
    # Under a split by time a group goes on: what is asked is how it does later.
    if problem.group and chosen.split.strategy != "time":
        both = shared(hashes["group"].to_numpy(), sides)
        if both:
            yield Finding(
                "group_overlap",
                "warn",
                problem.group,
                both,
                0.0,
                f"{both:.1%} of the rows that judge belong to a {problem.group!r} that teaches too: what is learned about "
                "it flatters the score. Set split.strategy: group",
            )


def shared(keys: NDArray[Any], sides: NDArray[np.uint8]) -> float:
    """Share of the rows on the test side whose key stands on the train or validation side too. Both (n,)."""
    import polars as pl

    if len(keys) > COMPARED:  # equal keys fall into one part
        kept = pl.Series(keys).hash(seed=1).to_numpy() % -(-len(keys) // COMPARED) == 0
        keys, sides = keys[kept], sides[kept]
    judging = pl.Series(keys[sides == TEST])
    teaching = pl.Series(keys[(sides == TRAIN) | (sides == VALIDATION)]).unique()
    return float(judging.is_in(teaching.implode()).mean() or 0.0) if len(judging) else 0.0  # type: ignore[arg-type]
