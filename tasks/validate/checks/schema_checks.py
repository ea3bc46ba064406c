"""Does the table keep schema.yaml: columns, types, ranges, values, gaps, uniqueness, order, size."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Iterator

import polars as pl

from windvane.tasks.validate.findings import CheckInput, FindingLevel, TableFinding, format_cell, format_example
from windvane.tasks.validate.table_profile import convert_to_moment
from windvane.tasks.validate.table_schema import SchemaColumn, TableSchema

SCHEMA_CHECKS = {
    "columns": "every column of schema.yaml is there",
    "type": "each has its type",
    "range": "values in their range",
    "categories": "no unlisted categories",
    "missing": "no more gaps than allowed",
    "unique": "unique columns repeat no value",
    "time_order": "the newest row is not older than before",
    "row_count": "the table has not shrunk",
}
# A word that comes back is a category, else it is text: which of both changes as a table grows.
_WORD_TYPES = {"category", "text"}


def find_schema_violations(e: CheckInput) -> Iterator[TableFinding]:
    """All that breaks the contract; nothing where there is none."""
    if e.contract is None:
        return
    yield from _size(e, e.contract)
    types = {c.name: c.type for c in e.profile.columns}
    for name, column in e.contract.columns.items():
        if name in e.problem.ignore:
            continue
        if name not in e.counts:
            yield from _absent(e, name, column)
        elif (
            e.counts[name].distinct
            and (is_now := types[name]) != column.type
            and not {is_now, column.type} <= _WORD_TYPES
        ):
            text = (
                f"column {name!r} is of type {is_now}, agreed is {column.type}{_odd(e, name, column)}. Fix the source, "
                f"or set {_place(name)}.type: {is_now}"
            )
            yield _stop("type", name, is_now, column.type, text)
        else:
            yield from _values(e, e.contract, name, column)


def _size(e: CheckInput, contract: TableSchema) -> Iterator[TableFinding]:
    rows, least = e.profile.rows, contract.rows.at_least
    if rows < least:
        text = f"{rows} rows with a label, agreed are {least}. Add rows, or lower rows.at_least"
        yield _stop("row_count", None, rows, least, text)
    if e.past is None:
        return
    least = round(contract.rows.share_of_last * e.past.rows)
    if rows < least:
        text = (
            f"{rows:,} rows with a label, after {e.past.rows:,} in the last accepted table. Is the source complete? If "
            "it may shrink, lower rows.share_of_last"
        )
        yield _stop("row_count", None, rows, least, text)
    time = e.problem.time
    if contract.time_order and time and e.past.until is not None and e.now.until is not None:
        before, now = e.past.until, e.now.until
        if now < before:
            newest, held = _moment(e, now), _moment(e, before)
            text = (
                f"the newest {time!r} is {newest}, in the last accepted table it was {held}. Bring back the newer rows, "
                "or set time_order: false"
            )
            yield _stop("time_order", time, newest, held, text)


def _moment(e: CheckInput, value: float) -> str:
    """A time as its column has it."""
    if e.counts[str(e.problem.time)].shape != "date":
        return f"{value:g}"
    return convert_to_moment(value).isoformat(sep=" ")


def _place(name: str) -> str:
    """A column's key in schema.yaml."""
    return f"columns.{name if name.isprintable() else repr(name)}"


def _absent(e: CheckInput, name: str, column: SchemaColumn) -> Iterator[TableFinding]:
    if not column.required:
        return
    new = [n for n in e.counts if e.contract is not None and n not in e.contract.columns]
    near = difflib.get_close_matches(name, new, n=1, cutoff=0.6)
    hint = f"Is it {near[0]!r} now? Rename it in the source" if near else "Restore it"
    text = f"column {name!r} is gone. {hint}, or set {_place(name)}.required: false"
    yield _stop("columns", name, "absent", "present", text)


def _odd(e: CheckInput, name: str, column: SchemaColumn) -> str:
    """The first word among what should be numbers, as an example."""
    if column.type != "number" or e.counts[name].shape != "words":
        return ""
    words = e.labelled.select(pl.col(name).drop_nulls())
    odd = words.filter(pl.col(name).str.strip_chars().cast(pl.Float64, strict=False).is_null()).head(1)
    found = odd.collect(engine="streaming")
    return f" (it holds {format_example(found.item())})" if len(found) else ""


