"""Rare classes: treated inside the training rows alone, honest probabilities, thresholds, and what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.support.projects import Folder
from windvane.tasks.errors import InputError
from windvane.tasks.models import class_balance, model_pipeline
from windvane.tasks.models.class_balance import UNBALANCED, ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import TRUSTED_TYPES, FitOptions, ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import classification, definitions
from windvane.tasks.search import cross_validation, model_search
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long

KIND = definitions.load_problem_type("classification")
COLUMNS = FeatureColumns(("a", "b", "n"), low=("c",))
TREATMENTS = ["weights", "oversample", "undersample", "smote"]


def rare(rows: int = 600, seed: int = 0, classes: int = 2) -> pd.DataFrame:
    """About one row in ten is `yes` (and one in twenty `perhaps`); `n` has gaps; `who` has five rows each."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"a": rng.normal(size=rows), "b": rng.normal(size=rows), "c": rng.choice(["x", "y", "z"], rows)}
    )
    frame["n"] = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 9, rows))
    odds = 1.5 * frame["a"] + (frame["c"] == "x") - 3.2
    frame["y"] = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    if classes == 3:
        frame.loc[rng.random(rows) < 0.05, "y"] = "perhaps"
    frame["who"] = np.arange(rows) // 5
    return frame


def fitted(frame: pd.DataFrame, chosen: ClassBalance, candidate: str = "linear", **given: Any) -> Any:
    small = {"forest": {"n_estimators": 10}, "boosting": {"max_iter": 30}}.get(candidate, {})
    return model_pipeline.fit_pipeline(
        ModelConfiguration(candidate, small, chosen), KIND, COLUMNS, frame, FitOptions("y", 0, 1, **given)
    )


def says(model: Any, frame: pd.DataFrame) -> definitions.Predictions:
    return KIND.predict(model, conform_frame(frame, COLUMNS, "x"))


def parsed(
    kind: str = "classification", strategy: str = "random", metric: str | None = None, **search: Any
) -> project_params.Settings:
    problem = {"kind": kind, "target": "y", "metric": metric}
    content = {"project": "p", "data": {"source": "t.csv"}, "problem": problem, "split": {"strategy": strategy}}
    return project_params.parse_settings({**content, "search": search})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every (rows given, rows made) of a resampling."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    real = class_balance.resample_classes

    def watched(X: Any, y: Any, *rest: Any) -> Any:
        made = real(X, y, *rest)
        seen.append((X, made[0]))
        return made

    monkeypatch.setattr(class_balance, "resample_classes", watched)
    return seen


