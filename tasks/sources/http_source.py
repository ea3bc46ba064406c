"""HTTP(S) sources: allowed hosts and addresses, retries with back-off, bounded bodies, and the rows of each response and page."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from windvane.tasks.errors import InputError, Outage
from windvane.tasks.ingest.cell_reading import describe_endings, find_table_ending
from windvane.tasks.settings.data_section import PagingSettings, RevealedData
from windvane.tasks.sources.snapshot import SnapshotPart, SnapshotStaging
from windvane.tasks.sources.table_files import count_file_rows

T = TypeVar("T")
HTTP_ATTEMPTS = 5
_MAX_REDIRECTS = 5
_LONGEST_WAIT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 16
# Where clouds serve machines their metadata, beside the link-local addresses.
_METADATA_ADDRESSES = tuple(
    map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"))
)


class _TransientOutage(Outage):
    """A response, or a lack of one, that may be different in a moment; `after`: seconds that the server requests."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class SourceClient:
    """A client for one source. Counts bytes over all of its responses against data.http.megabytes."""

    def __init__(self, source: RevealedData) -> None:
        assert source.data.http is not None
        self._source, self._http = source, source.data.http
        self._left = self._http.megabytes * 1_000_000
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, and what is secret in them
        # A proxy from the environment would connect in our place, to unchecked addresses.
        self._client = httpx.Client(timeout=source.data.timeout, trust_env=False, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, use: Callable[[httpx.Response], T], headers: dict[str, str] | None = None) -> T:
        """What `use` makes of the response, whose body it reads through `body`. It is called anew at each attempt.

        Raises Outage when no attempt succeeds (connection errors, 429, 5xx), InputError for any other refusal.
        """
        retrying = Retrying(
            stop=stop_after_attempt(HTTP_ATTEMPTS),
            wait=compute_retry_wait,
            retry=retry_if_exception_type(_TransientOutage),
            reraise=True,
        )
        left = self._left

        def attempt() -> T:
            self._left = left
            return self._once(url, use, {**self._http.headers, **(headers or {})})

        return retrying(attempt)

    def body(self, response: httpx.Response) -> Iterator[bytes]:
        """The response's bytes in pieces, unpacked, as long as the source stays within data.http.megabytes."""
        for piece in response.iter_bytes(_CHUNK_BYTES):
            self._left -= len(piece)
            if self._left < 0:
                raise InputError(
                    f"data.http.megabytes: {self._source.where}: sends more than {self._http.megabytes} MB. Request less, or raise it"
                )
            yield piece

    def joined(self, base: str, link: str) -> str:
        """The absolute address of a link in a response; raises InputError when it leads to another host."""
        here = httpx.URL(base)
        there = here.join(link)
        upgrade = (here.scheme, there.scheme) == ("http", "https")
        if there.host != here.host or not (upgrade or (there.scheme, there.port) == (here.scheme, here.port)):
            raise InputError(
                f"data.source: {self._source.where}: sends us on to another place ({there.scheme}://{there.host}). "
                "Name that address in data.source, if it is meant, and its host in data.http.hosts"
            )
        return str(there)

    def _once(self, url: str, use: Callable[[httpx.Response], T], headers: dict[str, str]) -> T:
        where = self._source.where
        try:
            for _ in range(_MAX_REDIRECTS):
                guard = {"trace": self._look}
                with self._client.stream("GET", url, headers=headers, extensions=guard) as response:
                    if not response.has_redirect_location:
                        self._check(response)
                        return use(response)
                    url = self.joined(url, response.headers["location"])
        except (httpx.TransportError, httpx.DecodingError) as e:
            words = self._source.hide(str(e)).rstrip(".") or type(e).__name__
            raise _TransientOutage(
                f"data.source: {where}: does not respond, or breaks off ({words}). Start the server, or fix the address"
            ) from None
        except httpx.InvalidURL:
            raise InputError(f"data.source: {where}: is no address. Write https://host/path") from None
        raise InputError(
            f"data.source: {where}: redirects more than {_MAX_REDIRECTS} times. Name the last address itself"
        )

    def _check(self, response: httpx.Response) -> None:
        status, where = response.status_code, self._source.where
        if status == 429 or status >= 500:
            raise _TransientOutage(
                f"data.source: {where}: responds with {status} {response.reason_phrase}, also after {HTTP_ATTEMPTS} attempts. "
                "Wait until the server is well again",
                parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC)),
            )
        if status >= 400:
            what = "Fix data.http.headers" if status in (401, 403) else "Fix the address"
            raise InputError(f"data.source: {where}: responds with {status} {response.reason_phrase}. {what}")

    def _look(self, event: str, info: dict[str, Any]) -> None:
        """Called by the connection pool as it works: right after connecting, before anything is sent."""
        if event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        address = stream.get_extra_info("server_addr")[0]
        if reason := explain_refused_address(address, self._http.private):
            stream.close()
            raise InputError(f"data.source: {self._source.where}: leads to {address}, {reason}")


