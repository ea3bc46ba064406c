"""What a running service last said of itself, in a file, so that `windvane status` can tell without asking it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from windvane.tasks.tables import write_json

_FILE = "state.json"


def write(folder: Path, version: int | None, since: str | None, refused: dict[str, Any] | None) -> None:
    """Say which version this process serves, since when, and which champion it refused."""
    write_json({"pid": os.getpid(), "version": version, "since": since, "refused": refused}, folder / _FILE)


def clear(folder: Path) -> None:
    """Say that this process serves no more."""
    (folder / _FILE).unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any] | None:
    """What a service of this folder said, if its process still runs on this machine; else None."""
    import psutil

    try:
        told: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return told if psutil.pid_exists(int(told["pid"])) else None
