"""The service as an ASGI application: routes, who may use them, limits and errors. What is answered to whom; not how it is predicted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any, Literal

import orjson

from windvane.serving.access import Names
from windvane.serving.answering import Answering
from windvane.serving.following import Following
from windvane.serving.keys import Keys
from windvane.serving.labelling import Labelling
from windvane.serving.metering import Meters
from windvane.serving.openapi import document
from windvane.serving.signature import Refused
from windvane.serving.telling import told
from windvane.templates import render_page

# Bytes of a body; seconds that its sender may take; bytes of all bodies that are held at once.
LARGEST, PATIENCE = 16 * 1024 * 1024, 20.0
HELD = 256 * 1024 * 1024
# Requests with a body at once; more are told to come again.
CROWD = 2_000
JSON, _TEXT = b"application/json", b"text/plain; charset=utf-8"
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
log = logging.getLogger("windvane.serving")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Response:
    """Status, body, content type, and headers that go with them."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    more: tuple[tuple[bytes, bytes], ...] = ()


class _Gone(Exception):
    """The client left before its request was whole."""


# When a path asks for a key: never, where there are any (WINDVANE_API_KEYS), always.
Guard = Literal["never", "keyed", "always"]
# Asked by whatever watches over the process, under whatever name it knows it.
PROBES = ("/ping", "/health")


