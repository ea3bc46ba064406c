"""What the held-out record says in figures: metrics with intervals, confusion, calibration. Fits nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from windvane.tasks.bootstrap import bootstrap
from windvane.tasks.resampling import Interval, units

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Settings

PREDICTION, LOSS, BASELINE_LOSS, PROBABILITY = "_prediction", "_loss", "_baseline_loss", "_p_"

CALIBRATION_BINS = 10
FEWEST_IN_BIN = 20


@dataclass(frozen=True)
class Confusion:
    """Counts (true class, predicted class), classes in the model's order, then classes that the model never met."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Bin:
    """Rows of like predicted probability: its mean, the share that came true, and that share's 95 % interval."""

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Reliability: bins of equal size; `error`: expected calibration error; `of`: which probability is meant."""

    of: str
    error: float
    bins: tuple[Bin, ...]


def predictions(record: pd.DataFrame, truth: NDArray[Any]) -> Predictions:
    """The predictions that a record holds; classes have the type of `truth` (n,)."""
    import numpy as np

    from windvane.tasks.problems import Predictions

    value = record[PREDICTION].to_numpy()
    # Whatever the table's own columns are called, these stand behind the last one that Windvane always writes.
    names = list(record.columns[list(record.columns).index(BASELINE_LOSS) + 1 :])
    if not names:
        return Predictions(value)
    readers: dict[str, Callable[[str], Any]] = {"b": lambda name: name == "True", "i": int, "f": float}
    read = readers.get(truth.dtype.kind, str)
    classes = np.array([read(name.removeprefix(PROBABILITY)) for name in names])
    return Predictions(value, record[names].to_numpy(dtype=np.float64), classes)


def class_name(value: Any) -> str:
    """A class as it stands in a column's name."""
    return str(value)


def scores(kind: Kind, record: pd.DataFrame, settings: Settings, seed: int) -> dict[str, Interval]:
    """Every metric of the kind on the record, with a 95 % bootstrap interval; see bootstrap().

    Resampled by block of time or by group where the problem names a time or a group, else by row (tasks/resampling.py).
    """
    truth = kind.truth(record[settings.problem.target])
    pieces = units(record, record[LOSS].to_numpy(dtype="float64"), settings.problem)
    return bootstrap(kind, truth, predictions(record, truth), pieces, seed, kind.metrics)


def confusion(truth: NDArray[Any], made: Predictions) -> Confusion | None:
    """Who is taken for whom; None where there are no classes."""
    import numpy as np
    import pandas as pd

    if made.classes is None:
        return None
    names = [class_name(c) for c in made.classes]
    true = [class_name(v) for v in truth]
    classes = [*names, *sorted(set(true) - set(names))]
    at = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(
        counts,
        (pd.Series(true).map(at).to_numpy(int), pd.Series([class_name(v) for v in made.value]).map(at).to_numpy(int)),
        1,
    )
    return Confusion(tuple(classes), tuple(tuple(int(n) for n in row) for row in counts))


def calibration(truth: NDArray[Any], made: Predictions) -> Calibration | None:
    """Whether probabilities come true; None where there are none.

    Two classes: the probability of the positive one. More: of the predicted class (Guo et al., ICML 2017). The error is
    the mean distance between predicted and observed (Naeini, Cooper & Hauskrecht, AAAI 2015), in bins of equal size
    (Nixon et al., CVPR workshops 2019). Intervals: Wilson, JASA 22 (1927).
    """
    import numpy as np

    from windvane.tasks.problems.classification import positive

    if made.proba is None or made.classes is None or not len(truth):
        return None
    if len(made.classes) == 2:
        at = positive(made.classes)
        of, predicted, came_true = f"P({class_name(made.classes[at])})", made.proba[:, at], truth == made.classes[at]
    else:
        of, predicted = "P(predicted class)", made.proba.max(axis=1)
        came_true = truth == made.classes[made.proba.argmax(axis=1)]
    order = np.argsort(predicted, kind="stable")
    bins = []
    for part in np.array_split(order, min(CALIBRATION_BINS, max(len(order) // FEWEST_IN_BIN, 1))):
        low, high = wilson(int(came_true[part].sum()), len(part))
        bins.append(Bin(float(predicted[part].mean()), float(came_true[part].mean()), low, high, len(part)))
    error = sum(abs(b.predicted - b.observed) * b.rows for b in bins) / len(order)
    return Calibration(of, float(error), tuple(bins))


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z2 = 1.96**2
    centre = (hits + z2 / 2) / (rows + z2)
    margin = 1.96 * sqrt(hits * (rows - hits) / rows + z2 / 4) / (rows + z2)
    return max(centre - margin, 0.0), min(centre + margin, 1.0)
