"""Globs and S3-compatible storage as sources: a real S3 server, files as they came, and only those that changed."""

from __future__ import annotations

import builtins
import gzip
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks import fetch, raw
from tasks.errors import InputError, Outage
from tests.sources_for_tests import data, state

ROWS = pl.DataFrame({"x": [1, 2, 3], "town": ["Ulm", None, "Bonn"]})


class Storage:
    """A real S3 server on a free port, which can be stopped and started again at the same place."""

    def __init__(self) -> None:
        self._server: Any = None
        self.port = 0
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket="bucket", Key=name, Body=content)

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3")


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """An S3 server with an empty bucket, named by the usual variables."""
    pytest.importorskip("s3fs")
    server = Storage()
    keys = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{server.port}/moto-api/reset", method="POST")
    ).close()
    server.client.create_bucket(Bucket="bucket")
    yield server
    server.stop()


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
    assert fetch.run(tmp_path, section).new == 12
    record = raw.read(tmp_path)
    assert record is not None
    assert [part.name for part in record.parts] == [f"bucket/{n}" for n in contents if "readme" not in n and "in/" in n]
    for part in record.parts:
        assert (tmp_path / part.path).read_bytes() == contents[str(part.name).removeprefix("bucket/")]
    before = state(tmp_path)
    assert not fetch.run(tmp_path, section).moved
    assert state(tmp_path) == before
    assert fetch.run(tmp_path, data(source="s3://bucket/*/?.csv")).new == 4
    assert b"secret-of-tests" not in b"".join(state(tmp_path).values())


def test_only_new_and_changed_objects_are_read(storage: Storage, tmp_path: Path) -> None:
    storage.put("in/a.csv", b"id,x\n1,1\n2,2\n")
    storage.put("in/c.csv", b"id,x\n3,3\n")
    section = data(source="s3://bucket/in")
    first = fetch.run(tmp_path, section).record
    storage.put("in/b.csv", b"id,x\n4,4\n")
    grown = fetch.run(tmp_path, section)
    assert first is not None
    assert grown.record is not None
    assert (grown.new, grown.record.generation, grown.record.parts[:2]) == (1, 1, first.parts)
    storage.put("in/a.csv", b"id,x\n1,1\n2,9\n")
    storage.client.delete_object(Bucket="bucket", Key="in/c.csv")
    changed = fetch.run(tmp_path, section, "id")
    assert changed.record is not None
    assert (changed.new, changed.record.generation) == (2, 2)
    assert str(changed.record.changes) == "0 new, 1 updated, 1 deleted rows (by id)"
    assert changed.record.parts[1] == grown.record.parts[2]


def test_a_storage_that_stops_leaves_the_snapshot_and_the_next_fetch_works(storage: Storage, tmp_path: Path) -> None:
    storage.put("in/a.csv", b"id,x\n1,1\n")
    section = data(source="s3://bucket/in", timeout=2)
    fetch.run(tmp_path, section)
    before = state(tmp_path)
    storage.put("in/b.csv", b"id,x\n2,2\n3,3\n")
    copied: list[str] = []

    from tasks.origins.objects import Files

    whole = Files.listed

    def then_stop(files: Files) -> Any:
        found = whole(files)
        storage.stop()
        copied.append("listed")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "listed", then_stop)
        with pytest.raises(Outage, match=r"s3://bucket/in: the storage does not answer.*AWS_ENDPOINT_URL"):
            fetch.run(tmp_path, section)
    assert copied == ["listed"]
    assert state(tmp_path) == before
    storage.start()
    assert fetch.run(tmp_path, section).new == 2


def test_what_is_not_there_is_said(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s3://bucket/none: holds no table"):
        fetch.run(tmp_path, data(source="s3://bucket/none"))
    with pytest.raises(InputError, match=r"s3://nobucket/x"):
        fetch.run(tmp_path, data(source="s3://nobucket/x"))


def test_without_the_extra_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name in ("s3fs", "duckdb"):
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(InputError, match=r"pip install 'windvane\[s3\]'"):
        fetch.run(tmp_path, data(source="s3://bucket/x"))
    with pytest.raises(InputError, match=r"pip install 'windvane\[duckdb\]'"):
        fetch.run(tmp_path, data(source="duckdb:///x.duckdb", query="SELECT 1"))


def test_a_glob_copies_what_changed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b", "a"):
        (tmp_path / "in" / f"{name}.csv").write_text("x\n1\n2\n")
    section = data(source="in/*.csv")
    done = fetch.run(tmp_path, section)
    assert done.record is not None
    assert [part.name for part in done.record.parts] == ["in/a.csv", "in/b.csv"]
    before = state(tmp_path)
    later = time.time_ns() + 10**9
    os.utime(tmp_path / "in" / "a.csv", ns=(later, later))
    assert not fetch.run(tmp_path, section).moved
    assert state(tmp_path) == before
    (tmp_path / "in" / "c.csv").write_text("x\n3\n")
    fetch.run(tmp_path, section)
    (tmp_path / "in" / "b.csv").write_text("x\n1\n3\n")
    done = fetch.run(tmp_path, section)
    assert done.record is not None
    assert str(done.record.changes) == "1 new, 0 updated, 1 deleted rows (by whole rows)"
    with pytest.raises(InputError, match="matches no table"):
        fetch.run(tmp_path, data(source="out/*.csv"))