def _values(e: CheckInput, contract: TableSchema, name: str, column: SchemaColumn) -> Iterator[TableFinding]:
    counts, rows = e.counts[name], max(e.profile.rows, 1)
    share = counts.missing / rows
    if share > column.missing:
        text = (
            f"column {name!r} is empty in {share:.1%} of the rows, agreed are at most {column.missing:.1%}. Fill it in, "
            f"or raise {_place(name)}.missing"
        )
        yield _stop("missing", name, share, column.missing, text)
    if column.unique:
        # Counted exactly: an estimate cannot prove that nothing repeats.
        different = e.labelled.select(pl.col(name).drop_nulls().n_unique()).collect(engine="streaming").item()
        again = rows - counts.missing - different
        if again:
            text = (
                f"column {name!r} repeats a value in {again} rows, agreed is that none does. Fix the source, or set "
                f"{_place(name)}.unique: false"
            )
            yield _stop("unique", name, again, 0, text)
    present = rows - counts.missing
    if column.range is not None and present:
        limit = contract.limits.outside if column.outside is None else column.outside
        yield from _range(e, name, column, limit, present)
    if column.categories is not None and present:
        limit = contract.limits.new_values if column.new_values is None else column.new_values
        yield from _categories(e, name, column.categories, limit, present)


def _range(e: CheckInput, name: str, column: SchemaColumn, limit: float, present: int) -> Iterator[TableFinding]:
    counts = e.counts[name]
    assert column.range is not None
    low, high = (dt.datetime.fromisoformat(e).replace(tzinfo=None) if isinstance(e, str) else e for e in column.range)
    if counts.low is None or not ((low is not None and counts.low < low) or (high is not None and counts.high > high)):
        return
    values = pl.col(name)
    below = values < low if low is not None else pl.lit(False)
    above = values > high if high is not None else pl.lit(False)
    cells = int(e.labelled.select((below | above).sum()).collect(engine="streaming").item())
    if not cells:  # infinite ones are found elsewhere
        return
    example = counts.low if low is not None and counts.low < low else counts.high
    share = cells / present
    text = (
        f"column {name!r} lies outside {_ends(column)} in {cells} rows ({share:.2%}), such as {format_cell(example)}. Fix the "
        f"source, or widen {_place(name)}.range"
    )
    yield _by_share("range", name, share, limit, text)


def _categories(e: CheckInput, name: str, known: tuple[str, ...], limit: float, present: int) -> Iterator[TableFinding]:
    values = e.counts[name].values
    if values is not None and values <= set(known):
        return
    unknown = e.labelled.select(pl.col(name).drop_nulls()).filter(~pl.col(name).is_in(list(known)))
    counted = unknown.group_by(name).agg(pl.len().alias("number of cells")).collect(engine="streaming")
    if not len(counted):
        return
    counted = counted.sort(["number of cells", name], descending=[True, False])
    share = int(counted["number of cells"].sum()) / present
    listed = ", ".join(format_example(value) for value in counted[name].head(3))
    near = difflib.get_close_matches(counted[name][0], known, n=1, cutoff=0.7)
    text = (
        f"column {name!r} holds {len(counted)} values that are not agreed, in {share:.2%} of the rows: {listed}. "
        + (f"Was {format_example(near[0])} meant? " if near else "")
        + f"Fix the source, or add them to {_place(name)}.categories"
    )
    yield _by_share("categories", name, share, limit, text)


def _ends(column: SchemaColumn) -> str:
    low, high = column.range or (None, None)
    if low is None or high is None:
        return f"at most {format_cell(high)}" if low is None else f"at least {format_cell(low)}"
    return f"{format_cell(low)} to {format_cell(high)}"


def _by_share(check: str, name: str, share: float, limit: float, text: str) -> TableFinding:
    level: FindingLevel = "stop" if share > limit else "warn"
    return TableFinding(check, level, name, share, limit, f"schema.yaml: {text}" if level == "stop" else text)


def _stop(check: str, name: str | None, figure: float | str, limit: float | str, text: str) -> TableFinding:
    return TableFinding(check, "stop", name, figure, limit, f"schema.yaml: {text}")
