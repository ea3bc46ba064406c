"""A contract proposed for a table, as a commented schema.yaml. Guesses wide: later honest rows must pass.

What is narrow and may be natural (a shift, a new value) is left to the comparison with the last accepted table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from windvane.tasks import measure, profile, tables
from windvane.tasks.profile import Column, Profile
from windvane.tasks.settings import Problem
from windvane.tasks.template import scalar

if TYPE_CHECKING:
    import polars as pl

# Columns of more values are not listed: a list that nobody reads protects nothing.
MOST_VALUES = 40
# A range reaches beyond what was seen by so many spans: another season passes, a code such as -9999 does not.
REACH = 3
# An amount that begins at zero may grow so many times: years of growth pass, a slip of three digits does not.
GROWTH = 10
# Below this a number has no two figures left: steps of a tenth of it are zero.
_TINY = 1e-300
# Of a complete column, this share of cells may be missing one day before the lap stops.
MISSING = 0.3

_HEAD = """\
# What the table must look like. Every lap checks it before anything is learned; what breaks it stops the lap.
# Proposed from {rows:,} rows, with room for honest change: edit it as you know your data. Limits are shares of rows.
rows:
  at_least: {least:<14} # fewer rows with a label stop the lap
  share_of_last: 0.5       # so does losing half of the rows of the last accepted table
time_order: true           # the newest row is never older than that of the last accepted table
limits:
  outside: 0.01            # cells outside a range: up to this share a warning, beyond it a stop
  new_values: 0.2          # cells with a value that stands in no list: the same
accept: []                 # findings that are right as they are, as check:column, such as [leak:fee, duplicates]

columns:
"""


def propose(frame: pl.LazyFrame, problem: Problem) -> str:
    """The text of schema.yaml for the rows of `frame` (canonical types) that have a label; ignored columns are left out."""
    import polars as pl

    scan = measure.lazy(frame).filter(pl.col(problem.target).is_not_null())
    scan = scan.select(pl.exclude([tables.ROW, *problem.ignore]))
    found = profile.of(scan)
    order = [name for name in scan.collect_schema() if name in {c.name for c in found.columns}]
    columns = {c.name: c for c in found.columns}
    listed = {name: _values(scan, name) for name in order if _is_listed(columns[name])}
    parts = [_column(columns[name], found, problem, listed.get(name)) for name in order]
    return _HEAD.format(rows=found.rows, least=50) + "\n".join(parts)


def _is_listed(c: Column) -> bool:
    return c.type == "category" and 0 < c.distinct <= MOST_VALUES


def _values(scan: pl.LazyFrame, name: str) -> list[str]:
    import polars as pl

    return scan.select(pl.col(name).drop_nulls().unique().sort()).collect(engine="streaming").to_series().to_list()


def _column(c: Column, found: Profile, problem: Problem, values: list[str] | None) -> str:
    missing = c.missing / found.rows if found.rows else 0.0
    lines = [f"  {scalar(c.name)}:", f"    type: {c.type}"]
    if c.name in (problem.id, problem.time, problem.group, problem.target):
        role = next(r for r in ("target", "time", "id", "group") if getattr(problem, r) == c.name)
        lines[0] += f"  # problem.{role}"
    if c.name == problem.id:
        lines.append("    unique: true")
    room = 0.0 if c.name in (problem.id, problem.time) else round(min(1.0, max(MISSING, 2 * missing + 0.2)), 2)
    if c.name != problem.target:  # rows without a label are counted elsewhere
        lines.append(f"{f'    missing: {room:g}':<26} # at most; now {missing:.1%}")
    reach = _reach(c)
    if reach is not None and c.name != problem.time:
        ends = f"    range: [{_plain(reach[0])}, {_plain(reach[1])}]"
        lines.append(f"{ends:<26} # now {_plain(c.minimum)} to {_plain(c.maximum)}")
    if values is not None:
        lines.append(f"    categories: {scalar(values)}")
    return "\n".join(lines) + "\n"


def _plain(value: float | str | None) -> str:
    """A number as people write it, and as YAML reads a number: without a point, 1e+30 would be a word."""
    text = repr(float(f"{value:.7g}"))
    return text.removesuffix(".0") if "e" not in text else f"{value:.6e}"


def _reach(c: Column) -> tuple[float, float] | None:
    """What was seen and as much room on either side as honest later rows may need, in round figures.

    Amounts that begin at zero stay at or above it, and grow; others move by several spans.
    """
    if c.type != "number" or not isinstance(c.minimum, float) or not isinstance(c.maximum, float):
        return None
    low, high = c.minimum, c.maximum
    if not _TINY < max(abs(low), abs(high)) < 1e300:
        return None
    if 0 <= low <= high / 10:
        return (0.0, _outwards(GROWTH * high))
    more = max(REACH * (high - low), max(abs(low), abs(high)) / 2)
    return (_outwards(low - more), _outwards(high + more)) if 0 < more < 1e300 else None


def _outwards(value: float) -> float:
    """The next number of two figures, away from zero."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 1.0
    return math.copysign(math.ceil(abs(value) / step) * step, value)
