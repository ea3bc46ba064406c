"""problem.weight: a row that counts three times does as three rows would, in fits, metrics, evaluation and gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.tables import chosen
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import intervals, model_evaluation, scores
from windvane.tasks.gate.promotion_gate import GateEvidence, judge_challenger
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.row_weights import read_row_weights, spread_weights
from windvane.tasks.search import cross_validation
from windvane.tasks.settings import project_params
from windvane.tasks.validate import table_profile, table_validation

COLUMNS = FeatureColumns(numbers=("x", "z"))


def rows(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Amounts and classes that follow x in one part of the rows and z in the other, which counts three times."""
    rng = np.random.default_rng(seed)
    x, z, w = rng.normal(size=n), rng.normal(size=n), rng.choice([1.0, 3.0], n)
    y = np.where(w > 1, 2 * z, x) + rng.normal(0, 0.3, n)
    return pd.DataFrame({"x": x, "z": z, "w": w, "y": y, "c": np.where(y > 0.5, "yes", "no")})


def copied(frame: pd.DataFrame) -> pd.DataFrame:
    """Each row as often as its weight says."""
    return frame.loc[frame.index.repeat(frame["w"].astype(int))].reset_index(drop=True)


def fitted(spec: ModelConfiguration, kind: str, frame: pd.DataFrame, weight: str | None) -> Any:
    target = "y" if kind == "regression" else "c"
    options = FitOptions(target, 0, 1, weight=weight)
    return model_pipeline.fit_pipeline(spec, definitions.load_problem_type(kind), COLUMNS, frame, options)


@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize("candidate", ["dummy", "linear", "tree"])
def test_a_fit_counts_rows_by_their_weight(candidate: str, kind: str) -> None:
    params: dict[str, Any] = {"min_samples_leaf": 1, "max_depth": 3} if candidate == "tree" else {}
    if candidate == "linear" and kind == "classification":
        params = {"C": 100.0, "tol": 1e-8, "max_iter": 10_000}  # so that how the penalty counts rows does not matter
    spec, frame, k = ModelConfiguration(candidate, params), rows(), definitions.load_problem_type(kind)
    inputs = features.conform_frame(frame, COLUMNS, "x")
    counted, thrice = (
        k.predict(model, inputs) for model in (fitted(spec, kind, frame, "w"), fitted(spec, kind, copied(frame), None))
    )
    alike = k.predict(fitted(spec, kind, frame, None), inputs)
    within = 0.05 if candidate == "linear" else 1e-9
    for one, other, plain in (
        [(counted.proba, thrice.proba, alike.proba)]
        if kind == "classification"
        else [(counted.value, thrice.value, alike.value)]
    ):
        assert np.abs(one - other).max() < within
        assert np.abs(one - plain).max() > within


@pytest.mark.parametrize("candidate", ["forest", "boosting"])
def test_every_candidate_learns_what_counts(candidate: str) -> None:
    frame = rows(2_000).assign(w=lambda t: np.where(t["w"] > 1, 1.0, 0.0))
    made = fitted(ModelConfiguration(candidate, {}), "regression", frame, "w")
    inputs = features.conform_frame(frame, COLUMNS, "x")
    found = np.corrcoef(made.predict(inputs), frame["z"])[0, 1]
    assert found > 0.95
    assert (
        np.corrcoef(fitted(ModelConfiguration(candidate, {}), "regression", frame, None).predict(inputs), frame["z"])[
            0, 1
        ]
        < found
    )


def test_class_weights_and_row_weights_go_together() -> None:
    spec = ModelConfiguration("linear", {}, ClassBalance("weights", "f1"))
    frame = rows(900)
    made = fitted(spec, "classification", frame, "w")
    inputs = features.conform_frame(frame, COLUMNS, "x")
    share = np.average(made.predict_proba(inputs)[:, 1], weights=frame["w"])
    assert share == pytest.approx(np.average(frame["c"] == "yes", weights=frame["w"]), abs=0.03)


def test_weights_are_no_input_and_no_suspect() -> None:
    mine = chosen(target="y", weight="w", ignore=["c"])
    profile = table_profile.profile_table(rows())
    assert "w" not in features.select_feature_columns(mine, profile).names
    seen = table_validation.inspect_table(rows().assign(w=lambda t: t["y"] - t["y"].min()), mine)
    assert not [f for f in seen.findings if f.column == "w" and f.level != "pass"]


@pytest.mark.parametrize(
    ("weights", "words"),
    [([-1.0, 1.0], "below zero"), ([0.0, 0.0], "zero in every row"), (["a", "b"], "finite numbers")],
)
def test_what_cannot_weigh_is_refused(weights: list[Any], words: str) -> None:
    frame = rows().assign(w=weights * 150)
    with pytest.raises(InputError, match=f"problem.weight: .*{words}"):
        table_validation.check_table(frame, chosen(target="y", weight="w"))


