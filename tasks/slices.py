"""Where the model errs most: the held-out record cut by category, quantile bin and group. Reads only the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks.resampling import CONFIDENCE, FEWEST, Units, by_row, quantile, spread

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

# A slice below twenty rows, or below a hundredth of all, is an anecdote.
FEWEST_ROWS = 20
SMALLEST_SHARE = 0.01
BINS = 5
MOST_VALUES = 50


@dataclass(frozen=True)
class Slice:
    """One slice: mean loss there and elsewhere, by how much it is worse, with an interval; `clear`: surely worse."""

    column: str
    value: str
    rows: int
    loss: float
    rest: float
    excess: float
    low: float
    high: float
    clear: bool


def worst_slices(
    record: pd.DataFrame, columns: Sequence[str], units: Units, group: str | None = None, loss: str = "_loss"
) -> tuple[Slice, ...]:
    """All slices of `record` by `columns` (and `group`), worst first: the clearly worse, then others, by the excess.

    Numbers and dates are cut into fifths of the rows, missing values are a slice of their own, categories stand as they
    are (the fifty most frequent). A slice needs 20 rows, a hundredth of all, and five independent units, and so does
    the rest. The intervals hold for all slices at once: each at 1 - 5 % / number of slices looked at (Bonferroni; Dunn,
    JASA 56, 1961), so finding one `clear` slice by mere chance has a probability of at most about one in twenty.
    """
    import numpy as np

    losses = record[loss].to_numpy(dtype=np.float64)
    if not len(losses) or not np.isfinite(losses).all():
        return ()
    named = [c for c in dict.fromkeys([*columns, *([group] if group else [])]) if c in record]
    looks = [
        (column, value, mask)
        for column in named
        for value, mask in _parts(record[column])
        if _enough(mask, by_row(len(record)) if column == group else units)
    ]
    level = 1 - (1 - CONFIDENCE) / max(len(looks), 1)
    rows = by_row(len(record))
    # Within one group there is one unit: a slice by the group itself is measured over its rows.
    found = [
        _compare(losses, column, value, mask, rows if column == group else units, level)
        for column, value, mask in looks
    ]
    return tuple(sorted(found, key=lambda s: (not s.clear, -s.excess, s.column, s.value)))


def _enough(mask: NDArray[np.bool_], units: Units) -> bool:
    import numpy as np

    least = max(FEWEST_ROWS, SMALLEST_SHARE * len(mask))
    inside = int(mask.sum())
    if min(inside, len(mask) - inside) < least:
        return False
    here = len(np.unique(units.of_row[mask]))
    return here >= FEWEST and len(np.unique(units.of_row[~mask])) >= FEWEST


def _compare(
    losses: NDArray[np.float64], column: str, value: str, mask: NDArray[np.bool_], units: Units, level: float
) -> Slice:
    import numpy as np

    inside = int(mask.sum())
    here, rest = float(losses[mask].mean()), float(losses[~mask].mean())
    influence = np.where(mask, (losses - here) / inside, -(losses - rest) / (len(losses) - inside))
    pieces = min(len(np.unique(units.of_row[mask])), len(np.unique(units.of_row[~mask])))
    margin = (spread(influence, units) or 0.0) * quantile(pieces - 1, level)
    excess = here - rest
    # A spread of exactly nothing (all losses alike) must not turn rounding into a finding.
    clear = excess - margin > 1e-12 * max(abs(here), abs(rest))
    return Slice(column, value, inside, here, rest, excess, excess - margin, excess + margin, clear)


def _parts(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(label, mask) of each part of a column, missing values as a part of their own."""
    import numpy as np
    import pandas as pd

    missing = column.isna().to_numpy()
    if missing.any():
        yield "missing", missing
    ordered = pd.api.types.is_datetime64_any_dtype(column) or (
        pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    )
    if not ordered or column.nunique() <= BINS:
        for value in column.value_counts().index[:MOST_VALUES]:
            yield _label(value), ((column == value).fillna(False).to_numpy(dtype=bool)) & ~missing
        return
    present = column[~missing]
    edges = present.quantile(np.linspace(0, 1, BINS + 1)[1:-1], interpolation="lower").unique()
    code = np.searchsorted(edges, column.to_numpy(), side="left")
    for number in np.unique(code[~missing]):
        mask = (code == number) & ~missing
        part = column[mask]
        low, high = _label(part.min()), _label(part.max())
        yield (low if low == high else f"{low} to {high}"), mask


def _label(value: Any) -> str:
    import pandas as pd

    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)
