"""Stage 1: the source becomes table.parquet, in canonical types, in time order, with a key for every row."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from windvane.tasks import io
from windvane.tasks.errors import InputError, join_messages
from windvane.tasks.ingest import parquet_writer, readers, table_io, text_parsing
from windvane.tasks.ingest.cell_reading import UNNAMED
from windvane.tasks.ingest.readers import FileCells
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings import problem_section, project_params
from windvane.tasks.sources import snapshot, table_files
from windvane.tasks.validate import table_profile

# More different words are names, and no classes.
MAX_SPELLED_CLASSES = 1_000


@dataclass(frozen=True)
class JoinedFiles:
    """What is wrong with columns that could not be read, and how many rows each file has."""

    problems: dict[str, str]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class TableOrigin:
    """Where a table's rows come from: its files in order, how many rows each has, and how to name them all. `kept`: which of these
    rows are in the table; None: all.
    """

    files: tuple[FileCells, ...]
    rows: tuple[int, ...]
    name: str
    kept: pl.Series | None = None

    def where(self, row: int) -> str:
        """Where people find row `row` (from 0) of the table."""
        row = row if self.kept is None else int(self.kept[row])
        for file, rows in zip(self.files, self.rows, strict=True):
            if row < rows:
                return file.where(row) if len(self.files) == 1 else f"{file.where(row)} of {file.path}"
            row -= rows
        raise IndexError(row)


def run_ingest(root: Path, chosen: project_params.Settings) -> None:
    """Read data.source below `root` and write table.parquet. Raises InputError naming file, column, line, remedy."""
    with open_scratch_folder(root) as folder:
        table = folder / "table.parquet"
        write_table(root, chosen, table, folder)
        io.move_into_place(table, root / table_profile.TABLE_FILE)


@contextmanager
def open_scratch_folder(root: Path) -> Iterator[Path]:
    """A folder for what must be written to be read in a stream, beside the data: a temporary folder may lie in memory."""
    folder = root / DATA_FOLDER / f".scratch-{uuid4().hex[:8]}"
    places = (folder.parent, folder.parent.parent)
    for place in places:
        if place.exists() and not place.is_dir():
            raise InputError(f"{place}: is a file, where Windvane needs a folder. Rename it")
    made = [place for place in places if not place.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    # Held first, and by the system: a kill releases it.
    with FileLock(lock := folder.with_suffix(".lock")):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            for place in made:
                if not any(place.iterdir()):
                    place.rmdir()


def _sweep(data: Path) -> None:
    """Delete the scratch folders of processes that were killed: no process holds their locks any more."""
    for folder in data.glob(".scratch-*"):
        lock = folder.with_suffix(".lock")
        with suppress(Timeout), FileLock(lock, timeout=0):
            if folder != lock:
                shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def write_table(root: Path, chosen: project_params.Settings, target: Path, folder: Path) -> None:
    """The source's rows with tables.ROW, sorted by problem.time (rows of one time keep their order), as Parquet.

    Rows without a label are kept: they are data too; tasks/split/data_split.py leaves them out. `folder`: for scratch files.
    """
    problem = chosen.problem
    with table_files.explain_read_errors(chosen.data.where):
        opened = tuple(
            readers.open_cells(path, folder, problem.ignore, chosen.data.format)
            for path in table_files.list_table_files(root, chosen.data)
        )
        name = str(opened[0].path) if len(opened) == 1 else chosen.data.where
        first = target if problem.time is None else folder / "unsorted.parquet"
        faults = [*(fault for file in opened for fault in file.faults), *_find_missing_columns(opened, name, problem)]
        try:
            joined = join_files(
                opened, first, folder, problem.ignore, lambda names: table_profile.choose_key_columns(problem, names)
            )
        except InputError as e:
            raise InputError(join_messages([*faults, str(e)])) from None
        faults += joined.problems.values()
        if faults and problem.time is not None and problem.time in table_io.scan_parquet(first).collect_schema():
            try:
                _check_time(TableOrigin(opened, joined.rows, name), first, problem.time)
            except InputError as e:
                faults.append(str(e))
        if faults:
            raise InputError(join_messages(faults))
        drop_nameless_columns(first, folder)
        kept = drop_empty_rows(first, folder)
        if problem.kind == "classification" and problem.merge_spellings:
            merge_class_spellings(first, problem.target, folder)
        if labelled := snapshot.count_labelled_rows(root):
            _drop_fed_back_duplicates(first, labelled, folder)
        if problem.time is None:
            return
        _check_time(TableOrigin(opened, joined.rows, name, kept), first, problem.time)
        if parquet_writer.is_sorted_by_time(first, problem.time):
            first.replace(target)
        else:
            parquet_writer.sort_by_time(first, problem.time, target)


def drop_nameless_columns(table: Path, scratch: Path) -> None:
    """Leave out the columns of a table that have neither a name nor a value, such as a delimiter at each line's end makes."""
    rows, prefix = table_io.count_parquet_rows(table), UNNAMED.format("")
    missing = table_io.count_missing(table).items()
    if empty := [name for name, count in missing if count == rows and name.startswith(prefix)]:
        table_io.sink_parquet(table_io.scan_parquet(table).drop(empty), scratch / "named.parquet")
        (scratch / "named.parquet").replace(table)


