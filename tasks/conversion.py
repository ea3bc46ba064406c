"""One file's cells become canonical columns in a Parquet file, in a stream, with a key for every row.

First by what the file's first rows say; only where a later cell contradicts them, by a careful look at each whole
column. Both ways give the same columns. Leaves formats to tasks/readers.py, types to tasks/canonical.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks import canonical, codes, declared, delimited, keys, tables
from windvane.tasks.canonical import Meaning, Slip
from windvane.tasks.errors import InputError
from windvane.tasks.json_lines import Slips, mixed
from windvane.tasks.lexicon import Lexicon
from windvane.tasks.readers import Cells, damaged

if TYPE_CHECKING:
    import polars as pl

# From here on there are no int64.
_FAR = 2.0**63

# From the names of the readable columns to those whose values make a row's key; None: no key is wanted.
Keyed = Callable[[tuple[str, ...]], tuple[str, ...]] | None

# What polars says when a file ends before its end was due: an error without a number.
_SHRUNK = "failed to fill whole buffer"


@dataclass(frozen=True)
class Reading:
    """How to read a file: its cells, what each readable column means, and what is wrong with the others.

    `text`: its words have blanks around them that mean nothing. `missing`: whether words such as NA stand in the
    first rows, and are to be looked for among the numbers.
    """

    scan: pl.LazyFrame
    meanings: dict[str, Meaning]
    problems: dict[str, str]
    text: bool = False
    missing: bool = False


def convert(file: Cells, target: Path, scratch: Path, ignore: tuple[str, ...], keyed: Keyed) -> dict[str, str]:
    """Write the readable columns to `target`; what is wrong with each of the others that is not in `ignore`.

    A column in `ignore` that mixes types is kept as words; one that no table can hold is left out. Raises InputError
    where the file as a whole cannot be read.
    """
    import polars as pl

    reading = _quick(file, ignore)
    with ThreadPoolExecutor(1) as beside:
        zeros = beside.submit(codes.possible, file.plain, file.dialect) if reading and file.dialect else None
        while reading is not None:
            try:
                write(reading, target, keyed)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError):
                break  # a cell below does not fit
            counts = tables.gaps(target)  # whole numbers with a gap further down are floats
            gaps = [name for name, meaning in reading.meanings.items() if meaning.kind == "int" and counts[name]]
            if gaps:
                floats = dict.fromkeys(gaps, Meaning("float"))
                reading = _typed(file, replace(reading, meanings={**reading.meanings, **floats}))
            elif _trusted(file, target) and not (zeros and _coded(file, reading, target, zeros.result())):
                return reading.problems
            else:
                break
    reading = _careful(file, scratch, ignore)
    try:
        write(reading, target, keyed)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise damaged(file.path, e) from None
    return reading.problems


def write(reading: Reading, target: Path, keyed: Keyed) -> None:
    """Stream the cells into canonical columns. Raises polars' errors, or ValueError, where one does not fit."""
    import polars as pl

    names = tuple(reading.meanings)
    # An id that cannot be read is refused, once all that is wrong is known.
    key = tuple(name for name in keyed(names) if name in reading.meanings) if keyed else ()
    schema = {name: canonical.kind(meaning) for name, meaning in reading.meanings.items()}
    if keyed:
        schema[tables.ROW] = pl.Int64()

    known = {name: Lexicon() for name in names}

    def canonically(batch: pl.DataFrame) -> pl.DataFrame:
        cells = {
            name: canonical.read(batch[name], meaning, text=reading.text, lexicon=known[name])
            for name, meaning in reading.meanings.items()
        }
        columns = [cell.values if isinstance(cell, keys.Words) else cell for cell in cells.values()]
        if keyed:
            row = keys.joined([cells[name] for name in sorted(key)], len(batch))
            columns.append(pl.Series(tables.ROW, row))
        return pl.DataFrame(columns)

    # All that was imported before is looked through at each collection of garbage, and a batch makes many small objects.
    gc.freeze()
    try:
        tables.sink(reading.scan.select(names).map_batches(canonically, schema=schema, streamable=True), target)
    except OSError as e:
        if _SHRUNK in str(e):  # whoever asked looks at the file again, and says what is wrong with it now
            raise pl.exceptions.ComputeError("the file became shorter while it was read") from None
        raise
    finally:
        gc.unfreeze()


