"""Why a prediction is what it is: how much each column added to it. Exact SHAP values of trees and linear models, estimates of others.

Whatever the model, base and effects of a row add up to its prediction, on the scale that is named beside them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from windvane.serving.compiled import engine as engines
from windvane.serving.compiled.engine import CompiledEngine, EnginePredictions, PlainColumns, PredictionEngine
from windvane.serving.compiled.tree_shap import TreeShap, count_path_values
from windvane.serving.signature import ModelSignature

# The nodes of compiled trees with how many training rows came by: TreeShap's arrays.
NODES_FILE = "nodes.npz"
# Of models that are estimated: orders in which a row's columns are exchanged for those of a stored row, forth and back.
SAMPLED_ORDERS = 40
# Trees whose paths hold more values are estimated too: exactly, one row would take seconds and a service's memory.
MAX_EXACT_VALUES = 4_000_000
# A smaller distance from the base is no distance.
_LEAST_DISTANCE = 1e-9

Array = NDArray[np.float64]
# prediction: the target's own unit; probability and log-odds: of the class that was predicted; score: its score before the softmax.
ExplanationScale = Literal["prediction", "probability", "log-odds", "score"]


@dataclass(frozen=True)
class Explanations:
    """Of n predictions: base (n,), the mean prediction, and effects (n, columns), which add up to the prediction on `scale`.

    exact: SHAP values; else they are estimated, or spread over a curved scale in proportion to those before the curve.
    """

    columns: Sequence[str]
    scale: ExplanationScale
    exact: bool
    base: Array
    effects: Array

    def list_reasons(self, count: int) -> list[dict[str, Any]]:
        """Per prediction its base, the `count` columns with the largest effects, largest first, and what the rest of them add."""
        order, top, rest = self._find_largest(count)
        return [
            {
                "base": base,
                "effects": [{"column": self.columns[i], "effect": e} for i, e in zip(places, effects, strict=True)],
                "rest": others,
            }
            for base, places, effects, others in zip(
                self.base.tolist(), order.tolist(), top.tolist(), rest.tolist(), strict=True
            )
        ]

    def list_columns(self, count: int) -> dict[str, Any]:
        """The same as columns (n,) of a table: explained_base, reason_1, effect_1, reason_2, ..., effect_rest."""
        order, top, rest = self._find_largest(count)
        names = np.array(self.columns, dtype=object)[order]
        made: dict[str, Any] = {"explained_base": self.base}
        for i in range(order.shape[1]):
            made |= {f"reason_{i + 1}": names[:, i], f"effect_{i + 1}": top[:, i]}
        return {**made, "effect_rest": rest}

    def _find_largest(self, count: int) -> tuple[NDArray[np.int64], Array, Array]:
        """Places and effects (n, count) of the largest, and what the others add (n,)."""
        order = np.argsort(-np.abs(self.effects), axis=1, kind="stable")[:, :count]
        top = np.take_along_axis(self.effects, order, axis=1)
        return order, top, self.effects.sum(axis=1) - top.sum(axis=1)


class PredictionExplainer:
    """Explains what one version predicts; what that takes is read at the first call.

    recipe: of engine.json, None for an engine that is not compiled. nodes: the bytes of NODES_FILE, None without one.
    background: some stored rows, against which models are explained that have neither.
    """

    def __init__(
        self,
        engine: PredictionEngine,
        signature: ModelSignature,
        recipe: Mapping[str, Any] | None,
        nodes: bytes | None,
        background: PlainColumns,
    ) -> None:
        self._engine, self._recipe, self._nodes, self._background = engine, recipe, nodes, background
        self._columns = [column.name for column in signature.inputs]
        self._places = {name: i for i, name in enumerate(signature.classes or ())}

    def explain(self, columns: PlainColumns, predictions: EnginePredictions) -> Explanations:
        """predictions: what the engine predicts for these columns."""
        called = np.array([self._places[value] for value in predictions.values]) if self._places else None
        raw = self._raw_effects(columns)
        if raw is None:
            return self._sample(columns, predictions, called)
        base, effects = raw
        of_columns = effects.transpose(0, 2, 1) @ self._owners  # (n, outputs, columns)
        return self._on_scale(base, of_columns, called)

    @cached_property
    def _form(self) -> str:
        recipe = self._recipe or {}
        form = str(recipe.get("of", recipe.get("form", "")))
        known = form == "constant" or (form == "linear" and "center" in recipe) or self._trees is not None
        return form if known else ""

    @cached_property
    def _owners(self) -> Array:
        """Which column each of the model's inputs was made from (width, columns), as 0 and 1."""
        assert self._recipe is not None
        made = np.zeros((int(self._recipe["width"]), len(self._columns)))
        at = 0
        for part in self._recipe["columns"]:
            width = engines.count_inputs(part)
            made[at : at + width, part["column"]] = 1.0
            at += width
        return made

    @cached_property
    def _trees(self) -> TreeShap | None:
        """None without nodes, and where their paths are too large."""
        if self._nodes is None or self._recipe is None:
            return None
        nodes = unpack_arrays(self._nodes)
        return TreeShap(nodes, int(self._recipe["width"])) if count_path_values(nodes) <= MAX_EXACT_VALUES else None

    def _raw_effects(self, columns: PlainColumns) -> tuple[Array, Array] | None:
        """Base (outputs,) and effects (n, width, outputs) on the model's raw outputs; None where they are not known exactly."""
        if not isinstance(self._engine, CompiledEngine) or not self._form:
            return None
        assert self._recipe is not None
        inputs, model = self._engine.matrix(columns), self._recipe["model"]
        if self._form == "constant":
            value = np.array(model["value"], dtype="float64")
            return value, np.zeros((*inputs.shape, len(value)))
        if self._form == "linear":
            weights, center = np.array(model["weights"], dtype="float64").T, np.array(self._recipe["center"])
            return center @ weights + np.array(model["intercept"]), (inputs - center)[:, :, None] * weights
        assert self._trees is not None
        divide = float(model.get("divide", 1))
        base = self._trees.base / divide + np.array(model["baseline"], dtype="float64")
        return base, self._trees.explain(inputs) / divide

    def _on_scale(self, base: Array, effects: Array, called: NDArray[np.int64] | None) -> Explanations:
        """base (outputs,), effects (n, outputs, columns). Parts that are combined have as many outputs each, side by side."""
        assert self._recipe is not None
        recipe = self._recipe
        parts = len(recipe["back"]) if recipe["form"] == "combined" else 1
        bases, by_part = np.split(base, parts), np.split(effects, parts, axis=1)
        if called is None:
            backs = recipe["back"] if recipe["form"] == "combined" else [recipe["back"]]
            found = [_bend(_build_back(back), b, e[:, 0]) for back, b, e in zip(backs, bases, by_part, strict=True)]
            exact = all(name == "unscale" for back in backs for name, *_ in back)
            return self._mean(found, "prediction", exact)
        link, bent = str(recipe["link"]), list(recipe["bent"])
        if link == "shares" and not bent:
            found = [_pick_shares(b, e, called) for b, e in zip(bases, by_part, strict=True)]
            return self._mean(found, "probability", True)
        if parts == 1 and link in ("logistic", "softmax"):
            return self._log_odds(base, effects, called, link, bent)
        to_shares = engines.LINK_FUNCTIONS[link]
        steps = [engines.PROBABILITY_STEPS[name](*numbers) for name, *numbers in bent]

        def predict(raw: Array) -> Array:
            shares = np.mean([to_shares(part) for part in np.split(raw, parts, axis=1)], axis=0)
            return reduce(lambda proba, step: step(proba), steps, shares)

        start = predict(base[None])[0, called]
        end = predict(base + effects.sum(axis=2))[np.arange(len(called)), called]
        towards = np.mean([_pick_outputs(e, called) for e in by_part], axis=0)
        return Explanations(self._columns, "probability", False, start, _spread(towards, end - start))

    def _log_odds(
        self, base: Array, effects: Array, called: NDArray[np.int64], link: str, bent: list[list[Any]]
    ) -> Explanations:
        """Of the called class: what corrects probabilities (engine.PROBABILITY_STEPS) multiplies or moves log-odds."""
        classes = 2 if link == "logistic" else len(base)
        score = np.array([0.0, base[0]]) if link == "logistic" else base.copy()
        times = 1.0
        for name, *numbers in bent:
            if name == "divide":
                score = score - np.log(np.array(numbers[0]))
            else:
                power, shifts, _ = numbers
                times, score = times * power, score * power + np.array(shifts)
        if classes == 2 and link == "logistic":
            odds, sign = score[1] - score[0], np.where(called == 1, 1.0, -1.0)
            return Explanations(self._columns, "log-odds", True, sign * odds, sign[:, None] * effects[:, 0] * times)
        return Explanations(self._columns, "score", True, score[called], _pick_outputs(effects, called) * times)

    def _mean(self, found: list[tuple[Array, Array]], scale: ExplanationScale, exact: bool) -> Explanations:
        base = np.mean([b for b, _ in found], axis=0)
        effects = np.mean([e for _, e in found], axis=0)
        return Explanations(self._columns, scale, exact, np.broadcast_to(base, len(effects)), effects)

    def _sample(
        self, columns: PlainColumns, predictions: EnginePredictions, called: NDArray[np.int64] | None
    ) -> Explanations:
        """Estimates by exchanging a row's columns, one after the other in random orders, for those of a stored row, forth and back
        (Strumbelj & Kononenko, Knowledge and Information Systems 2014). Each order's steps add up, and so does their mean.
        """
        rng = np.random.default_rng(0)  # the same rows are explained alike
        count, others = len(self._columns), len(self._background[0])
        orders = [rng.permutation(count) for _ in range(SAMPLED_ORDERS // 2)]
        orders = [o for order in orders for o in (order, order[::-1])]
        stored = rng.integers(0, others, SAMPLED_ORDERS // 2).repeat(2)
        bases, effects = [], []
        for row in range(len(columns[0])):
            mixed: list[list[Any]] = [[] for _ in range(count)]
            for order, other in zip(orders, stored.tolist(), strict=True):
                place = np.argsort(order)
                for step in range(count + 1):
                    for i in range(count):
                        mixed[i].append(columns[i][row] if place[i] < step else self._background[i][other])
            said = self._engine.predict(mixed)
            value = np.array(said.values, dtype="float64") if called is None else np.asarray(said.proba)[:, called[row]]
            steps = np.diff(value.reshape(len(orders), count + 1), axis=1)
            effects.append(np.mean([s[np.argsort(o)] for s, o in zip(steps, orders, strict=True)], axis=0))
            bases.append(value.reshape(len(orders), count + 1)[:, 0].mean())
        scale: ExplanationScale = "prediction" if called is None else "probability"
        return Explanations(self._columns, scale, False, np.array(bases), np.array(effects))


def pack_arrays(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as the content of a file."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def unpack_arrays(packed: bytes) -> dict[str, NDArray[Any]]:
    """What pack_arrays() was given. Nothing is opened by pickle."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)


def _build_back(back: list[list[Any]]) -> Callable[[Array], Array]:
    steps = [engines.TARGET_STEPS[name](*numbers) for name, *numbers in back]
    return lambda raw: reduce(lambda values, step: step(values), steps, raw)


def _bend(back: Callable[[Array], Array], base: Array, effects: Array) -> tuple[Array, Array]:
    """Base and effects (n, columns) behind a function of their sum: exactly if it is a line, else in proportion."""
    start, end = back(base), back(base + effects.sum(axis=1))
    return start, _spread(effects, end - start)


def _spread(effects: Array, distance: Array) -> Array:
    """Effects (n, columns) so stretched that they add up to the distance (n,); shared alike where they add up to nothing."""
    total = effects.sum(axis=1)
    near = np.abs(total) < _LEAST_DISTANCE
    stretched = effects * np.where(near, 1.0, distance / np.where(near, 1.0, total))[:, None]
    return stretched + np.where(near, distance - total, 0.0)[:, None] / effects.shape[1]


def _pick_outputs(effects: Array, called: NDArray[np.int64]) -> Array:
    """Effects (n, columns) on the called class's own output; of two classes with one output the second has it."""
    if effects.shape[1] == 1:
        return effects[:, 0] * np.where(called == 1, 1.0, -1.0)[:, None]
    return effects[np.arange(len(called)), called]


def _pick_shares(base: Array, effects: Array, called: NDArray[np.int64]) -> tuple[Array, Array]:
    start = np.array([1 - base[0], base[0]]) if len(base) == 1 else base
    return start[called], _pick_outputs(effects, called)
