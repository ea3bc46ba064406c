"""Columns with names that break programs: quoting, markup, templates, invisible letters, names of our own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hostile.case import Case, csv, cycle, houses, typed

# What YAML would take for something else: enough as the target, whose name stands in params.yaml and schema.yaml.
YAML = {
    "colon": "size: m2",
    "hash": "# size",
    "dash": "- size",
    "anchor": "&size",
    "alias": "*size",
    "tag": "!size",
    "at": "@size",
    "question mark": "? size",
    "equals": "=size",
    "null": "null",
    "true": "true",
    "no": "no",
    "tilde": "~",
    "a number": "1",
    "a float": "1e5",
    "a date": "2020-01-01",
    "nan": "NaN",
}
# Each is the name of a column to learn from, and of the target.
NAMES = {
    "double quote": 'si"ze',
    "single quote": "it's",
    "both quotes": "\"'`",
    "brackets": "size[m2]",
    "braces": "{x}",
    "empty braces": "{}",
    "numbered braces": "{0}",
    "percent s": "%s",
    "percent name": "%(size)d",
    "an environment variable": "${HOME}",
    "an unset variable": "${NOT_SET_ANYWHERE}",
    "script": "<script>alert(1)</script>",
    "markup": "<b>size</b> &amp; &lt;",
    "markdown": "[size](javascript:alert(1)) | **x**",
    "newline": "size\nm2",
    "carriage return": "size\r\nm2",
    "tab": "size\tm2",
    "comma": "size, m2",
    "semicolon": "size; m2",
    "pipe": "size | m2",
    "dot": "size.m2",
    "slash": "../../etc/size",
    "backslash": "C:\\new\\table",
    "SQL": 'size"; DROP TABLE rows; --',
    "a SQL word": "select",
    "emoji": "size 🏠",
    "right to left mark": "size\u200f",
    "right to left override": "\u202esize",
    "zero width space": "si\u200bze",
    "line separator": "size\u2028m2",
    "next line": "size\x85m2",
    "escape sequence": "\x1b[31msize",
    "combining letters": "gro\u0308sse",
    "Arabic": "حجم",
    "a name of pandas": "index",
    "a name of pandas' frames": "level_0",
    "a name of polars": "literal",
    "a name of the split": "side",
    "a name of scoring": "prediction",
    "a name of checks": "row_number",
    "a regular expression": "^size$|.*",
    "200 letters": "size" * 50,
}
# Of these, the ones that a message could show wrongly.
LOUD = {
    "both quotes", "braces", "percent s", "an unset variable", "script", "newline", "carriage return", "tab", "emoji",
    "right to left override", "line separator", "next line", "escape sequence", "200 letters",
}  # fmt: skip


def jsonl(cells: dict[str, list[str]], names: dict[str, str]) -> bytes:
    table = typed(cells)
    table["day"] = list(houses()["day"])
    keys = [names.get(name, name) for name in table]
    return "".join(
        json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in zip(*table.values(), strict=True)
    ).encode()


def parquet(names: list[str]) -> object:
    """A Parquet file under these names."""

    def write(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [pa.array(column) for column in typed(houses()).values()]
        pq.write_table(pa.table(columns, names=names), path)

    return write


CASES = (
    *(
        Case(f"name: {what}", csv(houses(), {"size": name}), "pass", (), "ugly, and the user's own", init=False)
        for what, name in NAMES.items()
    ),
    *(
        Case(f"empty column: {what}", csv(houses(pool=cycle("")), {"pool": name}), "stop", (repr(name),), "named")
        for what, name in NAMES.items()
        if what in LOUD
    ),
    *(
        Case(
            f"target: {what}",
            csv(houses(), {"price": name}),
            "pass",
            (),
            "ugly, and the user's own",
            problem={"target": name},
        )
        for what, name in (NAMES | YAML).items()
    ),
    Case("names that differ in case", csv(houses(), {"rooms": "Size"}), "pass", (), "two names, if a poor choice"),
    Case(
        "names that differ in a blank",
        csv(houses(), {"rooms": "size "}),
        "stop",
        ("'size'", "2 times"),
        "nobody can tell them apart, and blanks around names are dropped",
    ),
    Case(
        "names that differ in a blank, in Parquet",
        parquet(["day", "size", "size ", "town", "price"]),
        "stop",
        ("'size'", "2 times"),
        "as in a CSV",
        file="t.parquet",
    ),
    Case("a name of blanks", csv(houses(), {"size": "   "}), "pass", (), "called by its place, as pandas does"),
    Case(
        "a name of blanks, in Parquet",
        parquet(["day", "  ", "rooms", "town", "price"]),
        "stop",
        ("column 2 has no name",),
        "as in a CSV",
        file="t.parquet",
    ),
    Case(
        "no name, in JSON",
        jsonl(houses(), {"size": ""}),
        "stop",
        ("column 2 has no name",),
        "as in a CSV",
        file="t.jsonl",
    ),
    Case("leading underscore", csv(houses(), {"size": "_size"}), "stop", ("'_size'", "Rename"), "Windvane's own names"),
    Case("Windvane's row key", csv(houses(), {"size": "_row"}), "stop", ("'_row'", "Rename"), "Windvane's own name"),
    Case(
        "letters composed otherwise",
        csv(houses(), {"price": "gro\u0308sse"}),
        "pass",
        (),
        "macOS writes the same word in other code points: it is one name",
        problem={"target": "gr\u00f6sse"},
    ),
    Case(
        "a name of 10,000 letters",
        csv(houses(), {"size": "size" * 2500}),
        "pass",
        (),
        "the question of a survey; MLflow takes no key of more than 250 letters, so it is cut",
    ),
    *(
        Case(
            f"a name that is a pattern: {name}",
            csv(houses(), {"size": name}),
            "stop",
            (repr(name), "Rename"),
            "all columns, or some, to the reader of tables (polars): it would mean others than itself",
        )
        for name in ("*", "^size$", "^.*$")
    ),
    Case(
        "a NUL in a name", csv(houses(), {"size": "si\x00ze"}), "stop", ("line 1", "NUL"), "no name that can be typed"
    ),
)