def explain_refused_address(address: str, private: bool) -> str | None:
    """Why an address may not be requested, with what to do; None when it may."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    for inner in (getattr(ip, "ipv4_mapped", None), getattr(ip, "sixtofour", None)):
        ip = inner or ip
    if ip.is_link_local or ip in _METADATA_ADDRESSES or ip.is_multicast or ip.is_unspecified:
        return "an address of the machine's own surroundings, which is never requested. Name another host"
    if not ip.is_global and not private:
        return "a private address. If it is meant, add --private to `windvane init`, or to data.http in params.yaml: private: true"
    return None


def parse_retry_after(header: str | None, now: datetime) -> float | None:
    """What a Retry-After header requests, in seconds: a number, or a date (RFC 9110, 10.2.3); None when it has no information."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def compute_retry_wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the server requests, else 0.5, 1, 2, 4; never more than a minute."""
    error = state.outcome.exception() if state.outcome else None
    wait = error.after if isinstance(error, _TransientOutage) else None
    return min(_LONGEST_WAIT_SECONDS, wait if wait is not None else 0.5 * 2 ** (state.attempt_number - 1))


_NDJSON_TYPES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
)
_TYPES = {
    **dict.fromkeys(("text/csv", "application/csv"), ".csv"),
    "text/tab-separated-values": ".tsv",
    **dict.fromkeys(_NDJSON_TYPES, ".jsonl"),
    **dict.fromkeys(("application/vnd.apache.parquet", "application/x-parquet"), ".parquet"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
}
# One JSON response is parsed in memory: larger ones are pages, or JSON lines.
_LARGEST_JSON_BYTES = 64_000_000
_MOST_PAGES = 100_000


@dataclass(frozen=True)
class HttpFetch:
    """What a source gave: its parts and ETag. `parts` is None when nothing has changed."""

    parts: tuple[SnapshotPart, ...] | None
    etag: str | None


@dataclass
class _Page:
    """One page of a JSON API."""

    count: int
    digest: str
    following: Any
    address: str
    written: list[str] = field(default_factory=list)


def read_http(source: RevealedData, staging: SnapshotStaging, etag: str | None) -> HttpFetch:
    """All that the source gives now, unless it still has this ETag.

    Raises InputError for a response that is no table, Outage for a server that does not give one.
    """
    with SourceClient(source) as network:
        paging = source.data.http.paging if source.data.http else None
        if paging is not None:
            return HttpFetch(_read_pages(source, staging, network, paging), None)
        known = {"If-None-Match": etag} if etag else {}
        return network.get(source.data.source, lambda r: _read_whole_response(source, staging, network, r), known)


def probe_http(source: RevealedData) -> None:
    """Request once, without reading the body, to see that the source responds with a table."""
    with SourceClient(source) as network:
        network.get(source.data.source, lambda r: _response_ending(source, r))


def _read_whole_response(
    source: RevealedData, staging: SnapshotStaging, network: SourceClient, response: httpx.Response
) -> HttpFetch:
    if response.status_code == 304:
        return HttpFetch(None, response.headers.get("etag"))
    kind = _response_ending(source, response)
    if kind == ".json":
        page = _parse_page(source, network, response, None)
        path = staging.path(".jsonl")
        path.write_text("".join(page.written), encoding="utf-8")
        count: int | None = page.count
    else:
        path = staging.path(kind)
        with path.open("wb") as f:
            f.writelines(network.body(response))
        count = count_file_rows(path, source.data.format)
    if count == 0:
        raise InputError(f"data.source: {source.where}: gives no rows. Fix the address, or data.http.records")
    return HttpFetch((staging.part(path, count),), response.headers.get("etag"))


def _read_pages(
    source: RevealedData, staging: SnapshotStaging, network: SourceClient, paging: PagingSettings
) -> tuple[SnapshotPart, ...]:
    """All pages of a JSON API as one file of JSON lines."""

    def address_of(place: Any) -> str:
        return str(httpx.URL(source.data.source).copy_merge_params({str(paging.parameter): place}))

    path, total, number, by_page = staging.path(".jsonl"), 0, paging.first, paging.by == "page"
    address = address_of(number) if by_page else source.data.source
    seen: set[str] = set()
    with path.open("w", encoding="utf-8") as f:
        for _ in range(_MOST_PAGES):
            page = network.get(address, lambda r: _parse_page(source, network, r, paging))
            if page.count and page.digest in seen and by_page:
                raise InputError(
                    f"data.http.paging: {source.where}: gives the same page twice. Is {paging.parameter!r} the right parameter?"
                )
            seen.add(page.digest)
            f.writelines(page.written)
            total += page.count
            number += 1
            if page.count == 0 if by_page else page.following in (None, "", False):
                break
            if by_page:
                address = address_of(number)
                continue
            next_page, cursor = page.following, paging.by == "cursor"
            address = address_of(next_page) if cursor else network.joined(page.address, str(next_page))
            if address in seen:
                raise InputError(f"data.http.paging: {source.where}: leads in a circle. Fix data.http.paging")
            seen.add(address)
    if not total:
        raise InputError(f"data.source: {source.where}: gives no rows. Fix the address, or data.http.records")
    return (staging.part(path, total),)


def _parse_page(
    source: RevealedData, network: SourceClient, response: httpx.Response, paging: PagingSettings | None
) -> _Page:
    """The rows of one JSON (or, in pages, JSON-lines) response, and what leads to the next."""
    kind = _response_ending(source, response)
    if kind not in (".json", ".jsonl"):
        raise InputError(
            f"data.http.paging: {source.where}: responds with {kind}, which has no pages here. Take paging out"
        )
    content = bytearray()
    for piece in network.body(response):
        content += piece
        if len(content) > _LARGEST_JSON_BYTES:
            raise InputError(
                f"data.source: {source.where}: one JSON response is larger than {_LARGEST_JSON_BYTES // 1_000_000} MB. "
                "Request pages (data.http.paging), or for JSON lines, CSV or Parquet"
            )
    try:
        if kind == ".jsonl":
            whole: Any = [json.loads(line) for line in content.splitlines() if line.strip()]
        else:
            whole = json.loads(content)
    except ValueError as e:
        raise InputError(
            f"data.source: {source.where}: responds with broken JSON ({e}). Report it to the owner of the API"
        ) from None
    records = source.data.http.records if source.data.http else None
    found = _value_at_path(whole, records)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        place = f"at {records!r}" if records else "at the top of the response"
        raise InputError(f"data.http.records: {source.where}: there is no list of objects {place}. {_lists(whole)}")
    following = response.links.get("next", {}).get("url")
    if paging is not None and paging.by == "cursor":
        following = _value_at_path(whole, paging.next)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
    return _Page(len(found), hashlib.sha256(content).hexdigest(), following, str(response.url), lines)


def _response_ending(source: RevealedData, response: httpx.Response) -> str:
    """The ending that decides how to read a response: by its content type, else by the address's own."""
    given = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    named = find_table_ending(response.url.path)
    if given == "application/json" or given.endswith("+json"):
        return named if named and named.startswith((".jsonl", ".ndjson")) else ".json"
    kind = _TYPES.get(given) or named
    if kind is None:
        raise InputError(
            f"data.source: {source.where}: responds with {given or 'without a content type'}, which is no table. "
            f"Name an address that gives JSON, JSON lines, CSV, Parquet or a workbook, or ends in {describe_endings()}"
        )
    unpacked = response.headers.get("content-encoding", "identity") != "identity"
    return kind.removesuffix(".gz").removesuffix(".zst") if unpacked else kind


def _value_at_path(content: Any, path: str | None) -> Any:
    for name in path.split(".") if path else []:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _lists(content: Any) -> str:
    """Where in a response a list is, for the message."""
    found: list[str] = []
    todo = [("", content)]
    while todo and len(found) < 5:
        at, value = todo.pop(0)
        if isinstance(value, dict):
            todo += [(f"{at}.{name}".lstrip("."), inner) for name, inner in value.items()]
        elif isinstance(value, list) and at:
            found.append(at)
    return f"Lists are at: {', '.join(found)}" if found else "The response holds no list: fix the address"