def drop_empty_rows(table: Path, scratch: Path) -> pl.Series | None:
    """Leave out the rows of a table without any value, such as `;;;;` at the end of a spreadsheet; the places of the others, None:
    there are no such rows.
    """
    missing = {name: count for name, count in table_io.count_missing(table).items() if name != table_io.ROW_KEY}
    if not missing or not all(missing.values()):
        return None
    scan = table_io.scan_parquet(table)
    empty = scan.select(pl.all_horizontal(pl.col(*missing).is_null()).alias("empty")).collect()["empty"]
    if not empty.any():
        return None
    _keep_rows(table, ~empty, scratch)
    return (~empty).arg_true()


def merge_class_spellings(table: Path, target: str, scratch: Path) -> dict[str, tuple[str, ...]]:
    """Write classes that differ only in case and blanks, such as Yes, yes and YES, as the most frequent of them; by that name the
    others. Nothing changes where the target holds no words.
    """
    scan = table_io.scan_parquet(table)
    if scan.collect_schema().get(target) != pl.String:
        return {}
    counted = scan.select(pl.col(target).drop_nulls()).group_by(target).agg(pl.len().alias("rows"))
    counts = counted.sort("rows", target, descending=[True, False]).collect(engine="streaming")
    if len(counts) > MAX_SPELLED_CLASSES:
        return {}
    found: dict[str, list[str]] = {}
    for spelling in counts[target]:
        found.setdefault(text_parsing.fold_spelling(spelling), []).append(spelling)
    merged = {first: tuple(rest) for first, *rest in found.values() if rest}
    if merged:
        names = {other: first for first, rest in merged.items() for other in rest}
        table_io.sink_parquet(scan.with_columns(pl.col(target).replace(names)), scratch / "merged.parquet")
        (scratch / "merged.parquet").replace(table)
    return merged


def _drop_fed_back_duplicates(table: Path, labelled: int, folder: Path) -> None:
    """Leave out rows that came back from production, the last `labelled`, where the source has a row of the same key."""
    keys = table_io.scan_parquet(table).select(table_io.ROW_KEY).collect()[table_io.ROW_KEY]
    kept = np.ones(len(keys), dtype=bool)
    kept[-labelled:] = ~keys[-labelled:].is_in(keys[:-labelled].implode()).to_numpy()
    if not kept.all():
        _keep_rows(table, pl.Series(kept), folder)