def _quick(file: Cells, ignore: tuple[str, ...]) -> Reading | None:
    """What the first rows say; None where they cannot."""
    import polars as pl

    try:
        head = file.scan.head(canonical.HEAD).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    whole = file.typed and head.height < canonical.HEAD
    reading = _read(file, file.scan, lambda name: head[name], ignore, whole=whole)
    if reading is None or file.typed:
        return reading
    missing = any(bool(head[name].is_in(delimited.MISSING).any()) for name in file.names)
    return _typed(file, replace(reading, missing=missing))


def _typed(file: Cells, reading: Reading) -> Reading:
    """Read the numbers of a text file as such at once, now that the meanings are known."""
    if file.dialect is None:
        return reading
    types = tuple(canonical.cell(reading.meanings.get(name)) for name in file.names)
    return replace(reading, scan=delimited.stream(file.plain, file.dialect, types, reading.missing))


def _careful(file: Cells, scratch: Path, ignore: tuple[str, ...]) -> Reading:
    """What whole columns say, one of them in memory at a time."""
    import polars as pl

    scan = file.scan
    if file.dialect is not None:
        text = scratch / f"{len(list(scratch.iterdir()))}.text"
        delimited.rewrite(file.plain, file.dialect, text, file.path)
        scan = tables.scan(text)
    try:
        reading = _read(file, scan, lambda name: scan.select(name).collect().to_series(), ignore, whole=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise damaged(file.path, e) from None
    assert reading is not None
    return reading


def _read(
    file: Cells, scan: pl.LazyFrame, look: Callable[[str], pl.Series], ignore: tuple[str, ...], *, whole: bool
) -> Reading | None:
    """Meanings of all columns from the values that `look` gives; None if one of them cannot be told from these."""
    schema = scan.collect_schema()
    wide, huge = (declared.with_gaps(scan, schema), declared.past_whole(scan, schema)) if file.typed else (set(), set())
    never = declared.past_calendar(scan, schema) if file.typed else set()
    meanings: dict[str, Meaning] = {}
    problems: dict[str, str] = {}
    for name in file.names:
        try:
            meaning = _declared(file, name, schema[name])
            if name in never:
                raise InputError(
                    f"{file.path}: column {name!r} holds times beyond the years 1 to 9999: perhaps they are counted in "
                    f"another unit than declared. Mend them, or add {name!r} to problem.ignore"
                )
            if meaning is None:
                meaning = _of_words(file, name, look(name), name in ignore, whole)
        except InputError as e:
            if name not in ignore:
                problems[name] = str(e)
            continue
        if meaning is None:
            return None
        meanings[name] = Meaning("text") if name in huge else Meaning("float") if name in wide else meaning
    return Reading(scan, meanings, problems, text=not file.typed)


def _declared(file: Cells, name: str, kind: Any) -> Meaning | None:
    import polars as pl

    if name.startswith("_"):
        raise InputError(
            f"{file.path}: column {name!r}: names that start with '_' are Windvane's own. Rename it, or add it to "
            "problem.ignore"
        )
    meaning = canonical.of_type(kind)
    if meaning is None and kind not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"{file.path}: column {name!r} holds {kind}, which no model here can read. Flatten it, or add {name!r} to "
            "problem.ignore"
        )
    return meaning


