"""Classes that became more or less frequent: which shares hold by now, and how much a row of each class then counts. Fits nothing.

While what a class looks like stays as it was (label shift), rows that count p_now(class) / p_taught(class) times stand for the world of
now: Saerens, Latinne & Decaestecker, Neural Computation 14 (2002); Lipton, Wang & Smola, ICML 2018. There the shares of now are
estimated from a model's answers; here the labels have come, and are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.tasks import history

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.watch_settings import Window

# A window of fewer rows tells too little of shares: then so many of the newest rows count. And so many rows as all are come on
# top, so that a class which the newest rows happen to miss never counts nothing.
_FEWEST, _PRIOR = 100, 10


def shares(truth: NDArray[Any], times: pd.Series, window: Window) -> dict[Any, float]:
    """The share of each class in the newest window of labelled rows: `truth` (n,) as labels, `times` (n,); they add up to 1."""
    newest = history.newest(times, window, 1) | (times.rank(method="first", ascending=False) <= _FEWEST).to_numpy()
    classes, at = np.unique(truth, return_inverse=True)
    now, all_ = (np.bincount(part, minlength=len(classes)) for part in (at[newest], at))
    found = (now + _PRIOR * all_ / len(truth)) / (newest.sum() + _PRIOR)
    return dict(zip(classes.tolist(), found.tolist(), strict=True))


def weights(truth: NDArray[Any], now: dict[Any, float]) -> dict[Any, float]:
    """How much a row of each class counts, that the shares `now` hold among rows of `truth` (n,): 1 on average over these rows."""
    classes, counts = np.unique(truth, return_counts=True)
    return {c: now[c] * len(truth) / int(n) for c, n in zip(classes.tolist(), counts.tolist(), strict=True)}


def said(now: dict[Any, float], window: str) -> str:
    """The remedy in words, with the commonest classes."""
    first = sorted(now, key=lambda c: -now[c])[:5]
    told = ", ".join(f"{c} {now[c]:.1%}" for c in first) + (" ..." if len(now) > 5 else "")
    return f"classes weighted as frequent as in the newest window of labels ({window}) after label drift: {told}"
