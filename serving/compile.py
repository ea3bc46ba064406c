"""A fitted pipeline -> the recipe and the trees that serving/engine.py answers from. Whether they may serve: agreement.py.

What is not known here by its exact type is not compiled: a wrapper that changes the answer must never be overlooked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.serving import trees
from windvane.serving.compile_columns import columns_of
from windvane.serving.parts import Part, combined
from windvane.serving.trees import CannotCompile

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Compiled:
    """What the engine needs: a recipe for JSON, and ONNX bytes where the model is made of trees."""

    recipe: dict[str, Any]
    trees: bytes | None


def compile(pipeline: Any, columns: Sequence[str]) -> Compiled:
    """The compiled form of a fitted Pipeline(features, model) of tasks/estimators.py; columns: the signature's order.

    Raises CannotCompile.
    """
    if type(pipeline).__name__ != "Pipeline" or list(pipeline.named_steps) != ["features", "model"]:
        raise CannotCompile(f"a {type(pipeline).__name__} of {list(getattr(pipeline, 'named_steps', []))} is not known")
    model, call, bent = _classifier(pipeline.named_steps["model"])
    if type(model).__module__ == "windvane.tasks.combining":
        if pipeline.named_steps["features"] != "passthrough":
            raise CannotCompile("pipelines are combined behind features that are not known")
        classes = [np.asarray(getattr(part, "classes_", [])).tolist() for part in model.models]
        if any(other != classes[0] for other in classes[1:]):
            raise CannotCompile("the newest rows do not hold all classes, so its parts know different ones")
        parts = [_part(part.named_steps["features"], part.named_steps["model"], columns) for part in model.models]
        made = combined(parts)
    else:
        made = _part(pipeline.named_steps["features"], model, columns)
    recipe = {
        "form": made.form,
        "columns": made.columns,
        "width": made.width,
        "single": made.single,
        "model": made.numbers,
        "link": made.link,
        "back": made.back,
        "bent": bent,
        "call": call,
    } | ({} if made.of is None else {"of": made.of})
    return Compiled(recipe, trees.onnx_bytes(made.trees, made.width, made.targets) if made.trees else None)


def _part(features: Any, model: Any, columns: Sequence[str]) -> Part:
    """Features and the model behind them, without what stands around a classifier."""
    recipes, order = columns_of(features, list(columns))
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
    return replace(made, columns=recipes, width=len(order), numbers=numbers, back=back)


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
        elif (
            type(model).__module__ == "windvane.tasks.balance"
            and {"factors_", "power_", "shifts_"} <= vars(model).keys()
        ):
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


def _dummy(model: Any) -> Part:
    if hasattr(model, "class_prior_"):
        if model.strategy != "prior":
            raise CannotCompile("a dummy that draws by chance cannot be compiled")
        return Part("constant", {"value": np.asarray(model.class_prior_).tolist()}, link="shares")
    return Part("constant", {"value": np.ravel(model.constant_).tolist()})


def _linear(model: Any) -> Part:
    link = "none"
    if hasattr(model, "classes_"):
        link = "softmax" if len(model.classes_) > 2 else "logistic"
    intercept = np.atleast_1d(model.intercept_).tolist()
    return Part("linear", {"weights": model.coef_, "intercept": intercept}, link=link)


def _forest(model: Any) -> Part:
    members = getattr(model, "estimators_", [model])
    read = [trees.of_sklearn(m.tree_, _leaves(m)) for m in members]
    targets = read[0].weights.shape[1]
    link = "shares" if hasattr(model, "classes_") else "none"
    # Divided at the end, as scikit-learn does: trees that are all sure then say 1 exactly, not 1 - 1e-16.
    numbers = {"baseline": [0.0] * targets, "divide": len(members)}
    return Part("trees", numbers, read, targets, link, single=True)


def _leaves(member: Any) -> NDArray[np.float64]:
    """What each node says (n, targets): the mean, or the classes' shares; of two classes the second one's."""
    values = np.asarray(member.tree_.value, dtype="float64")[:, 0, :]
    return values[:, 1:] if hasattr(member, "classes_") and values.shape[1] == 2 else values


def _boosting(model: Any) -> Part:
    targets = model.n_trees_per_iteration_
    if getattr(model, "_preprocessor", None) is not None:
        raise CannotCompile("its trees split native categories")
    read = [trees.of_boosting(p, k) for step in model._predictors for k, p in enumerate(step)]
    link = "none" if not hasattr(model, "classes_") else "softmax" if targets > 1 else "logistic"
    return Part("trees", {"baseline": np.ravel(model._baseline_prediction).tolist()}, read, targets, link)


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
