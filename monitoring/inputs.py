"""Inputs of a record and a window as numbers, side by side. Owns how a column is read when production may have broken it.

Dates are left out: a window is always later than the record, which says nothing about the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.features import Columns


@dataclass(frozen=True)
class Column:
    """One input on both sides. Numbers and booleans: floats, NaN = missing or not to be read. Categories: codes of `words`
    (rank by frequency in the record, then by name; words that only the window has come last), -1 = missing.
    """

    name: str
    number: bool
    record: NDArray[np.float64]
    window: NDArray[np.float64]
    words: tuple[str, ...] = ()
    known: int = 0  # how many of the words the record has

    @property
    def both(self) -> NDArray[np.float64]:
        """Record's rows, then the window's."""
        return np.concatenate([self.record, self.window])


def read(record: pd.DataFrame, window: pd.DataFrame, columns: Columns) -> tuple[Column, ...]:
    """Each input but dates. A column that the window lacks is wholly missing there; what cannot be read is missing."""
    numbers = [Column(n, True, floats(record, n), floats(window, n)) for n in columns.numbers]
    booleans = [
        Column(n, True, floats(record, n, boolean=True), floats(window, n, boolean=True)) for n in columns.booleans
    ]
    return tuple(numbers + booleans + [_category(n, record, window) for n in columns.low + columns.high])


@dataclass(frozen=True)
class Encoder:
    """Inputs as trees take them: numbers as they are, categories as places in the order of the record's mean prediction, so
    that like categories lie side by side (shrunk by ten rows; a new one lies in the middle)."""

    columns: Columns
    places: dict[str, dict[str, float]]

    def __call__(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(n, k) floats, NaN = missing."""
        found = [floats(frame, n) for n in self.columns.numbers]
        found += [floats(frame, n, boolean=True) for n in self.columns.booleans]
        for name, places in self.places.items():
            distinct, at = np.unique(words(frame, name), return_inverse=True)
            found.append(np.array([np.nan if w == "" else places.get(str(w), 0.0) for w in distinct])[at])
        return np.column_stack(found) if found else np.zeros((len(frame), 1))


def encoder(record: pd.DataFrame, columns: Columns, rank: NDArray[np.float64]) -> Encoder:
    """Learn categories' places from a record and a number per row (n,)."""
    places = {}
    centred = rank - rank.mean() if len(rank) else rank
    for name in columns.low + columns.high:
        distinct, at = np.unique(words(record, name), return_inverse=True)
        means = np.bincount(at, weights=centred) / (np.bincount(at) + 10)
        places[name] = {str(w): float(m) for w, m in zip(distinct, means, strict=True)}
    return Encoder(columns, places)


def teachable(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same rows (n, k), columns without any value as zeros: boosting cannot be fitted on nothing."""
    return np.where(np.isnan(rows).all(axis=0), 0.0, rows)


def floats(frame: pd.DataFrame, name: str, *, boolean: bool = False) -> NDArray[np.float64]:
    """Values (n,) of a number or boolean, NaN where missing or not to be read."""
    import pandas as pd

    from windvane.tasks import features
    from windvane.tasks.errors import InputError

    if name not in frame:
        return np.full(len(frame), np.nan)
    wanted = features.Columns(booleans=(name,)) if boolean else features.Columns(numbers=(name,))
    try:
        return np.asarray(features.conform(frame[[name]], wanted, "window")[name].to_numpy(dtype=np.float64))
    except InputError:
        read = pd.to_numeric(frame[name].astype("str"), errors="coerce").to_numpy(dtype=np.float64)
        return np.where(np.isfinite(read), read, np.nan)


def _category(name: str, record: pd.DataFrame, window: pd.DataFrame) -> Column:
    old, new = words(record, name), words(window, name)
    order = _by_frequency(old, set())
    known = len(order)
    order += _by_frequency(new, set(order))
    at = {word: i for i, word in enumerate(order)}
    codes = [np.array([at.get(str(w), -1) for w in side], dtype=np.float64) for side in (old, new)]
    return Column(name, False, codes[0], codes[1], tuple(order), known)


def _by_frequency(values: NDArray[np.str_], but: set[str]) -> list[str]:
    found, counts = np.unique(values[values != ""], return_counts=True)
    fresh = [(-int(c), str(w)) for w, c in zip(found, counts, strict=True) if str(w) not in but]
    return [word for _, word in sorted(fresh)]


def words(frame: pd.DataFrame, name: str) -> NDArray[np.str_]:
    """Values (n,) as text, "" where missing."""
    from windvane.tasks import features

    if name not in frame:
        return np.full(len(frame), "", dtype=str)
    words = features.conform(frame[[name]], features.Columns(low=(name,)), "window")[name]
    return np.asarray(words.fillna("").to_numpy(dtype=str))
