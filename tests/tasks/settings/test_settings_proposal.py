from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.projects import ROOT
from tests.support.tables import every_type, houses
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion
from windvane.tasks.settings import project_params, settings_proposal, yaml_files
from windvane.tasks.settings.yaml_files import SettingsProposal
from windvane.tasks.split import data_split
from windvane.tasks.validate import table_validation

pytestmark = pytest.mark.long


def proposed(table: Path, target: str, **given: Any) -> SettingsProposal:
    """A proposal whose file says just what it says, and under which the stages run."""
    proposal = settings_proposal.propose_settings(table, target, **given)
    read = yaml.safe_load(yaml_files.render_params(proposal))
    assert read == proposal.params
    assert project_params.parse_settings(read).problem.target == target
    return proposal


def runs(root: Path, proposal: SettingsProposal) -> None:
    mine = project_params.parse_settings(proposal.params)
    ingestion.run_ingest(root, mine)
    table_validation.run_validation(root, mine)
    data_split.run_split(root, mine)


def of(proposal: SettingsProposal) -> tuple[Any, ...]:
    problem = proposal.params["problem"]
    return proposal.kind, problem["time"], problem["id"], problem["ignore"], proposal.params["split"]["strategy"]


def test_texas_house_prices_are_proposed_as_they_are_shipped() -> None:
    proposal = proposed(ROOT / "data/txhousing.csv", "median")
    shipped = project_params.load_settings(ROOT / "params.yaml")
    mine = project_params.parse_settings(proposal.params)
    assert (mine.problem, mine.split, mine.search, mine.gate) == (
        shipped.problem,
        shipped.split,
        shipped.search,
        shipped.gate,
    )
    assert (proposal.rows, proposal.columns) == (8602, 10)
    assert any("'volume': is empty where the target is" in line for line in proposal.assumptions)


@pytest.mark.parametrize(
    ("days", "a_day", "window"),
    [
        (20, 500, "1d"),
        (60, 500, "1d"),
        (60, 20, "7d"),
        (400, 20, "7d"),
        (60, 1, "1mo"),
        (1000, 20, "1mo"),
        (1000, 1, "1mo"),
    ],
)
def test_the_window_follows_the_pace_of_the_table(days: int, a_day: int, window: str, tmp_path: Path) -> None:
    at = pd.date_range("2024-01-01", periods=days * a_day, freq=pd.Timedelta(days=1) / a_day)
    x = np.random.default_rng(0).normal(size=len(at))
    pd.DataFrame({"at": at.floor("s"), "x": x, "y": 2 * x}).to_csv(path := tmp_path / "t.csv", index=False)
    proposal = proposed(path, "y", time="at")
    assert proposal.params["monitor"]["window"] == window
    assert any(f"windows of {window}" in line for line in proposal.assumptions)


def test_numbers_for_times_make_windows_of_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=20_000)
    pd.DataFrame({"n": range(20_000), "x": x, "y": 2 * x}).to_csv(path := tmp_path / "t.csv", index=False)
    assert proposed(path, "y", time="n").params["monitor"]["window"] == 400


def test_regret_is_proposed_where_there_is_a_time_and_staleness_else(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=300)
    table = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=300), "x": x, "y": 2 * x})
    table.to_csv(path := tmp_path / "t.csv", index=False)
    assert proposed(path, "y").params["retrain"]["policy"] == "regret"
    table.drop(columns="at").to_csv(path, index=False)
    timeless = proposed(path, "y").params
    assert (timeless["problem"]["time"], timeless["retrain"]["policy"]) == (None, "staleness")


FLIGHTS = {
    "late15": ("classification", ["air_time", "arr_delay", "cancelled", "dep_delay"]),
    "cancelled": ("classification", ["air_time", "arr_delay", "dep_delay", "late15"]),
    "arr_delay": ("regression", ["air_time", "cancelled", "dep_delay", "late15"]),
}


