"""What a column's cells mean: numbers, booleans, dates or words. Owns types; wants no particular column.

Canonical: int64 or float64, bool, string, datetime[us] without zone, in UTC. A meaning is read off a column's first
rows, or off the whole column; either way by the same rules, so that a stream and a careful look agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from windvane.tasks import dates, keys, numerals
from windvane.tasks.delimited import MISSING
from windvane.tasks.lexicon import Lexicon

if TYPE_CHECKING:
    import polars as pl

# The rows whose cells decide what a column is meant to be...
HEAD = 10_000
# ...by so many of their values.
_SAMPLE = 1000
# From this share on, a column is meant to be numbers (or dates) and the rest are slips...
_MOSTLY = 0.9
# ...unless the rest are many different words: then these are codes, such as 85048 and 85123A.
_CODES = 20
# Invisible, and yet it makes another word of a word.
_NUL = "\x00"
# Different words of a batch that are few.
_GLANCE = 1_000
# Of words: nothing is asked of them.
ANY = "any"

Kind = Literal["int", "float", "bool", "date", "text", "none"]


@dataclass(frozen=True)
class Meaning:
    """What a column holds. "none": no value at all. `form` of dates that are written as words; of words, ANY where
    nothing is asked of them.
    """

    kind: Kind
    form: str | None = None


class Slip(Exception):
    """A column that cannot be read: it is mostly `what`, or (marked) numbers that read as words. `odd` marks the
    values, by row, that are not.
    """

    def __init__(self, what: str, odd: pl.Series, total: int, *, marked: bool = False) -> None:
        super().__init__(what)
        self.what, self.odd, self.total, self.marked = what, odd, total, marked


def clean(words: pl.Series) -> pl.Series:
    """Cells of a text file without blanks around them; None where there is no value."""
    import polars as pl

    present = words.set(words.is_in(MISSING), None)
    bare = present.str.strip_chars()
    return bare.set(bare == "", None) if bool((bare == "").any()) else bare.cast(pl.String)


def filled(words: pl.Series) -> pl.Series:
    """Words of a file with types; None where there are only blanks: as in a text file, nothing is no value."""
    blank = (words.str.strip_chars() == "").fill_null(False)
    return words.set(blank, None) if blank.any() else words


def of_type(kind: Any) -> Meaning | None:
    """The meaning of a column whose file declares its type; None: it holds words, or nothing that can be read."""
    import polars as pl

    if kind == pl.Null:
        return Meaning("none")
    if kind == pl.Boolean:
        return Meaning("bool")
    if kind.is_integer():
        return Meaning("int")
    if kind.is_numeric() or kind in (pl.Time, pl.Duration):
        return Meaning("float")
    return Meaning("date") if kind.is_temporal() else None


def of_words(words: pl.Series, *, typed: bool, whole: bool) -> Meaning | None:
    """What a column of words means. `typed`: its file says which cells are numbers, so these are none.

    `whole`: these are all its values; otherwise its first, and None says that only the whole column can tell. Raises
    Slip (only then) when it is mostly one thing.
    """
    present = words.drop_nulls()
    if not len(present):
        return Meaning("none")
    head = words.head(HEAD).drop_nulls()
    # Codes and ids stay words, whatever stands below them.
    coded = not typed and len(head) > 0 and numerals.kind(head) == "text"
    plain = None if typed or coded else _plain(present, gaps=len(present) < len(words))
    if plain is not None and plain.kind != "text":
        return plain
    first = head.head(_SAMPLE) if len(head) else present.head(_SAMPLE)
    meaning = Meaning("text") if coded or plain else _dates(words, present, first, whole=whole)
    if meaning is None or meaning.kind == "date":
        return meaning
    if not (typed or coded or plain) and numerals.share(first) >= _MOSTLY / 2:
        if not whole:
            return None
        _refuse_numbers(words, present)
    nul = words.str.contains(_NUL, literal=True).fill_null(False)
    if nul.any():
        if not whole:
            return None
        raise Slip("text without NUL bytes", nul, len(present))
    return meaning


def _dates(words: pl.Series, present: pl.Series, first: pl.Series, *, whole: bool) -> Meaning | None:
    """Dates, if the words are: ISO 8601, or one other form that fits all and cannot be read two ways. Else text."""
    if dates.iso_share(first) >= _MOSTLY:
        form = dates.iso_form(present)
        odd = _lost(words, form)
        if not odd.any():
            return Meaning("date", form)
        if whole and int(odd.sum()) / len(present) <= 1 - _MOSTLY:
            raise Slip(dates.called(form, words.filter(odd)), odd, len(present))
        return Meaning("text") if whole else None
    forms = [form for form in dates.forms(first) if not _lost(present, form).any()]
    if len(forms) > 1 and not whole:
        return None
    return Meaning("date", forms[0]) if len(forms) == 1 else Meaning("text")


def _lost(words: pl.Series, form: str) -> pl.Series:
    """Which present words are no dates of this form."""
    return words.is_not_null() & dates.parse(words, form).is_null()


def _plain(present: pl.Series, *, gaps: bool) -> Meaning | None:
    """True/false, or numbers, if every word is one."""
    if set(present.head(_SAMPLE).str.to_lowercase().unique()) <= {"true", "false"}:
        if set(present.str.to_lowercase().unique()) <= {"true", "false"}:
            return Meaning("bool")
        return None
    kind = numerals.kind(present)
    return None if kind is None else Meaning("float" if kind == "int" and gaps else kind)


def _refuse_numbers(words: pl.Series, present: pl.Series) -> None:
    """Raise where a column of words was meant to be numbers."""
    plain = numerals.plain(words)
    if plain.sum() / len(present) >= _MOSTLY:
        odd = words.is_not_null() & ~plain.fill_null(True)
        if odd.any() and words.filter(odd).n_unique() <= _CODES:
            raise Slip("numbers", odd, len(present))
        return
    marked = ~plain & numerals.marked(words)
    if (plain | marked).sum() / len(present) >= _MOSTLY:
        raise Slip("numbers", marked.fill_null(False), len(present), marked=True)


def kind(meaning: Meaning) -> pl.DataType:
    """The canonical polars type of a column."""
    import polars as pl

    types = {"int": pl.Int64(), "bool": pl.Boolean(), "text": pl.String(), "date": pl.Datetime("us")}
    return types.get(meaning.kind, pl.Float64())


def kind_of(canonical: pl.DataType) -> Kind:
    """The meaning of a canonical polars type."""
    import polars as pl

    kinds: dict[Any, Kind] = {pl.Int64: "int", pl.Boolean: "bool", pl.String: "text", pl.Float64: "float"}
    return kinds.get(canonical.base_type(), "date")


def cell(meaning: Meaning | None) -> pl.DataType:
    """The polars type in which a text file's cells are read: numbers and booleans as such, all else as words."""
    import polars as pl

    types = {"int": pl.Int64(), "bool": pl.Boolean(), "float": pl.Float64()}
    return types.get(meaning.kind, pl.String()) if meaning else pl.String()


