"""The data gate: each check finds its fault and names column and remedy, and leaves an honest table alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml

from tests.support.tables import chosen, houses
from windvane.tasks.errors import InputError
from windvane.tasks.models import features as featuring
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings import yaml_files
from windvane.tasks.validate import (
    findings,
    model_checks,
    table_profile,
    table_schema,
    table_statistics,
    table_validation,
)
from windvane.tasks.validate.checks import duplicate_checks
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_schema import TableSchema

ROWS = 2000
GOOD = houses(ROWS).assign(rooms=np.random.default_rng(2).integers(1, 9, ROWS).astype(float))
PROBLEM = {"time": "day"}


def agreed(table: pd.DataFrame = GOOD, **problem: Any) -> TableSchema:
    mine = chosen(**{**PROBLEM, **problem}).problem
    return table_schema.parse_schema(
        yaml.safe_load(yaml_files.propose_schema(table_statistics.scan_frame(table), mine))
    )


def told(
    table: pd.DataFrame,
    schema: TableSchema | None = None,
    past: table_profile.TableSummary | None = None,
    **problem: Any,
) -> dict[str, TableFinding]:
    """Everything that is not in order, by check:column."""
    seen = table_validation.inspect_table(table, chosen(**{**PROBLEM, **problem}), schema, past)
    return {f.key: f for f in seen.findings if f.level != "pass"}


def past(table: pd.DataFrame = GOOD) -> table_profile.TableSummary:
    return table_validation.inspect_table(table, chosen(**PROBLEM)).digest


def cells(table: pd.DataFrame, name: str, value: Any, every: int) -> pd.DataFrame:
    values = table[name].astype(object) if isinstance(value, str) else table[name].copy()
    values[::every] = value
    return table.assign(**{name: values})


def test_an_honest_table_has_no_finding_and_every_check_says_that_it_passed() -> None:
    seen = table_validation.inspect_table(GOOD, chosen(**PROBLEM), agreed(), past())
    assert [f for f in seen.findings if f.level != "pass"] == []
    names = {name for family in table_validation.CHECK_FAMILIES for name in family.checks}
    assert {f.check for f in seen.findings} == names


LATER = GOOD.assign(day=GOOD["day"] + pd.Timedelta(days=ROWS))
AGAIN = pd.concat([GOOD, GOOD.head(40)]).sort_values("day", ignore_index=True)
FAULTS: dict[str, tuple[pd.DataFrame, str, str]] = {
    "duplicates": (AGAIN, "duplicates", "warn"),
    "near-duplicates": (pd.concat([GOOD, GOOD.head(40).assign(price=1.0)]), "near_duplicates", "warn"),
    "other case": (
        pd.concat([GOOD, GOOD.head(40).assign(town=lambda t: t["town"].str.upper())]),
        "near_duplicates",
        "warn",
    ),
    "a giveaway": (GOOD.assign(fee=GOOD["price"] * 2), "leak:fee", "stop"),
    "nearly a giveaway": (
        GOOD.assign(fee=GOOD["price"] + np.random.default_rng(9).normal(0, 4, ROWS)),
        "leak:fee",
        "warn",
    ),
    "row numbers": (GOOD.assign(nr=np.arange(ROWS)), "identifier:nr", "warn"),
    "hashes": (GOOD.assign(key=[f"{i * 7919:x}" for i in range(ROWS)]), "identifier:key", "warn"),
    "numbers and words": (cells(GOOD.assign(size=GOOD["size"].astype(str)), "size", "n/a", 100), "mixed:size", "warn"),
    "a type": (cells(GOOD.assign(size=GOOD["size"].astype(str)), "size", "n/a", 100), "type:size", "stop"),
    "the year 9999": (cells(GOOD, "day", dt.datetime(9999, 12, 31), 500), "dates:day", "stop"),
    "1900-01-01": (GOOD.assign(seen=cells(GOOD, "day", dt.datetime(1900, 1, 1), 500)["day"]), "dates:seen", "warn"),
    "minus 999": (cells(GOOD, "size", -999.0, 100), "sentinel:size", "warn"),
    "infinity": (cells(GOOD, "size", np.inf, 1000), "infinite:size", "stop"),
    "a column gone": (GOOD.drop(columns="town"), "columns:town", "stop"),
    "out of range": (cells(GOOD, "size", 1e6, 50), "range:size", "stop"),
    "a few out of range": (cells(GOOD, "size", 1e6, 500), "range:size", "warn"),
    "new values": (cells(GOOD, "town", "Celle", 3), "categories:town", "stop"),
    "a new value": (cells(GOOD, "town", "Celle", 100), "categories:town", "warn"),
    "half empty": (cells(GOOD, "rooms", None, 2), "missing:rooms", "stop"),
    "shrunk": (GOOD.tail(900), "row_count", "stop"),
    "older": (GOOD.head(1900), "time_order:day", "stop"),
    "thousands": (LATER.assign(size=LATER["size"] * 1000), "scale:size", "stop"),
    "centimetres": (LATER.assign(size=LATER["size"] * 2.54), "scale:size", "warn"),
    "Fahrenheit": (LATER.assign(size=LATER["size"] * 1.8 + 32), "scale:size", "warn"),
    "silence": (LATER.assign(rooms=3.0), "silent:rooms", "warn"),
    "renamed": (LATER.assign(town=LATER["town"].replace("Ulm", "ULM ")), "renamed:town", "warn"),
    "gaps": (cells(LATER, "rooms", None, 8), "gaps:rooms", "warn"),
    "a shift": (LATER.assign(size=LATER["size"] + 30), "drift:size", "warn"),
    "another mixture": (cells(LATER, "town", "Ulm", 2), "drift:town", "warn"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_with_its_column_and_a_remedy(name: str) -> None:
    table, key, level = FAULTS[name]
    assert key not in told(GOOD, agreed(), past())
    found = told(table, agreed(), past())
    assert key in found, sorted(found)
    finding = found[key]
    assert finding.level == level
    assert finding.figure is not None
    assert finding.column is None or repr(finding.column) in finding.message
    assert len(finding.message.split(". ")) > 1 or "?" in finding.message  # the remedy is a sentence of its own


def test_classes_of_very_unequal_size_are_told() -> None:
    table = GOOD.assign(sold=(np.arange(ROWS) % 50 == 0).astype(int))
    found = told(table, kind="classification", target="sold")
    assert found["balance:sold"].figure == pytest.approx(0.02)


@pytest.mark.parametrize("name", ["leak:fee", "giveaway:fee"])
def test_what_a_person_accepts_passes_but_what_cannot_be_learned_from_does_not(name: str) -> None:
    table = GOOD.assign(fee=GOOD["price"] * 2, pool=np.nan)
    schema = table_schema.parse_schema({**agreed().model_dump(exclude_none=True), "accept": [name, "empty:pool"]})
    with pytest.raises(InputError) as caught:
        table_validation.check_table(table, chosen(**PROBLEM))
    assert "add 'leak:fee' to accept in schema.yaml" in str(caught.value)
    seen = table_validation.inspect_table(table, chosen(**PROBLEM), schema)
    levels = {f.key: f.level for f in seen.findings}
    assert levels["leak:fee"] == "pass"
    assert levels["empty:pool"] == "stop"


def test_ignored_columns_break_no_contract() -> None:
    assert told(GOOD.drop(columns="town"), agreed(), ignore=["town"]) == {}


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown key": (
        {"columns": {"a": {"type": "number", "rnge": [1, 2]}}},
        "columns.a.rnge: unknown key. Did you mean columns.a.range",
    ),
    "an unknown section": ({"colums": {}, "columns": {}}, "colums: unknown key. Did you mean columns"),
    "a wrong word": ({"columns": {"a": {"type": "nmber"}}}, "columns.a.type: not an allowed value"),
    "a range the wrong way": ({"columns": {"a": {"type": "number", "range": [3, 2]}}}, "Exchange the two"),
    "a range of words": ({"columns": {"a": {"type": "category", "range": [3, 2]}}}, "Take it out"),
    "a share above one": ({"columns": {"a": {"type": "number", "missing": 3}}}, "columns.a.missing"),
    "no mapping": (["a"], "holds no contract"),
    "nothing": (None, "holds no contract"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_contract_is_named_by_its_path(name: str) -> None:
    content, said = WRONG[name]
    with pytest.raises(InputError) as caught:
        table_schema.parse_schema(content, "schema.yaml")
    assert str(caught.value).startswith("schema.yaml: ")
    assert said in str(caught.value)


def test_a_proposed_contract_reads_back_whatever_the_names() -> None:
    names = ['a: b # "c"', "{x}", "new\nline", "- d", "<b>", "'", "yes", "1"]
    rng = np.random.default_rng(0)
    table = GOOD.assign(**{name: rng.choice([*names, "null", "2020-01-01"], ROWS) for name in names})
    table = table.assign(huge=1e308, tiny=rng.normal(0, 1e-300, ROWS), whole=2**62)
    schema = agreed(table)
    assert list(schema.columns) == list(table.columns)
    assert set(schema.columns["yes"].categories or ()) == {*names, "null", "2020-01-01"}
    assert [
        key for key in told(table, schema) if key.partition(":")[0] in ("range", "categories", "type", "missing")
    ] == []


def test_a_digest_reads_back(tmp_path: Path) -> None:
    made = past()
    table_profile.write_summary(made, tmp_path / "d.json")
    assert table_profile.read_summary(tmp_path / "d.json") == made
    table_profile.write_summary(None, tmp_path / "d.json")
    assert table_profile.read_summary(tmp_path / "d.json") is None


def test_only_newer_rows_are_compared_where_there_are_enough() -> None:
    new = LATER.head(600).assign(size=LATER["size"] * 2.54)
    assert "scale:size" in told(pd.concat([GOOD, new], ignore_index=True), None, past())


def test_large_tables_are_counted_in_a_part_and_exactly_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table_validation.inspect_table(AGAIN, chosen(**PROBLEM))
    monkeypatch.setattr(table_statistics, "EXACT_COUNT_ROWS", 100)
    monkeypatch.setattr(table_statistics, "MAX_COMPARED_ROWS", 700)
    part = table_validation.inspect_table(AGAIN, chosen(**PROBLEM))
    assert part.profile == whole.profile
    twice = [next(f for f in seen.findings if f.check == "duplicates") for seen in (whole, part)]
    assert twice[0].figure == pytest.approx(40 / 2040)
    assert 0.005 < float(twice[1].figure or 0) < 0.05


@pytest.mark.parametrize("copies", [0, 300])
def test_a_part_of_the_rows_tells_how_many_copies_stand_on_both_sides(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicate_checks, "MAX_OVERLAP_ROWS", 500)
    table = pd.concat([GOOD, GOOD.head(copies)], ignore_index=True)
    sides = np.repeat([1, 2, 3], [1400, 300, 300 + copies]).astype(np.uint8)
    found = list(duplicate_checks.find_overlap(table, sides, chosen(**PROBLEM)))
    assert [f.check for f in found] == (["overlap"] if copies else [])
    assert not found or found[0].figure == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("copies", [0, 30])
def test_copies_on_both_sides_are_told(copies: int) -> None:
    table = pd.concat([GOOD.assign(nr=0.0), GOOD.head(copies).assign(nr=0.0)], ignore_index=True)
    sides = np.repeat([1, 2, 3], [1400, 300, 300 + copies]).astype(np.uint8)
    found = list(duplicate_checks.find_overlap(table, sides, chosen(**PROBLEM)))
    assert [f.check for f in found] == (["overlap"] if copies else [])
    if copies:
        assert found[0].figure == pytest.approx(copies / (300 + copies))


def test_a_group_on_both_sides_is_told_unless_time_parts_them() -> None:
    sides = np.where(np.arange(ROWS) % 4 == 0, 3, 1).astype(np.uint8)
    found = list(duplicate_checks.find_overlap(GOOD, sides, chosen(group="town", split={"strategy": "group"})))
    assert [(f.check, f.column, f.figure) for f in found] == [("group_overlap", "town", 1.0)]
    assert (
        list(duplicate_checks.find_overlap(GOOD, sides, chosen(group="town", split={"strategy": "time"}, **PROBLEM)))
        == []
    )


def inspected(table: pd.DataFrame, **problem: Any) -> dict[str, TableFinding]:
    mine = chosen(**{**PROBLEM, **problem})
    seen = table_validation.inspect_table(table, mine)
    kind = definitions.load_problem_type(mine.problem.kind)
    found = model_checks.inspect_training_rows(
        mine, kind, featuring.select_feature_columns(mine, seen.profile), table, 1
    )
    return {f.check: f for f in found if f.level != "pass"}


@pytest.mark.long
def test_labels_that_contradict_the_rest_are_told_and_a_hard_problem_is_not() -> None:
    rng = np.random.default_rng(0)
    clear = GOOD.assign(big=np.where(GOOD["size"] + rng.normal(0, 3, ROWS) > 100, "yes", "no"))
    asked = {"kind": "classification", "target": "big"}
    assert "label_noise" not in inspected(clear, **asked)
    flip = rng.random(ROWS) < 0.1
    noisy = clear.assign(big=np.where(flip, np.where(clear["big"] == "yes", "no", "yes"), clear["big"]))
    assert 0.05 < float(inspected(noisy, **asked)["label_noise"].figure or 0) < 0.15
    hard = GOOD.assign(big=np.where(GOOD["size"] + rng.normal(0, 40, ROWS) > 100, "yes", "no"))
    assert "label_noise" not in inspected(hard, **asked)


def test_a_giveaway_whose_order_is_folded_is_a_leak_too() -> None:
    middle = GOOD["price"].median()
    folded = GOOD["price"].where(GOOD["price"] < middle, -GOOD["price"])
    assert told(GOOD.assign(code=folded))["leak:code"].level == "warn"  # one row stands beside the fold
    steps = GOOD["price"].clip(200, 400).round(-1)
    exact = GOOD.assign(price=steps, code=steps.where(steps < 300, -steps))
    assert told(exact)["leak:code"].level == "stop"
    assert "leak:size" not in told(GOOD)


def test_a_bent_giveaway_is_a_leak_too() -> None:
    assert "leak:code" in told(GOOD.assign(code=(GOOD["price"] - GOOD["price"].mean()) ** 3))


def test_findings_are_listed_together_with_what_to_do() -> None:
    some = (
        TableFinding("leak", "stop", "a", 1.0, 0.9, "data.source: column 'a' is bad. Mend it"),
        TableFinding("text", "warn", "b", 1, None, "'b' is text. Ignore it"),
        TableFinding("row_count", "stop", None, 1, 2, "schema.yaml: too few. Add some"),
    )
    with pytest.raises(
        InputError, match=r"^data\.source: t\.csv: column 'a'.*'leak:a'.*; schema\.yaml: t\.csv: too few"
    ):
        findings.raise_for_stops(some, "t.csv")
    findings.raise_for_stops(some[1:2], "t.csv")


def test_polars_and_pandas_frames_are_looked_at_alike() -> None:
    assert table_validation.inspect_table(pl.from_pandas(GOOD), chosen(**PROBLEM)).digest == past()


def test_e5_n3_the_data_page_leaves_advice_on_more_rows_to_the_diagnosis_of_the_fit() -> None:
    assert set(model_checks.MODEL_CHECKS) == {"label_noise"}
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 20, ROWS)
    steep = pd.DataFrame({"day": GOOD["day"], "angle": angle, "price": np.sin(angle * 3) + rng.normal(0, 0.05, ROWS)})
    assert inspected(steep) == {}


def labelled(counts: dict[Any, int], seed: int = 0) -> pd.DataFrame:
    """A table with so many rows of each class."""
    values = [value for value, count in counts.items() for _ in range(count)]
    return (
        houses(len(values), seed)
        .drop(columns=["price", "day"])
        .assign(label=pd.Series(values).sample(frac=1, random_state=1).to_numpy())
    )


def class_findings(table: pd.DataFrame, *accept: str) -> dict[str, TableFinding]:
    mine = chosen(kind="classification", target="label", split={"strategy": "stratified"})
    schema = table_schema.parse_schema(
        {
            **yaml.safe_load(yaml_files.propose_schema(table_statistics.scan_frame(table), mine.problem)),
            "accept": list(accept),
        }
    )
    seen = table_validation.inspect_table(table, mine, schema)
    return {f.key: f for f in seen.findings if f.level != "pass"}


def test_e2_one_row_of_a_new_class_is_set_aside_where_a_person_accepts_it() -> None:
    table = labelled({"stay": 120, "leave": 60, "moved": 1})
    stopped = class_findings(table)["classes:label"]
    assert stopped.level == "stop"
    assert "or add 'classes:label' to accept in schema.yaml to set their rows aside" in stopped.message
    accepted = class_findings(table, "classes:label")["classes:label"]
    assert accepted.level == "warn"
    assert "1 rows of classes with fewer than 10 rows are set aside" in accepted.message
    assert "'moved' (1)" in accepted.message


def test_e2_n1_where_no_two_classes_remain_nothing_can_be_accepted() -> None:
    for counts in ({"a": 180, "b": 3}, {"a": 4, "b": 180, "c": 5}):
        found = class_findings(labelled(counts), "classes:label")["classes:label"]
        assert found.level == "stop"
        assert "set their rows aside" not in found.message


@pytest.mark.parametrize(
    ("rows", "strategy", "stops"),
    [
        (29, "kfold", True),
        (30, "kfold", False),
        (39, "random", True),
        (40, "random", False),
        (59, "time", True),
        (60, "time", False),
    ],
)
def test_d6_n2_the_fewest_rows_are_known_before_a_lap(rows: int, strategy: str, stops: bool) -> None:
    mine = chosen(split={"strategy": strategy}, **PROBLEM)
    found = {f.check: f for f in table_validation.inspect_table(houses(rows), mine).findings if f.level == "stop"}
    assert ("rows" in found) == stops
    assert not stops or ("set it to kfold" in found["rows"].message) == (rows >= 30)
