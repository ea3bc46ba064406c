"""Rows that repeat: within the table, or as training rows and again as validation or test rows.

The split stage calls find_overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from windvane.tasks.ingest import table_io
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import strategies
from windvane.tasks.validate.findings import CheckInput, TableFinding
from windvane.tasks.validate.table_statistics import scan_frame

DUPLICATE_CHECKS = {"duplicates": "no row repeats another", "near_duplicates": "no row nearly repeats another"}
# A few alike rows are life, and what the last accepted table had is its way.
NEAR_DUPLICATE_SHARE = 0.005
USUAL_SHARE_FACTOR = 1.5
# The digest's name for the share, which the next table is held against.
NEAR_DUPLICATES_NOTE = "near_duplicates"


def find_duplicates(e: CheckInput) -> Iterator[TableFinding]:
    """What tasks/validate/table_statistics.py measured, against the limits."""
    rows, twins = e.profile.rows, e.twins
    # Rows with an id of their own are two observations that are alike.
    if twins.exact and e.problem.id is None:
        text = (
            f"{twins.exact} rows ({twins.exact / rows:.1%}) repeat another row in every column: each counts twice. Delete "
            "them in the source, or name problem.group if they belong together"
        )
        categories = strategies.holds_categories(c.distinct for c in e.profile.columns)
        if categories and strategies.holds_combinations(e.rows - twins.exact, e.rows):
            text = (
                f"the {e.rows} rows are of {e.rows - twins.exact} different combinations: each is taken for an observation of "
                "its own. Delete copies in the source if they are some, or name problem.id"
            )
        yield TableFinding("duplicates", "warn", None, twins.exact / rows, 0.0, text)
    limit = NEAR_DUPLICATE_SHARE + USUAL_SHARE_FACTOR * (e.past.notes.get(NEAR_DUPLICATES_NOTE, 0.0) if e.past else 0.0)
    if twins.near > limit:
        text = (
            f"{twins.near:.1%} of the rows repeat another one {twins.how}: entered twice? Keep one of each, or name "
            "problem.group so that they stay in one split"
        )
        yield TableFinding("near_duplicates", "warn", None, twins.near, limit, text)


# As the split stage numbers a row's split.
TRAIN_CODE, VALIDATION_CODE, TEST_CODE, GAP_CODE = 1, 2, 3, 4
# Uninformative rows agree by chance; a leak of this size flatters the score.
MAX_OVERLAP_SHARE = 0.01
# Larger tables are checked in a part that keeps what is alike together.
MAX_OVERLAP_ROWS = 200_000
# A part is chosen by at least so many columns, whose values make so many different hashes to each bucket; how many
# values a column has shows in the first rows.
MIN_BUCKET_COLUMNS, HASHES_PER_BUCKET, FIRST_ROWS = 3, 10_000, 10_000
_PLACE_COLUMN = "_place in the table"


def find_overlap(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame, sides: NDArray[np.uint8], chosen: Settings
) -> Iterator[TableFinding]:
    """Findings on a split. `frame`: the n rows of table.parquet in their order; `sides`: (n,), 0 for no label."""
    problem, about = chosen.problem, "about " if len(sides) > MAX_OVERLAP_ROWS else ""
    hidden = {problem.id, problem.time, problem.weight, table_io.ROW_KEY, *problem.ignore}
    scan = frame if isinstance(frame, pl.LazyFrame) else scan_frame(frame)
    names = [name for name in scan.collect_schema() if name not in hidden]
    share = _measure_row_overlap(scan, names, sides)
    if share > MAX_OVERLAP_SHARE:
        text = (
            f"{about}{share:.1%} of the held-out rows equal a training row in all that a model sees: the score "
            "flatters. Delete the copies in the source, or name problem.group so that they stay in one split"
        )
        yield TableFinding("overlap", "warn", None, share, MAX_OVERLAP_SHARE, text)
    # Under a split by time a group goes on: what counts is how it does later.
    if problem.group and chosen.split.strategy != "time":
        groups = scan.select(pl.col(problem.group).hash(seed=0)).collect(engine="streaming")
        both = measure_key_overlap(groups.to_series().to_numpy(), sides)
        if both:
            text = (
                f"{about}{both:.1%} of the test rows belong to a {problem.group!r} that trains too: what is learned about "
                "it flatters the score. Set split.strategy: group"
            )
            yield TableFinding("group_overlap", "warn", problem.group, both, 0.0, text)


def _measure_row_overlap(scan: pl.LazyFrame, names: list[str], sides: NDArray[np.uint8]) -> float:
    """Share of the test rows whose named cells all are in a training row too; 0 where rows hold little information.

    Up to MAX_OVERLAP_ROWS rows all are compared. Of more, those whose values in a few columns fall into one bucket, as those of
    alike rows do. Rows that are alike in all columns are so in these few: only where that holds for too many, the other
    columns are read, which costs as much as all the rest of the split.
    """
    every = -(-len(sides) // MAX_OVERLAP_ROWS)
    scan = scan.with_row_index(_PLACE_COLUMN)
    if every > 1:
        by_content = _content(_choose_distinct_columns(scan, names, every * HASHES_PER_BUCKET))
        if (
            _measure_hash_overlap(*_hash_rows_with_codes(scan, by_content, by_content % every == 0, sides))
            <= MAX_OVERLAP_SHARE
        ):
            return 0.0
        hashes, kept = _hash_rows_with_codes(scan, _content(names), by_content % every == 0, sides)
    else:
        hashes, kept = _hash_rows_with_codes(scan, _content(names), None, sides)
    # Uninformative rows agree by chance.
    return _measure_hash_overlap(hashes, kept) if len(np.unique(hashes)) > len(hashes) / 2 else 0.0


def _hash_rows_with_codes(
    scan: pl.LazyFrame, content: pl.Expr, within: pl.Expr | None, sides: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hashes of the content of the rows `within` (None: all), and their splits."""
    rows = scan if within is None else scan.filter(within)
    kept = rows.select(_PLACE_COLUMN, content).collect(engine="streaming")
    return kept["content"].to_numpy(), sides[kept[_PLACE_COLUMN].to_numpy()]


