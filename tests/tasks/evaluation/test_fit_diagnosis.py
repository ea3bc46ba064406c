"""The fit diagnosis at its borders, with hand-made evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windvane.tasks.evaluation.fit_diagnosis import (
    MAX_NOISE_SKILL,
    MIN_DOUBLING_SKILL,
    MIN_GAP_SKILL,
    MIN_TRAIN_SKILL,
    FitEvidence,
    compute_skill,
    diagnose_fit,
)

# A baseline of 100 makes a score of s a skill of 1 - s / 100.
GOOD = FitEvidence("mae", False, train=10.0, validation=15.0, baseline=100.0, rows=1_000, slope=0.0, noise=2.0)
EDGE = 0.01


def test_a_small_gap_and_much_learned_is_a_good_fit() -> None:
    told = diagnose_fit(GOOD)
    assert told.name == "good fit"
    assert "90 %" in told.because
    assert "85 %" in told.because


@pytest.mark.parametrize(("beyond", "name"), [(-EDGE, "good fit"), (EDGE, "overfitting")])
def test_the_gap_decides_between_good_and_overfitting(beyond: float, name: str) -> None:
    assert diagnose_fit(replace(GOOD, validation=10.0 + 100 * (MIN_GAP_SKILL + beyond))).name == name


@pytest.mark.parametrize(("beyond", "name"), [(EDGE, "good fit"), (-EDGE, "underfitting")])
def test_little_learned_on_its_own_rows_is_underfitting(beyond: float, name: str) -> None:
    score = 100 * (1 - MIN_TRAIN_SKILL - beyond)
    assert diagnose_fit(replace(GOOD, train=score, validation=score + 1)).name == name


@pytest.mark.parametrize(("beyond", "name"), [(-EDGE / 2, "overfitting"), (EDGE / 2, "too little data")])
def test_a_rising_learning_curve_turns_overfitting_into_too_little_data(beyond: float, name: str) -> None:
    told = diagnose_fit(replace(GOOD, validation=50.0, slope=MIN_DOUBLING_SKILL + beyond))
    assert told.name == name
    assert ("Collect more" in told.adjust) == (name == "too little data")


@pytest.mark.parametrize(("beyond", "name"), [(-EDGE, "good fit"), (EDGE, "too little data")])
def test_a_score_known_too_poorly_is_too_little_data(beyond: float, name: str) -> None:
    assert diagnose_fit(replace(GOOD, noise=100 * (MAX_NOISE_SKILL + beyond))).name == name


def test_how_many_more_rows_follows_the_curve() -> None:
    # Gains of 20, then 10 %: 5, 2.5 % next, and the doubling after that is not worth the word.
    told = diagnose_fit(replace(GOOD, validation=50.0, slope=0.10, earlier=0.20))
    assert "if it goes on so, 4,000 rows would take away about 8 % more" in told.adjust
    steady = diagnose_fit(replace(GOOD, validation=50.0, slope=0.10, earlier=0.10))
    assert "with 2,000 rows expect about as much again" in steady.adjust
    assert "rows would" not in diagnose_fit(replace(GOOD, validation=50.0, slope=0.10)).adjust
    assert "2,000 rows would" in diagnose_fit(replace(GOOD, slope=0.02, earlier=0.20)).adjust


def test_how_many_more_rows_would_tell_a_good_fit_from_a_bad_one() -> None:
    assert "about 4 times as many" in diagnose_fit(replace(GOOD, noise=100 * 2 * MAX_NOISE_SKILL)).adjust


def test_a_gap_within_the_noise_is_no_overfitting() -> None:
    wide = replace(GOOD, validation=10.0 + 100 * (MIN_GAP_SKILL + 0.05))
    assert diagnose_fit(replace(wide, noise=20.0)).name == "good fit"
    assert diagnose_fit(replace(wide, noise=5.0)).name == "overfitting"


def test_a_gap_far_beyond_the_noise_is_overfitting_however_noisy() -> None:
    assert diagnose_fit(replace(GOOD, validation=400.0, noise=150.0)).name == "overfitting"


def test_each_side_is_measured_by_its_own_baseline() -> None:
    harder = replace(GOOD, train=30.0, validation=12.0)
    assert diagnose_fit(replace(harder, own_baseline=300.0)).name == "good fit"
    assert diagnose_fit(replace(harder, own_baseline=35.0)).name == "underfitting"
    assert "adds 20 %" in diagnose_fit(replace(harder, own_baseline=25.0)).because


def test_without_learning_curve_or_interval_it_still_tells() -> None:
    assert diagnose_fit(replace(GOOD, validation=60.0, slope=None, noise=None)).name == "overfitting"


@pytest.mark.parametrize(("goal", "name"), [(12.0, "good fit"), (9.0, "underfitting")])
def test_training_rows_that_miss_the_goal_are_underfitting(goal: float, name: str) -> None:
    told = diagnose_fit(replace(GOOD, goal=goal))
    assert told.name == name
    assert ("misses" in told.because or "miss the goal" in told.because) == (name == "underfitting")


def test_a_goal_for_a_score_that_is_best_at_one() -> None:
    e = FitEvidence("r2", True, train=0.9, validation=0.85, baseline=0.0, rows=100)
    assert diagnose_fit(replace(e, goal=0.8)).name == "good fit"
    assert diagnose_fit(replace(e, goal=0.95)).name == "underfitting"


def test_a_changed_world_is_named_where_validation_is_later() -> None:
    over = replace(GOOD, validation=60.0, slope=-0.1)
    assert "changing world" not in diagnose_fit(over).because
    told = diagnose_fit(replace(over, later=True))
    assert "changing world" in told.because
    assert "shorter history" in told.adjust


def test_the_better_complexity_is_named() -> None:
    assert (
        "max_depth (4"
        in diagnose_fit(replace(GOOD, validation=60.0, simpler="max_depth (4 did better than 32)")).adjust
    )


@pytest.mark.parametrize("gone", ["train", "validation", "baseline"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_score_that_is_not_defined_is_said(gone: str, value: float | None) -> None:
    changes: dict[str, float | None] = {gone: value}
    told = diagnose_fit(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert told.name == "not defined here"
    assert gone.replace("train", "training") in told.because


def test_a_perfect_baseline_leaves_nothing_to_diagnose() -> None:
    assert "already perfect" in diagnose_fit(replace(GOOD, baseline=0.0)).because
    assert diagnose_fit(FitEvidence("accuracy", True, 1.0, 1.0, 1.0, 10)).name == "not defined here"


def test_skill_is_the_share_of_the_error_that_is_gone() -> None:
    assert compute_skill(25.0, 100.0, False) == 0.75
    assert compute_skill(0.8, 0.5, True) == pytest.approx(0.6)
    assert compute_skill(-0.5, -1.0, True) == pytest.approx(0.25)


scores = st.floats(-10, 10) | st.none() | st.just(float("nan"))


@given(st.booleans(), scores, scores, scores, scores, scores, st.booleans())
def test_any_evidence_gets_a_name_and_an_action(
    greater: bool, train: float | None, validation: float | None, baseline: float | None, slope: float | None,
    noise: float | None, later: bool,
) -> None:  # fmt: skip
    told = diagnose_fit(FitEvidence("m", greater, train, validation, baseline, 9, slope, noise, None, later))
    assert told.name in {"underfitting", "overfitting", "good fit", "too little data", "not defined here"}
    assert told.because
    assert told.adjust


LINEAR = FitEvidence("mae", False, train=55.0, validation=56.0, baseline=100.0, rows=5_000, slope=0.0, noise=2.0)


def test_e5_a_good_fit_that_leaves_much_names_the_candidates_that_were_not_tried() -> None:
    told = diagnose_fit(replace(LINEAR, untried=("forest", "boosting")))
    assert "56 % of the baseline's error is left: try forest and boosting too (search.candidates)" in told.adjust
    assert "Nothing must change" not in told.adjust


def test_e5_n1_an_underfit_names_them_before_it_wants_complexity() -> None:
    told = diagnose_fit(replace(LINEAR, train=80.0, validation=81.0, untried=("forest",)))
    assert told.name == "underfitting"
    assert told.adjust.startswith("Try forest too (search.candidates). Else allow more complexity")


def test_e5_n2_where_all_were_tried_or_nothing_is_left_none_is_named() -> None:
    assert "search.candidates" not in diagnose_fit(LINEAR).adjust
    assert "search.candidates" not in diagnose_fit(replace(LINEAR, train=3.0, validation=4.0, untried=("tree",))).adjust
