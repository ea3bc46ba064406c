"""Can the target be learned at all: rows, labels, classes, and the columns that have a role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from windvane.tasks.checks import Evidence, shown
from windvane.tasks.checks.columns import LARGEST, too_large
from windvane.tasks.findings import Finding

if TYPE_CHECKING:
    import polars as pl

CHECKS = {
    "rows": "enough rows with a label",
    "target": "a target that can be learned",
    "classes": "enough rows of every class",
    "balance": "classes of comparable size",
    "label": "every row has a label",
    "roles": "id and group are complete, ids are unique",
    "features": "features to train on",
}
# Fewer rows leave a test side whose mean loss says nothing: 15 % of 50 are 7 rows.
LEAST_ROWS = 50
# Three rows of a class judge, three tune (tasks/split.py): four are left to learn from.
LEAST_PER_CLASS = 10
# More classes than this are names or amounts, and one probability for each is out of reach.
MOST_CLASSES = 100
# A rarer class is outvoted: a model that never says it still looks right.
RARE = 0.05


def find(e: Evidence) -> Iterator[Finding]:
    """All that makes learning impossible, or lopsided."""
    if e.profile.rows < LEAST_ROWS:
        yield _stop(
            "rows",
            None,
            e.profile.rows,
            LEAST_ROWS,
            f"data.source: {e.profile.rows} rows with a label are too few: at least {LEAST_ROWS} are needed to learn, "
            "tune and judge. Add rows",
        )
    yield from _target(e)
    yield from _roles(e)
    columns = {c.name: c for c in e.profile.columns}
    if not [name for name in e.features if columns[name].type != "text" and not columns[name].constant]:
        yield _stop(
            "features",
            None,
            0,
            1,
            "data.source: no column is left to learn from: all others are ignored, empty, constant or free text. Add "
            "columns, or shorten problem.ignore",
        )
    if e.rows > e.profile.rows:
        gone = e.rows - e.profile.rows
        yield Finding(
            "label",
            "warn",
            e.problem.target,
            gone / e.rows,
            0.0,
            f"{gone} of {e.rows} rows have no label ({e.problem.target!r} is empty): they are not used. Add "
            "the labels if you have them",
        )


def _target(e: Evidence) -> Iterator[Finding]:
    column = next(c for c in e.profile.columns if c.name == e.problem.target)
    target = f"problem.target: column {column.name!r}"
    if column.distinct == 1:
        only = shown(e.sample[column.name][0])
        text = f"{target} is constant ({only} in every row): there is nothing to learn. Name another column"
        yield _stop("target", column.name, 1, 2, text)
    elif column.type == "date":
        text = f"{target} holds dates. Name a number or a class; a span of days is a number"
        yield _stop("target", column.name, "date", "number", text)
    elif e.problem.kind == "regression":
        yield from _amounts(target, e)
    else:
        yield from _classes(target, e)


def _amounts(target: str, e: Evidence) -> Iterator[Finding]:
    counts, name = e.counts[e.problem.target], e.problem.target
    if counts.shape != "number":
        what = "words" if counts.shape != "boolean" else "true and false"
        text = f"{target} holds {what}, not numbers. Set problem.kind: classification, or name a number"
        yield _stop("target", name, what, "number", text)
    elif counts.infinite:
        text = f"{target} holds {counts.infinite} infinite values. Fix or empty these cells"
        yield _stop("infinite", name, counts.infinite, 0, text)
    elif too_large(counts):
        text = (
            f"{target} holds values from {counts.low:g} to {counts.high:g}, too large to compute with. Fix or empty these "
            "cells"
        )
        yield _stop("infinite", name, max(-counts.low, counts.high), LARGEST, text)
    elif counts.distinct == 2:
        text = f"{name!r} has two values: problem.kind: classification would suit it better"
        yield Finding("target", "warn", name, 2, 3, text)


def _classes(target: str, e: Evidence) -> Iterator[Finding]:
    import polars as pl

    name, rows, distinct = e.problem.target, e.profile.rows, e.counts[e.problem.target].distinct
    if distinct > min(MOST_CLASSES, rows / 2):
        remedy = (
            "It looks like an amount: set problem.kind: regression"
            if e.counts[name].shape == "number"
            else "Name another column, or join rare classes"
        )
        yield _stop(
            "classes",
            name,
            distinct,
            MOST_CLASSES,
            f"{target} has {distinct} different values in {rows} rows; at most {MOST_CLASSES} classes, "
            f"each in several rows, can be distinguished. {remedy}",
        )
        return
    counts = e.labelled.group_by(name).agg(pl.len().alias("rows")).sort("rows", name).collect(engine="streaming")
    few = counts.filter(pl.col("rows") < LEAST_PER_CLASS)
    if len(few):
        listed = ", ".join(f"{shown(value)} ({count})" for value, count in few.head(5).iter_rows())
        yield _stop(
            "classes",
            name,
            int(few["rows"].min()),  # type: ignore[arg-type]
            LEAST_PER_CLASS,
            f"{target}: classes with fewer than {LEAST_PER_CLASS} rows: {listed}. Add rows, join them with another "
            "class, or leave them out",
        )
    elif (share := counts["rows"][0] / rows) < RARE:
        yield Finding(
            "balance",
            "warn",
            name,
            share,
            RARE,
            f"class {shown(counts[name][0])} of {name!r} has {share:.1%} of the rows: a model that never says it is "
            "right nearly always. Judge by f1 or roc_auc, not by accuracy",
        )


def _roles(e: Evidence) -> Iterator[Finding]:
    import polars as pl

    for role, name in (("id", e.problem.id), ("group", e.problem.group)):
        missing = 0 if name is None else e.whole.select(pl.col(name).null_count()).collect(engine="streaming").item()
        if missing:
            text = (
                f"problem.{role}: column {name!r} is empty in {missing} rows. Fill it in, or set problem.{role} to null"
            )
            yield _stop("roles", name, missing, 0, text)
    if e.problem.id is None:
        return
    again, first = _repeats(e.whole, e.problem.id)
    if again:
        yield _stop(
            "roles",
            e.problem.id,
            again,
            0,
            f"problem.id: column {e.problem.id!r} repeats: {again} rows have an id that came before, such as {first}. "
            "Name a column that is different in every row, or set problem.id to null and add it to problem.ignore",
        )


def _repeats(scan: pl.LazyFrame, name: str) -> tuple[int, str]:
    """How many rows bear a value that came before, exactly, and one such value."""
    import polars as pl

    values = scan.select(pl.col(name).drop_nulls())
    rows, distinct = (
        values.select(pl.len().alias("n"), pl.col(name).n_unique().alias("u")).collect(engine="streaming").row(0)
    )
    if rows == distinct:
        return 0, ""
    counted = values.group_by(name).agg(pl.len().alias("rows of a value")).filter(pl.col("rows of a value") > 1)
    return rows - distinct, shown(counted.select(pl.col(name).min()).collect(engine="streaming").item())


def _stop(check: str, column: str | None, figure: float | str, limit: float | str, message: str) -> Finding:
    return Finding(check, "stop", column, figure, limit, message)
