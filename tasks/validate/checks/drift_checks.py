"""What changed since the last accepted table: units, empty columns, renamed values, gaps, shifted distributions.

A shift alone only warns.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator

from windvane.tasks.validate import table_statistics
from windvane.tasks.validate.findings import CheckInput, FindingLevel, TableFinding, format_example
from windvane.tasks.validate.table_profile import ColumnSummary, measure_quantile_distance, measure_share_distance

DRIFT_CHECKS = {
    "scale": "no column in another unit",
    "silent": "no column became constant or empty",
    "renamed": "no values under another name",
    "gaps": "no more missing values than before",
    "drift": "the newest rows resemble the last accepted table",
}
# The chance of one false alarm of drift in a table whose rows are drawn alike, shared among all columns.
FALSE_ALARM_RATE = 0.01
# A shift is reported from here on, only if it goes so far beyond what the column did by itself before.
MIN_SHIFT_DISTANCE = 0.15
OWN_DRIFT_FACTOR = 1.5
# Factors between units that people confuse.
_UNIT_FACTORS = {
    1000.0: "thousands",
    100.0: "hundredths, or per cent",
    10.0: "tenths",
    1e6: "millions",
    60.0: "minutes and hours, or seconds and minutes",
    3600.0: "seconds and hours",
    24.0: "hours and days",
    2.54: "inches and centimetres",
    3.28084: "feet and metres",
    10.7639: "square feet and square metres",
    1.609344: "miles and kilometres",
    2.204623: "pounds and kilograms",
    3.785412: "gallons and litres",
}
_NEAR = 0.04
# A factor that is no unit's must be this large; from _CERTAIN on it is no honest change.
_FACTOR, _CERTAIN = 8.0, 50.0
# The quantiles that are compared, in per cent, and how far their factors may differ.
_COMPARED_QUANTILES = (10, 25, 50, 75, 90)
_EVEN = 0.1
_ODD = 0.1  # quantiles near zero may change their sign
# A value that vanished, and one that came, each in so many rows.
_RENAMED = 0.01
_ALIKE = 0.5
# More gaps: so many percentage points more, and a multiple of chance.
_GAPS = 0.03


def find_table_drift(e: CheckInput) -> Iterator[TableFinding]:
    """Column by column; nothing where no table was accepted yet."""
    if e.past is None:
        return
    rows = (e.past.rows, e.new.rows)
    for name in e.watched:
        then, now = e.past.columns.get(name), e.new.columns.get(name)
        if then is None or now is None or then.type != now.type or name == e.problem.time:
            continue
        if not then.silent and (now.silent or now.missing > max(0.99, then.missing + 0.2)):
            yield from _silent(name, then, now, e.past.rows)
            continue
        found = [*_scale(name, then, now), *_renamed(name, then, now), *_gaps(name, then, now, rows)]
        yield from found or _drift(name, then, now, rows, len(e.watched))


def _silent(name: str, then: ColumnSummary, now: ColumnSummary, rows: int) -> Iterator[TableFinding]:
    what = "is empty" if now.missing > 0.99 else "has one value"
    text = (
        f"{name!r} {what} in the new rows; the last accepted table had "
        f"{table_statistics.describe_distinct(then.distinct, rows)} different values. "
        "Has its source stopped? Fix it, or add it to problem.ignore"
    )
    yield TableFinding("silent", "warn", name, now.distinct, then.distinct, text)


def _scale(name: str, then: ColumnSummary, now: ColumnSummary) -> Iterator[TableFinding]:
    """Every quantile multiplied by one factor."""
    factor = _factor(then.quantiles, now.quantiles)
    if factor is None:
        if _celsius(then.quantiles, now.quantiles):
            yield _unit(name, 1.8, "warn", "degrees Celsius and Fahrenheit")
        return
    large = max(factor, 1 / factor)
    unit = next((what for unit, what in _UNIT_FACTORS.items() if abs(large / unit - 1) < _NEAR), None)
    # What moves a lot by itself may happen to move by a factor.
    if large >= _FACTOR or (unit and then.wander < 2 * MIN_SHIFT_DISTANCE):
        yield _unit(name, factor, "stop" if large >= _CERTAIN else "warn", unit)


def _unit(name: str, factor: float, level: FindingLevel, unit: str | None) -> TableFinding:
    prefix = "data.source: column " if level == "stop" else ""
    why = f" ({unit}?)" if unit else ""
    text = (
        f"{prefix}{name!r} is {factor:.4g} times what it was in the last accepted table, over its whole range: another "
        f"unit{why}? Bring it back to the old unit in the source"
    )
    return TableFinding("scale", level, name, factor, 1.0, text)


def _factor(then: tuple[float, ...], now: tuple[float, ...]) -> float | None:
    """The one factor between two columns' quantiles; None if there is none, or they do not vary."""
    # The outermost are single values; where both are zero, every factor fits.
    pairs = [(a, b) for a, b in zip(then[2:-2], now[2:-2], strict=False) if a or b]
    same = [(a, b) for a, b in pairs if a * b > 0]
    if len({a for a, _ in same}) < 3 or len(same) < (1 - _ODD) * len(pairs):
        return None
    logs = sorted(math.log(b / a) for a, b in same)
    middle, tenth = logs[len(logs) // 2], len(logs) // 10
    # A large factor need not be even: the world moves beside it.
    even = _EVEN if abs(middle) < math.log(_FACTOR) else abs(middle) / 3
    return math.exp(middle) if logs[-1 - tenth] - logs[tenth] <= even else None


def _celsius(then: tuple[float, ...], now: tuple[float, ...]) -> bool:
    if not then or not now:
        return False
    spread = then[_COMPARED_QUANTILES[-1]] - then[_COMPARED_QUANTILES[0]]

    def fits(slope: float, start: float) -> bool:
        off = max(abs(now[at] - (start + slope * then[at])) for at in _COMPARED_QUANTILES)
        return spread > 0 and off <= _EVEN * slope * spread and len({then[at] for at in _COMPARED_QUANTILES}) >= 4

    return fits(1.8, 32.0) or fits(1 / 1.8, -32 / 1.8)


def _renamed(name: str, then: ColumnSummary, now: ColumnSummary) -> Iterator[TableFinding]:
    if then.type == "number":
        return
    gone = {v: share for v, share in then.values.items() if share >= _RENAMED and v not in now.values}
    come = {v: share for v, share in now.values.items() if share >= _RENAMED and v not in then.values}
    for old, share in sorted(gone.items(), key=lambda item: -item[1]):
        likely = [v for v in come if abs(come[v] - share) <= _ALIKE * max(share, come[v])]
        if not likely:
            continue
        near = difflib.get_close_matches(old.lower(), [v.lower() for v in likely], n=1, cutoff=0.6)
        new = next((v for v in likely if near and v.lower() == near[0]), likely[0])
        text = (
            f"{name!r} no longer has {format_example(old)} ({share:.1%} of the rows of the last accepted table), but {format_example(new)} "
            f"({come[new]:.1%}): renamed? Give it one name in the source"
        )
        yield TableFinding("renamed", "warn", name, come[new], share, text)
        del come[new]


def _gaps(name: str, then: ColumnSummary, now: ColumnSummary, rows: tuple[int, int]) -> Iterator[TableFinding]:
    chance = math.sqrt(max(then.missing * (1 - then.missing), 1e-4) * (1 / rows[0] + 1 / rows[1]))
    limit = then.missing + _GAPS + 4 * chance + 0.5 * then.missing
    if now.missing > limit:
        text = (
            f"{name!r} is empty in {now.missing:.1%} of the new rows, after {then.missing:.1%} in the last accepted table. "
            "Fill it in, if these values exist"
        )
        yield TableFinding("gaps", "warn", name, now.missing, limit, text)


def _drift(
    name: str, then: ColumnSummary, now: ColumnSummary, rows: tuple[int, int], columns: int
) -> Iterator[TableFinding]:
    if then.type == "text":
        return
    words = then.type in ("category", "boolean")
    distance = (
        measure_share_distance(then.values, now.values)
        if words
        else measure_quantile_distance(then.quantiles, now.quantiles)
    )
    spread = math.sqrt(sum(1 / max(min(n, table_statistics.CHECK_SAMPLE_ROWS), 1) for n in rows))
    # Smirnov's bound on chance, shared among the columns (Bonferroni); a mixture of k values is apart by itself too.
    chance = spread * math.sqrt(-0.5 * math.log(FALSE_ALARM_RATE / max(columns, 1) / 2))
    if words:
        chance += 0.4 * spread * math.sqrt(len(then.values))
    limit = max(MIN_SHIFT_DISTANCE, OWN_DRIFT_FACTOR * then.wander) + chance
    if distance > limit:
        text = (
            f"{name!r} is spread otherwise than in the last accepted table: {_describe_shift(then, now)}. If the world has changed, "
            "this is as it should be; if rows are missing, complete them"
        )
        yield TableFinding("drift", "warn", name, distance, limit, text)


def _describe_shift(then: ColumnSummary, now: ColumnSummary) -> str:
    if then.quantiles and now.quantiles:
        return f"its median went from {then.quantiles[50]:,.6g} to {now.quantiles[50]:,.6g}"
    moved = max({*then.values, *now.values}, key=lambda v: abs(then.values.get(v, 0.0) - now.values.get(v, 0.0)))
    return f"{format_example(moved)} went from {then.values.get(moved, 0.0):.1%} to {now.values.get(moved, 0.0):.1%} of the rows"
