"""Connections to the service: how long a client may take, how many there may be, and which are closed first."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, takewhile
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from windvane.serving.http.access_control import is_loopback

# Seconds for the head of a request, from the moment the connection is open or its first byte is there; bytes of it. Seconds in
# which a client must read its response.
HEAD_TIMEOUT_SECONDS, MAX_HEAD_BYTES = 10.0, 64 * 1024
UNREAD_TIMEOUT_SECONDS = 60.0
SWEEP_INTERVAL_SECONDS = 1.0
# Open connections: in all (less where the system allows fewer files), and of one address. Loopback's are one: a
# proxy on this machine is one address for all its clients.
MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS = 8_192, 512
# Files that the process needs beside connections.
RESERVED_FILES = 128
# Seconds between two lines of the log about connections that were cut.
CUT_LOG_INTERVAL_SECONDS = 60.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
log = logging.getLogger("windvane.serving")


class ConnectionTracker:
    """All connections of a service, by what they are waited for; the one that has been for longest comes first in each."""

    def __init__(self, most: int = MAX_CONNECTIONS, most_of_one: int = MAX_CONNECTIONS_PER_ADDRESS) -> None:
        self.most, self._most_of_one = most, most_of_one
        self.heads: dict[TrackedConnection, float] = {}
        self.bodies: dict[TrackedConnection, float] = {}
        self.idle: dict[TrackedConnection, float] = {}
        self.unread: dict[TrackedConnection, float] = {}
        self.open = 0
        # How many were cut, by why.
        self.cut: Counter[str] = Counter()
        self._logged_cuts, self._next_line = 0, 0.0
        self._of: Counter[str] = Counter()
        self._sweeping = False

    def enter(self, connection: TrackedConnection, now: float) -> None:
        """A new connection. Where there are too many, one that has sent no whole request goes; else this one."""
        self.open += 1
        self.heads[connection] = now
        if connection.peer is not None:
            self._of[connection.peer] += 1
            if self._of[connection.peer] > self._most_of_one:
                of_one = (c for c in self._spare(connection) if c.peer == connection.peer)
                self._cut(next(of_one, connection), "crowded")
        if self.open > self.most:
            self._cut(next(self._spare(connection), connection), "crowded")
        if not self._sweeping:
            self._sweeping = True
            connection.loop.call_later(SWEEP_INTERVAL_SECONDS, self._sweep, connection.loop)

    def leave(self, connection: TrackedConnection) -> None:
        """A connection that has ended."""
        self.open -= 1
        self._forget(connection)
        if connection.peer is not None:
            self._of[connection.peer] -= 1
            if not self._of[connection.peer]:
                del self._of[connection.peer]

    def _spare(self, newcomer: TrackedConnection) -> Iterator[TrackedConnection]:
        """Those that may go, the first one first."""
        return (c for c in chain(self.heads, self.bodies, self.idle) if c is not newcomer)

    def _cut(self, connection: TrackedConnection, why: str) -> None:
        self._forget(connection)
        self.cut[why] += 1
        connection.transport.abort()

    def _forget(self, connection: TrackedConnection) -> None:
        for waited in (self.heads, self.bodies, self.idle, self.unread):
            waited.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close connections whose time is over."""
        now = loop.time()
        for connection in _list_overdue(self.heads, now - HEAD_TIMEOUT_SECONDS):
            self._cut(connection, "slow head")
        for connection in _list_overdue(self.unread, now - UNREAD_TIMEOUT_SECONDS):
            if connection.transport.get_write_buffer_size():
                self._cut(connection, "unread answer")
            else:
                del self.unread[connection]
        if (cut := self.cut.total()) > self._logged_cuts and now >= self._next_line:
            self._logged_cuts, self._next_line = cut, now + CUT_LOG_INTERVAL_SECONDS
            log.warning("connections cut", extra={"facts": {"open": self.open, **self.cut}})
        self._sweeping = self.open > 0
        if self._sweeping:
            loop.call_later(SWEEP_INTERVAL_SECONDS, self._sweep, loop)


class TrackedConnection(HttpToolsProtocol):
    """uvicorn's connection, which knows what it waits for."""

    def __init__(self, tracker: ConnectionTracker, **given: Any) -> None:
        super().__init__(**given)
        self._tracker = tracker
        self._unparsed = 0
        self._upgraded = False
        # Between the head of a request and the end of its body, which may still come after the response.
        self._in_message = False
        # The other side's address; None: this machine's own, or not known.
        self.peer: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Opened."""
        super().connection_made(transport)
        self.peer = _find_remote_address(self.client)
        self._tracker.enter(self, self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed."""
        self._tracker.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came: uvicorn parses them, and what is still missing is waited for so long and no longer."""
        in_head = not self._in_message
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            # The next head, or what is left of a body whose response is out already.
            self._tracker.idle.pop(self, None)
            self._tracker.heads.setdefault(self, self.loop.time())
            self._unparsed += len(data) if in_head and not self._in_message else 0
            if self._unparsed > MAX_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
        elif cycle.more_body:
            self._tracker.bodies.setdefault(self, self.loop.time())

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._tracker.heads.pop(self, None)
        self._tracker.idle.pop(self, None)
        self._unparsed, self._in_message = 0, True
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is a web socket, which may be silent for as long as it likes."""
        self._upgraded = True
        self._tracker.leave(self)
        super().handle_websocket_upgrade()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_message = False
        self._unparsed = 0
        self._tracker.bodies.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response was handed to the transport."""
        self._tracker.bodies.pop(self, None)
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._tracker.unread.setdefault(self, self.loop.time())
        if self.cycle.response_complete and not self.transport.is_closing():
            self._tracker.idle[self] = 0.0

    def pause_writing(self) -> None:
        """The client reads more slowly than the response is sent."""
        self._tracker.unread.setdefault(self, self.loop.time())
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._tracker.unread.pop(self, None)
        super().resume_writing()


def find_connection_limit() -> int:
    """How many connections may be open: MOST, or what the system's limit on open files leaves. Raises that limit first."""
    try:
        import resource
    except ImportError:  # not on Windows
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(16, min(MAX_CONNECTIONS, soft - RESERVED_FILES))


def _list_overdue(waited: dict[TrackedConnection, float], before: float) -> list[TrackedConnection]:
    """Those that have been waited for since before a moment."""
    return [connection for connection, _ in takewhile(lambda entry: entry[1] <= before, waited.items())]


def _find_remote_address(client: tuple[str, int] | None) -> str | None:
    return None if client is None or is_loopback(client[0]) else client[0]
