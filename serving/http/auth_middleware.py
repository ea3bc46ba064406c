"""ASGI middleware before MLflow's and Prefect's pages: no client gets in without the project's secret or the session cookie."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import re
import secrets
from asyncio import timeout
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from windvane.tasks import project_secrets

BASIC_AUTH_USER = "windvane"
# Served by the guard itself, to everybody: a nonce's keyed hash, which proves whose server this is and reveals nothing else.
IDENTITY_PATH = "/windvane-health"
# In the scope of a request that was let in by the secret or the cookie.
AUTHENTICATED_SCOPE_KEY = "windvane.authenticated"
# What a page may load: its own server's content, nothing from elsewhere. MLflow's and Prefect's pages hold inline scripts and styles.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; "
    "frame-src 'self' data: blob:; frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
_SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
)
FIRST_MESSAGE_TIMEOUT_SECONDS = 10
PROBE_TIMEOUT_SECONDS = 2.0
_NONCE_PATTERN = re.compile(r"[0-9a-f]{32}")
_REFUSED_TEXT = (
    "Only with this project's secret. `windvane secret` in the project's folder prints the link that opens this page.\n"
)

AsgiScope = dict[str, Any]
AsgiMessage = dict[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiMessage]]
AsgiSend = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[AsgiScope, AsgiReceive, AsgiSend], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Credentials:
    """A project's secret, and what is derived from it. `cookie` names the browser's session: another project has another."""

    secret: str = field(repr=False)
    cookie: str

    @classmethod
    def of(cls, home: Path, known: str | None = None) -> Credentials:
        """That of the project whose .windvane is `home`; `known`: the secret that `windvane up` was started with."""
        name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
        return cls(known or project_secrets.read_project_secret(home), f"windvane-{name}")

    @property
    def session(self) -> str:
        """The cookie's value, of which the secret cannot be had."""
        return self._derived("session")

    @property
    def basic(self) -> str:
        """`user:password`."""
        return f"{BASIC_AUTH_USER}:{self.secret}"

    def proof(self, nonce: str) -> str:
        """What only a server of this project can compute for a nonce."""
        return self._derived(f"proof {nonce}")

    def link(self, address: str) -> str:
        """The address that opens a page in a person's browser."""
        return f"{address.rstrip('/')}/?secret={self.secret}"

    def accept(self, headers: HeaderList) -> bool:
        """Whether the headers bring the secret, or the session cookie."""
        sent = get_header_values(headers, b"authorization")
        scheme, _, credentials = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return hmac.compare_digest(credentials.strip(), self.secret.encode())
        if scheme.lower() == b"basic":
            try:
                decoded = base64.b64decode(credentials.strip(), validate=True)
            except binascii.Error:
                return False
            return hmac.compare_digest(decoded, self.basic.encode())
        name = f"{self.cookie}=".encode()
        cookies = [part.strip() for line in get_header_values(headers, b"cookie") for part in line.split(b";")]
        values = [one.removeprefix(name) for one in cookies if one.startswith(name)]
        return any(hmac.compare_digest(value, self.session.encode()) for value in values)

    def _derived(self, what: str) -> str:
        return hmac.new(self.secret.encode(), f"{self.cookie} {what}".encode(), hashlib.sha256).hexdigest()


