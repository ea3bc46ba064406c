"""Paths that are no files, or not for long: folders, links, pipes, permissions, our own outputs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.hostile.case import Case, csv, houses
from tests.hostile.corpus_parquet import parquet

GOOD = csv(houses())


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("gone.csv")


def linked(path: Path) -> None:
    path.with_name("real.csv").write_bytes(GOOD)
    path.symlink_to("real.csv")


def bound(path: Path) -> None:
    """A socket; its path may be short only, so it is bound where it stands."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.chdir(here)


def folder_of_one_bad(path: Path) -> None:
    path.mkdir()
    (path / "a.csv").write_bytes(GOOD)
    (path / "b.csv").write_bytes(GOOD.replace(b"size", b"area", 1))


def data_is_a_file(path: Path) -> None:
    path.write_bytes(GOOD)
    (path.parent / ".windvane").write_bytes(b"notes")


def own_folder(path: Path) -> None:
    path.mkdir()
    (path / "t.csv").write_bytes(GOOD)


CASES = (
    Case("no file", lambda path: None, "stop", ("not found",), "a typo"),
    Case("no folder", lambda path: path.parent.rmdir(), "stop", ("not found", "no folder"), "a typo", file="in/t.csv"),
    Case("a folder without a table", lambda path: path.mkdir(), "stop", (), "nothing to read"),
    Case(
        "a folder of tables that differ",
        folder_of_one_bad,
        "warn",
        ("'area'", "'size'"),
        "a new column in a later part is natural; one that ends where another begins has changed its name",
    ),
    Case("a link to itself", loop, "stop", (), "opening it would never end"),
    Case("a link to nothing", dangling, "stop", (), "a disk that is not mounted"),
    Case("a link to a table", linked, "pass", (), "as good as the table"),
    Case("a pipe", os.mkfifo, "stop", (), "opening it would wait for ever"),
    Case("a socket", bound, "stop", (), "no file"),
    Case("a device that gives nothing", lambda path: path.symlink_to("/dev/null"), "stop", (), "no file"),
    Case("a device without end", lambda path: path.symlink_to("/dev/zero"), "stop", (), "reading it would never end"),
    Case(
        "the table that ingest writes",
        parquet(),
        "stop",
        ("data.source",),
        "the source would be replaced by what was made from it",
        file=".windvane/data/table.parquet",
    ),
    Case(
        "our data folder is a file",
        data_is_a_file,
        "stop",
        ("Rename",),
        "no place for the table; the file stays as it is",
        names=".windvane",
    ),
    Case(
        "our own folder as source",
        own_folder,
        "stop",
        ("data.source",),
        "our outputs are no input",
        file=".windvane/data",
    ),
)
