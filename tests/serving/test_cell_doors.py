"""The same rows through every door: training, requests in JSON and CSV, and `windvane score` in every format."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io

from tests.support.served_models import PROJECT, Client, Site, writer
from windvane.flows import scoring
from windvane.ledger.labels import PredictionQuery, read_labelled_predictions
from windvane.serving.compiled import engine_files, mlflow_model
from windvane.serving.compiled.agreement import convert_to_plain_columns
from windvane.serving.compiled.engine_files import ComparisonRows, TableCells
from windvane.serving.http.request_rows import IdTimeColumns
from windvane.serving.signature import InputColumn, ModelSignature
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.ingest.cell_reading import NumberForm
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.frame_reading import list_plain_values, read_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.project import Project
from windvane.tasks.settings import project_params
from windvane.tasks.stores import model_files

pytestmark = pytest.mark.long

INPUTS = FeatureColumns(("size", "rent"), ("garden",), ("country", "zip"), (), ("day",))
NAMES = ["size", "rent", "garden", "country", "zip", "day"]
TEXT = {"content-type": "text/csv"}
FRENCH = NumberForm(",", " ", ("€",))
FORMAT = {"decimal": ",", "thousands": " ", "signs": ["€"], "missing_words": ["?"]}


@cache
def cells(rows: int = 400) -> list[dict[str, str]]:
    """Rows as a person writes them: blanks around words, NA for Namibia or for no value, empty cells, codes with zeros, and ? in
    every column but the target and the size.
    """
    rng = np.random.default_rng(3)
    country = rng.choice(["DE", "FR", "NA", " US", "ZA ", "", " NA "], rows)
    codes = rng.choice(["01067", "04109", "98001"], rows)
    size = rng.normal(100, 20, rows).tolist()
    effect = {"DE": 0, "FR": 10, "NA": 30, "US": 50, "ZA": 70, "": 5}
    noise = rng.normal(0, 1, rows).tolist()
    written = [
        {
            "price": write_french(
                size[i] + (i % 7) * 30 + effect[country[i].strip()] + (codes[i] == "01067") * 40 + noise[i], 1
            ),
            "size": f" {size[i]!r}" if i % 3 else repr(size[i]),
            "rent": write_french(size[i] * 20 + (i % 7) * 300, i),
            "garden": ["true", "false", "", "NA"][i % 4],
            "country": str(country[i]),
            "zip": str(codes[i]),
            "day": "" if i % 11 == 0 else f"2024-{i % 12 + 1:02d}-01",
            "note": f"'{i}'",
        }
        for i in range(rows)
    ]
    for i, row in enumerate(written):
        if i % 9 == 4:
            row[NAMES[1:][i // 9 % 5]] = "?" if i % 2 else " ? "
    return written


def write_french(number: float, i: int) -> str:
    """A number as French books have it, to many digits: 1 234,5, at times with a sign behind and blanks around it."""
    whole, _, part = f"{number:,.13f}".partition(".")
    text = f"{whole.replace(',', chr(0x202F) if i % 3 else ' ')},{part}"
    return [f"{text} €", text, f" {text}", f"{text}\u00a0€ "][i % 4]


def write_text(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    lines = [rows[0], *(row.values() for row in rows)]
    return "".join(delimiter.join(f'"{c}"' if delimiter in c else c for c in line) + "\n" for line in lines)


def convert_typed(row: dict[str, str]) -> dict[str, Any]:
    """A row as a program sends it: numbers and true or false as such, the words as they are."""
    garden: Any = {"true": True, "false": False}.get(row["garden"])
    size, day = (None if row[name].strip() in ("", "?") else row[name] for name in ("size", "day"))
    return {**row, "size": None if size is None else float(size), "garden": garden, "day": day}


@dataclass(frozen=True)
class Doors:
    """A project whose champion was trained from the CSV file, and what it predicts of the rows as training read them."""

    root: Path
    site: Site
    client: Client
    expected: list[float]

    def score(self, name: str, target: str = "out.csv", log: bool = False) -> Path:
        scoring.score_file(
            Project(self.root), self.root / name, self.root / target, scoring.ScoringOptions(log), Console(False)
        )
        return self.root / target


def open_doors(
    root: Path,
    keep: tuple[str, ...] = (),
    gaps: frozenset[str] = frozenset(),
    rows: list[dict[str, str]] | None = None,
    dates: Literal["day_first", "month_first"] | None = None,
) -> Doors:
    root.mkdir(exist_ok=True)
    (root / "houses.csv").write_text(write_text(rows or cells()))
    params = {
        "project": PROJECT,
        "problem": {"kind": "regression", "target": "price", "ignore": ["note"]},
        "data": {"source": "houses.csv", "format": {**FORMAT, "keep_words": list(keep), "dates": dates}},
    }
    (root / "params.yaml").write_text(json.dumps(params))
    ingestion.write_table(root, project_params.parse_settings(params), root / "table", root)
    frame = table_io.read_parquet(root / "table")
    kind, inputs = definitions.load_problem_type("regression"), conform_frame(frame, INPUTS, "x")
    model = model_pipeline.fit_pipeline(ModelConfiguration("tree", {}), kind, INPUTS, frame, FitOptions("price", 0, 1))
    table = TableCells(tuple(n for n in frame if n != table_io.ROW_KEY), gaps, frozenset(keep), ("?",), dates, FRENCH)
    files = engine_files.build_engine_files(model, kind, INPUTS, ComparisonRows(inputs, inputs, 0, 300), None, table)
    form = engine_files.read_engine_files(files)
    assert form is not None
    assert form.compiled is not None
    site = Site(root / ".windvane")
    folder = root / ".windvane" / "models" / "1"
    folder.mkdir(parents=True)
    for name, content in {model_files.MODEL_FILE: skops.io.dumps(model), **files}.items():
        (folder / name).write_bytes(content)
    site.add(1, folder, columns=asdict(INPUTS), bulk={"engine": "compiled"})
    site.promote(1)
    expected = form.compiled.predict(convert_to_plain_columns(inputs, form.signature)).values
    return Doors(root, site, Client(site, site.following(), writer(site)), expected)


@pytest.fixture(scope="module", params=["missing", "kept"])
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Doors:
    root = tmp_path_factory.mktemp("doors")
    (root / ".windvane").mkdir()
    return open_doors(root, ("country",) if request.param == "kept" else ())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    root = tmp_path_factory.mktemp("plain")
    (root / ".windvane").mkdir()
    return open_doors(root)


def write_file(root: Path, name: str) -> None:
    """The rows in a file, in the format that its name says."""
    rows = cells()
    text = write_text(rows, {"semicolon.csv": ";", "in.tsv": "\t", "pipe.csv.gz": "|"}.get(name, ","))
    if "json" in name:
        text = "".join(json.dumps(convert_typed(row)) + "\n" for row in rows)
    if name == "typed.parquet":
        days = [pd.Timestamp(convert_typed(row)["day"]) for row in rows]
        pd.DataFrame([convert_typed(row) for row in rows]).assign(day=days).to_parquet(root / name, index=False)
    elif name == "text.parquet":
        pq.write_table(pa.table({n: [row[n] for row in rows] for n in rows[0]}), root / name)
    else:
        packing = "gzip" if name.endswith(".gz") else "zstd" if name.endswith(".zst") else None
        with pa.output_stream(str(root / name), compression=packing) as out:
            out.write(text.encode())


FILES = [
    "in.csv",
    "semicolon.csv",
    "in.tsv",
    "pipe.csv.gz",
    "in.csv.zst",
    "in.jsonl",
    "in.ndjson.gz",
    "typed.parquet",
    "text.parquet",
]


@pytest.mark.parametrize("name", FILES)
def test_c1_score_takes_every_file_that_ingest_takes(doors: Doors, name: str) -> None:
    write_file(doors.root, name)
    out = pq.read_table(doors.score(name, "out.parquet"))
    assert out["prediction"].to_pylist() == doors.expected


@pytest.mark.parametrize("target", ["out.csv", "out.tsv.gz", "out.jsonl", "out.jsonl.zst", "out.parquet"])
@pytest.mark.parametrize("source", ["semicolon.csv", "in.jsonl", "typed.parquet"])
def test_c1_score_writes_every_format(plain: Doors, source: str, target: str) -> None:
    write_file(plain.root, source)
    path = plain.score(source, target)
    if target == "out.parquet":
        found = pq.read_table(path)["prediction"].to_pylist()
    else:
        text = pa.input_stream(str(path)).read().decode()
        if "jsonl" in target:
            found = [json.loads(line)["prediction"] for line in text.splitlines()]
        else:
            delimiter = ";" if source == "semicolon.csv" and target == "out.csv" else "\t" if "tsv" in target else ","
            found = pd.read_csv(io.StringIO(text), sep=delimiter, float_precision="round_trip")["prediction"].tolist()
    assert found == plain.expected


def test_c2_the_same_rows_get_the_same_predictions_at_every_door(doors: Doors) -> None:
    typed = [convert_typed(row) for row in cells()]
    bodies: list[dict[str, Any]] = [
        {"dataframe_records": typed},
        {"instances": typed},
        {"dataframe_split": {"columns": list(typed[0]), "data": [list(row.values()) for row in typed]}},
        {"inputs": {name: [row[name] for row in typed] for name in typed[0]}},
    ]
    for body in bodies:
        assert doors.client.ask("POST", "/invocations", json=body).json()["predictions"] == doors.expected
    text = write_text(cells())
    said = doors.client.ask("POST", "/invocations", content=text, headers=TEXT).json()
    assert said["predictions"] == doors.expected
    alone = [doors.client.predict([row])["predictions"][0] for row in typed[:20]]
    assert alone == doors.expected[:20]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_c1_n3_a_request_in_csv_has_any_delimiter(plain: Doors, delimiter: str) -> None:
    text = write_text(cells(), delimiter)
    said = plain.client.ask("POST", "/invocations", content=text, headers=TEXT)
    assert said.json()["predictions"] == plain.expected


def test_c2_n2_a_number_for_a_code_is_the_code_of_its_width(plain: Doors) -> None:
    row = {**convert_typed(cells()[1]), "zip": "01067"}
    (expected,) = plain.client.predict([row])["predictions"]
    for number in (1067, 1067.0):
        assert plain.client.predict([{**row, "zip": number}])["predictions"] == [expected]
    pd.DataFrame([{**row, "zip": 1067}]).to_parquet(plain.root / "codes.parquet", index=False)
    assert pq.read_table(plain.score("codes.parquet", "codes-out.parquet"))["prediction"].to_pylist() == [expected]
    assert plain.client.predict([{**row, "zip": "04109"}])["predictions"] != [expected]


def test_c2_n3_the_ledger_keeps_words_as_they_were_read(tmp_path: Path) -> None:
    (tmp_path / ".windvane").mkdir()
    doors = open_doors(tmp_path)
    rows = [
        {**cells()[1], "size": "1.5", "garden": "NA", "country": " US", "day": "n/a"},
        {**cells()[1], "size": "1.5", "garden": "true", "country": " NA ", "day": "2024-01-01"},
    ]
    assert doors.client.ask("POST", "/invocations", content=write_text(rows), headers=TEXT).status_code == 200
    (tmp_path / "in.csv").write_text(write_text(rows))
    doors.score("in.csv", log=True)
    kept = list(read_labelled_predictions(doors.site.ledger, PROJECT, PredictionQuery(unlabelled=True)))
    found = sorted((str(k.inputs["country"]), str(k.inputs["garden"]), str(k.inputs["day"])) for k in kept if k.inputs)
    assert found == sorted([("US", "None", "None"), ("None", "true", "2024-01-01")] * 2)


WORDS = ("?", "not known")


def test_c2_n4_the_tables_own_words_for_no_value_are_so_at_every_door_and_for_every_type(tmp_path: Path) -> None:
    types: dict[str, Any] = {"n": "number", "b": "boolean", "c": "category", "d": "date"}
    sent = {"n": [1.5, " ? ", "not known"], "b": [True, "?", "not known"], "c": ["x", "?", " not known"]}
    sent["d"] = ["2024-01-02", "?", "not known"]
    columns = tuple(InputColumn(name, kind, True, missing_words=WORDS) for name, kind in types.items())
    read = [reader.read(sent[reader.column.name]) for reader in ModelSignature(columns).from_json]
    assert [values[1:] for values in read] == [[None, None]] * 4
    as_text = {name: [str(value) for value in values] for name, values in sent.items()}
    assert [r.read(as_text[r.column.name]) for r in ModelSignature(columns).from_text] == read
    frame = read_frame(pd.DataFrame(sent), types, missing_words=WORDS)
    assert frame.isna().sum().to_dict() == dict.fromkeys(types, 2)
    assert [values[:1] for values in list_plain_values(frame, types)] == [values[:1] for values in read]
    lines = [",".join(cells) for cells in zip("012", *as_text.values(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["y,n,b,c,d", *lines]) + "\n")
    settings = project_params.parse_settings(
        {
            "project": PROJECT,
            "problem": {"kind": "regression", "target": "y"},
            "data": {"source": "t.csv", "format": {"missing_words": list(WORDS)}},
        }
    )
    ingestion.write_table(tmp_path, settings, tmp_path / "table", tmp_path)
    table = table_io.read_parquet(tmp_path / "table")
    assert table[list(types)].isna().sum().to_dict() == dict.fromkeys(types, 2)
    assert [str(table[name].dtype)[:4] for name in ("n", "b", "d")] == ["floa", "bool", "date"]


# C3: what training never saw


def test_c3_a_missing_number_is_refused_by_the_service_and_by_score(plain: Doors) -> None:
    rows = [dict(row) for row in cells()[:60]]
    rows[41]["size"] = " NA "
    answer = plain.client.ask("POST", "/invocations", content=write_text(rows), headers=TEXT)
    assert answer.status_code == 400
    assert "column 'size', row 42: is missing, and training never saw it missing" in answer.json()["message"]
    (plain.root / "gap.csv").write_text(write_text(rows))
    with pytest.raises(
        InputError, match=r"column 'size', row 42: is missing, and training never saw it missing.*row out"
    ):
        plain.score("gap.csv")


def test_c3_n1_a_gap_that_only_other_rows_of_the_table_have_is_known(tmp_path: Path) -> None:
    (tmp_path / ".windvane").mkdir()
    doors = open_doors(tmp_path, gaps=frozenset({"size"}))
    row = {**convert_typed(cells()[1]), "size": None}
    said = doors.client.predict([row])["predictions"]
    (tmp_path / "gap.csv").write_text(write_text([{**cells()[1], "size": ""}]))
    assert pd.read_csv(doors.score("gap.csv"), float_precision="round_trip")["prediction"].tolist() == said


def test_c3_n2_other_columns_of_the_table_are_left_out_and_strangers_on_request(plain: Doors) -> None:
    row = convert_typed(cells()[1])
    bare = {name: row[name] for name in NAMES}
    expected = plain.client.predict([bare])["predictions"]
    assert plain.client.predict([row])["predictions"] == expected  # price and note are columns of the table
    strange = {**bare, "colour": "red", "sise": 1}
    refused = plain.client.ask("POST", "/invocations", json={"dataframe_records": [strange]})
    assert refused.status_code == 400
    assert "colour" in refused.json()["message"]
    before = float(plain.client.ask("GET", "/metrics").text.split("\nwindvane_dropped_columns_total ")[1].split()[0])
    asked = {"dataframe_records": [strange, bare], "params": {"unknown_columns": "ignore"}}
    assert plain.client.ask("POST", "/invocations", json=asked).json()["predictions"] == expected * 2
    text = write_text([{name: cells()[1].get(name, "x") for name in strange}])
    headers = {"content-type": "text/csv; unknown_columns=ignore"}
    assert plain.client.ask("POST", "/invocations", content=text, headers=headers).json()["predictions"] == expected
    after = float(plain.client.ask("GET", "/metrics").text.split("\nwindvane_dropped_columns_total ")[1].split()[0])
    assert after - before == 4
    kept = list(read_labelled_predictions(plain.site.ledger, PROJECT, PredictionQuery(unlabelled=True)))
    assert {frozenset(one.inputs) for one in kept if one.inputs} == {frozenset(NAMES)}


@pytest.mark.parametrize("header", [" size", "size ", "\tsize"])
def test_c3_n3_blanks_around_names_mean_nothing_in_requests_and_files(plain: Doors, header: str) -> None:
    row = convert_typed(cells()[1])
    expected = plain.client.predict([row])["predictions"]
    named = {(header if name == "size" else name): value for name, value in row.items()}
    assert plain.client.predict([named])["predictions"] == expected
    split = {"columns": list(named), "data": [list(named.values())]}
    assert plain.client.ask("POST", "/invocations", json={"dataframe_split": split}).json()["predictions"] == expected
    pd.DataFrame([named]).to_parquet(plain.root / "named.parquet", index=False)
    assert pq.read_table(plain.score("named.parquet", "n.parquet"))["prediction"].to_pylist() == expected
    both = plain.client.ask("POST", "/invocations", json={"dataframe_records": [{**named, "size": 1.0}]})
    assert both.status_code == 400
    assert "twice" in both.json()["message"]


# D7: numbers as people write them


def test_d7_n1_the_stored_pyfunc_reads_numbers_as_training_did(plain: Doors) -> None:
    model = mlflow_model._load_pyfunc(str(plain.root / ".windvane" / "models" / "1"))
    frame = pd.read_csv(io.StringIO(write_text(cells())), float_precision="round_trip", dtype={"zip": "str"})
    same = ~pd.DataFrame(cells())["country"].str.contains("NA").to_numpy()
    assert frame["rent"].dtype == "str"
    assert model.predict(frame[same]).tolist() == np.array(plain.expected)[same].tolist()
    typed = frame.assign(rent=[FRENCH.read(word.strip()) for word in frame["rent"]])
    assert model.predict(typed[same]).tolist() == np.array(plain.expected)[same].tolist()
    with pytest.raises(ValueError, match=r"column 'rent'.*written as .*decimal"):
        model.predict(frame.assign(rent="1,234.5"))


def list_dated(form: str) -> list[dict[str, str]]:
    """The rows with days as other books have them, and prices that follow from them."""

    def write_day(row: dict[str, str]) -> str:
        if row["day"].strip() in ("", "?"):
            return row["day"]
        day = pd.Timestamp(row["day"])
        return f"{day.year}Q{day.quarter}" if form == "Q" else day.strftime(form)

    return [
        {
            **row,
            "day": write_day(row),
            "price": f"{100 * int(row['day'][5:7].strip() or 0)},{i % 10}",
        }
        for i, row in enumerate(cells())
    ]


@pytest.mark.parametrize(("form", "dates"), [("%d/%m/%Y", "day_first"), ("%m/%d/%Y", "month_first"), ("Q", None)])
def test_d3_n11_the_stored_pyfunc_reads_dates_as_training_did(
    tmp_path: Path, form: str, dates: Literal["day_first", "month_first"] | None
) -> None:
    (tmp_path / ".windvane").mkdir()
    rows = list_dated(form)
    doors = open_doors(tmp_path, rows=rows, dates=dates)
    assert len({round(value) for value in doors.expected}) > 3
    text = write_text(rows)
    answer = doors.client.ask("POST", "/invocations", content=text, headers=TEXT)
    assert answer.json()["predictions"] == doors.expected
    model = mlflow_model._load_pyfunc(str(tmp_path / ".windvane" / "models" / "1"))
    words = pd.read_csv(io.StringIO(text), float_precision="round_trip", dtype={"zip": "str"}, keep_default_na=False)
    for frame in (words.assign(country=words["country"].replace(["NA", " NA "], "")), words.iloc[::-1]):
        same = ~frame["country"].str.contains("NA").to_numpy()
        expected = np.array(doors.expected)[frame.index]
        assert (
            model.predict(frame[same].assign(garden=frame["garden"].replace("NA", ""))).tolist()
            == expected[same].tolist()
        )


def test_d7_n2_a_number_of_another_form_is_refused_at_every_door(plain: Doors) -> None:
    row = {**cells()[1], "rent": "1,234.5"}
    for answer in (
        plain.client.ask("POST", "/invocations", content=write_text([row]), headers=TEXT),
        plain.client.ask("POST", "/invocations", json={"instances": [convert_typed(row)]}),
    ):
        assert answer.status_code == 400
        assert "column 'rent', row 1: must be a number, written as data.format has it" in answer.json()["message"]
    (plain.root / "odd.csv").write_text(write_text([row]))
    with pytest.raises(InputError, match=r"column 'rent', row 1: must be a number, written as data.format has it"):
        plain.score("odd.csv")


def test_d7_n3_score_writes_the_cells_back_and_the_ledger_keeps_numbers(tmp_path: Path) -> None:
    (tmp_path / ".windvane").mkdir()
    doors = open_doors(tmp_path)
    text = write_text(cells()[:3], ";")
    (tmp_path / "in.csv").write_text(text)
    out = doors.score("in.csv", log=True).read_text()
    assert [
        line.rpartition(";")[0].rpartition(";")[0].rpartition(";")[0] for line in out.splitlines()
    ] == text.splitlines()
    kept = list(read_labelled_predictions(doors.site.ledger, PROJECT, PredictionQuery(unlabelled=True)))
    assert {k.inputs["rent"] for k in kept if k.inputs} == {FRENCH.read(row["rent"].strip()) for row in cells()[:3]}


def test_an_id_and_a_time_come_with_any_columns(plain: Doors) -> None:
    client = Client(plain.site, plain.site.following(), None, roles=IdTimeColumns("house", "day"))
    said = client.predict([{**convert_typed(cells()[1]), " house ": "h1"}])
    assert said["ids"] == ["h1"]
