"""Stable 64-bit hashes: the key of a row, and the share of a key under a seed. Knows nothing of files.

Python's own hash() changes from process to process; these never do, or rows would change sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

_MISSING = 0x9E3779B97F4A7C15
# Above this, neighbouring whole numbers share a float64.
_EXACT = 2**53


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, elementwise: a bijection that spreads every bit (Steele, Lea & Flood, OOPSLA 2014)."""
    import numpy as np

    z = bits + np.uint64(0x9E3779B97F4A7C15)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return z


def of(frame: pl.DataFrame | pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.int64]:
    """One key per row, (n,) int64, from the named columns' values. Equal rows share a key.

    A whole number, its float, and a number in a column that has since got gaps hash alike: keys outlive a change
    of type by a missing value. The order of `names` does not matter; the names do not either.
    """
    import numpy as np

    key = np.zeros(len(frame), dtype=np.uint64)
    for name in sorted(names):
        key *= np.uint64(3)
        key ^= hashed(frame[name])
        key = mix(key)
    return key.view(np.int64)


def hashed(values: pl.Series | pd.Series) -> NDArray[np.uint64]:
    """One hash per value of a column with a canonical dtype, (n,) uint64; missing is one fixed value."""
    import numpy as np
    import polars as pl

    column = values if isinstance(values, pl.Series) else pl.Series(pl.from_pandas(values, nan_to_null=True))
    if column.dtype == pl.String:
        return _of_words(column)
    dated = column.dtype.is_temporal()
    bits = column.to_physical().fill_null(0).to_numpy().view(np.uint64) if dated else _of_numbers(column)
    of_values = mix(bits)
    if column.null_count():
        of_values[column.is_null().to_numpy()] = _MISSING
    return of_values


def _of_numbers(values: pl.Series) -> NDArray[np.uint64]:
    import numpy as np
    import polars as pl

    plain = values.fill_null(0 if values.dtype != pl.Boolean else False).to_numpy()
    floats = plain + 0.0  # minus zero is zero
    bits: NDArray[np.uint64] = floats.view(np.uint64)
    if values.dtype == pl.Int64:
        far = np.abs(floats) > _EXACT
        if far.any():
            bits[far] = plain.view(np.uint64)[far]
    return bits


def _of_words(values: pl.Series) -> NDArray[np.uint64]:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    coded = values.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    # pandas documents hash_array as stable (SipHash with a fixed key).
    words = coded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    of_words = np.append(mix(pd.util.hash_array(words, categorize=False)), np.uint64(_MISSING))
    codes = coded.indices.cast(pa.int64()).fill_null(len(words)).to_numpy()
    return of_words[codes]


def share(key: NDArray[np.int64] | NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, (n,): uniform over keys, fixed for ever by key and seed."""
    import numpy as np

    spread = mix(key.view(np.uint64) ^ mix(np.full(1, seed, dtype=np.uint64)))
    return (spread >> np.uint64(11)).astype(np.float64) * 2.0**-53
