"""A file's cells become typed columns in a Parquet file, in a stream, with a key for every row; tables are
concatenated and sorted by time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import column_types, row_keys, table_io, text_files, text_parsing
from windvane.tasks.ingest.cell_reading import ABSENT_IF_KEPT, FORM_WORDS, suggest_number_forms
from windvane.tasks.ingest.column_types import ColumnMeaning, KnownWords, MixedTypesError
from windvane.tasks.ingest.readers import FileCells, build_damaged_file_error
from windvane.tasks.ingest.row_keys import EncodedWords
from windvane.tasks.ingest.text_files import describe_mixed_column

# From here on there are no int64.
_INT64_LIMIT = 2.0**63

# From the names of the readable columns to those whose values make a row's key; None: no key is wanted.
KeyColumnsChoice = Callable[[tuple[str, ...]], tuple[str, ...]] | None

# Polars' message when a file ends before its end was due: an error without a number.
_FILE_SHRUNK = "failed to fill whole buffer"


@dataclass(frozen=True)
class ReadingPlan:
    """How to read a file: its cells, what each readable column means, and what is wrong with the others.

    `absent`: the words of each column that mean no value. `missing`: whether such words are in the first rows, and are expected
    among the numbers too.
    """

    scan: pl.LazyFrame
    meanings: dict[str, ColumnMeaning]
    problems: dict[str, str]
    absent: Mapping[str, frozenset[str]]
    missing: bool = False


def convert_file(
    file: FileCells, target: Path, scratch: Path, ignore: tuple[str, ...], keyed: KeyColumnsChoice
) -> dict[str, str]:
    """Write the readable columns to `target`; what is wrong with each of the others that is not in `ignore`.

    A column in `ignore` that mixes types is kept as words; one that no table can hold is left out. Raises InputError
    where the file as a whole cannot be read.
    """
    reading = _plan_from_first_rows(file, ignore)
    with ThreadPoolExecutor(1) as beside:  # after it, a CSV would take a fifth longer on two cores
        coded = beside.submit(text_parsing.may_hold_codes, file.plain, file.dialect) if file.dialect else None
        while reading is not None:
            try:
                write_columns(reading, target, keyed)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError):
                break  # a cell below does not fit
            counts = table_io.count_missing(target)  # whole numbers with a gap further down are floats
            gaps = [name for name, meaning in reading.meanings.items() if meaning.kind == "int" and counts[name]]
            if not gaps:
                if _has_no_short_lines(file, target) and not _may_hold_codes(file, reading, target, coded):
                    return reading.problems
                break
            floats = dict.fromkeys(gaps, ColumnMeaning("float", file.format.numbers))
            reading = _read_typed_numbers(file, replace(reading, meanings={**reading.meanings, **floats}))
    reading = _plan_from_whole_columns(file, scratch, ignore)
    try:
        write_columns(reading, target, keyed)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise build_damaged_file_error(file.path, e) from None
    return reading.problems


def write_columns(reading: ReadingPlan, target: Path, keyed: KeyColumnsChoice) -> None:
    """Stream the cells into canonical columns. Raises polars' errors, or ValueError, where one does not fit."""
    names = tuple(reading.meanings)
    # An id that cannot be read is refused, once all that is wrong is known.
    key = tuple(name for name in keyed(names) if name in reading.meanings) if keyed else ()
    schema = {name: column_types.choose_canonical_type(meaning) for name, meaning in reading.meanings.items()}
    if keyed:
        schema[table_io.ROW_KEY] = pl.Int64()

    known: dict[str, KnownWords | None] = {}

    def canonically(batch: pl.DataFrame) -> pl.DataFrame:
        encoded: dict[str, EncodedWords] = {}
        frame = pl.DataFrame(
            [
                column_types.convert_cells(
                    batch[name], meaning, absent=reading.absent[name], encoded=encoded, known=known
                )
                for name, meaning in reading.meanings.items()
            ]
        )
        if keyed:
            frame.insert_column(len(names), pl.Series(table_io.ROW_KEY, row_keys.hash_rows(frame, key, encoded)))
        return frame

    try:
        table_io.sink_parquet(
            reading.scan.select(names).map_batches(canonically, schema=schema, streamable=True), target
        )
    except OSError as e:
        if _FILE_SHRUNK in str(e):  # the caller reads the file again, and reports what is wrong with it now
            raise pl.exceptions.ComputeError("the file became shorter while it was read") from None
        raise


def _plan_from_first_rows(file: FileCells, ignore: tuple[str, ...]) -> ReadingPlan | None:
    """What the first rows show; None where they cannot."""
    try:
        head = file.scan.head(column_types.HEAD_ROWS).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    whole = file.typed and head.height < column_types.HEAD_ROWS
    reading = _find_meanings(file, file.scan, lambda name: head[name], ignore, whole=whole)
    if reading is None or file.typed:
        return reading
    missing = any(bool(head[name].is_in(tuple(reading.absent[name])).any()) for name in reading.meanings)
    return _read_typed_numbers(file, replace(reading, missing=missing))


