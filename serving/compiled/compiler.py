"""Compiles a fitted pipeline into a recipe per column and the model's numbers or trees. A type not known exactly is not compiled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import block_diag

from windvane.serving.compiled import onnx_trees
from windvane.serving.compiled.onnx_trees import CannotCompile, TreeArrays


@dataclass(frozen=True)
class CompiledModel:
    """What the engine needs: a recipe for JSON, and ONNX bytes where the model is made of trees; nodes: these as arrays."""

    recipe: dict[str, Any]
    trees: bytes | None
    nodes: dict[str, NDArray[Any]] | None = None


def compile_pipeline(pipeline: Any, columns: Sequence[str]) -> CompiledModel:
    """The compiled form of a fitted Pipeline(features, model); columns: the signature's order. Raises CannotCompile."""
    if type(pipeline).__name__ != "Pipeline" or list(pipeline.named_steps) != ["features", "model"]:
        raise CannotCompile(f"a {type(pipeline).__name__} of {list(getattr(pipeline, 'named_steps', []))} is not known")
    model, call, bent = _unwrap_classifier(pipeline.named_steps["model"])
    if type(model).__module__ == "windvane.tasks.models.model_pipeline":
        if pipeline.named_steps["features"] != "passthrough":
            raise CannotCompile("pipelines are combined behind features that are not known")
        classes = [np.asarray(getattr(part, "classes_", [])).tolist() for part in model.models]
        if any(other != classes[0] for other in classes[1:]):
            raise CannotCompile("the newest rows do not hold all classes, so its parts know different ones")
        parts = [
            _compile_part(part.named_steps["features"], part.named_steps["model"], columns) for part in model.models
        ]
        made = combine_parts(parts)
    else:
        made = _compile_part(pipeline.named_steps["features"], model, columns)
    recipe = {name: getattr(made, name) for name in ("form", "columns", "width", "single", "link", "back")}
    recipe |= {"model": made.numbers, "bent": bent, "call": call, **({} if made.of is None else {"of": made.of})}
    if not made.trees:
        return CompiledModel(recipe, None)
    trees = onnx_trees.build_onnx_model(made.trees, made.width, made.targets)
    return CompiledModel(recipe, trees, onnx_trees.stack_trees(made.trees, made.targets))


def _compile_part(features: Any, model: Any, columns: Sequence[str]) -> CompiledPart:
    """Features and the model behind them, without what wraps a classifier."""
    if type(features).__name__ != "ColumnTransformer":
        raise CannotCompile(f"features of a {type(features).__name__} are not known")
    recipes, order = compile_columns(features, list(columns))
    model, back = _unwrap_regressor(model)
    read = _MODEL_READERS.get(type(model).__name__)
    if read is None or not type(model).__module__.startswith("sklearn."):
        raise CannotCompile(f"a {type(model).__name__} is not known")
    made = read(model)
    numbers = dict(made.numbers)
    if "weights" in numbers:
        numbers["weights"] = np.atleast_2d(numbers["weights"])[:, order].tolist()
    elif made.trees and order != list(range(len(order))):
        raise CannotCompile("its trees read scaled inputs")
    return replace(made, columns=recipes, width=len(order), numbers=numbers, back=back)


def _unwrap_classifier(model: Any) -> tuple[Any, list[Any] | None, list[list[Any]]]:
    """What wraps a classifier: itself; from which probability on which of two classes is called (None: the
    likeliest is); and what is done to its probabilities (tasks/models/class_balance.py), in order."""
    call: list[Any] | None = None
    bent: list[list[Any]] = []
    while True:
        name = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
        if name == "sklearn.FixedThresholdClassifier" and model.response_method == "predict_proba":
            if call is not None or bent or not isinstance(model.threshold, float):
                raise CannotCompile("a threshold of this type is not known")
            call = [model.threshold, model.classes_.tolist().index(model.pos_label)]
            model = model.estimator_
        elif name == "sklearn.FrozenEstimator":
            model = model.estimator
        elif (
            type(model).__module__ == "windvane.tasks.models.class_balance"
            and {"factors_", "power_", "shifts_"} <= vars(model).keys()
        ):
            bent = [["divide", model.factors_.tolist()], *bent]
            if model.power_ != 1.0 or model.shifts_.any():
                floor = sys.modules[type(model).__module__].PROBABILITY_FLOOR
                bent.insert(1, ["temper", float(model.power_), model.shifts_.tolist(), floor])
            model = model.estimator_
        else:
            return model, call, bent