def _choose_distinct_columns(scan: pl.LazyFrame, names: list[str], wanted: int) -> list[str]:
    """Columns with the most values among the first rows, as many as can make `wanted` different hashes."""
    first = scan.select(names).head(FIRST_ROWS).collect(engine="streaming")
    values = {name: first[name].n_unique() for name in names}
    order = sorted(names, key=lambda name: (-values[name], name))
    made, taken = 1, 0
    while taken < len(order) and (made < wanted or taken < MIN_BUCKET_COLUMNS):
        made, taken = made * values[order[taken]], taken + 1
    return order[:taken]


def _content(names: list[str]) -> pl.Expr:
    """A hash of the named cells of each row. One flat sum: a chain of thousands of additions takes polars half a minute to plan."""
    return pl.sum_horizontal(pl.col(name).hash(seed=j) // 4096 for j, name in enumerate(names)).alias("content")


def measure_key_overlap(keys: NDArray[Any], sides: NDArray[np.uint8]) -> float:
    """Share of the rows in the test split whose key is in the train or validation split too. Both (n,)."""
    if len(keys) > MAX_OVERLAP_ROWS:  # equal keys fall into one part
        kept = pl.Series(keys).hash(seed=1).to_numpy() % -(-len(keys) // MAX_OVERLAP_ROWS) == 0
        keys, sides = keys[kept], sides[kept]
    return _measure_hash_overlap(keys, sides)


def _measure_hash_overlap(keys: NDArray[Any], sides: NDArray[np.uint8]) -> float:
    judging = pl.Series(keys[sides == TEST_CODE])
    training_keys = pl.Series(keys[(sides == TRAIN_CODE) | (sides == VALIDATION_CODE)]).unique()
    return float(judging.is_in(training_keys.implode()).mean() or 0.0) if len(judging) else 0.0  # type: ignore[arg-type]
