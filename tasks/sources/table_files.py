"""Files that hold a table: which files a source names (one, a folder, a glob, S3 objects), in order, and their rows.

S3 needs windvane[s3].
"""

from __future__ import annotations

import difflib
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from windvane.tasks.errors import InputError, Outage
from windvane.tasks.ingest.cell_reading import (
    CSV_ENDINGS,
    KNOWN_ENDINGS,
    PARQUET_ENDINGS,
    SHEET_ENDINGS,
    UNPACK_ERRORS,
    describe_endings,
    find_table_ending,
    read_ending,
)
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.settings.data_section import (
    PLAIN_FORMAT,
    DataSettings,
    FormatSettings,
    RevealedData,
    expand_variables,
)
from windvane.tasks.sources import snapshot

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ListedFile:
    """A file of a source: its name there, and what changes when its content does."""

    name: str
    etag: str
    bytes: int


def scan_table_file(path: Path, format: FormatSettings = PLAIN_FORMAT) -> pl.LazyFrame:
    """A file's rows, of a text table or a sheet every cell as text. Raises polars' own errors where it is damaged, or InputError."""
    import polars as pl

    from windvane.tasks.ingest import json_lists, text_files

    ending = read_ending(path)
    if ending in PARQUET_ENDINGS:
        return pl.scan_parquet(path, glob=False)
    if ending in SHEET_ENDINGS:
        return _read_workbook(path, format).lazy()
    if ending in CSV_ENDINGS:
        return text_files.scan_as_written(path, format)
    if json_lists.is_json_list(path):
        return _read_json_list(path).lazy()
    return pl.scan_ndjson(path, infer_schema_length=None)


def _read_workbook(path: Path, format: FormatSettings) -> pl.DataFrame:
    """The sheet that ingest reads too; a workbook cannot be read in a stream."""
    from windvane.tasks.ingest import packed_files, text_files, workbooks

    with TemporaryDirectory() as folder:
        book, text = Path(folder, "book"), Path(folder, "sheet")
        with packed_files.open_unpacked(path) as packed, book.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        text.write_text(workbooks.render_sheet(book, path, workbooks.require_sheet(book, path, format.sheet)), "utf-8")
        return text_files.scan_as_written(text, format).collect()


def _read_json_list(path: Path) -> pl.DataFrame:
    import polars as pl

    from windvane.tasks.ingest import json_lists, packed_files

    with TemporaryDirectory() as folder, packed_files.open_unpacked(path) as file:
        lines = Path(folder, "lines.jsonl")
        lines.write_text("".join(f"{item}\n" for _, item in json_lists.read_json_list(file, path)), "utf-8")
        return pl.read_ndjson(lines, infer_schema_length=None)


def count_file_rows(path: Path, format: FormatSettings = PLAIN_FORMAT) -> int | None:
    """How many rows a file holds; None where it cannot be read: ingest will explain why."""
    import polars as pl

    try:
        return int(scan_table_file(path, format).select(pl.len()).collect(engine="streaming").item())
    except (pl.exceptions.PolarsError, InputError, *UNPACK_ERRORS):
        return None


def list_table_files(root: Path, data: DataSettings) -> tuple[Path, ...]:
    """The files whose rows make the table, in order. Raises InputError where there are none.

    A local file, or a local folder's files sorted by name; for every other source the parts that the last fetch
    recorded. Parts with labels from production come last.
    """
    record = snapshot.read_snapshot(root)
    labelled = tuple(root / part.path for part in (record.labelled if record else ()))
    if not data.local:
        if record is None or not record.own:
            raise InputError(
                f"{snapshot.SNAPSHOT_RECORD_FILE}: there is no whole snapshot of {data.where}. Run `windvane train`: it fetches first"
            )
        return (*(root / part.path for part in record.own), *labelled)
    path = root / expand_variables(data.source, "data.source")
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root / STATE_FOLDER)):
        raise InputError(
            f"data.source: {path}: is where Windvane itself writes what it has read. Put your table outside of {STATE_FOLDER}, as "
            "data/houses.csv, and name that"
        )
    return (*(_list_folder(path) if path.is_dir() else (path,)), *labelled)


def _list_folder(folder: Path) -> tuple[Path, ...]:
    found = sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and read_ending(p) in KNOWN_ENDINGS and not p.name.startswith((".", "~$"))
    )
    if not found:
        raise InputError(
            f"{folder}: is a folder without tables. Put files that end in {', '.join(KNOWN_ENDINGS)} there"
        )
    return tuple(found)


@contextmanager
def explain_read_errors(name: str) -> Iterator[None]:
    """Around all that reads a source (`name`, for people): InputError where it may not be read, or goes meanwhile."""
    try:
        yield
    except PermissionError:
        raise InputError(
            f"{name}: you have no permission to read it. Name a file that you may read, or set its rights: chmod"
        ) from None
    except FileNotFoundError:
        raise InputError(
            f"{name}: was there, and is gone now. Put it back, and keep other programs from moving it"
        ) from None


