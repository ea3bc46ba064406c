"""Which rows of a side that is larger than data.max_rows are used: stated, repeatable, and never moved by chance.

Pure; leaves which side a row stands on to tasks/partition.py, and reading to tasks/split.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from windvane.tasks import keys, settings, tables

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

# So many rows tune and judge in any case: with fewer, intervals say little of slices.
_JUDGES = 10_000
# So many rows of a class are kept, if there are, however rare it is.
_A_CLASS = 100


def columns(chosen: settings.Settings) -> list[str]:
    """The columns by which rows are picked."""
    return [tables.ROW, chosen.problem.target]


def most(chosen: settings.Settings, *, judging: bool) -> int | None:
    """How many rows of a side are used at most; None: all. Sides that tune and judge keep their share."""
    limit, split = chosen.data.max_rows, chosen.split
    if limit is None or not judging:
        return limit
    share = max(split.validation, split.test) / (1 - split.validation - split.test)
    return max(_JUDGES, round(limit * share))


def said(rows: dict[str, int], chosen: settings.Settings) -> str | None:
    """That a side of so many rows (train, validation, test) is not used as a whole, in words; None: all are."""
    limit, judging = most(chosen, judging=False), most(chosen, judging=True)
    teaching = sum(rows.values()) if chosen.split.strategy == "time" else rows["train"]
    if limit is None or judging is None or (teaching <= limit and max(rows["validation"], rows["test"]) <= judging):
        return None
    how = "the newest"
    if chosen.split.strategy != "time":
        how = "stratified by class" if chosen.problem.kind == "classification" else "by the hash of the row key"
    tune, judge = min(judging, rows["validation"]), min(judging, rows["test"])
    return (
        f"models are fitted on {min(limit, teaching):,} of {teaching:,} rows ({how}), tuned on {tune:,} of "
        f"{rows['validation']:,} and judged on {judge:,} of {rows['test']:,} (by hash): data.max_rows is {limit:,}; null "
        "lifts it"
    )


def pick(known: pl.DataFrame, chosen: settings.Settings, most: int, *, newest: bool) -> NDArray[np.intp]:
    """Places of about `most` of the rows, rising. `known`: their columns(), with strategy time in the order of time.

    With strategy time and `newest` the last rows; else the lowest hashes of the row keys, of each class in proportion.
    Of a rare class _A_CLASS rows are kept.
    """
    import numpy as np

    by_time = newest and chosen.split.strategy == "time"
    place = np.arange(len(known), 0, -1) if by_time else keys.share(known[tables.ROW].to_numpy(), chosen.split.seed)
    order = np.argsort(place, kind="stable")
    if chosen.problem.kind != "classification":
        return np.sort(order[:most])
    classes = known[chosen.problem.target].rank("dense").to_numpy()[order].astype(np.int64) - 1
    counts = np.bincount(classes)
    taken = np.zeros(len(known), dtype=bool)
    if by_time:
        taken[order[:most]] = True
        counts_wanted = np.minimum(counts, _A_CLASS)
    else:
        counts_wanted = np.maximum(np.minimum(counts, _A_CLASS), np.round(most * counts / len(known)).astype(np.int64))
    for label, wanted in enumerate(counts_wanted):
        taken[order[classes == label][:wanted]] = True
    return np.flatnonzero(taken)