def _read_typed_numbers(file: FileCells, reading: ReadingPlan) -> ReadingPlan:
    """Read the numbers of a text file as such at once, now that the meanings are known."""
    # polars takes such words out of all columns or of none.
    if file.dialect is None or (file.format.keep_words and reading.missing):
        return reading
    types = tuple(column_types.choose_reading_type(reading.meanings.get(name)) for name in file.names)
    absent = file.format.list_absent_words("") if reading.missing else ()
    return replace(reading, scan=text_files.scan_csv(file.plain, file.dialect, types, absent))


def _plan_from_whole_columns(file: FileCells, scratch: Path, ignore: tuple[str, ...]) -> ReadingPlan:
    """What whole columns show, one of them in memory at a time."""
    scan = file.scan
    if file.dialect is not None:
        text = scratch / f"{len(list(scratch.iterdir()))}.text"
        text_files.rewrite_as_parquet(file.plain, file.dialect, text, file.path)
        scan = table_io.scan_parquet(text)
    try:
        reading = _find_meanings(file, scan, lambda name: scan.select(name).collect().to_series(), ignore, whole=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as e:
        raise build_damaged_file_error(file.path, e) from None
    assert reading is not None
    return reading


def _find_meanings(
    file: FileCells, scan: pl.LazyFrame, read: Callable[[str], pl.Series], ignore: tuple[str, ...], *, whole: bool
) -> ReadingPlan | None:
    """Meanings of all columns from the values that `read` gives; None if one of them is unknown from these."""
    schema = scan.collect_schema()
    unusual = column_types.find_unusual_columns(scan, schema if file.typed else pl.Schema())
    meanings: dict[str, ColumnMeaning] = {}
    problems: dict[str, str] = {}
    for name in file.names:
        try:
            meaning = _apply_declared_type(file, name, schema[name])
            if name in unusual.out_of_range:
                raise InputError(
                    f"{file.path}: column {name!r} holds times beyond the years 1 to 9999: perhaps they are counted in "
                    f"another unit than declared. Fix them, or add {name!r} to problem.ignore"
                )
            if meaning is None:
                meaning = _find_meaning_of_text(file, name, read(name), name in ignore, whole)
        except InputError as e:
            if name not in ignore:
                problems[name] = str(e)
            continue
        if meaning is None:
            return None
        if name in unusual.oversized or name in unusual.gaps:
            meaning = ColumnMeaning("text" if name in unusual.oversized else "float")
        meanings[name] = meaning
    absent = {name: file.format.list_absent_words(name) for name in meanings}
    return ReadingPlan(scan, meanings, problems, absent)


def _apply_declared_type(file: FileCells, name: str, kind: Any) -> ColumnMeaning | None:
    if name.startswith("_"):
        raise InputError(
            f"{file.path}: column {name!r}: names that start with '_' are Windvane's own. Rename it, or add it to "
            "problem.ignore"
        )
    meaning = column_types.infer_from_type(kind)
    if meaning is None and kind not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"{file.path}: column {name!r} holds {kind}, which no model here can read. Flatten it, or add {name!r} to "
            "problem.ignore"
        )
    return meaning


def _find_meaning_of_text(
    file: FileCells, name: str, words: pl.Series, ignored: bool, whole: bool
) -> ColumnMeaning | None:
    words = column_types.strip_words(words.cast(pl.String), file.format.list_absent_words(name))
    form = file.format
    try:
        return column_types.infer_from_words(
            words, typed=file.typed, whole=whole, dates=form.dates, numbers=form.numbers
        )
    except MixedTypesError as slip:
        if ignored:
            return ColumnMeaning("text", column_types.ANY_FORM)
        row = slip.odd.arg_max()
        assert row is not None
        first, where = repr(words[row]), file.where(row)
        if not slip.formatted:
            odd = int(slip.odd.sum())
            message = describe_mixed_column(file.path, name, slip.what, odd, slip.total, f"{first} on {where}")
            if words.filter(slip.odd).n_unique() == 1:
                message += f". If {first} means no value, set data.format: {{missing_words: [{first}]}} in params.yaml"
            raise InputError(message) from None
        keys = suggest_number_forms(words.drop_nulls().unique(maintain_order=True).head(FORM_WORDS).to_list())
        way = "Write 1234.5: no thousands marks, no decimal comma, no % or currency"
        if form.numbers is not None:
            way = f"Write all of them as data.format has it, {form.numbers.describe()}, and a sign such as % beside all or none"
        elif keys:
            way = f"Set {' or '.join(f'data.format: {one.describe()}' for one in keys)} in params.yaml"
        raise InputError(
            f"{file.path}: column {name!r} holds numbers that read as words, such as {first} on {where}. {way}; or add {name!r} to "
            "problem.ignore"
        ) from None