def _of_words(file: Cells, name: str, words: pl.Series, ignored: bool, whole: bool) -> Meaning | None:
    import polars as pl

    words = canonical.filled(words.cast(pl.String)) if file.typed else canonical.clean(words)
    try:
        return canonical.of_words(words, typed=file.typed, whole=whole)
    except Slip as slip:
        if ignored:
            return Meaning("text", canonical.ANY)
        row = slip.odd.arg_max()
        assert row is not None
        first, where = repr(words[row]), file.where(row)
        if not slip.marked:
            raise InputError(
                mixed(file.path, name, Slips(slip.what, int(slip.odd.sum()), slip.total, first, where))
            ) from None
        raise InputError(
            f"{file.path}: column {name!r} holds numbers that read as words, such as {first} on {where}. "
            f"Write 1234.5: no thousands marks, no decimal comma, no % or currency; or add {name!r} to problem.ignore"
        ) from None


def _trusted(file: Cells, target: Path) -> bool:
    """Whether polars can have filled up no short line: these would leave gaps in the last column."""
    if file.dialect is None or tables.gaps(target).get(file.names[-1], 1) == 0:
        return True
    return delimited.even(file.plain, file.dialect, tables.rows(target))


def _coded(file: Cells, reading: Reading, target: Path, zeros: bool) -> bool:
    """Whether among the numbers may stand codes, which are words. `zeros`: some cell begins with one that means something."""
    assert file.dialect is not None
    ends = tables.ends(target)
    numbers = tuple(name for name, meaning in reading.meanings.items() if meaning.kind in ("int", "float"))
    # Whole numbers past int64, where there are gaps, were read as floats.
    far = any(ends[n].high is not None and max(-ends[n].low, ends[n].high) >= _FAR for n in numbers)
    return far or (zeros and bool(codes.columns(file.plain, file.dialect, numbers)))


def concatenate(files: tuple[Path, ...], parts: tuple[Path, ...], target: Path, keyed: Keyed) -> None:
    """Write the rows of canonical `parts`, in order, with their keys; `files`: what people call them.

    A column that one file lacks is missing there; whole numbers and floats become floats. Raises InputError where a
    column is of another type in another file.
    """
    import polars as pl

    scans = [tables.scan(part) for part in parts]
    types: dict[str, Any] = {}
    seen: dict[str, Path] = {}
    for file, part, scan in zip(files, parts, scans, strict=True):
        gaps, rows = tables.gaps(part), tables.rows(part)
        for name, kind in scan.collect_schema().items():
            if gaps[name] == rows:
                continue
            if name in types and types[name] != kind and not (kind.is_numeric() and types[name].is_numeric()):
                raise InputError(
                    f"{file}: column {name!r} mixes types: {_called(kind)} here, {_called(types[name])} in {seen[name]}. "
                    f"Mend it in one of these files, or add {name!r} to problem.ignore"
                )
            types[name] = kind if name not in types or types[name] == kind else pl.Float64()
            seen.setdefault(name, file)
    names = tuple(dict.fromkeys(name for scan in scans for name in scan.collect_schema()))
    whole = [n for n in names if types.get(n) == pl.Int64 and any(tables.gaps(p).get(n, 1) for p in parts)]
    types = {name: pl.Float64() if name in whole else types.get(name, pl.Float64()) for name in names}
    aligned = [
        scan.select(
            pl.col(n).cast(kind) if n in scan.collect_schema() and (tables.gaps(part)[n] < tables.rows(part))
            else pl.lit(None, kind).alias(n)
            for n, kind in types.items()
        )
        for part, scan in zip(parts, scans, strict=True)
    ]  # fmt: skip
    meanings = {name: Meaning(canonical.kind_of(kind)) for name, kind in types.items()}
    write(Reading(pl.concat(aligned), meanings, {}), target, keyed)


def _called(kind: Any) -> str:
    if kind.is_numeric():
        return "numbers"
    return "dates" if kind.is_temporal() else "true/false" if str(kind) == "Boolean" else "text"
