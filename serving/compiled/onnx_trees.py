"""Fitted trees as ONNX bytes, node by node, in double precision. Reads scikit-learn's private arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Operators of opset 5 of ai.onnx.ml take and give doubles; those of opset 3 give single floats but let a leaf hold a
# value for each of several classes.
_OPSET_DOUBLE, _OPSET_SHARES = 5, 3
# Nodes of one operator: while ONNX Runtime loads one, it takes several times what it keeps. How little a large forest in such
# parts takes is held by tests/serving/test_memory_limit.py.
MAX_OPERATOR_NODES = 100_000


class CannotCompile(ValueError):
    """This pipeline holds something that has no compiled form; the text names it."""


@dataclass(frozen=True)
class TreeArrays:
    """One tree of n nodes, the root first; left and right are -1 at leaves. Left if value <= threshold, or if missing and
    `missing_left`. weights (n, targets): what a leaf adds; `target`: to which output, when there is one weight only. cover: how many
    training rows came by.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    weights: NDArray[np.float64]
    cover: NDArray[np.float64]
    target: int = 0


def read_sklearn_tree(tree: Any, weights: NDArray[np.float64]) -> TreeArrays:
    """scikit-learn's `tree_` of a decision tree or one of a forest's."""
    return TreeArrays(
        np.asarray(tree.feature, dtype="int64"),
        np.asarray(tree.threshold, dtype="float64"),
        np.asarray(tree.children_left, dtype="int64"),
        np.asarray(tree.children_right, dtype="int64"),
        np.asarray(tree.missing_go_to_left, dtype=bool),
        weights,
        np.asarray(tree.weighted_n_node_samples, dtype="float64"),
    )


def read_boosting_tree(predictor: Any, target: int) -> TreeArrays:
    """A TreePredictor of histogram boosting. Raises CannotCompile where it splits native categories."""
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise CannotCompile("its trees split native categories")
    leaf = nodes["is_leaf"].astype(bool)
    return TreeArrays(
        nodes["feature_idx"].astype("int64"),
        nodes["num_threshold"].astype("float64"),
        np.where(leaf, -1, nodes["left"].astype("int64")),
        np.where(leaf, -1, nodes["right"].astype("int64")),
        nodes["missing_go_to_left"].astype(bool),
        nodes["value"].astype("float64")[:, None],
        nodes["count"].astype("float64"),
        target,
    )


def build_onnx_model(trees: list[TreeArrays], width: int, targets: int) -> bytes:
    """A model of one operator, or of several and their sum: `inputs` (n, width) double -> the trees' leaves added up (n, targets)."""
    several = trees[0].weights.shape[1] > 1
    opset, kind = (_OPSET_SHARES, TensorProto.FLOAT) if several else (_OPSET_DOUBLE, TensorProto.DOUBLE)
    nodes = [_shares_node(part) if several else _double_node(part, targets) for part in _group_trees(trees)]
    if len(nodes) > 1:
        for number, node in enumerate(nodes):
            node.output[0] = f"part{number}"
        nodes.append(helper.make_node("Sum", [node.output[0] for node in nodes], ["raw"]))
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("inputs", TensorProto.DOUBLE, [None, width])],
        [helper.make_tensor_value_info("raw", kind, [None, targets])],
    )
    imports = [helper.make_opsetid("ai.onnx.ml", opset), helper.make_opsetid("", 21)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())


def stack_trees(trees: list[TreeArrays], targets: int) -> dict[str, NDArray[Any]]:
    """All trees as one set of arrays over their n nodes, numbered through, as TreeShap reads them; weights (n, targets), 0 off leaves."""
    starts = np.cumsum([0, *(len(tree.left) for tree in trees)])
    weights = np.zeros((starts[-1], targets))
    for tree, start in zip(trees, starts, strict=False):
        leaf = tree.left < 0
        own = weights[start : start + len(leaf)]
        if tree.weights.shape[1] > 1:
            own[leaf] = tree.weights[leaf]
        else:
            own[leaf, tree.target] = tree.weights[leaf, 0]
    sides = {
        name: np.concatenate(
            [
                np.where(tree.left < 0, -1, getattr(tree, name) + start)
                for tree, start in zip(trees, starts, strict=False)
            ]
        ).astype("int32")
        for name in ("left", "right")
    }
    names = ("feature", "threshold", "missing_left", "cover")
    return {
        **{name: np.concatenate([getattr(tree, name) for tree in trees]) for name in names},
        **sides,
        "weights": weights,
    }


