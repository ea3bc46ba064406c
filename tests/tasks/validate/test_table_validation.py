from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.tables import chosen, houses
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion
from windvane.tasks.reports import data_report
from windvane.tasks.validate import findings, table_profile, table_statistics, table_validation
from windvane.tasks.validate.findings import TableFinding
from windvane.tasks.validate.table_profile import TableProfile


def checked(table: pd.DataFrame, tmp_path: Path, **problem: Any) -> tuple[TableProfile, tuple[TableFinding, ...]]:
    table.to_parquet(tmp_path / "houses.parquet")
    mine = chosen("houses.parquet", **problem)
    ingestion.run_ingest(tmp_path, mine)
    table_validation.run_validation(tmp_path, mine)
    told = tuple(f for f in findings.read_findings(tmp_path / findings.FINDINGS_FILE) if f.level != "pass")
    return table_profile.read_profile(tmp_path / table_profile.PROFILE_FILE), told


def test_profile_of_a_good_table(tmp_path: Path) -> None:
    found, told = checked(houses(), tmp_path, time="day")
    columns = {c.name: c for c in found.columns}
    assert (found.rows, found.key, told) == (200, ("day", "price", "size", "town"), ())
    assert {name: c.type for name, c in columns.items()} == {
        "day": "date",
        "price": "number",
        "size": "number",
        "town": "category",
    }
    assert (columns["day"].minimum, columns["day"].maximum) == ("2020-01-01T00:00:00", "2020-07-18T00:00:00")
    assert columns["town"].distinct == 3


