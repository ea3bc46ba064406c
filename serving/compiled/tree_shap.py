"""SHAP values of trees, exactly: how far each input moved a row's raw output from the mean over the training rows.

The game is that of path-dependent tree SHAP (Lundberg et al., Nature Machine Intelligence 2020): an input that is not known sends a row
down both sides, in the shares of the training rows. One leaf's share of it is a product over the inputs on its path, so Shapley's weights
become an integral of a polynomial, which Gauss-Legendre quadrature solves without error. It imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values of a table in memory at once; and up to how many in all they are kept from row to row.
_TABLE_VALUES, _KEPT_VALUES = 200_000, 2_000_000
# A side that no training row took has this share, so that nothing is divided by zero.
_LEAST_SHARE = 1e-12

Array = NDArray[Any]


@dataclass(frozen=True)
class _Paths:
    """Paths of p leaves that read d inputs: per input and path (d, p) which it is, between which bounds it must lie
    (low < x <= high), whether a missing value passes, and the share of training rows that pass; weights (p, targets) of the leaves.
    outputs: per raw output that the leaves add to, where each value goes (d * p,), and the leaves' weights (p,).
    """

    feature: Array
    low: Array
    high: Array
    missing: Array
    share: Array
    weights: Array
    outputs: list[tuple[Array, Array]]


class TreeShap:
    """trees: arrays over the n nodes of all trees: feature, threshold, left, right (-1 at leaves), missing_left, cover (how many training
    rows came by), weights (n, targets); what leaves add to each of the raw outputs. Nodes are numbered through all trees.
    """

    def __init__(self, trees: Mapping[str, Array], width: int) -> None:
        self._width, self._targets = width, trees["weights"].shape[1]
        self._paths, alone = _list_paths(trees)
        self.base: Array = alone + sum((p.share.prod(axis=0) @ p.weights for p in self._paths), np.zeros(self._targets))
        kept = sum(p.feature.size * _count_points(p) for p in self._paths) <= _KEPT_VALUES
        self._tables = [_make_tables(p) for p in self._paths] if kept else None

    def explain(self, inputs: Array) -> Array:
        """SHAP values (n, width, targets) of the model's inputs (n, width): with the base they add up to the raw outputs."""
        found = np.zeros((len(inputs), self._width * self._targets))
        for number, paths in enumerate(self._paths):
            tables = self._tables[number] if self._tables is not None else _make_tables(paths)
            for row, values in enumerate(inputs):
                shares = _share_of_paths(paths, tables, values)
                for places, weights in paths.outputs:
                    found[row] += np.bincount(places, (shares * weights).ravel(), found.shape[1])
        return found.reshape(len(inputs), self._width, self._targets)


@dataclass(frozen=True)
class _Tables:
    """Per quadrature point q, input and path (q, d, p): the factor of an input that lets the row pass, of one that does not, and what
    remains of the product without the former's own factor; the latter's remainder is `without` (q, 1, 1). weights (q, 1) of the points.
    """

    passing: Array
    stopping: Array
    rest: Array
    without: Array
    weights: Array


def _count_points(paths: _Paths) -> int:
    """So many points integrate a polynomial of degree d - 1 exactly."""
    return (len(paths.feature) + 1) // 2


def _make_tables(paths: _Paths) -> _Tables:
    points, weights = np.polynomial.legendre.leggauss(_count_points(paths))
    t = ((points + 1) / 2)[:, None, None]
    stopping = paths.share * (1 - t)
    passing = stopping + t
    return _Tables(passing, stopping, (1 - paths.share) / passing, -1 / (1 - t), weights[:, None] / 2)


