"""What `init` assumes of a stranger's table: outages, the positive class, times, ids, counts and spellings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.tables import chosen
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params, settings_proposal, yaml_files
from windvane.tasks.settings.yaml_files import SettingsProposal
from windvane.tasks.validate import table_schema, table_validation

RNG = np.random.default_rng(0)
ROWS = 1_000


def propose(table: pd.DataFrame, folder: Path, target: str = "y", **given: Any) -> SettingsProposal:
    """The proposal for a table as a CSV file; what it writes can be read."""
    path = folder / "t.csv"
    table.to_csv(path, index=False)
    proposal = settings_proposal.propose_settings(path, target, **given)
    assert project_params.parse_settings(proposal.params).problem.target == target
    return proposal


def problem(proposal: SettingsProposal) -> dict[str, Any]:
    return dict(proposal.params["problem"])


def attention(proposal: SettingsProposal) -> list[str]:
    return [line for line in proposal.assumptions if line.startswith("attention: ")]


def findings(table: pd.DataFrame, **roles: Any) -> dict[str, str]:
    """What validation finds, by key."""
    seen = table_validation.inspect_table(table, chosen(**{"target": "y", **roles}))
    return {f.key: f.message for f in seen.findings if f.level != "pass"}


def sensors(rows: int = ROWS, count: int = 5) -> pd.DataFrame:
    """Readings each hour, and what they cause."""
    rng = np.random.default_rng(1)
    values = {f"s{i}": rng.normal(size=rows).round(3) for i in range(count)}
    table = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=rows, freq="h"), **values})
    return table.assign(y=(table["s0"] * 2 + table["s1"] + rng.normal(size=rows) / 2).round(3))


# D1 --------------------------------------------------------------------------------------------------


def test_d1_rows_that_are_blank_but_for_the_time_are_no_sign_of_a_leak(tmp_path: Path) -> None:
    table = sensors()
    table.loc[::50, [c for c in table if c != "at"]] = np.nan
    proposal = propose(table, tmp_path)
    assert (problem(proposal)["ignore"], problem(proposal)["time"]) == ([], "at")
    assert not attention(proposal)
    assert not [key for key in findings(table, time="at") if key.startswith("leak")]


def test_d1_n1_a_line_of_delimiters_at_the_end_is_no_row(tmp_path: Path) -> None:
    path, table = tmp_path / "t.csv", sensors()
    path.write_text(table.to_csv(index=False, sep=";") + ";;;;;;\n")
    proposal = settings_proposal.propose_settings(path, "y")
    assert (problem(proposal)["ignore"], problem(proposal)["time"]) == ([], "at")
    settings, target = project_params.parse_settings(proposal.params), tmp_path / "table.parquet"
    ingestion.write_table(Path(), settings, target, tmp_path)
    assert table_io.count_parquet_rows(target) == len(table)


def test_d1_n2_sensors_that_fail_together_are_kept_beside_what_never_fails(tmp_path: Path) -> None:
    table = sensors(count=3).assign(station=RNG.choice(["north", "south"], ROWS), hour=np.arange(ROWS) % 24)
    table.loc[::50, ["s0", "s1", "s2", "y"]] = np.nan
    proposal = propose(table, tmp_path)
    assert problem(proposal)["ignore"] == []
    assert ["'s0', 's1', 's2'" in line and "--ignore" in line for line in attention(proposal)] == [True]
    assert [key for key in findings(table, time="at") if key.startswith("leak")] == ["leak"]


def test_d1_n3_a_class_of_outages_is_no_class_that_gives_its_columns_away(tmp_path: Path) -> None:
    table = sensors()
    table["y"] = np.where(table["y"] > 0, "high", "low")
    table.loc[::20, [f"s{i}" for i in range(5)]] = np.nan
    table.loc[::20, "y"] = "offline"
    assert problem(propose(table, tmp_path))["ignore"] == []


def test_d1_n4_what_is_known_only_with_the_target_is_still_left_out_and_aloud(tmp_path: Path) -> None:
    table = sensors().assign(bill=lambda t: t["y"] * 3 + RNG.normal(size=ROWS))
    table.loc[::10, ["y", "bill"]] = np.nan
    proposal = propose(table, tmp_path)
    assert problem(proposal)["ignore"] == ["bill"]
    (line,) = attention(proposal)
    assert "'bill' is ignored, and alone shows more of 'y' than any column that is kept" in line
    assert "leak:bill" in findings(table, time="at")


# D2 --------------------------------------------------------------------------------------------------


def classes(names: tuple[Any, Any], share: float = 0.2, rows: int = ROWS) -> pd.DataFrame:
    """Two classes of which `share` of the rows is of the first."""
    rng = np.random.default_rng(2)
    first = rng.random(rows) < share
    return pd.DataFrame({"x": first + rng.normal(size=rows), "z": rng.normal(size=rows), "y": np.where(first, *names)})


@pytest.mark.parametrize("names", [("churn", "stay"), ("default", "repaid"), ("fraud", "legit"), (0, 1)])
def test_d2_the_rarer_class_is_proposed_as_the_positive_one(names: tuple[Any, Any], tmp_path: Path) -> None:
    proposal = propose(classes(names), tmp_path)
    assert problem(proposal)["positive"] == names[0]
    assert f"positive: {names[0]}" in yaml_files.render_params(proposal)
    assert any(f"{names[0]!r} is the positive class" in line and "--positive" in line for line in proposal.assumptions)


def test_d2_n4_the_user_and_of_classes_about_as_common_the_name_decide(tmp_path: Path) -> None:
    assert problem(propose(classes(("churn", "stay")), tmp_path, positive="stay"))["positive"] == "stay"
    assert problem(propose(classes(("no", "yes"), 0.48), tmp_path))["positive"] == "yes"
    assert (
        problem(propose(classes(("a", "b")).assign(y=RNG.choice(["a", "b", "c"], ROWS)), tmp_path))["positive"] is None
    )
    with pytest.raises(InputError, match=r"--positive: .*no class 'left'. Name one of churn, stay"):
        propose(classes(("churn", "stay")), tmp_path, positive="left")


# D3 --------------------------------------------------------------------------------------------------


def test_d3_a_day_of_the_month_is_no_time_and_its_parts_are_named(tmp_path: Path) -> None:
    days = pd.date_range("2021-01-01", periods=ROWS, freq="D")
    table = pd.DataFrame(
        {"year": days.year, "month": days.month, "date_of_month": days.day, "x": RNG.normal(size=ROWS)}
    )
    proposal = propose(table.assign(y=table["x"] * 2), tmp_path)
    assert problem(proposal)["time"] != "date_of_month"
    assert any("'year', 'month', 'date_of_month' together are a time" in line for line in attention(proposal))


def test_d3_n1_cycles_of_one_engine_after_the_other_are_no_time(tmp_path: Path) -> None:
    cycles = np.concatenate([np.arange(1, n) for n in RNG.integers(120, 300, 8)])
    table = pd.DataFrame({"unit": 1, "time_in_cycles": cycles, "s": RNG.normal(size=len(cycles))})
    assert problem(propose(table.assign(y=table["s"] + RNG.normal(size=len(cycles))), tmp_path))["time"] is None


def test_d3_n2_an_hourly_day_and_a_step_of_an_episode_are_no_time(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    table = pd.DataFrame({"day": hours.day, "x": RNG.normal(size=ROWS), "y": RNG.normal(size=ROWS)})
    assert problem(propose(table, tmp_path))["time"] is None
    table = table.drop(columns="day").assign(step=np.arange(ROWS) % 50)
    assert problem(propose(table, tmp_path))["time"] is None
    # A number that goes on is one.
    assert problem(propose(table.assign(step=np.arange(ROWS)), tmp_path))["time"] == "step"


MONTHS = pd.date_range("1995-01-01", periods=240, freq="MS")
FORMS = {
    "8/15/14": [f"{d.month}/{d.day}/{d:%y}" for d in pd.date_range("2014-01-01", periods=240)],
    "15-Aug-14": [f"{d:%d-%b-%y}" for d in pd.date_range("2014-01-01", periods=240)],
    "Jan 1 2000": [f"{d:%b} {d.day} {d.year}" for d in MONTHS],
    "Jan-05": [f"{d:%b-%y}" for d in MONTHS],
    "Jan 2005": [f"{d:%b %Y}" for d in MONTHS],
    "01/2005": [f"{d:%m/%Y}" for d in MONTHS],
    "2014Q1": [f"{d.year}Q{d.quarter}" for d in MONTHS[::3]],
    "2014-Q1": [f"{d.year}-Q{d.quarter}" for d in MONTHS[::3]],
    "Q1 2014": [f"Q{d.quarter} {d.year}" for d in MONTHS[::3]],
    "2014-W05": [f"{d:%G-W%V}" for d in pd.date_range("2012-01-02", periods=200, freq="W-MON")],
    "2014M05": [f"{d.year}M{d.month:02d}" for d in MONTHS],
    "FY2014": [f"FY{year}" for year in range(1950, 2020)],
    "200501": [int(f"{d:%Y%m}") for d in MONTHS],
    "20050131": [int(f"{d:%Y%m%d}") for d in MONTHS],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["day", "observation"])
def test_d3_n3_a_time_in_another_form_is_the_time(form: str, name: str, tmp_path: Path) -> None:
    x = RNG.normal(size=len(FORMS[form]))
    proposal = propose(pd.DataFrame({name: FORMS[form], "x": x, "y": 2 * x + RNG.normal(size=len(x))}), tmp_path)
    assert (problem(proposal)["time"], problem(proposal)["id"]) == (name, None)
    assert proposal.params["split"]["strategy"] == "time"


def test_d3_n4_years_of_one_country_after_the_other_are_the_time_and_those_of_cars_are_not(tmp_path: Path) -> None:
    years, x = np.tile(np.arange(1990, 2015), 20), RNG.normal(size=500)
    table = pd.DataFrame({"country": np.repeat([f"c{i}" for i in range(20)], 25), "year": years, "x": x, "y": x})
    assert problem(propose(table.assign(y=RNG.normal(size=500)), tmp_path))["time"] == "year"
    cars = table.drop(columns="country").assign(year=RNG.permutation(years), y=RNG.normal(size=500))
    assert problem(propose(cars, tmp_path))["time"] is None


def test_d3_n5_dates_that_can_be_read_in_two_ways_are_named(tmp_path: Path) -> None:
    days = [f"{d:%m/%d/%Y}" for d in pd.date_range("2024-01-01", periods=400) if d.day <= 12]
    x = RNG.normal(size=len(days))
    proposal = propose(pd.DataFrame({"when": days, "x": x, "y": RNG.normal(size=len(x))}), tmp_path)
    assert (problem(proposal)["time"], problem(proposal)["id"]) == (None, None)
    (line,) = attention(proposal)
    assert "'when'" in line
    assert "day and month cannot be distinguished, such as '01/01/2024'" in line
    assert "--dates day_first or --dates month_first decides" in line
    data = settings_proposal.parse_table_address(str(tmp_path / "t.csv"), None, None, format={"dates": "month_first"})
    decided = settings_proposal.propose_settings(data, "y")
    assert problem(decided)["time"] == "when"
    assert project_params.parse_settings(decided.params).data.format.dates == "month_first"


# D4 --------------------------------------------------------------------------------------------------


def test_d4_traffic_counts_are_no_ids() -> None:
    table = sensors().assign(vehicles=RNG.integers(10_000, 900_000, ROWS))
    assert "identifier:vehicles" not in findings(table, time="at")


def test_d4_n1_amounts_of_money_in_cents_are_no_ids() -> None:
    revenue = np.exp(RNG.normal(14, 2, ROWS)).astype("int64")
    assert "identifier:revenue" not in findings(sensors().assign(revenue=revenue), time="at")


def test_d4_n2_numbers_that_are_dense_rise_or_bear_the_name_are_ids() -> None:
    dense, rising = RNG.permutation(ROWS) + 5_000, np.cumsum(RNG.integers(1, 90, ROWS))
    table = sensors().assign(account=dense, invoice=rising, customer_id=RNG.choice(10**9, ROWS, replace=False))
    assert {"identifier:account", "identifier:invoice", "identifier:customer_id"} <= set(findings(table, time="at"))


def test_d4_n3_rows_with_an_id_of_their_own_are_no_duplicates() -> None:
    table = pd.concat([sensors(), sensors().head(22)], ignore_index=True).assign(nr=lambda t: np.arange(len(t)))
    assert "duplicates" not in findings(table, time="at", id="nr")
    assert "22 rows" in findings(table.drop(columns="nr"), time="at")["duplicates"]


# D5 --------------------------------------------------------------------------------------------------


def test_d5_counts_are_no_classes(tmp_path: Path) -> None:
    claims = RNG.poisson(1.0, ROWS).clip(max=5)
    proposal = propose(sensors().assign(claims=claims), tmp_path, "claims")
    assert proposal.kind == "regression"
    assert any("a guess: counts" in line and "--kind" in line for line in proposal.assumptions)


@pytest.mark.parametrize(("name", "low", "high"), [("stars", 1, 5), ("species_code", 0, 6), ("y", 0, 2), ("y", 0, 1)])
def test_d5_n1_numbers_that_are_named_as_classes_or_are_two_or_three_are(
    name: str, low: int, high: int, tmp_path: Path
) -> None:
    table = sensors().drop(columns="y").assign(**{name: RNG.integers(low, high + 1, ROWS)})
    assert propose(table, tmp_path, name).kind == "classification"


def test_d5_n2_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    table = classes(("Yes", "no"), 0.3)
    table.loc[table.index[table["y"] == "Yes"][:40], "y"] = "yes"
    table.loc[table.index[table["y"] == "Yes"][:40], "y"] = "YES"
    table.loc[table.index[table["y"] == "no"][:9], "y"] = "No "
    proposal = propose(table, tmp_path)
    assert problem(proposal)["positive"] == "Yes"
    lines = [line for line in proposal.assumptions if "one class of 'y'" in line]
    assert len(lines) == 2
    assert all("problem.merge_spellings" in line for line in lines)
    assert "merge_spellings: true" in yaml_files.render_params(proposal)
    for merge, spellings in ((True, {"Yes", "no"}), (False, {"Yes", "yes", "YES", "no", "No"})):
        content = {**proposal.params, "problem": {**problem(proposal), "merge_spellings": merge}}
        ingestion.write_table(Path(), project_params.parse_settings(content), tmp_path / "table", tmp_path)
        assert set(table_io.read_parquet(tmp_path / "table")["y"]) == spellings


def test_d5_n3_a_strong_category_is_a_suspicion_and_named_aloud(tmp_path: Path) -> None:
    tariff = RNG.choice(["basic", "family", "business"], ROWS)
    price = pd.Series(tariff).map({"basic": 10.0, "family": 25.0, "business": 90.0}) + RNG.normal(0, 2, ROWS)
    proposal = propose(sensors().assign(tariff=tariff, y=price), tmp_path)
    assert problem(proposal)["ignore"] == ["tariff"]
    assert "seems to be made from the target" in proposal.why["tariff"]
    assert any("'tariff' is ignored, and alone shows more of 'y'" in line for line in attention(proposal))


def test_every_assumption_names_what_overrides_it(tmp_path: Path) -> None:
    table = classes(("churn", "stay"), 0.1).assign(
        customer_id=np.arange(ROWS), same="a", note=[f"n {i}" for i in range(ROWS)]
    )
    for line in propose(table, tmp_path).assumptions:
        assert "--" in line or any(f"{section}." in line for section in ("problem", "split", "search", "monitor")), line


@pytest.mark.parametrize("first", [0, 1])
def test_a_row_number_is_left_out_whatever_its_name_and_quietly(first: int, tmp_path: Path) -> None:
    table = pd.DataFrame({"seqno": range(first, ROWS + first), "x": RNG.normal(size=ROWS)})
    table["y"] = np.where(table["seqno"] < ROWS / 2, "no", "yes")  # a file that is sorted by its target
    found = propose(table, tmp_path)
    assert problem(found)["ignore"] == ["seqno"]
    assert attention(found) == []
    assert any("'seqno': counts the rows one by one" in line and "--time" in line for line in found.assumptions)


def test_numbers_that_skip_or_repeat_are_no_row_numbers(tmp_path: Path) -> None:
    x = RNG.normal(size=ROWS)
    table = pd.DataFrame({"even": range(0, 2 * ROWS, 2), "pairs": np.arange(ROWS) // 2, "x": x, "y": x.round(2)})
    assert problem(propose(table, tmp_path, kind="regression"))["ignore"] == ["x"]  # the copy of y


def test_a_row_number_that_is_the_time_is_the_time(tmp_path: Path) -> None:
    table = pd.DataFrame({"t": range(1, 201), "x": RNG.normal(size=200), "y": RNG.normal(size=200)})
    assert (problem(propose(table, tmp_path))["time"], problem(propose(table, tmp_path))["ignore"]) == ("t", [])


@pytest.mark.parametrize(("rows", "dated"), [(30, False), (48, False), (59, True), (60, True)])
def test_d6_what_is_proposed_for_a_small_table_is_not_refused(rows: int, dated: bool, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    table = pd.DataFrame({"x": draw.normal(size=rows), "y": draw.normal(size=rows)})
    if dated:
        table.insert(0, "year", range(1950, 1950 + rows))
    found = propose(table, tmp_path)
    assert found.params["split"]["strategy"] == ("time" if dated and rows >= 60 else "kfold")
    assert check_proposal(table, found) == []


def check_proposal(table: pd.DataFrame, found: SettingsProposal) -> list[str]:
    """What `check` stops for, under what was proposed."""
    agreed = table_schema.parse_schema(yaml.safe_load(found.schema))
    seen = table_validation.inspect_table(table, project_params.parse_settings(found.params), agreed)
    return [f.message for f in seen.findings if f.level == "stop"]


def rare_classes(*counts: int) -> pd.DataFrame:
    """Classes a, b, c, ... of so many rows each."""
    names = np.repeat([chr(ord("a") + i) for i in range(len(counts))], counts)
    return pd.DataFrame({"x": np.random.default_rng(3).normal(size=len(names)), "y": names})


def test_e2_rows_of_too_rare_classes_are_set_aside_aloud(tmp_path: Path) -> None:
    table = rare_classes(100, 60, 40, 8, 1)
    found = propose(table, tmp_path)
    assert yaml.safe_load(found.schema)["accept"] == ["classes:y"]
    assert any(
        "9 rows are of classes of 'y' with fewer than 10" in line and "'e' (1)" in line for line in attention(found)
    )
    assert check_proposal(table, found) == []


def test_e2_of_two_classes_that_are_left_the_rarer_is_positive(tmp_path: Path) -> None:
    found = propose(rare_classes(100, 30, 2), tmp_path)
    assert problem(found)["positive"] == "b"


@pytest.mark.parametrize("counts", [(100, 30), (100, 9), (40, 9, 9, 9)])
def test_e2_what_is_no_small_part_is_not_set_aside(counts: tuple[int, ...], tmp_path: Path) -> None:
    found = propose(rare_classes(*counts), tmp_path)
    assert yaml.safe_load(found.schema)["accept"] == []
    assert attention(found) == []


def test_c2_a_class_called_none_is_a_class(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    table = pd.DataFrame({"x": draw.normal(size=300), "y": draw.choice(["None", "Some", "Marked"], 300)})
    found = propose(table, tmp_path)
    assert found.params["data"]["format"]["keep_words"] == ["y"]
    assert any("is a class of 'y'" in line and "data.format.keep_words" in line for line in found.assumptions)
    assert "'None'" in str(found.schema) or "None" in yaml.safe_load(found.schema)["columns"]["y"]["categories"]


@pytest.mark.parametrize("word", ["NA", "null", ""])
def test_c2_other_words_for_no_label_are_none(word: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    table = pd.DataFrame({"x": draw.normal(size=300), "y": draw.choice([word, "Some", "Marked"], 300)})
    assert "format" not in propose(table, tmp_path).params["data"]


def test_c2_none_among_numbers_is_no_value(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    table = pd.DataFrame({"x": draw.normal(size=300), "y": draw.choice(["None", "1.5", "2.5", "3.5", "7"], 300)})
    found = propose(table, tmp_path)
    assert ("format" in found.params["data"], found.kind) == (False, "regression")


@pytest.mark.parametrize("form", ["%A, %d. %B %Y %H:%M:%S.%f", "%Y-%m-%d at %H:%M", "%H:%M %d %B %Y"])
def test_d3_dates_in_a_form_that_is_not_read_are_named(form: str, tmp_path: Path) -> None:
    table = sensors(200).rename(columns={"at": "date"})
    table["date"] = table["date"].dt.strftime(form)
    (line,) = attention(propose(table, tmp_path, "s0"))
    assert repr(table["date"].iloc[0]) in line
    assert "2024-12-31" in line


def test_d3_words_that_are_no_dates_are_not_called_so(tmp_path: Path) -> None:
    table = sensors(200).rename(columns={"at": "since"})
    table.insert(0, "date", [f"batch {i % 20}" for i in range(200)])
    table.insert(1, "month", RNG.choice(["May", "June", "July"], 200))
    assert attention(propose(table, tmp_path, "s0")) == []


def test_an_input_that_marks_one_class_is_named_and_kept(tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    y = draw.choice(["low", "middle", "high"], 300)
    table = pd.DataFrame({"x": draw.normal(size=300), "top": (y == "high").astype(int), "y": y})
    table["other"] = draw.integers(0, 2, 300)
    found = propose(table, tmp_path)
    (line,) = attention(found)
    assert "'top' is 1 in just the rows whose 'y' is 'high'" in line
    assert problem(found)["ignore"] == []


def test_d4_an_id_with_a_few_rows_each_is_a_group_and_a_large_group_is_not(tmp_path: Path) -> None:
    x = np.random.default_rng(7).normal(size=ROWS)
    table = pd.DataFrame({"route_id": np.arange(ROWS) // 4 + 7, "store_id": np.arange(ROWS) % 20 + 7, "x": x})
    table["y"] = np.random.default_rng(8).normal(size=ROWS)
    found = problem(propose(table, tmp_path))
    assert (found["group"], found["ignore"]) == ("route_id", [])
    table["route_id"] = np.random.default_rng(9).integers(7, 257, ROWS)  # of no fixed number
    found = problem(propose(table, tmp_path))
    assert (found["group"], found["ignore"]) == (None, ["route_id"])


def test_d3_four_years_of_one_place_after_the_other_are_the_time(tmp_path: Path) -> None:
    table = pd.DataFrame({"year": np.tile([1997, 1998, 1999, 2000], 100), "x": RNG.normal(size=400)})
    table["y"] = RNG.normal(size=400)
    assert problem(propose(table, tmp_path))["time"] == "year"


def test_a_subject_that_decides_the_target_is_left_out_and_check_goes_on(tmp_path: Path) -> None:
    draw = np.random.default_rng(9)
    subject = draw.integers(0, 40, ROWS)
    table = pd.DataFrame(
        {"subject": subject, "x": draw.normal(size=ROWS), "mass": draw.normal(60, 9, 40).round(2)[subject]}
    )
    found = propose(table, tmp_path, "mass")
    assert problem(found)["ignore"] == ["subject"]
    assert any("'subject' is ignored, and alone shows more" in line for line in attention(found))
    assert check_proposal(table, found) == []


def test_an_input_that_nearly_decides_the_target_is_kept(tmp_path: Path) -> None:
    draw = np.random.default_rng(9)
    subject = draw.integers(0, 40, ROWS)
    mass = draw.normal(60, 9, 40)[subject] + draw.normal(0, 1, ROWS)
    table = pd.DataFrame({"subject": subject, "x": draw.normal(size=ROWS), "mass": mass.round(2)})
    assert problem(propose(table, tmp_path, "mass"))["ignore"] == []


@pytest.mark.parametrize(("zeros", "metric"), [(0.7, "rmse"), (0.3, "mae")])
def test_amounts_that_are_mostly_one_value_are_not_judged_by_mae(zeros: float, metric: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(10)
    y = np.where(draw.random(ROWS) < zeros, 0.0, draw.lognormal(size=ROWS).round(3))
    found = propose(pd.DataFrame({"x": draw.normal(size=ROWS), "y": y}), tmp_path)
    assert problem(found)["metric"] == metric
    assert any("problem.metric overrides" in line for line in found.assumptions) == (metric == "rmse")