def read(cells: pl.Series, meaning: Meaning, *, text: bool, lexicon: Lexicon) -> pl.Series | keys.Words:
    """Cells of one meaning in its canonical type. `text`: blanks around words mean nothing; `lexicon`: that of the
    column, from batch to batch. Raises polars' errors, or ValueError, where a cell does not fit.
    """
    import polars as pl

    kind = cells.dtype
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return _of_words(cells.cast(pl.String), meaning, text, lexicon)
    if meaning.kind == "none":
        return _nothing(cells)
    if meaning.kind == "text":
        return keys.words(cells.cast(pl.String))
    if meaning.kind == "float":
        return _without_nan(_number(cells))
    if meaning.kind == "date":
        if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            cells = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return cells.cast(pl.Datetime("us"))
    return cells.cast(pl.Int64 if meaning.kind == "int" else pl.Boolean)


def _of_words(cells: pl.Series, meaning: Meaning, text: bool, lexicon: Lexicon) -> pl.Series | keys.Words:
    import polars as pl

    if meaning.kind == "text":
        return lexicon.read(cells) or _words(cells, text, meaning.form, lexicon)
    if meaning.kind == "date":
        read = dates.parse(cells, meaning.form or dates.ISO)
        if read.null_count() > cells.null_count():
            cells = clean(cells) if text else filled(cells)
            read = dates.parse(cells, meaning.form or dates.ISO)
        if read.null_count() > cells.null_count():
            raise ValueError(f"column {cells.name!r} holds words that are no dates")
        return read
    cells = clean(cells) if text else filled(cells)
    if meaning.kind == "none":
        return _nothing(cells)
    if meaning.kind == "bool":
        return cells.str.to_lowercase() == "true"
    return cells.cast(pl.Int64) if meaning.kind == "int" else _without_nan(cells.cast(pl.Float64))


def _words(cells: pl.Series, text: bool, form: str | None, lexicon: Lexicon) -> keys.Words:
    """Words, in a text file without blanks around them: only the different ones are looked at. `lexicon` learns those
    that stay as they are.
    """
    import polars as pl

    found = keys.words(cells)
    if _plain_words(found.different):
        lexicon.learn(found.different)
        return found
    if form != ANY and found.different.str.contains(_NUL, literal=True).any():
        raise ValueError(f"column {cells.name!r} holds NUL")
    bare = clean(found.different) if text else filled(found.different)
    if bare.equals(found.different):
        return found
    values = bare.append(pl.Series([None], dtype=pl.String)).gather(found.codes)
    return keys.Words(values.alias(cells.name), found.codes, bare)


def _plain_words(different: pl.Series) -> bool:
    """Whether these are few words that stay as they are: so few, Python sees in less time than polars takes to begin."""
    if len(different) > _GLANCE:
        return False
    return all(word == word.strip() and word not in MISSING and _NUL not in word for word in different.to_list())


def _nothing(cells: pl.Series) -> pl.Series:
    import polars as pl

    if cells.null_count() < len(cells):
        raise ValueError(f"column {cells.name!r} was thought to be empty")
    return pl.Series(cells.name, [None] * len(cells), pl.Float64)


def _without_nan(floats: pl.Series) -> pl.Series:
    """NaN is no value. A sum is NaN where one is among the numbers, and takes a fifth of the time of a look at each."""
    return floats.fill_nan(None) if math.isnan(floats.sum()) else floats


def _number(cells: pl.Series) -> pl.Series:
    import polars as pl

    kind = cells.dtype
    if kind == pl.Time:
        return cells.cast(pl.Int64).cast(pl.Float64) / 1e9
    if isinstance(kind, pl.Duration):
        return cells.cast(pl.Int64).cast(pl.Float64) / {"ms": 1e3, "us": 1e6, "ns": 1e9}[kind.time_unit]
    return cells.cast(pl.Float64)
