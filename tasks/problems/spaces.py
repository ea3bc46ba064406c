"""Hyperparameters that kinds share: trees cut numbers and classes alike. Owns bounds and defaults only."""

from __future__ import annotations

from windvane.tasks.problems import Dimension, Float, Int

# 32 levels cut a million rows down to single ones: it stands for "no limit", and is one a person can read.
TREE: dict[str, Dimension] = {
    "max_depth": Int(2, 32, 10, log=True),
    "min_samples_leaf": Int(1, 200, 10, log=True),
}

# More trees are never worse, only slower, so their number is not tuned. max_samples keeps a forest on a large table to
# seconds: a tree sees at most this many rows, another draw for each tree (measured: 235,000 rows, 25 CPU seconds).
FOREST: dict[str, Dimension] = {
    "n_estimators": Int(10, 1000, 100, tuned=False),
    "max_samples": Int(1_000, 1_000_000, 25_000, tuned=False),
    "max_depth": Int(4, 32, 32, log=True),
    "min_samples_leaf": Int(1, 50, 1, log=True),
    "max_features": Float(0.1, 1.0, 0.5),
}

# max_iter is a ceiling: boosting sets a tenth of its training rows aside and stops once they see no gain for a while.
BOOSTING: dict[str, Dimension] = {
    "learning_rate": Float(0.02, 0.3, 0.1, log=True),
    "max_leaf_nodes": Int(4, 127, 31, log=True),
    "min_samples_leaf": Int(2, 200, 20, log=True),
    "l2_regularization": Float(1e-3, 100.0, 1e-3, log=True),
    "max_features": Float(0.2, 1.0, 1.0),
    "max_iter": Int(10, 5000, 1000, tuned=False),
    "n_iter_no_change": Int(1, 200, 20, tuned=False),
    "validation_fraction": Float(0.05, 0.5, 0.1, tuned=False),
}
