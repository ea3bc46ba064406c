from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.projects import ROOT
from tests.support.tables import chosen, every_type, houses, ingested
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, row_keys, table_io
from windvane.tasks.settings import project_params
from windvane.tasks.validate import table_profile


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


GOOD = [f"2020-01-{i:02d},{i}.5,Ulm,{i * 10}" for i in range(1, 29)]
HEAD = "day,size,town,price"

BAD: dict[str, tuple[str, bytes, dict[str, object], list[str]]] = {
    "empty": ("t.csv", b"", {}, ["is empty", "Export"]),
    "only blank lines": ("t.csv", b"\n\n", {}, ["is empty", "Export"]),
    "header only": ("t.csv", lines(HEAD), {}, ["no rows", "Export"]),
    "one column": ("t.csv", lines("price", "1", "2"), {}, ["one column", "'price'", "Export"]),
    "duplicate column": ("t.csv", lines("price,size,size", "1,2,3"), {}, ["'size'", "2 times", "name of its own"]),
    "two columns of a name": ("t.csv", lines("x,price,x", "0,1,2"), {}, ["column 'x' appears 2 times", "Give each"]),
    "ragged": (
        "t.csv",
        lines(HEAD, *GOOD[:3], "", "2020-02-01,1,Ulm", *GOOD[4:]),
        {},
        ["line 6", "3 cells", "4 columns", "Fix"],
    ),
    "not UTF-8": (
        "t.csv",
        lines(HEAD, *GOOD) + "2020-02-01,1,Köln,9\n".encode("cp1252"),
        {},
        ["line 30", "'town'", "Windows-1252", "'ö'", "Save"],
    ),
    "header not UTF-8": ("t.csv", "preis,größe\n1,2\n".encode("cp1252"), {}, ["line 1", "header", "Save"]),
    "UTF-16": ("t.csv", "price,size\n1,2\n".encode("utf-16"), {}, ["UTF-16", "Save"]),
    "mixed types": (
        "t.csv",
        lines(HEAD, *GOOD[:4], "2020-01-05,unknown,Ulm,50", *GOOD[5:]),
        {},
        ["'size'", "mixes types", "1 of 28", "'unknown'", "line 6", "problem.ignore"],
    ),
    "mixed dates": (
        "t.csv",
        lines(HEAD, *GOOD[:4], "soon,5.5,Ulm,50", *GOOD[5:]),
        {},
        ["'day'", "dates", "'soon'", "line 6", "problem.ignore"],
    ),
    "thousands marks": (
        "t.csv",
        lines("price,size", *(f'"{i},250",{i}' for i in range(1, 30))),
        {},
        ["'price'", "'1,250'", "line 2", "data.format", 'thousands: ","'],
    ),
    "decimal commas": (
        "t.csv",
        lines("price;size", *(f"{i},5;{i}" for i in range(1, 30))),
        {},
        ["'price'", "'1,5'", 'data.format: {decimal: ","}'],
    ),
    "reserved name": ("t.csv", lines("_row,price,size", "1,2,3"), {}, ["'_row'", "Rename"]),
    "target absent": ("t.csv", lines(HEAD, *GOOD), {"target": "pryce"}, ["problem.target", "'pryce'", "mean 'price'"]),
    "time absent": ("t.csv", lines(HEAD, *GOOD), {"time": "Day"}, ["problem.time", "'Day'", "mean 'day'"]),
    "ignored absent": ("t.csv", lines(HEAD, *GOOD), {"ignore": ["tow"]}, ["problem.ignore", "'tow'", "mean 'town'"]),
    "time of words": (
        "t.csv",
        lines(HEAD, *GOOD),
        {"time": "town"},
        ["problem.time", "'town'", "'Ulm'", "Write dates"],
    ),
    "time two ways": (
        "t.csv",
        lines("day,price", *(f"0{i % 9 + 1}/0{i % 7 + 1}/2020,{i}" for i in range(30))),
        {"time": "day"},
        ["problem.time", "'day'", "day and month", "line 2", "Write dates"],
    ),
    "time with gaps": (
        "t.csv",
        lines(HEAD, *GOOD[:4], ",5.5,Ulm,50", *GOOD[5:]),
        {"time": "day"},
        ["problem.time", "'day'", "empty in 1 rows", "line 6", "delete"],
    ),
    "broken Parquet": ("t.parquet", b"PAR1 nothing more PAR1", {}, ["damaged", "again"]),
    "CSV called Parquet": ("t.parquet", lines(HEAD, *GOOD), {}, ["damaged, or no Parquet", "again"]),
    "broken JSON line": (
        "t.jsonl",
        lines('{"price": 1, "size": 2}', '{"price": 2, "size"', '{"price": 3, "size": 2}'),
        {},
        ["line 2", "broken JSON", "Fix"],
    ),
    "JSON list of numbers": ("t.json", lines("[1, 2]"), {}, ["line 1", "no object", "a list of objects"]),
    "JSON number": ("t.json", lines("17"), {}, ["line 1", "no JSON object", "one row a line"]),
    "mixed JSON": (
        "t.jsonl",
        lines(*(json.dumps({"price": i, "size": "big" if i == 7 else i}) for i in range(9))),
        {},
        ["'size'", "mixes types", "'big'", "line 8", "problem.ignore"],
    ),
    "unknown format": ("t.docx", b"x", {}, ["format", ".csv"]),
    "no workbook": ("t.xlsx", b"x", {}, ["damaged, or no workbook", "Export"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_message_and_leaves_no_file(name: str, tmp_path: Path) -> None:
    file, content, problem, said = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        ingestion.run_ingest(tmp_path, chosen(file, **problem))
    message = str(caught.value)
    assert file in message
    assert "\n" not in message
    for words in said:
        assert words in message, message
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [file]


def test_missing_file_says_what_is_near_by(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_bytes(lines(HEAD, *GOOD))
    with pytest.raises(InputError, match=r"hauses\.csv: not found.*Did you mean .*houses\.csv"):
        ingestion.run_ingest(tmp_path, chosen("hauses.csv"))
    with pytest.raises(InputError, match=r"not found.*no folder"):
        ingestion.run_ingest(tmp_path, chosen("nowhere/houses.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        ingestion.run_ingest(tmp_path, chosen("folder.csv"))


def test_a_bom_semicolons_and_blank_cells_are_read_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffprice; size ;ok;note\n1;2.5;true;\n\n 2 ; ;False;"a\nb"\n3;NA;;x\n'.encode())
    frame = ingested(path)
    assert list(frame.columns) == ["price", "size", "ok", "note", table_io.ROW_KEY]
    assert frame["price"].tolist() == [1, 2, 3]
    assert frame["size"].isna().tolist() == [False, True, True]
    assert str(frame["ok"].dtype) == "boolean"
    assert frame["note"].tolist()[1] == "a\nb"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["2020-03-01T10:00:00+02:00", "2020-03-02T00:00:00Z"], ["2020-03-01 08:00", "2020-03-02 00:00"]),
        (["13/02/2020", "01/03/2020"], ["2020-02-13", "2020-03-01"]),
        (["02/13/2020 14:30", "03/01/2020 00:00"], ["2020-02-13 14:30", "2020-03-01"]),
        (["01.03.2020", "02.03.2020"], ["2020-03-01", "2020-03-02"]),
        (["Mar 1, 2020", "Mar 2, 2020"], ["2020-03-01", "2020-03-02"]),
        (["2020/03/01", "2020/03/02"], ["2020-03-01", "2020-03-02"]),
    ],
)
def test_dates_as_text_become_utc(words: list[str], expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"price": [1, 2], "day": words}).to_csv(path, index=False)
    frame = ingested(path, time="day")
    assert str(frame["day"].dtype) == "datetime64[us]"
    assert frame["day"].tolist() == [pd.Timestamp(e) for e in expected]


def test_what_cannot_be_told_stays_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    codes = [str(85000 + i) for i in range(300)] + [f"8512{i}A" for i in range(25)]
    table = pd.DataFrame({"price": range(325), "code": codes, "either": ["01/02/2020", "03/04/2020"] * 162 + [""]})
    table.to_csv(path, index=False)
    frame = ingested(path)
    assert str(frame["code"].dtype) == "str"
    assert str(frame["either"].dtype) == "str"
    # An ignored column may mix what it likes.
    table.assign(code=["x", *codes[1:300], *map(str, range(25))]).to_csv(path, index=False)
    with pytest.raises(InputError, match="'code' mixes types"):
        ingested(path)
    assert str(ingested(path, ignore=["code"])["code"].dtype) == "str"


def test_every_column_type_is_read_or_named(tmp_path: Path) -> None:
    path = every_type(tmp_path / "t.parquet")
    with pytest.raises(InputError) as caught:
        ingested(path)
    assert all(f"{name!r} holds" in str(caught.value) for name in ("list", "struct", "bytes"))
    frame = ingested(path, ignore=["list", "struct", "bytes"], time="seen at")
    dtypes = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert "list" not in dtypes
    assert {dtypes[n] for n in ("float", "float32", "int8 gaps", "decimal", "time", "span", "no")} == {"float64"}
    assert (dtypes["int"], dtypes["bool"], dtypes["bool gaps"]) == ("int64", "bool", "boolean")
    assert {dtypes[n] for n in ("iso text", "date", "seen at", "zoned")} == {"datetime64[us]"}
    assert {dtypes[n] for n in ("words", "dictionary", "text", "unsigned")} == {"str"}
    assert frame["zoned"].iloc[0] == pd.Timestamp("2020-01-01 10:00")
    assert frame["time"].iloc[0] == 12 * 3600
    found = {c.name: c for c in table_profile.profile_table(frame).columns}
    assert found["text"].type == "text"
    assert found["words"].type == "category"
    assert found["no"].distinct == 0


def test_formats_agree_to_the_row_key(tmp_path: Path) -> None:
    table = houses()
    table.loc[3, "size"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "t.parquet")
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True, date_format="iso")
    frames = [ingested(tmp_path / f"t.{end}", time="day") for end in ("csv", "tsv", "parquet", "jsonl")]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_keys_outlive_order_growth_and_a_gap() -> None:
    table = pd.DataFrame({"n": [1, 2, 3], "b": [True, False, True], "s": ["a", "b", "ü"]})
    names = ("n", "b", "s")
    key = row_keys.hash_rows(table, names)
    assert list(row_keys.hash_rows(table.iloc[::-1], names[::-1])) == list(key[::-1])
    grown = pd.concat([table, pd.DataFrame({"n": [np.nan], "b": [None], "s": [None]})], ignore_index=True)
    grown["b"] = grown["b"].astype("boolean")
    assert list(row_keys.hash_rows(grown, names)[:3]) == list(key)
    assert (
        row_keys.hash_rows(table.assign(n=[1, 2, 2**60]), names)[2]
        != row_keys.hash_rows(table.assign(n=[1, 2, 2**60 + 1]), names)[2]
    )
    # Fixed for ever: these values must not change with a library's version, or every row would change sides.
    assert list(key) == [-4991710843025903801, -7946793325604590105, -1765967885209267023]


def test_rows_follow_time_and_the_file_is_the_same_to_the_byte(tmp_path: Path) -> None:
    table = houses().sample(frac=1, random_state=0)
    table.to_csv(tmp_path / "t.csv", index=False)
    ingestion.run_ingest(tmp_path, chosen("t.csv", time="day"))
    first = (tmp_path / table_profile.TABLE_FILE).read_bytes()
    assert table_io.read_parquet(tmp_path / table_profile.TABLE_FILE)["day"].is_monotonic_increasing
    ingestion.run_ingest(tmp_path, chosen("t.csv", time="day"))
    assert (tmp_path / table_profile.TABLE_FILE).read_bytes() == first


def test_texas_house_prices_are_read_alike_from_both_formats(whole_table: Callable[[str], Path]) -> None:
    mine = project_params.load_settings(ROOT / "params.yaml").problem
    named = mine.model_dump()
    csv = ingested(ROOT / "data/txhousing.csv", **named)
    pd.testing.assert_frame_equal(csv, ingested(whole_table("txhousing.parquet"), **named))
    assert len(csv) == csv[table_io.ROW_KEY].nunique() == 8602
    assert csv["median"].isna().sum() == 616


def test_duplicate_names_and_row_labels_in_parquet(tmp_path: Path) -> None:
    twice = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["price", "size", "size"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'size' appears 2 times"):
        ingested(tmp_path / "t.parquet")
    houses(60).sample(frac=1, random_state=1).to_parquet(tmp_path / "t.parquet")
    assert list(ingested(tmp_path / "t.parquet").columns) == ["day", "size", "town", "price", table_io.ROW_KEY]