def _group_trees(trees: list[TreeArrays]) -> list[list[TreeArrays]]:
    """The trees in their order, in groups of at most MAX_OPERATOR_NODES nodes or a single tree."""
    parts: list[list[TreeArrays]] = []
    size = MAX_OPERATOR_NODES
    for tree in trees:
        if size + len(tree.left) > MAX_OPERATOR_NODES:
            parts.append([])
            size = 0
        parts[-1].append(tree)
        size += len(tree.left)
    return parts


def _double_node(trees: list[TreeArrays], targets: int) -> Any:
    """TreeEnsemble: inner nodes and leaves are numbered apart, through all trees."""
    parts: dict[str, list[Any]] = {
        name: [] for name in ("feature", "split", "yes", "yes_leaf", "no", "no_leaf", "missing")
    }
    roots, leaf_targets, leaf_weights = list[int](), list[int](), list[float]()
    for tree in map(_ensure_split, trees):
        leaf = tree.left < 0
        inner = np.flatnonzero(~leaf)
        place = np.empty(len(leaf), dtype="int64")
        place[inner] = len(parts["feature"]) + np.arange(len(inner))
        place[leaf] = len(leaf_weights) + np.arange(int(leaf.sum()))
        roots.append(len(parts["feature"]))
        left, right = tree.left[inner], tree.right[inner]
        for name, values in (
            ("feature", tree.feature[inner]),
            ("split", tree.threshold[inner]),
            ("yes", place[left]),
            ("yes_leaf", leaf[left].astype(int)),
            ("no", place[right]),
            ("no_leaf", leaf[right].astype(int)),
            ("missing", tree.missing_left[inner].astype(int)),
        ):
            parts[name] += values.tolist()
        leaf_targets += [tree.target] * int(leaf.sum())
        leaf_weights += tree.weights[leaf, 0].tolist()
    return helper.make_node(
        "TreeEnsemble",
        ["inputs"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=1,  # sum
        post_transform=0,
        tree_roots=roots,
        nodes_featureids=parts["feature"],
        nodes_splits=_tensor(parts["split"], "float64"),
        nodes_modes=_tensor([0] * len(parts["split"]), "uint8"),  # left if value <= threshold
        nodes_truenodeids=parts["yes"],
        nodes_trueleafs=parts["yes_leaf"],
        nodes_falsenodeids=parts["no"],
        nodes_falseleafs=parts["no_leaf"],
        nodes_missing_value_tracks_true=parts["missing"],
        leaf_targetids=leaf_targets,
        leaf_weights=_tensor(leaf_weights, "float64"),
    )


def _shares_node(trees: list[TreeArrays]) -> Any:
    """TreeEnsembleRegressor: each leaf adds to several outputs; zeros are not written."""
    ids = np.concatenate([np.full(len(tree.left), i) for i, tree in enumerate(trees)])
    nodes = np.concatenate([np.arange(len(tree.left)) for tree in trees])
    leaf = np.concatenate([tree.left < 0 for tree in trees])
    weights = np.concatenate([tree.weights for tree in trees])
    at, target = np.nonzero(weights * leaf[:, None])

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    return helper.make_node(
        "TreeEnsembleRegressor",
        ["inputs"],
        ["raw"],
        domain="ai.onnx.ml",
        n_targets=weights.shape[1],
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=ids.tolist(),
        nodes_nodeids=nodes.tolist(),
        nodes_featureids=np.where(leaf, 0, joined("feature")).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values_as_tensor=_tensor(np.where(leaf, 0.0, joined("threshold")), "float64"),
        nodes_truenodeids=np.where(leaf, 0, joined("left")).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, joined("right")).tolist(),
        nodes_missing_value_tracks_true=joined("missing_left").astype(int).tolist(),
        target_treeids=ids[at].tolist(),
        target_nodeids=nodes[at].tolist(),
        target_ids=target.tolist(),
        target_weights_as_tensor=_tensor(weights[at, target], "float64"),
    )


def _ensure_split(tree: TreeArrays) -> TreeArrays:
    """A tree of a single leaf as one with a split whose sides are equal: the operator knows no tree without a split."""
    if len(tree.left) > 1:
        return tree
    feature, missing_left = np.zeros(3, dtype="int64"), np.zeros(3, dtype=bool)
    left, right, weights = np.array([1, -1, -1]), np.array([2, -1, -1]), np.repeat(tree.weights, 3, axis=0)
    return TreeArrays(feature, np.zeros(3), left, right, missing_left, weights, np.ones(3), tree.target)


def _tensor(values: Any, dtype: str) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype))
