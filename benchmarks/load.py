"""A load generator: one HTTP request over and over on some connections, each as soon as the last is answered.

Requests are bytes made beforehand and answers are only cut off, so that a core of the client's keeps ahead of the service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

# A slow service is asked until it has answered so often, or for so many seconds.
LEAST, PATIENCE = 30, 60.0


@dataclass(frozen=True)
class Load:
    """What came of it: answers per second, latencies in ms at some percentiles, and answers that were not 200."""

    per_second: float
    p50: float
    p99: float
    answers: int
    failed: int

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} requests/s, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms"


def request(path: str, body: bytes, kind: str = "application/json") -> bytes:
    """The bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Ask for `seconds`, after a tenth of that to warm up; connections take the requests in turn."""
    import uvloop

    return uvloop.run(_run(port, requests, connections, seconds))


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    askers = []
    for i in range(connections):
        _, asker = await loop.create_connection(lambda i=i: _Asker(requests, i), "127.0.0.1", port)  # type: ignore[misc]
        askers.append(asker)
    await asyncio.sleep(seconds / 10)
    for asker in askers:
        asker.taken.clear()
        asker.failed = 0
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    while sum(len(asker.taken) for asker in askers) < LEAST and time.perf_counter() - began < PATIENCE:
        await asyncio.sleep(0.1)
    took = time.perf_counter() - began
    taken = sorted(t for asker in askers for t in asker.taken)
    failed = sum(asker.failed for asker in askers)
    for asker in askers:
        asker.close()
    if not taken:
        raise RuntimeError("no answer came")
    at = [1000 * taken[min(len(taken) - 1, int(share * len(taken)))] for share in (0.5, 0.99)]
    return Load(len(taken) / took, at[0], at[1], len(taken), failed)


class _Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Sequence[bytes], first: int) -> None:
        self._requests, self._next = requests, first
        self._buffer = b""
        self.taken: list[float] = []
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def close(self) -> None:
        self._transport.close()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        self.taken.append(time.perf_counter() - self._began)
        self.failed += not head.startswith(b"http/1.1 200")
        self._ask()
