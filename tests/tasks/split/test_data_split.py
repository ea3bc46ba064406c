from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.projects import ROOT
from tests.support.tables import chosen, houses
from windvane.tasks import io
from windvane.tasks.errors import InputError, SealedError
from windvane.tasks.ingest import ingestion, row_keys, table_io
from windvane.tasks.settings import project_params as params
from windvane.tasks.split import data_split, strategies
from windvane.tasks.validate import table_profile, table_schema, table_validation


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{table_io.ROW_KEY: row_keys.hash_rows(table, tuple(table.columns))})


def side(
    table: pd.DataFrame, mine: params.Settings, taught_until: strategies.TimeValue = None, *, categories: bool = False
) -> pd.Series:
    """0 teaches, 1 tunes, 2 judges: one per row; the three masks part the table."""
    sides = strategies.split_rows(table, mine, taught_until, categories=categories)
    parts = np.array([sides.train, sides.validation, sides.test])
    assert (parts.sum(axis=0) == 1).all()
    return pd.Series(parts.argmax(axis=0), index=table.index)


def setting(strategy: str, **problem: Any) -> params.Settings:
    kind = "classification" if strategy == "stratified" else "regression"
    whole = {"kind": kind, "target": "town" if kind == "classification" else "price", **problem}
    return chosen(split={"strategy": strategy, "seed": whole.pop("seed", 0)}, **whole)


STICKY = {
    "random": setting("random"),
    "stratified": setting("stratified"),
    "kfold": setting("kfold"),
    "kfold of classes": setting("kfold", kind="classification", target="town"),
    "group": setting("group", group="block"),
    "random with groups": setting("random", group="block"),
    "stratified with groups": setting("stratified", group="block"),
}


def streets(rows: int, seed: int, rare: int) -> pd.DataFrame:
    """Houses with 40 blocks of uneven size, a rare town, and some exact duplicates."""
    rng = np.random.default_rng(seed)
    table = houses(rows, seed)
    table["block"] = rng.integers(0, 40, rows) ** 2
    table.loc[rng.choice(rows, rare, replace=False), "town"] = "Rom"
    return keyed(pd.concat([table, table.sample(5, random_state=seed)], ignore_index=True))


@given(st.sampled_from(sorted(STICKY)), st.integers(0, 2**31), st.integers(0, 40), st.integers(100, 400))
@settings(max_examples=60, deadline=None)
def test_a_growing_table_never_moves_a_row_from_teaching_to_judging(name: str, seed: int, rare: int, rows: int) -> None:
    mine, table = STICKY[name], streets(500, seed, rare + 10)
    young = table.iloc[:rows]
    if len(set(table["town"]) - set(young["town"])):
        young = pd.concat([young, table[table["town"] == "Rom"]]).drop_duplicates()
    try:
        before = side(young, mine)
        after = side(table.sample(frac=1, random_state=seed % 1000), mine)[before.index]
    except InputError:  # groups may leave a side too small: refused, not moved
        return
    assert (after <= before).all()
    # Who judges by share, not because a side was short, stays.
    key = row_keys.hash_values(young["block"]) if "group" in name else young[table_io.ROW_KEY].to_numpy()
    place = row_keys.map_to_unit_interval(key, mine.split.seed)
    assert (after[place < mine.split.test] == 2).all()
    assert "kfold" in name or (after[place < mine.split.test + mine.split.validation] >= 1).all()


def test_sides_by_hash_do_not_move_at_all_once_there_are_enough_rows() -> None:
    mine, table = STICKY["random"], keyed(houses(4000))
    young = side(table.iloc[:2000], mine)
    shuffled = side(table.sample(frac=1, random_state=0), mine)
    assert (shuffled[young.index] == young).all()
    assert np.bincount(shuffled) / 4000 == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    assert (side(table, setting("random", seed=1)) != side(table, mine)).any()


def test_rows_of_one_key_or_group_stay_together() -> None:
    table = streets(500, 3, 20)
    for name, mine in STICKY.items():
        together = "block" if "group" in name else table_io.ROW_KEY
        assert side(table, mine).groupby(table[together]).nunique().max() == 1, name


