"""Who may use the service: names under which it is asked, pages of other sites, and keys for labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.served_models import OPEN, ROW, SECRET, Client, Site, made_project, serving
from windvane.serving.http import access_control
from windvane.serving.http.access_control import HostNames
from windvane.tasks import project_secrets

pytestmark = pytest.mark.long

LABEL = [{"id": "x", "label": 1}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.register(1)
    made.promote(1)
    return made


@pytest.fixture(scope="module")
def client(site: Site) -> Client:
    return Client(site, site.following(), None)


def status(client: Client, path: str, method: str = "POST", **headers: str) -> int:
    body: Any = {"inputs": [ROW]} if path == "/invocations" else LABEL
    more = {} if method == "GET" else {"json": body}
    return client.ask(
        method, path, headers={name.replace("_", "-"): v for name, v in headers.items()}, **more
    ).status_code


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:1", True),
        ("LocalHost", True),
        ("localhost.", True),
        ("[::1]:8000", True),
        ("[0:0:0:0:0:0:0:1]", True),
        ("scores.example.org", True),
        ("Scores.Example.org:443", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example/127.0.0.1", False),
        ("localhost:8000, evil.example", False),
        ("scores.example.org.evil.example", False),
        ("xscores.example.org", False),
        ("0.0.0.0", False),
        ("10.0.0.7", False),
        ("127.0.0.2", False),
        ("[::1", False),
        ("::1", False),
        ("localhost:x", False),
        ("", False),
        (" ", False),
    ],
)
def test_only_the_services_own_names_are_known(host: str, known: bool) -> None:
    assert HostNames("127.0.0.1", ["scores.example.org"]).known(host.encode("latin-1"), "127.0.0.1") is known


def test_a_service_on_every_address_is_known_by_that_at_which_it_was_reached() -> None:
    for wildcard, arrived, host in (
        ("0.0.0.0", "10.0.0.7", "10.0.0.7:8000"),
        ("::", "::ffff:10.0.0.7", "10.0.0.7"),
        ("::", "fd00::7", "[FD00:0::7]:8000"),
    ):
        names = HostNames(wildcard)
        assert names.known(host.encode(), arrived)
        assert not names.known(host.encode(), "10.0.0.8")
        assert not names.known(b"evil.example", arrived)
        assert not names.known(wildcard.encode(), arrived)
    assert HostNames("10.0.0.7").known(b"10.0.0.7:8000", "10.0.0.7")


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://scores.example.org", "127.0.0.1:8000", True),
        ("https://SCORES.example.org:8443", "127.0.0.1:8000", True),
        ("http://127.0.0.1:3000", "127.0.0.1:8000", False),
        ("http://localhost:8000", "127.0.0.1:8000", False),
        ("https://evil.example", "127.0.0.1:8000", False),
        ("https://scores.example.org.evil.example", "127.0.0.1:8000", False),
        ("null", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False),
        ("file://", "127.0.0.1:8000", False),
        ("file://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://[::1", "[::1]:8000", False),
    ],
)
def test_only_the_services_own_pages_may_ask(origin: str, host: str, own: bool) -> None:
    assert HostNames("127.0.0.1", ["scores.example.org"]).own_page(origin.encode(), host.encode()) is own


@pytest.mark.parametrize("path", ["/invocations", "/labels"])
def test_strangers_names_and_pages_are_refused(client: Client, path: str) -> None:
    key = OPEN["authorization"]
    assert status(client, path, authorization=key) == 200
    assert status(client, path, authorization=key, origin="http://service") == 200
    assert status(client, path, authorization=key, host="evil.example") == 403
    assert status(client, path, authorization=key, origin="https://evil.example") == 403
    assert status(client, path, authorization=key, origin="null") == 403
    assert status(client, path, "OPTIONS", origin="https://evil.example") == 403


def test_every_path_but_the_probes_knows_the_services_names_only(client: Client) -> None:
    for path in ("/", "/docs", "/model", "/metrics", "/openapi.json", "/version", "/nothing"):
        assert status(client, path, "GET", host="evil.example") == 403, path
        assert status(client, path, "GET") != 403, path
    for path in ("/ping", "/health"):
        assert status(client, path, "GET", host="evil.example") == 200


def test_two_host_headers_are_refused(client: Client) -> None:
    headers = [("host", "evil.example"), ("host", "service")]
    assert client.ask("GET", "/model", headers=headers).status_code == 400


def test_labels_always_need_the_projects_secret_or_a_key_for_labels(client: Client, site: Site) -> None:
    hashes = {word: hashlib.sha256(word.encode()).hexdigest() for word in ("s", "l")}
    keyed = Client(
        site, site.following(), None, access_control.parse_api_keys(f"score:{hashes['s']},label:{hashes['l']}", SECRET)
    )
    for who, key, expected in (
        (client, None, 401),
        (client, "wrong", 401),
        (client, SECRET, 200),
        (keyed, None, 401),
        (keyed, "s", 403),
        (keyed, "l", 200),
        (keyed, SECRET, 200),
    ):
        for header in ("authorization", "x_api_key"):
            given = {} if key is None else {header: f"Bearer {key}" if header == "authorization" else key}
            assert status(who, "/labels", **given) == expected, (key, header)
    assert status(client, "/invocations") == 200
    assert status(keyed, "/invocations") == 401
    assert status(keyed, "/invocations", x_api_key=SECRET) == 200


def test_labels_come_as_json_or_csv_only(client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", None):
        headers = OPEN | ({} if kind is None else {"content-type": kind})
        assert client.ask("POST", "/labels", content=b'[{"id": "x", "label": 1}]', headers=headers).status_code == 415
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        headers = OPEN | {"content-type": kind}
        assert client.ask("POST", "/labels", content=b'[{"id": "x", "label": 1}]', headers=headers).status_code == 200


def test_the_document_says_that_labels_need_a_key(client: Client) -> None:
    told = client.ask("GET", "/openapi.json").json()
    assert told["paths"]["/labels"]["post"]["security"] == [{"key": []}, {"header": []}]
    assert {"401", "403", "415"} <= told["paths"]["/labels"]["post"]["responses"].keys()


@pytest.mark.slow
def test_a_running_service_knows_its_names_and_the_projects_secret(tmp_path: Path) -> None:
    folder = made_project(tmp_path)
    with serving(folder) as (_, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        forged = {"content-type": "text/plain", "origin": "https://evil.example"}
        assert http.post("/labels", content=b'[{"id": "x", "label": 1}]', headers=forged).status_code == 403
        assert http.post("/labels", json=LABEL).status_code == 401
        key = project_secrets.read_project_secret(folder.path / ".windvane")
        assert http.post("/labels", json=LABEL, headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert http.post("/invocations", json={"inputs": [ROW]}).status_code == 200
        assert http.post("/invocations", json={"inputs": [ROW]}, headers={"host": "evil.example"}).status_code == 403
        assert http.get("/model", headers={"host": f"localhost:{port}"}).status_code == 200
        assert http.get("/ping", headers={"host": "evil.example"}).status_code == 200
        assert key not in (tmp_path / "serve.log").read_text()
