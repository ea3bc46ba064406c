"""The state of a running service in a file, so that `windvane status` can report it without a request.

Imports nothing heavy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from windvane.tasks.io import read_cache, write_json

_FILE = "state.json"


def write_service_state(folder: Path, version: int | None, since: str | None, refused: dict[str, Any] | None) -> None:
    """Say which version this process serves, since when, and which champion it refused."""
    write_json({"pid": os.getpid(), "version": version, "since": since, "refused": refused}, folder / _FILE)


def clear_service_state(folder: Path) -> None:
    """Say that this process serves no more."""
    (folder / _FILE).unlink(missing_ok=True)


def read_service_state(folder: Path) -> dict[str, Any] | None:
    """What a service of this folder said, if its process still runs on this machine; else None."""
    import psutil

    told = read_cache(folder / _FILE, _parse_service_state)
    return told if told is not None and psutil.pid_exists(told["pid"]) else None


def _parse_service_state(content: Any) -> dict[str, Any]:
    """What write() wrote; what is damaged is written again with the next version that serves."""
    version, refused = content["version"], content["refused"]
    return {
        "pid": int(content["pid"]),
        "version": None if version is None else int(version),
        "since": content["since"],
        "refused": None if refused is None else dict(refused),
    }