def test_stratified_puts_every_class_on_every_side() -> None:
    table = houses(400)
    table.loc[:9, "town"] = "Rom"
    for seed in range(20):
        counts = pd.crosstab(side(keyed(table), setting("stratified", seed=seed)), table["town"])
        assert counts.loc[[1, 2], "Rom"].min() >= strategies.MIN_SPLIT_CLASS_ROWS
        assert counts.loc[0, "Rom"] >= 1


def test_sides_that_come_out_too_small_are_refused_with_a_remedy() -> None:
    small = keyed(houses(60))
    assert np.bincount(side(small, setting("random"))).min() >= strategies.MIN_SPLIT_ROWS
    with pytest.raises(InputError, match=r"split: .*rows are left to learn from.*finer group"):
        side(small.assign(block=1), setting("group", group="block"))
    with pytest.raises(InputError, match=r"split: .*rows are left to learn from.*kfold"):
        side(small[:50], setting("time", time="day"))
    with pytest.raises(InputError, match=r"problem\.time: .*'day' has 2 different values.*stratified or random"):
        side(small.assign(day=[1] * 30 + [2] * 30), setting("time", time="day"))
    late = keyed(houses(400).assign(town=["Ulm"] * 380 + ["Rom"] * 20))
    with pytest.raises(InputError, match=r"split\.strategy: .*: time leaves no row of class 'Rom'.*stratified"):
        side(late, setting("time", time="day", kind="classification", target="town"))


def monthly(months: int, a_month: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = houses(months * a_month)
    table["day"] = np.repeat(pd.date_range("2010-01-01", periods=months, freq="MS").as_unit("us"), a_month)
    return keyed(table.assign(noise=rng.normal(size=len(table))))


TIME = setting("time", time="day")


def test_time_cuts_between_timestamps_and_the_newest_judge() -> None:
    table = monthly(100)
    where = side(table, TIME)
    assert np.bincount(where).tolist() == [700, 150, 150]
    assert where.groupby(table["day"]).nunique().max() == 1
    newest = table.groupby(where)["day"].agg(["min", "max"])
    assert newest["max"][0] < newest["min"][1]
    assert newest["max"][1] < newest["min"][2]


@pytest.mark.parametrize(("new", "expected"), [(6, (15, 30)), (20, (50, 100)), (60, (150, 150))])
def test_after_a_champion_only_newer_rows_tune_and_judge(new: int, expected: tuple[int, int]) -> None:
    table = monthly(100)
    until = table["day"].drop_duplicates().iloc[-new - 1]
    sides = strategies.split_rows(table, TIME, until.isoformat())
    assert sides.taught_until == until.isoformat()
    assert f"{new * 10} rows are newer" in sides.reason
    assert (table["day"][sides.validation | sides.test] > until).all()
    assert abs(int(sides.validation.sum()) - expected[0]) <= 5
    assert int(sides.test.sum()) == expected[1]
    # Part of the new world teaches.
    assert (table["day"][sides.train] > until).any()


@pytest.mark.parametrize("until", ["2018-04-01T00:00:00", "2019-01-01T00:00:00", 7])
def test_with_too_few_newer_rows_the_whole_table_is_cut(until: strategies.TimeValue) -> None:
    sides = strategies.split_rows(monthly(100), TIME, until)
    assert sides.taught_until is None
    assert str(until) in sides.reason
    assert int(sides.test.sum()) == 150


def test_time_may_be_a_number() -> None:
    table = monthly(100).assign(day=np.repeat(np.arange(100), 10))
    sides = strategies.split_rows(table, TIME, 79)
    assert sides.taught_until == 79
    assert table["day"][sides.test | sides.validation].min() >= 80
    assert data_split.find_trained_until(table, TIME) == 99
    assert strategies.split_rows(table, TIME, "2018-01-01").taught_until is None


@pytest.fixture
def texas(tmp_path: Path) -> Path:
    mine = params.load_settings(ROOT / "params.yaml")
    (tmp_path / "data").mkdir()
    (tmp_path / mine.data.source).write_bytes((ROOT / mine.data.source).read_bytes())
    io.write_json({"taught_until": None}, tmp_path / io.TRAINED_UNTIL_FILE)
    ingestion.run_ingest(tmp_path, mine)
    data_split.run_split(tmp_path, mine)
    return tmp_path


def test_texas_on_disk(texas: Path) -> None:
    mine = params.load_settings(ROOT / "params.yaml")
    train, validation = data_split.read_training_rows(texas, mine)
    permit = data_split.TestPermit("f" * 8)
    test = data_split.open_test_rows(texas, mine, permit)
    assert len(train) + len(validation) + len(test) == 8602 - 616
    assert train["ts"].max() < validation["ts"].min() <= validation["ts"].max() < test["ts"].min()
    record = json.loads((texas / data_split.SPLIT_FOLDER / data_split.SPLIT_RECORD_FILE).read_bytes())
    assert record["test"] == {"rows": len(test), "from": "2013-06-01T00:00:00", "to": "2015-07-01T00:00:00"}
    assert record["taught_until"] is None
    whole = data_split.read_final_rows(texas, mine, permit)
    assert len(whole) == 7986
    assert data_split.find_trained_until(whole, mine) == "2015-07-01T00:00:00"
    by_key = mine.model_copy(update={"split": params.SplitSettings(strategy="random")})
    data_split.run_split(texas, by_key)
    assert table_io.ROW_KEY in whole
    assert not set(data_split.read_final_rows(texas, by_key, permit)[table_io.ROW_KEY]) & set(
        data_split.open_test_rows(texas, by_key, permit)[table_io.ROW_KEY]
    )


def test_same_rows_same_bytes(texas: Path) -> None:
    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (texas / data_split.SPLIT_FOLDER).iterdir()}

    first = content()
    data_split.run_split(texas, params.load_settings(ROOT / "params.yaml"))
    assert content() == first
    assert set(first) == {data_split.SPLIT_CODES_FILE, data_split.SPLIT_RECORD_FILE}
    assert not list(texas.rglob("*.part"))


