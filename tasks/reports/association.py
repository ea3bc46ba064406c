"""How strongly columns go together, from 0 to 1, for numbers, dates, words and missing values alike (Cramer's V)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windvane.tasks.validate.table_profile import convert_to_numbers

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

# Rows looked at, and classes into which a column's values are sorted; a missing value is one more.
MAX_ASSOCIATION_ROWS = 5_000
ASSOCIATION_CLASSES = 8


@dataclass(frozen=True)
class ColumnAssociations:
    """`strength`: (k, k), symmetric, 0 to 1, of the k columns `names`."""

    names: tuple[str, ...]
    strength: NDArray[np.float64]


def measure_associations(
    sample: pl.DataFrame, names: tuple[str, ...], most: int
) -> tuple[dict[str, float], ColumnAssociations]:
    """Cramér's V, numbers cut at their quantiles, corrected for chance (Bergsma, J. Korean Stat. Soc. 2013).

    Of each of the columns `names` with the first of them, strongest first; and of all pairs among the first and the
    `most` - 1 that go with it best: all pairs of thousands of columns would take hours. Bent relations count as much as
    straight ones.
    """
    import numpy as np

    some = sample.gather_every(max(-(-len(sample) // MAX_ASSOCIATION_ROWS), 1))
    codes = {name: _codes(some[name]) for name in names}
    first = {name: _cramer(_table(codes[names[0]], codes[name]), len(some)) for name in names[1:]}
    first = dict(sorted(first.items(), key=lambda item: (-item[1], item[0])))
    kept = (names[0], *list(first)[: most - 1])
    strength = np.eye(len(kept))
    for i, name in enumerate(kept):
        for j, other in enumerate(kept[:i]):
            strength[i, j] = strength[j, i] = _cramer(_table(codes[name], codes[other]), len(some))
    return first, ColumnAssociations(kept, strength)


def _table(one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.float64]:
    """Counts of pairs of classes."""
    import numpy as np

    width = int(other.max(initial=0)) + 1
    height = int(one.max(initial=0)) + 1
    counts = np.bincount(one * width + other, minlength=height * width).reshape(height, width)
    return counts.astype(np.float64)


def _codes(values: pl.Series) -> NDArray[np.intp]:
    """Class of each value: 0 is missing."""
    import numpy as np
    import polars as pl

    if not (values.dtype.is_numeric() or values.dtype.is_temporal()):
        words = values.cast(pl.String)
        top = (
            words.drop_nulls()
            .value_counts()
            .sort(["count", words.name], descending=[True, False])
            .head(ASSOCIATION_CLASSES)
        )
        known = {value: i + 1 for i, value in enumerate(top[words.name])}
        return np.array([0 if w is None else known.get(w, ASSOCIATION_CLASSES + 1) for w in words], dtype=np.intp)
    floats = convert_to_numbers(values).to_numpy()
    present = floats[~np.isnan(floats)]
    if not present.size:
        return np.zeros(len(floats), dtype=np.intp)
    cuts = np.unique(np.quantile(present, np.linspace(0, 1, ASSOCIATION_CLASSES + 1)[1:-1]))
    return np.where(np.isnan(floats), 0, np.searchsorted(cuts, floats, side="left") + 1)


def _cramer(block: NDArray[np.float64], n: int) -> float:
    import numpy as np

    rows, columns = block.sum(axis=1), block.sum(axis=0)
    block = block[rows > 0][:, columns > 0]
    r, c = block.shape
    if min(r, c) < 2:
        return 0.0
    expected = np.outer(block.sum(axis=1), block.sum(axis=0)) / n
    phi = max(float(((block - expected) ** 2 / expected).sum()) / n - (r - 1) * (c - 1) / (n - 1), 0.0)
    least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return min(float(np.sqrt(phi / least)), 1.0) if least > 0 else 0.0
