"""Files that are not what their name says: archives, office files, pages of servers, endings, names of files."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from pathlib import Path

from tests.hostile.case import Case, csv, houses

GOOD = csv(houses())


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return out.getvalue()


def sqlite(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("create table t (price)")
    db.close()


PAGE = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n<body>nginx, 1.2</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

CASES = (
    Case("ZIP called CSV", zipped("t.csv"), "stop", ("ZIP",), "unpack it: which of the files in it is meant?"),
    Case("Excel called CSV", zipped("xl/workbook.xml"), "stop", ("Excel",), "renamed, not exported"),
    Case("old Excel called CSV", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 500, "stop", ("Excel",), "as above"),
    Case("gzip called CSV", gzip.compress(GOOD, mtime=0), "stop", ("gzip",), "name it .csv.gz, or unpack it"),
    Case("zstd called CSV", b"\x28\xb5\x2f\xfd\x04\x00" + GOOD[:200], "stop", ("zstd",), "as gzip"),
    Case("PDF called CSV", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "stop", ("PDF",), "a report, no table"),
    Case("SQLite called CSV", sqlite, "stop", ("SQLite",), "a database"),
    Case("Parquet called CSV", b"PAR1\x15\x04\x15\x10\x00\x00PAR1", "stop", ("Parquet",), "name it .parquet"),
    Case("an HTML error page called CSV", PAGE, "stop", ("HTML",), "the download failed and was saved"),
    Case(
        "an XML error called CSV",
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>,</Error>\n',
        "stop",
        ("XML",),
        "a bucket refused the download",
    ),
    Case(
        "JSON called CSV",
        json.dumps([{"price": i, "size": 2} for i in range(99)]).encode(),
        "stop",
        ("JSON",),
        "renamed",
    ),
    Case("a Git LFS pointer called CSV", POINTER, "stop", ("Git LFS",), "the clone did not fetch it: git lfs pull"),
    Case("an HTML error page called JSON", PAGE, "stop", ("HTML",), "as above", file="t.jsonl"),
    Case("an HTML error page called Parquet", PAGE, "stop", ("HTML",), "as above", file="t.parquet"),
    Case("CSV called Parquet", GOOD, "stop", ("no Parquet",), "renamed", file="t.parquet"),
    Case("CSV called JSON", GOOD, "stop", ("line 1", "JSON"), "renamed", file="t.jsonl"),
    Case("truncated gzip", gzip.compress(GOOD, mtime=0)[:-900], "stop", (), "a copy that broke off", file="t.csv.gz"),
    Case("no gzip at all", GOOD, "stop", (), "only its name", file="t.csv.gz"),
    Case("an unknown ending", GOOD, "stop", ("format", ".csv"), "nobody should guess", file="t.dat"),
    Case("no ending", GOOD, "stop", ("format", ".csv"), "nobody should guess", file="t"),
    Case("an ending in capitals", GOOD, "pass", (), "DOS wrote it so", file="T.CSV"),
    Case("a file name with a line end", GOOD, "stop", ("Rename",), "the message stays on one line", file="a\nb.csv"),
    Case("a file name of templates", GOOD[:0], "stop", ("empty",), "shown as it is", file="{x} %s $(id).csv"),
    Case("a good file of a bad name", GOOD, "pass", (), "the user's own choice", file='it\'s "a" [b] {x} %s #1.csv'),
)
