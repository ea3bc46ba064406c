"""A fitted pipeline -> the recipe and the trees that serving/engine.py answers from. Whether they may serve: agreement.py.

What is not known here by its exact type is not compiled: a wrapper that changes the answer must never be overlooked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from serving import trees
from serving.trees import Tree

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class CannotCompile(ValueError):
    """This pipeline holds something that has no compiled form; the text says what."""


@dataclass(frozen=True)
class Compiled:
    """What the engine needs: a recipe for JSON, and ONNX bytes where the model is made of trees."""

    recipe: dict[str, Any]
    trees: bytes | None


@dataclass(frozen=True)
class _Model:
    """The last step: raw outputs, what makes predictions of them, and whether inputs are rounded to single precision."""

    form: str
    numbers: dict[str, Any]
    trees: list[Tree] = field(default_factory=list)
    targets: int = 1
    link: str = "none"
    single: bool = False


def compile(pipeline: Any, columns: Sequence[str]) -> Compiled:
    """The compiled form of a fitted Pipeline(features, model) of tasks/estimators.py; columns: the signature's order.

    Raises CannotCompile.
    """
    if type(pipeline).__name__ != "Pipeline" or list(pipeline.named_steps) != ["features", "model"]:
        raise CannotCompile(f"a {type(pipeline).__name__} of {list(getattr(pipeline, 'named_steps', []))} is not known")
    recipes, order = _columns(pipeline.named_steps["features"], list(columns))
    model, call, bent = _classifier(pipeline.named_steps["model"])
    model, back = _unwrapped(model)
    read = _MODELS.get(type(model).__name__)
    if read is None or not type(model).__module__.startswith("sklearn."):
        raise CannotCompile(f"a {type(model).__name__} is not known")
    made = read(model)
    numbers = dict(made.numbers)
    if "weights" in numbers:
        numbers["weights"] = np.atleast_2d(numbers["weights"])[:, order].tolist()
    elif made.trees and order != list(range(len(order))):
        raise CannotCompile("its trees read scaled inputs")
    recipe = {
        "form": made.form,
        "columns": recipes,
        "width": len(order),
        "single": made.single,
        "model": numbers,
        "link": made.link,
        "back": back,
        "bent": bent,
        "call": call,
    }
    return Compiled(recipe, trees.onnx_bytes(made.trees, len(order), made.targets) if made.trees else None)


def _classifier(model: Any) -> tuple[Any, list[Any] | None, list[list[Any]]]:
    """What stands around a classifier: itself; from which probability on which of two classes is called (None: the
    likeliest is); and what is done to its probabilities (tasks/balance.py), in order."""
    call: list[Any] | None = None
    bent: list[list[Any]] = []
    while True:
        name = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
        if name == "sklearn.FixedThresholdClassifier" and model.response_method == "predict_proba":
            if call is not None or bent or not isinstance(model.threshold, float):
                raise CannotCompile("a threshold of this kind is not known")
            call = [model.threshold, model.classes_.tolist().index(model.pos_label)]
            model = model.estimator_
        elif name == "sklearn.FrozenEstimator":
            model = model.estimator
        elif type(model).__module__ == "tasks.balance" and {"factors_", "power_", "shifts_"} <= vars(model).keys():
            bent = [["divide", model.factors_.tolist()], *bent]
            if model.power_ != 1.0 or model.shifts_.any():
                bent.insert(
                    1,
                    ["temper", float(model.power_), model.shifts_.tolist(), sys.modules[type(model).__module__].LEAST],
                )
            model = model.estimator_
        else:
            return model, call, bent


def _unwrapped(model: Any) -> tuple[Any, list[list[Any]]]:
    """The innermost model, and the steps that lead from what it says back to the target, in order."""
    back: list[list[Any]] = []
    while type(model).__name__ == "TransformedTargetRegressor":
        if model.func is None:
            scaler = model.transformer_
            if type(scaler).__name__ != "StandardScaler":
                raise CannotCompile(f"a target through a {type(scaler).__name__} is not known")
            back.insert(0, ["unscale", float(scaler.mean_[0]), float(scaler.scale_[0])])
        elif (model.func, model.inverse_func) == (np.log, np.exp):
            back.insert(0, ["exp"])
        else:
            raise CannotCompile("a target through another function than the logarithm is not known")
        model = model.regressor_
    return model, back


def _columns(features: Any, names: list[str]) -> tuple[list[dict[str, Any]], list[int]]:
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


def _dummy(model: Any) -> _Model:
    if hasattr(model, "class_prior_"):
        if model.strategy != "prior":
            raise CannotCompile("a dummy that draws by chance cannot be compiled")
        return _Model("constant", {"value": np.asarray(model.class_prior_).tolist()}, link="shares")
    return _Model("constant", {"value": np.ravel(model.constant_).tolist()})


def _linear(model: Any) -> _Model:
    link = "none"
    if hasattr(model, "classes_"):
        link = "softmax" if len(model.classes_) > 2 else "logistic"
    intercept = np.atleast_1d(model.intercept_).tolist()
    return _Model("linear", {"weights": model.coef_, "intercept": intercept}, link=link)


def _forest(model: Any) -> _Model:
    members = getattr(model, "estimators_", [model])
    read = [trees.of_sklearn(m.tree_, _leaves(m) / len(members)) for m in members]
    targets = read[0].weights.shape[1]
    link = "shares" if hasattr(model, "classes_") else "none"
    return _Model("trees", {"baseline": [0.0] * targets}, read, targets, link, single=True)


def _leaves(member: Any) -> NDArray[np.float64]:
    """What each node says (n, targets): the mean, or the classes' shares; of two classes the second one's."""
    values = np.asarray(member.tree_.value, dtype="float64")[:, 0, :]
    return values[:, 1:] if hasattr(member, "classes_") and values.shape[1] == 2 else values


def _boosting(model: Any) -> _Model:
    targets = model.n_trees_per_iteration_
    if getattr(model, "_preprocessor", None) is not None:
        raise CannotCompile("its trees split native categories")
    try:
        read = [trees.of_boosting(p, k) for step in model._predictors for k, p in enumerate(step)]
    except ValueError as e:
        raise CannotCompile(str(e)) from e
    link = "none" if not hasattr(model, "classes_") else "softmax" if targets > 1 else "logistic"
    return _Model("trees", {"baseline": np.ravel(model._baseline_prediction).tolist()}, read, targets, link)


_MODELS = {
    "DummyRegressor": _dummy,
    "DummyClassifier": _dummy,
    "ElasticNet": _linear,
    "LogisticRegression": _linear,
    "DecisionTreeRegressor": _forest,
    "DecisionTreeClassifier": _forest,
    "RandomForestRegressor": _forest,
    "RandomForestClassifier": _forest,
    "HistGradientBoostingRegressor": _boosting,
    "HistGradientBoostingClassifier": _boosting,
}
