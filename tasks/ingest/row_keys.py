"""Stable 64-bit hashes: the key of each row and its share under a seed, the same in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

_MISSING_HASH = np.uint64(0x9E3779B97F4A7C15)
# Above this, neighbouring whole numbers share a float64.
_LARGEST_EXACT_FLOAT = 2**53


def mix_bits(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser, elementwise: a bijection that spreads every bit (Steele, Lea & Flood, OOPSLA 2014)."""
    z = bits.copy()
    _mix_in_place(z, np.empty_like(z))
    return z


def _mix_in_place(z: NDArray[np.uint64], spare: NDArray[np.uint64]) -> None:
    z += np.uint64(0x9E3779B97F4A7C15)
    z ^= np.right_shift(z, np.uint64(30), out=spare)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=spare)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=spare)


@dataclass(frozen=True)
class EncodedWords:
    """A column of words by its different ones: `codes` (n,) are places in `different`; a place past these: no value.

    hashes: hash_words() of `different`, where they are known.
    """

    codes: NDArray[Any]
    different: pl.Series
    hashes: NDArray[np.uint64] | None = None


def hash_rows(
    frame: pl.DataFrame | pd.DataFrame, names: tuple[str, ...], encoded: Mapping[str, EncodedWords] | None = None
) -> NDArray[np.int64]:
    """One key per row, (n,) int64, from the named columns' values. Equal rows share a key. `encoded`: columns whose words
    were encoded already.

    A whole number, its float, and a number in a column that has since got gaps hash alike: keys outlive a change
    of type by a missing value. The order of `names` does not matter; the names do not either.
    """
    key, spare = np.zeros(len(frame), np.uint64), np.empty(len(frame), np.uint64)
    for name in sorted(names):
        key *= np.uint64(3)
        key ^= _hash_encoded(encoded[name]) if encoded and name in encoded else hash_values(frame[name])
        _mix_in_place(key, spare)
    return key.view(np.int64)


def hash_values(values: pl.Series | pd.Series) -> NDArray[np.uint64]:
    """One hash per value of a column with a canonical dtype, (n,) uint64; missing is one fixed value."""
    column = values if isinstance(values, pl.Series) else pl.Series(pl.from_pandas(values, nan_to_null=True))
    if column.dtype == pl.String:
        return _hash_encoded(encode_words(column))
    hashes = mix_bits(column.to_numpy().view(np.uint64) if column.dtype.is_temporal() else _number_bits(column))
    if column.null_count():
        hashes[column.to_arrow().is_null().to_numpy(zero_copy_only=False)] = _MISSING_HASH
    return hashes


def encode_words(words: pl.Series) -> EncodedWords:
    """The different words in the order in which they come."""
    coded = words.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    different = pl.Series(words.name, coded.dictionary, dtype=pl.String)
    return EncodedWords(coded.indices.cast(pa.int64()).fill_null(len(different)).to_numpy(), different)


def find_words(words: pl.Series, known: pl.Enum) -> NDArray[Any] | None:
    """The codes of words by their places in `known`, as in EncodedWords; None where one is not among them."""
    codes = words.cast(known, strict=False).to_physical()
    if codes.null_count() > words.null_count():
        return None
    return (codes.fill_null(len(known.categories)) if codes.null_count() else codes).to_numpy()


def _number_bits(column: pl.Series) -> NDArray[np.uint64]:
    """Numbers as the bits of their float64, any number where there is none."""
    plain: NDArray[Any] = column.to_numpy()
    if column.null_count():
        # By pyarrow: polars plans a query for each call, which costs more than the call where a batch is small.
        filled = column.to_arrow().fill_null(False if column.dtype == pl.Boolean else 0)
        plain = filled.to_numpy(zero_copy_only=False)
    floats = np.add(plain, 0.0, dtype=np.float64)  # + 0.0: minus zero is zero
    bits = floats.view(np.uint64)
    # The ends first: hardly a column has such numbers.
    if column.dtype == pl.Int64 and len(floats) and max(floats.max(), -floats.min()) > _LARGEST_EXACT_FLOAT:
        far = np.abs(floats) > _LARGEST_EXACT_FLOAT
        bits[far] = plain.view(np.uint64)[far]
    return bits


def _hash_encoded(words: EncodedWords) -> NDArray[np.uint64]:
    """One hash for each row, (n,)."""
    hashes = hash_words(words.different) if words.hashes is None else words.hashes
    return hashes[words.codes]


def hash_words(different: pl.Series) -> NDArray[np.uint64]:
    """One hash for each word, and one more for no value."""
    # pandas documents hash_array as stable (SipHash with a fixed key).
    values = np.array(different.to_list(), dtype=object)
    hashes = mix_bits(pd.util.hash_array(values, categorize=False))
    hashes[different.is_null().to_numpy()] = _MISSING_HASH
    return np.append(hashes, _MISSING_HASH)


def map_to_unit_interval(key: NDArray[np.int64] | NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per key, (n,): uniform over keys, fixed for ever by key and seed."""
    spread = mix_bits(key.view(np.uint64) ^ mix_bits(np.full(1, seed, dtype=np.uint64)))
    return (spread >> np.uint64(11)).astype(np.float64) * 2.0**-53
