"""The scoring service from request to answer, in one process: its protocol, its refusals, its ledger and its keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from tests.support.served_models import OPEN, PROJECT, ROW, Client, Site, houses, writer
from windvane.ledger.labels import PredictionQuery, read_labelled_predictions
from windvane.ledger.prediction_writer import LedgerFull
from windvane.ledger.predictions import Prediction
from windvane.serving.http import access_control
from windvane.serving.http.request_rows import MAX_REQUEST_ROWS, IdTimeColumns
from windvane.tasks.errors import InputError

pytestmark = pytest.mark.long

ROWS = json.loads(houses(40).drop(columns=["price", "dear"]).to_json(orient="records", date_format="iso"))
COMPLETE = {**ROW, "size": 90}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.register(1)
    made.promote(1)
    return made


@pytest.fixture(scope="module")
def client(site: Site) -> Client:
    return Client(site, site.following(), None)


def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def columnar(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_every_form_of_the_protocol_gets_what_the_pipeline_says(client: Client, site: Site) -> None:
    expected = site.says(1, ROWS)
    bodies: list[dict[str, Any]] = [
        {"dataframe_split": split(ROWS)},
        {"dataframe_split": {**split(ROWS), "index": list(range(40))}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"inputs": ROWS},
        {"inputs": columnar(ROWS)},
        {"instances": columnar(ROWS), "params": {}},
    ]
    for body in bodies:
        said = client.ask("POST", "/invocations", json=body).json()
        assert said["predictions"] == pytest.approx(expected, rel=1e-9)
        assert said["model_version"] == 1
        assert len(set(said["ids"])) == 40
    text = pd.DataFrame(ROWS).to_csv(index=False)
    said = client.ask("POST", "/invocations", content=text, headers={"content-type": "text/csv"}).json()
    assert said["predictions"] == pytest.approx(expected, rel=1e-9)
    alone = [client.predict([row])["predictions"][0] for row in ROWS[:10]]
    assert alone == pytest.approx(expected[:10], rel=1e-9)


def test_missing_values_as_python_clients_write_them(client: Client) -> None:
    text = json.dumps({"dataframe_records": [{**ROW, "garden": float("nan"), "day": None}]})
    assert "NaN" in text
    headers = {"content-type": "application/json"}
    said = client.ask("POST", "/invocations", content=text, headers=headers)
    assert said.json()["predictions"] == client.predict([{**ROW, "garden": None, "day": None}])["predictions"]


def test_classes_come_with_their_probabilities(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.register(1, kind="classification", candidate="linear")
    site.promote(1)
    said = Client(site, site.following(), None).predict(ROWS)
    assert said["predictions"] == site.says(1, ROWS)
    assert said["classes"] == ["no", "yes"]
    for called, shares in zip(said["predictions"], said["probabilities"], strict=True):
        assert sum(shares) == pytest.approx(1)
        assert called == said["classes"][shares.index(max(shares))]


def test_answers_come_with_their_reasons(client: Client, tmp_path: Path) -> None:
    said = client.ask("POST", "/invocations?explain=2&other=1", json={"dataframe_records": ROWS}).json()
    told = said["explanations"]
    assert (told["scale"], told["exact"], len(told["rows"])) == ("prediction", True, 40)
    for predicted, row in zip(said["predictions"], told["rows"], strict=True):
        sizes = [abs(one["effect"]) for one in row["effects"]]
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) == 2
        assert row["base"] + sum(one["effect"] for one in row["effects"]) + row["rest"] == pytest.approx(predicted)
    assert "explanations" not in client.predict(ROWS)
    site = Site(tmp_path)
    site.register(1, kind="classification", candidate="forest")
    site.promote(1)
    asked = {"dataframe_records": ROWS}
    said = Client(site, site.following(), None).ask("POST", "/invocations?explain=9", json=asked).json()
    for called, shares, row in zip(
        said["predictions"], said["probabilities"], said["explanations"]["rows"], strict=True
    ):
        whole = row["base"] + sum(one["effect"] for one in row["effects"]) + row["rest"]
        assert whole == pytest.approx(shares[said["classes"].index(called)])


@pytest.mark.parametrize("wrong", ["-1", "x", "1.5", "", "9" * 30, "%00"])
def test_reasons_are_counted(client: Client, wrong: str) -> None:
    refused = client.ask("POST", f"/invocations?explain={wrong}", json={"dataframe_records": ROWS})
    assert refused.status_code == 400
    assert "such as ?explain=5" in refused.json()["message"]


def test_answers_come_with_what_may_be_true(client: Client, tmp_path: Path) -> None:
    said = client.ask("POST", "/invocations?interval=0.9&explain=1", json={"dataframe_records": ROWS}).json()
    assert said["intervals"]["level"] == 0.9
    for predicted, (low, high) in zip(said["predictions"], said["intervals"]["bounds"], strict=True):
        assert low < predicted < high
    assert len(said["explanations"]["rows"]) == 40
    narrow = client.ask("POST", "/invocations?interval=.5", json={"dataframe_records": ROWS}).json()
    assert narrow["intervals"]["bounds"][0][0] > said["intervals"]["bounds"][0][0]
    site = Site(tmp_path)
    site.register(1, kind="classification", candidate="linear")
    site.promote(1)
    asked = {"dataframe_records": ROWS}
    said = Client(site, site.following(), None).ask("POST", "/invocations?interval=0.99", json=asked).json()
    for called, names in zip(said["predictions"], said["intervals"]["sets"], strict=True):
        assert names[0] == called
        assert set(names) <= {"yes", "no"}


@pytest.mark.parametrize("wrong", ["0", "1", "90", "-0.5", "x", "", "nan", "1.0", "1_0"])
def test_a_level_lies_between_0_and_1(client: Client, wrong: str) -> None:
    refused = client.ask("POST", f"/invocations?interval={wrong}", json={"dataframe_records": ROWS})
    assert refused.status_code == 400
    assert "such as ?interval=0.9" in refused.json()["message"]


def test_what_few_rows_cannot_promise_is_refused(client: Client) -> None:
    refused = client.ask("POST", "/invocations?interval=0.9999", json={"dataframe_records": ROWS})
    assert refused.status_code == 400
    assert (
        "the scores of 300 held-out rows can promise at most 0.996. Choose a lower level" in refused.json()["message"]
    )


def test_reasons_for_many_rows_are_left_to_score(client: Client) -> None:
    refused = client.ask("POST", "/invocations?explain=1", json={"dataframe_records": ROWS[:1] * 101})
    assert refused.status_code == 413
    assert "`windvane score --explain`" in refused.json()["message"]


def records(*rows: Any) -> bytes:
    return json.dumps({"dataframe_records": list(rows)}).encode()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key != name}


EVIL = "<script>alert(1)</script>"
# A body, and what the message must name.
BAD: list[tuple[bytes, str]] = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b"\xff\xfe", "JSON"),
    (b"null", "dataframe_split"),
    (b"[]", "dataframe_split"),
    (b"7", "dataframe_split"),
    (b'"x"', "dataframe_split"),
    (b"{}", "dataframe_split"),
    (b'{"dataframe_records": [], "inputs": []}', "one of"),
    (b'{"dataframe_records": []}', "no row"),
    (b'{"dataframe_records": {}}', "dataframe_records"),
    (b'{"dataframe_records": [[]]}', "dataframe_records"),
    (b'{"dataframe_records": [null]}', "dataframe_records"),
    (b'{"instances": [[1, true, "Ulm", null]]}', "instances"),
    (b'{"inputs": 1}', "inputs"),
    (b'{"inputs": {}}', "inputs"),
    (b'{"inputs": {"size": 1}}', "inputs"),
    (b'{"inputs": {"size": [1, 2], "town": ["Ulm"]}}', "inputs"),
    (b'{"dataframe_split": []}', "dataframe_split"),
    (b'{"dataframe_split": {"columns": ["size"]}}', "dataframe_split"),
    (b'{"dataframe_split": {"columns": ["size", "size"], "data": []}}', "twice"),
    (b'{"dataframe_split": {"columns": [1], "data": []}}', "text"),
    (b'{"dataframe_split": {"columns": ["size"], "data": [[1, 2]]}}', "row 1"),
    (b'{"dataframe_split": {"columns": ["size"], "data": [1]}}', "row 1"),
    (b'{"dataframe_split": {"columns": ["size"], "data": [[1]], "x": 1}}', "protocol"),
    (records({**ROW, "price": 1}), "price"),
    (records({**ROW, EVIL: 1}), EVIL),
    (records(without("size")), "size"),
    (records(without("day")), "day"),
    (records(ROW, without("town")), "row 2"),
    (records({}), "size"),
    (records({**ROW, "size": None}), "never saw it missing"),
    (records({**ROW, "size": "100"}), "size"),
    (records({**ROW, "size": EVIL}), "size"),
    (records({**ROW, "size": True}), "size"),
    (records({**ROW, "size": [1]}), "size"),
    (records({**ROW, "size": {"a": 1}}), "size"),
    (records({**ROW, "size": 1e300}), "size"),
    (records({**ROW, "size": 10**400}), "JSON"),
    (records({**ROW, "size": float("nan")}), "never saw it missing"),
    (records({**ROW, "size": float("inf")}), "JSON"),
    (records({**ROW, "size": float("-inf"), "garden": float("nan")}), "JSON"),
    (records(ROW).replace(b"100.0", b"1e400"), "JSON"),
    (records(ROW).replace(b"100.0", b"0x10"), "JSON"),
    (records(ROW).replace(b"100.0", b"1" * 5000), "JSON"),
    (records({**ROW, "garden": "perhaps"}), "garden"),
    (records({**ROW, "garden": 2}), "garden"),
    (records({**ROW, "garden": []}), "garden"),
    (records({**ROW, "town": ["Ulm"]}), "town"),
    (records({**ROW, "town": {"a": EVIL}}), "town"),
    (records({**ROW, "town": True}), "town"),
    (records({**ROW, "day": 5}), "day"),
    (records({**ROW, "day": "yesterday"}), "day"),
    (records({**ROW, "day": EVIL}), "day"),
    (records({**ROW, "day": "2020-13-01"}), "day"),
    (records({**ROW, "day": "9999-12-31T23:59:59-23:59"}), "day"),
    (records({**ROW, "day": []}), "day"),
    (records(ROW).replace(b'"Ulm"', b'"\\ud800"'), "JSON"),
    (b"[" * 100_000 + b"]" * 100_000, "JSON"),
    (b'{"dataframe_records": ' + b"[" * 100_000 + b"NaN" + b"]" * 100_000 + b"}", "JSON"),
    (b'{"dataframe_records": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", "dataframe_records"),
    (b'{"dataframe_records": [{"size": ' + b"[" * 900 + b"]" * 900 + b"}]}", "garden"),
    (records(ROW)[:-1], "JSON"),
    (records(ROW) + b"x", "JSON"),
    (b'{"dataframe_records": [NaN]}', "dataframe_records"),
    (b'{"' + EVIL.encode() + b'": 1, "inputs": []}', EVIL),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_bad_body_is_refused_by_name_and_without_what_it_held(client: Client, case: int) -> None:
    body, named = BAD[case]
    response = client.ask("POST", "/invocations", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    said = response.json()
    assert named in said["message"]
    assert said["error_code"] == "BAD_REQUEST"
    assert "<script" not in response.text
    assert "Traceback" not in response.text
    assert len(said["message"]) < 1_500


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "no row"),
        (b"size,size\n1,1\n", "twice"),
        (b"size,garden,town,day\n1,true\n", "row 1"),
        (b"size,garden,town,day\n", "no row"),
        (b"size,garden,town,day\nmany,true,Ulm,2020-01-01\n", "size"),
        (b"size,garden,town,day\n,true,Ulm,2020-01-01\n", "never saw it missing"),
        (b'size,garden,town,day\n1,true,"Ulm,2020-01-01\n', "CSV"),
        (b"size,garden,town,day,price\n1,true,Ulm,2020-01-01,3\n", "price"),
        (b"\xff\xff", "UTF-8"),
        (b"size,garden,town,day\n1,true,U\x00lm,today\n", "day"),
    ],
)
def test_a_bad_csv_is_refused_by_name(client: Client, text: bytes, named: str) -> None:
    response = client.ask("POST", "/invocations", content=text, headers={"content-type": "text/csv; charset=utf-8"})
    assert response.status_code == 400
    assert named in response.json()["message"]


def test_paths_methods_and_sizes_have_limits(client: Client) -> None:
    json_body = {"content-type": "application/json"}
    assert client.ask("GET", "/" + EVIL).status_code == 404
    wrong = client.ask("GET", "/invocations")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.ask("POST", "/invocations", content=b"x", headers={"content-type": "text/html"}).status_code == 415
    assert client.ask("POST", "/invocations", content=b"x").status_code == 415
    large = client.ask("POST", "/invocations", content=b" " * (17 * 1024 * 1024), headers=json_body)
    assert large.status_code == 413
    many = client.ask("POST", "/invocations", content=records(*[ROW] * (MAX_REQUEST_ROWS + 1)), headers=json_body)
    assert many.status_code == 413
    assert client.ask("HEAD", "/ping").status_code == 200
    assert [client.ask("GET", path).status_code for path in ("/ping", "/health", "/version", "/docs")] == [200] * 4


def test_a_body_that_does_not_come_is_not_waited_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windvane.serving.http.app.BODY_TIMEOUT_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.5)
        yield b"}"

    async def main(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post("/invocations", content=slow(), headers={"content-type": "application/json"})

    assert client.run(main).status_code == 408


def test_before_the_first_champion_it_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    client = Client(site, site.following(), None)
    assert client.ask("GET", "/ping").status_code == 503
    assert "windvane train" in client.ask("POST", "/invocations", json={"inputs": [ROW]}).json()["message"]
    assert client.ask("GET", "/model").json()["version"] is None
    assert client.ask("GET", "/openapi.json").status_code == 200


def test_model_metrics_and_openapi_tell_what_serves(client: Client) -> None:
    model = client.ask("GET", "/model").json()
    assert model["version"] == 1
    assert model["engine"]["form"] == "trees"
    assert {c["name"]: (c["type"], c["missing"]) for c in model["signature"]["inputs"]} == {
        "size": ("number", False),
        "garden": ("boolean", True),
        "town": ("category", True),
        "day": ("date", True),
    }
    client.predict([ROW])
    metrics = client.ask("GET", "/metrics").text
    assert "windvane_version 1.0" in metrics
    assert 'windvane_requests_total{code="200",path="/invocations"}' in metrics
    row = client.ask("GET", "/openapi.json").json()["components"]["schemas"]["row"]
    assert row["properties"]["size"] == {"type": "number"}
    assert "null" in row["properties"]["town"]["type"]


def test_what_is_answered_is_in_the_ledger_with_its_id_time_and_version(site: Site) -> None:
    recorder = writer(site)
    client = Client(site, site.following(), recorder, roles=IdTimeColumns("order", "day"))
    said = client.predict([{**ROW, "order": "a-1"}, {**ROW, "order": 7, "day": None}, {**ROW, "order": None}])
    assert said["ids"][:2] == ["a-1", "7"]
    recorder.close()
    kept = {one.id: one for one in read_labelled_predictions(site.ledger, PROJECT, PredictionQuery(unlabelled=True))}
    assert set(said["ids"]) <= set(kept)
    assert kept["a-1"].time.startswith("2020-05-01T00:00:00")
    assert kept["a-1"].inputs == {**ROW, "order": "a-1"}
    assert kept["a-1"].output == {"prediction": said["predictions"][0]}
    assert (kept["7"].version, kept["7"].role) == (1, "champion")
    labels = [{"id": "a-1", "label": 250.5}, {"id": "unknown", "label": 1, "at": "2026-01-01T00:00:00.000000+00:00"}]
    assert client.ask("POST", "/labels", json=labels, headers=OPEN).json() == {
        "matched": 1,
        "unmatched": 1,
        "duplicates": 0,
        "changed": 0,
        "empty": 0,
    }
    assert next(read_labelled_predictions(site.ledger, PROJECT)).label == 250.5


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'[{"id": "x"}]', b'[{"id": "x", "label": 1, "<b>": 2}]', b"[" * 9999]
)
def test_bad_labels_are_refused(client: Client, body: bytes) -> None:
    response = client.ask("POST", "/labels", content=body, headers={**OPEN, "content-type": "application/json"})
    assert response.status_code == 400
    assert "<b>" not in response.text


def labels_sent(client: Client, body: str, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
    headers = {**OPEN, "content-type": content_type}
    response = client.ask("POST", "/labels", content=body.encode(), headers=headers)
    return response.status_code, response.json()


def test_g2_labels_over_http_are_taken_for_what_they_know(client: Client) -> None:
    status, counts = labels_sent(
        client, '[{"id": "a", "label": 1}, {"id": "b", "label": null}, {"id": "c", "label": ""}]'
    )
    # Another test may have sent it before.
    assert (status, counts["unmatched"] + counts["duplicates"], counts["empty"]) == (200, 1, 2)
    status, refused = labels_sent(client, '[{"id": "it\'s", "label": 1}, {"id": "it\'s", "label": 2}]')
    assert status == 400
    assert "it's" in refused["message"]
    assert "has two labels: 1.0 and 2.0" in refused["message"]
    assert "&#x27;" not in refused["message"]
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    status, refused = labels_sent(client, json.dumps([{"id": "a", "label": 1, "at": soon}]))
    assert status == 400
    assert "in the future" in refused["message"]


def test_g2_n1_the_same_labels_as_csv_and_under_the_tables_names(client: Client) -> None:
    for body in ("id,label\na,1\nb,\n", "order;price;at\na;1;\nb;NaN;\n", "\ufefforder,label\r\na,1.0\r\nb, \r\n"):
        status, counts = labels_sent(client, body, "text/csv; charset=utf-8")
        assert (status, counts["unmatched"] + counts["duplicates"], counts["empty"]) == (200, 1, 1)
    assert labels_sent(client, '[{"order": "a", "price": 1}]')[1]["duplicates"] == 1
    status, refused = labels_sent(client, "order,id,label\na,a,1\n", "text/csv")
    assert status == 400
    assert "both the id" in refused["message"]


def test_what_cannot_be_recorded_is_not_answered(site: Site) -> None:
    class Full:
        async def record(self, given: Sequence[Prediction]) -> None:
            raise LedgerFull("full")

    response = Client(site, site.following(), Full()).ask("POST", "/invocations", json={"inputs": [ROW]})
    assert response.status_code == 503
    assert "predictions" not in response.json()


def test_an_id_or_a_time_that_cannot_be_is_refused(site: Site) -> None:
    client = Client(site, site.following(), None, roles=IdTimeColumns("order", "seen"))
    for column, value in (
        ("order", "x" * 201),
        ("order", "\0"),
        ("order", [1]),
        ("order", True),
        ("seen", EVIL),
        ("seen", {}),
    ):
        row = {**ROW, "order": "a", "seen": 1, column: value}
        response = client.ask("POST", "/invocations", json={"inputs": [row]})
        assert response.status_code == 400, value
        assert column in response.json()["message"]
        assert "<script" not in response.text


def test_keys_open_what_their_scopes_say(site: Site) -> None:
    hashes = {word: hashlib.sha256(word.encode()).hexdigest() for word in ("s", "l", "a")}
    known = access_control.parse_api_keys(f"score:{hashes['s']}, label:{hashes['l']}\nadmin:{hashes['a']}")
    client = Client(site, site.following(), None, known)

    def status(path: str, key: str | None, method: str = "POST") -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        body = {"inputs": [ROW]} if path == "/invocations" else []
        return client.ask(method, path, headers=headers, json=body).status_code

    assert [status("/invocations", key) for key in (None, "wrong", "l", "s", "a")] == [401, 401, 403, 200, 200]
    assert [status("/labels", key) for key in (None, "wrong", "s", "l", "a")] == [401, 401, 403, 200, 200]
    assert [status("/model", key, "GET") for key in (None, "l")] == [401, 200]
    assert status("/ping", None, "GET") == 200
    assert client.ask("GET", "/model", headers={"x-api-key": "s"}).status_code == 200


def test_another_address_than_loopback_needs_keys() -> None:
    none, some = access_control.parse_api_keys(None), access_control.parse_api_keys("score:" + "0" * 64)
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        access_control.require_keys(host, none)
    for host in ("0.0.0.0", "::", "192.168.1.1", "example.org", ""):
        with pytest.raises(InputError, match="WINDVANE_API_KEYS"):
            access_control.require_keys(host, none)
        access_control.require_keys(host, some)
    for text in ("secret", "score:secret", "root:" + "0" * 64, "score:" + "0" * 63):
        with pytest.raises(InputError) as refused:
            access_control.parse_api_keys(text)
        assert "secret" not in str(refused.value)
