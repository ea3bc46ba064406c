"""A project with a model of its own goes through laps, score, the scorer's engine and MLflow; its file may change or go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tests.flows.test_exploring_laps import run_in_process
from tests.support.own_models import RIDGE, make_own_table
from tests.support.projects import Folder
from windvane.cli.main import main
from windvane.flows import training
from windvane.flows.lap import model_steps
from windvane.flows.lap.context import DirectRunner, claim_lap_decision, open_lap, track_lap
from windvane.ledger import versions
from windvane.serving.model_cache import ModelCache
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, Any]]:
    """The project after its first lap, whose only candidate is its own."""
    folder = Folder(tmp_path_factory.mktemp("own"))
    make_own_table(400).to_csv(folder.path / "table.csv", index=False)
    (folder.path / "models.py").write_text(RIDGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.path)
        ran = CliRunner().invoke(main, ["init", "table.csv", "--target", "y"])
        assert ran.exit_code == 0, ran.output
    folder.set(search__trials=2, search__candidates=["models.py:Mine"])
    return folder, run_in_process(folder)


def test_a_model_of_ones_own_is_registered_scored_and_served(
    own: tuple[Folder, dict[str, Any]], tmp_path: Path
) -> None:
    import mlflow.pyfunc

    folder, lap = own
    assert (lap["verdict"], lap["chosen"], lap["version"]) == ("promoted", "models.py:Mine", 1)
    project, rows = Project(folder.path), make_own_table(400).drop(columns="y")
    champion = versions.find_champion(project.ledger, project.name)
    assert champion is not None
    kept = (folder.path / "models.py").read_text()
    (folder.path / "models.py").unlink()  # a version needs no file of the folder
    try:
        expected = project.model(champion).predict(rows)
        loaded = ModelCache(tmp_path / "cache", project.fetch).load(champion)
        batch = loaded.engine.predict([rows["a"].tolist(), rows["c"].tolist()]).values
        one = loaded.engine.predict([rows["a"].tolist()[:1], rows["c"].tolist()[:1]]).values
        assert loaded.engine.form == "scikit-learn"
        assert np.allclose(batch, expected)
        assert np.allclose(one, expected[:1])
        assert np.allclose(mlflow.pyfunc.load_model(str(project.stored(champion))).predict(rows), expected)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.path)
            rows.to_csv("rows.csv", index=False)
            ran = CliRunner().invoke(main, ["score", "rows.csv", "scored.csv"])
            assert ran.exit_code == 0, ran.output
        assert np.allclose(pd.read_csv(folder.path / "scored.csv")["prediction"], expected)
    finally:
        (folder.path / "models.py").write_text(kept)


def test_a_changed_comment_is_unchanged_and_a_changed_line_another_version(own: tuple[Folder, dict[str, Any]]) -> None:
    folder, _ = own
    (folder.path / "models.py").write_text(RIDGE + "# A comment.\n")
    assert run_in_process(folder)["verdict"] == "unchanged"
    project = Project(folder.path)
    before = len(versions.list_versions(project.ledger, project.name))
    (folder.path / "models.py").write_text(RIDGE.replace("alpha=1.0", "alpha=2.0"))
    again = run_in_process(folder)
    assert (again["version"], again["depth"]) == (before + 1, "search")
    first = versions.find_version(project.ledger, project.name, 1)
    assert first is not None
    assert project.model(first).predict(make_own_table(3)).shape == (3,)


@pytest.mark.parametrize("change", ["no file", "no class", "no candidate"])
def test_a_class_that_is_gone_is_refitted_as_it_was_stored(own: tuple[Folder, dict[str, Any]], change: str) -> None:
    folder, _ = own
    path, params = folder.path / "models.py", folder.path / "params.yaml"
    kept = path.read_text(), params.read_text()
    if change == "no file":
        path.unlink()
    elif change == "no class":
        path.write_text("class Other:\n    pass\n")
    else:
        folder.set(search__candidates=["linear"])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.path)
            patch.setattr(model_steps, "publish_data_artifact", lambda *_: None)
            with open_lap(Project(folder.path), "test", "refit", Console(json=True)) as held:
                lap = claim_lap_decision(held, None)
                assert lap is not None
                with track_lap(lap) as running:
                    refitted = training.run_lap(running, DirectRunner()).to_json()
            ran = CliRunner().invoke(main, ["monitor", "--json"])
            assert ran.exit_code == 0, ran.output
            if change != "no candidate":
                ran = CliRunner().invoke(main, ["train", "--explore"])
                assert (ran.exit_code, type(ran.exception)) == (2, SystemExit)
                assert "search.candidates: models.py" in ran.output
    finally:
        path.write_text(kept[0])
        params.write_text(kept[1])
    assert refitted["chosen"] == "models.py:Mine"
    assert refitted["verdict"] in ("promoted", "refused", "unchanged")


def test_a_fault_of_the_code_ends_the_lap_before_anything_is_registered(own: tuple[Folder, dict[str, Any]]) -> None:
    folder, _ = own
    project = Project(folder.path)
    before = len(versions.list_versions(project.ledger, project.name))
    (folder.path / "models.py").write_text(RIDGE.replace("y.mean()", "y.mena()"))
    with pytest.raises(InputError, match=r"models.py:Mine: fit raised AttributeError"):
        run_in_process(folder)
    assert len(versions.list_versions(project.ledger, project.name)) == before
