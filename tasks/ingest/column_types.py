"""What a column's cells mean (numbers, booleans, dates or words), and their canonical types: int64, float64, bool,
string, datetime[us] in UTC.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from windvane.tasks.ingest import row_keys, text_parsing
from windvane.tasks.ingest.cell_reading import NumberForm, choose_date_forms
from windvane.tasks.ingest.row_keys import EncodedWords

# 0001-01-01 and 10000-01-01, in days since 1970.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_897


@dataclass(frozen=True)
class UnusualColumns:
    """Columns of a file with types whose values do not fit the canonical type: whole numbers that `gaps` make floats,
    `oversized` ones past int64 (ids and hashes, of which floats would make many equal), and dates outside the years 1
    to 9999, where neither Python nor a cast to microseconds can follow.
    """

    gaps: set[str]
    oversized: set[str]
    out_of_range: set[str]


def find_unusual_columns(scan: pl.LazyFrame, schema: pl.Schema) -> UnusualColumns:
    """Check every value of whole numbers and dates, in one pass."""
    found = UnusualColumns(set(), set(), set())
    wanted: list[tuple[set[str], str, pl.Expr]] = []
    for name, kind in schema.items():
        column = pl.col(name)
        if kind.is_integer():
            wanted.append((found.gaps, name, column.null_count() > 0))
        if kind in (pl.UInt64, pl.Int128):
            oversized = column.cast(pl.Int64, strict=False).null_count() > column.null_count()
            wanted.append((found.oversized, name, oversized))
        unit = kind.time_unit if isinstance(kind, pl.Datetime) else None
        if kind == pl.Date or unit in ("ms", "us"):
            day = {"ms": 86_400_000, "us": 86_400_000_000, None: 1}[unit]
            count = column.to_physical().cast(pl.Int64)
            outside = (count.min() < _FIRST_DAY * day) | (count.max() >= _LAST_DAY * day)
            wanted.append((found.out_of_range, name, outside))
    if wanted:
        query = scan.select(expression.alias(str(i)) for i, (_, _, expression) in enumerate(wanted))
        for (names, name, _), yes in zip(wanted, query.collect(engine="streaming").row(0), strict=True):
            names.update({name} if yes else ())
    return found


# The rows whose cells decide what a column is meant to be...
HEAD_ROWS = 10_000
# ...by so many of their values.
_SAMPLE_WORDS = 1000
# From this share on, a column is meant to be numbers (or dates) and the rest are slips...
_MOSTLY = 0.9
# ...unless the rest are many different words: then these are codes, such as 85048 and 85123A.
_MIN_CODE_WORDS = 20
# Invisible, and yet it makes another word of a word.
_NUL = "\x00"
# Of words: any form is accepted.
ANY_FORM = "any"

CellKind = Literal["int", "float", "bool", "date", "text", "none"]


@dataclass(frozen=True)
class ColumnMeaning:
    """What a column holds. "none": no value at all. `form` of dates and numbers that are written as words; of words, ANY where
    nothing is required of them.
    """

    kind: CellKind
    form: str | NumberForm | None = None


class MixedTypesError(Exception):
    """A column that cannot be read: it is mostly `what`, or (marked) numbers that read as words. `odd` flags the
    values, by row, that are not.
    """

    def __init__(self, what: str, odd: pl.Series, total: int, *, formatted: bool = False) -> None:
        super().__init__(what)
        self.what, self.odd, self.total, self.formatted = what, odd, total, formatted


def strip_words(words: pl.Series, absent: Collection[str]) -> pl.Series:
    """Words of any file without blanks around them; None where one of `absent` means that there is no value."""
    bare = words.str.strip_chars()
    return bare.set(bare.is_in(tuple(absent)), None)


def infer_from_type(kind: Any) -> ColumnMeaning | None:
    """The meaning of a column whose file declares its type; None: it holds words, or nothing that can be read."""
    if kind in (pl.Null, pl.Boolean):
        return ColumnMeaning("none" if kind == pl.Null else "bool")
    if kind.is_integer():
        return ColumnMeaning("int")
    if kind.is_numeric() or kind in (pl.Time, pl.Duration):
        return ColumnMeaning("float")
    return ColumnMeaning("date") if kind.is_temporal() else None


def infer_from_words(
    words: pl.Series, *, typed: bool, whole: bool, dates: str | None = None, numbers: NumberForm | None = None
) -> ColumnMeaning | None:
    """What a column of words means. `typed`: its file shows which cells are numbers, so these are none, unless `numbers` (the
    table's form of them) reads them all, and not only as digits. `dates`: see cell_reading.choose_date_forms.

    `whole`: these are all its values; otherwise its first, and None means that only the whole column can show. Raises
    Slip (only then) when it is mostly one thing.
    """
    present = words.drop_nulls()
    if not len(present):
        return ColumnMeaning("none")
    head = words.head(HEAD_ROWS).drop_nulls()
    # Codes and ids stay words, whatever comes below them.
    coded = not typed and len(head) > 0 and text_parsing.infer_number_kind(head) == "text"
    plain = None if typed or coded else _plain(present, gaps=len(present) < len(words))
    found: ColumnMeaning | Literal[False] | None = False
    if numbers is not None and not coded and (plain is None or plain.kind == "float"):
        found = _written_numbers(words, present, numbers, typed=typed, whole=whole)
    if found is not False or (plain is not None and plain.kind != "text"):
        return plain if found is False else found
    first = head.head(_SAMPLE_WORDS) if len(head) else present.head(_SAMPLE_WORDS)
    meaning = ColumnMeaning("text") if coded or plain else _dates(words, present, first, whole=whole, dates=dates)
    if meaning is None or meaning.kind == "date":
        return meaning
    if not (typed or coded or plain) and text_parsing.measure_number_share(first) >= _MOSTLY / 2:
        if not whole:
            return None
        _refuse_numbers(words, present)
    nul = words.str.contains(_NUL, literal=True).fill_null(False)
    if nul.any():
        if not whole:
            return None
        raise MixedTypesError("text without NUL bytes", nul, len(present))
    return meaning


def _written_numbers(
    words: pl.Series, present: pl.Series, numbers: NumberForm, *, typed: bool, whole: bool
) -> ColumnMeaning | Literal[False] | None:
    """Numbers of the table's form; False: these are words. None and Slip as infer_from_words has them."""
    if typed and text_parsing.match_digits(present).all():
        return False
    signed = present.filter(present.str.contains_any(list(numbers.signs))) if numbers.signs else present.clear()
    form = numbers.narrow(signed.head(_SAMPLE_WORDS))
    read = text_parsing.read_numbers(words, form)
    odd = words.is_not_null() & read.is_null()
    if not odd.any():
        return ColumnMeaning("float", form)
    if int(odd.sum()) / len(present) > 1 - _MOSTLY or words.filter(odd).n_unique() > _MIN_CODE_WORDS:
        return False
    if not whole:
        return None
    raise MixedTypesError("numbers as data.format writes them", odd, len(present))


def _dates(
    words: pl.Series, present: pl.Series, first: pl.Series, *, whole: bool, dates: str | None
) -> ColumnMeaning | None:
    """Dates, if the words are: ISO 8601, or one other form that fits all and cannot be read two ways. Else text."""
    if text_parsing.measure_iso_share(first) >= _MOSTLY:
        form = text_parsing.find_iso_form(present)
        odd = _match_unparsed_dates(words, form)
        if not odd.any():
            return ColumnMeaning("date", form)
        if whole and int(odd.sum()) / len(present) <= 1 - _MOSTLY:
            raise MixedTypesError(text_parsing.describe_date_form(form, words.filter(odd)), odd, len(present))
        return ColumnMeaning("text") if whole else None
    forms = [form for form in text_parsing.find_date_forms(first) if not _match_unparsed_dates(present, form).any()]
    forms = choose_date_forms(forms, dates)
    if len(forms) > 1 and not whole:
        return None
    return ColumnMeaning("date", forms[0]) if len(forms) == 1 else ColumnMeaning("text")


def _match_unparsed_dates(words: pl.Series, form: str) -> pl.Series:
    """Which present words are no dates of this form."""
    return words.is_not_null() & text_parsing.parse_dates(words, form).is_null()


def _plain(present: pl.Series, *, gaps: bool) -> ColumnMeaning | None:
    """True/false, or numbers, if every word is one."""
    if set(present.head(_SAMPLE_WORDS).str.to_lowercase().unique()) <= {"true", "false"}:
        if set(present.str.to_lowercase().unique()) <= {"true", "false"}:
            return ColumnMeaning("bool")
        return None
    kind = text_parsing.infer_number_kind(present)
    return None if kind is None else ColumnMeaning("float" if kind == "int" and gaps else kind)


def _refuse_numbers(words: pl.Series, present: pl.Series) -> None:
    """Raise where a column of words was meant to be numbers."""
    plain = text_parsing.match_plain_numbers(words)
    if plain.sum() / len(present) >= _MOSTLY:
        odd = words.is_not_null() & ~plain.fill_null(True)
        if odd.any() and words.filter(odd).n_unique() <= _MIN_CODE_WORDS:
            raise MixedTypesError("numbers", odd, len(present))
        if not odd.any() or not text_parsing.match_formatted_numbers(words.filter(odd)).all():
            return  # codes
    formatted = ~plain & text_parsing.match_formatted_numbers(words)
    if (plain | formatted).sum() / len(present) >= _MOSTLY:
        raise MixedTypesError("numbers", formatted.fill_null(False), len(present), formatted=True)


def choose_canonical_type(meaning: ColumnMeaning) -> pl.DataType:
    """The canonical polars type of a column."""
    types = {"int": pl.Int64(), "bool": pl.Boolean(), "text": pl.String(), "date": pl.Datetime("us")}
    return types.get(meaning.kind, pl.Float64())


def choose_cell_kind(canonical: pl.DataType) -> CellKind:
    """The meaning of a canonical polars type."""
    kinds: dict[Any, CellKind] = {pl.Int64: "int", pl.Boolean: "bool", pl.String: "text", pl.Float64: "float"}
    return kinds.get(canonical.base_type(), "date")


def choose_reading_type(meaning: ColumnMeaning | None) -> pl.DataType:
    """The polars type in which a text file's cells are read: numbers that programs write and booleans as such, all else as words."""
    if meaning is None or meaning.kind not in ("int", "bool", "float") or isinstance(meaning.form, NumberForm):
        return pl.String()
    return choose_canonical_type(meaning)


def convert_cells(
    cells: pl.Series,
    meaning: ColumnMeaning,
    *,
    absent: Collection[str],
    encoded: dict[str, EncodedWords],
    known: dict[str, KnownWords | None],
) -> pl.Series:
    """Cells of one meaning in its canonical type. absent: see strip_words. encoded takes the words of a column of words, for its
    keys; known those of the batches before, None where they are too many.

    Raises polars' errors, or ValueError, where a cell does not fit.
    """
    kind = cells.dtype
    if kind in (pl.String, pl.Categorical, pl.Enum):
        cells = cells.cast(pl.String)
        if meaning.kind != "text":
            return _convert_words(cells, meaning, absent)
        words, cells = _clean_distinct_words(cells, absent, known, any_form=meaning.form == ANY_FORM)
        encoded[cells.name] = words
        return cells
    if meaning.kind == "none":
        return _empty_column(cells)
    if meaning.kind == "float":
        return _without_nan(_number(cells))
    if meaning.kind == "date":
        if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            cells = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return cells.cast(pl.Datetime("us"))
    return cells.cast(choose_canonical_type(meaning))


def _convert_words(cells: pl.Series, meaning: ColumnMeaning, absent: Collection[str]) -> pl.Series:
    if meaning.kind == "date":
        form = str(meaning.form or text_parsing.ISO_FORM)
        read = text_parsing.parse_dates(cells, form)
        if read.null_count() > cells.null_count():
            cells = strip_words(cells, absent)
            read = text_parsing.parse_dates(cells, form)
        if read.null_count() > cells.null_count():
            raise ValueError(f"column {cells.name!r} holds words that are no dates")
        return read
    cells = strip_words(cells, absent)
    if meaning.kind == "none":
        return _empty_column(cells)
    if isinstance(meaning.form, NumberForm):
        read = text_parsing.read_numbers(cells, meaning.form)
        if read.null_count() > cells.null_count():
            raise ValueError(f"column {cells.name!r} holds words that are no numbers")
        return read
    if meaning.kind == "bool":
        return cells.str.to_lowercase() == "true"
    return cells.cast(pl.Int64) if meaning.kind == "int" else _without_nan(cells.cast(pl.Float64))


# Of a column with more words than this, none are kept from batch to batch.
_MAX_KNOWN_WORDS = 500


@dataclass(frozen=True)
class KnownWords:
    """A column's few words so far, as they are `written` and without blanks around them (None: no value).

    Batch after batch the same ones come: they are looked up, and neither cleaned nor hashed again.
    """

    written: pl.Enum
    bare: pl.Series
    hashes: NDArray[np.uint64]


def _clean_distinct_words(
    cells: pl.Series, absent: Collection[str], known: dict[str, KnownWords | None], *, any_form: bool
) -> tuple[EncodedWords, pl.Series]:
    """Words without blanks around them: only the different ones are read."""
    before, codes = known.get(cells.name), None
    if before is not None and (codes := row_keys.find_words(cells, before.written)) is not None:
        written, words = before.written.categories, EncodedWords(codes, before.bare, before.hashes)
    else:
        new = row_keys.encode_words(cells)
        written = new.different
        if not any_form and written.str.contains(_NUL, literal=True).any():
            raise ValueError(f"column {cells.name!r} holds NUL")
        words = EncodedWords(new.codes, strip_words(written, absent))
        if before is not None or cells.name not in known:
            known[cells.name] = _remember_words(written, before, absent)
    bare = words.different
    if bare.equals(written):
        return words, cells
    return words, bare.append(pl.Series([None], dtype=pl.String)).gather(words.codes).alias(cells.name)


def _remember_words(different: pl.Series, before: KnownWords | None, absent: Collection[str]) -> KnownWords | None:
    """These words and those before; None where they are many."""
    written = different if before is None else pl.concat([before.written.categories, different]).unique()
    if len(written) > _MAX_KNOWN_WORDS:
        return None
    written = written.sort()
    bare = strip_words(written, absent)
    return KnownWords(pl.Enum(written), bare, row_keys.hash_words(bare))


def _empty_column(cells: pl.Series) -> pl.Series:
    if cells.null_count() < len(cells):
        raise ValueError(f"column {cells.name!r} was thought to be empty")
    return pl.Series(cells.name, [None] * len(cells), pl.Float64)


def _without_nan(floats: pl.Series) -> pl.Series:
    """NaN is no value. A sum is NaN where one is among the numbers, and takes a fifth of the time of a check of each."""
    return floats.fill_nan(None) if math.isnan(floats.sum()) else floats


def _number(cells: pl.Series) -> pl.Series:
    kind = cells.dtype
    if kind == pl.Time or isinstance(kind, pl.Duration):
        unit = kind.time_unit if isinstance(kind, pl.Duration) else "ns"
        return cells.cast(pl.Int64).cast(pl.Float64) / {"ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    return cells.cast(pl.Float64)