@pytest.mark.parametrize("id", [None, "name"])
def test_the_record_tells_any_other_table(tmp_path: Path, id: str | None) -> None:
    table = houses(120).assign(name=[f"h{i}" for i in range(120)])
    mine = chosen("t.csv", id=id)

    def recorded(changed: pd.DataFrame) -> str:
        changed.to_csv(tmp_path / "t.csv", index=False)
        ingestion.run_ingest(tmp_path, mine)
        data_split.run_split(tmp_path, mine)
        return str(
            json.loads((tmp_path / data_split.SPLIT_FOLDER / data_split.SPLIT_RECORD_FILE).read_bytes())["table"]
        )

    first = recorded(table)
    cell = table.copy()
    cell.loc[7, "size"] += 1
    label = table.copy()
    label.loc[7, "price"] = None
    others = [cell, label, table.rename(columns={"size": "sizes"}), table.iloc[::-1], table.assign(more=1)]
    assert len({first, *map(recorded, others)}) == 6
    assert recorded(table) == first


def test_the_test_side_is_sealed(texas: Path) -> None:
    for permit in (None, "please", data_split.TestPermit("")):
        with pytest.raises(SealedError, match="sealed"):
            data_split.open_test_rows(texas, params.load_settings(ROOT / "params.yaml"), permit)  # type: ignore[arg-type]
    with pytest.raises(SealedError):
        data_split.read_final_rows(texas, params.load_settings(ROOT / "params.yaml"), None)  # type: ignore[arg-type]


def test_kfold_leaves_validation_empty_and_keeps_its_columns(tmp_path: Path) -> None:
    table, mine = houses(120), setting("kfold")
    table_io.write_parquet(keyed(table), tmp_path / table_profile.TABLE_FILE)
    data_split.run_split(tmp_path, mine)
    train, validation = data_split.read_training_rows(tmp_path, mine)
    assert len(validation) == 0
    assert list(validation.columns) == list(train.columns)
    assert validation.dtypes.to_dict() == train.dtypes.to_dict()
    assert len(data_split.read_final_rows(tmp_path, mine, data_split.TestPermit("x"))) == len(train)


