"""Which columns of a reference and a window are compared, and as what: values side by side, read as the column's own type.

What cannot be compared at all (a column that is gone, one that stands twice) is a finding, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring import cells
from windvane.monitoring.cells import Cells
from windvane.monitoring.evidence import Finding
from windvane.tasks.scores import PREDICTION, PROBABILITY

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.evidence import Aspect
    from windvane.tasks.features import Columns

# Of more classes than this the first ones' probabilities are compared.
_CLASSES = 10
_CERTAIN = 37.0


@dataclass(frozen=True)
class Compared:
    """A column to be compared: `read` is how it is read: number, category or date."""

    name: str
    aspect: Aspect
    read: str


def compared(reference: pd.DataFrame, columns: Columns, time: str | None) -> list[Compared]:
    """The feature columns (without the clock) and the model's answers."""
    named = {
        "number": columns.numbers,
        "category": columns.booleans + columns.low + columns.high,
        "date": columns.dates,
    }
    found = [
        Compared(n, "numbers" if read != "category" else "categories", read) for read, ns in named.items() for n in ns
    ]
    chances = [n for n in reference.columns if str(n).startswith(PROBABILITY) and n not in columns.names]
    if PREDICTION in reference:
        found.append(Compared(PREDICTION, "prediction", "category" if chances else "number"))
    # The second of two probabilities says what the first one did.
    kept = chances[1:] if len(chances) == 2 else chances[:_CLASSES]
    return [c for c in found if c.name != time] + [Compared(n, "prediction", "number") for n in kept]


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """Of columns with the same name the first."""
    return frame.loc[:, ~frame.columns.duplicated()]


def broken(reference: pd.DataFrame, window: pd.DataFrame, wanted: list[Compared]) -> list[Finding]:
    """Columns that stand twice in the window, or are gone from it."""
    twice = set(window.columns[window.columns.duplicated()])
    found = []
    for column in wanted:
        if column.name in twice:
            said = "the window has this column twice; the first one was compared"
            found.append(Finding(column.name, "type", _CERTAIN, 0.0, True, said))
        if column.name not in window and column.name in reference:
            found.append(Finding(column.name, "silent", _CERTAIN, 0.0, True, "the column is gone from the window"))
    return found


def values(parts: list[pd.DataFrame], column: Compared, time: str | None) -> tuple[Any, NDArray[np.bool_]]:
    """The column's values in all parts, one below the other, and which cannot be read. A part without it: all missing.

    Dates count as days before or after the row's own time where there is one: dates themselves always move on.
    """
    import pandas as pd

    sides: list[pd.Series] = [
        part[column.name] if column.name in part else pd.Series(np.nan, index=part.index) for part in parts
    ]
    if column.read == "category":
        joined = pd.concat([_category(side) for side in sides], ignore_index=True)
        return joined, np.zeros(len(joined), dtype=bool)
    reader = cells.read_dates if column.read == "date" else cells.read_numbers
    read = [reader(side) for side in sides]
    numbers = np.concatenate([numbers for numbers, _ in read])
    if column.read == "date" and time is not None:
        numbers = numbers - np.concatenate([cells.read_dates(part[time])[0] for part in parts])
    return numbers, np.concatenate([unreadable for _, unreadable in read])


def _category(side: pd.Series) -> pd.Series:
    import pandas as pd

    if pd.api.types.is_float_dtype(side):
        side = side.replace([np.inf, -np.inf], np.nan)
    return side.astype(object)


def cut(parts: list[pd.DataFrame], column: Compared, time: str | None) -> Cells:
    """The column as cells."""
    found, unreadable = values(parts, column, time)
    of = cells.of_categories if column.read == "category" else cells.of_numbers
    return of(column.name, column.aspect, found, unreadable)


def follows(clock: NDArray[np.float64], numbers: NDArray[np.float64]) -> bool:
    """Whether numbers (n,) never fall and do rise along the clock (n,): a year, a date, a counter. They always move on."""
    order = np.lexsort((numbers, clock))
    steps = np.diff(numbers[order])
    return bool(len(steps)) and bool((steps >= 0).all()) and bool((steps > 0).any())