class SecretMiddleware:
    """`app` behind `credentials`, on `port`.

    open_paths: their GET needs no secret. self_authenticating: web sockets that require it themselves, in their first message.
    inner_authorization: the Authorization header that the application sees of requests that were let in.
    """

    def __init__(
        self,
        app: AsgiApp,
        credentials: Credentials,
        port: int,
        open_paths: Iterable[str] = (),
        self_authenticating: Iterable[str] = (),
        inner_authorization: str | None = None,
    ) -> None:
        self._app, self._credentials = app, credentials
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}
        self._origins = {b"http://" + host for host in self._hosts}
        self._open_paths, self._self_authenticating = frozenset(open_paths), frozenset(self_authenticating)
        self._inner_authorization = None if inner_authorization is None else inner_authorization.encode()

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """One request, or the application's own start and end."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, path, reads = scope["headers"], scope["path"], scope.get("method") in ("GET", "HEAD")
        if (reason := self._foreign(headers)) is not None:
            await _refuse(scope, send, 403, f"{reason}\n")
        elif scope["type"] == "http" and path == IDENTITY_PATH:
            await respond_to_identity(self._credentials, scope, send)
        elif scope["type"] == "http" and reads and (rest := self._by_link(scope)) is not None:
            # Also with a cookie: the application must not see the secret, and show or pass on its address.
            await self._let_in(path, rest, send)
        elif self._credentials.accept(headers):
            if self._inner_authorization is not None:
                headers = [(name, value) for name, value in headers if name.lower() != b"authorization"]
                headers.append((b"authorization", self._inner_authorization))
            scope = {**scope, "headers": headers, AUTHENTICATED_SCOPE_KEY: True}
            await self._app(scope, receive, _add_security_headers(send) if scope["type"] == "http" else send)
        elif scope["type"] == "http" and reads and path in self._open_paths:
            await self._app(scope, receive, _add_security_headers(send))
        elif scope["type"] == "websocket" and path in self._self_authenticating:
            await self._app(scope, _limit_first_message(receive), send)
        else:
            await _refuse(
                scope, send, 401, _REFUSED_TEXT, [(b"www-authenticate", b'Basic realm="windvane", charset="UTF-8"')]
            )

    def _foreign(self, headers: HeaderList) -> str | None:
        """Why this comes from a page, or under a name, that is not the server's own; None if it does not."""
        hosts, origins = get_header_values(headers, b"host"), get_header_values(headers, b"origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "This server does not serve that name (Host)."
        if any(origin.lower() not in self._origins for origin in origins):
            return "This server does not serve pages from elsewhere (Origin)."
        site, mode = get_header_values(headers, b"sec-fetch-site"), get_header_values(headers, b"sec-fetch-mode")
        if site and site[0] in (b"cross-site", b"same-site") and mode != [b"navigate"]:
            return "This server does not serve pages from elsewhere (Sec-Fetch-Site)."
        return None

    def _by_link(self, scope: AsgiScope) -> str | None:
        """The query without the secret, if that opens; else None."""
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "secret"]
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self._credentials.secret.encode()):
            return None
        return urlencode([pair for pair in query if pair[0] != "secret"])

    async def _let_in(self, path: str, query: str, send: AsgiSend) -> None:
        cookie = f"{self._credentials.cookie}={self._credentials.session}; Path=/; HttpOnly; SameSite=Strict"
        # One slash only: with two it would be another host's address.
        to = quote("/" + path.lstrip("/\\")) + (f"?{query}" if query else "")
        headers = [(b"location", to.encode()), (b"set-cookie", cookie.encode()), (b"referrer-policy", b"no-referrer")]
        headers += [(b"cache-control", b"no-store"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def add_identity_route(app: AsgiApp, credentials: Credentials) -> AsgiApp:
    """`app` as it is, but that it can prove whose it is."""

    async def identified(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] == "http" and scope["path"] == IDENTITY_PATH:
            await respond_to_identity(credentials, scope, send)
        else:
            await app(scope, receive, send)

    return identified


async def respond_to_identity(credentials: Credentials, scope: AsgiScope, send: AsgiSend) -> None:
    """Respond to a nonce with its proof."""
    nonce = scope.get("query_string", b"").decode("latin-1").removeprefix("nonce=")
    if not _NONCE_PATTERN.fullmatch(nonce):
        await _refuse(scope, send, 400, "nonce: 32 hexadecimal digits.\n")
        return
    await _send_text(send, 200, credentials.proof(nonce))


def check_identity(address: str, credentials: Credentials) -> bool | None:
    """Whether a server of this project responds there; None where nothing responds. The secret is not sent."""
    to, nonce = urlsplit(address), secrets.token_hex(16)
    # Not urllib: a proxy of the environment has no part in this.
    connection = http.client.HTTPConnection(to.hostname or "", to.port or 80, timeout=PROBE_TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"{IDENTITY_PATH}?nonce={nonce}")
        response = connection.getresponse()
        return response.status == 200 and hmac.compare_digest(response.read(64), credentials.proof(nonce).encode())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def make_uvicorn_server(app: AsgiApp) -> Any:
    """uvicorn's server for a guarded application. It logs no request: a link holds the secret. Slow senders delay no one else."""
    import uvicorn

    from windvane.serving.http.connections import ConnectionTracker, TrackedConnection, find_connection_limit

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=partial(TrackedConnection, ConnectionTracker(find_connection_limit())),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )


def get_header_values(headers: HeaderList, name: bytes) -> list[bytes]:
    """All values of a header."""
    return [value for key, value in headers if key.lower() == name]


def _add_security_headers(send: AsgiSend) -> AsgiSend:
    """Adds what keeps a page from loading anything from elsewhere, and its address from going there."""

    async def sends(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            headers: HeaderList = list(message.get("headers", []))
            known = {name.lower() for name, _ in headers}
            headers += [header for header in _SECURITY_HEADERS if header[0] not in known]
            message = {**message, "headers": headers}
        await send(message)

    return sends


def _limit_first_message(receive: AsgiReceive) -> AsgiReceive:
    """The first message of a socket that is not authenticated must come soon."""
    received = 0

    async def receives() -> AsgiMessage:
        nonlocal received
        received += 1
        if received != 2:  # the first is the connection itself
            return await receive()
        try:
            async with timeout(FIRST_MESSAGE_TIMEOUT_SECONDS):
                return await receive()
        except TimeoutError:
            return {"type": "websocket.disconnect", "code": 1008}

    return receives


async def _refuse(scope: AsgiScope, send: AsgiSend, status: int, text: str, headers: HeaderList | None = None) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted this is a 403.
        await send({"type": "websocket.close", "code": 1008})
        return
    await _send_text(send, status, text, headers)


async def _send_text(send: AsgiSend, status: int, text: str, more: HeaderList | None = None) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [(b"cache-control", b"no-store"), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