# inside the training rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("treatment", ["oversample", "smote"])
@pytest.mark.parametrize("strategy", ["stratified", "kfold"])
def test_no_row_made_from_the_other_side_is_fitted_on(
    treatment: str, strategy: str, drawn: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    # `a` is a row's name: rows drawn before the split would bring names of the other side into a fit.
    frame, each = rare(), 1 + classification.THRESHOLD_FOLDS
    train, rest = (frame[:400], frame[400:]) if strategy == "stratified" else (frame, frame[:0])
    table = cross_validation.build_configuration_scorer(
        ModelTask(parsed(strategy=strategy), KIND, FeatureColumns(("a", "b")), 1), train, rest
    )
    list(table.score(ModelConfiguration("boosting", {"max_iter": 10}, ClassBalance(treatment)), quick_first=False))
    assert len(drawn) == each * len(table.folds)
    for i, (taught, judged) in enumerate(table.folds):
        inside = set(table.frame["a"].iloc[taught])
        for real, made in drawn[each * i : each * (i + 1)]:
            assert set(real[:, 0]) < inside
            assert not set(made[:, 0]) & set(table.frame["a"].iloc[judged])
            assert len(made) > len(real)
        # Boosting stops by rows that were set aside first: no copy of them is learned from.
        assert len(drawn[each * i][0]) == pytest.approx(0.9 * len(inside), abs=1)


def test_a_copied_row_does_not_make_its_own_fold_look_easy() -> None:
    # Labels at random: whoever resamples before the split finds each rare row again, and scores far above chance.
    rng = np.random.default_rng(0)
    frame = rare(400).assign(y=np.where(rng.random(400) < 0.1, "yes", "no"))
    table = cross_validation.build_configuration_scorer(
        ModelTask(parsed(strategy="kfold"), KIND, COLUMNS, 1), frame, frame[:0]
    )
    *_, last = table.score(
        ModelConfiguration("tree", {"max_depth": 32, "min_samples_leaf": 1}, ClassBalance("oversample"))
    )
    assert last.validation["roc_auc"] < 0.65
    assert last.train["roc_auc"] > 0.95


@pytest.mark.parametrize("group", [None, "who"])
def test_a_threshold_is_chosen_on_rows_that_its_fits_had_not_seen(
    group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = rare()
    fits: list[set[int]] = []
    once = model_pipeline._fit_once

    def seen(spec: Any, kind: Any, columns: Any, rows: pd.DataFrame, *rest: Any) -> Any:
        fits.append(set(rows.index))
        return once(spec, kind, columns, rows, *rest)

    monkeypatch.setattr(model_pipeline, "_fit_once", seen)
    scored: list[int] = []
    plain = classification.find_best_threshold

    def best(is_it: Any, score: Any, *more: Any) -> float:
        scored.append(len(score))
        return plain(is_it, score, *more)

    monkeypatch.setattr(classification, "find_best_threshold", best)
    model_pipeline.fit_pipeline(
        ModelConfiguration("linear", {}, ClassBalance(None, "f1")),
        KIND,
        COLUMNS,
        frame[:450],
        FitOptions("y", 0, 1, group=group),
    )
    assert scored == [450]
    assert fits.pop(0) == set(range(450))
    assert len(fits) == classification.THRESHOLD_FOLDS
    held = [set(range(450)) - rows for rows in fits]
    assert sorted(i for part in held for i in part) == list(range(450))
    if group:
        for rows, part in zip(fits, held, strict=True):
            assert not set(frame.loc[list(rows), group]) & set(frame.loc[list(part), group])


@pytest.mark.parametrize("metric", ["average_precision", "f1"])
def test_trials_tune_a_threshold_only_where_the_headline_sees_it(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, tuned = rare(), []
    monkeypatch.setattr(classification, "find_best_threshold", lambda *given: tuned.append(given) or 0.3)
    list(
        cross_validation.build_configuration_scorer(
            ModelTask(parsed(metric=metric), KIND, COLUMNS, 1), frame[:400], frame[400:]
        ).score(ModelConfiguration("linear", {}, ClassBalance(None, "f1")))
    )
    assert len(tuned) == (metric == "f1")


# honest probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("candidate", ["linear", "tree", "boosting"])
def test_probabilities_come_true_whatever_the_treatment(treatment: str, candidate: str) -> None:
    train, later = rare(4_000), rare(4_000, seed=1)
    plain, treated = (says(fitted(train, b, candidate), later) for b in (UNBALANCED, ClassBalance(treatment)))
    truth = KIND.truth(later["y"])
    assert treated.proba is not None
    assert treated.proba[:, 1].mean() == pytest.approx((train["y"] == "yes").mean(), rel=0.1)
    loss = KIND.metrics["log_loss"].score
    assert loss(truth, treated, None) < 1.1 * loss(truth, plain, None)


def test_the_correction_divides_the_odds_by_how_much_a_class_was_lifted() -> None:
    pipeline = model_pipeline.build_pipeline(
        ModelConfiguration("linear", {}, ClassBalance("oversample")), KIND, COLUMNS, 0, 1
    )
    treated = pipeline.fit(conform_frame(rare(), COLUMNS, "x"), KIND.truth(rare()["y"]))[-1]
    y = KIND.truth(rare()["y"])
    counts = np.array([(y == "no").sum(), (y == "yes").sum()])
    assert treated.factors_ == pytest.approx(counts.min() / counts)
    bent = np.array([[0.5, 0.5]])
    assert treated.corrected(bent) == pytest.approx(counts[None, :] / counts.sum())


# resampled rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidate", ["linear", "tree"])
def test_new_rows_hold_codes_flags_and_gaps_as_real_ones_do(
    candidate: str, drawn: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    fitted(rare(), ClassBalance("smote"), candidate)
    given, made = drawn[0]
    assert np.array_equal(made[: len(given)], given, equal_nan=True)
    new = made[len(given) :]
    assert len(new)
    for column in range(given.shape[1]):
        values = np.unique(given[:, column][~np.isnan(given[:, column])])
        if len(values) <= 3 and candidate == "tree":
            assert np.isin(new[:, column], values).all()
        if candidate == "tree" and column == 2:
            assert 0 < np.isnan(new[:, column]).mean() < 0.5
            assert (np.nan_to_num(new[:, column]) % 1 == 0).all()
        else:
            assert np.isfinite(new[:, column]).all()


@pytest.mark.parametrize(
    "columns", [FeatureColumns(("a", "b")), FeatureColumns(low=("c",)), COLUMNS], ids=["SMOTE", "SMOTEN", "SMOTENC"]
)
@pytest.mark.parametrize("candidate", ["linear", "tree"])
def test_smote_takes_any_mix_of_columns(columns: FeatureColumns, candidate: str) -> None:
    model = model_pipeline.fit_pipeline(
        ModelConfiguration(candidate, {}, ClassBalance("smote")), KIND, columns, rare(), FitOptions("y", 0, 1)
    )
    assert set(model.classes_) == {"no", "yes"}


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_class_of_one_row_or_two_is_no_crash(treatment: str) -> None:
    frame = rare(classes=3)
    frame = pd.concat(
        [frame[frame["y"] == "no"], frame[frame["y"] == "yes"].head(2), frame[frame["y"] == "perhaps"].head(1)]
    )
    for candidate in ("linear", "forest", "boosting"):
        model = fitted(frame.reset_index(drop=True), ClassBalance(treatment, "f1"), candidate)
        assert len(model.classes_) == 3
        assert classification.get_threshold(model) is None


# what is stored --------------------------------------------------------------------------------------


STORED = [(c, t, 2) for c in KIND.candidates if c != "dummy" for t in TREATMENTS]
STORED += [("linear", None, 2), *(("linear", t, 3) for t in TREATMENTS), ("boosting", "weights", 3)]


@pytest.mark.parametrize(("candidate", "treatment", "classes"), STORED)
def test_what_is_stored_is_a_plain_pipeline_and_answers_the_same(
    candidate: str, treatment: str | None, classes: int
) -> None:
    frame = rare(classes=classes)
    one, two = (fitted(frame, ClassBalance(treatment, "f1"), candidate) for _ in range(2))
    stored = skops.io.dumps(one)
    assert b"imblearn" not in stored
    assert type(one).__module__.startswith("sklearn.")
    opened = skops.io.loads(stored, trusted=list(TRUSTED_TYPES))
    said = [says(model, frame) for model in (one, two, opened)]
    for other in said[1:]:
        assert np.array_equal(said[0].value, other.value)
        assert np.array_equal(np.asarray(said[0].proba), np.asarray(other.proba))
    assert np.array_equal(opened.predict(conform_frame(frame, COLUMNS, "x")), said[0].value)
    assert (classification.get_threshold(opened) is None) == (classes == 3)


def test_a_configuration_survives_json_and_older_ones_are_read() -> None:
    spec = ModelConfiguration("forest", {"max_depth": 8}, ClassBalance("weights", "f1"))
    assert ModelConfiguration.from_json(spec.to_json()) == spec
    old = {"candidate": "forest", "params": {"max_depth": 8}}
    assert ModelConfiguration.from_json(old) == ModelConfiguration("forest", {"max_depth": 8})
    assert ModelConfiguration.from_json(old).to_json() == old


def test_a_refit_keeps_the_treatment_of_the_champion_whatever_params_yaml_says() -> None:
    spec, frame = ModelConfiguration("linear", {}, ClassBalance("weights", "f1")), rare(300)
    found = model_search.score_single_configuration(
        ModelTask(parsed(), KIND, COLUMNS, 1), spec, frame[:200], frame[200:], lambda _: None
    )
    assert found.best.spec == spec
    assert found.results[0].spec.balance == UNBALANCED
    assert any("fitted with weights" in note for note in found.notes)
    assert any("200 training rows are few" in note for note in found.notes)


# thresholds ------------------------------------------------------------------------------------------


@limits(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40).filter(
        lambda r: any(t for t, _ in r)
    ),
    st.sampled_from(["f1", "accuracy"]),
)
def test_no_other_threshold_does_better_on_the_same_rows(rows: list[tuple[bool, int]], metric: str) -> None:
    is_it = np.array([t for t, _ in rows])
    score = np.array([s for _, s in rows]) / 12

    def at(threshold: float) -> float:
        proba = np.column_stack([1 - score, score])
        called = classification.predict_from_probabilities(proba, np.arange(2), 1, threshold)
        said = definitions.Predictions(called, proba, np.arange(2))
        return KIND.metrics[metric].score(is_it.astype(int), said, None)

    chosen = at(classification.find_best_threshold(is_it, score, metric, np.ones(len(is_it))))
    assert chosen == pytest.approx(max(at(t) for t in [*np.unique(score), 1.5]))


def test_a_threshold_moves_calls_and_leaves_probabilities_alone() -> None:
    train, later = rare(2_000), rare(2_000, seed=1)
    plain, tuned = fitted(train, UNBALANCED), fitted(train, ClassBalance(None, "f1"))
    one, two = says(plain, later), says(tuned, later)
    assert np.array_equal(np.asarray(one.proba), np.asarray(two.proba))
    threshold = classification.get_threshold(tuned)
    assert threshold is not None
    assert np.array_equal(two.value == "yes", np.asarray(two.proba)[:, 1] >= threshold)
    truth = KIND.truth(later["y"])
    was, now = KIND.scores(truth, one), KIND.scores(truth, two)
    assert now["f1"] > was["f1"]
    for name in ("log_loss", "roc_auc", "average_precision"):
        assert now[name] == was[name]


def test_the_positive_class_may_be_the_first_in_order() -> None:
    frame = rare(1_000)
    frame["y"] = frame["y"].map({"yes": "Yes", "no": "nope"})
    model = fitted(frame, ClassBalance("weights", "f1"))
    said = says(model, frame)
    assert np.array_equal(said.value == "Yes", np.asarray(said.proba)[:, 0] >= classification.get_threshold(model))
    assert np.array_equal(model.predict(conform_frame(frame, COLUMNS, "x")), said.value)


@pytest.mark.slow
def test_a_lap_says_its_threshold_and_the_champion_calls_by_it(tmp_path: Path, prefect_server: str) -> None:
    from mlflow import MlflowClient

    folder = Folder(tmp_path)
    rare(900).drop(columns="who").to_csv(tmp_path / "t.csv", index=False)
    folder.run("init", "t.csv", "--target", "y")
    folder.set(search__trials=2, search__candidates=["linear", "tree"], search__imbalance="weights")
    said = folder.train(env={"PREFECT_API_URL": prefect_server})
    assert said["metric"] == "average_precision"
    run = MlflowClient(f"sqlite:///{tmp_path}/.windvane/mlflow.db").get_run(said["run_id"]).data
    threshold = float(run.params["chosen.threshold"])
    assert float(run.params["served.threshold"]) == threshold
    assert "Called 'yes' from a probability" in run.tags["mlflow.note.content"]
    record = pd.read_parquet(next((tmp_path / ".windvane").rglob("record.parquet")))
    assert ((record["_p_yes"] >= threshold) == (record["_prediction"] == "yes")).all()
    folder.run("score", "t.csv", "s.csv")
    assert set(pd.read_csv(tmp_path / "s.csv")["prediction"]) == {"no", "yes"}


# settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value"), [("imbalance", "weights"), ("threshold", "f1")])
def test_regression_refuses_what_is_for_classes(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"search.{key}: {value} is for classes, .*Set it to null"):
        parsed("regression", **{key: value})
    assert getattr(parsed(**{key: value}).search, key) == value
    with pytest.raises(InputError, match=rf"search.{key}: not an allowed value. Allowed: .*{value}"):
        parsed(**{key: value + "x"})
