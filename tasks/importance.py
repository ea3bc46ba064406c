"""Which columns the model leans on: permutation importance on the validation side. Never sees the test side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks import features
from windvane.tasks.resampling import Units, mean

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.features import Columns
    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Settings

REPEATS = 3
MOST_ROWS = 1_000
FEWEST_ROWS = 100
# Rows predicted in all, whatever the number of columns; and in one call, where each call has a fixed price.
BUDGET = 150_000
AT_ONCE = 15_000


@dataclass(frozen=True)
class Importance:
    """Rise of the mean per-row loss when `column` is shuffled, with a 95 % interval over rows (None: too few)."""

    column: str
    rise: float
    low: float | None
    high: float | None


def importance(
    settings: Settings, kind: Kind, columns: Columns, model: Any, validation: pd.DataFrame, units: Units, seed: int
) -> tuple[Importance, ...]:
    """Permutation importance of each raw column, largest first: three shuffles on at most 1,000 rows of `validation`.

    Breiman, "Random Forests", Machine Learning 45 (2001); Fisher, Rudin & Dominici, JMLR 20 (2019). The interval treats
    rows of one unit as one observation. Columns that tell the same story share their importance: shuffling one leaves
    the other. The work is bounded: with many columns fewer rows are used, and at least 100.
    """
    import numpy as np
    import pandas as pd

    if not len(validation) or not columns.names:
        return ()
    rng = np.random.default_rng(seed)
    rows = min(len(validation), MOST_ROWS, max(BUDGET // (REPEATS * len(columns.names)), FEWEST_ROWS))
    some = np.sort(rng.choice(len(validation), rows, replace=False))
    truth = kind.truth(validation[settings.problem.target])[some]
    x = features.conform(validation.iloc[some], columns, "the validation side").reset_index(drop=True)
    headline, pieces = settings.problem.headline, units.take(some)
    before = kind.loss(truth, kind.predict(model, x), headline)
    together = max(AT_ONCE // (REPEATS * rows), 1)
    found: list[Importance] = []
    for start in range(0, len(columns.names), together):
        names = columns.names[start : start + together]
        shuffled = [
            x.assign(**{name: x[name].take(rng.permutation(rows)).set_axis(x.index)})
            for name in names
            for _ in range(REPEATS)
        ]
        after = kind.loss(
            np.tile(truth, len(shuffled)), kind.predict(model, pd.concat(shuffled, ignore_index=True)), headline
        )
        for name, losses in zip(names, after.reshape(len(names), REPEATS, rows).mean(axis=1), strict=True):
            interval = mean(losses - before, pieces)
            if interval.value is not None:
                found.append(Importance(name, interval.value, interval.low, interval.high))
    return tuple(sorted(found, key=lambda i: (-i.rise, i.column)))
