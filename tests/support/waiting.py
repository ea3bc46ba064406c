"""What tests wait for: a condition with a bound, and ports that nothing else takes meanwhile."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

# Below the range from which the system gives ports to connections and to whoever binds port 0: between the choice of a
# port and its use nothing takes it by chance. Each process of the tests begins elsewhere, and names no port twice.
FIRST_PORT, PORTS = 15_000, 15_000
_next_port = itertools.count(random.Random(f"{os.getpid()} {time.time_ns()}").randrange(PORTS))


def free_port() -> int:
    """A port of loopback on which nothing listens, for a server that is started soon."""
    for offset in itertools.islice(_next_port, PORTS):
        port = FIRST_PORT + offset % PORTS
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def until(true: Callable[[], Any], seconds: float = 120, what: str = "", pause: float = 0.2) -> Any:
    """Wait for it, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(pause)
    return found
