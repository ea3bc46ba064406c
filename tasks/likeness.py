"""How many rows of a table stand twice, to the letter or nearly. Measures; tasks/checks/rows.py says what is too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks import tables

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

# Up to so many rows all are compared. Of more, those whose value in one column falls into one bucket: rows that are
# alike stand in the same one.
COMPARED = 100_000
# How many values a column has shows in so many stretches of so many rows.
_STRETCHES, _STRETCH = 4, 2_500
# Two measured values agree by chance in fewer digits.
_DIGITS = 4
# Rows that say little agree by chance. What is compared must say so much that less than this share of rows would find
# a twin if the columns had nothing to do with each other.
_CHANCE = 1e-4


@dataclass(frozen=True)
class Twins:
    """`exact`: rows that repeat one before. `near`: share of rows that repeat another nearly, not wholly; `how`: in
    which way most of them do.
    """

    exact: int
    near: float
    how: str


def bucket(scan: pl.LazyFrame, names: list[str], rows: int) -> pl.Expr | None:
    """Which of the scan's `rows` rows stand in the part that speaks for all; None: all do. By the one of the named columns
    that has the most values in a few stretches of rows: what is alike stands in the same part.
    """
    import polars as pl

    if rows <= COMPARED or not names:
        return None
    stretches = [scan.slice(rows * i // _STRETCHES, _STRETCH) for i in range(_STRETCHES)]
    some = pl.concat([part.collect(engine="streaming") for part in stretches])
    by = max(names, key=lambda name: (some[name].n_unique(), name))
    return pl.col(by).hash(seed=0) % -(-rows // COMPARED) == 0


def twins(some: pl.DataFrame, rows: int, id: str | None) -> Twins:
    """Compares whole rows, all but the id. `some`: of a table of `rows` rows all, or a bucket()."""
    names = tuple(sorted(name for name in some.columns if name not in (id, tables.ROW)))
    # The key of a row without an id is its content.
    keyed = id is None and tables.ROW in some.columns
    exact = len(some) - (some[tables.ROW] if keyed else some.select(names)).n_unique()
    share, how = near(some.select(names))
    return Twins(round(exact * rows / max(len(some), 1)), share, how)


def near(frame: pl.DataFrame) -> tuple[float, str]:
    """Share of rows that repeat another one of `frame` but for rounding, blanks and case, or but for one column."""
    import numpy as np

    if len(frame) < 2 or not frame.width:
        return 0.0, ""
    exact, coarse = _hashes(frame), _hashes(frame.select(_coarse(frame)))
    first = np.unique(exact.sum(axis=1), return_index=True)[1]  # of rows alike to the letter, one
    coarse = coarse[first]
    agree = [_agreement(coarse[:, j]) for j in range(frame.width)]
    whole, by_chance = coarse.sum(axis=1), len(coarse) * np.prod(agree)
    found = _again(whole) if by_chance < _CHANCE else np.zeros(len(coarse), dtype=bool)
    most, how = int(found.sum()), "but for rounding, blanks or case"
    for j, name in enumerate(frame.columns):
        if by_chance / agree[j] >= _CHANCE:
            continue
        but = _again(whole - coarse[:, j])
        if (differing := int((but & ~found).sum())) > most:
            most, how = differing, f"in all columns but {name!r}"
        found |= but
    return float(found.sum()) / 2 / len(frame), how


def _agreement(values: NDArray[np.uint64]) -> float:
    """The chance that two rows agree in a column."""
    import numpy as np

    counts = np.unique(values, return_counts=True)[1] / len(values)
    return float((counts**2).sum())


def _again(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Rows whose key another row has too."""
    import numpy as np

    order = np.sort(keys)
    return np.isin(keys, order[1:][order[1:] == order[:-1]])


def _hashes(frame: pl.DataFrame) -> NDArray[np.uint64]:
    """(n, columns) hashes of cells: their sum over columns is a hash of the row that a column can be taken out of."""
    import numpy as np

    return np.column_stack([frame[name].hash(seed=j).to_numpy() for j, name in enumerate(frame.columns)])


def _coarse(frame: pl.DataFrame) -> list[Any]:
    import polars as pl

    def coarse(name: str, kind: Any) -> Any:
        if kind == pl.String:
            return pl.col(name).str.strip_chars().str.replace_all(r"\s+", " ").str.to_lowercase()
        return pl.col(name).round_sig_figs(_DIGITS) if kind.is_float() else pl.col(name)

    return [coarse(name, kind) for name, kind in frame.schema.items()]
