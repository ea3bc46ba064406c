"""Plain values -> the model's inputs, as tasks.features encodes frames, one value at a time and without pandas.

A column's recipe is JSON that serving/compile.py read off the fitted ColumnTransformer. Here it becomes a function from one
plain value (see serving/signature.py) to a tuple of floats; a row's tuples in turn are the model's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windvane.serving.signature import Plain

Floats = tuple[float, ...]
Encoder = Callable[["Plain"], Floats]

_EPOCH = datetime(1970, 1, 1)
_DAY = 86_400_000_000  # microseconds
_NAN = (float("nan"),)


def encoder(recipe: dict[str, Any]) -> Encoder:
    """The function that a recipe describes; `as` is number, table or date."""
    made: Encoder = _BY_NAME[recipe["as"]](recipe)
    return made


def as_it_is(x: Plain) -> Floats:
    """A number that the model takes as it is, NaN where it is missing."""
    return _NAN if x is None else (x,)  # type: ignore[return-value]


def _number(recipe: dict[str, Any]) -> Encoder:
    """The number as it is, or standardised, with what the indicators "was missing" of other rows say behind it."""
    missing, tail = _floats(recipe["missing"]), _floats(recipe["tail"])
    if recipe["scale"] is None:
        return as_it_is
    ((mean, scale),) = recipe["scale"]
    return lambda x: missing if x is None else ((x - mean) / scale, *tail)


def _table(recipe: dict[str, Any]) -> Encoder:
    """A category by what training made of it."""
    table: dict[Plain, Floats] = {value: _floats(floats) for value, floats in recipe["values"].items()}
    unknown, table[None] = _floats(recipe["unknown"]), _floats(recipe["missing"])
    get = table.get
    return lambda x: get(x, unknown)


def _date(recipe: dict[str, Any]) -> Encoder:
    """Days since the earliest date of training, then a sine and a cosine per circle (tasks.features.DateParts)."""
    missing, tail = _floats(recipe["missing"]), _floats(recipe["tail"])
    origin, scale = recipe["origin"], recipe["scale"]
    circles = [_circles()[name] for name in recipe["circles"]]

    def parts(x: Plain) -> list[float]:
        at = _EPOCH + timedelta(microseconds=x)  # type: ignore[arg-type]
        found = [x / _DAY - origin]  # type: ignore[operator]
        for place, points in circles:
            found += points[place(at)]
        return found

    @lru_cache(4096)  # requests come from the same days
    def encode(x: Plain) -> Floats:
        if x is None:
            return missing
        if scale is None:
            return tuple(parts(x))
        return (*((p - m) / s for p, (m, s) in zip(parts(x), scale, strict=True)), *tail)

    return encode


def _floats(values: list[float | None]) -> Floats:
    """JSON has no NaN: it is written null."""
    return tuple(float("nan") if value is None else value for value in values)


def _circles() -> dict[str, tuple[Callable[[datetime], int], list[Floats]]]:
    """Per circle: a date's place on it, and every place's sine and cosine."""
    import numpy as np

    minutes = np.arange(24 * 60)
    shares = {
        "hour": (minutes // 60 + minutes % 60 / 60) / 24,
        "weekday": np.arange(7) / 7,
        "monthday": np.arange(31) / 31,
        "month": np.arange(12) / 12,
    }
    places: dict[str, Callable[[datetime], int]] = {
        "hour": lambda at: at.hour * 60 + at.minute,
        "weekday": datetime.weekday,
        "monthday": lambda at: at.day - 1,
        "month": lambda at: at.month - 1,
    }
    angles = {name: 2 * np.pi * share for name, share in shares.items()}
    return {
        name: (places[name], list(zip(np.sin(a).tolist(), np.cos(a).tolist(), strict=True)))
        for name, a in angles.items()
    }


_BY_NAME: dict[str, Callable[[dict[str, Any]], Encoder]] = {"number": _number, "table": _table, "date": _date}