GOOD = houses()
N = len(GOOD)
CLASSES = {"kind": "classification", "target": "town"}
STOPS: dict[str, tuple[pd.DataFrame, dict[str, Any], list[str]]] = {
    "three rows": (GOOD.head(3), {}, ["data.source", "3 rows", "40", "Add rows"]),
    "no label": (GOOD.assign(price=np.nan), {}, ["problem.target", "'price'", "empty", "Name another"]),
    "constant target": (GOOD.assign(price=7.0), {}, ["problem.target", "'price'", "constant (7.0", "Name another"]),
    "one class": (GOOD.assign(town="Ulm"), CLASSES, ["problem.target", "'town'", "constant", "Name another"]),
    "words for amounts": (GOOD, {"target": "town"}, ["problem.target", "'town'", "words", "kind: classification"]),
    "flags for amounts": (
        GOOD.assign(price=GOOD["price"] > 300),
        {},
        ["problem.target", "'price'", "true and false", "kind: classification"],
    ),
    "dates for amounts": (GOOD, {"target": "day"}, ["problem.target", "'day'", "dates"]),
    "amounts for classes": (GOOD, {"kind": "classification"}, ["'price'", "different values", "kind: regression"]),
    "rare class": (GOOD.assign(town=["Rom"] * 3 + ["Ulm"] * (N - 3)), CLASSES, ["'Rom' (3)", "10 rows", "join them"]),
    "all-missing column": (GOOD.assign(pool=np.nan), {}, ["'pool'", "empty in every row", "problem.ignore"]),
    "infinite values": (GOOD.assign(size=np.inf), {}, ["'size'", f"{N} infinite", "problem.ignore"]),
    "infinite target": (GOOD.assign(price=[np.inf, *GOOD["price"][1:]]), {}, ["'price'", "1 infinite", "Fix"]),
    "ids repeat": (GOOD.assign(id=[1, *range(1, N)]), {"id": "id"}, ["problem.id", "'id'", "such as 1", "null"]),
    "id with gaps": (GOOD.assign(id=[None, *range(1, N)]), {"id": "id"}, ["problem.id", "empty in 1 rows", "Fill"]),
    "group with gaps": (GOOD.assign(town=[None, *GOOD["town"][1:]]), {"group": "town"}, ["problem.group", "'town'"]),
    "nothing to learn from": (GOOD, {"ignore": ["day", "size", "town"]}, ["no column is left", "problem.ignore"]),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_table_that_cannot_teach_is_stopped(name: str, tmp_path: Path) -> None:
    table, problem, said = STOPS[name]
    with pytest.raises(InputError) as caught:
        checked(table, tmp_path, **problem)
    message = str(caught.value)
    assert "houses.parquet" in message
    assert all(words in message for words in said), message
    assert not (tmp_path / table_profile.PROFILE_FILE).exists()


def test_all_stops_are_said_at_once_and_ignoring_helps(tmp_path: Path) -> None:
    table = houses().assign(pool=np.nan, depth=-np.inf)
    with pytest.raises(InputError, match=r"'depth'.*; data.source: .*'pool'"):
        checked(table, tmp_path)
    checked(table, tmp_path, ignore=["pool", "depth"])


def test_a_table_that_stops_has_a_page_until_one_passes(tmp_path: Path) -> None:
    page = tmp_path / table_validation.STOPPED_PAGE_FILE
    table = houses().assign(depth=-np.inf)
    with pytest.raises(InputError, match=f"{table_validation.STOPPED_PAGE_FILE} shows the table$"):
        checked(table, tmp_path)
    assert "depth" in page.read_text(encoding="utf-8")
    assert not (tmp_path / data_report.DATA_REPORT_FILE).exists()
    checked(table, tmp_path, ignore=["depth"])
    assert not page.exists()
    assert (tmp_path / data_report.DATA_REPORT_FILE).exists()


def test_what_does_not_stop_is_a_finding(tmp_path: Path) -> None:
    table = houses().assign(country="DE", note=[f"house number {i} has a view" for i in range(N)])
    table.loc[:9, "price"] = np.nan
    table = pd.concat([table, table.tail(20)])
    found, told = checked(table, tmp_path)
    said = {finding.check: finding for finding in told}
    assert set(said) == {"label", "duplicates", "constant", "text"}
    assert found.rows == 210
    assert "10 of 220 rows" in said["label"].message
    assert "20 rows (9.5%)" in said["duplicates"].message
    assert (said["constant"].column, said["text"].column) == ("country", "note")


def test_a_large_table_is_counted_like_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(0), 1200
    table = pd.DataFrame(
        {
            "price": rng.normal(9, 2, n),
            "stars": rng.integers(1, 6, n),
            "half": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 9, n) / 2),
            "town": rng.choice(["Ulm", "Bonn"], n),
            "garden": rng.random(n) < 0.5,
            "same": 1.5,
            "day": pd.date_range("2020-01-01", periods=n),
            "far": np.where(np.arange(n) % 400 == 7, np.inf, rng.normal(0, 1, n)),
        }
    )
    table.to_parquet(tmp_path / "houses.parquet")
    mine = chosen("houses.parquet", ignore=["far"])
    ingestion.run_ingest(tmp_path, mine)
    table_validation.run_validation(tmp_path, mine)
    small = table_profile.read_profile(tmp_path / table_profile.PROFILE_FILE)
    monkeypatch.setattr(table_statistics, "EXACT_COUNT_ROWS", 1000)
    table_validation.run_validation(tmp_path, mine)
    assert table_profile.read_profile(tmp_path / table_profile.PROFILE_FILE) == small
    counted = {c.name: c for c in table_statistics.count_columns(table_statistics.scan_frame(table))[1]}
    assert (counted["far"].infinite, counted["same"].distinct, counted["stars"].distinct) == (3, 1, 5)


def test_an_estimate_says_that_it_is_one() -> None:
    assert table_statistics.describe_distinct(123_456, 1_000_000) == "123,456"
    assert table_statistics.describe_distinct(9_876, 10_000_000) == "9,876"
    assert table_statistics.describe_distinct(4_987_123, 10_000_000) == "about 5,000,000"


def test_absent_columns_are_named_without_ingest() -> None:
    with pytest.raises(InputError, match=r"problem\.target: t\.csv has no column 'pryce'\. Did you mean 'price'"):
        table_validation.check_table(houses(), chosen("t.csv", target="pryce"))
