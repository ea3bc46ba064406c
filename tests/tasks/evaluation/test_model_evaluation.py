"""Evaluation: the seal, the record, intervals, curves, importance, slices and files, on rows with known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from threadpoolctl import threadpool_limits

from tests.support.evaluation_rows import COLUMNS, Case, case, rows
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import intervals, model_evaluation, model_inspection, scores
from windvane.tasks.evaluation.evaluation_files import write_evaluation
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.problem_types import classification, definitions
from windvane.tasks.models.problem_types.definitions import Metric, Predictions

pytestmark = pytest.mark.long

KINDS = [("regression", "y"), ("classification", "class"), ("classification", "flag")]


def held(c: Case) -> model_evaluation.HeldOutRecord:
    return model_evaluation.predict_held_out(c.task, c.spec, c.train, c.validation, lambda: c.test)


def spy(monkeypatch: pytest.MonkeyPatch, see: Callable[[pd.DataFrame], None]) -> None:
    """Show every frame that is fitted on."""
    fit = model_pipeline.fit_pipeline

    def seen(spec: Any, kind: Any, columns: Any, frame: pd.DataFrame, *rest: Any) -> Any:
        see(frame)
        return fit(spec, kind, columns, frame, *rest)

    monkeypatch.setattr(model_pipeline, "fit_pipeline", seen)


def evaluated(c: Case) -> model_evaluation.ModelEvaluation:
    record = held(c).record
    return model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record)


# the seal, the record --------------------------------------------------------------------------------


def test_the_test_side_is_opened_once_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case()
    order: list[str] = []
    spy(monkeypatch, lambda frame: order.append("fit"))

    def open_test() -> pd.DataFrame:
        order.append("open")
        return c.test

    model_evaluation.predict_held_out(c.task, c.spec, c.train, c.validation, open_test)
    assert order == ["fit", "open"]


def test_a_fit_that_fails_leaves_the_seal_whole() -> None:
    c = case()
    opened: list[pd.DataFrame] = []

    def open_test() -> pd.DataFrame:
        opened.append(c.test)
        return c.test

    unknown = replace(c.spec, candidate="nonesuch")
    with pytest.raises(InputError):
        model_evaluation.predict_held_out(c.task, unknown, c.train, c.validation, open_test)
    assert not opened


def test_the_answers_of_the_test_side_teach_nothing() -> None:
    c = case()
    other = replace(c, test=c.test.assign(y=c.test["y"].to_numpy()[::-1]))
    one, two = held(c).record, held(other).record
    assert (one["_prediction"] == two["_prediction"]).all()
    assert (one["_loss"] != two["_loss"]).any()


@pytest.mark.parametrize(("kind", "target"), KINDS)
def test_the_record_keeps_every_column_and_adds_its_own(kind: str, target: str) -> None:
    c = case(kind, target)
    record = held(c).record
    pd.testing.assert_frame_equal(record[list(c.test.columns)], c.test)
    names = {"y": [], "class": ["_p_low", "_p_mid", "_p_top"], "flag": ["_p_0", "_p_1"]}[target]
    assert list(record.columns) == [*c.test.columns, "_prediction", "_loss", "_baseline_loss", *names]
    truth = c.kind.truth(record[target])
    made = scores.read_predictions(record, truth)
    assert record["_loss"].to_numpy() == pytest.approx(c.kind.loss(truth, made, c.settings.problem.headline))
    assert record["_loss"].mean() < record["_baseline_loss"].mean()


@pytest.mark.parametrize(("metric", "constant"), [("mae", np.median), ("rmse", np.mean)])
def test_the_baseline_is_the_best_constant_of_train_and_validation(metric: str, constant: Any) -> None:
    c = case(metric=metric)
    guess = constant(np.append(c.train["y"], c.validation["y"]))
    error = (c.test["y"] - guess).to_numpy()
    assert held(c).record["_baseline_loss"].to_numpy() == pytest.approx(np.abs(error) if metric == "mae" else error**2)


@pytest.mark.parametrize("name", ["_loss", "_prediction"])
def test_a_column_with_a_name_of_ours_is_refused_before_the_seal(name: str) -> None:
    c = case()
    with pytest.raises(InputError, match=f"{name}.*Rename"):
        held(replace(c, train=c.train.assign(**{name: 1.0})))


def test_no_test_rows_is_the_users_turn() -> None:
    c = case()
    with pytest.raises(InputError, match=r"split\.test"):
        held(replace(c, test=c.test[:0]))


def test_a_threshold_moves_what_is_called_and_the_curves_end_where_the_model_is() -> None:
    c = case("classification", "flag", candidate="boosting")
    plain = held(c)
    spec = replace(c.spec, balance=ClassBalance("oversample", "f1"))
    c = replace(
        c, settings=c.settings.model_copy(update={"problem": c.settings.problem.model_copy(update={"metric": "f1"})})
    )
    found = held(replace(c, spec=spec))
    threshold = classification.get_threshold(found.model)
    assert threshold is not None
    assert classification.get_threshold(plain.model) is None
    assert ((found.record["_p_1"] >= threshold) == (found.record["_prediction"] == 1)).all()
    told = model_evaluation.evaluate_model(c.task, spec, c.train, c.validation, found.record)
    assert told.complexity is not None
    # The last stage is the whole model: its calls, by threshold and honest probabilities, score the same.
    assert told.complexity.points[-1].validation == pytest.approx(told.learning.points[-1].validation)


@pytest.mark.parametrize("labels", [["a", "b", "longer"], [0.0, 1.0], [0, 1, 2], [False, True]], ids=str)
def test_predictions_come_back_from_parquet(labels: list[Any], tmp_path: Path) -> None:
    kind = definitions.load_problem_type("classification")
    classes = np.unique(kind.truth(np.array(labels)))
    # The last class has no row and is never predicted: its value has to come back from the column's name.
    truth = kind.truth(np.array(labels[: len(labels) - 1] * 4))
    proba = np.tile(np.linspace(0.6, 0.2, len(classes)), (len(truth), 1))
    record = pd.DataFrame({"_p_odd": 0, "_prediction": classes[[0] * len(truth)], "_loss": 0.1, "_baseline_loss": 0.2})
    record = record.assign(**{f"_p_{scores.name_class_column(v)}": proba[:, i] for i, v in enumerate(classes)})
    record.to_parquet(tmp_path / "r.parquet")
    made = scores.read_predictions(pd.read_parquet(tmp_path / "r.parquet"), truth)
    assert made.classes is not None
    assert list(made.classes) == list(classes)
    assert made.proba is not None
    assert made.proba == pytest.approx(proba)


# intervals -------------------------------------------------------------------------------------------


def made_up(kind: str, count: int, classes: int, seed: int) -> tuple[np.ndarray, Predictions]:
    rng = np.random.default_rng(seed)
    if kind == "regression":
        truth = rng.normal(size=count)
        return truth, Predictions(truth + rng.normal(size=count))
    names = np.array(["no", "yes", "zest"])[:classes] if classes > 1 else np.array(["no"])
    truth = names[rng.integers(classes, size=count)]
    proba = rng.dirichlet(np.ones(classes), count).round(2) + 0.5 * (truth[:, None] == names)
    proba /= proba.sum(axis=1, keepdims=True)
    return truth, Predictions(names[proba.argmax(axis=1)], proba, names)


@pytest.mark.parametrize(("kind", "classes"), [("regression", 0), ("classification", 2), ("classification", 3)])
@pytest.mark.parametrize("units", [120, 12])
def test_short_cuts_agree_with_the_metric_itself(kind: str, classes: int, units: int) -> None:
    found = definitions.load_problem_type(kind)
    truth, made = made_up(kind, 120, classes, 1)
    pieces = intervals.ResamplingUnits(np.arange(120) % units, units, "")
    told = intervals.bootstrap_metrics(found, truth, made, pieces, 7, found.metrics)
    drawn = [d[pieces.of_row] for d in intervals.draw_bootstrap_samples(pieces, intervals.MAX_BOOTSTRAP_SAMPLES, 7)]
    # Hesterberg's expanded percentile interval.
    tail = stats.norm.cdf(-np.sqrt(units / (units - 1)) * stats.t.ppf(0.975, units - 1))
    for name, metric in found.metrics.items():
        slow = [metric.score(truth, made, weights) for weights in drawn]
        low, high = np.quantile(slow, [tail, 1 - tail])
        assert (told[name].low, told[name].high) == pytest.approx((low, high), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["regression", "classification"]), st.integers(2, 60), st.integers(1, 3), st.integers(0, 99))
def test_an_interval_holds_its_estimate_or_says_why_there_is_none(
    kind: str, count: int, classes: int, seed: int
) -> None:
    found = definitions.load_problem_type(kind)
    truth, made = made_up(kind, count, classes, seed)
    for name, told in intervals.bootstrap_metrics(
        found, truth, made, intervals.resample_by_row(count), seed, found.metrics
    ).items():
        if told.value is None:
            assert told.reason
        else:
            assert told.value == pytest.approx(found.metrics[name].score(truth, made, None))
        if told.low is None or told.high is None:
            assert told.reason
        else:
            assert told.value is not None
            assert told.low <= told.value <= told.high


def test_the_same_seed_gives_the_same_interval() -> None:
    found = definitions.load_problem_type("regression")
    truth, made = made_up("regression", 50, 0, 0)
    one, two, other = (
        intervals.bootstrap_metrics(found, truth, made, intervals.resample_by_row(50), s, ["mae"])["mae"]
        for s in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_a_large_record_looks_at_every_row_only_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 6_000
    monkeypatch.setattr(intervals, "MAX_RESAMPLED_ROWS", 200 * rows)  # as 150,000 rows have it
    found = definitions.load_problem_type("classification")
    looks = []
    score = found.metrics["roc_auc"].score

    def counted(truth: Any, made: Predictions, weights: Any) -> float:
        looks.append(len(truth))
        return score(truth, made, weights)

    spied = replace(found, metrics={**found.metrics, "roc_auc": Metric("roc_auc", True, counted)})
    truth, made = made_up("classification", rows, 2, 0)
    told = intervals.bootstrap_metrics(spied, truth, made, intervals.resample_by_row(rows), 0, found.metrics)["roc_auc"]
    assert sum(n == rows for n in looks) <= intervals.MIN_STANDARD_ERROR_SAMPLES + 3
    assert told.value is not None
    assert told.low is not None
    assert told.high is not None
    # Hanley & McNeil's standard error, an upper limit from the exponential model.
    auc, half = told.value, rows / 2
    more = (half - 1) * (auc / (2 - auc) + 2 * auc**2 / (1 + auc) - 2 * auc**2)
    error = np.sqrt((auc * (1 - auc) + more) / half**2)
    assert 0.6 * 3.92 * error < told.high - told.low < 1.4 * 3.92 * error


def test_intervals_by_block_cover_where_rows_depend_on_time() -> None:
    problem = case(time=True).settings.problem
    inside = {"block": 0, "row": 0}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        level = np.zeros(120)
        for i in range(1, 120):
            level[i] = 0.6 * level[i - 1] + rng.normal()
        loss = np.repeat(level, 4) + 0.3 * rng.normal(size=480)
        frame = pd.DataFrame({"ts": np.repeat(pd.date_range("2024-01-01", periods=120), 4)})
        for name, pieces in (
            ("block", intervals.find_resampling_units(frame, loss, problem)),
            ("row", intervals.resample_by_row(480)),
        ):
            told = intervals.estimate_mean(loss, pieces)
            assert told.low is not None
            assert told.high is not None
            inside[name] += told.low <= 0 <= told.high
    assert inside["block"] >= 0.86 * 150  # what 95 % becomes with blocks chosen from the data
    assert inside["row"] < 0.6 * 150  # what they would be if nobody minded the time


# which rows move together ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 30)), st.integers(0, 9))
def test_blocks_are_whole_and_contiguous(days: np.ndarray, seed: int) -> None:
    frame = pd.DataFrame({"ts": pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D")})
    pieces = intervals.find_resampling_units(
        frame, np.random.default_rng(seed).normal(size=len(days)), case(time=True).settings.problem
    )
    assert sorted(set(pieces.of_row)) == list(range(pieces.count))
    if "blocks" in pieces.said:
        by_day = pd.DataFrame({"day": days, "unit": pieces.of_row})
        assert (by_day.groupby("day")["unit"].nunique() == 1).all()
        assert by_day.sort_values("day")["unit"].is_monotonic_increasing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40))
def test_groups_are_whole_and_rows_without_one_stand_alone(names: list[str | None]) -> None:
    frame = pd.DataFrame({"customer": pd.Series(names, dtype="str")})
    pieces = intervals.find_resampling_units(frame, np.ones(len(names)), case(group=True).settings.problem)
    assert pieces.count == len(set(names) - {None}) + names.count(None)
    for name in set(names) - {None}:
        assert len(set(pieces.of_row[[n == name for n in names]])) == 1


def test_with_time_and_group_the_fewer_pieces_count() -> None:
    frame = rows(600, 0)
    problem = case(time=True, group=True).settings.problem
    assert "blocks" in intervals.find_resampling_units(frame, frame["y"].to_numpy(), problem).said
    few = frame.assign(customer="c" + (frame.index % 6).astype(str))
    assert "6 groups" in intervals.find_resampling_units(few, frame["y"].to_numpy(), problem).said


def test_longer_memory_makes_longer_blocks() -> None:
    rng = np.random.default_rng(0)
    slow = np.zeros(1_000)
    for i in range(1, 1_000):
        slow[i] = 0.9 * slow[i - 1] + rng.normal()
    assert intervals.estimate_block_length(slow) > 2 * intervals.estimate_block_length(rng.normal(size=1_000))
    assert intervals.estimate_block_length(np.ones(100)) <= 100 // 8


# odd test sides --------------------------------------------------------------------------------------


def test_one_class_in_the_test_side_is_said_and_no_crash() -> None:
    c = case("classification", "flag")
    told = evaluated(replace(c, test=c.test[c.test["flag"] == 1].reset_index(drop=True)))
    assert told.scores["roc_auc"].value is None
    assert told.scores["roc_auc"].reason
    assert told.scores["accuracy"].value is not None


def test_a_class_that_training_never_saw_is_scored() -> None:
    c = case("classification", "class")
    odd = c.test.assign(**{"class": ["new"] * 30 + list(c.test["class"][30:])})
    told = evaluated(replace(c, test=odd))
    assert told.confusion is not None
    assert told.confusion.classes == ("low", "mid", "top", "new")
    assert sum(told.confusion.counts[3]) == 30


def test_constant_predictions_and_a_constant_test_side() -> None:
    c = case(candidate="dummy")
    told = evaluated(replace(c, test=c.test.assign(y=10.0)))
    assert told.scores["r2"].value is None
    assert told.gain.value == pytest.approx(0)
    assert [i.rise for i in told.importance] == pytest.approx([0, 0, 0])


def test_one_row_per_group() -> None:
    c = case(group=True, strategy="group")
    alone = [part.assign(customer=np.arange(len(part)).astype(str)) for part in (c.train, c.validation, c.test)]
    told = evaluated(replace(c, train=alone[0], validation=alone[1], test=alone[2]))
    assert "90 groups" in told.resampled
    assert told.scores["mae"].low is not None


@pytest.mark.parametrize(("kind", "target"), KINDS)
def test_three_test_rows(kind: str, target: str) -> None:
    c = case(kind, target)
    c = replace(c, test=c.test[:3])
    record = held(c).record
    told = model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record)
    assert told.loss.low is None
    assert told.slices == ()


# curves and importance -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "target", "candidate"),
    [("regression", "y", "boosting"), ("classification", "class", "boosting"), ("classification", "flag", "tree")],
)
def test_five_fits_at_most_and_all_outside_the_test_side(
    kind: str, target: str, candidate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = case(kind, target, candidate)
    if candidate == "boosting":
        c = replace(c, spec=replace(c.spec, params={**c.spec.params, "max_iter": 25}))
    record = held(c).record
    fitted: list[int] = []
    spy(monkeypatch, lambda frame: fitted.append(len(frame)))
    told = model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record)
    assert len(fitted) <= 5
    assert sum(fitted) <= 4 * len(c.train)
    assert told.complexity is not None
    assert [p.at for p in told.complexity.points] == sorted({p.at for p in told.complexity.points})
    assert told.importance[0].column == "a"
    assert all(np.isfinite([p.train or 0, p.validation or 0]).all() for p in told.learning.points)


def test_the_last_stage_of_boosting_is_the_model() -> None:
    for log_target in (False, True):
        c = case(candidate="boosting")
        spec = replace(c.spec, params={**c.spec.params, "log_target": log_target, "max_iter": 25})
        train, validation = (part.assign(y=part["y"].abs() + 1) for part in (c.train, c.validation))
        scorer = model_inspection.CurveScorer(
            c.task, model_inspection.sample_curve_rows(c.settings, train, validation, 0)
        )
        with threadpool_limits(limits=1):
            learning, model = model_inspection.measure_learning_curve(scorer, spec, False)
            stages = model_inspection.measure_complexity_curve(scorer, spec, model, learning.points[-1])
        assert stages is not None
        assert stages.points[-1].validation == pytest.approx(learning.points[-1].validation)
        assert stages.points[-1].train == pytest.approx(learning.points[-1].train)


def test_with_time_the_smaller_fits_keep_the_newest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case(time=True)
    record = held(c).record
    fitted: list[pd.Series] = []
    spy(monkeypatch, lambda frame: fitted.append(frame["ts"]))
    model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record)
    quarter = fitted[0]
    assert len(quarter) == len(c.train) // 4
    assert quarter.max() == c.train["ts"].max()
    assert quarter.min() >= c.train["ts"].iloc[-len(quarter)]


def test_rare_classes_are_in_every_fit() -> None:
    c = case("classification", "flag", count=2_000)
    rare = c.train.assign(flag=(np.arange(len(c.train)) % 200 == 0).astype(float))
    scorer = model_inspection.CurveScorer(c.task, model_inspection.sample_curve_rows(c.settings, rare, c.validation, 0))
    learning, _ = model_inspection.measure_learning_curve(scorer, c.spec, False)
    assert all(p.validation is not None for p in learning.points)


def test_under_kfold_a_fifth_of_the_training_side_is_held_out_by_group() -> None:
    c = case(strategy="kfold", group=True)
    told = model_inspection.sample_curve_rows(c.settings, c.train, c.validation, 0)
    assert 0.1 < len(told.validation) / len(c.train) < 0.3
    assert not set(told.train["customer"]) & set(told.validation["customer"])
    assert "held out for the curves" in told.notes[0]
    assert evaluated(c).notes == told.notes


def test_large_sides_are_sampled_and_it_is_said() -> None:
    c = case(time=True)
    big = pd.concat([c.train] * 60).sort_values("ts", kind="stable")
    told = model_inspection.sample_curve_rows(c.settings, big, big, 0)
    assert (len(told.train), len(told.validation)) == (
        model_inspection.MAX_CURVE_TRAIN_ROWS,
        model_inspection.MAX_CURVE_SCORED_ROWS,
    )
    assert told.train["ts"].is_monotonic_increasing
    assert (told.train["ts"].min(), told.train["ts"].max()) == (big["ts"].min(), big["ts"].max())
    assert len(told.notes) == 2


def test_importance_of_a_column_that_says_nothing_is_nothing() -> None:
    told = {i.column: i for i in evaluated(case(count=1_500)).importance}
    assert told["a"].low is not None
    assert told["a"].low > 1.0
    assert abs(told["b"].rise) < 0.05


# slices ----------------------------------------------------------------------------------------------


def test_the_hard_region_is_found() -> None:
    told = evaluated(case(count=1_500))
    worst = told.slices[0]
    assert (worst.column, worst.value, worst.clear) == ("region", "west", True)
    assert worst.excess == pytest.approx(worst.loss - worst.rest)
    assert worst.low <= worst.excess <= worst.high


def test_by_chance_a_slice_is_clearly_worse_in_one_record_of_twenty() -> None:
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        record = pd.DataFrame({f"c{i}": rng.normal(size=400) for i in range(6)}).assign(_loss=rng.exponential(size=400))
        found += any(
            s.clear for s in scores.find_worst_slices(record, list(record.columns[:6]), intervals.resample_by_row(400))
        )
    assert found <= 9  # 60 records at 5 % each: 3 expected, more than 9 in one of a thousand


def test_slices_have_support_and_cover_missing_values_and_groups() -> None:
    frame = rows(900, 3).assign(_loss=1.0, odd=["rare"] * 10 + ["usual"] * 890)
    frame.loc[:99, "a"] = np.nan
    frame["_loss"] += (frame["customer"].astype(int) % 2) * 0.5
    frame["customer"] = (frame["customer"].astype(int) % 7).astype(str)
    told = scores.find_worst_slices(frame, ["a", "odd", "ts"], intervals.resample_by_row(900), "customer")
    named = {(s.column, s.value): s for s in told}
    assert named["a", "missing"].rows == 100
    assert ("odd", "rare") not in named
    assert sum(s.column == "customer" for s in told) == 7
    assert sum(s.column == "ts" for s in told) == 5
    assert all(s.rows >= scores.MIN_SLICE_ROWS for s in told)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, 200, elements=st.floats(allow_infinity=False)))
def test_bins_of_a_number_part_the_rows(values: np.ndarray) -> None:
    record = pd.DataFrame({"x": values, "_loss": np.arange(200.0)})
    told = scores.find_worst_slices(record, ["x"], intervals.resample_by_row(200))
    assert sum(s.rows for s in told) <= 200
    assert len({s.value for s in told}) == len(told) or len({s.rows for s in told}) >= 1


# calibration -----------------------------------------------------------------------------------------


def test_true_probabilities_are_calibrated_and_shifted_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=20_000)
    truth = (rng.uniform(size=20_000) < chance).astype(int)

    def error(p: np.ndarray) -> float:
        told = scores.measure_calibration(
            truth, Predictions((p > 0.5).astype(int), np.column_stack([1 - p, p]), np.array([0, 1]))
        )
        assert told is not None
        return told.error

    assert error(chance) < 0.015
    assert error(np.clip(chance + 0.2, 0, 1)) > 0.12


def test_confusion_counts() -> None:
    made = Predictions(np.array(["a", "b", "b"]), np.eye(2)[[0, 1, 1]], np.array(["a", "b"]))
    told = scores.count_confusion(np.array(["a", "a", "b"]), made)
    assert told == scores.ConfusionTable(("a", "b"), ((1, 1), (0, 1)))


# files -----------------------------------------------------------------------------------------------


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    c = case(time=True)
    record = held(c).record
    told = model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record)
    written = write_evaluation(tmp_path, c.settings, c.kind, told, record)
    assert sorted(written) == sorted(tmp_path.iterdir())
    flat = json.loads((tmp_path / "metrics.json").read_text())
    headline = c.settings.problem.headline
    assert flat[f"{headline}_low"] <= flat[headline] <= flat[f"{headline}_high"]
    json.dumps(told.to_json(), allow_nan=False)
    assert len(pd.read_csv(tmp_path / "slices.csv")) == len(told.slices)
    assert set(pd.read_csv(tmp_path / "importance.csv")["column"]) == set(COLUMNS.names)
    assert told.diagnosis.name.capitalize() in (tmp_path / "diagnosis.txt").read_text()
