"""How much memory a stored version takes in the scorer, measured in a process of its own that loads it as the scorer does."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from windvane.tasks.errors import WindvaneError

# Loading takes seconds; a process that needs minutes hangs.
TIMEOUT_SECONDS = 300
# Pages of a process that has loaded nothing of the model differ from run to run; nothing weighs less than this.
_LEAST = 1_000_000


@dataclass(frozen=True)
class Weight:
    """Bytes that a version takes: at most, while it is loaded and tried, and from then on. Requests come on top."""

    peak: int
    kept: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def weigh(folder: Path, manifest_sha256: str, kind: str) -> Weight:
    """The weight of the version in `folder`; kind: problem.kind. Raises WindvaneError where it cannot be loaded."""
    command = [sys.executable, "-P", "-m", "windvane.serving.weigh", str(folder), manifest_sha256, kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise WindvaneError(f"{folder}: was not loaded within {TIMEOUT_SECONDS} seconds") from None
    if done.returncode != 0:
        raise WindvaneError(f"{folder}: cannot be loaded in the scorer: {done.stderr.strip()[-500:]}")
    return Weight(**json.loads(done.stdout))


def now() -> int:
    """Bytes of memory that this process has at the moment."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return to the system what was freed: glibc keeps it, and loading a version frees several times what it leaves."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def _peak() -> int:
    """The most memory that this process has had."""
    if sys.platform == "linux":  # getrusage() would also count the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(folder: str, manifest_sha256: str, kind: str) -> None:
    """Import what a scorer has before it loads a version; load; print the difference as JSON."""
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401
    import orjson  # noqa: F401

    from windvane.serving import shelf

    before = now()
    loaded = shelf.opened(Path(folder), manifest_sha256, kind)
    peak = _peak()
    gc.collect()
    give_back()
    weight = Weight(max(_LEAST, peak - before), max(_LEAST, now() - before))
    assert loaded is not None  # it is still here
    print(json.dumps(weight.to_json()))


if __name__ == "__main__":
    main(*sys.argv[1:])
