"""What `init` takes for the form of a table's numbers, and what it says about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from windvane.cli.main import main
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import parse_format_options
from windvane.tasks.settings.format_guesses import NumberGuess, guess_number_form


def guessed(semicolons: bool = False, **columns: list[str]) -> NumberGuess:
    found = guess_number_form(columns, semicolons)
    assert found is not None
    return found


def write_german(path: Path, rows: int = 60) -> None:
    lines = [f"{i % 7 + 1}.{i:03d},50 €;{i % 50},{i % 9};{i % 3}" for i in range(rows)]
    path.write_text("\n".join(["preis;größe;zimmer", *lines]) + "\n", encoding="utf-8")


def test_d7_init_reads_numbers_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_german(tmp_path / "t.csv")
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "preis"])
    assert ran.exit_code == 0, ran.output
    assert "numbers of 'preis', 'größe' are written as '1.000,50 €'" in ran.output
    assert "(sure); --format decimal=" in ran.output
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert params["data"]["format"] == {"decimal": ",", "thousands": ".", "signs": ["€"]}
    ingestion.run_ingest(tmp_path, project_params.load_settings())
    table = table_io.read_parquet(tmp_path / ".windvane/data/table.parquet")
    assert table["preis"].head(3).tolist() == [1000.5, 2001.5, 3002.5]
    assert table["größe"].head(3).tolist() == [0.0, 1.1, 2.2]
    assert table["zimmer"].dtype.kind == "i"


def test_d7_n4_an_ambiguous_mark_is_said_with_what_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f'"{i % 5 + 1},{100 + i}",{i % 3}' for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["price,rooms", *lines]) + "\n")
    guess = CliRunner().invoke(main, ["init", "t.csv", "--target", "price"])
    assert "'1,100' is read as 1100, and could be 1.1" in guess.output
    assert "--format decimal=, reads it otherwise" in guess.output
    assert project_params.load_settings().data.format.thousands == ","
    CliRunner().invoke(main, ["init", "t.csv", "--target", "price", "--format", "decimal=,"])
    settings = project_params.load_settings()
    assert (settings.data.format.decimal, settings.data.format.thousands) == (",", None)
    ingestion.run_ingest(tmp_path, settings)
    assert table_io.read_parquet(tmp_path / ".windvane/data/table.parquet")["price"].max() < 6


def test_d7_n5_one_convention_is_found_over_all_columns() -> None:
    both = guessed(price=["12,5", "13"], rent=["1.234", "2.345"])
    assert (both.form.decimal, both.form.thousands, both.columns) == (",", ".", ("price", "rent"))
    assert both.unsure == ("1.234", 1.234)
    shown = guessed(price=["12,5", "13"], place=["1.234", "52.51"])
    assert (shown.form.thousands, shown.unsure, shown.clear) == (None, None, True)
    odd = guessed(price=["1.234,5", "13"], place=["1.234", "52.51"])
    assert (odd.form.thousands, odd.unread) == (".", ("place",))
    assert guessed(True, price=["1,234", "2,950"]).form.decimal == ","
    assert guessed(False, price=["1,234", "2,950"]).form.decimal == "."


@pytest.mark.parametrize(
    "words",
    [
        ["1", "2.5", "1e3"],
        ["2024-01-01", "2024-02-01"],
        ["01.02.2024", "13.02.2024"],
        ["10.0.0.1", "10.0.0.2"],
        ["1.2.3", "1.2.4"],
        ["12:30", "13:45"],
        ["Ulm", "Bonn"],
        ["2.5", "3.5", "4.5", "many"] * 10,
        ["85048", "85123A"] * 10,
    ],
)
def test_d7_n6_words_that_are_no_written_numbers_propose_nothing(words: list[str]) -> None:
    assert guess_number_form({"x": words}, False) is None


def test_d7_n7_the_option_takes_signs_that_yaml_would_not() -> None:
    assert parse_format_options(["decimal=,", "thousands='", "signs=€, %"]) == {
        "decimal": ",",
        "thousands": "'",
        "signs": ["€", "%"],
    }
    with pytest.raises(InputError, match=r"--format decimals=,: is no KEY=VALUE. Name one of keep_words"):
        parse_format_options(["decimals=,"])


def write_gaps(path: Path, word: str, kind: str = "{i}") -> None:
    """A table of which a numeric (or other) column has a word in one row of ten, and a column of words once."""
    cells = [word if i % 10 == 3 else kind.format(i=i % 50 + 10) for i in range(60)]
    lines = [f"{100 + i},{cell},{word if i == 7 else 'Ulm'}" for i, cell in enumerate(cells)]
    path.write_text("\n".join(["price,power,town", *lines]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("word", ["?", "---", ".", "*", "unknown", "#DIV/0!"])
def test_c2_n6_init_knows_a_word_for_no_value_by_the_numbers_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gaps(tmp_path / "t.csv", word)
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price"])
    assert ran.exit_code == 0, ran.output
    assert f"no value: {word!r} in 'power' (likely), and so in every column" in ran.output
    settings = project_params.load_settings()
    assert (settings.data.format.missing_words, settings.problem.ignore) == ((word,), ())
    ingestion.run_ingest(tmp_path, settings)
    table = table_io.read_parquet(tmp_path / ".windvane/data/table.parquet")
    assert (table["power"].isna().sum(), table["power"].dtype.kind, table["town"].isna().sum()) == (6, "f", 1)


@pytest.mark.parametrize("kind", ["2024-01-02", "1.1.19{i}", "{i} 000.5 €", "{i}%"])
def test_c2_n7_dates_and_written_numbers_show_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gaps(tmp_path / "t.csv", "-", kind)
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price"])
    assert ran.exit_code == 0, ran.output
    assert project_params.load_settings().data.format.missing_words == ("-",), ran.output


def test_c2_n8_words_among_words_stay_and_what_was_typed_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("price,town\n" + "".join(f"{i},{'?' if i % 9 else 'Ulm'}\n" for i in range(60)))
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price"])
    assert "no value" not in ran.output
    assert project_params.load_settings().data.format.missing_words == ()
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price", "--format", "missing_words=?,none of these"])
    assert ran.exit_code == 0, ran.output
    assert project_params.load_settings().data.format.missing_words == ("?", "none of these")
    write_gaps(tmp_path / "t.csv", "?")
    ran = CliRunner().invoke(main, ["init", "t.csv", "--target", "price", "--format", "missing_words="])
    assert "ignores 'power'" in ran.output
    assert "If '?' means no value" not in ran.output  # a short reason there; the whole where nothing is ignored
    project = {"project": "p", "problem": {"kind": "regression", "target": "price"}, "data": {"source": "t.csv"}}
    with pytest.raises(InputError, match=r"If '\?' means no value, set data.format: {missing_words: \['\?'\]}"):
        ingestion.write_table(tmp_path, project_params.parse_settings(project), tmp_path / "table", tmp_path)


@pytest.mark.parametrize("written", ["[?]", "[5]", "'?'", "['']", "{a: 1}", "null"])
def test_c2_n10_words_that_yaml_does_not_read_as_such_are_to_be_quoted(written: str) -> None:
    content = {"source": "t.csv", "format": {"missing_words": yaml.safe_load(written)}}
    with pytest.raises(
        InputError, match=r"data.format.missing_words: must be a list of words.*Quote them: \['\?', unknown\]"
    ):
        project_params.parse_settings(
            {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": content}
        )


def test_c2_n9_a_number_is_no_word_for_no_value() -> None:
    content = {"source": "t.csv", "format": {"missing_words": ["-999"]}}
    with pytest.raises(InputError, match=r"data.format.missing_words.*'-999' is a number"):
        project_params.parse_settings(
            {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": content}
        )
