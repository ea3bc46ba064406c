"""The past as a matrix of losses: windows, cells, the cheapest schedule, and policies that see no future."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from windvane.monitoring.history import loss_matrix, simulation
from windvane.monitoring.history.loss_matrix import LossMatrix, MatrixJob
from windvane.monitoring.policy import regret
from windvane.monitoring.policy.regret import PolicyInput
from windvane.monitoring.records import PolicyAdvice
from windvane.tasks.errors import InputError
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long

CHOSEN = project_params.parse_settings(
    {"project": "p", "problem": {"kind": "regression", "target": "y", "time": "t"}, "data": {"source": "t.csv"}}
)
SPEC = ModelConfiguration("tree", {"max_depth": 3})


def table(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Rows whose slope turns half way."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    slope = np.where(np.arange(rows) < rows // 2, 1.0, -1.0)
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="h")
    return pd.DataFrame({"t": at, "x": x, "word": rng.choice(["a", "b"], rows), "y": slope * x})


def job(rows: pd.DataFrame, history: str = "expanding", window: str | int = 20) -> MatrixJob:
    return loss_matrix.make_matrix_job(loss_matrix.cut_into_windows(rows, "t", window), CHOSEN, SPEC, window, history)


def drifting(windows_: int, first: int, seed: int, trailing: int | None = None) -> LossMatrix:
    """Losses of models that age, jump and vary, without a fit."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=windows_).cumsum() * rng.uniform(0, 0.5)
    hard = 1 + rng.random(windows_)
    losses = hard[None, :] + np.abs(level[None, :] - level[:, None]) + 0.1 * rng.random((windows_, windows_))
    losses[np.tril_indices(windows_, -1)] = np.nan
    return LossMatrix(losses, first, trailing)


def test_windows_by_duration_and_by_rows() -> None:
    rows = table(24 * 20).sample(frac=1, random_state=1)
    by_day = loss_matrix.cut_into_windows(rows, "t", "1d")
    assert by_day.count == 19, "the last day may not be over"
    assert set(np.diff(by_day.edges)) == {24}
    assert by_day.rows["t"].is_monotonic_increasing
    by_rows = loss_matrix.cut_into_windows(rows, "t", 50)
    assert by_rows.count == 9, "a last window that is not full is left out"
    assert len(by_rows.before(5, 2)) == 100


def test_months_begin_on_the_first() -> None:
    at = pd.date_range("2024-01-15", periods=400, freq="D")
    made = loss_matrix.cut_into_windows(pd.DataFrame({"t": at, "y": 1.0}), "t", "1mo")
    assert all(start.startswith(at[0].strftime("%Y")) or "-01" in start[7:10] for start in made.starts[1:])
    assert [len(made.window(k)) for k in (1, 2)] == [29, 31]


def test_too_few_windows_name_the_remedy() -> None:
    with pytest.raises(InputError, match=r"monitor\.window: 300 .* Name a shorter window"):
        loss_matrix.cut_into_windows(table(400), "t", 300)


def test_a_cell_is_the_loss_of_a_fit_on_rows_before(tmp_path: Path) -> None:
    from windvane.tasks.models import features, model_pipeline
    from windvane.tasks.models.problem_types import definitions
    from windvane.tasks.validate import table_profile

    asked = job(table())
    made = loss_matrix.build_loss_matrix(asked, tmp_path, cores=1)
    kind, taught = definitions.load_problem_type("regression"), asked.cut.before(8, None)
    columns = features.select_feature_columns(CHOSEN, table_profile.profile_table(taught))
    model = model_pipeline.fit_pipeline(SPEC, kind, columns, taught, FitOptions("y", CHOSEN.split.seed, 1))
    window = asked.cut.window(13)
    said = kind.predict(model, features.conform_frame(window, columns, "x"))
    assert made.losses[8, 13] == pytest.approx(np.abs(window["y"] - said.value).mean())
    assert np.isnan(made.losses[8, 7])


def test_a_cell_counts_rows_as_their_weight_says() -> None:
    """Of weights that are all alike but in one window, only that window's cells move: to the weighted mean."""
    rows = table().assign(w=2.0)
    chosen = CHOSEN.model_copy(update={"problem": CHOSEN.problem.model_copy(update={"weight": "w"})})
    rows.loc[380:399, "w"] = np.where(np.arange(20) < 5, 30.0, 2.0)
    made = loss_matrix.cut_into_windows(rows, "t", 20)
    asked = loss_matrix.make_matrix_job(made, chosen, SPEC, 20, "expanding")
    pipeline, columns = loss_matrix.fit_configuration(chosen, SPEC, made.before(8, None))
    last = made.window(made.count - 1)
    losses = loss_matrix.compute_row_losses(chosen, pipeline, columns, last)
    row = loss_matrix.compute_matrix_row(asked, 8)
    assert row[-1] == pytest.approx(np.average(losses, weights=last["w"]))
    assert row[-1] != pytest.approx(losses.mean())
    assert row[:-1] == pytest.approx(loss_matrix.compute_matrix_row(job(table()), 8)[:-1])


