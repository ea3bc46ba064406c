"""A table that grows: which rows judge, lap after lap, with time and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.flows.test_training_lap import ledger
from tests.support.projects import ROOT, Folder, quick_project

pytestmark = pytest.mark.slow

LAPS = 2


def record(folder: Folder, version: int) -> pd.DataFrame:
    (uri,) = ledger(folder, f"select model_uri from versions where version = {version}")[0]
    return pd.read_parquet(folder.path / Path(uri).parent / "record.parquet")


def judged(folder: Folder, version: int) -> tuple[pd.DataFrame, int | None]:
    """The rows with the flag that says which of them counted, and the champion they were compared with."""
    query = f"select j.against, v.model_uri from judgements j join versions v using (version) where version = {version}"
    against, uri = ledger(folder, query)[0]
    name = f"judgement-against-{against or 'baseline'}.parquet"
    return pd.read_parquet(folder.path / Path(uri).parent / name), against


def grown(folder: Folder, env: dict[str, str]) -> list[dict[str, Any]]:
    """A first lap on two thirds of the table, then LAPS on a tenth more each."""
    whole = pd.read_csv(ROOT / "data" / "txhousing.csv").sort_values("ts", kind="stable")
    source = folder.path / "data" / "txhousing.csv"
    rows, said = int(len(whole) * 0.6), []
    for _ in range(LAPS + 1):
        whole.head(rows).to_csv(source, index=False)
        said.append(folder.train(env=env))
        rows = min(int(rows * 1.1), len(whole))
    return said


def test_with_time_each_lap_judges_on_rows_after_what_the_champion_was_taught(
    tmp_path: Path, prefect_server: str
) -> None:
    folder = quick_project(tmp_path / "p")
    folder.set(search__candidates=["linear", "tree"], search__trials=2)
    said = grown(folder, {"PREFECT_API_URL": prefect_server})
    assert [outcome["version"] for outcome in said] == list(range(1, LAPS + 2))
    for outcome in said[1:]:
        rows, against = judged(folder, outcome["version"])
        facts = json.loads(ledger(folder, f"select facts from versions where version = {against}")[0][0])
        whole = record(folder, outcome["version"])
        newer = whole["ts"] > pd.Timestamp(facts["taught_until"])
        assert rows["_row"].tolist() == whole["_row"].tolist()
        assert rows["_common"].tolist() == newer.tolist()
        assert newer.sum() >= 30
        assert "rows new to both" in outcome["reason"]


def test_without_time_no_row_that_judges_ever_taught(tmp_path: Path, prefect_server: str) -> None:
    folder = quick_project(tmp_path / "p")
    folder.set(problem__time=None, split__strategy="random", search__candidates=["linear", "tree"], search__trials=2)
    said = grown(folder, {"PREFECT_API_URL": prefect_server})
    judges: set[int] = set()
    for outcome in said:
        whole = record(folder, outcome["version"])
        now = set(whole["_row"])
        assert judges <= now  # a row never leaves the side it was put on
        rows, against = judged(folder, outcome["version"])
        assert rows["_common"].all()
        again = whole["_row"].isin(judges)
        assert (whole.loc[again, "_judged_before"] > 0).all()
        assert (whole.loc[~again, "_judged_before"] == 0).all()
        if against is not None:
            assert f"{int(again.sum()):,} of the rows judged earlier laps too" in outcome["reason"]
        judges = now
