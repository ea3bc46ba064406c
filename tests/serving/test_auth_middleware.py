"""The guard by itself: who is let in, and what an application behind it sees of a request."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from windvane.serving.http import auth_middleware
from windvane.serving.http.auth_middleware import Credentials, SecretMiddleware

PORT = 4200
OWN = f"http://127.0.0.1:{PORT}"


class Behind:
    """An application that keeps what reached it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            self.seen.append(await receive())
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"DENY")]})
        await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials.of(tmp_path)


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def guarded(credentials: Credentials, behind: Behind) -> SecretMiddleware:
    return SecretMiddleware(
        behind,
        credentials,
        PORT,
        open_paths=("/health",),
        self_authenticating=("/out",),
        inner_authorization="Basic inner",
    )


def ask(app: Any, path: str = "/", method: str = "GET", base: str = OWN, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return asyncio.run(main())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_the_secret_opens_in_three_ways_and_the_application_sees_its_own_header(
    guarded: SecretMiddleware, credentials: Credentials, behind: Behind
) -> None:
    cookie = f"other=1; {credentials.cookie}={credentials.session}"
    ways = (
        {"authorization": f"Bearer {credentials.secret}"},
        {"authorization": basic("windvane", credentials.secret)},
        {"cookie": cookie},
    )
    for way in ways:
        assert ask(guarded, **way).text == "inside"
        assert auth_middleware.get_header_values(behind.seen[-1]["headers"], b"authorization") == [b"Basic inner"]
        assert behind.seen[-1][auth_middleware.AUTHENTICATED_SCOPE_KEY] is True


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer " + "0" * 64},
        {"authorization": "Bearer \xe9"},
        {"authorization": basic("windvane", "")},
        {"authorization": basic("windvane", "0" * 64)},
        {"authorization": "Basic %%%"},
        {"authorization": "Basic"},
        {"authorization": "Negotiate abc"},
        {"cookie": "windvane-000000000000=" + "0" * 64},
    ],
)
def test_all_else_is_refused_before_its_body_is_read(
    guarded: SecretMiddleware, behind: Behind, headers: dict[str, str]
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = ask(guarded, "/api/x", "POST", **encoded)  # type: ignore[arg-type]
    assert (answer.status_code, behind.seen) == (401, [])
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert len(answer.content) < 200


def test_another_user_another_projects_cookie_and_two_credentials_do_not_open(
    guarded: SecretMiddleware, credentials: Credentials, behind: Behind, tmp_path: Path
) -> None:
    other = Credentials.of(tmp_path / "other")
    assert other.cookie != credentials.cookie
    assert ask(guarded, authorization=basic("admin", credentials.secret)).status_code == 401
    assert ask(guarded, cookie=f"{other.cookie}={other.session}").status_code == 401
    assert ask(guarded, cookie=f"{credentials.cookie}={other.session}").status_code == 401
    assert ask(guarded, cookie=f"{credentials.cookie}={credentials.secret}").status_code == 401
    both = [(b"authorization", f"Bearer {credentials.secret}".encode()), (b"authorization", b"Bearer x")]
    assert not credentials.accept(both)
    assert behind.seen == []


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:4201", "0.0.0.0:4200", ""]
)
def test_a_name_that_is_not_its_own_is_refused_even_with_the_secret(
    guarded: SecretMiddleware, credentials: Credentials, behind: Behind, host: str
) -> None:
    for path in ("/", "/health", f"/?secret={credentials.secret}", auth_middleware.IDENTITY_PATH):
        answer = ask(guarded, path, host=host, authorization=f"Bearer {credentials.secret}")
        assert (answer.status_code, behind.seen) == (403, [])
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_its_own_names_are_answered(guarded: SecretMiddleware, credentials: Credentials, host: str) -> None:
    assert ask(guarded, host=host, authorization=f"Bearer {credentials.secret}").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": f"https://127.0.0.1:{PORT}"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    ],
)
def test_a_page_from_elsewhere_is_refused_even_with_the_cookie(
    guarded: SecretMiddleware, credentials: Credentials, behind: Behind, headers: dict[str, str]
) -> None:
    cookie = f"{credentials.cookie}={credentials.session}"
    assert ask(guarded, "/", "POST", cookie=cookie, **headers).status_code == 403
    assert ask(guarded, "/health", **headers).status_code == 403
    assert behind.seen == []


def test_its_own_page_and_a_click_on_a_link_elsewhere_are_not_foreign(
    guarded: SecretMiddleware, credentials: Credentials
) -> None:
    cookie = f"{credentials.cookie}={credentials.session}"
    assert ask(guarded, "/", "POST", cookie=cookie, origin=OWN, sec_fetch_site="same-origin").status_code == 200
    assert ask(guarded, sec_fetch_site="cross-site", sec_fetch_mode="navigate", cookie=cookie).status_code == 200


