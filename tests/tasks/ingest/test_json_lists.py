"""JSON lists of objects: the same table as JSON lines, at every door that reads files."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources import ingest
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import json_lists
from windvane.tasks.ingest.json_lists import read_json_list
from windvane.tasks.label_parsing import LabelRules, read_label_file
from windvane.tasks.sources.table_files import count_file_rows, scan_table_file

ROWS = [{"price": 1.5 * i, "town": f"Ulm, {i % 3} [x]", "note": 'a "b"\n{'} for i in range(50)]


def read(text: str) -> list[Any]:
    return [json.loads(item) for _, item in read_json_list(io.BytesIO(text.encode()), Path("t.json"))]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=6), values, max_size=4), max_size=6),
    st.sampled_from([None, 1]),
    st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_any_list_is_read_item_by_item_whatever_a_block_holds(rows: list[Any], indent: int | None, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_BLOCK_CHARACTERS", block)
        assert read(json.dumps(rows, indent=indent, ensure_ascii=False)) == rows


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_d7_n45_a_json_list_is_the_table_that_its_lines_are(tmp_path: Path, indent: int | None, packed: bool) -> None:
    text = json.dumps(ROWS, indent=indent).encode()
    path = tmp_path / ("t.json.gz" if packed else "t.json")
    path.write_bytes(gzip.compress(text) if packed else b"\xef\xbb\xbf\n " + text)
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pd.testing.assert_frame_equal(
        ingest(tmp_path, name=path.name, target="price"), ingest(tmp_path, name="lines.jsonl", target="price")
    )
    assert count_file_rows(path) == len(ROWS)
    assert scan_table_file(path).collect().height == len(ROWS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ("t.json", "is empty")),
        ("[\n", ("line 2", "ends within the list")),
        ('[{"a": 1}', ("line 1", "ends within an item")),
        ('[{"a": 1},\n {"a": ', ("line 2", "item 2 is broken JSON")),
        ('[{"a": 1}\n{"a": 2}]', ("line 2", "a comma is missing")),
        ('[{"a": 1},]', ("line 1", "no object")),
        ("[1, 2]", ("line 1", "no object")),
        ('[[{"a": 1}]]', ("line 1", "no object")),
        ('[{"a": 1}] x', ("line 1", "more behind the list")),
        ('[{"a": 1},\n\n{"a" 2}]', ("line 3", "item 2 is broken JSON")),
        ('[{"a": 1, "a": 2}]', ("line 1", "'a' twice")),
        ('[\n{"a": ' + "[" * 5000 + "]" * 5000 + "}]", ("line 2", "thousands of brackets")),
    ],
)
def test_d7_n46_a_broken_list_is_told_with_its_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InputError) as told:
        ingest(tmp_path, name="t.json", target="a")
    for word in words:
        assert word in str(told.value)


def test_d7_n47_labels_come_as_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps([{"id": f"r{i}", "label": i} for i in range(3)], indent=1))
    assert [(one.id, one.label) for one in read_label_file(tmp_path / "l.json", LabelRules("regression"))] == [
        ("r0", 0.0),
        ("r1", 1.0),
        ("r2", 2.0),
    ]
    (tmp_path / "l.json").write_text('[\n{"id": "r0", "label": 1},\n{"id": "r1", "label": "x"}]')
    with pytest.raises(InputError, match=r"line 3: label 'x' is no number.*Nothing was recorded"):
        list(read_label_file(tmp_path / "l.json", LabelRules("regression")))