class Service:
    """One project's scoring service. crowd: requests with a body at once."""

    def __init__(
        self,
        answering: Answering,
        labelling: Labelling,
        following: Following,
        meters: Meters,
        keys: Keys,
        names: Names,
        crowd: int = CROWD,
    ) -> None:
        self._answering, self._labelling, self._following = answering, labelling, following
        self._meters, self._keys, self._names, self._crowd = meters, keys, names, crowd
        self._held = self._working = 0
        any_key: tuple[str | None, Guard] = (None, "keyed")
        open_to_all: tuple[str | None, Guard] = (None, "never")
        # Per path and method: who answers, the scope that a key needs, and when it needs one.
        self._routes: dict[str, dict[str, tuple[Any, str | None, Guard]]] = {
            "/invocations": {"POST": (self._invocations, "score", "keyed")},
            "/labels": {"POST": (self._labels, "label", "always")},
            "/model": {"GET": (self._model, *any_key)},
            "/metrics": {"GET": (self._metrics, *any_key)},
            "/ping": {"GET": (self._ping, *open_to_all)},
            "/health": {"GET": (self._ping, *open_to_all)},
            "/version": {"GET": (self._version, *open_to_all)},
            "/openapi.json": {"GET": (self._openapi, *open_to_all)},
            "/docs": {"GET": (_page("scoring_requests.html"), *open_to_all)},
            "/": {"GET": (_page("scoring_service.html"), *open_to_all)},
        }

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Every (method, path) that is answered."""
        return [(method, path) for path, methods in self._routes.items() for method in methods]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one HTTP request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        began, path = time.perf_counter(), scope["path"]
        try:
            response = await self._respond(scope, receive)
        except Refused as e:
            response = _fault(e.status, str(e), ", ".join(self._routes.get(path, ())))
        except _Gone:
            return
        except Exception:
            # A fault of ours: told in full in the log, in one word to whoever asked.
            log.exception("failed", extra={"facts": {"path": path if path in self._routes else "other"}})
            response = _fault(500, "the service failed; its log says how")
        headers = [
            (b"content-type", response.kind),
            (b"content-length", str(len(response.body)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        headers += response.more
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})
        seconds = time.perf_counter() - began
        known = path if path in self._routes else "other"
        self._meters.answered(known, response.status)
        if path == "/invocations":
            self._meters.seconds.observe(seconds)
        if response.status >= 400:
            facts = {"path": known, "status": response.status, "seconds": round(seconds, 6)}
            log.info("refused", extra={"facts": facts})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path = scope["path"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if path not in PROBES:
            self._admit(scope, headers)
        methods = self._routes.get(path)
        if methods is None:
            raise Refused("there is nothing at this path; /docs says what there is", 404)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            raise Refused(f"this path takes {', '.join(methods)}", 405)
        work, needed, guard = methods[method]
        if guard == "always" or (guard == "keyed" and self._keys.scopes):
            allowed = self._keys.allows(_key(headers), needed)
            if allowed is None and guard == "always":
                raise Refused(
                    f"the key is missing or not known: send the project's secret, or a key with the scope {needed}, "
                    "as `Authorization: Bearer KEY`",
                    401,
                )
            if not allowed:
                raise (
                    Refused("the key is missing or not known", 401)
                    if allowed is None
                    else Refused(f"this key does not allow it: it needs the scope {needed}", 403)
                )
        response: Response = await work(headers, receive)
        return response

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise Refused for whoever asks under a name that is not the service's, or from a page that is not."""
        host, server = headers.get(b"host", b""), scope.get("server")
        if len(headers) != len(scope["headers"]) and sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise Refused("a request has one Host header")
        if not self._names.known(host, server[0] if server else None):
            raise Refused("this service is not asked under this name: serve.hosts in params.yaml lists its names", 403)
        origin = headers.get(b"origin")
        if origin is not None and not self._names.own_page(origin, host):
            raise Refused("a page of another site may not use this service", 403)

    async def _invocations(self, headers: dict[bytes, bytes], receive: Receive) -> Response:
        async def answer(body: bytes) -> Response:
            said = await self._answering.answer(body, headers.get(b"content-type", b"").decode("latin-1"))
            self._meters.rows.labels(str(said.version), said.role).inc(said.rows)
            return Response(said.body)

        return await self._taken(headers, receive, answer)

    async def _labels(self, headers: dict[bytes, bytes], receive: Receive) -> Response:
        # Of the content types that a page may send anywhere without asking first, JSON is none.
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != JSON:
            raise Refused("Content-Type must be application/json", 415)

        async def hand_in(body: bytes) -> Response:
            return Response(orjson.dumps(await self._labelling.hand_in(body)))

        return await self._taken(headers, receive, hand_in)

    async def _taken(
        self, headers: dict[bytes, bytes], receive: Receive, work: Callable[[bytes], Awaitable[Response]]
    ) -> Response:
        """The answer to a whole body. Raises Refused where there are too many at once, of which only whole ones count."""
        body = await self._body(headers, receive)
        try:
            if self._working >= self._crowd:
                raise Refused(f"{self._crowd:,} requests are being answered already. Try again later", 503)
            self._working += 1
            try:
                return await work(body)
            finally:
                self._working -= 1
        finally:
            self._held -= len(body)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, which counts as held from now on. Raises Refused when it is too large or too slow."""
        if headers.get(b"content-length", b"0").isdigit() and int(headers.get(b"content-length", b"0")) > LARGEST:
            raise _too_large()
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    piece: bytes = message.get("body", b"")
                    size += len(piece)
                    self._held += len(piece)
                    if size > LARGEST:
                        raise _too_large()
                    if self._held > HELD:
                        raise Refused("too many large bodies at once. Try again later", 503)
                    if not message.get("more_body"):
                        return b"".join((*pieces, piece)) if pieces else piece
                    pieces.append(piece)
        except BaseException as e:
            self._held -= size
            if isinstance(e, TimeoutError):
                raise Refused(f"the body did not arrive within {PATIENCE:g} seconds", 408) from None
            raise

    async def _model(self, _headers: dict[bytes, bytes], _receive: Receive) -> Response:
        content = told(self._following)
        return Response(orjson.dumps(content), 200 if self._following.current else 503)

    async def _metrics(self, _headers: dict[bytes, bytes], _receive: Receive) -> Response:
        return Response(self._meters.text(), kind=b"text/plain; version=0.0.4; charset=utf-8")

    async def _ping(self, _headers: dict[bytes, bytes], _receive: Receive) -> Response:
        return Response(b"\n", 200 if self._following.current else 503, _TEXT)

    async def _version(self, _headers: dict[bytes, bytes], _receive: Receive) -> Response:
        # As MLflow's server: its own version, by which clients choose how to speak.
        return Response(installed("mlflow").encode(), kind=_TEXT)

    async def _openapi(self, _headers: dict[bytes, bytes], _receive: Receive) -> Response:
        current = self._following.current
        return Response(orjson.dumps(document(None if current is None else current.loaded.signature)))


def _page(template: str) -> Callable[[dict[bytes, bytes], Receive], Awaitable[Response]]:
    """Answers with a page, which a browser may let talk to this service alone. It is made when it is first asked for."""
    made: list[Response] = []

    async def page(_headers: dict[bytes, bytes], _receive: Receive) -> Response:
        if not made:
            # Aside: the import of Jinja2 takes longer than hundreds of predictions.
            text = await asyncio.to_thread(render_page, template)
            made.append(Response(text.encode(), kind=b"text/html; charset=utf-8", more=(_POLICY,)))
        return made[0]

    return page


def _fault(status: int, message: str, methods: str = "") -> Response:
    """An error as MLflow's server tells it; `methods` are those that a path takes."""
    body = orjson.dumps({"error_code": _CODES.get(status, "BAD_REQUEST"), "message": message})
    more = {401: (b"www-authenticate", b"Bearer"), 405: (b"allow", methods.encode())}
    return Response(body, status, more=(more[status],) if status in more else ())


def _key(headers: dict[bytes, bytes]) -> str | None:
    given = headers.get(b"authorization", b"").decode("latin-1")
    word, _, key = given.partition(" ")
    return key.strip() if word.lower() == "bearer" else headers.get(b"x-api-key", b"").decode("latin-1") or None


def _too_large() -> Refused:
    return Refused(f"a body may have {LARGEST // 1024**2} MB: send rows in pieces, or use `windvane score`", 413)