def _share_of_paths(paths: _Paths, tables: _Tables, values: Array) -> Array:
    """Shapley's value (d, p) of each input of a row (width,) for a leaf of weight 1.

    It is the integral over t from 0 to 1 of (o - z) times the product over the other inputs of z (1 - t) + o t, where o is whether the
    input lets the row pass (1 or 0), and z is the share of the training rows that passed.
    """
    x = values[paths.feature]
    passes = (x > paths.low) & (x <= paths.high)
    if np.isnan(values).any():
        passes |= np.isnan(x) & paths.missing
    products = np.where(passes, tables.passing, tables.stopping).prod(axis=1) * tables.weights
    return np.einsum("qp,qdp->dp", products, np.where(passes, tables.rest, tables.without))


def count_path_values(trees: Mapping[str, Array]) -> int:
    """How many values an explanation of one row takes at most: a factor per input on the path to each leaf, at each point."""
    parent, node = _find_parents(trees), np.flatnonzero(trees["left"] < 0)
    total = depth = 0
    while len(above := parent[node][parent[node] >= 0]):
        depth += 1
        ends = len(node) - len(above)  # leaves whose path is over
        total += ends * (depth - 1) * (depth // 2)
        node = above
    return total + len(node) * depth * ((depth + 1) // 2)


def _find_parents(trees: Mapping[str, Array]) -> Array:
    """The node above each (n,); -1 above roots."""
    inner = np.flatnonzero(trees["left"] >= 0)
    parent = np.full(len(trees["left"]), -1)
    parent[trees["left"][inner]] = parent[trees["right"][inner]] = inner
    return parent


def _list_paths(trees: Mapping[str, Array]) -> tuple[list[_Paths], Array]:
    """The paths to all leaves, by how many inputs they read; and what leaves add (targets,) that are trees of their own."""
    left, cover = trees["left"], trees["cover"]
    leaves, parent = np.flatnonzero(left < 0), _find_parents(trees)
    edges: list[tuple[Array, ...]] = []
    path, node = np.arange(len(leaves)), leaves
    while len(path):
        above = parent[node]
        path, node, above = (part[above >= 0] for part in (path, node, above))
        yes, threshold = left[above] == node, trees["threshold"][above]
        low, high = np.where(yes, -np.inf, threshold), np.where(yes, threshold, np.inf)
        share = cover[node] / np.maximum(cover[above], _LEAST_SHARE)
        edges.append((path, trees["feature"][above], low, high, trees["missing_left"][above] == yes, share))
        node = above
    path, feature, low, high, missing, share = (np.concatenate(part) for part in zip(*edges, strict=True))
    order = np.lexsort((feature, path))
    path, feature = path[order], feature[order]
    first = np.flatnonzero(np.r_[True, (np.diff(path) != 0) | (np.diff(feature) != 0)][: len(path)])
    if not len(first):
        return [], trees["weights"][leaves].sum(axis=0)
    merged = {
        "low": np.maximum.reduceat(low[order], first),
        "high": np.minimum.reduceat(high[order], first),
        "missing": np.logical_and.reduceat(missing[order], first),
        "share": np.maximum(np.multiply.reduceat(share[order], first), _LEAST_SHARE),
        "feature": feature[first],
    }
    path = path[first]
    asked = np.bincount(path, minlength=len(leaves))
    found = []
    for depth in np.unique(asked[asked > 0]):
        of_depth = asked[path] == depth
        parts = {name: values[of_depth].reshape(-1, depth).T for name, values in merged.items()}
        weights = trees["weights"][leaves[asked == depth]]
        size = max(1, _TABLE_VALUES // (depth * ((depth + 1) // 2)))
        for start in range(0, len(weights), size):
            piece = {name: np.ascontiguousarray(values[:, start : start + size]) for name, values in parts.items()}
            added = weights[start : start + size]
            outputs = [
                ((piece["feature"] * added.shape[1] + target).ravel(), added[:, target].copy())
                for target in np.flatnonzero(added.any(axis=0))
            ]
            found.append(_Paths(**piece, weights=added, outputs=outputs))
    return found, trees["weights"][leaves[asked == 0]].sum(axis=0)
