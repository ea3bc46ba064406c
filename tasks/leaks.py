"""Columns that give the target away: near-copies, and columns filled in together with it. Looks at one at a time.

What only several columns give away together (a price as volume over sales) is not seen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

# One honest column seldom tells the classes apart this well: the best of breast cancer reaches 0.92, of iris 0.95.
_DETERMINED = 0.98
# ...nor orders amounts this well. Yesterday's value of a slow series comes close, and is honest.
_SAME_ORDER = 0.995
# Empty in the same rows as the target: both come from one event. At the lower share the column must also say much of
# the target.
_TOGETHER, _OFTEN_TOGETHER = 0.98, 0.8
_TELLING_CLASSES, _TELLING_ORDER = 0.8, 0.5
# With fewer rows to a value than this, counting per value says little.
_ROWS_A_VALUE = 40


def giveaway(column: pd.Series, target: pd.Series, classes: bool) -> str | None:
    """Why `column` must not be learned from, or None. Both have one length n; gaps in `target` are telling too.

    `classes`: the target is a class, else an amount.
    """
    has = target.notna()
    known, label = column[has], target[has]
    alone = strength(column, target, classes)
    if alone >= (_DETERMINED if classes else _SAME_ORDER):
        return f"alone gives the target away ({alone:.3f} of 1): a near-copy, or known only afterwards"
    if (
        not classes
        and 2 <= known.nunique() <= 20
        and _classes(label, known.astype("str").where(known.notna(), "missing")) >= _DETERMINED
    ):
        return "is made from the target"
    if classes and any(_together(column.isna(), target == k) >= _OFTEN_TOGETHER for k in label.unique()):
        return "is empty in the rows of one class: known only afterwards"
    together = _together(column.isna(), ~has)
    telling = alone >= (_TELLING_CLASSES if classes else _TELLING_ORDER)
    if together >= _TOGETHER or (together >= _OFTEN_TOGETHER and telling):
        return "is empty where the target is: known only when the target is"
    return None


def strength(column: pd.Series, target: pd.Series, classes: bool) -> float:
    """How far `column` alone tells the target, 0 to 1: balanced accuracy of classes, |Spearman's rho| of amounts."""
    has = target.notna()
    return _classes(column[has], target[has]) if classes else _order(column[has], target[has])


def _together(a: pd.Series, b: pd.Series) -> float:
    """How far two masks agree: Jaccard's index of the marked rows or of the unmarked ones, whichever is lower.

    One of them alone is high by chance where both masks cover most rows, or few.
    """
    pairs = ((a & b, a | b), (~a & ~b, ~a | ~b))
    return min(float(both.sum()) / max(int(either.sum()), 1) for both, either in pairs)


def _order(column: pd.Series, label: pd.Series) -> float:
    """|Spearman's rho| over the rows that have both; 0 for columns without an order."""
    import numpy as np
    from pandas.api import types

    if not (types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column)):
        return 0.0
    both = column.notna()
    a, b = column[both].rank().to_numpy(), label[both].rank().to_numpy()
    if len(a) < 10 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(a, b)[0, 1]))


def _classes(column: pd.Series, label: pd.Series) -> float:
    """How well the column alone tells the classes: balanced accuracy on odd rows of a guess learned on even rows.

    Guess: the class for which a value is most usual; of a number with many values, the class of its nearest smaller
    neighbour.
    """
    import numpy as np

    label_codes, names = _codes(label)
    odd = np.arange(len(label)) % 2 == 1
    guess = _neighbour(column, label_codes, odd) if _many(column) else _usual(column, label_codes, odd)
    recalls = [
        (guess[odd & (label_codes == k)] == k).mean() for k in range(len(names)) if (odd & (label_codes == k)).any()
    ]
    return float(np.mean(recalls)) if len(recalls) > 1 else 0.0


def _many(column: pd.Series) -> bool:
    from pandas.api import types

    ordered = types.is_datetime64_any_dtype(column) or (
        types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    )
    return ordered and column.nunique() > len(column) / _ROWS_A_VALUE


def _usual(column: pd.Series, label: NDArray[np.intp], odd: NDArray[np.bool_]) -> NDArray[np.intp]:
    import numpy as np

    values = _codes(column)[0] + 1  # a missing value, -1, is a value here
    counts = np.zeros((int(values.max(initial=0)) + 1, int(label.max(initial=0)) + 1))
    np.add.at(counts, (values[~odd], label[~odd]), 1)
    return cast("NDArray[np.intp]", (counts / np.maximum(counts.sum(axis=0), 1)).argmax(axis=1)[values])


def _neighbour(column: pd.Series, label: NDArray[np.intp], odd: NDArray[np.bool_]) -> NDArray[np.intp]:
    import numpy as np

    order = np.argsort(column.rank().fillna(0.0).to_numpy(dtype="float64"), kind="stable")
    # Position of the last even row at or before each place; the first places look at the first even row.
    last = np.maximum.accumulate(np.where(odd[order], -1, np.arange(len(order))))
    first = int(np.argmin(odd[order]))
    guess = np.empty_like(label)
    guess[order] = label[order][np.where(last < 0, first, last)]
    return guess


def _codes(values: pd.Series) -> tuple[NDArray[np.intp], Any]:
    import pandas as pd

    codes, names = pd.factorize(values)
    return cast("NDArray[np.intp]", codes), names
