"""A fitted ColumnTransformer of tasks/features.py -> a recipe per column for serving/encoding.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.serving.trees import CannotCompile

if TYPE_CHECKING:
    import pandas as pd


def columns_of(features: Any, names: list[str]) -> tuple[list[dict[str, Any]], list[int]]:
    """A recipe per column, in the order of the ColumnTransformer's parts; and which of its outputs stands where in ours."""
    readers = {"numeric": _numbers, "low": _tables, "high": _tables, "dates": _dates}
    recipes: list[dict[str, Any]] = []
    order: list[int] = []
    for name, fitted, columns in features.transformers_:
        if name == "remainder":
            continue
        if name not in readers:
            raise CannotCompile(f"features of a part {name!r} are not known")
        start = features.output_indices_[name].start
        for recipe, outputs in readers[name](fitted, list(columns)):
            recipes.append({"column": names.index(recipe.pop("name")), **recipe})
            order += [start + i for i in outputs]
    if sorted(order) != list(range(len(features.get_feature_names_out()))):
        raise CannotCompile("its features are not all accounted for")
    return recipes, order


_Part = list[tuple[dict[str, Any], list[int]]]


def _numbers(fitted: Any, columns: list[str]) -> _Part:
    if type(fitted).__name__ == "FunctionTransformer":  # passed through
        plain = {"as": "number", "scale": None, "missing": [None], "tail": []}
        return [({"name": name, **plain}, [i]) for i, name in enumerate(columns)]
    (imputer, scaler) = _steps(fitted, "SimpleImputer", "StandardScaler")
    owners = [[i] for i in range(len(columns))]
    return [
        ({"name": name, "as": "number", **recipe}, outputs)
        for name, (recipe, outputs) in zip(columns, _standardised(imputer, scaler, owners), strict=True)
    ]


def _dates(fitted: Any, columns: list[str]) -> _Part:
    steps = [step for _, step in fitted.steps] if hasattr(fitted, "steps") else [fitted]
    parts = steps[0]
    if type(parts).__name__ != "DateParts":
        raise CannotCompile(f"dates through a {type(parts).__name__} are not known")
    widths = [1 + 2 * len(kept) for kept in parts.kept_]
    ends = np.cumsum(widths)
    owners = [list(range(end - width, end)) for end, width in zip(ends.tolist(), widths, strict=True)]
    if len(steps) == 1:
        scaled = [({"scale": None, "missing": [None] * len(own), "tail": []}, own) for own in owners]
    else:
        imputer, scaler = _steps(fitted, "DateParts", "SimpleImputer", "StandardScaler")[1:]
        scaled = _standardised(imputer, scaler, owners)
    return [
        ({"name": name, "as": "date", "origin": float(origin), "circles": list(kept), **recipe}, outputs)
        for name, origin, kept, (recipe, outputs) in zip(columns, parts.origins_, parts.kept_, scaled, strict=True)
    ]


def _standardised(imputer: Any, scaler: Any, owners: list[list[int]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Per column, which owns some inputs of an imputer that is followed by a scaler: its recipe and its outputs.

    A column with a value gives its scaled inputs and, behind them, what its indicators say of a row that misses nothing;
    one without gives the constants that the imputer and the indicators make of it.
    """
    inputs = len(imputer.statistics_)
    marked = list(imputer.indicator_.features_) if imputer.add_indicator else []
    if imputer.strategy != "median" or np.isnan(imputer.statistics_).any():
        raise CannotCompile("missing values are filled in another way than by the median")
    mean, scale = scaler.mean_, scaler.scale_
    found = []
    for own in owners:
        indicators = [inputs + marked.index(i) for i in own if i in marked]
        fill = [(float(imputer.statistics_[i]) - mean[i]) / scale[i] for i in own]
        said = [[(flag - mean[i]) / scale[i] for i in indicators] for flag in (0.0, 1.0)]
        recipe = {
            "scale": [[float(mean[i]), float(scale[i])] for i in own],
            "missing": [float(v) for v in fill + said[1]],
            "tail": [float(v) for v in said[0]],
        }
        found.append((recipe, own + indicators))
    return found


def _tables(fitted: Any, columns: list[str]) -> _Part:
    """Categories: what the fitted encoder says of every value it knows, of one that it does not know, and of none.

    Asked, not worked out: whatever the encoder does value by value, this is it.
    """
    first = fitted.steps[0][1] if hasattr(fitted, "steps") else fitted
    if type(first).__name__ not in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        raise CannotCompile(f"categories through a {type(first).__name__} are not known")
    known = [[c for c in categories if isinstance(c, str)] for categories in first.categories_]
    stranger = "?"
    while any(stranger in words for words in known):
        stranger += "?"
    asked = [[*words, stranger, np.nan] for words in known]
    rows = max(map(len, asked))
    said = np.asarray(fitted.transform(_frame(columns, [a + [np.nan] * (rows - len(a)) for a in asked])))
    recipes, at = [], 0
    for i, name in enumerate(columns):
        width = _outputs(first, i, said.shape[1], len(columns))
        block = [[None if np.isnan(v) else v for v in row] for row in said[:, at : at + width].tolist()]
        values = dict(zip(known[i], block, strict=False))
        words = len(known[i])
        recipe = {"name": name, "as": "table", "values": values, "unknown": block[words], "missing": block[words + 1]}
        recipes.append((recipe, list(range(at, at + width))))
        at += width
    return recipes


def _outputs(encoder: Any, column: int, total: int, columns: int) -> int:
    """How many outputs a column of categories has: one-hot one per category, else the same for each column."""
    if type(encoder).__name__ != "OneHotEncoder":
        return total // columns
    if encoder.drop is not None or encoder.min_frequency is not None or encoder.max_categories is not None:
        raise CannotCompile("one-hot inputs that leave some categories out are not known")
    return len(encoder.categories_[column])


def _frame(columns: list[str], values: list[list[Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: np.array(v, dtype=object) for name, v in zip(columns, values, strict=True)})


def _steps(fitted: Any, *types: str) -> list[Any]:
    """The steps of a pipeline, if they are of exactly these types."""
    steps = [step for _, step in getattr(fitted, "steps", [("", fitted)])]
    if tuple(type(step).__name__ for step in steps) != types:
        raise CannotCompile(f"features through {', '.join(type(step).__name__ for step in steps)} are not known")
    return steps