def test_cells_are_fitted_once_and_again_only_where_rows_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    fit = loss_matrix.compute_matrix_row

    def counting(asked: MatrixJob, model: int) -> np.ndarray:
        fitted.append(model)
        return fit(asked, model)

    monkeypatch.setattr(loss_matrix, "compute_matrix_row", counting)
    asked = job(table(), "trailing:5")
    first = loss_matrix.build_loss_matrix(asked, tmp_path, cores=1)
    assert fitted
    fitted.clear()
    again = loss_matrix.build_loss_matrix(asked, tmp_path, cores=1)
    assert not fitted
    np.testing.assert_array_equal(first.losses, again.losses)
    changed = table()
    changed.loc[changed.index[-25], "y"] += 1.0  # in the last window but one
    other = loss_matrix.build_loss_matrix(job(changed, "trailing:5"), tmp_path, cores=1)
    assert fitted, "losses on the changed window are new"
    np.testing.assert_array_equal(first.losses[5:18, :18], other.losses[5:18, :18])


def test_processes_give_the_same_losses() -> None:
    asked = job(table(240))
    np.testing.assert_array_equal(
        loss_matrix.build_loss_matrix(asked, None, cores=1).losses,
        loss_matrix.build_loss_matrix(asked, None, cores=2).losses,
    )


@tries(deadline=None, max_examples=60)
@given(st.integers(3, 8), st.integers(0, 10_000), st.sampled_from([0.05, 0.5, 3.0]), st.integers(0, 2))
def test_the_optimum_is_the_cheapest_of_all_schedules(played: int, seed: int, cost: float, delay: int) -> None:
    made = drifting(played + 3, 3, seed)
    allowed = range(made.first + 1 + delay, made.windows)
    every = itertools.chain.from_iterable(itertools.combinations(allowed, n) for n in range(len(allowed) + 1))
    cheapest = min(simulation.simulate_schedule(made, chosen, cost, delay).total for chosen in every)
    assert simulation.find_optimal_schedule(made, cost, delay).total == pytest.approx(cheapest)


def test_totals_count_what_the_docstring_says() -> None:
    made = drifting(12, 4, seed=3)
    played = simulation.simulate_schedule(made, (6, 9), cost=0.5)
    by_hand = made.losses[4, 4:6].sum() + made.losses[6, 6:9].sum() + made.losses[9, 9:].sum()
    assert played.loss == pytest.approx(by_hand)
    assert played.paid.sum() == pytest.approx(0.5 * (made.record(4) + made.record(6)))
    assert list(played.models) == [4, 4, 6, 6, 6, 9, 9, 9]


def spoilt(made: LossMatrix, window: int, seed: int) -> LossMatrix:
    """The same past; from `window` on, noise."""
    losses = made.losses.copy()
    losses[:, window:] = np.random.default_rng(seed).exponential(5.0, losses[:, window:].shape)
    return replace(made, losses=losses)


NAMED = {**simulation.list_policies(), "periodic": simulation.RetrainingPolicy(simulation.make_periodic_advice(3))}


@pytest.mark.parametrize("name", NAMED)
@tries(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000), at=st.integers(12, 38), cost=st.sampled_from([0.1, 0.5, 2.0]), delay=st.integers(0, 2)
)
def test_no_policy_sees_the_future(name: str, seed: int, at: int, cost: float, delay: int) -> None:
    made, other = drifting(40, 8, seed), spoilt(drifting(40, 8, seed), at, seed)

    def ringing(data: LossMatrix) -> simulation.DriftAlarm:
        return lambda model, window: bool(data.losses[model, window] > 2.0)

    one, two = (
        simulation.simulate_policy(m, NAMED[name], cost, delay=delay, alarm=ringing(m), fee=0.02).decided
        for m in (made, other)
    )
    until = [(d, e) for d, e in zip(one, two, strict=True) if d[0] <= at]
    assert until
    assert all(d == e for d, e in until)


