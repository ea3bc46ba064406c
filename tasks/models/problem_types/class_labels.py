"""What a class is called: labels as they are compared, and which of two is the one to be found. Needs no library that fits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from windvane.tasks.models.problem_types.definitions import ClassLabel

# The usual names of the class to be found; of two classes of other names it is the later one in sorted order,
# as in scikit-learn. It must not depend on the rows: a resampled half could otherwise swap precision's meaning.
_POSITIVE_NAMES = {"1", "true", "yes", "y", "t", "on", "positive", "pos", "ja", "oui", "sí", "si", "sim", "tak", "да"}


def convert_to_target_classes(target: Any) -> NDArray[Any]:
    """Target column (n,) as labels: bool, int64 (whole floats too: a missing label turns ints into floats) or str."""
    values = np.asarray(target)
    if values.dtype == bool or (values.dtype == object and all(isinstance(v, bool | np.bool_) for v in values)):
        return values.astype(bool)
    if values.dtype.kind in "iu":
        return values.astype("int64")
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        return values.astype("int64")
    return values.astype(str)


def find_positive_class(classes: NDArray[Any], positive: ClassLabel | None = None) -> int:
    """Which of two classes (2,) precision, recall, F1 and the ranking metrics are of: the index of `positive` (problem.positive),
    else of 1, true, yes, ..., else 1.
    """
    if positive is not None and (at := [i for i, c in enumerate(classes) if is_class(c, positive)]):
        return at[0]
    found = [i for i, c in enumerate(classes) if str(c).strip().lower() in _POSITIVE_NAMES]
    return found[0] if len(found) == 1 else 1


def is_class(one: Any, named: ClassLabel) -> bool:
    """Whether a class is the one that params.yaml names: 1 and 1.0 are one class, and so are 1 and "1"."""
    return str(one) == str(named) or (not isinstance(named, str) and bool(one == named))
