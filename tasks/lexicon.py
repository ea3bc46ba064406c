"""The few short words of a column, told apart by their bytes: batch after batch the same ones come.

A column of few words is most of a table's text, and to find the different ones of each batch anew costs more than all
else that is done with them. Leaves what a word means to tasks/canonical.py, keys to tasks/keys.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windvane.tasks import keys

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

# More words are not told apart by a table of bounded size.
MOST = 500
# A word of up to so many bytes stands whole in its 16 bytes of an Arrow string view, after its length.
_INLINE = 12
# So many multipliers are tried for one that gives each word a place of its own: one in three does.
_TRIES = 60


@dataclass(frozen=True)
class _Known:
    """Words by place, which is the high bits of a product: the 16 bytes of the word there, and its code."""

    different: pl.Series
    hashes: NDArray[np.uint64]
    factors: tuple[np.uint64, np.uint64]
    shift: np.uint64
    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    codes: NDArray[np.int64]


class Lexicon:
    """The words of one column that were seen so far. Batches may come from several threads: what is known is replaced as
    a whole.
    """

    def __init__(self) -> None:
        self._known: _Known | None = None
        self._full = False

    def read(self, values: pl.Series) -> keys.Words | None:
        """The batch by its different words, as keys.words() gives it; None where one is not known, or missing."""
        import numpy as np

        known = self._known
        if known is None or values.null_count():
            return None
        first, second = _bytes(values)
        places = _places(first, second, known.factors, known.shift)
        if not (np.array_equal(known.first.take(places), first) and np.array_equal(known.second.take(places), second)):
            return None
        return keys.Words(values, known.codes.take(places), known.different, known.hashes)

    def learn(self, different: pl.Series) -> None:
        """Know these words too, unless they are many, or one is long: then none is looked up any more."""
        import polars as pl

        if self._full:
            return
        known = self._known
        words = different if known is None else pl.concat([known.different, different]).unique(maintain_order=True)
        if known is not None and len(words) == len(known.different):
            return
        fits = len(words) <= MOST and (words.str.len_bytes() <= _INLINE).all()
        self._known = _table(words) if fits else None
        self._full = self._known is None


def _bytes(values: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The 16 bytes of each word, which for a longer one hold where it stands, as two halves."""
    import numpy as np
    import polars as pl

    array = values.to_arrow(compat_level=pl.CompatLevel.newest())
    halves = np.frombuffer(array.buffers()[1], np.uint64)[2 * array.offset : 2 * (array.offset + len(array))]
    return np.ascontiguousarray(halves[0::2]), np.ascontiguousarray(halves[1::2])


def _places(
    first: NDArray[np.uint64], second: NDArray[np.uint64], factors: tuple[np.uint64, np.uint64], shift: np.uint64
) -> NDArray[np.int64]:
    import numpy as np

    product = first * factors[0]
    product += second * factors[1]
    product >>= shift
    return product.view(np.int64)


def _table(words: pl.Series) -> _Known | None:
    """Places for the words, no two at the same; None if none was found."""
    import numpy as np

    first, second = _bytes(words)
    bits = max(8, 2 * len(words).bit_length())
    shift, rng = np.uint64(64 - bits), np.random.default_rng(0)
    for _ in range(_TRIES):
        one, other = rng.integers(1 << 62, 1 << 63, 2, dtype=np.uint64) | np.uint64(1)
        places = _places(first, second, (one, other), shift)
        if len(np.unique(places)) == len(places):
            break
    else:
        return None
    # At a place without a word stand 16 bytes that are none: a length of 2^32 - 1, and no buffer.
    tables = [np.full(1 << bits, np.iinfo(np.uint64).max) for _ in range(2)]
    codes = np.zeros(1 << bits, np.int64)
    tables[0][places], tables[1][places], codes[places] = first, second, np.arange(len(words))
    return _Known(words, keys.of_words(words), (one, other), shift, tables[0], tables[1], codes)