def test_labels_that_are_late_are_not_seen_earlier() -> None:
    made, seen = drifting(30, 8, seed=1), []

    def watching(past: PolicyInput) -> PolicyAdvice:
        seen.append((past.now, past.known))
        return PolicyAdvice(past.now == 15, "")

    played = simulation.simulate_policy(made, simulation.RetrainingPolicy(watching), 0.5, delay=3)
    assert all(known == now - 3 for now, known in seen)
    assert played.models[15 - 8] == 12, "taught on rows whose labels had come"


def test_regret_waits_where_nothing_is_to_be_won() -> None:
    rng = np.random.default_rng(0)
    hard = 1 + rng.random(60)
    losses = np.broadcast_to(hard, (60, 60)) + 0.001 * rng.normal(size=(60, 60))
    played = simulation.simulate_policy(LossMatrix(losses.copy(), 15, None), simulation.list_policies()["regret"], 0.1)
    assert played.retrained == ()


def test_regret_waits_where_retraining_harms() -> None:
    losses = 1 + 0.1 * np.random.default_rng(1).random((60, 60))
    losses[16:] += 0.2  # whatever is taught later is worse
    assert (
        simulation.simulate_policy(LossMatrix(losses, 15, None), simulation.list_policies()["regret"], 0.1).retrained
        == ()
    )


@pytest.mark.parametrize("cost", [0.5, 2.0])
def test_regret_finds_the_economic_period_of_steady_ageing(cost: float) -> None:
    slope = 0.02
    at = np.arange(200)
    losses = 1 + slope * np.clip(at[None, :] - at[:, None], 0, None)
    played = simulation.simulate_policy(LossMatrix(losses, 50, None), simulation.list_policies()["regret"], cost)
    periods = np.diff(played.retrained)
    assert abs(np.median(periods) - np.sqrt(2 * cost * 1.07 / slope)) <= 2


def test_regret_notices_a_sudden_change_within_a_few_windows() -> None:
    at = np.arange(80)
    stale = (at[None, :] >= 50) & (at[:, None] <= 50)
    played = simulation.simulate_policy(
        LossMatrix(1 + 0.8 * stale, 20, None), simulation.list_policies()["regret"], 0.5
    )
    assert played.retrained
    assert 51 < played.retrained[0] <= 54
    assert len(played.retrained) == 1


