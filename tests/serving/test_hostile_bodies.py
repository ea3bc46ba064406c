"""Some seven hundred bodies that nobody should send, to a real service: no 5xx, no traceback, nothing unescaped, and it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.served_models import PROJECT, ROW, Site, made_project, serving
from windvane.tasks import project_secrets

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script>"
DEEP = 50_000
# JSON texts of values, right and wrong: each stands once in each column, in each format.
VALUES = [
    *("null", "true", "false", "0", "-0", "-0.0", "1", "1.5", "1e400", "-1e400", "1e-400", "1e308", "3.5e38", "0x10", "01", "+1", ".5"),
    *("NaN", "-NaN", "nan", "Infinity", "-Infinity", "undefined", "1" * 400, "1" * 5_000, "0." + "3" * 5_000),
    *('""', '" "', '"1"', '"1e400"', '"NaN"', '"null"', '"true"', '"TRUE "', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"'),
    *('"日本"', '"e\\u0301"', '"\\u202e"', '"\ufeff"', '"\x7f"', json.dumps(EVIL), json.dumps("'; DROP TABLE predictions; --")),
    *('"2020-13-01"', '"2020-02-30"', '"0000-00-00"', '"9999-12-31T23:59:59-23:59"', '"2020-05-01T00:00:00+99:99"', '"now"'),
    *("[]", "[1]", "[[]]", "{}", '{"a": 1}', '{"$type": "os.system"}', "[null]", json.dumps("x" * 100_000), "{'a': 1}", "//"),
]  # fmt: skip
ENVELOPES = [
    *(b"", b" ", b"\0", b"\xff\xfe\x00", b"null", b"true", b"7", b'"x"', b"[]", b"{}", b"{", b"}", b"[", b"\xef\xbb\xbf{}"),
    *(b'{"inputs": null}', b'{"inputs": []}', b'{"inputs": [[]]}', b'{"inputs": {"size": []}}', b'{"instances": "x"}'),
    *(b'{"inputs": [], "instances": []}', b'{"dataframe_split": {"columns": [], "data": []}}', b'{"dataframe_records": {}}'),
    *(b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP, b'{"inputs": ' + b"[" * DEEP + b"NaN" + b"]" * DEEP + b"}"),
    *(b'{"inputs": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", b'{"params": {}, "signature_name": 3}', b"<xml/>", b"a=1&b=2"),
    *(b'{"\\u0000": 1}', b'{"' + EVIL.encode() + b'": 1}', b'{"inputs": [{"' + EVIL.encode() + b'": 1}]}'),
    b'{"dataframe_split": {"columns": ["size", "size", "size", "size"], "data": [[1, 2, 3, 4]]}}',
    b'{"dataframe_split": {"columns": ["size"], "data": [[1], [1, 2], []]}}',
    b'{"inputs": [' + b"{}," * 20_000 + b"{}]}",
]  # fmt: skip


def bodies() -> Iterator[bytes]:
    yield from ENVELOPES
    for value in VALUES:
        for name in ROW:
            row = {**{key: json.dumps(given) for key, given in ROW.items()}, name: value}
            record = "{" + ", ".join(f'"{key}": {text}' for key, text in row.items()) + "}"
            columns = json.dumps(list(row))
            for body in (
                f'{{"dataframe_records": [{record}]}}',
                f'{{"dataframe_split": {{"columns": {columns}, "data": [[{", ".join(row.values())}]]}}}}',
                "{" + '"inputs": {' + ", ".join(f'"{key}": [{text}]' for key, text in row.items()) + "}}",
            ):
                yield body.encode("utf-8", "surrogatepass")


def megabytes(number: int) -> Iterator[bytes]:
    for _ in range(number):
        yield b" " * 1024 * 1024


def test_no_body_breaks_the_service(tmp_path: Path) -> None:
    folder, sent, answered = made_project(tmp_path), 0, 0
    key = project_secrets.read_project_secret(folder.path / ".windvane")
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    with serving(folder) as (process, port), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        for body in bodies():
            for path in ("/invocations", "/labels")[: 1 + (body in ENVELOPES)]:
                response = http.post(path, content=body, headers=headers)
                sent += 1
                assert response.status_code < 500, body[:200]
                assert "Traceback" not in response.text
                assert "<script" not in response.text
                answered += path == "/invocations" and response.status_code == 200
        # 100 MB, announced and not: refused before they are read, which the sender may see as a connection that ends.
        for more in ({"content-length": str(100 * 1024 * 1024)}, {}):
            try:
                large = http.post("/invocations", content=megabytes(100), headers={**headers, **more}).status_code
            except httpx.TransportError:
                large = 413
            assert large == 413
        assert sent > 500
        assert http.post("/invocations", json={"inputs": [ROW]}).status_code == 200
        assert process.poll() is None
    log = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
    with Site(folder.path / ".windvane").ledger.connect() as db:
        kept = db.exec_driver_sql("SELECT count(*) FROM predictions WHERE project = ?", (PROJECT,)).scalar()
    assert kept == answered + 1