@pytest.mark.parametrize(("values", "rare"), [(["a", "b", "c"], "c"), ([0, 1, 2], 2), ([True, False], None)], ids=str)
def test_e2_n2_no_split_holds_rows_of_a_class_that_was_set_aside(tmp_path: Path, values: list[Any], rare: Any) -> None:
    table = houses(200).assign(label=[values[i % 2] for i in range(200)])
    if rare is not None:
        table["label"] = [rare if i in (3, 50, 120) else v for i, v in enumerate(table["label"])]
    mine = chosen(kind="classification", target="label", split={"strategy": "stratified"})
    table_io.write_parquet(keyed(table), tmp_path / table_profile.TABLE_FILE)
    schema = table_schema.parse_schema({"accept": ["classes:label"], "columns": {"label": {"type": "category"}}})
    profile = table_validation.inspect_table(table, mine, schema).profile
    assert profile.set_aside == (() if rare is None else (rare,))
    io.write_json(profile.to_json(), tmp_path / table_profile.PROFILE_FILE)
    data_split.run_split(tmp_path, mine)
    parts = (
        *data_split.read_training_rows(tmp_path, mine),
        data_split.open_test_rows(tmp_path, mine, data_split.TestPermit("x")),
    )
    assert sum(map(len, parts)) == 200 - (0 if rare is None else 3)
    assert all(rare not in set(part["label"]) for part in parts)


def test_e2_n3_a_profile_without_such_classes_is_written_as_before() -> None:
    profile = table_profile.profile_table(houses(40))
    assert "set_aside" not in profile.to_json()


@pytest.mark.parametrize("rows", [60, 100, 190, 400])
def test_d6_n1_in_time_thirty_rows_judge_even_a_small_table(rows: int) -> None:
    sides = strategies.split_rows(keyed(houses(rows)), setting("time", time="day"), None)
    assert sides.test.sum() >= 30
    assert sides.validation.sum() >= strategies.MIN_SPLIT_ROWS
    assert sides.test.sum() == max(30, round(0.15 * rows))


def late(delay: str, rows: int = 400, hours: int = 24, strategy: str = "time") -> tuple[pd.DataFrame, params.Settings]:
    """Rows every so many hours, whose labels come late."""
    times = pd.date_range("2020-01-01", periods=rows, freq=f"{hours}h").as_unit("us")
    table = keyed(pd.DataFrame({"day": times, "size": np.arange(rows) * 1.0, "price": np.arange(rows) * 2.0}))
    content = {"project": "p", "problem": {"kind": "regression", "target": "price", "time": "day"}}
    content |= {"data": {"source": "t.csv"}, "split": {"strategy": strategy}, "monitor": {"label_delay": delay}}
    return table, params.parse_settings(content)


@pytest.mark.parametrize("delay", ["12h", "14d", "30d"])
def test_labels_that_come_late_leave_a_gap_as_long(delay: str) -> None:
    table, mine = late(delay)
    sides = strategies.split_rows(table, mine, None)
    span = mine.monitor.delay
    for before, after in ((sides.train, sides.validation), (sides.validation, sides.test)):
        assert table["day"][after].min() - table["day"][before].max() >= span
        assert table["day"][after].min() - table["day"][before].max() < span + pd.Timedelta(days=1)
    whole = strategies.split_rows(*late("0d"), None)
    assert sides.test.sum() == whole.test.sum()
    assert sides.validation.sum() == pytest.approx(whole.validation.sum(), abs=2)
    assert f"labels come {delay} late" in sides.reason or delay == "0d"


def test_without_a_delay_and_without_time_there_is_no_gap() -> None:
    assert not strategies.split_rows(*late("0d"), None).gap.any()
    assert not strategies.split_rows(*late("14d", strategy="random"), None).gap.any()
    table, mine = late("14d")
    numbers = table.assign(day=np.arange(400))
    assert not strategies.split_rows(numbers, mine, None).gap.any()