def _unwrap_regressor(model: Any) -> tuple[Any, list[list[Any]]]:
    """The innermost model, and the steps that lead from its output back to the target, in order."""
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


def _read_dummy(model: Any) -> CompiledPart:
    if hasattr(model, "class_prior_"):
        if model.strategy != "prior":
            raise CannotCompile("a dummy that draws by chance cannot be compiled")
        return CompiledPart("constant", {"value": np.asarray(model.class_prior_).tolist()}, link="shares")
    return CompiledPart("constant", {"value": np.ravel(model.constant_).tolist()})


def _read_linear(model: Any) -> CompiledPart:
    link = "none"
    if hasattr(model, "classes_"):
        link = "softmax" if len(model.classes_) > 2 else "logistic"
    intercept = np.atleast_1d(model.intercept_).tolist()
    return CompiledPart("linear", {"weights": model.coef_, "intercept": intercept}, link=link)


def _read_forest(model: Any) -> CompiledPart:
    members = getattr(model, "estimators_", [model])
    read = [onnx_trees.read_sklearn_tree(m.tree_, _read_leaves(m)) for m in members]
    targets = read[0].weights.shape[1]
    link = "shares" if hasattr(model, "classes_") else "none"
    # Divided at the end, as scikit-learn does: trees that are all sure give 1 exactly, not 1 - 1e-16.
    numbers = {"baseline": [0.0] * targets, "divide": len(members)}
    return CompiledPart("trees", numbers, read, targets, link, single=True)


def _read_leaves(member: Any) -> NDArray[np.float64]:
    """What each node predicts (n, targets): the mean, or the classes' shares; of two classes the second one's."""
    values = np.asarray(member.tree_.value, dtype="float64")[:, 0, :]
    return values[:, 1:] if hasattr(member, "classes_") and values.shape[1] == 2 else values


def _read_boosting(model: Any) -> CompiledPart:
    targets = model.n_trees_per_iteration_
    if getattr(model, "_preprocessor", None) is not None:
        raise CannotCompile("its trees split native categories")
    read = [onnx_trees.read_boosting_tree(p, k) for step in model._predictors for k, p in enumerate(step)]
    link = "none" if not hasattr(model, "classes_") else "softmax" if targets > 1 else "logistic"
    return CompiledPart("trees", {"baseline": np.ravel(model._baseline_prediction).tolist()}, read, targets, link)


_MODEL_READERS = {
    "DummyRegressor": _read_dummy,
    "DummyClassifier": _read_dummy,
    "ElasticNet": _read_linear,
    "LogisticRegression": _read_linear,
    "DecisionTreeRegressor": _read_forest,
    "DecisionTreeClassifier": _read_forest,
    "RandomForestRegressor": _read_forest,
    "RandomForestClassifier": _read_forest,
    "HistGradientBoostingRegressor": _read_boosting,
    "HistGradientBoostingClassifier": _read_boosting,
}


def compile_columns(features: Any, names: list[str]) -> tuple[list[dict[str, Any]], list[int]]:
    """A recipe per column, in the order of the ColumnTransformer's parts; and which of its outputs is where in ours."""
    readers = {
        "numeric": _compile_numbers,
        "low": _compile_categories,
        "high": _compile_categories,
        "dates": _compile_dates,
    }
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


_ColumnRecipes = list[tuple[dict[str, Any], list[int]]]


