"""HTTP(S) sources: what an answer is, its rows, and the next page. Leaves connections and retries to tasks/origins/network.py.

Tables (CSV, Parquet, JSON lines) are kept as they came; the rows inside JSON answers are written as JSON lines.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from windvane.tasks.data_settings import Paging, Revealed
from windvane.tasks.errors import InputError
from windvane.tasks.origins.files import endings, rows, suffix
from windvane.tasks.origins.network import Network
from windvane.tasks.raw import Part, Staging

if TYPE_CHECKING:
    import httpx

_JSON_TYPES = ("application/json",)
_TYPES = {
    "text/csv": ".csv",
    "application/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/x-ndjson": ".jsonl",
    "application/ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/x-jsonlines": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-parquet": ".parquet",
}
# One JSON answer is parsed in memory: larger ones come in pages, or as JSON lines.
_LARGEST_JSON = 64_000_000
_MOST_PAGES = 100_000


@dataclass(frozen=True)
class Answer:
    """What a source gave: its parts and ETag. `parts` is None when it says that nothing has changed."""

    parts: tuple[Part, ...] | None
    etag: str | None


@dataclass
class _Page:
    """One page of a JSON API."""

    count: int
    digest: str
    following: Any
    address: str
    written: list[str] = field(default_factory=list)


def read(source: Revealed, staging: Staging, etag: str | None) -> Answer:
    """All that the source gives now, unless it still has this ETag.

    Raises InputError for an answer that is no table, Outage for a server that does not give one.
    """
    network = Network(source)
    try:
        paging = source.data.http.paging if source.data.http else None
        if paging is not None:
            return Answer(_pages(source, staging, network, paging), None)
        known = {"If-None-Match": etag} if etag else {}
        return network.get(source.data.source, lambda r: _one(source, staging, network, r), known)
    finally:
        network.close()


def answers(source: Revealed) -> None:
    """Ask once, without reading the body, to see that the source answers with a table."""
    network = Network(source)
    try:
        network.get(source.data.source, lambda r: _kind(source, r))
    finally:
        network.close()


def _one(source: Revealed, staging: Staging, network: Network, response: httpx.Response) -> Answer:
    if response.status_code == 304:
        return Answer(None, response.headers.get("etag"))
    kind = _kind(source, response)
    if kind == ".json":
        page = _page(source, network, response, None)
        path = staging.path(".jsonl")
        path.write_text("".join(page.written), encoding="utf-8")
        count: int | None = page.count
    else:
        path = staging.path(kind)
        with path.open("wb") as f:
            f.writelines(network.body(response))
        count = rows(path)
    if count == 0:
        raise InputError(f"data.source: {source.where}: gives no rows. Mend the address, or data.http.records")
    return Answer((staging.part(path, count),), response.headers.get("etag"))


def _pages(source: Revealed, staging: Staging, network: Network, paging: Paging) -> tuple[Part, ...]:
    """All pages of a JSON API as one file of JSON lines."""
    import httpx

    path, total, number = staging.path(".jsonl"), 0, paging.first
    address = _start = source.data.source
    if paging.by == "page":
        address = str(httpx.URL(_start).copy_merge_params({str(paging.parameter): number}))
    seen: set[str] = set()
    with path.open("w", encoding="utf-8") as f:
        for _ in range(_MOST_PAGES):
            page = network.get(address, lambda r: _page(source, network, r, paging))
            if page.count and page.digest in seen and paging.by == "page":
                raise InputError(
                    f"data.http.paging: {source.where}: gives the same page twice. Is {paging.parameter!r} the right parameter?"
                )
            seen.add(page.digest)
            f.writelines(page.written)
            total += page.count
            number += 1
            onward = page.count > 0 if paging.by == "page" else page.following not in (None, "", False)
            if not onward:
                break
            if paging.by == "page":
                address = str(httpx.URL(_start).copy_merge_params({str(paging.parameter): number}))
            elif paging.by == "cursor":
                address = str(httpx.URL(_start).copy_merge_params({str(paging.parameter): page.following}))
            else:
                address = network.joined(page.address, str(page.following))
            if paging.by != "page" and address in seen:
                raise InputError(f"data.http.paging: {source.where}: leads in a circle. Mend data.http.paging")
            seen.add(address)
    if not total:
        raise InputError(f"data.source: {source.where}: gives no rows. Mend the address, or data.http.records")
    return (staging.part(path, total),)


def _page(source: Revealed, network: Network, response: httpx.Response, paging: Paging | None) -> _Page:
    """The rows of one JSON (or, in pages, JSON-lines) answer, and what leads to the next."""
    kind = _kind(source, response)
    if kind not in (".json", ".jsonl"):
        raise InputError(f"data.http.paging: {source.where}: answers {kind}, which has no pages here. Take paging out")
    content = bytearray()
    for piece in network.body(response):
        content += piece
        if len(content) > _LARGEST_JSON:
            raise InputError(
                f"data.source: {source.where}: one JSON answer is larger than {_LARGEST_JSON // 1_000_000} MB. "
                "Ask for pages (data.http.paging), or for JSON lines, CSV or Parquet"
            )
    try:
        if kind == ".jsonl":
            whole: Any = [json.loads(line) for line in content.splitlines() if line.strip()]
        else:
            whole = json.loads(content)
    except ValueError as e:
        raise InputError(f"data.source: {source.where}: answers broken JSON ({e}). Tell those who run it") from None
    found = _at(whole, source.data.http.records if source.data.http else None)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(
            f"data.http.records: {source.where}: there is no list of objects {_place(source)}. {_lists(whole)}"
        )
    following = None
    if paging is not None and paging.by == "cursor":
        following = _at(whole, paging.next)
    elif paging is not None and paging.by == "link":
        following = response.links.get("next", {}).get("url")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
    return _Page(len(found), hashlib.sha256(content).hexdigest(), following, str(response.url), lines)


def _kind(source: Revealed, response: httpx.Response) -> str:
    """The ending that says how to read an answer: by its content type, else by the address's own."""
    given = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    named = suffix(response.url.path)
    if given in _JSON_TYPES or given.endswith("+json"):
        return named if named and named.startswith((".jsonl", ".ndjson")) else ".json"
    kind = _TYPES.get(given) or named
    if kind is None:
        raise InputError(
            f"data.source: {source.where}: answers {given or 'without a content type'}, which is no table. "
            f"Name an address that gives JSON, JSON lines, CSV or Parquet, or ends in {endings()}"
        )
    unpacked = response.headers.get("content-encoding", "identity") != "identity"
    return kind.removesuffix(".gz").removesuffix(".zst") if unpacked else kind


def _at(content: Any, path: str | None) -> Any:
    for name in path.split(".") if path else []:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _place(source: Revealed) -> str:
    path = source.data.http.records if source.data.http else None
    return f"at {path!r}" if path else "at the top of the answer"


def _lists(content: Any, at: str = "") -> str:
    """Where in an answer a list stands, for the message."""
    found: list[str] = []
    todo = [("", content)]
    while todo and len(found) < 5:
        at, value = todo.pop(0)
        if isinstance(value, dict):
            todo += [(f"{at}.{name}".lstrip("."), inner) for name, inner in value.items()]
        elif isinstance(value, list) and at:
            found.append(at)
    return f"Lists stand at: {', '.join(found)}" if found else "The answer holds no list: mend the address"
