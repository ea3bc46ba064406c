"""Stable 64-bit hashes: the key of each row and its share under a seed, the same in every process.

Also the words of a column, encoded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

_MISSING_HASH = 0x9E3779B97F4A7C15
# Above this, neighbouring whole numbers share a float64.
_LARGEST_EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class EncodedWords:
    """A column of words, and by its different ones: (n,) places in `different`; a place past these: no value.
    `hashes`: of_words() of `different`, where they are known.
    """

    values: pl.Series
    codes: NDArray[np.int64]
    different: pl.Series
    hashes: NDArray[np.uint64] | None = None


def mix_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, elementwise: a bijection that spreads every bit (Steele, Lea & Flood, OOPSLA 2014)."""
    mixed = bits.copy()
    _mix(mixed, np.empty_like(mixed))
    return mixed


def _mix(z: NDArray[np.uint64], spare: NDArray[np.uint64]) -> None:
    """mix() in place: a key is made of twenty and more of these, so memory is not allocated each time."""
    z += np.uint64(0x9E3779B97F4A7C15)
    z ^= np.right_shift(z, np.uint64(30), out=spare)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=spare)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=spare)


def hash_rows(frame: pl.DataFrame | pd.DataFrame, names: tuple[str, ...]) -> NDArray[np.int64]:
    """One key per row, (n,) int64, from the named columns' values. Equal rows share a key.

    A whole number, its float, and a number in a column that has since got gaps hash alike: keys outlive a change
    of type by a missing value. The order of `names` does not matter; the names do not either.
    """
    return combine_columns([_column(frame[name]) for name in sorted(names)], len(frame))


def combine_columns(columns: list[pl.Series | EncodedWords], rows: int) -> NDArray[np.int64]:
    """The keys of rows from their columns, sorted by name."""
    key, bits, spare = np.zeros(rows, np.uint64), np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    for column in columns:
        _hash(column, bits, spare)
        key *= np.uint64(3)
        key ^= bits
        _mix(key, spare)
    return key.view(np.int64)


def hash_values(values: pl.Series | pd.Series) -> NDArray[np.uint64]:
    """One hash per value of a column with a canonical dtype, (n,) uint64; missing is one fixed value."""
    bits = np.empty(len(values), np.uint64)
    _hash(_column(values), bits, np.empty_like(bits))
    return bits


def encode_words(values: pl.Series) -> EncodedWords:
    """A column of words by its different words, in the order in which they come."""
    coded = values.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    different = pl.Series(values.name, coded.dictionary, dtype=pl.String)
    return EncodedWords(values, coded.indices.cast(pa.int64()).fill_null(len(different)).to_numpy(), different)


def _column(values: pl.Series | pd.Series) -> pl.Series:
    return values if isinstance(values, pl.Series) else pl.Series(pl.from_pandas(values, nan_to_null=True))


def _hash(column: pl.Series | EncodedWords, bits: NDArray[np.uint64], spare: NDArray[np.uint64]) -> None:
    """Fill `bits` with the hashes of a column's values."""
    if isinstance(column, pl.Series) and column.dtype == pl.String:
        column = encode_words(column)
    if isinstance(column, EncodedWords):
        hashes = hash_words(column.different) if column.hashes is None else column.hashes
        hashes.take(column.codes, out=bits, mode="clip")
        return
    if column.dtype.is_temporal():
        bits[:] = column.to_numpy().view(np.uint64)
    else:
        _numbers(column, bits)
    _mix(bits, spare)
    if column.null_count():
        bits[column.to_arrow().is_null().to_numpy(zero_copy_only=False)] = _MISSING_HASH


def _numbers(column: pl.Series, bits: NDArray[np.uint64]) -> None:
    plain = column.to_numpy() if not column.null_count() else _filled(column)
    floats = np.add(plain, 0.0, out=bits.view(np.float64))  # + 0.0: minus zero is zero
    # The ends first: hardly a column has such numbers.
    if (
        column.dtype == pl.Int64
        and len(plain)
        and (floats.max() > _LARGEST_EXACT_FLOAT or floats.min() < -_LARGEST_EXACT_FLOAT)
    ):
        far = np.abs(floats) > _LARGEST_EXACT_FLOAT
        bits[far] = plain.view(np.uint64)[far]


def _filled(column: pl.Series) -> NDArray[Any]:
    """Numbers with any value where there is none. By pyarrow, as elsewhere here: polars plans a query for each call, which
    costs more than the call where a batch is small.
    """
    filled: NDArray[Any] = (
        column.to_arrow().fill_null(False if column.dtype == pl.Boolean else 0).to_numpy(zero_copy_only=False)
    )
    return filled


def hash_words(different: pl.Series) -> NDArray[np.uint64]:
    """One hash for each word, and one more for no value."""
    # pandas documents hash_array as stable (SipHash with a fixed key).
    of_words = mix_bits(pd.util.hash_array(np.array(different.to_list(), dtype=object), categorize=False))
    if different.null_count():
        of_words[different.is_null().to_numpy()] = _MISSING_HASH
    return np.append(of_words, np.uint64(_MISSING_HASH))


def map_to_unit_interval(key: NDArray[np.int64] | NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, (n,): uniform over keys, fixed for ever by key and seed."""
    spread = mix_bits(key.view(np.uint64) ^ mix_bits(np.full(1, seed, dtype=np.uint64)))
    return (spread >> np.uint64(11)).astype(np.float64) * 2.0**-53
