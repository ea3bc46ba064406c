"""Label drift: rows count so that the newest classes' shares hold, and that helps where only those changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.support.projects import quick_project
from windvane.ledger import database, decisions, versions
from windvane.ledger.decisions import DecisionRecord
from windvane.tasks.models import class_balance, model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings import monitoring_section

pytestmark = pytest.mark.long

KIND = definitions.load_problem_type("classification")
COLUMNS = FeatureColumns(("a", "b"), low=("c",))
SMALL: dict[str, dict[str, Any]] = {
    "tree": {"min_samples_leaf": 50},
    "forest": {"n_estimators": 30},
    "boosting": {"max_iter": 60},
}


def played(rows: int, share: float, seed: int, start: str) -> pd.DataFrame:
    """An hour a row; what a class looks like never changes, only how many rows are `yes`."""
    rng = np.random.default_rng(seed)
    yes = rng.random(rows) < share
    frame = pd.DataFrame({"ts": pd.date_range(start, periods=rows, freq="h"), "a": rng.normal(yes * 1.0, 1.0)})
    frame["b"], frame["c"] = rng.normal(yes * -0.7, 1.0), np.where(rng.random(rows) < 0.3 + 0.3 * yes, "x", "z")
    return frame.assign(y=np.where(yes, "yes", "no"))


def taught(before: float = 0.1, after: float = 0.5) -> pd.DataFrame:
    return pd.concat([played(3000, before, 0, "2024-01-01"), played(400, after, 1, "2024-05-05")], ignore_index=True)


def loss(spec: ModelConfiguration, rows: pd.DataFrame, newest: pd.DataFrame) -> float:
    model = model_pipeline.fit_pipeline(spec, KIND, COLUMNS, rows, FitOptions("y", 0, 1, time="ts"))
    said = KIND.predict(model, conform_frame(newest, COLUMNS, "x"))
    return float(KIND.loss(KIND.truth(newest["y"]), said, "log_loss").mean())


@pytest.mark.parametrize("candidate", ["linear", "tree", "forest", "boosting"])
@pytest.mark.parametrize("treatment", [None, "weights", "oversample"])
def test_after_a_label_shift_the_weighted_refit_beats_the_plain_one(candidate: str, treatment: str | None) -> None:
    newest = played(3000, 0.5, 2, "2024-06-01")
    spec = ModelConfiguration(candidate, SMALL.get(candidate, {}), ClassBalance(treatment))
    plain = loss(spec, taught(), newest)
    weighted = loss(replace(spec, balance=ClassBalance(treatment, None, "14d")), taught(), newest)
    assert weighted < 0.95 * plain


def test_where_no_share_moved_the_weights_cost_next_to_nothing() -> None:
    newest, spec = played(3000, 0.1, 2, "2024-06-01"), ModelConfiguration("linear", {})
    weighted = loss(replace(spec, balance=ClassBalance(newest="14d")), taught(0.1, 0.1), newest)
    assert weighted < 1.02 * loss(spec, taught(0.1, 0.1), newest)


def test_a_threshold_is_tuned_for_the_newest_shares() -> None:
    spec = ModelConfiguration("linear", {}, ClassBalance(None, "accuracy"))
    plain, weighted = (
        model_pipeline.fit_pipeline(
            replace(spec, balance=one), KIND, COLUMNS, taught(), FitOptions("y", 0, 1, time="ts")
        )
        for one in (spec.balance, replace(spec.balance, newest="14d"))
    )
    newest = played(3000, 0.5, 2, "2024-06-01")
    hits = [
        (KIND.predict(m, conform_frame(newest, COLUMNS, "x")).value == newest["y"]).mean() for m in (plain, weighted)
    ]
    assert hits[1] > hits[0] + 0.02


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=400),
    st.sampled_from(["7d", "1mo", "20", "1d"]),
    st.integers(0, 2**32 - 1),
)
@limits(max_examples=100, deadline=None)
def test_weights_hold_the_newest_shares_whatever_the_rows(labels: list[int], window: str, seed: int) -> None:
    truth = np.array(labels)
    hours = np.random.default_rng(seed).integers(0, 2000, len(truth))
    times = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"))
    now = class_balance.estimate_class_shares(truth, times, monitoring_section.parse_window_length(window))
    counts = class_balance.weigh_classes_by_share(truth, now)
    each = np.array([counts[c] for c in truth.tolist()])
    assert set(counts) == set(truth.tolist())
    assert (each > 0).all()
    assert each.mean() == pytest.approx(1)
    for c, share in now.items():
        assert each[truth == c].sum() / len(truth) == pytest.approx(share)


@given(st.lists(st.booleans(), min_size=200, max_size=400))
@limits(max_examples=30, deadline=None)
def test_shares_are_those_of_the_newest_rows(labels: list[bool]) -> None:
    times = pd.Series(pd.date_range("2024-01-01", periods=len(labels), freq="h"))
    now = class_balance.estimate_class_shares(np.array(labels), times, monitoring_section.parse_window_length("150"))
    assert now.get(True, 0.0) == pytest.approx(np.mean(labels[-150:]), abs=10 / 160)
    again = class_balance.estimate_class_shares(
        np.array(labels[::-1]), times[::-1], monitoring_section.parse_window_length("150")
    )
    assert again == pytest.approx(now), "the order of rows means nothing"


def test_what_follows_the_newest_rows_is_written_down_and_read() -> None:
    spec = ModelConfiguration("linear", {"C": 1.0}, ClassBalance(newest="1mo"))
    assert ModelConfiguration.from_json(spec.to_json()) == spec
    assert "newest" not in ModelConfiguration("linear", {}, ClassBalance("weights")).to_json()["balance"], (
        "as versions before wrote it"
    )
    with pytest.raises(ValueError, match="no time"):
        model_pipeline.fit_pipeline(spec, KIND, COLUMNS, taught(), FitOptions("y", 0, 1))


@pytest.mark.slow
def test_a_lap_that_answers_label_drift_says_so_and_goes_on_to(tmp_path: Path, prefect_server: str) -> None:
    """Its run, its verdict and its configuration name the weights, and the next plain refit keeps the rule."""
    from mlflow import MlflowClient

    folder = quick_project(tmp_path / "project")
    (folder.path / "data" / "txhousing.csv").unlink()
    table = folder.path / "data" / "visits.csv"
    played(2500, 0.25, 0, "2024-01-01").to_csv(table, index=False)
    folder.set(project="visits", problem__kind="classification", problem__target="y", problem__time="ts")
    folder.set(problem__ignore=[], problem__metric="log_loss", data__source="data/visits.csv", monitor__window="7d")
    folder.set(search__candidates=["linear"], search__trials=1)
    env = {"PREFECT_API_URL": prefect_server}
    assert folder.train(env=env)["verdict"] == "promoted"
    engine = database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}")
    notes = []
    for number, (remedy, start) in enumerate((("labels", "2024-04-15"), ("refit", "2024-08-19"))):
        new = played((3000, 1000)[number], 0.85, number + 1, start)
        pd.concat([pd.read_csv(table, parse_dates=["ts"]), new]).to_csv(table, index=False)
        champion = versions.find_champion(engine, "visits")
        made = decisions.record_decision(
            engine, DecisionRecord("visits", champion.version, start, start, "retrain", "more yes", "refit", remedy)
        )
        decisions.record_announcement(engine, made.id)
        ran = folder.run("monitor", "--json", env=env)
        assert ran.status == 0, ran.err
        ended = decisions.find_decision(engine, made.id)
        assert ended.state == "done", ended.note
        version = versions.find_newest_version(engine, "visits")
        assert version.facts.spec["balance"]["newest"] == "7d"
        tags = MlflowClient(f"sqlite:///{folder.path}/.windvane/mlflow.db").get_run(version.run_id).data.tags
        assert tags["windvane.verdict"] == "promoted" or number, tags["windvane.reason"]
        assert "as in the newest window of labels (7d)" in tags["windvane.reason"]
        notes.append(tags["mlflow.note.content"])
    assert all("as in the newest window of labels (7d) after label drift: " in note for note in notes)
