"""A project whose model, features, metric and loss are its own goes through the whole loop: train, score, serve, monitor, retrain, roll
back, replay, backtest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tests.flows.test_exploring_laps import run_in_process
from tests.support.own_models import FEATURES, METRICS, RIDGE, make_own_table
from tests.support.projects import Folder
from windvane.cli.main import main
from windvane.ledger import versions
from windvane.monitoring import window_frames
from windvane.serving.model_cache import ModelCache
from windvane.tasks.errors import InputError
from windvane.tasks.project import Project

pytestmark = pytest.mark.slow

FILES = {"models.py": RIDGE, "features.py": FEATURES, "metrics.py": METRICS}
MEASURES = {"metric": "metrics.py:profit", "greater_is_better": True, "loss": "metrics.py:loss"}


def make_timed_table(rows: int = 480) -> pd.DataFrame:
    return make_own_table(480).assign(t=pd.date_range("2024-01-01", periods=480, freq="30min")).head(rows)


def type_in(folder: Folder, *arguments: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        ran = CliRunner().invoke(main, [*arguments, "--json"])
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, Any]]:
    """The project after its first lap."""
    folder = Folder(tmp_path_factory.mktemp("loop"))
    make_timed_table(360).to_csv(folder.path / "table.csv", index=False)
    for name, text in FILES.items():
        (folder.path / name).write_text(text)
    type_in(folder, "init", "table.csv", "--target", "y", "--time", "t", "--with-code")
    folder.set(
        search__trials=2,
        search__candidates=["models.py:Mine"],
        features="features.py:build",
        **{f"problem__{key}": value for key, value in MEASURES.items()},
        monitor__window="1d",
        retrain__policy="never",  # the lap is run here, without Prefect
    )
    return folder, run_in_process(folder)


def test_it_is_trained_and_served_with_reasons(own: tuple[Folder, dict[str, Any]], tmp_path: Path) -> None:
    folder, lap = own
    assert (lap["verdict"], lap["metric"], lap["version"]) == ("promoted", "profit", 1)
    low, high = lap["interval"]
    assert low < lap["test"] < high
    assert lap["test"] > 99  # the features know the square, and the table hardly varies beyond them
    project, rows = Project(folder.path), make_timed_table(20).drop(columns="y")
    champion = versions.find_champion(project.ledger, project.name)
    assert champion is not None
    expected = project.model(champion).predict(rows)
    loaded = ModelCache(tmp_path / "cache", project.fetch).load(champion)
    plain = [rows[name].tolist() for name in window_frames.read_version_columns(champion.facts, ()).names]
    assert loaded.engine.form == "scikit-learn"
    assert np.allclose(loaded.engine.predict(plain).values, expected)
    rows.to_csv(folder.path / "rows.csv", index=False)
    type_in(folder, "score", "rows.csv", "scored.csv", "--explain", "1", "--interval", "0.9")
    scored = pd.read_csv(folder.path / "scored.csv")
    assert np.allclose(scored["prediction"], expected)
    assert scored.filter(like="reason").astype(str).apply(lambda c: c.str.contains("^[act]")).any().any()


def test_it_goes_round_the_loop(own: tuple[Folder, dict[str, Any]]) -> None:
    folder, _ = own
    make_timed_table().to_csv(folder.path / "table.csv", index=False)
    for name in FILES:  # a version's windows are measured by the text that it was judged by
        (folder.path / name).unlink()
    try:
        seen = type_in(folder, "monitor")
    finally:
        for name, text in FILES.items():
            (folder.path / name).write_text(text)
    assert seen["quality"]["loss"] is not None
    assert not seen["quality"]["estimated"]
    again = run_in_process(folder, "refit")
    assert (again["version"], again["depth"]) == (2, "refit")
    if again["verdict"] == "promoted":
        assert type_in(folder, "rollback")["to"] == 1
    assert type_in(folder, "backtest")["policies"]
    played = type_in(folder, "replay", "--from", "2024-01-06", "--policy", "regret")
    assert played["windows"]


def test_a_changed_comment_is_unchanged_and_a_changed_line_another_version(own: tuple[Folder, dict[str, Any]]) -> None:
    folder, _ = own
    first = run_in_process(folder)
    for name, text in FILES.items():
        (folder.path / name).write_text(text + "# A comment.\n")
    assert run_in_process(folder)["verdict"] == "unchanged"
    for name, (old, new) in {"features.py": ("** 2", "** 4"), "metrics.py": ("100 - 3", "90 - 3")}.items():
        (folder.path / name).write_text(FILES[name].replace(old, new))
        again = run_in_process(folder)
        assert again["version"] == first["version"] + 1
        first = again


def test_a_fault_of_any_of_them_ends_the_lap_before_anything_is_registered(own: tuple[Folder, dict[str, Any]]) -> None:
    folder, _ = own
    project = Project(folder.path)
    before = len(versions.list_versions(project.ledger, project.name))
    for name, text, message in (
        ("features.py", FEATURES.replace("Means()", "3"), "returns what has no fit and transform"),
        ("metrics.py", METRICS.replace("np.where(y_pred > y_true, 3.0, 1.0)", "-1"), "less than 0"),
    ):
        (folder.path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            run_in_process(folder)
        (folder.path / name).write_text(FILES[name])
    assert len(versions.list_versions(project.ledger, project.name)) == before
