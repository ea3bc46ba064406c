"""A source that may not be read, and one that goes while it is read. (Others of that kind: corpus_places.py.)"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.case import Case, csv, houses
from tests.hostile.corpus_json import objects
from tests.hostile.corpus_parquet import parquet
from tests.hostile.test_corpus import helps
from tests.hostile.verdicts import Judged, judged, lying, params

pytestmark = pytest.mark.long

NOBODY = 65534
FILES: dict[str, Callable[[Path], object]] = {
    "t.csv": lambda path: path.write_bytes(csv(houses(20_000))),
    "t.jsonl": lambda path: path.write_bytes(objects()),
    "t.parquet": parquet(),
}


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everybody may enter and write in: pytest's own is for its user alone."""
    with tempfile.TemporaryDirectory(prefix="windvane-hostile-") as made:
        folder = Path(made)
        folder.chmod(0o777)
        monkeypatch.chdir(folder)
        yield folder


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may read everything: as root, the gate runs as nobody. Everything it needs is imported before."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def gate(file: str) -> Judged:
    return judged(Path(), params(Case("", b"", "stop", (), "", file=file)))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("shut", ["file", "folder"])
def test_no_permission(file: str, shut: str, project: Path) -> None:
    FILES[file](project / file)
    assert gate(file).verdict != "stop"  # all is imported, and the table is good
    source = project / "in" / file
    source.parent.mkdir()
    FILES[file](source)
    closed = source if shut == "file" else source.parent
    for path in (project / ".windvane", project / ".windvane/data", project / ".windvane/data/split"):
        path.chmod(0o777)
    closed.chmod(0o000)
    before = lying(project)
    try:
        with somebody_else():
            found = gate(f"in/{file}")
    finally:
        closed.chmod(0o755)
    assert found.verdict == "stop"
    helps(found.said[0], f"in/{file}")
    assert "permission" in found.said[0]
    assert set(lying(project)) - set(before) <= {f"in/{file}"}


# Audit hooks cannot be taken away: one is set, once, and does something only while a test wants it to.
_WATCH: dict[str, Any] = {}


def _on_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _WATCH and str(arguments[0]).endswith(_WATCH["file"]):
        _WATCH["opened"] += 1
        if _WATCH["opened"] == _WATCH["at"]:
            _WATCH["then"]()


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> None:
    sys.addaudithook(_on_open)


THEN: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(missing_ok=True),
    "emptied": lambda path: os.truncate(path, 0) if path.exists() else None,
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2) if path.exists() else None,
}


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("file", FILES)
def test_the_file_goes_meanwhile(file: str, then: str, at: int, project: Path) -> None:
    """Before its n-th opening the file is spoilt: a stop in words, or all was read before; never a traceback."""
    path = project / file
    FILES[file](path)
    _WATCH.update(file=file, at=at, opened=0, then=lambda: THEN[then](path))
    try:
        found = gate(file)
    finally:
        _WATCH.clear()
    if found.verdict == "stop":
        helps(found.said[0], file)
    assert [name for name in lying(project) if ".part" in name] == []