def test_a_gap_behind_a_champion_is_cut_of_the_whole_table_where_too_little_is_new() -> None:
    table, mine = late("14d")
    parted = strategies.split_rows(table, mine, table["day"][250].isoformat())
    assert parted.taught_until == table["day"][250].isoformat()
    assert table["day"][parted.validation].min() > table["day"][250]
    table, mine = late("40d")
    parted = strategies.split_rows(table, mine, table["day"][330].isoformat())
    assert parted.taught_until is None
    assert "a gap of 40d leaves none of the rows newer than" in parted.reason
    assert parted.gap.any()


def test_a_gap_that_leaves_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match=r"monitor.label_delay: .*gaps of 365d .*Shorten it"):
        strategies.split_rows(*late("365d"), None)


def test_rows_of_a_gap_train_what_is_registered_and_nothing_else(tmp_path: Path) -> None:
    table, mine = late("14d")
    for path in (table_profile.TABLE_FILE, data_split.SPLIT_FOLDER / "x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    table_io.write_parquet(table, tmp_path / table_profile.TABLE_FILE)
    data_split.run_split(tmp_path, mine)
    permit = data_split.TestPermit("f")
    train, validation = data_split.read_training_rows(tmp_path, mine)
    parts = [train, validation, data_split.open_test_rows(tmp_path, mine, permit)]
    record = json.loads((tmp_path / data_split.SPLIT_FOLDER / data_split.SPLIT_RECORD_FILE).read_text())
    assert record["gap"]["rows"] == len(table) - sum(map(len, parts)) > 0
    assert len(data_split.read_final_rows(tmp_path, mine, permit)) == len(table)


def passengers(rows: int) -> pd.DataFrame:
    """Rows that say of each only its kind: 2 classes, 2 sexes, survived or not."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame({name: rng.choice(["a", "b"], rows) for name in ("class", "sex", "survived")})
    return keyed(table)


@pytest.mark.parametrize("strategy", ["stratified", "kfold", "random"])
def test_rows_of_few_combinations_are_split_one_by_one(strategy: str) -> None:
    kind = "classification" if strategy != "random" else "regression"
    mine = setting(strategy, kind=kind, target="survived")
    table = passengers(1_000)
    parts = side(table, mine, categories=True)
    assert 0.1 < (parts == 2).mean() < 0.2
    # As the table grows, no row of a kind moves: each split has at least as many of it.
    young = side(table.iloc[:600], mine, categories=True)
    later = pd.crosstab(table[table_io.ROW_KEY], parts)
    assert (later - pd.crosstab(table[table_io.ROW_KEY].iloc[:600], young) >= 0).all().all()


@pytest.mark.parametrize("different", [100, 300])
def test_copies_of_measured_rows_stay_in_one_split(different: int) -> None:
    mine = setting("random")
    table = keyed(pd.concat([houses(different)] * 12, ignore_index=True))
    profile = table_profile.profile_table(table)
    parts = side(table, mine, categories=strategies.holds_categories(c.distinct for c in profile.columns))
    assert (parts.groupby(table[table_io.ROW_KEY]).nunique() == 1).all()


def test_repeats_of_few_combinations_are_not_called_copies() -> None:
    seen = table_validation.inspect_table(passengers(1_000), chosen(kind="classification", target="survived"))
    (said,) = [f.message for f in seen.findings if f.check == "duplicates"]
    assert "8 different combinations" in said
    assert "counts twice" not in said


@pytest.mark.parametrize("classes", [2, 3])
def test_d6_thirty_rows_of_a_few_classes_can_be_split_in_folds(classes: int) -> None:
    for seed in range(20):
        table = houses(30, seed)
        table["town"] = [f"town {i % classes}" for i in range(30)]
        parts = side(keyed(table), setting("kfold", kind="classification", target="town", seed=seed))
        assert (parts == 0).sum() >= 10


def test_d6_a_table_that_is_cut_in_folds_is_not_told_to_be() -> None:
    table = pd.concat([houses(3)] * 9, ignore_index=True)
    with pytest.raises(InputError, match="rows are left to learn from") as raised:
        strategies.split_rows(keyed(table), setting("kfold"), None)
    assert "kfold" not in str(raised.value)
