"""What `windvane score` writes: the user's rows byte for byte, and behind them what labels and readers need."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.served_models import PROJECT, Site, houses, made_project
from windvane.flows import score_files, scoring
from windvane.ledger.labels import PredictionQuery, read_labelled_predictions, record_labels
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.label_parsing import LabelRules, read_label_file
from windvane.tasks.project import Project

pytestmark = pytest.mark.long

# Cells as people have them: quoted for no reason, blanks, words for no value, codes, a quote and a line break in a cell.
ROWS = [
    ["size", " garden", "town", "day", "note"],
    ["100.50", " true", '"NA"', "2020-05-01", '"a ""b"", c"'],
    ["0101", "NA", "None", "", '"two\nlines"'],
    [" 9e1 ", "", '" Ulm"', "2020-05", "01067"],
    ["+7", "FALSE", "", "n/a", '""'],
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_project(tmp_path_factory.mktemp("project"))
    Site(folder.path / ".windvane").register(2, "linear", "classification")
    return folder.path


def score(root: Path, source: str, target: str, log: bool = False) -> Path:
    scoring.score_file(Project(root), root / source, root / target, scoring.ScoringOptions(log), Console(False))
    return root / target


def text_of(rows: list[list[str]], delimiter: str, end: str) -> str:
    return "".join(delimiter.join(row) + end for row in rows)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("name", "delimiter"), [("in.csv", ","), ("in.csv", ";"), ("in.tsv", "\t")])
def test_f8_a_text_files_cells_come_back_byte_for_byte(
    root: Path, name: str, delimiter: str, bom: bytes, end: str
) -> None:
    (root / name).write_bytes(bom + text_of(ROWS, delimiter, end).removesuffix(end).encode())
    out = score(root, name, f"out{Path(name).suffix}").read_bytes()
    assert out.startswith(bom + text_of(ROWS[:1], delimiter, "").encode() + f"{delimiter}prediction".encode())
    rest = out
    for row in ROWS:
        before, found, rest = rest.partition(delimiter.join(row).encode() + delimiter.encode())
        assert found, row
        assert before in (bom, b"") or before.endswith(end.encode())
    assert out.endswith(f"{delimiter}1{end}".encode())
    assert "id" not in pd.read_csv(root / f"out{Path(name).suffix}", sep=delimiter).columns  # nothing was recorded


def test_f8_words_for_no_value_are_not_emptied_in_another_format(root: Path) -> None:
    (root / "in.csv").write_text(text_of(ROWS, ",", "\n"))
    assert pq.read_table(score(root, "in.csv", "out.parquet"))["town"].to_pylist() == ["NA", "None", " Ulm", None]
    lines = [json.loads(line) for line in score(root, "in.csv", "out.jsonl").read_text().splitlines()]
    assert [row["town"] for row in lines] == ["NA", "None", " Ulm", None]
    assert [row["size"] for row in lines] == ["100.50", "0101", " 9e1 ", "+7"]


def test_f8_n1_labels_find_the_predictions_by_the_ids_that_the_output_has(root: Path) -> None:
    houses(30).drop(columns=["price", "dear"]).to_csv(root / "in.csv", index=False)
    out = pd.read_csv(score(root, "in.csv", "out.csv", log=True))
    assert list(out.columns)[-3:] == ["prediction", "model_version", "id"]
    assert out["id"].is_unique
    out.assign(label=1.5)[["id", "label"]].to_csv(root / "labels.csv", index=False)
    ledger = Project(root).ledger
    labels = read_label_file(root / "labels.csv", LabelRules("regression"))
    counts = record_labels(ledger, PROJECT, labels, "file")
    assert (counts.matched, counts.unmatched) == (30, 0)
    kept = {
        k.id: k.output["prediction"] for k in read_labelled_predictions(ledger, PROJECT, PredictionQuery()) if k.known
    }
    assert [kept[id] for id in out["id"]] == pytest.approx(out["prediction"].tolist())


def test_f8_n2_classes_come_with_their_probabilities(root: Path) -> None:
    site = Site(root / ".windvane")
    site.promote(2)
    try:
        rows = houses(60).drop(columns=["price"])
        rows.to_csv(root / "in.csv", index=False)
        out = pd.read_csv(score(root, "in.csv", "out.csv"))
        score(root, "out.csv", "again.csv")  # what is added replaces itself
    finally:
        site.promote(1)
    assert list(out.columns)[-4:] == ["prediction", "model_version", "probability_no", "probability_yes"]
    assert (out["probability_no"] + out["probability_yes"]).to_numpy() == pytest.approx(1)
    assert (out["prediction"] == "yes").tolist() == (out["probability_yes"] > 0.5).tolist()
    pd.testing.assert_frame_equal(pd.read_csv(root / "again.csv"), out)


@pytest.mark.parametrize(("given", "name"), [({"id": "mine"}, "prediction_id"), ({}, "id"), ({"prediction": 7}, "id")])
def test_f8_n3_a_column_of_the_user_is_not_written_over_by_made_up_ids(
    root: Path, given: dict[str, Any], name: str
) -> None:
    rows = houses(12).drop(columns=["price", "dear"]).assign(**given)
    rows.assign(day=rows["day"].astype("str").replace("NaT", "")).to_json(
        root / "in.jsonl", orient="records", lines=True
    )
    lines = [json.loads(line) for line in score(root, "in.jsonl", "out.jsonl", log=True).read_text().splitlines()]
    assert all(line[name] for line in lines)
    assert {line.get("id") for line in lines} == ({"mine"} if "id" in given else {line["id"] for line in lines})
    assert {line["prediction"] for line in lines} != {7}


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_json_list_comes_back_as_a_list_and_lines_as_lines(
    root: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "PIECE_ROWS", 2)
    rows = [{"size": 100 + i, "garden": True, "town": "Ulm", "day": "2020-05-01", "note": 'a "b"'} for i in range(5)]
    open_file = gzip.open if packed else open
    for name, text in (
        (f"in.json{packed}", json.dumps(rows, indent=1)),
        ("in.jsonl", "\n".join(map(json.dumps, rows))),
    ):
        with open_file(root / name, "wt") if packed and name.endswith(packed) else (root / name).open("w") as file:
            file.write(text)
    with open_file(score(root, f"in.json{packed}", f"out.json{packed}"), "rt") as file:
        whole = json.load(file)
    assert [{name: row[name] for name in rows[0]} for row in whole] == rows
    assert list(whole[0])[-2:] == ["prediction", "model_version"]
    for source, target in ((f"in.json{packed}", "out.jsonl"), ("in.jsonl", "out.json"), ("in.jsonl", "out.ndjson")):
        assert [json.loads(line) for line in score(root, source, target).read_text().splitlines()] == whole


def test_names_are_found_in_each_form_and_come_back_as_they_are(root: Path) -> None:
    header = "\u200bsize,garden\u00a0,town,day,note"
    (root / "in.csv").write_text(header + "\n100,true,Ulm,2020-05-01,x\n")
    assert score(root, "in.csv", "out.csv").read_text().startswith(header + ",prediction")


def test_an_object_without_a_cell_comes_back_as_json() -> None:
    assert json.loads(score_files._append_values("{ }", '{"prediction":1}')) == {"prediction": 1}
    assert json.loads(score_files._append_values('{"a": 2 }', '{"prediction":1}')) == {"a": 2, "prediction": 1}


def test_f8_a_row_without_the_id_that_names_it_cannot_be_recorded(root: Path) -> None:
    params = json.loads((root / "params.yaml").read_text())
    params["problem"]["id"] = "house"
    (root / "params.yaml").write_text(json.dumps(params))
    try:
        rows = houses(5).drop(columns=["price", "dear"]).assign(house=["a", "b", None, "d", "e"])
        rows.to_csv(root / "in.csv", index=False)
        with pytest.raises(InputError, match="row 3, column 'house': there is no id"):
            score(root, "in.csv", "out.csv", log=True)
        rows.assign(house=list("abcde")).to_csv(root / "in.csv", index=False)
        assert list(pd.read_csv(score(root, "in.csv", "out.csv", log=True)))[-2:] == ["prediction", "model_version"]
    finally:
        del params["problem"]["id"]
        (root / "params.yaml").write_text(json.dumps(params))