def _has_no_short_lines(file: FileCells, target: Path) -> bool:
    """Whether polars can have filled up no short line: these would leave gaps in the last column."""
    if file.dialect is None or table_io.count_missing(target).get(file.names[-1], 1) == 0:
        return True
    return text_files.has_even_rows(file.plain, file.dialect, table_io.count_parquet_rows(target))


def _may_hold_codes(file: FileCells, reading: ReadingPlan, target: Path, coded: Future[bool] | None) -> bool:
    """Whether among the numbers of a text file may be codes, which are words. `coded`: whether any cell may be one."""
    if file.dialect is None or coded is None:
        return False
    ends = table_io.read_column_ends(target)
    numbers = tuple(name for name, meaning in reading.meanings.items() if meaning.kind in ("int", "float"))
    # Whole numbers past int64, where there are gaps, were read as floats.
    if any(ends[n].high is not None and max(-ends[n].low, ends[n].high) >= _INT64_LIMIT for n in numbers):
        return True
    return coded.result() and bool(text_parsing.find_code_columns(file.plain, file.dialect, numbers))


def concatenate_tables(files: tuple[Path, ...], parts: tuple[Path, ...], target: Path, keyed: KeyColumnsChoice) -> None:
    """Write the rows of canonical `parts`, in order, with their keys; `files`: what people call them.

    A column that one file lacks is missing there; whole numbers and floats become floats. Raises InputError where a
    column is of another type in another file.
    """
    scans = [table_io.scan_parquet(part) for part in parts]
    schemas = [scan.collect_schema() for scan in scans]
    gaps = [table_io.count_missing(part) for part in parts]
    filled = [  # the columns in which a part has values
        {name for name in schema if missing[name] < table_io.count_parquet_rows(part)}
        for schema, missing, part in zip(schemas, gaps, parts, strict=True)
    ]
    types: dict[str, Any] = dict.fromkeys(name for schema in schemas for name in schema)
    seen: dict[str, Path] = {}
    for file, schema, names in zip(files, schemas, filled, strict=True):
        for name in (name for name in schema if name in names):
            kind, before = schema[name], types[name]
            if before is not None and before != kind and not (kind.is_numeric() and before.is_numeric()):
                raise InputError(
                    f"{file}: column {name!r} mixes types: {_name_type(kind)} here, {_name_type(before)} in {seen[name]}. "
                    f"Fix it in one of these files, or add {name!r} to problem.ignore"
                )
            types[name] = kind if before in (None, kind) else pl.Float64()
            seen.setdefault(name, file)
    for name, kind in types.items():
        if kind is None or (kind == pl.Int64 and any(missing.get(name, 1) for missing in gaps)):
            types[name] = pl.Float64()
    aligned = [
        scan.select(
            pl.col(name).cast(kind) if name in names else pl.lit(None, kind).alias(name) for name, kind in types.items()
        )
        for scan, names in zip(scans, filled, strict=True)
    ]
    meanings = {name: ColumnMeaning(column_types.choose_cell_kind(kind)) for name, kind in types.items()}
    # The words of the parts were read already.
    absent = dict.fromkeys(types, ABSENT_IF_KEPT)
    write_columns(ReadingPlan(pl.concat(aligned), meanings, {}, absent), target, keyed)


def _name_type(kind: Any) -> str:
    if kind.is_numeric():
        return "numbers"
    return "dates" if kind.is_temporal() else "true/false" if str(kind) == "Boolean" else "text"


# Rows in memory at once while a large table is sorted.
SORT_CHUNK_ROWS = 1_000_000


def is_sorted_by_time(table: Path, time: str) -> bool:
    """Whether each row's time is that of the row before it, or later."""
    falls = pl.col(time).to_physical().diff() < 0
    return not table_io.scan_parquet(table).select(falls.any()).collect(engine="streaming").item()


def sort_by_time(table: Path, time: str, target: Path) -> None:
    """Write the rows of `table` to `target` by `time`; rows of one time keep their order. No time may be missing.

    By ranges of time with about SORT_CHUNK_ROWS rows each, so that one range at a time is in memory (a single time with
    more rows than that is one range). The table is read once per range.
    """
    scan = table_io.scan_parquet(table)
    times = scan.select(pl.col(time).to_physical()).collect().to_series().sort()
    starts = times.gather_every(SORT_CHUNK_ROWS).unique(maintain_order=True).to_list()
    physical = pl.col(time).to_physical()
    with contextlib.ExitStack() as stack:
        writer = None
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            within = physical >= start if end is None else (physical >= start) & (physical < end)
            part = scan.filter(within).collect(engine="streaming").sort(time, maintain_order=True).to_arrow()
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(target, part.schema, compression="lz4"))
            writer.write_table(part, row_group_size=table_io.ROW_GROUP_ROWS)
