"""Globs and S3-compatible storage as sources: a real S3 server, files as they came, and only those that changed."""

from __future__ import annotations

import builtins
import gzip
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.projects import ROOT
from tests.support.sources import data, send, state, web, write_book
from tests.support.storage_server import Storage
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.sources import fetch, snapshot
from windvane.tasks.stores import dvc_pipeline

pytestmark = pytest.mark.long

ROWS = pl.DataFrame({"x": [1, 2, 3], "town": ["Ulm", None, "Bonn"]})


def parquet(rows: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()


def test_every_format_comes_as_it_lies_in_the_bucket(storage: Storage, tmp_path: Path) -> None:
    contents = {
        "in/a.csv": ROWS.write_csv().encode(),
        "in/b.csv.gz": gzip.compress(ROWS.write_csv().encode(), mtime=0),
        "in/c.parquet": parquet(ROWS),
        "in/d.jsonl": ROWS.write_ndjson().encode(),
        "in/readme.txt": b"no table",
        "other/e.csv": b"x,town\n9,Rome\n",
    }
    for name, content in contents.items():
        storage.put(name, content)
    section = data(source="s3://bucket/in/")
    assert fetch.fetch_source(tmp_path, section).new == 12
    record = snapshot.read_snapshot(tmp_path)
    assert record is not None
    assert [part.name for part in record.parts] == [f"bucket/{n}" for n in contents if "readme" not in n and "in/" in n]
    for part in record.parts:
        assert (tmp_path / part.path).read_bytes() == contents[str(part.name).removeprefix("bucket/")]
    before = state(tmp_path)
    assert not fetch.fetch_source(tmp_path, section).moved
    assert state(tmp_path) == before
    assert fetch.fetch_source(tmp_path, data(source="s3://bucket/*/?.csv")).new == 4
    assert b"secret-of-tests" not in b"".join(state(tmp_path).values())


def test_only_new_and_changed_objects_are_read(storage: Storage, tmp_path: Path) -> None:
    storage.put("in/a.csv", b"id,x\n1,1\n2,2\n")
    storage.put("in/c.csv", b"id,x\n3,3\n")
    section = data(source="s3://bucket/in")
    first = fetch.fetch_source(tmp_path, section).record
    storage.put("in/b.csv", b"id,x\n4,4\n")
    grown = fetch.fetch_source(tmp_path, section)
    assert first is not None
    assert grown.record is not None
    assert (grown.new, grown.record.generation, grown.record.parts[:2]) == (1, 1, first.parts)
    storage.put("in/a.csv", b"id,x\n1,1\n2,9\n")
    storage.client.delete_object(Bucket="bucket", Key="in/c.csv")
    changed = fetch.fetch_source(tmp_path, section, "id")
    assert changed.record is not None
    assert (changed.new, changed.record.generation) == (2, 2)
    assert str(changed.record.changes) == "0 new, 1 updated, 1 deleted rows (by id)"
    assert changed.record.parts[1] == grown.record.parts[2]


def test_a_storage_killed_in_mid_read_leaves_the_snapshot_and_the_next_fetch_works(
    storage: Storage, tmp_path: Path
) -> None:
    small, large = b"id,x\n1,1\n", b"id,x\n" + b"22222222,33333333\n" * 4_000_000
    storage.put("in/a.csv", small)
    section = data(source="s3://bucket/in", timeout=2)
    fetch.fetch_source(tmp_path, section)
    before = state(tmp_path)
    storage.put("in/b.csv", large)
    ended: list[Outage] = []

    def read() -> None:
        try:
            fetch.fetch_source(tmp_path, section)
        except Outage as e:
            ended.append(e)

    def begun() -> bool:
        with suppress(FileNotFoundError):  # one may be renamed between its name and its size
            return any(p.stat().st_size for p in (tmp_path / snapshot.STAGING_FOLDER).glob("part-*"))
        return True

    reading = threading.Thread(target=read)
    reading.start()
    while reading.is_alive() and not begun():
        reading.join(0.001)
    storage.kill()
    reading.join()
    try:
        assert len(ended) == 1, "the server was killed too late: it had given the whole object"
        assert "s3://bucket/in: the storage does not respond" in str(ended[0])
        assert "AWS_ENDPOINT_URL" in str(ended[0])
        assert state(tmp_path) == before
        with pytest.raises(Outage):
            fetch.fetch_source(tmp_path, section)
    finally:
        storage.start()
    storage.empty()
    storage.put("in/a.csv", small)
    storage.put("in/b.csv", small)
    assert fetch.fetch_source(tmp_path, section).new == 1


def test_what_is_not_there_is_said(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s3://bucket/none: holds no table"):
        fetch.fetch_source(tmp_path, data(source="s3://bucket/none"))
    with pytest.raises(InputError, match=r"s3://nobucket/x"):
        fetch.fetch_source(tmp_path, data(source="s3://nobucket/x"))


def test_without_the_extra_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name in ("s3fs", "duckdb"):
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(InputError, match=r"pip install 'windvane\[s3\]'"):
        fetch.fetch_source(tmp_path, data(source="s3://bucket/x"))
    with pytest.raises(InputError, match=r"pip install 'windvane\[duckdb\]'"):
        fetch.fetch_source(tmp_path, data(source="duckdb:///x.duckdb", query="SELECT 1"))


def test_a_glob_copies_what_changed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b", "a"):
        (tmp_path / "in" / f"{name}.csv").write_text("x\n1\n2\n")
    section = data(source="in/*.csv")
    done = fetch.fetch_source(tmp_path, section)
    assert done.record is not None
    assert [part.name for part in done.record.parts] == ["in/a.csv", "in/b.csv"]
    before = state(tmp_path)
    later = time.time_ns() + 10**9
    os.utime(tmp_path / "in" / "a.csv", ns=(later, later))
    assert not fetch.fetch_source(tmp_path, section).moved
    assert state(tmp_path) == before
    (tmp_path / "in" / "c.csv").write_text("x\n3\n")
    fetch.fetch_source(tmp_path, section)
    (tmp_path / "in" / "b.csv").write_text("x\n1\n3\n")
    done = fetch.fetch_source(tmp_path, section)
    assert done.record is not None
    assert str(done.record.changes) == "1 new, 0 updated, 1 deleted rows (by whole rows)"
    with pytest.raises(InputError, match="matches no table"):
        fetch.fetch_source(tmp_path, data(source="out/*.csv"))


def test_a_dvc_remote_in_storage_takes_what_is_missing(storage: Storage, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / ".windvane/data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, root / name)
    with dvc_pipeline.open_dvc_pipeline(root) as stages:
        stages.run("ingest", lambda: ROWS.write_parquet(root / ".windvane/data/table.parquet"))
        hashes = stages.hashes()
    remote = "s3://bucket/shared"
    dvc_pipeline.push_outputs(root, remote, remote, hashes)
    dvc_pipeline.push_outputs(root, remote, remote, hashes)
    (stored,) = storage.client.list_objects_v2(Bucket="bucket")["Contents"]
    assert stored["Key"].replace("/", "").endswith(hashes[0])
    storage.kill()
    try:
        with pytest.raises(Outage, match=r"data\.remote: s3://bucket/shared: cannot be reached"):
            dvc_pipeline.push_outputs(root, "s3://bucket/other", remote, hashes)
    finally:
        storage.start()


BOOK = [["id", "y", "town"], *([i, i * 1.5, "Ulm"] for i in range(5))]


def test_d7_n41_a_workbook_that_was_saved_again_is_no_new_data(tmp_path: Path) -> None:
    section = data(source="in/*.xlsx", refresh="full", format={"sheet": "Prices"})
    (tmp_path / "in").mkdir()
    write_book(tmp_path / "in/a.xlsx", Notes=[["of May"]], Prices=BOOK)
    first = fetch.fetch_source(tmp_path, section, "id")
    assert (first.new, first.record is not None and first.record.parts[0].rows) == (5, 5)
    write_book(tmp_path / "in/a.xlsx", Notes=[["of June"]], Prices=BOOK)
    assert not fetch.fetch_source(tmp_path, section, "id").moved


def test_d7_n42_what_changed_in_a_workbook_is_counted(tmp_path: Path) -> None:
    section = data(source="*.xlsx.gz", refresh="full")
    for rows in (BOOK, [*BOOK[:4], [4, 9, "Bonn"], [7, 1, "Kiel"]]):
        book = write_book(tmp_path / "a.xlsx", Prices=rows)
        (tmp_path / "a.xlsx.gz").write_bytes(gzip.compress(book.read_bytes(), mtime=0))
        book.unlink()
        fetched = fetch.fetch_source(tmp_path, section, "id")
    assert fetched.record is not None
    assert str(fetched.record.changes) == "1 new, 1 updated, 1 deleted rows (by id)"


def test_d7_n43_an_address_may_give_a_workbook_and_its_sheet_is_counted(tmp_path: Path) -> None:
    content = write_book(tmp_path / "a.xlsx", Notes=[["of May"]], Prices=BOOK).read_bytes()
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    with web(lambda to: send(to, content, kind)) as server:
        allowed = {"hosts": ["127.0.0.1"], "private": True}
        section = data(source=f"{server.url}/export?id=7", http=allowed, format={"sheet": "Prices"})
        fetched = fetch.fetch_source(tmp_path, section)
    assert fetched.new == 5


def test_d7_n44_rows_of_an_address_are_counted_as_data_format_has_them(tmp_path: Path) -> None:
    with web(lambda to: send(to, b"1;2\n3;4\n", "text/csv")) as server:
        allowed = {"hosts": ["127.0.0.1"], "private": True}
        section = data(source=server.url, http=allowed, format={"header": False})
        assert fetch.fetch_source(tmp_path, section).new == 2
