"""Replay and the live loop agree: the same stream through everything that `windvane up` runs, and through `windvane replay`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.projects import ROOT, Folder
from tests.support.running_up import Up, standing, until
from windvane.flows.replay import history_replay
from windvane.flows.replay.history_replay import ReplayOptions
from windvane.ledger import database, decisions
from windvane.tasks.console import SilentConsole
from windvane.tasks.project import Project

pytestmark = pytest.mark.slow
ROWS, DAYS, TAUGHT, RISES = 60, 14, 8, 9


def stream() -> pd.DataFrame:
    """Sixty rows a day; from a day on the level rises with each."""
    rng, count = np.random.default_rng(3), ROWS * DAYS
    x, times = rng.normal(0, 1, count), pd.date_range("2024-01-01", periods=count, freq="24min")
    level = 10 + np.maximum(np.arange(count) // ROWS - RISES + 1, 0)
    return pd.DataFrame({"x": x, "t": times, "y": level + 2 * x + rng.normal(0, 0.5, count)})


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Folder, Folder]:
    """The project that will live through the stream, and the one that has it all in its table."""
    content: dict[str, Any] = {
        "project": "rising",
        "problem": {"kind": "regression", "target": "y", "time": "t"},
        "data": {"source": "data/t.csv"},
        "split": {"strategy": "time"},
        "search": {"candidates": ["linear"], "trials": 1},
        "monitor": {"window": "1d"},
        "retrain": {"policy": "staleness", "cooldown": "0d", "budget": None},
        "schedule": {"monitor": None},
    }
    made = []
    for name, rows in (("live", stream()[: ROWS * TAUGHT]), ("played", stream())):
        folder = Folder(tmp_path / name)
        (folder.path / "data").mkdir(parents=True)
        shutil.copy(ROOT / "dvc.yaml", folder.path)
        rows.to_csv(folder.path / "data" / "t.csv", index=False)
        (folder.path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        made.append(folder)
    return made[0], made[1]


def ask(up: Up, rows: pd.DataFrame) -> dict[str, Any]:
    records = rows.drop(columns="y").assign(t=rows["t"].dt.strftime("%Y-%m-%dT%H:%M:%S")).to_dict("records")
    answer = up.service("POST", "/invocations", json={"dataframe_records": records})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def live(folder: Folder, days: int) -> list[tuple[str, str, str]]:
    """Per window its start, what was decided, and how the lap ended.

    A window's rows, then their labels, then the first row of the next window, which says that this one is over; then a pass.
    """
    rows, told = stream(), []
    with standing(folder, "--clock", "events") as up:
        folder.train()
        until(lambda: up.service("GET", "/ping").status_code == 200, what="a champion answers")
        ledger = database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}")
        first: list[str] = []
        for day in range(TAUGHT, TAUGHT + days):
            window = rows[day * ROWS : (day + 1) * ROWS]
            ids = first + ask(up, window[len(first) :])["ids"]
            labels = [{"id": id_, "label": label} for id_, label in zip(ids, window["y"], strict=True)]
            assert up.service("POST", "/labels", json=labels).status_code == 200
            first = ask(up, rows[(day + 1) * ROWS : (day + 1) * ROWS + 1])["ids"]
            ran = folder.run("monitor", "--wait", "--json")
            assert ran.status == 0, ran.err
            laps = [
                d
                for d in decisions.list_decisions(ledger, "rising", acting=True)
                if d.window == ran.json["window"]["from"]
            ]
            ended = str(laps[-1].note).split(":")[0] if laps else ""
            if ended == "promoted":
                made = laps[-1].made
                until(lambda made=made: up.service("GET", "/model").json()["version"] == made, what="it answers")
            told.append((ran.json["window"]["from"][:10], ran.json["decision"], ended))
    return told


def test_replay_decides_as_the_live_loop_does(folders: tuple[Folder, Folder]) -> None:
    here, there = folders
    days = DAYS - TAUGHT - 1
    since = str(stream()["t"][ROWS * TAUGHT])
    chapters = history_replay.replay_table(
        Project(there.path), ReplayOptions(since=since, search=True), SilentConsole()
    ).chapters
    played = [(c.start[:10], c.action, c.ending or "") for c in chapters]
    assert len(played) == days
    assert {ending for *_, ending in played} >= {"", "promoted"}, "else little is compared"
    assert live(here, days) == played