@pytest.mark.parametrize("target", FLIGHTS)
def test_flights_what_is_known_only_afterwards_is_ignored(target: str, whole_table: Callable[[str], Path]) -> None:
    kind, ignored = FLIGHTS[target]
    proposal = proposed(whole_table("nycflights13.parquet"), target)
    assert of(proposal) == (kind, "ts", None, ignored, "time")
    assert any("50,000 of 336,776 rows" in line for line in proposal.assumptions)


WHOLE = {
    "king_county_houses": ("price", ("regression", "ts", None, ["id"], "time")),
    "bikeshare_dc_hourly": ("count", ("regression", "ts", None, [], "time")),
    "avocados": ("average_price", ("regression", "ts", None, [], "time")),
    "parking_birmingham": ("occ", ("regression", "ts", None, [], "time")),
    "noaa_rain": ("rain", ("classification", "seq", None, [], "time")),
    "census_income": ("income", ("classification", None, None, [], "stratified")),
    "brand_sentiment": ("sentiment", ("classification", None, None, ["text"], "stratified")),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_tables(name: str, whole_table: Callable[[str], Path]) -> None:
    target, expected = WHOLE[name]
    assert of(proposed(whole_table(f"{name}.parquet"), target)) == expected


def test_breast_cancer(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    path = tmp_path / "breast cancer!.csv"
    load_breast_cancer(as_frame=True).frame.to_csv(path, index=False)
    proposal = proposed(path, "target")
    assert of(proposal) == ("classification", None, None, [], "kfold")
    assert proposal.params["project"] == "breast-cancer"
    assert proposal.params["problem"]["metric"] == "log_loss"
    assert proposal.params["search"]["candidates"] == ["linear", "tree", "forest"]
    assert any("569 labelled rows are few" in line for line in proposal.assumptions)
    runs(tmp_path, proposal)


@pytest.mark.parametrize(
    ("share", "classes", "metric", "threshold"),
    [(0.06, 2, "average_precision", "f1"), (0.25, 2, "log_loss", None), (0.06, 3, "average_precision", None)],
)
def test_rare_classes_get_a_metric_that_sees_them(
    share: float, classes: int, metric: str, threshold: str | None, tmp_path: Path
) -> None:
    table = houses(1_500).drop(columns="price")
    table["sold"] = np.where(np.arange(1_500) < 1_500 * share, "yes", "no")
    if classes == 3:
        table.loc[700:, "sold"] = "perhaps"
    table["sold"] = table["sold"].sample(frac=1, random_state=0).to_numpy()
    path = tmp_path / "t.parquet"
    table.to_parquet(path)
    proposal = proposed(path, "sold")
    search = proposal.params["search"]
    assert (proposal.params["problem"]["metric"], search["threshold"], search["imbalance"]) == (metric, threshold, None)
    assert any("'sold' is yes in only 6.0%" in line for line in proposal.assumptions) == (share < 0.2)
    runs(tmp_path, proposal)


@pytest.mark.parametrize(("rows", "boosting"), [(999, False), (1_000, True)])
def test_only_rows_with_a_label_make_a_table_large_enough_for_boosting(
    rows: int, boosting: bool, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    table = houses(1_200)
    table.loc[rows:, "price"] = np.nan
    table.to_csv(path, index=False)
    proposal = proposed(path, "price")
    assert ("boosting" in proposal.params["search"]["candidates"]) == boosting
    assert any(f"{rows} labelled rows are few" in line for line in proposal.assumptions) != boosting


def test_a_table_with_every_column_type(tmp_path: Path) -> None:
    proposal = proposed(every_type(tmp_path / "t.parquet"), "price")
    kind, time, _, ignored, strategy = of(proposal)
    assert (kind, time, strategy) == ("regression", "date", "time")
    assert {"list", "struct", "bytes", "no", "constant", "text"} <= set(ignored)
    assert not {"float", "words", "dictionary", "bool gaps", "int8 gaps", "Größe: 'é', \"x\""} & set(ignored)
    runs(tmp_path, proposal)


def test_odd_names_are_quoted_and_given_roles_are_kept(tmp_path: Path) -> None:
    names = {"size": "no", "town": "a: b # c", "price": "null", "day": "'day', \"1\" \\ [x]"}
    path = tmp_path / "odd.csv"
    table = houses().rename(columns=names).assign(**{"{y}": "same", "line\nbreak": "same", "- x": "same", "7": "same"})
    table["nr"] = [f"A{i}" for i in range(len(table))]
    table.to_csv(path, index=False)
    proposal = proposed(path, "null", time=names["day"], ignore=("a: b # c",))
    assert of(proposal)[1:4] == (names["day"], "nr", ["- x", "7", "a: b # c", "line\nbreak", "{y}"])
    runs(tmp_path, proposal)
    assert of(proposed(path, "null", id="nr", kind="regression"))[2] == "nr"


def test_ids_times_and_what_is_neither(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 1200
    path = tmp_path / "t.parquet"
    table = pd.DataFrame(
        {
            "customer_id": rng.permutation(n),
            "store_id": rng.integers(0, 9, n),
            "birth_date": pd.date_range("1950-01-01", periods=n),
            "delivered": pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
            "steps": rng.integers(0, 10_000, n),
            "price": rng.normal(size=n),
        }
    )
    table.to_parquet(path)
    assert of(proposed(path, "price")) == ("regression", None, "customer_id", [], "random")
    table.assign(ordered_at=pd.date_range("2020-01-01", periods=n)).to_parquet(path)
    assert of(proposed(path, "price"))[1] == "ordered_at"


def test_copies_of_the_target_are_ignored_and_good_predictors_kept(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 800
    size = rng.normal(100, 20, n)
    price = np.exp(size / 40 + rng.normal(0, 0.1, n))
    band = pd.cut(price, [0, 8, 12, 1e9], labels=["low", "middle", "high"]).astype("str")
    columns = {"size": size, "price": price, "band": band, "band_code": pd.factorize(band)[0], "log": np.log(price)}
    path = tmp_path / "t.parquet"
    pd.DataFrame(columns).to_parquet(path)
    assert of(proposed(path, "price"))[3] == ["band", "band_code", "log"]
    assert of(proposed(path, "band"))[3] == ["band_code", "log", "price"]


BAD = {
    "absent target": ("pryce", {}, "--target: .*no column 'pryce'. Did you mean 'price'"),
    "absent time": ("price", {"time": "date"}, "--time: .*no column 'date'"),
    "dates": ("day", {}, "'day' holds dates"),
    "names": ("name", {}, "'name' holds free text or names"),
    "unknown kind": ("price", {"kind": "regresion"}, "problem.kind: .*Did you mean regression"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_proposed_for_is_refused(name: str, tmp_path: Path) -> None:
    target, given, said = BAD[name]
    path = tmp_path / "t.csv"
    houses().assign(name=[f"Mr. {i}" for i in range(200)]).to_csv(path, index=False)
    with pytest.raises(InputError, match=said):
        settings_proposal.propose_settings(path, target, **given)


def test_mixed_columns_are_ignored_aloud_but_never_the_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = houses()
    table["size"] = ["many", *map(str, table["size"][1:])]
    table.to_csv(path, index=False)
    proposal = proposed(path, "price")
    assert "mixes types" in proposal.why["size"]
    runs(tmp_path, proposal)
    with pytest.raises(InputError, match=r"'size' mixes types.*line 2"):
        settings_proposal.propose_settings(path, "size")


def test_an_older_params_yaml_is_moved_aside_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    proposal = proposed(ROOT / "data/txhousing.csv", "median")
    assert yaml_files.write_params(proposal, tmp_path) == ("params.yaml",)
    assert project_params.load_settings(path).problem.target == "median"
    assert yaml_files.write_params(proposal, tmp_path) == ("params.yaml",)
    for number, name in enumerate(["params.yaml.bak", "params.yaml.bak1"]):
        path.write_text(f"mine: {number}")
        assert yaml_files.write_params(proposal, tmp_path) == (f"params.yaml (the old one is kept as {name})",)
        assert (tmp_path / name).read_text() == f"mine: {number}"
    assert {p.name for p in tmp_path.iterdir()} == {"params.yaml", "params.yaml.bak", "params.yaml.bak1"}
