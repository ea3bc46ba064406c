"""Numbers that are written as words: which words are numbers, and which people mean as such. Owns the forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import polars as pl

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_FORMATTED = r"^[$€£]?\s?[+-]?\d[\d.,']*\s?[%€$£]?$"
# Thousands parted by blanks of any width, as French has them; a telephone number begins with a zero.
_SPACED = r"^[+-]?[1-9]\d{0,2}(\s\d{3})+([.,]\d+)?$"
_WHOLE = r"^[+-]?[0-9]+$"
# A number in which the zero means something is a code: 01067 is a town, 1067 is none.
CODE = r"^0[0-9]+$"


def kind(words: pl.Series) -> Literal["int", "float", "text"] | None:
    """What words are that can all be read as numbers; None: some cannot. Codes and ids are text for all that."""
    import polars as pl

    if words.cast(pl.Float64, strict=False).null_count():
        return None
    if words.str.contains(CODE).any():
        return "text"
    if words.cast(pl.Int64, strict=False).null_count():
        # Whole numbers past int64 are ids and hashes: as floats many would be equal.
        return "text" if words.str.contains(_WHOLE).all() else "float"
    return "int"


def plain(words: pl.Series) -> pl.Series:
    """Which words are numbers as programs write them."""
    return words.str.contains(_NUMBER)


def marked(words: pl.Series) -> pl.Series:
    """Which words are numbers as people write them: with thousands marks, a decimal comma, % or a currency."""
    return (words.str.contains(_FORMATTED) & words.str.contains("[,%$€£]")) | words.str.contains(_SPACED)


def share(words: pl.Series) -> float:
    """The share of words that look like numbers of either kind."""
    return cast("float", (words.str.contains(_FORMATTED) | words.str.contains(_SPACED)).mean())
