"""Slow senders and crowds: connections of a real server, each ended in its time, and nobody kept out by others."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop

from tests.support.projects import missing
from tests.support.served_models import ROW, Client, Site, made_project, serving
from windvane.serving.http import app, connections
from windvane.serving.http.access_control import ApiKeys
from windvane.serving.http.connections import ConnectionTracker, TrackedConnection
from windvane.serving.http.server import open_listening_socket

pytestmark = pytest.mark.long

HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"inputs": [ROW]}).encode()
WHOLE = HEAD + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
PING = b"GET /ping HTTP/1.1\r\nHost: probe\r\n\r\n"
# What never takes so long unless it never comes.
BOUND_SECONDS = 30

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> app.ScoringApp:
    site = Site(tmp_path_factory.mktemp("site"))
    site.register(1)
    site.promote(1)
    return Client(site, site.following(), None).service


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of moments."""
    for name in ("HEAD_TIMEOUT_SECONDS", "UNREAD_TIMEOUT_SECONDS"):
        monkeypatch.setattr(connections, name, 0.3)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(app, "BODY_TIMEOUT_SECONDS", 0.3)


@asynccontextmanager
async def running(asked: Any, crowd: ConnectionTracker) -> AsyncIterator[Callable[[], Awaitable[Pair]]]:
    """The service on a free port; gives what opens a connection."""
    listening = open_listening_socket("127.0.0.1", 0, ApiKeys({}))
    port = listening.getsockname()[1]
    http: Any = partial(TrackedConnection, crowd)
    server = uvicorn.Server(uvicorn.Config(asked, http=http, ws="none", lifespan="off", log_config=None))
    task = asyncio.create_task(server.serve([listening]))
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Pair:
        pair = await asyncio.open_connection("127.0.0.1", port)
        opened.append(pair[1])
        return pair

    try:
        await until(lambda: server.started)
        yield connect
    finally:
        for writer in opened:
            writer.close()
        server.should_exit = True
        await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not true():
            await asyncio.sleep(0.01)


async def answered(pair: Pair, request: bytes) -> int:
    """The status of one answer, which is read to its end."""
    reader, writer = pair
    writer.write(request)
    async with asyncio.timeout(BOUND_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
    return int(head.split()[1])


async def ended(pair: Pair, drip: bytes = b"") -> bytes:
    """What came until the service closed the connection, which is sent a drop now and then."""
    reader, writer = pair
    came = b""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            try:
                async with asyncio.timeout(0.05):
                    piece = await reader.read(65_536)
            except TimeoutError:
                writer.write(drip)
                continue
            except ConnectionError:
                return came
            if not piece:
                return came
            came += piece


DRIPS = [
    (b"", b""),
    (b"GET", b""),
    (HEAD, b"x: y\r\n"),
    (b"", b"\r\n"),
    (WHOLE + b"GET /", b"a"),
    (WHOLE + b"\r\n", b"\r\n"),
]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("first", "drip"), DRIPS)
def test_a_head_that_does_not_come_is_not_waited_for(service: app.ScoringApp, first: bytes, drip: bytes) -> None:
    async def main() -> None:
        crowd = ConnectionTracker()
        async with running(service, crowd) as connect:
            pair = await connect()
            pair[1].write(first)
            came = await ended(pair, drip)
            assert came.startswith(b"HTTP/1.1 200" if WHOLE in first else b"")
            await until(lambda: crowd.open == 0)
            assert crowd.cut["slow head"] == 1 or not drip

    uvloop.run(main())


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("drip", [b"", b"x"])
@pytest.mark.parametrize("first", [b"", b"{"])
def test_a_body_that_does_not_come_is_told_so(service: app.ScoringApp, first: bytes, drip: bytes) -> None:
    async def main() -> None:
        crowd = ConnectionTracker()
        async with running(service, crowd) as connect:
            pair = await connect()
            pair[1].write(HEAD + b"Content-Length: 100000\r\n\r\n" + first)
            assert (await ended(pair, drip)).startswith(b"HTTP/1.1 408")
            await until(lambda: crowd.open == 0)

    uvloop.run(main())


