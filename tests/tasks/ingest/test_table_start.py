"""Where a text table begins: headers without names or none at all, titles, comments, Excel's hint; at every door of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from tests.support.sources import ingest
from windvane.cli.main import main
from windvane.flows.score_files import open_scored_file, read_pieces
from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import (
    call_column,
    find_table_start,
    has_data_in_header,
    name_columns,
    suggest_start_keys,
)
from windvane.tasks.label_parsing import LabelRules, read_label_file
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import FormatSettings
from windvane.tasks.sources.fetch import compare_snapshots
from windvane.tasks.sources.table_files import count_file_rows

ROWS = [f"{10 + i}.5,{'Ulm' if i % 3 else 'Bonn'},{i * i % 7}" for i in range(60)]
HEAD = "price,town,rooms"


def write(path: Path, *lines: str) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def run_init(
    root: Path, monkeypatch: pytest.MonkeyPatch, *options: str, target: str = "price"
) -> tuple[str, FormatSettings]:
    monkeypatch.chdir(root)
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", target, *options])
    assert ran.exit_code == 0, ran.output
    return ran.output, project_params.load_settings().data.format


def test_d7_n13_a_header_that_names_no_first_column_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    for head in (f",{HEAD}", f'"",{HEAD}', HEAD, f"\n \n,{HEAD}"):
        path = write(tmp_path / "t.csv", head, *(f"{i},{row}" for i, row in enumerate(ROWS, 1)))
        found = ingest(tmp_path)
        assert list(found) == ["Unnamed: 0", "price", "town", "rooms"]
        assert found["Unnamed: 0"].tolist() == list(range(1, 61))
        if head != HEAD:
            assert list(found) == list(pd.read_csv(path, skip_blank_lines=True))


def test_d7_n14_init_leaves_row_numbers_out_and_takes_dates_without_a_name_for_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.csv", f",{HEAD}", *(f"{i},{row}" for i, row in enumerate(ROWS)))
    said, _ = run_init(tmp_path, monkeypatch)
    assert "'Unnamed: 0' has no name in the header (sure)" in said
    problem = project_params.load_settings().problem
    assert (problem.ignore, problem.id) == (("Unnamed: 0",), None)
    days = pd.date_range("2024-01-01", periods=60)
    write(tmp_path / "t.csv", f",{HEAD}", *(f"{day:%Y-%m-%d},{row}" for day, row in zip(days, ROWS, strict=True)))
    run_init(tmp_path, monkeypatch)
    assert project_params.load_settings().problem.time == "Unnamed: 0"


@pytest.mark.parametrize("end", ["", ","])
def test_d7_n15_delimiters_at_the_ends_of_lines_make_no_column(tmp_path: Path, end: str) -> None:
    write(tmp_path / "t.csv", HEAD + end, *(f"{row}," for row in ROWS))
    assert list(ingest(tmp_path)) == ["price", "town", "rooms"]
    write(tmp_path / "t.csv", HEAD + end, *(f"{row}," for row in ROWS), "1.5,Ulm,3,found later")
    assert ingest(tmp_path)["Unnamed: 3"].dropna().tolist() == ["found later"]


def test_d7_n16_a_file_without_a_header_is_noticed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t.csv", *ROWS)
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price"])
    assert ran.exit_code == 2
    assert "t.csv: line 1, '10.5,Bonn,0', looks like a row and no header (likely)" in ran.output
    said, form = run_init(tmp_path, monkeypatch, target="column_1")
    assert "looks like a row and no header (likely): its columns are called column_1 to column_3" in said
    assert form.header is False
    said, form = run_init(tmp_path, monkeypatch, "--format", "header=[price, town, rooms]")
    assert form.header == ("price", "town", "rooms")
    found = ingest(tmp_path, {"header": ["price", "town", "rooms"]})
    assert (len(found), found["price"][0]) == (60, 10.5)
    said, _ = run_init(tmp_path, monkeypatch, target="10.5")
    assert "attention: t.csv: line 1" in said
    with pytest.raises(
        InputError, match=r"problem.target.*no column 'price'.*; .*looks like a row and no header.*header: false"
    ):
        ingest(tmp_path)


@pytest.mark.parametrize(
    ("header", "rows", "data"),
    [
        ("5.1,3.5,Iris-setosa", ["4.9,3.0,Iris-setosa", "4.7,3.2,Iris-setosa"], True),
        ("2024-01-01;1,5", ["2024-01-02;1,6", "2024-01-03;1,7"], True),
        ("0,0,0,1", ["0,0,1,1", "0,1,0,0"], True),
        ("country,2001,2002,2003", ["DE,1,2,3", "FR,4,5,6"], False),
        ("label,0,1,2,3", ["5,0,0,255,1", "3,0,0,12,9"], False),
        ("a,b", ["x,y", "z,w"], False),
        ("1,price", ["2,5.5", "3,6.5"], False),
    ],
)
def test_d7_n17_names_that_are_numbers_are_names(header: str, rows: list[str], data: bool) -> None:
    start = find_table_start([f"{line}\n" for line in (header, *rows)])
    assert start is not None
    assert has_data_in_header(start) is data


@pytest.mark.parametrize(
    ("above", "key"),
    [
        (["Sales of 2020"], "skip_rows: 1"),
        (["Sales; by town", "", "as of May"], "skip_rows: 3"),
        (["Sales,,"], "skip_rows: 1"),
        (["# made by hand, 2020", "# a, b, c, d"], "comment: '#'"),
    ],
)
def test_d7_n18_what_is_above_the_header_is_named_and_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: list[str], key: str
) -> None:
    write(tmp_path / "t.csv", *above, HEAD, *ROWS)
    with pytest.raises(InputError, match=rf"line 1, .* is no header. Set data.format: {{{key}}} in params.yaml"):
        ingest(tmp_path)
    said, form = run_init(tmp_path, monkeypatch)
    assert "is no header (likely)" in said
    found = ingest(tmp_path, form.model_dump(exclude_defaults=True))
    assert (list(found), len(found)) == (["price", "town", "rooms"], 60)


@pytest.mark.parametrize("hint", ["sep=;", "SEP=;", '"sep=;"'])
def test_d7_n19_excels_hint_names_the_delimiter(tmp_path: Path, hint: str) -> None:
    lines = [line.replace(",", ";").replace(".", ",") for line in (HEAD, *ROWS)]
    write(tmp_path / "t.csv", hint, *lines)
    assert ingest(tmp_path, {"decimal": ","})["price"][0] == 10.5


def test_d7_n20_lines_keep_their_numbers_whatever_is_left_out(tmp_path: Path) -> None:
    rows = [*ROWS[:10], "# by hand", *ROWS[10:20], "many,Ulm,3", *ROWS[20:]]
    write(tmp_path / "t.csv", "Sales", "", HEAD, *rows)
    with pytest.raises(InputError, match="'many' on line 25"):
        ingest(tmp_path, {"skip_rows": 2, "comment": "#"})
    write(tmp_path / "t.csv", *ROWS[:10], "many,Ulm,3", *ROWS[10:])
    with pytest.raises(InputError, match="'many' on line 11"):
        ingest(tmp_path, {"header": ["price", "town", "rooms"]})
    write(tmp_path / "t.csv", *ROWS[:10], "1,Ulm", *ROWS[10:])
    with pytest.raises(InputError, match="line 11 has 2 cells"):
        ingest(tmp_path, {"header": ["price", "town", "rooms"]})


def test_d7_n21_a_comment_sign_within_quotes_is_text(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "price,town", '1.5,"Ulm', '# west"', "# gone", "2.5,Bonn")
    assert ingest(tmp_path, {"comment": "#"})["town"].tolist() == ["Ulm\n# west", "Bonn"]


def test_d7_n22_all_that_is_wrong_with_a_file_is_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path / "t.csv",
        "when,size,size,rent",
        *(f"2024-01-{i:02d},{i},{i}.5,{i}" for i in range(1, 29)),
        "soon,many,1,2",
    )
    with pytest.raises(InputError) as told:
        ingest(tmp_path)
    assert all(
        words in str(told.value) for words in ("'size' appears 2 times", "'many' on line 30", "'soon' on line 30")
    )
    write(tmp_path / "t.csv", "when,size,rent", *(f"2024-01-{i:02d},{i},{i}" for i in range(1, 29)), ",many,2", "x,1,y")
    with pytest.raises(InputError) as told:
        ingest(tmp_path, time="when")
    assert all(words in str(told.value) for words in ("no column 'price'", "'many' on line 30", "'x' on line 31"))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_d7_n23_score_and_sources_begin_where_ingest_does(tmp_path: Path, name: str) -> None:
    form = FormatSettings(skip_rows=1, comment="#")
    path = write(tmp_path / name, "Sales", HEAD, *ROWS[:3], "# by hand", *ROWS[3:])
    file = open_scored_file(path, tmp_path, form)
    (piece,) = read_pieces(file, tmp_path)
    assert (file.header, piece.lines) == (f"{HEAD}\n", [f"{row}\n" for row in ROWS])
    assert count_file_rows(path, form) == 60
    other = write(tmp_path / "other.csv", "Sales", HEAD, *ROWS[:-1])
    changes = compare_snapshots([path], [other], [], form)
    assert changes is not None
    assert (changes.new, changes.deleted) == (0, 1)
    file = open_scored_file(write(tmp_path / "u.csv", f'"",{HEAD}', f"1,{ROWS[0]}"), tmp_path, FormatSettings())
    assert file.header == f'"",{HEAD}\n'


def test_d7_n24_row_numbers_without_a_name_in_label_files_mean_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", ",id,label", "0,a,1.5", "1,b,2.5")
    assert [one.label for one in read_label_file(path, LabelRules("regression"))] == [1.5, 2.5]


DAYS = [f"2024-{i // 28 + 1:02d}-{i % 28 + 1:02d};{i};{i % 7}" for i in range(60)]
TOTALS = {
    "a sum beside dates": ("day;price;rooms", DAYS, ["Total;1770;"]),
    "two lines and blanks": ("day;price;rooms", DAYS, ["", "Summe:;1770;176", ";;", "Average;29.5;2.93", ";;", ""]),
    "a short line": ("day;price;rooms", DAYS, ["Grand total;1770"]),
    "a sum in a table of two columns": (
        "town;price",
        [f"{'Ulm' if i % 3 else 'Bonn'};{i}" for i in range(60)],
        ["Total;1770"],
    ),
}


@pytest.mark.parametrize("name", TOTALS)
def test_d7_n31_total_rows_at_the_end_are_noticed_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    head, rows, totals = TOTALS[name]
    write(tmp_path / "t.csv", head, *rows, *totals)
    with pytest.raises(
        InputError, match=r"the last row, '.*', looks like a total. Set data.format: {total_rows: drop}, or keep"
    ):
        ingest(tmp_path)
    said, form = run_init(tmp_path, monkeypatch)
    assert "looks like a total: it is left out (likely); --format total_rows=keep overrides it" in said
    assert (form.total_rows, project_params.load_settings().problem.time) == ("drop", "day" if "day" in head else None)
    found = ingest(tmp_path, {"total_rows": "drop"})
    assert (len(found), found["price"].max()) == (60, 59)
    file = open_scored_file(tmp_path / "t.csv", tmp_path, form)
    assert [piece.lines for piece in read_pieces(file, tmp_path)] == [[f"{row}\n" for row in rows]]


@pytest.mark.parametrize("last", ["Total;17;3", "Sumatra;1770;", "Ulm;1770;", ";1770;176", "Total;;", "Bonn;59;Total"])
def test_d7_n32_a_last_row_that_is_a_row_is_kept(tmp_path: Path, last: str) -> None:
    rows = [f"{'Ulm' if i % 3 else 'Bonn'};{i};{i % 7}" for i in range(60)]
    write(tmp_path / "t.csv", "town;price;rooms", *rows, last)
    assert len(ingest(tmp_path, ignore=["rooms"])) == 61


def test_d7_n33_a_total_is_kept_where_the_user_says_so(tmp_path: Path) -> None:
    rows = [f"{'Ulm' if i % 3 else 'Bonn'};{i};{i % 7}" for i in range(60)]
    write(tmp_path / "t.csv", "town;price;rooms", *rows, "Total;1770;176")
    assert ingest(tmp_path, {"total_rows": "keep"})["town"].tolist()[-1] == "Total"


QUESTION = "How satisfied are you, all in all, with " * 8


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_d7_n34_long_names_are_cut_and_stay_apart(tmp_path: Path, name: str) -> None:
    names = ["price", f"{QUESTION}work?", f"{QUESTION}pay?"]
    table = pd.DataFrame([[i, i % 7, i % 5] for i in range(60)], columns=names)
    path = tmp_path / name
    table.to_csv(path, index=False) if name == "t.csv" else table.to_json(
        path, orient="records", lines=True
    ) if name == "t.jsonl" else table.to_parquet(path, index=False)
    found = ingest(tmp_path, name=name, group=names[1])
    assert list(found) == list(map(call_column, names))
    assert all(len(column) <= 200 for column in found)
    assert found[call_column(names[2])].tolist() == table[names[2]].tolist()


def test_d7_n35_init_says_which_names_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t.csv", f'"{QUESTION}",town,rooms', *ROWS)
    said, _ = run_init(tmp_path, monkeypatch, target=QUESTION)
    assert "a name of more than 200 letters is cut: 'How satisfied are you" in said
    assert project_params.load_settings().problem.target == call_column(QUESTION)


def test_d7_n36_names_at_the_limit_stay_and_a_cut_name_stays_cut() -> None:
    assert call_column("x" * 200) == "x" * 200
    cut = call_column("x" * 201)
    assert (len(cut), call_column(cut), cut == call_column("x" * 202)) == (193, cut, False)
    assert call_column(f" {'x' * 201}\t") == cut


def test_a_usual_table_is_read_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", HEAD, *ROWS)
    file = open_scored_file(path, tmp_path, FormatSettings())
    assert file.plain == path
    start = find_table_start([f"{HEAD}\n", *(f"{row}\n" for row in ROWS)])
    assert start is not None
    assert (suggest_start_keys(start, [HEAD]), has_data_in_header(start)) == ({}, False)


def test_d7_n48_names_in_single_quotes_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i % 7}\t{i}\t'x'\n" for i in range(60))
    (tmp_path / "t.tsv").write_text("'size'\t'price'\t'town'\n" + rows)
    ran = CliRunner().invoke(main, ["init", "t.tsv", "--target", "price"])
    assert ran.exit_code == 0, ran.output
    assert "its names are in single quotes, which are left out (sure)" in ran.output
    assert ingest(tmp_path, name="t.tsv")["town"].unique().tolist() == ["'x'"]
    assert name_columns(["'a'", "b'"]) == ("'a'", "b'")
    (tmp_path / "l.csv").write_text("'id','label'\na,1\n")
    assert [one.label for one in read_label_file(tmp_path / "l.csv", LabelRules("regression"))] == [1.0]
    scored = open_scored_file(tmp_path / "t.tsv", tmp_path, FormatSettings())
    (piece,) = read_pieces(scored, tmp_path)
    assert piece.table.column_names == ["size", "price", "town"]