def _compile_numbers(fitted: Any, columns: list[str]) -> _ColumnRecipes:
    if type(fitted).__name__ == "FunctionTransformer":  # passed through
        plain = {"as": "number", "scale": None, "missing": [None], "tail": []}
        return [({"name": name, **plain}, [i]) for i, name in enumerate(columns)]
    (imputer, scaler) = _get_steps(fitted, "SimpleImputer", "StandardScaler")
    owners = [[i] for i in range(len(columns))]
    return [
        ({"name": name, "as": "number", **recipe}, outputs)
        for name, (recipe, outputs) in zip(columns, _compile_scaling(imputer, scaler, owners), strict=True)
    ]


def _compile_dates(fitted: Any, columns: list[str]) -> _ColumnRecipes:
    steps = [step for _, step in fitted.steps] if hasattr(fitted, "steps") else [fitted]
    parts = steps[0]
    if type(parts).__name__ != "DateEncoder":
        raise CannotCompile(f"dates through a {type(parts).__name__} are not known")
    widths = [1 + 2 * len(kept) for kept in parts.kept_]
    ends = np.cumsum(widths)
    owners = [list(range(end - width, end)) for end, width in zip(ends.tolist(), widths, strict=True)]
    if len(steps) == 1:
        scaled = [({"scale": None, "missing": [None] * len(own), "tail": []}, own) for own in owners]
    else:
        imputer, scaler = _get_steps(fitted, "DateEncoder", "SimpleImputer", "StandardScaler")[1:]
        scaled = _compile_scaling(imputer, scaler, owners)
    return [
        ({"name": name, "as": "date", "origin": float(origin), "circles": list(kept), **recipe}, outputs)
        for name, origin, kept, (recipe, outputs) in zip(columns, parts.origins_, parts.kept_, scaled, strict=True)
    ]


