"""A table in a few kilobytes: what the next table is compared with, and what the report draws. Owns digest.json.

Shares and quantiles come from a sample of evenly spaced rows; missing, different and extreme values from all rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks import tables
from windvane.tasks.places import DATA
from windvane.tasks.profile import Profile, Type

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

DIGEST = DATA / "digest.json"
# The digest of the last accepted table, handed to validate as a file: what it read from a ledger would not be pure.
ACCEPTED = DATA / "accepted.json"

# A hundred steps: two distributions of one table's size differ by more than their rounding.
STEPS = 100
# Values kept of a category, most frequent first; the rest is one share.
KEPT = 60
# Stretches in row order that tell how far a column wanders by itself.
STRETCHES = 5
_FIGURES = 6


@dataclass(frozen=True)
class Summary:
    """One column. `missing`: share. `quantiles`: 0, 1, ..., 100 % of numbers and dates (seconds since 1970), else empty.

    `values`: share of each frequent value among the rows that have one, of words, booleans and few-valued whole numbers.
    `wander`: the largest distance (0 to 1) of one stretch of rows from all rows before it.
    """

    type: Type
    missing: float
    distinct: int
    quantiles: tuple[float, ...]
    values: dict[str, float]
    wander: float

    @property
    def silent(self) -> bool:
        """Says nothing: one value, or none."""
        return self.distinct <= 1


@dataclass(frozen=True)
class Digest:
    """A table: `rows` with a label, the newest problem.time (seconds, or a number), its columns."""

    rows: int
    until: float | None
    columns: dict[str, Summary]
    notes: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The content of digest.json."""
        return asdict(self)


def of(
    profile: Profile, sample: pl.DataFrame, time: str | None, names: tuple[str, ...], notes: dict[str, float]
) -> Digest:
    """Digest of the named columns. `sample`: rows in the table's order; `notes`: shares that later tables are held to."""
    known = {c.name: c for c in profile.columns}
    columns = {}
    for name in names:
        c = known[name]
        summary = _summary(sample[name], c.type)
        columns[name] = Summary(
            c.type, c.missing / max(profile.rows, 1), c.distinct, summary.quantiles, summary.values, summary.wander
        )
    until = None
    if time is not None and known[time].maximum is not None:
        until = float(seconds(sample[time].max()))
    return Digest(profile.rows, until, columns, notes)


def newer(past: Digest, now: Digest, sample: pl.DataFrame, time: str | None, least: int) -> Digest:
    """`now`, or the part of it that is newer than `past` if it holds at least `least` rows of the sample.

    A table that grows hides what is wrong with its newest rows behind all the old ones.
    """
    if time is None or past.until is None:
        return now
    fresh = sample.filter(numbers(sample[time]) > past.until)
    if not least <= len(fresh) < len(sample):
        return now
    columns = {name: _summary(fresh[name], summary.type) for name, summary in now.columns.items()}
    return Digest(round(now.rows * len(fresh) / len(sample)), now.until, columns, now.notes)


def _summary(values: pl.Series, kind: Type) -> Summary:
    present = values.drop_nulls()
    few = kind in ("category", "boolean", "text") or (kind == "number" and present.n_unique() <= KEPT)
    shares = _shares(present) if few else {}
    points: tuple[float, ...] = ()
    if kind in ("number", "date") and len(present):
        points = tuple(_rounded(float(v)) for v in _quantiles(numbers(present)))
    missing = 1 - len(present) / max(len(values), 1)
    return Summary(kind, missing, present.n_unique(), points, shares, _rounded(_wander(present, kind)))


def numbers(values: pl.Series) -> pl.Series:
    """Numbers as they are, dates as seconds since 1970; float64, infinite ones as missing."""
    import polars as pl

    if values.dtype.is_temporal():
        return values.dt.epoch("us").cast(pl.Float64) / 1e6
    floats = values.cast(pl.Float64)
    return floats.set(floats.is_infinite(), None)


def seconds(value: Any) -> float:
    """A time as a number: a date as seconds since 1970."""
    import polars as pl

    return float(numbers(pl.Series([value])).item())


def _quantiles(values: pl.Series) -> NDArray[np.float64]:
    import numpy as np

    finite = np.sort(values.drop_nulls().to_numpy())
    # Values that were seen, none between two: a column of whole numbers stays one. Ten times as fast as numpy's quantile.
    places = np.rint(np.linspace(0, 1, STEPS + 1) * (len(finite) - 1)).astype(np.int64)
    return finite[places] if len(finite) else np.empty(0)


def _shares(values: pl.Series) -> dict[str, float]:
    import polars as pl

    counted = values.cast(pl.String).rename("value").value_counts(sort=False)
    top = counted.sort(["count", "value"], descending=[True, False]).head(KEPT)
    return {value: _rounded(count / len(values)) for value, count in top.iter_rows()}


def _wander(values: pl.Series, kind: Type) -> float:
    """The largest distance of one of the later stretches from all rows before it."""
    size = len(values) // STRETCHES
    if size < 50 or kind == "text":
        return 0.0
    distances = []
    for i in range(1, STRETCHES):
        before, stretch = values.slice(0, i * size), values.slice(i * size, size)
        if kind in ("category", "boolean"):
            distances.append(apart(_shares(before), _shares(stretch)))
        else:
            distances.append(gap(tuple(_quantiles(numbers(before))), tuple(_quantiles(numbers(stretch)))))
    return max(distances)


def gap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Kolmogorov and Smirnov's distance of two columns, from their quantiles; 0 where one is empty."""
    import numpy as np

    if not a or not b:
        return 0.0
    points = np.union1d(a, b)
    share_a, share_b = (np.searchsorted(q, points, side="right") / len(q) for q in (np.asarray(a), np.asarray(b)))
    return float(np.abs(share_a - share_b).max())


def apart(a: dict[str, float], b: dict[str, float]) -> float:
    """Half the summed differences of shares: the least part of rows that would have to change value."""
    rest_a, rest_b = 1 - sum(a.values()), 1 - sum(b.values())
    return 0.5 * (sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in {*a, *b}) + abs(rest_a - rest_b))


def _rounded(value: float) -> float:
    """As many figures as survive another order of summation."""
    return float(f"{value:.{_FIGURES}g}") if abs(value) < 1e6 else float(f"{value:.12g}")


def write(digest: Digest | None, path: Path) -> None:
    """Write a digest, or that there is none."""
    tables.write_json(None if digest is None else digest.to_json(), path)


def read(path: Path) -> Digest | None:
    """What write() wrote; None also where the file is absent."""
    return tables.read_record(path, from_json) if path.exists() else None


def from_json(content: dict[str, Any] | None) -> Digest | None:
    """From what to_json() gave."""
    if content is None:
        return None
    columns = {name: Summary(**{**c, "quantiles": tuple(c["quantiles"])}) for name, c in content["columns"].items()}
    return Digest(content["rows"], content["until"], columns, content["notes"])
