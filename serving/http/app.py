"""The scoring service as an ASGI application: its routes, who may use them, limits, errors and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version as installed
from math import nan
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from windvane.ledger.labels import ContradictingLabels, record_labels
from windvane.serving.http.access_control import ApiKeys, HostNames
from windvane.serving.http.auth_middleware import AsgiReceive, AsgiScope, AsgiSend
from windvane.serving.http.connections import ConnectionTracker
from windvane.serving.http.invocations import InvocationHandler, parse_response_options
from windvane.serving.http.openapi import build_openapi
from windvane.serving.rollout import ChampionFollower, describe_rollout
from windvane.serving.signature import RequestRefused, quote_safely
from windvane.tasks.label_parsing import LabelRules, LabelsRefused, ReceivedLabels, parse_label_csv, parse_label_objects
from windvane.templates import render_page

# Bytes of a body; seconds that its sender may take; bytes of all bodies that are held at once.
MAX_BODY_BYTES, BODY_TIMEOUT_SECONDS = 16 * 1024 * 1024, 20.0
_TOO_LARGE = f"a body may have {MAX_BODY_BYTES // 1024**2} MB: send rows in pieces, or use `windvane score`"
MAX_HELD_BYTES = 256 * 1024 * 1024
# Requests with a body at once; more are refused for now.
MAX_REQUESTS = 2_000
JSON_CONTENT_TYPE, CSV_CONTENT_TYPE, _TEXT_CONTENT_TYPE = b"application/json", b"text/csv", b"text/plain; charset=utf-8"
_SECURITY_POLICY_HEADER = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
log = logging.getLogger("windvane.serving")


@dataclass(frozen=True)
class HttpResponse:
    """Status, body, content type, and headers that go with them."""

    body: bytes
    status: int = 200
    kind: bytes = JSON_CONTENT_TYPE
    more: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class RequestHead:
    """A request without its body: headers by name, and the query string."""

    headers: dict[bytes, bytes]
    query: bytes


class _ClientGone(Exception):
    """The client left before its request was whole."""


# When a path requires a key: never, where there are any (WINDVANE_API_KEYS), always.
KeyRequirement = Literal["never", "keyed", "always"]
# Requested by any monitor of the process, under any host name.
PROBE_PATHS = ("/ping", "/health")


class ScoringApp:
    """One project's scoring service. max_requests: with a body, at once."""

    def __init__(
        self,
        answering: InvocationHandler,
        labelling: LabelHandler,
        following: ChampionFollower,
        counters: ServiceMetrics,
        keys: ApiKeys,
        names: HostNames,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._answering, self._labelling, self._following = answering, labelling, following
        self._counters, self._keys, self._names, self._max_requests = counters, keys, names, max_requests
        self._held = self._working = 0
        any_key: tuple[str | None, KeyRequirement] = (None, "keyed")
        open_to_all: tuple[str | None, KeyRequirement] = (None, "never")
        # Per path: its method, its handler, the scope that a key needs, and when it needs one.
        self._routes: dict[str, tuple[str, Any, str | None, KeyRequirement]] = {
            "/invocations": ("POST", self._invocations, "score", "keyed"),
            "/labels": ("POST", self._labels, "label", "always"),
            "/model": ("GET", self._model, *any_key),
            "/metrics": ("GET", self._metrics, *any_key),
            "/ping": ("GET", self._ping, *open_to_all),
            "/health": ("GET", self._ping, *open_to_all),
            "/version": ("GET", self._version, *open_to_all),
            "/openapi.json": ("GET", self._openapi, *open_to_all),
            "/docs": ("GET", partial(_respond_with_page, "scoring_requests.html"), *open_to_all),
            "/": ("GET", partial(_respond_with_page, "scoring_service.html"), *open_to_all),
        }

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Every (method, path) that is served."""
        return [(method, path) for path, (method, *_) in self._routes.items()]

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """ASGI: one HTTP request."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        started_at, path = time.perf_counter(), scope["path"]
        known = path if path in self._routes else "other"
        try:
            response = await self._respond(scope, receive)
        except RequestRefused as e:
            response = _make_error_response(e.status, str(e), self._routes[path][0] if path in self._routes else "")
        except _ClientGone:
            return
        except Exception:
            # A fault of ours: in full in the log, in one word to the client.
            log.exception("failed", extra={"facts": {"path": known}})
            response = _make_error_response(500, "the service failed; its log has the details")
        length = str(len(response.body)).encode()
        headers = [(b"content-type", response.kind), (b"content-length", length)]
        headers += [(b"x-content-type-options", b"nosniff"), *response.more]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})
        seconds = time.perf_counter() - started_at
        self._counters.count_response(known, response.status)
        if path == "/invocations":
            self._counters.seconds.observe(seconds)
        if response.status >= 400:
            facts = {"path": known, "status": response.status, "seconds": round(seconds, 6)}
            log.info("refused", extra={"facts": facts})

    async def _respond(self, scope: AsgiScope, receive: AsgiReceive) -> HttpResponse:
        path = scope["path"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if path not in PROBE_PATHS:
            self._admit(scope, headers)
        if path not in self._routes:
            raise RequestRefused("there is nothing at this path; /docs lists the paths", 404)
        method, work, needed, guard = self._routes[path]
        if method != ("GET" if scope["method"] == "HEAD" else scope["method"]):
            raise RequestRefused(f"this path takes {method}", 405)
        if guard == "always" or (guard == "keyed" and self._keys.scopes):
            allowed = self._keys.allows(_read_key(headers), needed)
            if allowed is None:
                how = f": send the project's secret, or a key with the scope {needed}, as `Authorization: Bearer KEY`"
                raise RequestRefused("the key is missing or not known" + (how if guard == "always" else ""), 401)
            if not allowed:
                raise RequestRefused(f"this key does not allow it: it needs the scope {needed}", 403)
        response: HttpResponse = await work(RequestHead(headers, scope.get("query_string", b"")), receive)
        return response

    def _admit(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> None:
        """Raise RequestRefused for a request under a name that is not the service's, or from a page that is not."""
        host, server = headers.get(b"host", b""), scope.get("server")
        if len(headers) != len(scope["headers"]) and sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise RequestRefused("a request has one Host header")
        if not self._names.known(host, server[0] if server else None):
            raise RequestRefused(
                "this service is not reached under this name: serve.hosts in params.yaml lists its names", 403
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._names.own_page(origin, host):
            raise RequestRefused("a page of another site may not use this service", 403)

    async def _invocations(self, head: RequestHead, receive: AsgiReceive) -> HttpResponse:
        options = parse_response_options(head.query)

        async def answer(body: bytes) -> HttpResponse:
            content_type = head.headers.get(b"content-type", b"").decode("latin-1")
            result = await self._answering.respond(body, content_type, options)
            self._counters.count_rows(result.version, result.role, result.rows)
            if result.dropped:
                self._counters.dropped.inc(result.dropped)
            return HttpResponse(result.body)

        return await self._taken(head, receive, answer)

    async def _labels(self, head: RequestHead, receive: AsgiReceive) -> HttpResponse:
        # Of the content types that a page may send anywhere without a preflight, these are none.
        content_type = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type not in (JSON_CONTENT_TYPE, CSV_CONTENT_TYPE):
            raise RequestRefused("Content-Type must be application/json or text/csv", 415)

        async def hand_in(body: bytes) -> HttpResponse:
            counts = await asyncio.to_thread(self._labelling.hand_in, body, content_type == CSV_CONTENT_TYPE)
            return HttpResponse(orjson.dumps(counts))

        return await self._taken(head, receive, hand_in)

    async def _taken(
        self, head: RequestHead, receive: AsgiReceive, work: Callable[[bytes], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """The response to a whole body. Raises RequestRefused where there are too many at once, of which only whole ones count."""
        body = await self._body(head, receive)
        try:
            if self._working >= self._max_requests:
                raise RequestRefused(f"{self._max_requests:,} requests are being served already. Try again later", 503)
            self._working += 1
            try:
                return await work(body)
            finally:
                self._working -= 1
        finally:
            self._held -= len(body)

    async def _body(self, head: RequestHead, receive: AsgiReceive) -> bytes:
        """The whole body, which counts as held from now on. Raises RequestRefused when it is too large or too slow."""
        length = head.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise RequestRefused(_TOO_LARGE, 413)
        pieces, size = list[bytes](), 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGone
                    piece: bytes = message.get("body", b"")
                    size += len(piece)
                    self._held += len(piece)
                    if size > MAX_BODY_BYTES:
                        raise RequestRefused(_TOO_LARGE, 413)
                    if self._held > MAX_HELD_BYTES:
                        raise RequestRefused("too many large bodies at once. Try again later", 503)
                    if not message.get("more_body"):
                        return b"".join((*pieces, piece)) if pieces else piece
                    pieces.append(piece)
        except BaseException as e:
            self._held -= size
            if isinstance(e, TimeoutError):
                raise RequestRefused(f"the body did not arrive within {BODY_TIMEOUT_SECONDS:g} seconds", 408) from None
            raise

    async def _model(self, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
        content = describe_rollout(self._following)
        return HttpResponse(orjson.dumps(content), 200 if self._following.current else 503)

    async def _metrics(self, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
        return HttpResponse(self._counters.text(), kind=b"text/plain; version=0.0.4; charset=utf-8")

    async def _ping(self, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
        return HttpResponse(b"\n", 200 if self._following.current else 503, _TEXT_CONTENT_TYPE)

    async def _version(self, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
        # As MLflow's server: its own version, by which clients choose how to speak.
        return HttpResponse(installed("mlflow").encode(), kind=_TEXT_CONTENT_TYPE)

    async def _openapi(self, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
        current = self._following.current
        return HttpResponse(orjson.dumps(build_openapi(None if current is None else current.loaded.signature)))


async def _respond_with_page(template: str, _head: RequestHead, _receive: AsgiReceive) -> HttpResponse:
    # Aside: the import of Jinja2 takes longer than hundreds of predictions.
    return await asyncio.to_thread(_make_page, template)


@cache
def _make_page(template: str) -> HttpResponse:
    """A page, which a browser may let talk to this service alone."""
    page = render_page(template).encode()
    return HttpResponse(page, kind=b"text/html; charset=utf-8", more=(_SECURITY_POLICY_HEADER,))


def _make_error_response(status: int, message: str, method: str = "") -> HttpResponse:
    """An error in the format of MLflow's server; `method`: that which the path takes."""
    body = orjson.dumps({"error_code": _ERROR_CODES.get(status, "BAD_REQUEST"), "message": message})
    # The same text for every reader of JSON, and no element even for one that takes it for a page.
    body = body.replace(b"<", b"\\u003c")
    more = {401: (b"www-authenticate", b"Bearer"), 405: (b"allow", method.encode())}
    return HttpResponse(body, status, more=(more[status],) if status in more else ())


def _read_key(headers: dict[bytes, bytes]) -> str | None:
    given = headers.get(b"authorization", b"").decode("latin-1")
    word, _, key = given.partition(" ")
    return key.strip() if word.lower() == "bearer" else headers.get(b"x-api-key", b"").decode("latin-1") or None


MAX_REQUEST_LABELS = 10_000


class LabelHandler:
    """Records the labels of one project."""

    def __init__(self, engine: sa.Engine, project: str, rules: LabelRules) -> None:
        self._engine, self._project, self._rules = engine, project, rules

    def hand_in(self, body: bytes, as_csv: bool = False) -> dict[str, int]:
        """What came of `[{"id": …, "label": …, "at": …}]`, or of the same as CSV; all of them are recorded or none.

        Raises RequestRefused.
        """
        try:
            received = parse_label_csv(body, self._rules) if as_csv else self._parse_json(body)
            self._limit(len(received.statements) + received.empty)
            done = record_labels(self._engine, self._project, received.statements, "service")
        except (LabelsRefused, ContradictingLabels) as e:
            raise RequestRefused(quote_safely(e, 300)) from None
        except sa.exc.SQLAlchemyError as e:
            raise RequestRefused("the ledger did not take the labels. Try again later", 503) from e
        return asdict(replace(done, empty=received.empty))

    def _parse_json(self, body: bytes) -> ReceivedLabels:
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as e:
            raise RequestRefused(f"the body is not JSON: {quote_safely(e)}") from None
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise RequestRefused('the body must be a list of objects: [{"id": …, "label": …}]')
        self._limit(len(given))
        return parse_label_objects(given, self._rules)

    def _limit(self, count: int) -> None:
        if count > MAX_REQUEST_LABELS:
            raise RequestRefused(
                f"at most {MAX_REQUEST_LABELS:,} labels at a time: send them in pieces, or use `windvane labels`", 413
            )


_LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


# Of the champion's newest window with labels (monitoring.records.CoverageResult).
_COVERAGE_GAUGES = (
    ("windvane_interval_coverage", "Share of labels within their interval, newest window; NaN: no labels", "share"),
    ("windvane_interval_level", "Level that is used for monitor.interval, by late labels; NaN: no labels", "adjusted"),
    ("windvane_interval_alarm", "1: intervals hold significantly fewer labels than promised; NaN: no labels", "alarm"),
)


def _read_coverage_fact(following: ChampionFollower, name: str) -> float:
    current = following.current
    measured = [] if current is None else [one for one in current.coverage.windows if one["rows"]]
    if current is None or not measured:
        return nan
    newest = measured[-1]
    if name == "adjusted":  # by all windows: labels may have come late to an earlier one
        intervals = current.loaded.intervals
        value = None if intervals is None else intervals.adjust_level(newest["level"], current.levels)
    else:
        value = newest["covered"] / newest["rows"] if name == "share" else newest[name]
    return nan if value is None else float(value)


class ServiceMetrics:
    """One service's counters, in a registry of their own."""

    def __init__(self, following: ChampionFollower) -> None:
        self._registry = registry = CollectorRegistry()
        # The library's own look-up takes a lock: once for each of the few sets of label values.
        self._find_counter = cache(Counter.labels)
        self._requests = Counter("windvane_requests", "Responses of the service", ["path", "code"], registry=registry)
        self._rows = Counter("windvane_rows", "Rows predicted", ["version", "role"], registry=registry)
        self.dropped = Counter(
            "windvane_dropped_columns", "Columns of requests that the model does not see", registry=registry
        )
        self.seconds = Histogram(
            "windvane_seconds", "POST /invocations", buckets=_LATENCY_BUCKETS_SECONDS, registry=registry
        )
        version = Gauge("windvane_version", "The version that serves; 0: none", registry=registry)
        version.set_function(lambda: following.current.number if following.current else 0)
        refused = Gauge("windvane_refused_version", "The champion that was refused here; 0: none", registry=registry)
        refused.set_function(lambda: following.refusal.version if following.refusal else 0)
        for name, text, fact in _COVERAGE_GAUGES:
            Gauge(name, text, registry=registry).set_function(partial(_read_coverage_fact, following, fact))

    def count_connections(self, tracker: ConnectionTracker) -> None:
        """Count connections, too: those that are open, and those that were cut because they sent too slowly or were too many."""
        opened = Gauge("windvane_connections", "Connections that are open", registry=self._registry)
        opened.set_function(lambda: tracker.open)
        cut = Gauge("windvane_connections_cut", "Connections cut so far", ["why"], registry=self._registry)
        for why in ("slow head", "unread answer", "crowded"):
            cut.labels(why).set_function(partial(tracker.cut.__getitem__, why))

    def count_response(self, path: str, code: int) -> None:
        """Count a response; path: one of the service's own, so that strangers cannot make up label values."""
        self._find_counter(self._requests, path, code).inc()

    def count_rows(self, version: int, role: str, rows: int) -> None:
        """Count predicted rows."""
        self._find_counter(self._rows, version, role).inc(rows)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
