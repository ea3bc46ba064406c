"""Named places at which a test kills the process: WINDVANE_FAILPOINT=name, or name#3 for the third time.

WINDVANE_TRACE=FILE writes each name that is passed.
"""

from __future__ import annotations

import os
import signal

_FAIL, _TRACE = os.environ.get("WINDVANE_FAILPOINT"), os.environ.get("WINDVANE_TRACE")
_passed: dict[str, int] = {}


def hit_failpoint(name: str) -> None:
    """Report that this place is reached; where a test requires it, the process ends here and now."""
    if _FAIL is None and _TRACE is None:
        return
    if _TRACE is not None:
        descriptor = os.open(_TRACE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{name}\n".encode())
        os.close(descriptor)
    _passed[name] = _passed.get(name, 0) + 1
    if _FAIL in (name, f"{name}#{_passed[name]}"):
        os.kill(os.getpid(), signal.SIGKILL)
