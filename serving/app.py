"""The service as an ASGI application: routes, keys, limits and errors. What is answered to whom; not how it is predicted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import orjson

from windvane.serving.answering import Answering
from windvane.serving.following import Following
from windvane.serving.keys import Keys
from windvane.serving.labelling import Labelling
from windvane.serving.metering import Meters
from windvane.serving.openapi import document
from windvane.serving.signature import Refused
from windvane.serving.telling import told

# Bytes of a body; seconds that its sender may take.
LARGEST, PATIENCE = 16 * 1024 * 1024, 20.0
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


class Service:
    """One project's scoring service."""

    def __init__(
        self, answering: Answering, labelling: Labelling, following: Following, meters: Meters, keys: Keys
    ) -> None:
        self._answering, self._labelling, self._following = answering, labelling, following
        self._meters, self._keys = meters, keys
        any_key, open_to_all = (None, True), (None, False)
        # Per path and method: who answers, the scope that a key needs, and whether it needs one at all.
        self._routes: dict[str, dict[str, tuple[Any, str | None, bool]]] = {
            "/invocations": {"POST": (self._invocations, "score", True)},
            "/labels": {"POST": (self._labels, "label", True)},
            "/model": {"GET": (self._model, *any_key)},
            "/metrics": {"GET": (self._metrics, *any_key)},
            "/ping": {"GET": (self._ping, *open_to_all)},
            "/health": {"GET": (self._ping, *open_to_all)},
            "/version": {"GET": (self._version, *open_to_all)},
            "/openapi.json": {"GET": (self._openapi, *open_to_all)},
            "/docs": {"GET": (_page("docs.html"), *open_to_all)},
            "/": {"GET": (_page("page.html"), *open_to_all)},
        }

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
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise Refused("there is nothing at this path; /docs says what there is", 404)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            raise Refused(f"this path takes {', '.join(methods)}", 405)
        work, needed, guarded = methods[method]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if guarded and self._keys.scopes:
            allowed = self._keys.allows(_key(headers), needed)
            if not allowed:
                raise (
                    Refused("the key is missing or not known", 401)
                    if allowed is None
                    else Refused(f"this key does not allow it: it needs the scope {needed}", 403)
                )
        response: Response = await work(headers, receive)
        return response

    async def _invocations(self, headers: dict[bytes, bytes], receive: Receive) -> Response:
        body = await _body(headers, receive)
        kind = headers.get(b"content-type", b"").decode("latin-1")
        said = await self._answering.answer(body, kind)
        self._meters.rows.labels(str(said.version), said.role).inc(said.rows)
        return Response(said.body)

    async def _labels(self, headers: dict[bytes, bytes], receive: Receive) -> Response:
        done = await self._labelling.hand_in(await _body(headers, receive))
        return Response(orjson.dumps(done))

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


def _page(name: str) -> Callable[[dict[bytes, bytes], Receive], Awaitable[Response]]:
    """Answers with a page that lies beside this file; a browser may let it talk to this service alone."""
    response = Response((Path(__file__).parent / name).read_bytes(), kind=b"text/html; charset=utf-8", more=(_POLICY,))

    async def page(_headers: dict[bytes, bytes], _receive: Receive) -> Response:
        return response

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


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The whole body. Raises Refused when it is too large or too slow."""
    if headers.get(b"content-length", b"0").isdigit() and int(headers.get(b"content-length", b"0")) > LARGEST:
        raise _too_large()
    try:
        first = await receive()
        if first["type"] == "http.disconnect":
            raise _Gone
        if not first.get("more_body"):
            whole: bytes = first.get("body", b"")
            return whole
        async with asyncio.timeout(PATIENCE):
            return await _rest(first.get("body", b""), receive)
    except TimeoutError:
        raise Refused(f"the body did not arrive within {PATIENCE:g} seconds", 408) from None


async def _rest(first: bytes, receive: Receive) -> bytes:
    pieces, size = [first], len(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > LARGEST:
            raise _too_large()
        if not message.get("more_body"):
            return b"".join(pieces)


def _too_large() -> Refused:
    return Refused(f"a body may have {LARGEST // 1024**2} MB: send rows in pieces, or use `windvane score`", 413)
