"""Addresses as sources, against a real server: formats, paging, retries, ETags, and what must never be asked."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sources import Web, data, send, state, web
from windvane.cli.main import main
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import DataSettings
from windvane.tasks.sources import fetch, http_source, snapshot

pytestmark = pytest.mark.long

ROWS = [{"id": i, "x": i / 2, "town": "Ulm"} for i in range(1, 8)]


def asked(server: Web, path: str = "/", **http: Any) -> DataSettings:
    allowed = {"hosts": ["127.0.0.1"], "private": True, **http}
    return data(source=f"{server.url}{path}", http=allowed, timeout=5)


def lines(root: Path) -> list[dict[str, Any]]:
    record = snapshot.read_snapshot(root)
    assert record is not None
    (part,) = record.parts
    return [json.loads(line) for line in (root / part.path).read_text().splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off without waiting; how long it would wait is tested by itself."""
    monkeypatch.setattr(http_source, "compute_retry_wait", lambda state: 0.0)


# Without a time of packing: workers that collect in two different seconds would not agree on the test's name.
PACKED = gzip.compress(pl.DataFrame(ROWS).write_csv().encode(), mtime=0)


@pytest.mark.parametrize(
    ("path", "kind", "body", "ending"),
    [
        ("/rows", "application/json; charset=utf-8", json.dumps({"result": {"items": ROWS}}).encode(), ".jsonl"),
        ("/rows", "application/x-ndjson", "".join(json.dumps(r) + "\n" for r in ROWS).encode(), ".jsonl"),
        ("/rows", "text/csv", pl.DataFrame(ROWS).write_csv().encode(), ".csv"),
        ("/rows.csv.gz", "application/octet-stream", PACKED, ".csv.gz"),
        ("/rows.parquet", "application/octet-stream", None, ".parquet"),
    ],
)
def test_formats_by_content_type_or_ending(
    tmp_path: Path, path: str, kind: str, body: bytes | None, ending: str
) -> None:
    if body is None:
        pl.DataFrame(ROWS).write_parquet(tmp_path / "made.parquet")
        body = (tmp_path / "made.parquet").read_bytes()
    content = body
    with web(lambda request: send(request, content, kind)) as server:
        records = "result.items" if kind.startswith("application/json") else None
        section = asked(server, path, records=records)
        fetch.probe_source(tmp_path, section)
        assert fetch.fetch_source(tmp_path, section).new == 7
        record = snapshot.read_snapshot(tmp_path)
        assert record is not None
        assert record.parts[0].path.endswith(ending)
        before = state(tmp_path)
        assert not fetch.fetch_source(tmp_path, section).moved
        assert state(tmp_path) == before


