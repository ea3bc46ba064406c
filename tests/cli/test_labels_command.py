"""`windvane labels`: files of ground truth, good and bad; and what the ledger section of params.yaml may hold."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.ledgers import answer, put
from tests.support.projects import ROOT, Folder
from windvane.ledger import database
from windvane.ledger.labels import LabelStatement, read_labelled_predictions, record_labels
from windvane.tasks import label_parsing, project_secrets
from windvane.tasks.errors import InputError
from windvane.tasks.label_parsing import LabelRules, LabelsRefused, parse_label_csv, parse_label_objects
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long

NAME = "texas-house-prices"
PRICES = LabelRules("regression", "order", "price")


def write(path: Path, content: str | bytes | pa.Table) -> Path:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", 'id,label,at\na,1.5,2026-01-31\n\n"b", 2 ,\n'),
        ("labels.csv", "\ufefflabel;id;at\r\n1.5;a;2026-01-31T00:00:00Z\r\n2;b;\r\n"),
        ("labels.jsonl", '{"id": "a", "label": 1.5, "at": "2026-01-31T01:00:00+01:00"}\n{"id": "b", "label": 2}\n'),
        ("labels.parquet", pa.table({"id": ["a", "b"], "label": [1.5, 2.0], "at": [datetime(2026, 1, 31), None]})),
    ],
)
def test_the_same_labels_in_any_format(tmp_path: Path, name: str, content: Any) -> None:
    found = list(label_parsing.read_label_file(write(tmp_path / name, content), PRICES))
    assert [(s.id, s.label, s.at) for s in found] == [("a", 1.5, "2026-01-31T00:00:00.000000+00:00"), ("b", 2.0, None)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "", ("is empty", "id,label")),
        ("x.txt", "id,label\n", ("Let its name end in .csv",)),
        ("x.csv", "id,value\na,1\n", ("no column 'label'", "Add it")),
        ("x.csv", "ID,label\na,1\n", ("'ID'", "Did you mean 'id'?")),
        ("x.csv", "id,label,label\na,1,2\n", ("'label' appears twice",)),
        ("x.csv", "id\na\n", ("no column 'label'",)),
        ("x.csv", "id,label\na,1\nb,cheap\nc,dear\nd,\n", ("line 3", "'cheap' is no number", "1 more", "Nothing")),
        ("x.csv", 'id,label\n"a\nb",1\nc,dear\n', ("line 4", "no number")),
        ("x.csv", "id,label\na,1\n,2\n", ("line 3", "no id")),
        ("x.csv", "id,label\na,1,2\n", ("line 2", "3 cells", "2 columns")),
        ("x.csv", 'id,label\na,"1\n', ("line 2", "Fix")),
        ("x.csv", b"id,label\na,1\nb\xff,2\n", ("line 3", "UTF-8")),
        ("x.csv", "id,label\na,1\n" + "x" * 201 + ",1\n", ("line 3", "200 characters")),
        ("x.csv", "id,label,at\na,1,soon\n", ("line 2", "'soon'", "ISO 8601")),
        ("x.csv", "id,label,at\na,1,20260131\n", ("line 2", "ISO 8601")),
        ("x.csv", "id,label,at\na,1e400,\n", ("line 2", "finite")),
        ("x.jsonl", '{"id": "a", "label": 1}\n{"id": "b"\n', ("line 2", "broken JSON")),
        ("x.jsonl", '{"id": "a", "value": 1}\n', ("line 1", "'value'", "'label'")),
        ("x.jsonl", '{"id": "a", "label": "1"}\n', ("line 1", "no number")),
        ("x.jsonl", '{"id": "a", "label": true}\n', ("line 1", "no number")),
        ("x.jsonl", '{"id": [1], "label": 1}\n', ("line 1", "neither text nor")),
        ("x.jsonl", '{"id": 1.5, "label": 1}\n', ("line 1", "whole number")),
        ("x.jsonl", '{"id": "a", "label": 1, "at": 1767225600}\n', ("line 1", "ISO 8601")),
        ("x.parquet", b"PAR1 and then nothing", ("damaged, or no Parquet",)),
        ("x.parquet", pa.table({"id": ["a", None], "label": [1, 2]}), ("row 2", "no id")),
        ("x.parquet", pa.table({"id": ["a"], "truth": [1]}), ("'truth'",)),
    ],
)
def test_a_bad_file_is_refused_with_what_where_and_what_to_do(
    tmp_path: Path, name: str, content: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        list(label_parsing.read_label_file(write(tmp_path / name, content), PRICES))
    for word in (name, *words):
        assert word in str(caught.value)


def test_a_class_is_the_same_word_however_it_is_written() -> None:
    assert {label_parsing.parse_class_name(value) for value in (1, 1.0, "1", "1.0", " 1 ")} == {"1"}
    assert {label_parsing.parse_class_name(value) for value in (True, "True", "true")} == {"true"}
    assert label_parsing.parse_class_name("Zürich") == "Zürich"
    for bad in (None, "", " ", float("nan"), [1], "x" * 201, "nul\0", "half \ud800"):
        with pytest.raises(ValueError, match="label"):
            label_parsing.parse_class_name(bad)


def test_ids_are_the_same_word_however_they_are_written() -> None:
    assert {label_parsing.parse_label_id(value) for value in (12, 12.0, "12", " 12")} == {"12"}


def test_the_command_hands_in_and_says_what_came_of_it(project: Folder) -> None:
    engine = database.connect_ledger(f"sqlite:///{project.path / '.windvane' / 'ledger.db'}")
    put(engine, NAME, answer("a"), answer("b"))
    write(project.path / "labels.csv", "id,label\na,1\nb,2\nc,3\n")
    assert project.type("labels", "labels.csv", "--json").json == {
        "matched": 2,
        "unmatched": 1,
        "duplicates": 0,
        "changed": 0,
        "empty": 0,
    }
    write(project.path / "labels.csv", "id,label\na,1\nb,5\n")
    again = project.type("labels", "labels.csv", "--json")
    assert again.json == {"matched": 1, "unmatched": 0, "duplicates": 1, "changed": 1, "empty": 0}
    assert "corrected" in again.err
    write(project.path / "labels.csv", "id,label\na,9\nb,cheap\n")
    refused = project.type("labels", "labels.csv", "--json")
    assert (refused.status, refused.out) == (2, "")
    assert "line 3" in refused.err
    assert {judged.id: judged.label for judged in read_labelled_predictions(engine, NAME)} == {"a": 1.0, "b": 5.0}
    engine.dispose()


def read(path: Path, content: Any, rules: LabelRules = PRICES) -> tuple[dict[str, Any], int]:
    """Labels by id, and how many rows have none yet."""
    received = label_parsing.read_label_file(write(path, content), rules)
    return {one.id: one.label for one in received}, received.empty


def test_g2_an_export_with_empty_labels_is_taken_for_what_it_knows(project: Folder) -> None:
    write(project.path / "labels.csv", "id,label,at\na,1,\nb,,\nc, ,\nd,2,2026-01-31\n,,\n")
    ran = project.type("labels", "labels.csv", "--json")
    assert ran.json == {"matched": 0, "unmatched": 2, "duplicates": 0, "changed": 0, "empty": 3}
    assert "3 rows have no label yet" in ran.err
    write(project.path / "labels.csv", "id,label\ne,1\ne,2\n")
    refused = project.type("labels", "labels.csv", "--json")
    assert refused.status == 2
    assert "id 'e' has two labels: 1.0 and 2.0" in refused.err
    typed = datetime.now(UTC).year + 4
    write(project.path / "labels.csv", f"id,median,at\ne,1,{typed}-01-31\n")
    refused = project.type("labels", "labels.csv", "--json")
    assert refused.status == 2
    assert f"line 2: at '{typed}-01-31' is in the future" in refused.err


def test_g2_n2_no_label_yet_is_no_label_in_any_format(tmp_path: Path) -> None:
    known = ({"a": 1.0}, 2)
    assert (
        read(tmp_path / "x.jsonl", '{"id": "a", "label": 1}\n{"id": "b", "label": null}\n{"id": "c", "label": ""}')
        == known
    )
    assert read(tmp_path / "x.parquet", pa.table({"id": ["a", "b", "c"], "label": [1.0, None, float("nan")]})) == known
    assert read(tmp_path / "x.tsv", "order\tprice\na\t1\nb\tNULL\nc\tn/a\n") == known
    assert read(tmp_path / "x.csv", "id,label\nb,\nc,\n") == ({}, 2)
    late = LabelRules("classification", "flight", "late")
    assert read(tmp_path / "x.parquet", pa.table({"flight": ["a", "b"], "late": [True, None]}), late) == (
        {"a": "true"},
        1,
    )


def test_g2_n3_now_is_now_in_every_place_and_no_later(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    # A clock that is a minute ahead, and the date and the local time of a place where tomorrow has begun.
    ahead = now.astimezone(timezone(timedelta(hours=14))).replace(tzinfo=None)
    for known in (now + timedelta(minutes=1), ahead, ahead.date()):
        assert read(tmp_path / "x.csv", f"id,label,at\na,1,{known.isoformat()}\n") == ({"a": 1.0}, 0)
    zoned = ahead.replace(tzinfo=timezone(timedelta(hours=-11)))
    for at in (now + timedelta(minutes=10), zoned, (now + timedelta(days=2)).replace(tzinfo=None)):
        with pytest.raises(InputError, match="is in the future"):
            read(tmp_path / "x.csv", f"id,label,at\na,1,{at.isoformat()}\n")
    with pytest.raises(InputError, match=r"row 1: at .* is in the future"):
        read(tmp_path / "x.parquet", pa.table({"id": ["a"], "label": [1], "at": [now + timedelta(days=2)]}))


def test_g2_n4_one_id_has_one_label_as_of_a_moment(tmp_path: Path) -> None:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    churn = LabelRules("classification")

    def record(text: str) -> int:
        return record_labels(engine, NAME, label_parsing.parse_label_csv(text.encode(), churn).statements).unmatched

    with pytest.raises(ValueError, match=r"id 'a' has two labels as of 2026-01-31.*at"):
        record("id,label,at\na,no,2026-01-31\na,yes,2026-01-31T00:00:00Z\n")
    # The same class in two ways of writing, and a correction with its moment.
    assert record("id,label\na,1\n a ,1.0\nb,True\nb,true\n") == 2
    assert record("id,label,at\nc,no,2026-01-31\nc,yes,2026-02-01\n") == 2
    engine.dispose()


def test_g2_n5_a_column_that_no_label_has_is_named_with_the_tables_words() -> None:
    with pytest.raises(LabelsRefused, match=r"no column 'prise'. Did you mean 'price'"):
        label_parsing.parse_label_csv(b"order,prise\na,1\n", PRICES)
    with pytest.raises(LabelsRefused, match="has no column 'id' or 'order'"):
        label_parsing.parse_label_csv(b"price\n1\n", PRICES)


def test_the_command_erases_one_subject(project: Folder) -> None:
    engine = database.connect_ledger(f"sqlite:///{project.path / '.windvane' / 'ledger.db'}")
    put(engine, NAME, answer("a"), answer("7"), answer("c", inputs={"city": "Austin"}))
    record_labels(engine, NAME, [LabelStatement("a", 1.0)])
    assert project.type("erase", "--id", "a", "--id", "7", "--json").json == {"predictions": 2, "labels": 1}
    assert project.type("erase", "--where", "city=Austin", "--json").json == {"predictions": 1, "labels": 0}
    for wrong in ((), ("--id", "a", "--where", "city=Waco"), ("--where", "city")):
        refused = project.type("erase", *wrong)
        assert refused.status == 2
        assert "--where" in refused.err
    engine.dispose()


def chosen(**ledger: Any) -> project_params.Settings:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    return project_params.parse_settings({**content, "ledger": {**content["ledger"], **ledger}})


@pytest.mark.parametrize(
    ("ledger", "words"),
    [
        ({"keep": "1 year"}, ("ledger.keep", "365d")),
        ({"keep": "0d"}, ("ledger.keep", "365d")),
        ({"sample": 2}, ("ledger.sample",)),
        ({"drop": ["ts"]}, ("ledger.drop", "problem.time")),
        ({"drop": ["city"], "hash": ["city"]}, ("ledger.hash", "city")),
        ({"kepe": "1d"}, ("ledger.kepe", "keep")),
    ],
)
def test_a_wrong_value_in_the_ledger_section_is_named(ledger: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        chosen(**ledger)
    for word in words:
        assert word in str(caught.value)


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(project_secrets.LEDGER_KEY_VARIABLE, raising=False)
    monkeypatch.delenv("WINDVANE_LEDGER_URL", raising=False)
    assert project_secrets.build_privacy_rules(chosen(), tmp_path).key == b""
    assert list(tmp_path.iterdir()) == []
    first = project_secrets.build_privacy_rules(chosen(hash=["city"]), tmp_path / "home")
    assert project_secrets.build_privacy_rules(chosen(hash=["city"]), tmp_path / "home") == first
    assert len(first.key) == 32
    (file,) = (tmp_path / "home").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_shared_ledger_needs_a_shared_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDVANE_LEDGER_URL", "postgresql+psycopg://somewhere/else")
    with pytest.raises(InputError, match=project_secrets.LEDGER_KEY_VARIABLE):
        project_secrets.build_privacy_rules(chosen(hash=["city"]), tmp_path)
    monkeypatch.setenv(project_secrets.LEDGER_KEY_VARIABLE, "short")
    with pytest.raises(InputError, match="shorter"):
        project_secrets.build_privacy_rules(chosen(hash=["city"]), tmp_path)
    monkeypatch.setenv(project_secrets.LEDGER_KEY_VARIABLE, "long enough to be no guess")
    assert project_secrets.build_privacy_rules(chosen(hash=["city"]), tmp_path).key == b"long enough to be no guess"


def test_a_misspelt_private_column_is_refused_not_stored_in_the_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'city'"):
        project_secrets.build_privacy_rules(chosen(drop=["citi"]), tmp_path, {"city"})
    # The service never sees an ignored column, but the user knows of it.
    assert project_secrets.build_privacy_rules(chosen(drop=["city", "volume"]), tmp_path, {"city"}).drop == {
        "city",
        "volume",
    }


def test_c2_n5_labels_know_the_tables_own_words_for_no_value() -> None:
    rules = LabelRules("regression", missing_words=("?",))
    text = parse_label_csv(b"id,label\na,1\nb, ? \nc,\n", rules)
    objects = parse_label_objects(
        [{"id": "a", "label": 1}, {"id": "b", "label": "?"}, {"id": "c", "label": None}], rules
    )
    assert (text.statements, text.empty) == (objects.statements, objects.empty)
    assert (len(text.statements), text.empty) == (1, 2)


@pytest.mark.parametrize(("keep_words", "classes", "empty"), [(True, ["None", "Some"], 1), (False, ["Some"], 2)])
def test_c2_a_class_called_none_is_a_label_where_the_table_keeps_such_words(
    keep_words: bool, classes: list[str], empty: int
) -> None:
    rules = LabelRules("classification", keep_words=keep_words)
    received = label_parsing.parse_label_csv(b"id,label\na,None\nb,Some\nc,\n", rules)
    assert ([one.label for one in received.statements], received.empty) == (classes, empty)
