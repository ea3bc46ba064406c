"""Workbooks are tables: their sheets, types of cells, titles and rows by number; at every door of files."""

from __future__ import annotations

import datetime as dt
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from tests.support.sources import ingest as ingest_file
from tests.support.sources import write_book
from windvane.cli.main import main
from windvane.flows.score_files import check_score_files, open_scored_file, read_pieces
from windvane.tasks.errors import InputError
from windvane.tasks.label_parsing import LabelRules, read_label_file
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import FormatSettings
from windvane.tasks.sources import table_files

ingest = partial(ingest_file, name="t.xlsx")
HEAD = ["day", "price", "rooms", "sold", "zip", "town"]
ROWS: list[list[Any]] = [
    [
        dt.datetime(2024, 1, 1) + dt.timedelta(days=i),
        100.25 + i,
        i % 7,
        i % 2 == 0,
        f"0{1000 + i}",
        "Ulm" if i % 3 else "Bonn",
    ]
    for i in range(60)
]


def test_d7_n25_a_workbook_is_read_with_the_types_of_its_cells(tmp_path: Path) -> None:
    gaps = [[None, 1.5, None, None, None, None], [dt.datetime(2024, 5, 1, 12, 30), 2, 3, True, "04109", "Kiel"]]
    write_book(tmp_path / "t.xlsx", Prices=[HEAD, *ROWS, *gaps], Empty=[])
    found = ingest(tmp_path)
    assert [kind.kind for kind in found.dtypes[:2]] == ["M", "f"]
    assert found["price"].tolist()[-2:] == [1.5, 2.0]
    assert found["rooms"].tolist()[:3] == [0, 1, 2]
    assert (found["zip"][0], bool(found["sold"][0]), found["town"][1]) == ("01000", True, "Ulm")
    assert found["day"].iloc[-1] == pd.Timestamp("2024-05-01 12:30")


def test_d7_n26_of_several_sheets_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_book(tmp_path / "t.xlsx", Read_me=[["notes", "x"], ["a", 1]], Prices=[HEAD, *ROWS])
    with pytest.raises(
        InputError, match=r"has the sheets 'Read_me', 'Prices'. Name one of them: data.format: {sheet: Read_me}"
    ):
        ingest(tmp_path)
    assert len(ingest(tmp_path, {"sheet": "Prices"})) == 60
    with pytest.raises(InputError, match=r"has no sheet 'Rents', only 'Read_me', 'Prices'"):
        ingest(tmp_path, {"sheet": "Rents"})
    ran = CliRunner().invoke(main, ["init", "t.xlsx", "--target", "price"])
    assert "sheet 'Prices' of 'Read_me', 'Prices' is read (a guess); --format sheet=" in ran.output
    assert project_params.load_settings().data.format.sheet == "Prices"
    ran = CliRunner().invoke(main, ["init", "t.xlsx", "--target", "x", "--format", "sheet=Prices"])
    assert (ran.exit_code, "has no column 'x'" in ran.output) == (2, True)


def test_d7_n27_titles_and_faults_of_a_sheet_are_found_by_their_rows(tmp_path: Path) -> None:
    rows = [list(row) for row in ROWS]
    rows[2][5] = "Ulm\nWest"
    rows[9][1] = "many"
    write_book(tmp_path / "t.xlsx", Prices=[["Sales of 2024"], [], HEAD, *rows])
    with pytest.raises(InputError, match=r"line 1, .* is no header. Set data.format: {skip_rows: 2}"):
        ingest(tmp_path)
    with pytest.raises(InputError, match="'many' on row 13"):
        ingest(tmp_path, {"skip_rows": 2})


@pytest.mark.parametrize("name", ["t.xlsx", "t.xls", "t.ods"])
def test_d7_n28_what_is_no_workbook_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"day,price\n2024-01-01,1\n")
    with pytest.raises(InputError, match=r"is damaged, or no workbook .*Export or copy it again"):
        ingest(tmp_path, name=name)
    write_book(tmp_path / "t.csv", Prices=[HEAD, *ROWS])
    with pytest.raises(InputError, match=r"a workbook is read if its name ends in .xlsx"):
        ingest(tmp_path, name="t.csv")


def test_d7_n29_score_and_labels_take_workbooks(tmp_path: Path) -> None:
    path = write_book(tmp_path / "t.xlsx", Prices=[HEAD, *ROWS])
    check_score_files(path, tmp_path / "out.csv")
    (piece,) = read_pieces(open_scored_file(path, tmp_path, FormatSettings()), tmp_path)
    assert piece.table["price"].to_pylist()[:2] == ["100.25", "101.25"]
    with pytest.raises(InputError, match=r"out.xlsx: is neither CSV"):
        check_score_files(path, tmp_path / "out.xlsx")
    write_book(tmp_path / "labels.xlsx", Labels=[["id", "label"], [7, 1.5], ["b", None]])
    received = read_label_file(tmp_path / "labels.xlsx", LabelRules("regression"))
    assert ([(one.id, one.label) for one in received], received.empty) == ([("7", 1.5)], 1)


def test_d7_n30_a_folder_leaves_out_what_excel_has_open(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write_book(tmp_path / "tables" / "a.xlsx", Prices=[HEAD, *ROWS])
    (tmp_path / "tables" / "~$a.xlsx").write_bytes(b"lock")
    assert [path.name for path in table_files._list_folder(tmp_path / "tables")] == ["a.xlsx"]
    assert len(ingest(tmp_path, name="tables")) == 60
