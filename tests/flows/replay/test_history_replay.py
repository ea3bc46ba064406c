"""`windvane replay`: a table's history through the whole loop, without a look ahead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from windvane.cli.main import main
from windvane.flows.replay.history_replay import ReplayOptions
from windvane.flows.replay.history_replay import replay_table as told_of
from windvane.ledger.database import to_timestamp
from windvane.monitoring.drift import detector
from windvane.monitoring.history.replay_report import ReplayResult
from windvane.tasks.console import SilentConsole
from windvane.tasks.project import Project
from windvane.tasks.settings.monitoring_section import PolicyName

pytestmark = pytest.mark.long

WINDOW, WINDOWS = 60, 16


def table(seed: int = 0, turns: int = 6) -> pd.DataFrame:
    """A line that rises and rises from window `turns` on, a row an hour."""
    rng = np.random.default_rng(seed)
    count = WINDOW * WINDOWS
    frame = pd.DataFrame({"x": rng.normal(0, 1, count), "z": rng.normal(0, 1, count)})
    level = 10 + np.maximum(np.arange(count) / WINDOW - turns, 0)
    times = pd.date_range("2024-01-01", periods=count, freq="h")
    return frame.assign(y=level + 2 * frame["x"] + rng.normal(0, 0.5, count), t=times)


def write(folder: Path, rows: pd.DataFrame, **changes: Any) -> None:
    """A project that learns y of these rows."""
    content: dict[str, Any] = {
        "project": "rising",
        "problem": {"kind": "regression", "target": "y", "time": "t"},
        "data": {"source": "t.csv"},
        "split": {"strategy": "time"},
        "monitor": {"window": WINDOW},
        "retrain": {"policy": "staleness", "cooldown": "0d", "budget": None},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        content[section][key] = value
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "t.csv", index=False)
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def replay(folder: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return CliRunner().invoke(main, ["replay", *arguments])


def told(folder: Path, *arguments: str) -> dict[str, Any]:
    done = replay(folder, "--json", *arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def played(folder: Path, **asked: Any) -> ReplayResult:
    """Without MLflow, which takes most of a short replay's time."""
    return told_of(Project(folder), ReplayOptions(**asked), SilentConsole())


@pytest.mark.slow
def test_a_rise_is_learned_and_the_picture_and_the_page_tell_why(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    write(tmp_path, table())
    found = told(tmp_path)
    never, ours = found["policies"]["never"], found["policies"]["staleness"]
    # The last window is left out: nobody can know that it is full.
    assert found["windows"] == WINDOWS - WINDOWS // 4 - 1
    assert never["retrains"] == 0 < ours["retrains"]
    assert ours["loss"] < never["loss"]
    assert ours["total"] == pytest.approx(ours["loss"] + sum(d["price"] for d in found["decisions"]))
    assert ours["total"] < never["total"]
    promoted = [d for d in found["decisions"] if d["ending"] == "promoted"]
    assert promoted[0]["start"] >= table()["t"][6 * WINDOW].isoformat(), "nothing rose before"
    page = (tmp_path / found["page"]).read_text(encoding="utf-8")
    assert all(d["reason"].split(";")[0].replace("'", "&#x27;") in page for d in promoted)
    assert "http" not in page.split("</style>")[1].replace("http-equiv", "")
    picture = (tmp_path / found["picture"]).read_bytes()
    assert picture.startswith(b"\x89PNG")
    client = MlflowClient(f"sqlite:///{tmp_path / '.windvane' / 'mlflow.db'}")
    run = client.get_run(found["run_id"])
    assert run.data.metrics["policy_total"] == pytest.approx(ours["total"])
    assert {a.path for a in client.list_artifacts(found["run_id"], "replay")} == {
        "replay/replay.png",
        "replay/replay.html",
    }


@pytest.mark.slow
def test_what_serves_is_not_touched_and_the_ledger_knows_nothing_of_it(tmp_path: Path) -> None:
    from windvane.ledger import database, decisions, versions

    write(tmp_path, table(), retrain__policy="schedule")
    story = played(tmp_path, since="2024-01-20")
    assert story.chapters[0].start >= "2024-01-20"
    assert story.ours.retrains + story.ours.refused == len(story.chapters)
    engine = database.connect_ledger(f"sqlite:///{tmp_path / '.windvane' / 'ledger.db'}")
    assert versions.find_champion(engine, "rising") is None
    assert decisions.list_decisions(engine, "rising") == ()


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"problem__time": None, "problem__ignore": ["t"]}, [], "problem.time"),
        ({"monitor__window": 300}, [], "monitor.window"),
        ({"retrain__cost": 0}, [], "--cost"),
        ({}, ["--cost", "-1"], "retrain.cost"),
        ({}, ["--from", "someday"], "--from"),
        ({}, ["--from", "1999-01-01"], "--from"),
        ({}, ["--from", "2031-01-01"], "--from"),
        ({}, ["--from", "2024-02-09T20:00"], "--from: no full window"),
        ({}, ["--policy", "stalness"], "Did you mean staleness"),
        ({}, ["--delay", "soon"], "monitor.label_delay"),
    ],
)
def test_what_cannot_be_played_is_said_in_a_sentence(
    tmp_path: Path, changes: dict[str, Any], arguments: list[str], said: str
) -> None:
    write(tmp_path, table(), **changes)
    done = replay(tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_history_is_played_by_our_own_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a replay draws no report")

    monkeypatch.setattr(detector, "detect_drift_with_evidently", refused)
    write(tmp_path, table())
    assert any(chapter.alarm for chapter in played(tmp_path).chapters)


# Every policy is handed the same windows: those with a memory stand for the others in `make slow`.
POLICIES = [
    pytest.param(name, marks=() if name in ("staleness", "regret") else pytest.mark.trial)
    for name in get_args(PolicyName)
]


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_looks_ahead(tmp_path: Path, policy: str) -> None:
    rows, cut = table(), 11 * WINDOW
    noise = rows.copy()
    rng = np.random.default_rng(9)
    noise.loc[cut:, ["x", "z"]] = rng.normal(50, 9, (len(rows) - cut, 2))
    noise.loc[cut:, "y"] = rng.normal(-1000, 300, len(rows) - cut)
    decided = []
    for name, one in (("as it was", rows), ("noise", noise)):
        write(tmp_path / name, one, retrain__policy=policy, monitor__label_delay="12h")
        decided.append([c for c in played(tmp_path / name).chapters if c.end <= rows["t"][cut].isoformat()])
    # Losses too: whoever looks ahead may decide alike by luck.
    assert decided[0] == decided[1]
    assert len(decided[0]) > 5
    assert policy in ("never", "drift") or any(c.action == "retrain" for c in decided[0]), "then nothing was tested"


@pytest.mark.slow
def test_a_known_change_is_noticed_at_once_and_learned_within_three_windows(
    whole_table: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = pd.read_parquet(whole_table("noaa_rain.parquet"))
    write(tmp_path, rows.assign(y=rows["rain"], t=rows["seq"]).drop(columns=["rain", "seq"]), monitor__window=1000)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    params["problem"]["kind"] = "classification"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    chapters = played(tmp_path).chapters
    before = [c for c in chapters if c.end <= to_timestamp(12_000)]
    assert before
    assert not [c for c in before if c.action == "retrain"]
    # Its columns changed places: that may be called broken, and then the first window's rows are not learned from.
    after = chapters[len(before) :][:3]
    assert after[0].action in {"stop", "retrain"}
    assert "promoted" in [c.ending for c in after]