def _compile_scaling(imputer: Any, scaler: Any, owners: list[list[int]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Per column, which owns some inputs of an imputer that is followed by a scaler: its recipe and its outputs.

    A column with a value gives its scaled inputs and, behind them, what its indicators give for a row that misses nothing;
    one without gives the constants that the imputer and the indicators make of it.
    """
    inputs = len(imputer.statistics_)
    flagged = list(imputer.indicator_.features_) if imputer.add_indicator else []
    if imputer.strategy != "median" or np.isnan(imputer.statistics_).any():
        raise CannotCompile("missing values are filled in another way than by the median")
    mean, scale = scaler.mean_, scaler.scale_
    found = []
    for own in owners:
        indicators = [inputs + flagged.index(i) for i in own if i in flagged]
        fill = [(float(imputer.statistics_[i]) - mean[i]) / scale[i] for i in own]
        indicator_terms = [[(flag - mean[i]) / scale[i] for i in indicators] for flag in (0.0, 1.0)]
        recipe = {
            "scale": [[float(mean[i]), float(scale[i])] for i in own],
            "missing": [float(v) for v in fill + indicator_terms[1]],
            "tail": [float(v) for v in indicator_terms[0]],
        }
        found.append((recipe, own + indicators))
    return found


def _compile_categories(fitted: Any, columns: list[str]) -> _ColumnRecipes:
    """Categories: what the fitted encoder returns for every value it knows, of one that it does not know, and of none.

    Taken from it, not computed: whatever the encoder does value by value, this is it.
    """
    first = fitted.steps[0][1] if hasattr(fitted, "steps") else fitted
    if type(first).__name__ not in ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder"):
        raise CannotCompile(f"categories through a {type(first).__name__} are not known")
    known = [[c for c in categories if isinstance(c, str)] for categories in first.categories_]
    stranger = "?"
    while any(stranger in words for words in known):
        stranger += "?"
    probes = [[*words, stranger, np.nan] for words in known]
    rows = max(map(len, probes))
    padded = {name: [*a, *[np.nan] * (rows - len(a))] for name, a in zip(columns, probes, strict=True)}
    indicator_terms = np.asarray(fitted.transform(pd.DataFrame(padded, dtype=object)))
    recipes, at = [], 0
    for i, name in enumerate(columns):
        width = _count_outputs(first, i, indicator_terms.shape[1], len(columns))
        block = [[None if np.isnan(v) else v for v in row] for row in indicator_terms[:, at : at + width].tolist()]
        values = dict(zip(known[i], block, strict=False))
        words = len(known[i])
        recipe = {"name": name, "as": "table", "values": values, "unknown": block[words], "missing": block[words + 1]}
        recipes.append((recipe, list(range(at, at + width))))
        at += width
    return recipes


def _count_outputs(encoder: Any, column: int, total: int, columns: int) -> int:
    """How many outputs a column of categories has: one-hot one per category, else the same for each column."""
    if type(encoder).__name__ != "OneHotEncoder":
        return total // columns
    if encoder.drop is not None or encoder.min_frequency is not None or encoder.max_categories is not None:
        raise CannotCompile("one-hot inputs that leave some categories out are not known")
    return len(encoder.categories_[column])


def _get_steps(fitted: Any, *types: str) -> list[Any]:
    """The steps of a pipeline, if they are of exactly these types."""
    steps = [step for _, step in getattr(fitted, "steps", [("", fitted)])]
    if tuple(type(step).__name__ for step in steps) != types:
        raise CannotCompile(f"features through {', '.join(type(step).__name__ for step in steps)} are not known")
    return steps


@dataclass(frozen=True)
class CompiledPart:
    """Raw outputs (`targets`), what makes predictions of them (`link`, then `back`), and whether inputs are rounded to single
    precision. columns: the recipes of its inputs, which are `width` numbers. back: a list of steps; of combined parts, a list of
    such lists, one for each.
    """

    form: str
    numbers: dict[str, Any]
    trees: list[TreeArrays] = field(default_factory=list)
    targets: int = 1
    link: str = "none"
    single: bool = False
    columns: list[Any] = field(default_factory=list)
    width: int = 0
    back: list[Any] = field(default_factory=list)
    of: str | None = None


def combine_parts(parts: list[CompiledPart]) -> CompiledPart:
    """Of several of one form. Raises CannotCompile where they differ in more than what they have learned."""
    first = parts[0]
    for other in parts[1:]:
        for what in ("form", "targets", "link", "single"):
            if getattr(first, what) != getattr(other, what):
                raise CannotCompile(f"its parts differ in their {what}")
        if first.numbers.get("divide") != other.numbers.get("divide"):
            raise CannotCompile("its parts have different numbers of trees")
    width, targets = sum(part.width for part in parts), sum(part.targets for part in parts)
    beside: list[TreeArrays] = []
    for number, part in enumerate(parts):
        inputs, outputs = sum(p.width for p in parts[:number]), sum(p.targets for p in parts[:number])
        beside += [_shift_tree(tree, inputs, outputs, targets) for tree in part.trees]
    return replace(
        first,
        form="combined",
        of=first.form,
        numbers=_combine_numbers(parts),
        trees=beside,
        targets=targets,
        columns=[recipe for part in parts for recipe in part.columns],
        width=width,
        back=[part.back for part in parts],
    )


def _combine_numbers(parts: list[CompiledPart]) -> dict[str, Any]:
    """The parts' numbers one after another; weights (outputs, inputs) are 0 on the inputs of the others."""
    made: dict[str, Any] = {}
    for name, value in parts[0].numbers.items():
        made[name] = value if name == "divide" else [one for part in parts for one in part.numbers[name]]
    if "weights" in made:
        made["weights"] = block_diag(*(part.numbers["weights"] for part in parts)).tolist()
    return made


def _shift_tree(tree: TreeArrays, inputs: int, outputs: int, targets: int) -> TreeArrays:
    """A tree that reads inputs and adds to outputs so much further to the right, of `targets` in all."""
    weights = tree.weights
    if (several := weights.shape[1]) > 1:
        weights = np.zeros((len(weights), targets))
        weights[:, outputs : outputs + several] = tree.weights
    return replace(tree, feature=tree.feature + inputs, weights=weights, target=tree.target + outputs)
