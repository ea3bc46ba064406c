"""Bytes that nobody thought of: whatever they are, the gate ends with a verdict or an InputError of one line.

More of it than in CI: `WINDVANE_FUZZ=5000 pytest tests/hostile/test_spoilt_tables.py` (then the examples differ from run to run).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.case import Case, csv, houses
from tests.hostile.corpus_json import objects
from tests.hostile.corpus_parquet import parquet
from tests.hostile.verdicts import judged, params

pytestmark = pytest.mark.long

MORE = int(os.environ.get("WINDVANE_FUZZ", "0"))
fuzz = settings(
    max_examples=MORE or 60,
    derandomize=not MORE,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

CSV, JSON = csv(houses(60)), objects()
# What breaks readers, where it stands at all.
TOKENS = st.sampled_from(
    [
        *(
            b'"',
            b"\n",
            b"\r",
            b",",
            b";",
            b"\t",
            b"\x00",
            b"\xff",
            b"\xc3",
            b"\xef\xbb\xbf",
            b"\\",
            b"'",
            b"{",
            b"[",
            b"}",
        ),
        *(
            b"inf",
            b"nan",
            b"1e999",
            b"+",
            b"-",
            b"0x1F",
            b"00",
            b"true",
            b"2020-02-30",
            b"24:00",
            b"NaN",
            b"\xf0\x9f\x8f\xa0",
        ),
        *(
            b"9" * 30,
            b"=1+1",
            b"1,5",
            b'"a\nb"',
            b"\\ud800",
            b" ",
            b"_",
            b"price",
            b"\xe2\x80\xa8",
            b"9999-12-31T23:59:59Z",
        ),
    ]
)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), TOKENS | st.binary(max_size=4)), min_size=1, max_size=6
)
# Any text, and the kinds of cells that a reader tries to understand.
CELL = st.one_of(
    st.text(max_size=6),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(str),
    st.dates().map(lambda day: f"{day:%d/%m/%Y}"),
    st.booleans().map(str),
    st.sampled_from(
        ["", "NA", "+5", "１２", "1e999", "0x1F", "1_000", "−1", "12:30", "2020-1", "2020-01-01T", "1/2/3"]
    ),
)


def changed(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes with pieces replaced: (place as a share of the length, bytes taken out, bytes put in)."""
    for place, out, put in changes:
        at = int(place * len(content))
        content = content[:at] + put + content[at + out :]
    return content


def ends_well(file: str, content: bytes, **problem: str) -> None:
    case = Case("", content, "stop", (), "", file=file, problem=problem)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        case.build(root)
        found = judged(root, params(case))
        left = {p.name for p in root.rglob("*") if p.is_file() and p.name.endswith(".part")}
    assert not left
    for said in found.said:
        assert said.isprintable()
        assert len(said) < 3000


@fuzz
@given(st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet"]), st.binary(max_size=200))
def test_any_bytes(file: str, content: bytes) -> None:
    ends_well(file, content)


@fuzz
@given(CHANGES, st.sampled_from([{}, {"time": "day"}, {"kind": "classification", "target": "town"}, {"id": "day"}]))
def test_a_spoilt_csv(changes: list[tuple[float, int, bytes]], problem: dict[str, str]) -> None:
    ends_well("t.csv", changed(CSV, changes), **problem)


@fuzz
@given(CHANGES, st.sampled_from([{}, {"time": "day"}]))
def test_spoilt_json_lines(changes: list[tuple[float, int, bytes]], problem: dict[str, str]) -> None:
    ends_well("t.jsonl", changed(JSON, changes), **problem)


@fuzz
@given(CHANGES)
def test_a_spoilt_parquet(changes: list[tuple[float, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "t.parquet"
        parquet(write_page_checksum=True)(path)
        content = path.read_bytes()
    ends_well("t.parquet", changed(content, changes))


@fuzz
@given(
    st.lists(CELL, min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["target", "time", "id", ""]),
)
def test_any_cells_under_any_name(cells: list[str], name: str, role: str) -> None:
    table = houses(60, more=lambda i, _: cells[i % len(cells)])
    ends_well("t.csv", csv(table, {"more": name}), **({role: name} if role else {}))