def test_savings_that_come_back_are_trusted_less() -> None:
    """Between two states that return, a fresh model's lead does not last."""
    at = np.arange(120)
    state = (at // 6) % 2
    other = state[None, :] != state[np.clip(at - 1, 0, None)][:, None]
    made = LossMatrix(1 + 0.5 * other, 30, None)
    taught = np.arange(30, 100, 2)
    past = PolicyInput(taught, made.losses[taught, :100], len(taught) - 4, int(taught[-4]), made.held_out(30), 0.5, 100)
    steady = replace(past, losses=1 + 0.01 * np.clip(np.arange(100)[None, :] - taught[:, None], 0, None))
    assert regret.estimate_persistence(past, 8) < regret.estimate_persistence(steady, 8)


@pytest.mark.parametrize("seed", range(20))
def test_a_change_larger_than_anything_before_is_not_distrusted_for_what_noise_did(seed: int) -> None:
    """Between few models that differ by chance, what one saved may well not have gone on: that says nothing about a break."""
    rng, at = np.random.default_rng(seed), np.arange(24)
    losses = 1 + 0.05 * rng.random((24, 24)) + 10.0 * ((at[None, :] >= 13) & (at[:, None] <= 13))
    played = simulation.simulate_policy(LossMatrix(losses, 10, None), simulation.list_policies()["regret"], 0.5)
    assert next((w for w in played.retrained if w > 13), 24) <= 16


def test_playing_is_deterministic() -> None:
    made = drifting(50, 12, seed=9)
    plays = [simulation.simulate_policy(made, simulation.list_policies()["regret"], 0.5, fee=0.02) for _ in range(2)]
    assert plays[0].decided == plays[1].decided
    np.testing.assert_array_equal(plays[0].by_window, plays[1].by_window)


def test_a_recommendation_never_sees_the_part_that_reports_it() -> None:
    from windvane.monitoring.history import backtest

    made = drifting(80, 20, seed=5)
    middle = 20 + round(backtest.CHOOSING_SHARE * 60)
    one, two = (backtest.compare_policies({"expanding": m}, 0.5) for m in (made, spoilt(made, middle, seed=1)))
    assert one.recommended.name == two.recommended.name
    assert [r.chosen_on for r in one.results] == [r.chosen_on for r in two.results]
    assert [r.reported_on for r in one.results] != [r.reported_on for r in two.results]
    assert all(r.chosen_on >= 1 - 1e-9 and r.reported_on >= 1 - 1e-9 for r in one.results)


def test_a_stable_stream_is_recommended_to_be_left_alone() -> None:
    from windvane.monitoring.history import backtest

    losses = 1 + 0.05 * np.broadcast_to(np.random.default_rng(2).random(60), (60, 60))
    assert (
        backtest.compare_policies({"expanding": LossMatrix(losses.copy(), 15, None)}, 0.5).recommended.name == "never"
    )


def test_backtest_says_which_policy_to_use(tmp_path: Path) -> None:
    import json

    from click.testing import CliRunner

    from windvane.cli.main import main

    rows = table(400).drop(columns="word")
    rows.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "params.yaml").write_text(
        "project: turning\nproblem: {kind: regression, target: y, time: t}\ndata: {source: t.csv}\n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(main, ["backtest", "--window", "20", "--cost", "0.5", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["windows"] == 15
    assert {"never", "staleness", "regret"} <= set(told["policies"])
    assert told["oracle"]["total"] < told["policies"]["never"]["total"], "the slope turns half way"
    assert all(one["total"] >= told["oracle"]["total"] - 1e-9 for one in told["policies"].values())
    assert told["recommended"]["policy"] in told["policies"]
    assert (tmp_path / told["picture"]).stat().st_size > 1000


def test_backtest_without_a_time_names_the_key(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from windvane.cli.main import main

    (tmp_path / "params.yaml").write_text(
        "project: still\nproblem: {kind: regression, target: y}\ndata: {source: t.csv}\n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(main, ["backtest"])
    assert done.exit_code == 2
    assert "problem.time" in done.output


@pytest.mark.parametrize("text", ["1mo", "7mo", "7d", "36h", "2w"])
def test_history_is_cut_where_production_is(text: str) -> None:
    from datetime import UTC

    from windvane.tasks.settings import monitoring_section
    from windvane.tasks.split import time_windows

    window = monitoring_section.parse_window_length(text)
    times = pd.Series(pd.date_range("1968-11-03", "2026-02-01", freq="7h"))
    begins = [time_windows.find_window_start(t.to_pydatetime().replace(tzinfo=UTC), window) for t in times]
    numbers = time_windows.number_windows(times, window)
    assert [a == b for a, b in itertools.pairwise(begins)] == [a == b for a, b in itertools.pairwise(numbers)]
    assert set(np.diff(numbers)) == {0, 1}


@pytest.mark.parametrize("wrong", ["abc", "0", "0d", "-3"])
def test_a_window_that_is_none_is_said_in_words(wrong: str) -> None:
    with pytest.raises(InputError, match=r"monitor\.window"):
        loss_matrix.cut_into_windows(table(400), "t", wrong)


def test_backtest_takes_from_params_yaml_what_is_not_said_and_recommends_what_it_knows(tmp_path: Path) -> None:
    import json
    from typing import get_args

    from click.testing import CliRunner

    from windvane.cli.main import main
    from windvane.tasks.settings.monitoring_section import PolicyName

    table(400).drop(columns="word").to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "params.yaml").write_text(
        "project: turning\nproblem: {kind: regression, target: y, time: t}\ndata: {source: t.csv}\n"
        "monitor: {window: 40, label_delay: 1d}\nretrain: {cost: 2}\n",
        encoding="utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(main, ["backtest", "--json"])
        late = CliRunner().invoke(main, ["backtest", "--json", "--delay", "3"])
        wrong = CliRunner().invoke(main, ["backtest", "--window", "abc"])
        text = (tmp_path / "params.yaml").read_text(encoding="utf-8").replace("cost: 2", "cost: 0")
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        free = CliRunner().invoke(main, ["backtest"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["recommended"]["window"] == "40"
    assert told["recommended"]["cost"] == 2
    assert told["recommended"]["policy"] in get_args(PolicyName)
    assert json.loads(late.stdout)["policies"]["schedule"]["retrains"] < told["policies"]["schedule"]["retrains"]
    assert (wrong.exit_code, "Traceback" in wrong.output) == (2, False)
    assert (free.exit_code, "--cost" in free.output) == (2, True)


def test_f3_n4_played_staleness_has_the_same_floor() -> None:
    def advice(*served: float) -> PolicyAdvice:
        losses = np.array([[np.nan, *served]])
        past = PolicyInput(np.array([1]), losses, 0, 1, np.ones(4), 0.5, losses.shape[1])
        return simulation.advise_by_staleness(past)

    assert advice(0.2, 0.2, 0.2, 1.6).retrain, "windows better than the record are no credit"
    assert not advice(1.3, 0.2, 1.3).retrain
    assert advice(1.3, 1.3).retrain