def require_table_file(path: Path) -> None:
    """Raise InputError unless `path` is a file that is not empty and whose name gives its format."""
    if not str(path).isprintable():
        raise InputError(f"{str(path)!r}: has a line break or another sign in its name that cannot be shown. Rename it")
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name one file in it")
    if read_ending(path) not in KNOWN_ENDINGS:
        raise InputError(f"{path}: its format is unknown. Name a file that ends in {', '.join(KNOWN_ENDINGS)}")
    if not path.is_file():
        if path.exists():
            raise InputError(f"{path}: is a pipe, a socket or a device, not a file. Save its content in a file first")
        raise InputError(f"{path}: not found. {_suggest_file(path)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty. Export the table again, with a header and rows")


def _suggest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} here: paths count from the folder of params.yaml. Name another path"
    names = sorted(p.name for p in path.parent.iterdir() if read_ending(p) in KNOWN_ENDINGS)
    if not names:
        return f"There is no table in {path.parent}; put it there, or name another path"
    if near := difflib.get_close_matches(path.name, names, n=1, cutoff=0.5):
        return f"Did you mean {path.parent / near[0]}?"
    return f"Tables in {path.parent}: {', '.join(names[:5])}"


class GlobFiles:
    """The files of a glob, which counts from `root`."""

    def __init__(self, source: RevealedData, root: Path) -> None:
        self._source, self._root = source, root

    def listed(self) -> tuple[ListedFile, ...]:
        """The tables that the pattern matches, by name. Raises InputError when there is none."""
        names = sorted(glob.glob(self._source.data.source, root_dir=self._root, recursive=True))
        found = []
        for name in names:
            path = self._root / name
            if path.is_file() and find_table_ending(name):
                state = path.stat()
                found.append(ListedFile(name, f"{state.st_size}-{state.st_mtime_ns}", state.st_size))
        if not found:
            raise InputError(
                f"data.source: {self._source.where}: matches no table. Its files must end in {describe_endings()}"
            )
        return tuple(found)

    def copy(self, file: ListedFile, to: Path) -> None:
        """Copy one file."""
        try:
            shutil.copyfile(self._root / file.name, to)
        except FileNotFoundError:
            raise InputError(f"data.source: {file.name}: vanished while it was read. Run again") from None


_S3_ATTEMPTS = 3
_S3_CONNECT_SECONDS = 10


class S3Files:
    """The objects below a prefix, or that a glob matches."""

    def __init__(self, source: RevealedData) -> None:
        self._source = source
        try:
            import s3fs
        except ImportError:
            raise InputError(
                f"data.source: {source.where} needs s3fs. Install it: pip install 'windvane[s3]'"
            ) from None
        times = {"connect_timeout": _S3_CONNECT_SECONDS, "read_timeout": source.data.timeout}
        config = {**times, "retries": {"max_attempts": _S3_ATTEMPTS}}
        # Not from fsspec's caches: instances of another endpoint, and listings of earlier.
        self._storage = s3fs.S3FileSystem(config_kwargs=config, skip_instance_cache=True, use_listings_cache=False)
        self._storage.retries = _S3_ATTEMPTS

    def listed(self) -> tuple[ListedFile, ...]:
        """The tables there, by name, with their ETags. Raises InputError when there is none."""
        place = self._source.data.source.removeprefix("s3://").rstrip("/")
        list_paths = self._storage.glob if any(sign in place for sign in "*?[") else self._storage.find
        with self._explained():
            found = list_paths(place, detail=True)
        files = [
            ListedFile(name, _etag(facts), int(facts["size"]))
            for name, facts in sorted(found.items())
            if facts.get("type") == "file" and find_table_ending(name)
        ]
        if not files:
            raise InputError(
                f"data.source: {self._source.where}: holds no table. Its objects must end in {describe_endings()}"
            )
        return tuple(files)

    def copy(self, file: ListedFile, to: Path) -> None:
        """Stream one object to a file. Raises Outage when it breaks off, or changes meanwhile."""
        with self._explained():
            self._storage.get_file(file.name, str(to))
            now = self._storage.info(file.name, refresh=True)
        if _etag(now) != file.etag or to.stat().st_size != file.bytes:
            raise Outage(f"data.source: s3://{file.name}: changed while it was read. Run again when its writer is done")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A storage's errors in words: whose fault it is and what to do."""
        import botocore.exceptions as aws

        where = self._source.where
        try:
            yield
        except (aws.NoCredentialsError, aws.PartialCredentialsError, PermissionError) as e:
            raise InputError(
                f"data.source: {where}: is not yours to read ({_describe_s3_error(e)}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except FileNotFoundError as e:
            raise InputError(
                f"data.source: {where}: is not there ({_describe_s3_error(e)}). Fix bucket or prefix"
            ) from None
        except (OSError, aws.BotoCoreError, aws.ClientError) as e:
            raise Outage(
                f"data.source: {where}: the storage does not respond ({_describe_s3_error(e)}). Start it, or fix AWS_ENDPOINT_URL"
            ) from None


def open_files(source: RevealedData, root: Path) -> GlobFiles | S3Files:
    """The files that a glob or an S3 address names."""
    return GlobFiles(source, root) if source.kind == "glob" else S3Files(source)


def _etag(facts: Any) -> str:
    return str(facts.get("ETag", "")).strip('"')


def _describe_s3_error(error: BaseException) -> str:
    """The type of error and its first words; storage errors name buckets and endpoints, never keys."""
    return " ".join([type(error).__name__, *str(error).split()])[:200].rstrip(".")
