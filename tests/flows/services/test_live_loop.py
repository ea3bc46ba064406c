"""The whole loop with everything real under `windvane up`: traffic, a shift, the decision, the lap, the swap (benchmarks/played.py)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import played
from benchmarks.played import Player
from tests.support.projects import ROOT, Folder
from tests.support.running_up import standing, until

pytestmark = pytest.mark.slow
TABLE, BEFORE, ROWS = ROOT / "data" / "txhousing.csv", "2008-01-01", 300


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return played.prepare(tmp_path / "project", TABLE, BEFORE)


def laps(folder: Folder) -> int:
    with closing(sqlite3.connect(folder.path / ".windvane" / "ledger.db")) as db:
        return int(db.execute("select count(*) from laps").fetchone()[0])


def completed(folder: Folder) -> set[str]:
    """By what Prefect's completed runs were created."""
    with closing(sqlite3.connect(folder.path / ".windvane" / "prefect" / "prefect.db")) as db:
        query = "select json_extract(created_by, '$.type') from flow_run where state_type = 'COMPLETED'"
        return {str(kind) for (kind,) in db.execute(query)}


def test_a_shift_is_noticed_and_the_service_swaps_and_without_one_nothing_is_retrained(folder: Folder) -> None:
    stream = played.again(TABLE, BEFORE, 4, BEFORE, ROWS)
    with standing(folder, "--clock", "events") as up:
        folder.train()
        until(lambda: up.service("GET", "/ping").status_code == 200, what="a champion answers")
        player = Player(up, labels=True)
        for frame in stream[:2]:
            assert player.play(frame).actions == {"wait"}
        assert laps(folder) == 1
        found = player.play(played.shifted(stream[2]))
        if "retrain" not in found.actions:  # by its labels, which come with the next window's rows
            found = player.play(played.shifted(stream[3]))
        (entry,) = [e for e in found.decided if e.action == "retrain"]
        until(lambda: up.service("GET", "/model").json()["version"] == 2, what="the new version answers")
        until(lambda: "AUTOMATION" in completed(folder), what="the automation's run is over")
        # MLflow names what caused the lap.
        query = "name=texas-house-prices"
        asked = "/api/2.0/mlflow/runs/search"
        runs = up.ask("mlflow", "POST", asked, json={"experiment_ids": ["1"]}, params=query)
        names = [run["info"]["run_name"] for run in runs.json()["runs"]]
        assert any(name.startswith("watch: ") for name in names), names
        assert entry.reason


@pytest.mark.trial  # the loop with labels stands for both in `make slow`
def test_the_same_without_labels(folder: Folder) -> None:
    stream = played.again(TABLE, BEFORE, 4, BEFORE, ROWS)
    with standing(folder, "--clock", "events") as up:
        folder.train()
        until(lambda: up.service("GET", "/ping").status_code == 200, what="a champion answers")
        player = Player(up, labels=False)
        for frame in stream[:2]:
            assert player.play(frame).actions == {"wait"}
        assert laps(folder) == 1
        found = player.play(played.shifted(stream[2]))
        # Noticed; whether a lap is worth it without labels, the decision says with its reason.
        assert all(entry.reason for entry in found.decided)
        assert any("listings" in entry.reason for entry in found.decided)
