"""Copies of artifacts that lie elsewhere: whole or not at all, once, and made again where they are damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from windvane.tasks.stores import mlflow_client, model_files

# In a process of its own: a download that has written half a file, says so, and hangs.
HALF = """
import sys, time
from pathlib import Path
from windvane.tasks.stores import model_files, mlflow_client

def download(address, into, uri):
    (into / "record.parquet").write_bytes(b"half")
    print("half", flush=True)
    time.sleep(600)

mlflow_client.download_artifact = download
model_files.fetch_artifact_copy("s3://bucket/r/record.parquet", Path(sys.argv[1]), None)
"""


class Store:
    """An artifact store of files by address, which counts what is fetched from it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.fetched: list[str] = []
        self.slow = threading.Event()
        monkeypatch.setattr(mlflow_client, "download_artifact", self._download)

    def _download(self, address: str, into: Path, _: Any) -> Path:
        self.fetched.append(address)
        self.slow.wait(0.2)
        if address not in self.files:
            raise FileNotFoundError(address)
        for name, content in self.files[address].items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return into

    def model(self, address: str, content: bytes, folder: Path) -> str:
        """A sealed folder at an address; its manifest's sha256."""
        folder.mkdir()
        (folder / "model.skops").write_bytes(content)
        digest = model_files.seal_folder(folder)
        self.files[address] = {f"model/{p.name}": p.read_bytes() for p in folder.iterdir()}
        return digest


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


def test_a_copy_is_downloaded_once_and_versions_do_not_mix(store: Store, tmp_path: Path) -> None:
    one, two = "mlflow-artifacts:/1/r1/artifacts/model", "mlflow-artifacts:/1/r2/artifacts/model"
    first, second = store.model(one, b"one", tmp_path / "1"), store.model(two, b"two", tmp_path / "2")
    for _ in range(2):
        for address, digest, content in ((one, first, b"one"), (two, second, b"two")):
            found = model_files.fetch_artifact_copy(address, tmp_path / "copies", None, digest)
            assert model_files.verify_folder(found, digest, ["model.skops"])["model.skops"] == content
    assert store.fetched == [one, two]


def test_a_damaged_copy_is_downloaded_again(store: Store, tmp_path: Path) -> None:
    address = "s3://bucket/r/model"
    digest = store.model(address, b"one", tmp_path / "1")
    found = model_files.fetch_artifact_copy(address, tmp_path / "copies", None)
    (found / "model.skops").write_bytes(b"bad")
    for given in (None, digest):
        assert model_files.verify_folder(
            model_files.fetch_artifact_copy(address, tmp_path / "copies", None, given), digest, ["model.skops"]
        )
    assert store.fetched == [address] * 2


def test_a_file_is_held_against_its_recorded_hash(store: Store, tmp_path: Path) -> None:
    address = "s3://bucket/r/record.parquet"
    store.files[address] = {"record.parquet": b"rows"}
    found = model_files.fetch_artifact_copy(address, tmp_path, None)
    digest = model_files.hash_file(found)
    found.write_bytes(b"r0ws")
    assert model_files.fetch_artifact_copy(address, tmp_path, None, digest).read_bytes() == b"rows"
    assert len(store.fetched) == 2


def test_what_is_not_there_is_no_copy(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            model_files.fetch_artifact_copy("s3://bucket/r/none.json", tmp_path, None)
    assert len(store.fetched) == 2


def test_many_that_ask_at_once_download_once(store: Store, tmp_path: Path) -> None:
    address = "s3://bucket/r/model"
    digest = store.model(address, b"one", tmp_path / "1")
    found: list[Path] = []

    def ask() -> None:
        found.append(model_files.fetch_artifact_copy(address, tmp_path / "copies", None, digest))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert store.fetched == [address]


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(store: Store, tmp_path: Path) -> None:
    address = "s3://bucket/r/record.parquet"
    command = [sys.executable, "-c", HALF, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store.files[address] = {"record.parquet": b"whole"}
    assert model_files.fetch_artifact_copy(address, tmp_path, None).read_bytes() == b"whole"
    assert not list(tmp_path.glob(".*.part"))
