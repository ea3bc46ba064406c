"""Copies of artifacts that lie elsewhere, in a folder of the project's: each downloaded once, and whole or not at all.

Their addresses name runs, whose files do not change once a version is registered. A copy that was damaged is fetched again. Does not
import MLflow where a good copy is at hand.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from windvane.tasks.artifacts import MANIFEST, sha256

_NAME_LETTERS = 32


def fetched(address: str, folder: Path, tracking_uri: str | None, digest: str | None = None) -> Path:
    """The copy of an artifact (a file or a folder) in `folder`, whose bytes have the sha256 `digest` where one is recorded.

    Raises FileNotFoundError where the store has no such artifact, and what tasks/store_errors.py says. A copy that is wrong even when it is
    new is handed over as it is: whoever knows what it should be refuses it.
    """
    place = place_of(address, folder)
    mark = place.name
    if (found := _only(place)) is not None and intact(found, digest):
        return found
    from filelock import FileLock

    from windvane.tasks.tracking import download

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{mark}.lock"):
        if (found := _only(place)) is not None and intact(found, digest):
            return found  # another process was faster
        part, old = folder / f".{mark}.part", folder / f".{mark}.old"
        for left in (part, old):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        download(address, part, tracking_uri)
        if place.exists():
            place.rename(old)
        part.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    found = _only(place)
    if found is None:
        raise FileNotFoundError(f"{address}: is empty in MLflow's artifact store")
    return found


def place_of(address: str, folder: Path) -> Path:
    """Where in `folder` the copy of an artifact lies, if there is one."""
    return folder / hashlib.sha256(address.encode()).hexdigest()[:_NAME_LETTERS]


def intact(path: Path, digest: str | None) -> bool:
    """Whether a file has the digest, or a folder with a manifest holds what that says. Without either: whether it is there."""
    if path.is_file():
        return digest is None or sha256(path) == digest
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        return path.is_dir() and digest is None
    if digest is not None and hashlib.sha256(text).hexdigest() != digest:
        return False
    try:
        return all(sha256(path / name) == wanted for name, wanted in json.loads(text)["files"].items())
    except (ValueError, KeyError, FileNotFoundError):
        return False


def _only(place: Path) -> Path | None:
    """What lies in a copy's folder."""
    return next(place.iterdir(), None) if place.is_dir() else None
