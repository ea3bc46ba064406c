"""A model's raw outputs as serving/compile.py reads them, and how those of combined pipelines stand side by side in one.

Inputs are laid beside each other and so are outputs: the parts are asked in one go, and serving/engine.py takes their mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from windvane.serving.trees import CannotCompile, Tree


@dataclass(frozen=True)
class Part:
    """Raw outputs (`targets`), what makes predictions of them (`link`, then `back`), and whether inputs are rounded to single
    precision. columns: the recipes of its inputs, which are `width` numbers. back: a list of steps; of combined parts, a list of
    such lists, one for each.
    """

    form: str
    numbers: dict[str, Any]
    trees: list[Tree] = field(default_factory=list)
    targets: int = 1
    link: str = "none"
    single: bool = False
    columns: list[Any] = field(default_factory=list)
    width: int = 0
    back: list[Any] = field(default_factory=list)
    of: str | None = None


def combined(parts: list[Part]) -> Part:
    """Of several of one form. Raises CannotCompile where they differ in more than what they have learned."""
    first = parts[0]
    for other in parts[1:]:
        for what in ("form", "targets", "link", "single"):
            if getattr(first, what) != getattr(other, what):
                raise CannotCompile(f"its parts differ in their {what}")
        if first.numbers.get("divide") != other.numbers.get("divide"):
            raise CannotCompile("its parts have different numbers of trees")
    width, targets = sum(part.width for part in parts), sum(part.targets for part in parts)
    beside: list[Tree] = []
    for number, part in enumerate(parts):
        inputs, outputs = sum(p.width for p in parts[:number]), sum(p.targets for p in parts[:number])
        beside += [_moved(tree, inputs, outputs, targets) for tree in part.trees]
    return replace(
        first,
        form="combined",
        of=first.form,
        numbers=_numbers(parts, width),
        trees=beside,
        targets=targets,
        columns=[recipe for part in parts for recipe in part.columns],
        width=width,
        back=[part.back for part in parts],
    )


def _numbers(parts: list[Part], width: int) -> dict[str, Any]:
    """The parts' numbers one after another; weights (outputs, inputs) are 0 on the inputs of the others."""
    made: dict[str, Any] = {}
    for name, value in parts[0].numbers.items():
        made[name] = value if name == "divide" else [one for part in parts for one in part.numbers[name]]
    if "weights" in made:
        at, rows = 0, []
        for part in parts:
            for weights in part.numbers["weights"]:
                row = np.zeros(width)
                row[at : at + part.width] = weights
                rows.append(row.tolist())
            at += part.width
        made["weights"] = rows
    return made


def _moved(tree: Tree, inputs: int, outputs: int, targets: int) -> Tree:
    """A tree that reads inputs and adds to outputs so much further to the right, of `targets` in all."""
    weights = tree.weights
    if (several := weights.shape[1]) > 1:
        weights = np.zeros((len(weights), targets))
        weights[:, outputs : outputs + several] = tree.weights
    return replace(tree, feature=tree.feature + inputs, weights=weights, target=tree.target + outputs)