def test_whoever_asks_in_time_is_answered_for_as_long_as_he_asks(
    service: app.ScoringApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may let this process wait for a second.
    for module, name in (
        (connections, "HEAD_TIMEOUT_SECONDS"),
        (connections, "UNREAD_TIMEOUT_SECONDS"),
        (app, "BODY_TIMEOUT_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 2.0)
    monkeypatch.setattr(connections, "SWEEP_INTERVAL_SECONDS", 0.05)

    async def main() -> None:
        crowd = ConnectionTracker()
        async with running(service, crowd) as connect:
            pair = await connect()
            for _ in range(22):
                await asyncio.sleep(0.1)  # together longer than any deadline
                assert await answered(pair, WHOLE) == 200
            half = len(HEAD)
            pair[1].write(WHOLE[:half])
            await asyncio.sleep(0.05)
            assert await answered(pair, WHOLE[half:]) == 200
            assert not crowd.cut
            assert not crowd.heads
            assert not crowd.bodies
            assert not crowd.unread

    uvloop.run(main())


def test_a_head_that_never_ends_is_too_large(service: app.ScoringApp) -> None:
    async def main() -> None:
        async with running(service, ConnectionTracker()) as connect:
            pair = await connect()
            pair[1].write(HEAD + b"x: " + b"y" * 300_000)
            assert (await ended(pair)).startswith(b"HTTP/1.1 431")

    uvloop.run(main())


@pytest.mark.parametrize("sent", [HEAD, HEAD + b"Content-Length: 9\r\n\r\n{", b"", WHOLE])
def test_where_it_is_crowded_the_newcomer_gets_the_place_of_the_slowest(service: app.ScoringApp, sent: bytes) -> None:
    async def main() -> None:
        crowd = ConnectionTracker(most=20)
        async with running(service, crowd) as connect:
            good = await connect()
            assert await answered(good, WHOLE) == 200
            for _ in range(60):
                slow = await connect()
                slow[1].write(sent)
            await until(lambda: crowd.open == 20)
            if sent != WHOLE:
                assert await answered(good, WHOLE) == 200
                assert len(crowd.heads) + len(crowd.bodies) == 19
            for _ in range(30):
                assert await answered(await connect(), PING) == 200
                assert await answered(await connect(), WHOLE) == 200
            assert crowd.cut["crowded"] >= 40

    uvloop.run(main())


def test_of_one_address_only_so_many(service: app.ScoringApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_find_remote_address", lambda client: client[0])

    async def main() -> None:
        crowd = ConnectionTracker(most_of_one=10)
        async with running(service, crowd) as connect:
            for _ in range(30):
                await connect()
            await until(lambda: crowd.open == 10)
            assert await answered(await connect(), WHOLE) == 200

    uvloop.run(main())


def test_this_machines_own_connections_are_not_told_apart() -> None:
    assert connections._find_remote_address(("127.0.0.1", 1)) is None
    assert connections._find_remote_address(("::1", 1)) is None
    assert connections._find_remote_address(None) is None
    assert connections._find_remote_address(("10.0.0.7", 1)) == "10.0.0.7"


@pytest.mark.usefixtures("soon")
def test_whoever_does_not_read_his_answer_is_let_go() -> None:
    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        body = b"x" * 50_000_000
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"50000000")]})
        await send({"type": "http.response.body", "body": body})

    async def main() -> None:
        crowd = ConnectionTracker()
        async with running(large, crowd) as connect:
            _, writer = await connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(PING)
            await until(lambda: crowd.cut["unread answer"] == 1 and crowd.open == 0)

    uvloop.run(main())


def test_more_whole_requests_than_it_can_take_are_told_to_come_again(service: app.ScoringApp) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Slow:
        async def respond(self, body: bytes, content_type: str, options: Any = None) -> Any:
            begun.set()
            await go.wait()
            raise app.RequestRefused("slow", 503)

    async def main() -> None:
        crowd = ConnectionTracker()
        given: Any = [
            Slow(),
            *(getattr(service, f"_{name}") for name in ("labelling", "following", "counters", "keys", "names")),
        ]
        full = app.ScoringApp(*given, max_requests=1)
        async with running(full, crowd) as connect:
            first = asyncio.create_task(answered(await connect(), WHOLE))
            await begun.wait()
            second = await connect()
            assert await answered(second, WHOLE) == 503
            assert await answered(second, PING) == 200
            go.set()
            assert await first == 503
            assert full._held == full._working == 0

    uvloop.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\n{\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 999999999\r\n\r\n",
        HEAD.replace(b"/invocations", b"/\xff\xfe") + b"\r\n",
        HEAD.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}",
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_bad_http_is_the_senders_fault(service: app.ScoringApp, sent: bytes) -> None:
    async def main() -> None:
        crowd = ConnectionTracker()
        async with running(service, crowd) as connect:
            pair = await connect()
            pair[1].write(sent)
            status = int((await pair[0].readline()).split()[1])
            assert 400 <= status < 500
            assert await answered(await connect(), WHOLE) == 200

    async def bounded() -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            await main()

    uvloop.run(bounded())


def test_the_systems_limit_on_files_is_raised_and_kept() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
        most = connections.find_connection_limit()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert 16 <= most <= connections.MAX_CONNECTIONS
        assert most + connections.RESERVED_FILES <= soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


SENDERS = 2_000


@pytest.mark.slow
def test_probes_and_predictions_are_answered_beside_two_thousand_slow_senders(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < SENDERS + 500:
        missing(f"{SENDERS + 500} open files (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], SENDERS + 500), before[1]))
    cut = 0

    async def send(port: int) -> None:
        """A line now and then, on a new connection whenever the one before was ended."""
        nonlocal cut
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD)
                while True:
                    try:
                        async with asyncio.timeout(5):
                            await reader.read(1)
                        break
                    except TimeoutError:
                        writer.write(b"x: y\r\n")
            except ConnectionError:
                pass
            cut += 1

    async def main(port: int) -> tuple[int, list[int]]:
        senders = [asyncio.create_task(send(port)) for _ in range(SENDERS)]
        statuses: list[int] = []
        # Each on a connection of its own, as a probe comes.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND_SECONDS, limits=limits) as http,
            asyncio.timeout(4 * BOUND_SECONDS),
        ):
            while cut < 2 * SENDERS:
                statuses.append((await http.get("/ping")).status_code)
                statuses.append((await http.post("/invocations", json={"inputs": [ROW]})).status_code)
                await asyncio.sleep(0.05)
        for sender in senders:
            sender.cancel()
        return len(statuses), [s for s in statuses if s != 200]

    try:
        with serving(made_project(tmp_path)) as (process, port):
            asked, failed = uvloop.run(main(port))
            assert process.poll() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert asked > 30
    assert failed == []
    assert "connections cut" in (tmp_path / "serve.log").read_text()
