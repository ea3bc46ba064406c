"""Stable 64-bit hashes: the key of a row, and the share of a key under a seed. Knows nothing of files.

Python's own hash() changes from process to process; these never do, or rows would change sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_MISSING = 0x9E3779B97F4A7C15
# Above this, neighbouring whole numbers share a float64.
_EXACT = 2**53


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, elementwise: a bijection that spreads every bit (Steele, Lea & Flood, OOPSLA 2014)."""
    import numpy as np

    z = bits + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def of(frame: pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.int64]:
    """One key per row, (n,) int64, from the named columns' values. Equal rows share a key.

    A whole number, its float, and a number in a column that has since got gaps hash alike: keys outlive a change
    of type by a missing value. The order of `names` does not matter; the names do not either.
    """
    import numpy as np

    key = np.zeros(len(frame), dtype=np.uint64)
    for name in sorted(names):
        key = mix(key * np.uint64(3) ^ hashed(frame[name]))
    return key.view(np.int64)


def hashed(values: pd.Series) -> NDArray[np.uint64]:
    """One hash per value of a column with a canonical dtype, (n,) uint64; missing is one fixed value."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    missing = values.isna().to_numpy()
    if types.is_bool_dtype(values) or types.is_numeric_dtype(values):
        bits = _numbers(values)
    elif types.is_datetime64_any_dtype(values):
        bits = values.to_numpy().astype("datetime64[us]").astype(np.int64).view(np.uint64)
    else:
        codes, words = pd.factorize(values)
        # pandas documents hash_array as stable (SipHash with a fixed key).
        of_words = pd.util.hash_array(np.asarray(words, dtype=object), categorize=False)
        bits = np.append(of_words, np.uint64(0))[codes]
    return np.where(missing, np.uint64(_MISSING), mix(bits))


def _numbers(values: pd.Series) -> NDArray[np.uint64]:
    import numpy as np

    floats: Any = values.to_numpy(dtype="float64", na_value=np.nan) + 0.0  # + 0.0: minus zero is zero
    bits: NDArray[np.uint64] = floats.view(np.uint64)
    if values.dtype == np.int64:
        whole = values.to_numpy()
        bits = np.where(np.abs(floats) <= _EXACT, bits, whole.view(np.uint64))
    return bits


def share(key: NDArray[np.int64] | NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, (n,): uniform over keys, fixed for ever by key and seed."""
    import numpy as np

    spread = mix(key.view(np.uint64) ^ mix(np.full(1, seed, dtype=np.uint64)))
    return (spread >> np.uint64(11)).astype(np.float64) * 2.0**-53
