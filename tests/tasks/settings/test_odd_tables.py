"""Tables as others write them: `init` reads what has one meaning, and names what it cannot read."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tasks.settings.test_column_guesses import attention, check_proposal, problem, propose
from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import call_column
from windvane.tasks.settings import settings_proposal
from windvane.tasks.settings.yaml_files import SettingsProposal

ROWS = 120
DAYS = pd.date_range("2023-01-01", periods=ROWS, freq="D")


def make_table(**columns: Any) -> pd.DataFrame:
    draw = np.random.default_rng(11)
    x = draw.normal(size=ROWS).round(3)
    return pd.DataFrame({**columns, "x": x, "y": (2 * x + draw.normal(size=ROWS)).round(3)})


def propose_file(folder: Path, name: str, content: bytes | str, target: str = "y") -> SettingsProposal:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return settings_proposal.propose_settings(path, target)


@pytest.mark.parametrize("name", ["x^2", "x\x01", "xڀ"])  # as packed data begins
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_header_that_begins_as_packed_files_do_is_text(name: str, ending: str, tmp_path: Path) -> None:
    table = make_table().rename(columns={"x": name})
    found = propose_file(tmp_path, f"t.{ending}", table.to_csv(index=False, sep="\t" if ending == "tsv" else ","))
    assert (found.rows, found.columns, problem(found)["ignore"]) == (ROWS, 2, [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_named_as_such(encoding: str, tmp_path: Path) -> None:
    content = ("\ufeff" * (encoding != "utf-16") + make_table().to_csv(index=False)).encode(encoding)
    with pytest.raises(
        InputError, match=r"t.csv: line 1: is not UTF-8 text; it looks like UTF-16. .*iconv -f UTF-16 -t UTF-8"
    ):
        propose_file(tmp_path, "t.csv", content)


@pytest.mark.parametrize("name", ["café", "\u200bcafé", "café\ufeff", "\u00a0café "])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_the_same_in_each_form_of_unicode(name: str, form: Any, tmp_path: Path) -> None:
    written = unicodedata.normalize(form, name)
    assert call_column(written) == "café"
    table = make_table().rename(columns={"y": written})
    found = propose_file(tmp_path, "t.csv", table.to_csv(index=False), unicodedata.normalize("NFD", "café"))
    assert problem(found)["target"] == "café"


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_names_that_differ_in_what_no_one_sees_are_refused(ending: str, tmp_path: Path) -> None:
    table = make_table()
    table[["cafe\u0301", "caf\u00e9"]] = 1
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    else:
        path.write_text(table.to_csv(index=False) if ending == "csv" else table.to_json(orient="records"))
    with pytest.raises(InputError, match="column 'café' appears 2 times"):
        settings_proposal.propose_settings(path, "y")


def test_a_class_is_the_same_in_each_form_of_unicode(tmp_path: Path) -> None:
    drinks = np.where(np.arange(ROWS) % 3 == 0, "tea", np.where(np.arange(ROWS) % 3 == 1, "cafe\u0301", "caf\u00e9"))
    found = propose(make_table(drink=drinks), tmp_path, "drink")
    assert (problem(found)["merge_spellings"], problem(found)["positive"]) == (True, "tea")


def test_numbers_that_json_has_as_words_are_numbers(tmp_path: Path) -> None:
    table = make_table(zip=[f"{10000 + i % 7}" for i in range(ROWS)])
    found = propose_file(tmp_path, "t.json", json.dumps(table.astype(str).to_dict("records")))
    assert (problem(found)["kind"], found.params["data"]["format"]) == ("regression", {"decimal": "."})
    assert "zip:\n    type: category" in found.schema
    (line,) = [line for line in found.assumptions if "are written as words" in line]
    assert line.startswith("numbers of 'x', 'y' are written as words, such as '")


@pytest.mark.parametrize("orient", ["columns", "list"])
def test_json_of_columns_is_refused_with_the_remedy(orient: Any, tmp_path: Path) -> None:
    table = make_table()
    text = table.to_json() if orient == "columns" else json.dumps(table.to_dict("list"))
    with pytest.raises(InputError, match=r"holds one object with all values of each column.*orient='records'"):
        propose_file(tmp_path, "t.json", text)


def test_cells_that_nothing_known_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'y'. It has one column, 'x:y': cells are parted by"):
        propose_file(tmp_path, "t.csv", make_table().to_csv(index=False, sep=":"))


def test_an_infinite_target_is_reported_without_a_warning_of_a_library(tmp_path: Path) -> None:
    table = make_table()
    table.loc[3, "y"] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = propose(table, tmp_path)
        assert any("'y' holds 1 infinite values" in message for message in check_proposal(table, found))


@pytest.mark.parametrize(
    "words",
    [
        DAYS.strftime("%A, %d %B %Y"),
        DAYS.strftime("%d.%m.%y %H:%M"),
        [f"{day.isoformat()}{'Z' if i % 2 else ''}" for i, day in enumerate(DAYS)],
    ],
)
def test_dates_that_are_not_read_are_named_whatever_their_column_is_called(words: Any, tmp_path: Path) -> None:
    (line,) = attention(propose(make_table(c=words), tmp_path))
    assert "'c' seems to hold dates in a form that is not read" in line


@pytest.mark.parametrize(
    "words", [[f"Film {i} (19{60 + i % 40})" for i in range(ROWS)], [f"1.{i}.2.0" for i in range(ROWS)]]
)
def test_words_with_numbers_in_them_are_no_dates(words: Any, tmp_path: Path) -> None:
    assert attention(propose(make_table(c=words), tmp_path)) == []


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("name", ["timestamp", "at"])
def test_epoch_times_in_no_order_are_the_time(name: str, unit: int, tmp_path: Path) -> None:
    moments = np.random.default_rng(12).permutation(1_700_000_000 + 3600 * np.arange(ROWS)) * unit
    assert problem(propose(make_table(**{name: moments}), tmp_path))["time"] == name
    assert problem(propose(make_table(amount=moments), tmp_path))["time"] is None
    assert problem(propose(make_table(**{name: moments % 977}), tmp_path))["time"] is None


@pytest.mark.parametrize(("yes", "no"), [("ja", "nein"), ("oui", "non"), ("sí", "no"), ("on", "off"), ("да", "нет")])
def test_the_positive_class_has_its_name_in_other_languages(yes: str, no: str, tmp_path: Path) -> None:
    found = propose(make_table(answer=np.where(np.arange(ROWS) % 2, yes, no)), tmp_path, "answer")
    assert problem(found)["positive"] == yes