def test_the_named_paths_answer_everybody_to_get_alone(guarded: SecretMiddleware, behind: Behind) -> None:
    assert ask(guarded, "/health").text == "inside"
    assert auth_middleware.AUTHENTICATED_SCOPE_KEY not in behind.seen[0]
    for method, path in (("POST", "/health"), ("GET", "/health/"), ("GET", "//health"), ("GET", "/health/../api")):
        assert ask(guarded, OWN + path, method).status_code == 401


def test_a_link_becomes_a_cookie_and_an_address_without_the_secret(
    guarded: SecretMiddleware, credentials: Credentials, behind: Behind
) -> None:
    for headers in ({}, {"cookie": f"{credentials.cookie}={credentials.session}"}):
        answer = ask(guarded, f"/runs?a=1&secret={credentials.secret}&b=%26", **headers)
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs?a=1&b=%26")
        cookie = answer.headers["set-cookie"]
        assert cookie == f"{credentials.cookie}={credentials.session}; Path=/; HttpOnly; SameSite=Strict"
        assert credentials.secret not in str(answer.headers)
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert behind.seen == []
    assert ask(guarded, f"{OWN}//evil.example/?secret={credentials.secret}").headers["location"] == "/evil.example/"
    for wrong in ("", "0" * 64, "é", f"{credentials.secret}&secret={credentials.secret}"):
        assert ask(guarded, f"/?secret={wrong}").status_code == 401
    assert ask(guarded, f"/?secret={credentials.secret}", "POST").status_code == 401


def test_pages_load_nothing_from_elsewhere_and_keep_what_the_application_says_of_itself(
    guarded: SecretMiddleware, credentials: Credentials
) -> None:
    headers = ask(guarded, authorization=f"Bearer {credentials.secret}").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers.get_list("x-frame-options") == ["DENY"]


def test_only_the_projects_own_server_proves_itself(credentials: Credentials, tmp_path: Path, behind: Behind) -> None:
    other = Credentials.of(tmp_path / "other")
    app = auth_middleware.add_identity_route(behind, credentials)
    nonce = "0123456789abcdef" * 2
    assert (
        ask(app, f"{auth_middleware.IDENTITY_PATH}?nonce={nonce}").text
        == credentials.proof(nonce)
        != other.proof(nonce)
    )
    assert credentials.proof(nonce) != credentials.session
    for wrong in ("", nonce[:-1], nonce.upper(), f"{nonce}0", "session"):
        assert ask(app, f"{auth_middleware.IDENTITY_PATH}?nonce={wrong}").status_code == 400
    assert ask(app, "/invocations").text == "inside"
    assert [scope["path"] for scope in behind.seen] == ["/invocations"]


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers 200 to everything, and keeps what it was sent."""
    import http.server
    import threading

    sent: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(f"{self.path} {self.headers}".encode())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"0" * 64)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stranger_on_the_port_is_not_healthy_and_is_sent_no_secret(
    credentials: Credentials, stranger: tuple[str, list[bytes]]
) -> None:
    address, sent = stranger
    assert auth_middleware.check_identity(address, credentials) is False
    assert sent
    assert not [one for one in sent if credentials.secret.encode() in one or credentials.session.encode() in one]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert auth_middleware.check_identity(f"http://127.0.0.1:{nobody.getsockname()[1]}", credentials) is None


def talk(app: Any, path: str, headers: dict[str, str], *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What a socket is sent; what it says is `messages`."""
    said = iter([{"type": "websocket.connect"}, *messages])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(said, None)
        if message is None:
            await asyncio.sleep(3600)
            raise AssertionError("nobody waits that long")
        return message

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in {"host": f"127.0.0.1:{PORT}", **headers}.items()]
    asyncio.run(app({"type": "websocket", "path": path, "headers": raw}, receive, send))
    return sent


def test_sockets_need_the_secret_too(guarded: SecretMiddleware, credentials: Credentials, behind: Behind) -> None:
    refused = [{"type": "websocket.close", "code": 1008}]
    hello = {"type": "websocket.receive", "text": "hello"}
    assert talk(guarded, "/in", {}, hello) == refused
    own = {"authorization": f"Bearer {credentials.secret}"}
    assert talk(guarded, "/in", {**own, "origin": "https://evil.example"}, hello) == refused
    assert talk(guarded, "/out", {"origin": "https://evil.example"}, hello) == refused
    assert talk(guarded, "/out", {"host": "evil.example"}, hello) == refused
    assert behind.seen == []
    assert talk(guarded, "/in", own, hello) == [{"type": "websocket.accept"}]
    assert behind.seen[-1] == hello


def test_a_socket_that_asks_by_itself_is_not_waited_for_for_long(
    guarded: SecretMiddleware, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_middleware, "FIRST_MESSAGE_TIMEOUT_SECONDS", 0.05)
    assert talk(guarded, "/out", {}) == [{"type": "websocket.accept"}]
    assert behind.seen[-1] == {"type": "websocket.disconnect", "code": 1008}
