"""Records which product files a process executes: imported at the start of every Python process that has this folder on its path.

Each file's first executed module body is written as `loaded PATH`, its first executed function as `ran PATH`, at once, so that a killed
process keeps its record. Where a file `reset` appears in the folder of records, what was seen so far is forgotten.
"""

import os
import sys
import threading
import time
from types import FrameType

RECORDS, ROOT = os.environ["WINDVANE_TRACE_RECORDS"], os.environ["WINDVANE_TRACE_ROOT"]
ROOMS = tuple(os.environ["WINDVANE_TRACE_ROOMS"].split(","))
RESET_POLL_SECONDS = 0.02
CO_OPTIMIZED = 0x1  # as inspect has it, which would be one import more in every process
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
_seen: set[tuple[str, bool]] = set()
_short: dict[str, str] = {}


def _product_file(name: str) -> str:
    """The path below the repository without the link in windvane/, or "" for files of others."""
    if name not in _short:
        path = os.path.realpath(name) if name.endswith(".py") else ""
        inside = path.removeprefix(f"{ROOT}{os.sep}") if path.startswith(f"{ROOT}{os.sep}") else ""
        _short[name] = inside if inside.split(os.sep)[0] in ROOMS else ""
    return _short[name]


def _record(frame: FrameType, _event: str, _argument: object) -> None:
    code = frame.f_code
    path = _short.get(code.co_filename)
    if path is None:
        path = _product_file(code.co_filename)
    if not path:
        return
    # Module and class bodies have no optimised locals; what they call while a file is imported is part of loading it.
    loading = not code.co_flags & CO_OPTIMIZED
    if (path, loading) in _seen:
        return
    if not loading and _importing(frame):
        return
    _seen.add((path, loading))
    with open(os.path.join(RECORDS, str(os.getpid())), "a") as record:
        record.write(f"{'loaded' if loading else 'ran'} {path}\n")


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def _reset_when_told() -> None:
    sys.settrace(None)
    while True:
        if os.path.exists(os.path.join(RECORDS, "reset")):
            _seen.clear()
            for name in os.listdir(RECORDS):
                os.unlink(os.path.join(RECORDS, name))
        time.sleep(RESET_POLL_SECONDS)


if os.environ.get("WINDVANE_TRACE_RESETS"):
    threading.Thread(target=_reset_when_told, daemon=True).start()
threading.settrace(_record)
sys.settrace(_record)