def test_an_etag_saves_the_answer(tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("If-None-Match") == '"one"':
            request.send_response(304)
            request.end_headers()
        else:
            send(request, json.dumps(ROWS).encode(), ETag='"one"')

    with web(answer) as server:
        fetch.fetch_source(tmp_path, asked(server))
        assert not fetch.fetch_source(tmp_path, asked(server)).moved
        assert [headers.get("if-none-match") for _, headers in server.requests] == [None, '"one"']


def pages(by: str, url: str = "") -> Any:
    """An API that gives three rows a page."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        given = {k: v[0] for k, v in parse_qs(urlsplit(request.path).query).items()}
        number = int(given.get("at", 1))
        found, more = ROWS[3 * number - 3 : 3 * number], 3 * number < len(ROWS)
        link = {"Link": f'</?at={number + 1}>; rel="next"'} if by == "link" and more else {}
        send(request, json.dumps({"rows": found, "meta": {"next": number + 1 if more else None}}).encode(), **link)

    return answer


@pytest.mark.parametrize(
    "paging",
    [{"by": "page", "parameter": "at"}, {"by": "cursor", "parameter": "at", "next": "meta.next"}, {"by": "link"}],
)
def test_paging(tmp_path: Path, paging: dict[str, Any]) -> None:
    with web(pages(str(paging["by"]))) as server:
        section = asked(server, records="rows", paging=paging)
        assert fetch.fetch_source(tmp_path, section).new == 7
        assert lines(tmp_path) == ROWS
        assert not fetch.fetch_source(tmp_path, section).moved


def test_a_page_that_never_ends_is_noticed(tmp_path: Path) -> None:
    with (
        web(lambda request: send(request, json.dumps(ROWS).encode())) as server,
        pytest.raises(InputError, match="same page twice"),
    ):
        fetch.fetch_source(tmp_path, asked(server, paging={"by": "page", "parameter": "p"}))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(tmp_path: Path, status: int) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if len(server.requests) < 3:
            send(request, b"", status=status, Retry_After="0")
        else:
            send(request, json.dumps(ROWS).encode())

    with web(answer) as server:
        assert fetch.fetch_source(tmp_path, asked(server)).new == 7
        assert len(server.requests) == 3


def test_what_does_not_pass_is_an_outage_or_an_error(tmp_path: Path) -> None:
    with web(lambda request: send(request, b"", status=503)) as server:
        with pytest.raises(Outage, match=r"503 .* after 5 attempts"):
            fetch.fetch_source(tmp_path, asked(server))
        assert len(server.requests) == http_source.HTTP_ATTEMPTS
    with web(lambda request: send(request, b"", status=404)) as server:
        with pytest.raises(InputError, match=r"responds with 404"):
            fetch.fetch_source(tmp_path, asked(server))
        assert len(server.requests) == 1
    assert state(tmp_path) == {}


def test_a_connection_that_is_cut_leaves_the_snapshot_and_the_next_fetch_works(tmp_path: Path) -> None:
    cut = False

    def answer(request: BaseHTTPRequestHandler) -> None:
        if cut:
            request.send_response(200)
            request.send_header("Content-Type", "text/csv")
            request.send_header("Content-Length", "1000000")
            request.end_headers()
            request.wfile.write(b"x,y\n1,2\n" * 1000)
            request.connection.close()
        else:
            send(request, b"x,y\n1,2\n3,4\n" + b"5,6\n" * len(server.requests), "text/csv")

    with web(answer) as server:
        fetch.fetch_source(tmp_path, asked(server))
        before, cut = state(tmp_path), True
        with pytest.raises(Outage, match="breaks off"):
            fetch.fetch_source(tmp_path, asked(server))
        assert state(tmp_path) == before
        assert len(server.requests) == 1 + http_source.HTTP_ATTEMPTS
        cut = False
        assert fetch.fetch_source(tmp_path, asked(server)).moved
    with pytest.raises(Outage, match="does not respond"):
        fetch.fetch_source(tmp_path, asked(server))


def test_more_than_is_allowed_is_refused_as_it_comes(tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/csv")
        request.end_headers()
        for _ in range(64):
            request.wfile.write(b"1,2\n" * 65536)

    with web(answer) as server, pytest.raises(InputError, match=r"data\.http\.megabytes.*more than 1 MB"):
        fetch.fetch_source(tmp_path, asked(server, megabytes=1))
    assert state(tmp_path) == {}


def test_a_host_must_be_allowed_and_a_private_address_meant(tmp_path: Path) -> None:
    with web(lambda request: send(request, b"[]")) as server:
        with pytest.raises(InputError, match=r"data\.http\.hosts: '127\.0\.0\.1'.*hosts: \[127"):
            data(source=server.url)
        closed = data(source=server.url, http={"hosts": ["127.0.0.1"]})
        with pytest.raises(InputError, match=r"leads to 127\.0\.0\.1, a private address.*private: true"):
            fetch.fetch_source(tmp_path, closed)
        named = data(source=f"http://localhost:{server.port}/", http={"hosts": ["localhost"]})
        with pytest.raises(InputError, match="private address"):
            fetch.fetch_source(tmp_path, named)
        assert server.requests == []


TABLE = "x,y\n" + "".join(f"{i % 7},{i}\n" for i in range(200))


def initialise(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """`windvane init` of a table at a private address, in an empty folder."""
    monkeypatch.chdir(folder)
    with web(lambda request: send(request, TABLE.encode(), "text/csv")) as server:
        return CliRunner().invoke(main, ["init", f"{server.url}/t.csv", "--target", "y", *options])


def test_d8_a_private_address_is_refused_in_words_that_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = initialise(tmp_path, monkeypatch)
    assert ran.exit_code == 2
    assert "add --private to `windvane init`" in ran.stderr
    assert not (tmp_path / "params.yaml").exists()


def test_d8_n1_init_private_reads_it_and_writes_it_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert initialise(tmp_path, monkeypatch, "--private").exit_code == 0
    settings = project_params.load_settings(tmp_path / "params.yaml")
    assert settings.data.http is not None
    assert (settings.data.http.hosts, settings.data.http.private) == (("127.0.0.1",), True)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.2", "::1", "fd00::1"])
def test_d8_n2_every_private_address_has_the_same_words(address: str) -> None:
    assert "--private" in str(http_source.explain_refused_address(address, False))
    assert http_source.explain_refused_address(address, True) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "224.0.0.1"])
def test_d8_n3_no_option_opens_what_is_never_requested(address: str) -> None:
    reason = str(http_source.explain_refused_address(address, True))
    assert "--private" not in reason
    assert "Name another host" in reason


@pytest.mark.parametrize(
    "location", ["http://localhost:{port}/", "http://169.254.169.254/latest", "http://127.0.0.1:9/"]
)
def test_a_redirect_to_another_place_is_not_followed(tmp_path: Path, location: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, b"", status=302, Location=location.format(port=server.port))

    with web(answer) as server:
        with pytest.raises(InputError, match="sends us on to another place"):
            fetch.fetch_source(tmp_path, asked(server))
        assert len(server.requests) == 1


def test_a_redirect_on_the_same_host_is_followed_and_a_circle_ends(tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/":
            send(request, b"", status=301, Location="/rows")
        else:
            send(request, json.dumps(ROWS).encode())

    with web(answer) as server:
        assert fetch.fetch_source(tmp_path, asked(server)).new == 7
    circle = web(lambda request: send(request, b"", status=302, Location="/"))
    with circle as server, pytest.raises(InputError, match="redirects more than"):
        fetch.fetch_source(tmp_path, asked(server))


@pytest.mark.parametrize(
    ("address", "private", "asked"),
    [
        ("93.184.216.34", False, True),
        ("10.0.0.1", False, False),
        ("10.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("2002:7f00:1::", False, False),
        ("100.64.0.1", False, False),
        ("fc00::1", False, False),
        ("169.254.169.254", True, False),
        ("::ffff:169.254.169.254", True, False),
        ("fe80::1%eth0", True, False),
        ("fd00:ec2::254", True, False),
        ("100.100.100.200", True, False),
        ("0.0.0.0", True, False),
        ("224.0.0.1", True, False),
    ],
)
def test_which_addresses_are_asked(address: str, private: bool, asked: bool) -> None:
    assert (http_source.explain_refused_address(address, private) is None) == asked


@pytest.mark.parametrize(
    ("body", "records", "said"),
    [
        (b'{"rows": [{"x": 1}]}', None, "Lists are at: rows"),
        (b'{"rows": [{"x": 1}]}', "row", "at 'row'"),
        (b"[1, 2]", None, "no list of objects"),
        (b"[", None, "broken JSON"),
        (b"[]", None, "gives no rows"),
    ],
)
def test_an_answer_that_is_no_table_is_refused(tmp_path: Path, body: bytes, records: str | None, said: str) -> None:
    with web(lambda request: send(request, body)) as server, pytest.raises(InputError, match=said):
        fetch.fetch_source(tmp_path, asked(server, records=records))
    assert state(tmp_path) == {}


@given(st.integers(0, 10**6))
def test_retry_after_is_a_number_or_a_date(wait: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert http_source.parse_retry_after(str(wait), now) == wait
    date = datetime.fromtimestamp(now.timestamp() + wait, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert http_source.parse_retry_after(date, now) == wait
    assert http_source.parse_retry_after("soon", now) is None


def test_headers_are_sent_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    with web(lambda request: send(request, json.dumps(ROWS).encode())) as server:
        section = asked(server, "/?page_size=3&access_token=${TOKEN}", headers={"Authorization": "Bearer ${TOKEN}"})
        fetch.fetch_source(tmp_path, section)
        path, headers = server.requests[0]
        assert headers["authorization"] == "Bearer hunter2hunter2"
        assert "hunter2hunter2" in path
        server.answer = lambda request: send(request, b"", status=404)
        with pytest.raises(InputError) as caught:
            fetch.fetch_source(tmp_path, section)
    assert "hunter2" not in f"{caught.value} {section!r} {section.model_dump()}"
    assert b"hunter2" not in b"".join(state(tmp_path).values())
    with pytest.raises(Outage) as cut:
        fetch.fetch_source(tmp_path, section)
    assert "hunter2" not in str(cut.value)
    assert "127.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text
