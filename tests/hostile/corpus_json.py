"""JSON lines that are wrong in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.hostile.case import Case, houses, typed


def objects(change: Callable[[int, dict[str, Any]], object] = lambda i, row: None) -> bytes:
    """The clean table as JSON lines; `change` edits a row, or gives the line instead (as text)."""
    cells = typed(houses())
    cells["day"] = list(houses()["day"])
    out = []
    for i, values in enumerate(zip(*cells.values(), strict=True)):
        row = dict(zip(cells, values, strict=True))
        said = change(i, row)
        out.append(said if isinstance(said, str) else json.dumps(row))
    return ("\n".join(out) + "\n").encode()


def line(row: int, text: str) -> bytes:
    """Another text in one line (row + 1)."""
    return objects(lambda i, _: text if i == row else None)


def value(name: str, text: str, row: int = 50) -> bytes:
    """The text of one value, as it stands, in line row + 1."""
    return objects(lambda i, old: json.dumps({**old, name: "@@"}).replace('"@@"', text) if i == row else None)


def everywhere(name: str, make: Callable[[int], Any]) -> bytes:
    return objects(lambda i, row: row.update({name: make(i)}))


LINES = (
    Case(
        "a JSON array",
        json.dumps([json.loads(line) for line in objects().splitlines()]).encode(),
        "pass",
        (),
        "as many programs export a table",
        file="t.json",
    ),
    Case(
        "JSON on many lines",
        json.dumps([json.loads(line) for line in objects().splitlines()], indent=1).encode(),
        "pass",
        (),
        "as above",
        file="t.json",
    ),
    Case(
        "a JSON array of columns",
        json.dumps([[1, 2], [3, 4]] * 50).encode(),
        "stop",
        ("line 1", "no object", "list of objects"),
        "nothing names its columns",
        file="t.json",
    ),
    Case(
        "a JSON array that was cut",
        json.dumps([json.loads(line) for line in objects().splitlines()], indent=1).encode()[:-40],
        "stop",
        ("line", "broken JSON", "Export it again"),
        "a download that broke off",
        file="t.json",
    ),
    Case(
        "one JSON object of columns on many lines",
        json.dumps({"price": {"0": 1}, "size": {"0": 2}}, indent=1).encode(),
        "stop",
        ("line 1",),
        "pandas' to_json() without orient",
        file="t.json",
    ),
    Case("a JSON number a line", line(50, "17"), "stop", ("line 51", "JSON object"), "no row"),
    Case("a JSON null a line", line(50, "null"), "stop", ("line 51", "JSON object"), "no row"),
    Case(
        "a trailing comma in JSON",
        line(50, '{"price": 1, "size": 2,}'),
        "stop",
        ("line 51", "broken JSON"),
        "JavaScript",
    ),
    Case(
        "a comma after a JSON row",
        line(50, '{"price": 1, "size": 2},'),
        "stop",
        ("line 51", "broken JSON"),
        "cut from an array",
    ),
    Case("single quotes in JSON", line(50, "{'price': 1}"), "stop", ("line 51", "broken JSON"), "Python's repr"),
    Case("a cut JSON line", objects()[:-30], "stop", ("line 200", "broken JSON"), "a copy that broke off"),
    Case(
        "two JSON rows on a line",
        line(50, '{"price": 1}{"price": 2}'),
        "stop",
        ("line 51", "broken JSON"),
        "a lost line end",
    ),
    Case(
        "a key twice in JSON",
        line(50, '{"price": 1, "size": 2, "price": 3}'),
        "stop",
        ("line 51", "'price'", "twice"),
        "which one counts?",
    ),
    Case("NaN in JSON", value("size", "NaN"), "pass", (), "no JSON, but Python and pandas write it, and mean missing"),
    Case("infinity in JSON", value("size", "Infinity"), "stop", ("'size'", "infinite"), "as in a CSV"),
    Case("1e999 in JSON", value("size", "1e999"), "stop", ("'size'",), "infinite once it is read"),
    Case("an integer of 400 digits", value("size", "9" * 400), "stop", ("'size'",), "no float can hold it"),
    Case(
        "an integer of 5,000 digits",
        value("size", "9" * 5000),
        "stop",
        ("line 51",),
        "Python itself refuses to read it",
    ),
    Case(
        "JSON 100,000 levels deep",
        value("size", "[" * 100_000 + "]" * 100_000),
        "stop",
        ("line 51",),
        "an attack on the reader",
    ),
    Case(
        "half a surrogate in JSON", value("town", r'"\ud800"'), "stop", ("'town'", "line 51"), "valid JSON, but no text"
    ),
    Case(
        "a NUL in JSON", value("town", r'"Ulm\u0000"'), "stop", ("'town'", "NUL"), "looks like Ulm and is another town"
    ),
    Case(
        "mixed types in JSON", value("size", '"big"'), "stop", ("'size'", "mixes types", "line 51", "'big'"), "a slip"
    ),
    Case(
        "numbers as text in JSON",
        value("size", '"12.5"'),
        "stop",
        ("'size'", "mixes types", "line 51"),
        "text is no number",
    ),
    Case(
        "truth among numbers in JSON",
        value("size", "true"),
        "stop",
        ("'size'", "mixes types", "line 51"),
        "1, or a slip?",
    ),
    Case(
        "objects in JSON",
        everywhere("box", lambda i: {"a": i, "b": {"c": 1}}),
        "stop",
        ("'box'", "problem.ignore"),
        "no column",
    ),
    Case("lists in JSON", everywhere("box", lambda i: [i, i + 1]), "stop", ("'box'", "problem.ignore"), "no column"),
    Case("one object in JSON", value("town", '{"name": "Ulm"}'), "stop", ("'town'", "line 51"), "a slip upstream"),
    Case("empty objects in JSON", b"{}\n" * 99, "stop", ("t.jsonl",), "99 rows without a column"),
    Case(
        "absent keys in JSON",
        objects(lambda i, row: row.pop("size") if i == 0 else None),
        "pass",
        (),
        "absent is missing",
        reads={"size": (None,)},
    ),
    Case(
        "empty text in JSON",
        value("town", '""', row=0),
        "pass",
        (),
        "nothing, as in a CSV: no fourth town",
        reads={"town": (None,)},
    ),
    Case("BOM in JSON", b"\xef\xbb\xbf" + objects(), "pass", (), "one meaning only"),
    Case(
        "Latin-1 in JSON",
        line(50, "@@").replace(b"@@", '{"town": "Köln"}'.encode("latin-1")),
        "stop",
        ("line 51", "UTF-8"),
        "JSON is UTF-8",
    ),
    Case("UTF-16 JSON", objects().decode().encode("utf-16"), "stop", ("UTF-16",), "as in a CSV"),
)
CASES = tuple(replace(case, file=case.file if case.file == "t.json" else "t.jsonl") for case in LINES)
