"""The state of a running service in a file, so that `windvane status` can report it without a request. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from windvane.tasks.io import read_cache, write_json

_FILE = "state.json"


def write_service_state(folder: Path, version: int | None, since: str | None, refused: dict[str, Any] | None) -> None:
    """Record which version this process serves, since when, and which champion it refused."""
    write_json({"pid": os.getpid(), "version": version, "since": since, "refused": refused}, folder / _FILE)


def clear_service_state(folder: Path) -> None:
    """Record that this process serves no more."""
    (folder / _FILE).unlink(missing_ok=True)


def read_service_state(folder: Path) -> dict[str, Any] | None:
    """The state that a service of this folder recorded, if its process still runs on this machine; else None."""
    import psutil

    state = read_cache(folder / _FILE, _parse_service_state)
    return state if state is not None and psutil.pid_exists(state["pid"]) else None


def _parse_service_state(content: Any) -> dict[str, Any]:
    """What write_service_state() wrote; what is damaged is written again with the next version that serves."""
    return {"pid": int(content["pid"]), **{name: content[name] for name in ("version", "since", "refused")}}