def test_settings_refuse_a_weight_that_has_another_role_or_a_treatment_that_draws_rows() -> None:
    for problem in ({"target": "y", "weight": "y"}, {"target": "y", "weight": "w", "ignore": ["w"]}):
        with pytest.raises(InputError, match="weight"):
            chosen(**problem)
    content = {
        "project": "p",
        "problem": {"kind": "classification", "target": "c", "weight": "w"},
        "data": {"source": "t.csv"},
    }
    for treatment in ("oversample", "undersample", "smote"):
        with pytest.raises(InputError, match=r"search\.imbalance"):
            project_params.parse_settings({**content, "search": {"imbalance": treatment}})
    project_params.parse_settings({**content, "search": {"imbalance": "weights"}})


def test_weights_are_one_on_average_and_a_row_without_one_is_average() -> None:
    found = read_row_weights(pd.DataFrame({"w": [1.0, 3.0, None]}), "w")
    assert found is not None
    assert found.tolist() == [0.5, 1.5, 1.0]
    assert read_row_weights(pd.DataFrame({"x": [1.0]}), "w") is None  # rows of production
    assert read_row_weights(pd.DataFrame({"w": [1.0]}), None) is None


def test_a_search_and_an_evaluation_score_what_counts() -> None:
    frame, mine = rows(600), chosen(target="y", weight="w", ignore=["c"], split={"strategy": "random"})
    kind = definitions.load_problem_type("regression")
    task = ModelTask(mine, kind, COLUMNS, 1)
    bench = cross_validation.build_configuration_scorer(task, frame[:400], frame[400:])
    *_, last = bench.score(ModelConfiguration("linear", {}))
    held = model_evaluation.predict_held_out(
        task, ModelConfiguration("linear", {}), frame[:400], frame[:0], lambda: frame[400:]
    )
    record = held.record
    expected = np.average(record[scores.LOSS_COLUMN], weights=record["w"])
    assert last.validation["mae"] == pytest.approx(expected)
    found = scores.compute_scores(kind, record, mine, 0)["mae"]
    again = scores.compute_scores(kind, copied(record), chosen(target="y", ignore=["c"]), 0)["mae"]
    assert found.value == pytest.approx(again.value) == pytest.approx(expected)
    assert found.low is not None
    assert found.low < expected < found.high  # type: ignore[operator]
    evaluation = model_evaluation.evaluate_model(
        task, ModelConfiguration("linear", {}), frame[:400], frame[400:500], record
    )
    assert evaluation.loss.value == pytest.approx(expected)
    constant = np.average(record[scores.BASELINE_LOSS_COLUMN], weights=record["w"])
    assert evaluation.baseline_loss.value == pytest.approx(constant)


def test_the_interval_of_a_weighted_mean_holds_it_as_often_as_promised() -> None:
    rng, held = np.random.default_rng(5), 0
    big = rng.lognormal(0, 0.8, 1_000_000)
    truth = np.average(1 + (big > 1), weights=big)
    for _ in range(400):
        w = rng.lognormal(0, 0.8, 200)
        loss = rng.exponential(1 + (w > 1), 200)  # rows that count more err more
        found = intervals.estimate_mean(spread_weights(loss, w / w.mean()), intervals.resample_by_row(200))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.9 <= held / 400 <= 0.98


def evidence(n: int, gain: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] | None, seed: int) -> GateEvidence:
    rng = np.random.default_rng(seed)
    reference = rng.exponential(1.0, n) + 1
    return GateEvidence(reference - gain + rng.normal(0, 0.2, n), reference, rng.integers(0, 2**60, n), weights=weights)


def test_the_gate_judges_by_what_counts() -> None:
    """Better where rows count little, worse where they count much: the other way round than unweighted."""
    much = np.arange(1_000) % 2 == 0
    gain, weights = np.where(much, -0.1, 0.2), np.where(much, 1.8, 0.2)
    plain = judge_challenger(evidence(1_000, gain, None, 0), "superior", 0.95, 0.01)
    counted = judge_challenger(evidence(1_000, gain, weights, 0), "superior", 0.95, 0.01)
    assert (plain.accepted, counted.accepted) == (True, False)
    assert counted.difference == pytest.approx(np.average(gain, weights=weights), abs=0.03)


def test_the_gate_keeps_its_promise_with_unequal_weights() -> None:
    accepted = 0
    for seed in range(300):
        weights = np.random.default_rng(10_000 + seed).lognormal(0, 1, 400)
        one = evidence(400, np.zeros(400), weights / weights.mean(), seed)
        accepted += judge_challenger(one, "superior", 0.95, 0.01).accepted
    assert accepted / 300 <= 0.08


def test_slices_of_the_gate_show_weighted_means() -> None:
    n = 600
    side = np.where(np.arange(n) % 3 == 0, "a", "b")
    weights = np.where(side == "a", 3.0, 1.0)
    one = evidence(n, np.zeros(n), weights / weights.mean(), 1)
    with_slices = GateEvidence(one.challenger, one.reference, one.keys, weights=one.weights, slices={"side": side})
    found = {s.value: s for s in judge_challenger(with_slices, "superior", 0.95, 0.01).slices}
    for name in ("a", "b"):
        assert found[name].reference == pytest.approx(one.reference[side == name].mean())
