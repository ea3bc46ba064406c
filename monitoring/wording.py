"""What a finding says to people: one line with figures. Owns words; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring import sides
from windvane.tasks.scores import PREDICTION, PROBABILITY

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.evidence import Aspect, Measure
    from windvane.monitoring.sides import Compared

_QUIET = "as usual"
_DISTANCES = {
    "wasserstein": "Wasserstein {:.3g} standard deviations",
    "ks": "Kolmogorov-Smirnov {:.3g}",
    "jensenshannon": "Jensen-Shannon {:.3g}",
}


def shown_name(column: str) -> str:
    """What people read for a column of a record."""
    if column == PREDICTION:
        return "the model's answer"
    return f"P({column.removeprefix(PROBABILITY)})" if column.startswith(PROBABILITY) else column


class Words:
    """Says what moved between two frames; looks at values only for what speaks."""

    def __init__(self, reference: pd.DataFrame, window: pd.DataFrame, wanted: list[Compared], time: str | None) -> None:
        self._parts, self._time = [reference, window], time
        self._wanted = {column.name: column for column in wanted}

    def of(self, measure: Measure, value: float, *, speaks: bool) -> tuple[Aspect, str]:
        """The finding's aspect (a column missing in all rows is silent) and its line; `value` is what was measured."""
        if not speaks:
            return measure.aspect, _QUIET
        column = self._wanted[measure.column]
        if measure.aspect == "correlation":
            return "correlation", self._hanging(column)
        values, unreadable = sides.values(self._parts, column, self._time)
        gone = np.asarray(values.isna() if column.read == "category" else ~np.isfinite(values), dtype=bool)
        if measure.aspect == "missing":
            return _missing(gone & ~unreadable, len(self._parts[0]))
        if measure.aspect == "type":
            return "type", self._unreadable(column, unreadable)
        before, after = (v[~g] for v, g in zip(self._halves(np.asarray(values)), self._halves(gone), strict=True))
        if measure.how == "range":
            said = _beyond(before, after)
        elif column.read != "category":
            said = _numbers(before, after)
        else:
            said = _new(before, after) if measure.how == "new categories" else _categories(before, after)
        named = _DISTANCES.get(measure.how)
        return measure.aspect, said if named is None else f"{said}; {named.format(value)}"

    def _halves(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = len(self._parts[0])
        return values[:rows], values[rows:]

    def _unreadable(self, column: Compared, unreadable: NDArray[np.bool_]) -> str:
        before, after = self._halves(unreadable)
        such = f", such as {self._parts[1][column.name][after].iloc[0]!r}" if after.any() else ""
        return f"{int(after.sum()):,} rows cannot be read as a {column.read}{such}; before {int(before.sum()):,}"

    def _hanging(self, column: Compared) -> str:
        """Of the pairs with this column the one whose rank correlation moved most."""
        names = [c.name for c in self._wanted.values() if c.read != "category" and c.aspect == "numbers"]
        with np.errstate(divide="ignore", invalid="ignore"):  # a column may be constant on one side
            both = self._ranked(names, column)
        other = (both[1] - both[0]).abs().fillna(0).idxmax()
        return f"rank correlation with {other}: {both[1][other]:.2f}; before {both[0][other]:.2f}"

    def _ranked(self, names: list[str], column: Compared) -> list[pd.Series]:
        """Rank correlations of the column with the others, on each side."""
        import pandas as pd

        found = []
        for part in self._parts:
            read = {n: sides.values([part], self._wanted[n], self._time)[0] for n in names}
            ranks = pd.DataFrame(read).rank()
            found.append(ranks.drop(columns=column.name).corrwith(ranks[column.name]))
        return found


def _missing(gone: NDArray[np.bool_], rows: int) -> tuple[Aspect, str]:
    before, after = float(gone[:rows].mean()), float(gone[rows:].mean())
    if after == 1:
        return "silent", f"all {len(gone) - rows:,} rows are missing; before {before:.1%}"
    return "missing", f"missing in {after:.1%} of rows; before {before:.1%}"


def _numbers(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    if not len(before) or not len(after):
        return "no values to compare"
    low, middle, high = np.quantile(after, [0.1, 0.5, 0.9])
    was = np.quantile(before, [0.1, 0.5, 0.9])
    return (
        f"median {middle:.4g} (80 % within {low:.4g} to {high:.4g}); before {was[1]:.4g} ({was[0]:.4g} to {was[2]:.4g})"
    )


def _categories(before: NDArray[Any], after: NDArray[Any]) -> str:
    import pandas as pd

    was, now = (pd.Series(side).astype(str).value_counts(normalize=True) for side in (before, after))
    moved = now.sub(was, fill_value=0)
    most = moved.abs().idxmax()
    return f"{most!r} is {now.get(most, 0):.1%} of rows; before {was.get(most, 0):.1%}"


def _new(before: NDArray[Any], after: NDArray[Any]) -> str:
    import pandas as pd

    counts = pd.Series(after).value_counts()
    new = counts[~counts.index.isin(pd.unique(pd.Series(before)))]
    if not len(new):
        return "rare categories are more frequent than before"
    more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
    return f"{int(new.sum()):,} rows in categories not seen before: {new.index[0]!r}{more}"


def _beyond(before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    if not len(before):
        return f"{len(after):,} rows have a value; before none had"
    low, high = float(before.min()), float(before.max())
    under, over = int((after < low).sum()), int((after > high).sum())
    worst = float(after.max()) if over >= under else float(after.min())
    return f"{under + over:,} rows beyond all seen before ({low:.4g} to {high:.4g}), as far as {worst:.4g}"