def _keep_rows(table: Path, kept: pl.Series, scratch: Path) -> None:
    scan = pl.concat([table_io.scan_parquet(table), pl.LazyFrame({"_kept": kept})], how="horizontal")
    table_io.sink_parquet(scan.filter(pl.col("_kept")).drop("_kept"), scratch / "kept.parquet")
    (scratch / "kept.parquet").replace(table)


def _find_missing_columns(
    opened: tuple[FileCells, ...], name: str, problem: problem_section.ProblemSettings
) -> Iterator[str]:
    """What is wrong with the columns that a table has, where their names can be read at all."""
    if any(file.faults for file in opened):
        return
    names = tuple(dict.fromkeys(name for file in opened for name in file.names))
    if len(names) == 1:
        yield (
            f"{name}: has one column, {names[0]!r}: nothing to predict {problem.target!r} from. Export the other columns too; "
            "cells are parted by ',', ';', a tab or '|'"
        )
        return
    try:
        table_profile.require_columns(table_profile.list_named_columns(problem), names, name)
    except InputError as e:
        yield str(e)
        for file in opened:
            if file.dialect is not None and file.dialect.unheaded:
                yield (
                    f"{file.path}: {file.dialect.unheaded} (likely). If so, set data.format: {{header: false}}, which names its columns "
                    f"column_1 to column_{len(file.names)}, or {{header: [a name for each]}}"
                )


def join_files(
    opened: tuple[FileCells, ...],
    target: Path,
    folder: Path,
    ignore: tuple[str, ...],
    keyed: parquet_writer.KeyColumnsChoice,
) -> JoinedFiles:
    """Write all readable columns of the files, row after row in their order, in canonical types."""
    if len(opened) == 1:
        problems = parquet_writer.convert_file(opened[0], target, folder, ignore, keyed)
        return JoinedFiles(problems, (table_io.count_parquet_rows(target),))
    problems = {}
    parts = tuple(folder / f"part-{number}.parquet" for number in range(len(opened)))
    for file, part in zip(opened, parts, strict=True):
        problems |= parquet_writer.convert_file(file, part, folder, ignore, None)
    if not problems:
        parquet_writer.concatenate_tables(tuple(file.path for file in opened), parts, target, keyed)
    return JoinedFiles(problems, tuple(table_io.count_parquet_rows(part) for part in parts))


def _check_time(origin: TableOrigin, table: Path, name: str) -> None:
    """Time is a date or a number, and every row has one."""
    scan = table_io.scan_parquet(table).select(name)
    kind = scan.collect_schema()[name]
    missing = table_io.count_missing(table)[name]
    if not (kind.is_temporal() or kind.is_numeric()) or missing == table_io.count_parquet_rows(table):
        raise InputError(
            f"problem.time: {origin.name}: column {name!r} {_no_time(origin, scan, kind)}. Write dates as 2024-12-31 or "
            "2024-12-31 23:59:00"
        )
    if missing:
        where = origin.where(scan.select(pl.col(name).is_null().arg_max()).collect().item())
        raise InputError(
            f"problem.time: {origin.name}: column {name!r} is empty in {missing} rows, first on {where}. "
            f"Fill it in, delete these rows, or name another time column"
        )
    if kind.is_float() and scan.select(pl.col(name).is_infinite().any()).collect().item():
        raise InputError(
            f"problem.time: {origin.name}: column {name!r} holds infinite values. Fix them, or name another time column"
        )


def _no_time(origin: TableOrigin, scan: pl.LazyFrame, kind: Any) -> str:
    values = scan.collect().to_series()
    if kind != pl.String or values.null_count() == len(values):
        return "holds no dates"
    row = values.is_not_null().arg_max()
    assert row is not None
    first = f"{values[row]!r} on {origin.where(row)}"
    if len(text_parsing.find_date_forms(values.drop_nulls().head(1000))) > 1:
        return f"does not show which of day and month comes first (data.format.dates decides): {first}"
    return f"holds words that are no dates, such as {first}"
