"""One reading of a cell: table files, delimiters, words that mean no value, codes; at the doors that read whole files."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.tables import houses
from windvane.serving.signature import CellRefused, InputColumn, ModelSignature
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import cell_reading, ingestion, table_io, text_parsing
from windvane.tasks.ingest.cell_reading import NumberForm
from windvane.tasks.label_parsing import LabelRules, parse_label_objects, read_label_file
from windvane.tasks.settings import project_params, settings_proposal
from windvane.tasks.sources.fetch import compare_snapshots
from windvane.tasks.sources.table_files import count_file_rows

COUNTRIES = ["DE", " FR", "NA", "US", "", "None", " NA "] * 30
READ = ["DE", "FR", None, "US", None, None, None] * 30


def ingest(path: Path, *keep: str, **problem: Any) -> pd.DataFrame:
    content = {"source": path.name, "format": {"keep_words": list(keep)}}
    settings = project_params.parse_settings(
        {"project": "p", "problem": {"kind": "regression", "target": "price", **problem}, "data": content}
    )
    target = path.parent / "table"
    ingestion.write_table(path.parent, settings, target, path.parent)
    return table_io.read_parquet(target)


def read_countries(path: Path, *keep: str) -> list[Any]:
    found = ingest(path, *keep)["country"]
    return found.astype(object).where(found.notna(), None).tolist()


def write_countries(path: Path, gap: str = "") -> Path:
    frame = pd.DataFrame({"country": COUNTRIES, "price": [str(i) for i in range(len(COUNTRIES))]})
    frame["size"] = ["7", gap] * (len(frame) // 2)
    if path.suffix == ".csv":
        path.write_text("\n".join(["country,price,size", *(",".join(row) for row in frame.to_numpy())]) + "\n")
    elif path.suffix == ".jsonl":
        frame.astype({"price": float}).drop(columns="size").to_json(path, orient="records", lines=True)
    else:
        pq.write_table(pa.table({"country": COUNTRIES, "price": pa.array(range(len(frame)), pa.float64())}), path)
    return path


# C1: what a table file is


def write_sales(path: Path, delimiter: str, price: str, packed: bool = False) -> Path:
    text = (
        "\n".join(delimiter.join(row) for row in (("id", "size", "price"), ("a", "1", "10"), ("b", "2", price))) + "\n"
    )
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def test_c1_an_updated_row_of_a_semicolon_file_counts_as_updated(tmp_path: Path) -> None:
    old, new = (write_sales(tmp_path / f"{name}.csv", ";", price) for name, price in (("old", "20"), ("new", "21")))
    changes = compare_snapshots([old], [new], ["id"])
    assert changes is not None
    assert (changes.new, changes.updated, changes.deleted, changes.by) == (0, 1, 0, "id")


@pytest.mark.parametrize("delimiter", ["|", "\t", ","])
def test_c1_n1_packed_files_of_any_delimiter_are_compared_by_cells(tmp_path: Path, delimiter: str) -> None:
    old = write_sales(tmp_path / "old.tsv", ";", "20")
    new = write_sales(tmp_path / "new.tsv.gz", delimiter, "21", packed=True)
    assert count_file_rows(new) == 2
    changes = compare_snapshots([old], [new], ["id"])
    assert changes is not None
    assert (changes.new, changes.updated, changes.deleted) == (0, 1, 0)


@pytest.mark.parametrize(
    "name", ["labels.csv.gz", "labels.TSV", "labels.csv.zst", "labels.jsonl.gz", "labels.parquet.gz"]
)
def test_c1_n2_label_files_are_tables_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = '{"id": "a", "label": 1.5}\n{"id": "b", "label": 2}\n' if "jsonl" in name else "id|label\na|1.5\nb|2\n"
    if "parquet" in name:
        pq.write_table(pa.table({"id": ["a", "b"], "label": [1.5, 2.0]}), tmp_path / "plain")
        content = (tmp_path / "plain").read_bytes()
    else:
        content = text.encode()
    kind = cell_reading.find_packing(path)
    with pa.output_stream(str(path), compression=kind) as out:
        out.write(content)
    assert [(one.id, one.label) for one in read_label_file(path, LabelRules("regression"))] == [
        ("a", 1.5),
        ("b", 2.0),
    ]
    if kind:
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(InputError, match=r"unpacked|damaged"):
            list(read_label_file(path, LabelRules("regression")))


# C2: words that mean no value


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_c2_words_that_mean_no_value_are_the_same_in_every_format(tmp_path: Path, name: str) -> None:
    assert read_countries(write_countries(tmp_path / name)) == READ


@pytest.mark.parametrize("gap", ["", "NA", " null "])
def test_c2_n1_kept_words_are_values_and_numbers_beside_them_still_have_gaps(tmp_path: Path, gap: str) -> None:
    kept = [word.strip() or None for word in COUNTRIES]
    path = write_countries(tmp_path / "t.csv", gap)
    assert read_countries(path, "country") == kept
    assert ingest(path, "country")["size"].isna().sum() == len(COUNTRIES) // 2
    assert read_countries(write_countries(tmp_path / "t.parquet"), "country") == kept
    # Files that are joined are read once, not twice.
    (tmp_path / "both").mkdir()
    for part in ("a.csv", "b.csv"):
        write_countries(tmp_path / "both" / part, gap)
    assert read_countries(tmp_path / "both", "country") == kept * 2


def test_c2_init_reports_words_that_may_be_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = houses(300).assign(town=["NA", "Ulm", "None", "Bonn", "Kiel"] * 60)
    rows.to_csv("t.csv", index=False)
    lines = settings_proposal.propose_settings(Path("t.csv"), "price").assumptions
    (line,) = [line for line in lines if line.startswith("no value")]
    assert "NA, None (40.0%) in 'town'" in line
    assert "keep_words: [town]" in line
    houses(300).to_csv("t.csv", index=False)
    assert not [
        n for n in settings_proposal.propose_settings(Path("t.csv"), "price").assumptions if n.startswith("no value")
    ]


@pytest.mark.parametrize(
    ("words", "width"),
    [(["01067", "98001"], 5), (["01067", "1067"], 0), (["98001", "12345"], None), (["01067", "A12"], 5), (["a"], None)],
)
def test_c2_codes_have_a_width_or_numbers_cannot_name_them(words: list[str], width: int | None) -> None:
    assert cell_reading.find_code_width(words) == width


# C3: names of columns


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_c3_blanks_around_column_names_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    rows = houses(300).rename(columns={"price": " Average Total Payments ", "town": "town "})
    if name == "t.csv":
        rows.to_csv(name, index=False)
    elif name == "t.jsonl":
        rows.assign(day=rows["day"].astype("str")).to_json(name, orient="records", lines=True)
    else:
        rows.to_parquet(name, index=False)
    proposal = settings_proposal.propose_settings(Path(name), "Average Total Payments ", ignore=("town ",))
    assert proposal.params["problem"]["target"] == "Average Total Payments"
    frame = ingest(tmp_path / name, target="Average Total Payments ")
    assert {"Average Total Payments", "town", "size", "day"} <= set(frame)


WRITTEN = {
    "8/15/14": ["8/15/14", "8/1/14"],
    "Jan-05": ["Jan-05", "Feb-05"],
    "Jan 2005": ["Jan 2005", "May 2005"],
    "2014Q1": ["2014Q1", "2014-Q4"],
    "Q1 2014": ["Q1 2014", "Q4 2014"],
    "2014-W05": ["2014-W05", "2015-W53"],
    "2014M05": ["2014M05", "2014m12"],
    "FY2014": ["FY2014", "FY 2015"],
    "Jan 1 2000": ["Jan 1 2000", "Feb 29 2000"],
    "15.08.2014": ["15.08.2014", "01.09.2014"],
    "15-Aug-14 10:30": ["15-Aug-14 10:30"],
}


@pytest.mark.parametrize("form", WRITTEN)
def test_d3_n6_a_request_reads_dates_as_ingest_does(form: str) -> None:
    """Words of a request, of a CSV and of JSON, beside the column that training read."""
    words = WRITTEN[form]
    (fitting,) = text_parsing.find_date_forms(pl.Series(words))
    trained = text_parsing.parse_dates(pl.Series(words), fitting).to_physical().to_list()
    signature = ModelSignature((InputColumn("day", "date", True),))
    for (reader,) in (signature.from_text, signature.from_json):
        assert reader.read([*words, ""]) == [*trained, None]


def assert_both_doors_read(words: list[str], days: list[str]) -> None:
    """Words are the same dates for ingest, for a request in CSV and for one in JSON."""
    (fitting,) = text_parsing.find_date_forms(pl.Series(words))
    trained = text_parsing.parse_dates(pl.Series(words), fitting)
    assert trained.to_list() == [pd.Timestamp(day).to_pydatetime() for day in days]
    signature = ModelSignature((InputColumn("day", "date", True),))
    for (reader,) in (signature.from_text, signature.from_json):
        assert reader.read(words) == trained.to_physical().to_list()


def test_d7_n37_a_month_and_a_day_without_a_comma_are_a_date() -> None:
    assert_both_doors_read(["Jan 1 2000", "Feb 29 2000", "May 01 2000"], ["2000-01-01", "2000-02-29", "2000-05-01"])


def test_d7_n38_a_whole_month_and_a_day_without_a_comma_are_a_date() -> None:
    assert_both_doors_read(["January 1 2000", "May 31 2000"], ["2000-01-01", "2000-05-31"])


def test_d7_n39_a_month_and_a_day_without_a_comma_may_have_a_time() -> None:
    assert_both_doors_read(["Jan 1 2000 10:30", "May 2 2000 0:05"], ["2000-01-01 10:30", "2000-05-02 00:05"])
    assert_both_doors_read(["January 1 2000 1:30 PM"], ["2000-01-01 13:30"])


def test_d7_n40_a_whole_month_between_hyphens_is_a_date() -> None:
    assert_both_doors_read(["1-January-2000", "31-May-2000"], ["2000-01-01", "2000-05-31"])


def test_d7_n41_a_day_that_no_month_has_is_no_date() -> None:
    assert not text_parsing.find_date_forms(pl.Series(["Jan 1 2000", "Feb 30 2000"]))
    assert not text_parsing.find_date_forms(pl.Series(["Jan 1 2000", "Jan 12000"]))


def test_d3_n7_a_request_whose_day_and_month_cannot_be_distinguished_is_refused() -> None:
    (reader,) = ModelSignature((InputColumn("day", "date", False),)).from_json
    with pytest.raises(CellRefused, match="is not a date: write 2024-05-31"):
        reader.read(["01/02/2024"])
    assert reader.read(["2024-05-31"]) == [1_717_113_600_000_000]
    (reader,) = ModelSignature((InputColumn("day", "date", False, dates="day_first"),)).from_json
    assert reader.read(["31/05/2024", "01/05/2024"])[0] == 1_717_113_600_000_000
    assert reader.read(["01/02/2024"]) == [1_706_745_600_000_000]


# D7: numbers as people write them

WRITTEN_NUMBERS = {
    NumberForm(",", ".", ("€", "%")): {
        "1.234,50": 1234.5,
        "-1.234.567,5": -1234567.5,
        "1234": 1234.0,
        "5,00-": -5.0,
        "(1.234,5)": -1234.5,
        "12,5\u00a0€": 12.5,
        "€-5": -5.0,
        "\u22125,5%": -5.5,
        "1,5E3": 1500.0,
        "1.23": None,
        "12.34,5": None,
        "1,2,3": None,
        "--5": None,
        "€5€": None,
        "(5": None,
        "$5": None,
        "x": None,
    },
    NumberForm(".", ",", ("$", "US$")): {"12,34,567.5": 1234567.5, "US$ 1,234": 1234.0, "1,23": None, "0,123": None},
    NumberForm(".", "'"): {"1'234.5": 1234.5, "1’234’567": 1234567.0, "1'23": None},
    NumberForm(",", " "): {"1\u202f234,5": 1234.5, "1\u00a0234\u2009567": 1234567.0, "1.5": 1.5, "1 23": None},
    NumberForm(",", None, ("%",), required=True): {"5%": 5.0, "% 5": 5.0, "5": None, "%5%": None},
}


@pytest.mark.parametrize("form", WRITTEN_NUMBERS)
def test_d7_n8_ingest_and_requests_read_a_number_alike(form: NumberForm) -> None:
    words = WRITTEN_NUMBERS[form]
    assert {word: form.read(word) for word in words} == words
    assert text_parsing.read_numbers(pl.Series(list(words)), form).to_list() == list(words.values())
    assert NumberForm.from_json(json.loads(json.dumps(asdict(form)))) == form


def test_d7_n9_a_form_is_that_of_the_table_and_codes_stay_words(tmp_path: Path) -> None:
    lines = ["price;zip;plain;day", "1.234;01067;1.5e2;01.02.2024", ";04109;;", "2.500,5;98001;3;13.02.2024"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = ingest_written(tmp_path, "t.csv", {"decimal": ",", "thousands": "."}, ignore=["plain"])
    assert table["price"].tolist()[::2] == [1234.0, 2500.5]
    assert table["zip"].tolist() == ["01067", "04109", "98001"]
    assert str(table["day"][2].date()) == "2024-02-13"


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_d7_n10_text_cells_of_typed_files_are_read_where_they_show_marks(tmp_path: Path, name: str) -> None:
    columns = {"price": ["1.234,5", "7", None], "code": ["12", "13", "14"], "size": [1.5, 2.5, 3.5]}
    if name == "t.parquet":
        pq.write_table(pa.table(columns), tmp_path / name)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = ingest_written(tmp_path, name, {"decimal": ",", "thousands": "."})
    assert table["price"].tolist()[:2] == [1234.5, 7.0]
    assert table["code"].tolist() == ["12", "13", "14"]
    assert table["size"].tolist() == [1.5, 2.5, 3.5]


def test_d7_n11_a_mark_far_below_the_first_rows_is_found(tmp_path: Path) -> None:
    rows = [f"{i % 900};{i}" for i in range(12_000)]
    (tmp_path / "t.csv").write_text("\n".join(["price;size", *rows, "1.234;1", "1.234.567,5;2"]) + "\n")
    table = ingest_written(tmp_path, "t.csv", {"decimal": ",", "thousands": "."})
    assert table["price"].tolist()[-2:] == [1234.0, 1234567.5]
    with pytest.raises(
        InputError, match=r"column 'price'.*12002 values that are not, the first '1.234.567,5' on line 12003"
    ):
        ingest_written(tmp_path, "t.csv", {})


def test_d7_n12_labels_are_numbers_of_the_same_form(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id;label\na;1.234,50\nb;0\nc;\n")
    rules = LabelRules("regression", numbers=NumberForm(",", "."))
    read = read_label_file(tmp_path / "labels.csv", rules)
    assert ([(one.id, one.label) for one in read], read.empty) == ([("a", 1234.5), ("b", 0.0)], 1)
    assert parse_label_objects([{"id": "a", "label": "2,5"}], rules).statements[0].label == 2.5
    (tmp_path / "labels.csv").write_text("id;label\na;1.23\n")
    with pytest.raises(InputError, match=r"line 2: label '1.23' is no number as data.format has it"):
        list(read_label_file(tmp_path / "labels.csv", rules))


def ingest_written(root: Path, name: str, form: dict[str, Any], **problem: Any) -> pd.DataFrame:
    params = {
        "project": "t",
        "problem": {"kind": "regression", "target": "price", **problem},
        "data": {"source": name, "format": form},
    }
    ingestion.write_table(root, project_params.parse_settings(params), root / "table", root)
    return table_io.read_parquet(root / "table")
