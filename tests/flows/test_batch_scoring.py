"""`windvane score`: pieces, files that appear whole, going on after a kill, and the ledger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from tests.support.served_models import COLUMNS, PROJECT, Site, houses, made_project, taught
from windvane.flows import score_files, scoring
from windvane.ledger.labels import PredictionQuery, read_labelled_predictions
from windvane.ledger.schema import versions
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, WindvaneError
from windvane.tasks.models.features import conform_frame
from windvane.tasks.project import Project

pytestmark = pytest.mark.long


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(score_files, "PIECE_ROWS", 40)
    folder = made_project(tmp_path)
    rows = houses().drop(columns=["price", "dear"]).assign(note=None)
    rows.loc[250, "note"] = "only far below"
    rows.to_parquet(tmp_path / "in.parquet", index=False)
    rows.to_csv(tmp_path / "in.csv", index=False)
    return folder.path


def score(root: Path, source: str, target: str, log: bool = False) -> dict[str, Any]:
    return scoring.score_file(Project(root), root / source, root / target, scoring.ScoringOptions(log), Console(False))


def expected() -> list[float]:
    model, _ = taught(1, "boosting", "regression", ())
    said: list[float] = model.predict(conform_frame(houses(), COLUMNS, "x")).tolist()
    return said


@pytest.mark.parametrize("source", ["in.parquet", "in.csv"])
@pytest.mark.parametrize("target", ["out.parquet", "out.csv"])
def test_a_file_in_pieces_gets_what_the_pipeline_says(root: Path, source: str, target: str) -> None:
    said = score(root, source, target)
    assert (said["rows"], said["version"], said["resumed"]) == (300, 1, 0)
    out = pd.read_parquet(root / target) if target.endswith("parquet") else pd.read_csv(root / target)
    assert out["prediction"].tolist() == pytest.approx(expected(), rel=1e-9)
    assert list(out.columns) == ["size", "garden", "town", "day", "note", "prediction", "model_version"]
    assert out["note"].iloc[250] == "only far below"
    assert not list((root / ".windvane" / "scoring").iterdir())


def bulk(root: Path, engine: str) -> None:
    """Say of the champion which engine was measured to be the faster one on large batches."""
    with Project(root).ledger.begin() as db:
        for number, facts in db.execute(sa.select(versions.c.version, versions.c.facts)).all():
            more = {**facts, "bulk": {"engine": engine}}
            db.execute(sa.update(versions).where(versions.c.version == number).values(facts=more))


@pytest.mark.parametrize("engine", ["compiled", "scikit-learn"])
def test_the_engine_that_was_measured_to_be_faster_scores_and_is_named(root: Path, engine: str) -> None:
    assert score(root, "in.parquet", "out.parquet")["engine"] == "scikit-learn"  # where nothing was measured
    bulk(root, engine)
    said = score(root, "in.parquet", "out.parquet", log=True)
    assert (said["engine"], said["rows"]) == (engine, 300)
    assert pd.read_parquet(root / "out.parquet")["prediction"].tolist() == pytest.approx(expected(), rel=1e-9)
    kept = read_labelled_predictions(Project(root).ledger, PROJECT, PredictionQuery(unlabelled=True))
    assert sorted(one.output["prediction"] for one in kept) == pytest.approx(sorted(expected()))


@pytest.mark.parametrize("engine", ["compiled", "scikit-learn"])
def test_classes_are_scored_alike_by_both_engines(tmp_path: Path, engine: str) -> None:
    folder = made_project(tmp_path)
    site = Site(folder.path / ".windvane")
    site.register(2, "forest", "classification", n_estimators=10)
    site.promote(2)
    bulk(folder.path, engine)
    frame = houses().drop(columns=["price", "dear"])
    frame.to_parquet(folder.path / "in.parquet", index=False)
    assert score(folder.path, "in.parquet", "out.parquet", log=True)["engine"] == engine
    said = site.models[2].predict(conform_frame(houses(), COLUMNS, "x")).tolist()
    assert pd.read_parquet(folder.path / "out.parquet")["prediction"].tolist() == said
    kept = list(read_labelled_predictions(site.ledger, PROJECT, PredictionQuery(unlabelled=True)))
    assert {one.output["prediction"] for one in kept} == {"yes", "no"}
    assert all(set(one.output["probabilities"]) == {"yes", "no"} for one in kept)


@pytest.mark.parametrize("engine", ["compiled", "scikit-learn"])
def test_predictions_come_with_their_reasons(root: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "EXPLAINED_ROWS", 15)
    bulk(root, engine)
    options = scoring.ScoringOptions(explain=2)
    scoring.score_file(Project(root), root / "in.parquet", root / "out.csv", options, Console(False))
    out = pd.read_csv(root / "out.csv")
    added = ["explained_base", "reason_1", "effect_1", "reason_2", "effect_2", "effect_rest"]
    assert list(out.columns)[-8:] == ["prediction", "model_version", *added]
    whole = out[["explained_base", "effect_1", "effect_2", "effect_rest"]].sum(axis=1)
    assert whole.tolist() == pytest.approx(expected(), rel=1e-9)
    assert set(out["reason_1"]) <= {"size", "garden", "town", "day"}
    # The same file without reasons is other work.
    assert score(root, "in.parquet", "plain.csv")["resumed"] == 0
    assert "reason_1" not in pd.read_csv(root / "plain.csv")


def test_a_row_is_recorded_once_with_reasons_and_without(root: Path) -> None:
    ids = []
    for options in (scoring.ScoringOptions(True), scoring.ScoringOptions(True, explain=2, interval=0.5)):
        scoring.score_file(Project(root), root / "in.csv", root / "out.csv", options, Console(False))
        ids.append(pd.read_csv(root / "out.csv")["id"].tolist())
    assert ids[0] == ids[1]
    kept = list(read_labelled_predictions(Project(root).ledger, PROJECT, PredictionQuery(unlabelled=True)))
    assert len(kept) == 300


def test_predictions_come_with_what_may_be_true(root: Path) -> None:
    def scored(level: float) -> pd.DataFrame:
        scoring.score_file(
            Project(root), root / "in.csv", root / "out.csv", scoring.ScoringOptions(interval=level), Console(False)
        )
        return pd.read_csv(root / "out.csv")

    wide, narrow = scored(0.95), scored(0.5)
    assert list(wide.columns)[-4:] == ["prediction", "model_version", "interval_low", "interval_high"]
    assert ((wide["interval_low"] < wide["prediction"]) & (wide["prediction"] < wide["interval_high"])).all()
    assert (wide["interval_low"] < narrow["interval_low"]).all()
    with pytest.raises(InputError, match=r"at most 0\.996\. Choose a lower level"):
        scored(0.9999)


def test_what_was_stopped_goes_on_and_is_recorded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, done = scoring._Scorer._predicted, [0]

    def stopped(self: Any, table: Any, names: Any) -> Any:
        if done[0] == 3:
            raise WindvaneError("stopped")
        done[0] += 1
        return plain(self, table, names)

    monkeypatch.setattr(scoring._Scorer, "_predicted", stopped)
    with pytest.raises(WindvaneError, match="stopped"):
        score(root, "in.parquet", "out.parquet", log=True)
    assert not (root / "out.parquet").exists()
    monkeypatch.setattr(scoring._Scorer, "_predicted", plain)
    said = score(root, "in.parquet", "out.parquet", log=True)
    assert (said["rows"], said["resumed"], said["logged"]) == (300, 120, True)
    assert pd.read_parquet(root / "out.parquet")["prediction"].tolist() == pytest.approx(expected(), rel=1e-12)
    kept = list(read_labelled_predictions(Project(root).ledger, PROJECT, PredictionQuery(unlabelled=True)))
    assert len(kept) == 300
    assert sorted(one.output["prediction"] for one in kept) == pytest.approx(sorted(expected()))
    again = score(root, "in.parquet", "out.parquet", log=True)
    assert again["resumed"] == 0
    assert len(list(read_labelled_predictions(Project(root).ledger, PROJECT, PredictionQuery(unlabelled=True)))) == 300


def test_a_file_that_cannot_be_read_leaves_nothing_behind(root: Path) -> None:
    rows = houses().drop(columns=["price", "dear"])
    rows["size"] = rows["size"].astype(object)
    rows.loc[200, "size"] = "large"
    rows.to_csv(root / "bad.csv", index=False)
    with pytest.raises(InputError, match="size"):
        score(root, "bad.csv", "out.csv")
    assert not (root / "out.csv").exists()
    with pytest.raises(InputError, match="neither CSV, Parquet nor JSON lines"):
        score(root, "in.csv", "out.xlsx")


@pytest.mark.slow
def test_the_flow_scores_as_the_command_does(root: Path, prefect_server: str) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from windvane.flows.orchestration import scheduled_flows

    key = os.environ["PREFECT_API_AUTH_STRING"]
    with temporary_settings({PREFECT_API_URL: prefect_server, PREFECT_API_AUTH_STRING: key}):
        said = scheduled_flows.score_flow(str(root), "in.parquet", "out.csv")
    assert (said["rows"], said["version"]) == (300, 1)
    assert len(pd.read_csv(root / "out.csv")) == 300
