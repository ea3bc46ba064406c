"""What backtest makes of a played history: longer windows without a fit, intervals, and params.yaml with what is recommended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks.preset import make_preset_alarm
from tests.monitoring.test_loss_history import NAMED, drifting, job, table
from windvane.cli.main import main
from windvane.monitoring.history import backtest, loss_matrix, simulation
from windvane.monitoring.history.loss_matrix import LossMatrix
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long


def test_longer_windows_have_the_losses_that_fits_by_longer_windows_have() -> None:
    rows = table(24 * 26)
    short, long = job(rows, window="12h"), job(rows, window="2d")
    made = backtest.coarsen_matrix(
        loss_matrix.build_loss_matrix(short, None, 1),
        backtest.group_windows(short.cut, "12h", 4, "t"),
        np.diff(short.cut.edges),
        4,
    )
    assert made is not None
    fitted = loss_matrix.build_loss_matrix(long, None, 1)
    at = slice(made.first, made.windows)
    assert made.windows in (
        fitted.windows,
        fitted.windows + 1,
    )  # a last window that is whole in shorter ones is known to be over
    np.testing.assert_allclose(
        made.losses[at, at][: fitted.windows - made.first, : fitted.windows - made.first],
        fitted.losses[made.first :, made.first :],
    )
    assert made.record(made.first) == pytest.approx(fitted.record(made.first))


def test_longer_windows_lie_on_the_calendar_and_a_last_one_that_may_not_be_over_is_left_out() -> None:
    at = pd.date_range("2020-02-10", "2023-03-05", freq="D")
    cut = loss_matrix.cut_into_windows(pd.DataFrame({"t": at, "y": 1.0}), "t", "1mo")
    groups = backtest.group_windows(cut, "1mo", 3, "t")
    starts = [cut.starts[k][:7] for k in np.flatnonzero(np.diff(groups)) + 1]
    assert {start[5:] for start in starts} == {"01", "04", "07", "10"}
    made = backtest.coarsen_matrix(drifting(cut.count, 9, seed=0), groups, np.diff(cut.edges), 3)
    assert made is not None
    assert made.windows == 12, "quarters from that of February 2020 to the last of 2022"


def test_as_many_windows_as_teach_must_be_whole_longer_ones() -> None:
    base = {"trailing:10": drifting(60, 15, 0, trailing=10), "combined:12": drifting(60, 15, 0)}
    cut = loss_matrix.cut_into_windows(table(1200), "t", 20)
    tried = backtest.compare_window_lengths(base, cut, "20", 0.5, time="t")
    histories = {one.window: {r.history for r in one.found.results} for one in tried}
    assert histories == {
        "20": {"trailing:10", "combined:12"},
        "40": {"trailing:5", "combined:6"},
        "60": {"combined:4"},
        "80": {"combined:3"},
    }


@pytest.mark.parametrize(("window", "many", "said"), [("1mo", 3, "3mo"), ("36h", 2, "72h"), ("500", 4, "2000")])
def test_a_longer_window_is_written_as_params_yaml_has_it(window: str, many: int, said: str) -> None:
    assert backtest.multiply_window_length(window, many) == said


def test_a_lap_costs_the_same_whatever_the_window() -> None:
    """Two windows of half the length lose what one lost; where the loss is level, every length has the same total a row."""
    cut = loss_matrix.cut_into_windows(table(1600), "t", 20)
    level = LossMatrix(np.where(np.tri(80, k=-1) == 1, np.nan, 1.0), 20, None)
    tried = backtest.compare_window_lengths({"expanding": level}, cut, "20", 2.0, time="t")
    assert [(one.window, one.cost) for one in tried] == [("20", 2.0), ("40", 1.0), ("60", 2 / 3), ("80", 0.5)]
    for one, played in zip(
        tried, (30, 15, 10, 8), strict=True
    ):  # of the half that chooses: a lap at each window's start but the first
        rates = {r.name: r.rate for r in one.found.results}
        assert rates["never"] == pytest.approx(1.0)
        assert rates["schedule"] == pytest.approx(1 + one.cost * (played - 1) / played)
    assert backtest.choose_window_length(tried) is tried[0]


def test_the_window_that_was_asked_for_stays_unless_another_is_clearly_better() -> None:
    cut = loss_matrix.cut_into_windows(table(1600), "t", 20)
    tried = backtest.compare_window_lengths({"expanding": drifting(80, 20, seed=3)}, cut, "20", 0.5, time="t")

    def at(share: float) -> backtest.WindowLengthResult:
        better = replace(tried[1].found.recommended, rate=tried[0].found.recommended.rate * share)
        return replace(tried[1], found=replace(tried[1].found, recommended=better))

    assert backtest.choose_window_length((tried[0], at(0.99))) is tried[0]
    assert backtest.choose_window_length((tried[0], other := at(0.95))) is other


def test_a_ratios_interval_holds_it_and_is_none_where_there_are_few_windows() -> None:
    made = drifting(120, 20, seed=2)
    best, own = (
        simulation.find_optimal_schedule(made, 0.5),
        simulation.simulate_policy(made, simulation.list_policies()["staleness"], 0.5),
    )
    low, high = backtest.bound_cost_ratio(own, best)
    assert low is not None
    assert high is not None
    assert low < own.total / best.total < high
    assert low >= 0.95
    assert backtest.bound_cost_ratio(best, best) == (1.0, 1.0)
    few = drifting(24, 20, seed=2)
    assert backtest.bound_cost_ratio(
        simulation.simulate_policy(few, simulation.list_policies()["never"], 0.5),
        simulation.find_optimal_schedule(few, 0.5),
    ) == (
        None,
        None,
    )


def test_what_was_paid_adds_up_at_the_windows_where_it_was() -> None:
    made = drifting(40, 10, seed=1)
    played = simulation.simulate_policy(made, simulation.list_policies()["regret"], 0.5, fee=0.02)
    assert played.retrained
    assert set(played.retrained) <= {made.first + k for k in np.flatnonzero(played.paid)}
    assert played.total == pytest.approx(played.by_window.sum() + played.paid.sum())


@pytest.mark.parametrize("kind", ["calibrated", "preset"])
def test_a_drift_alarm_rings_on_other_inputs_and_is_remembered(tmp_path: Path, kind: str) -> None:
    rows = table(800)
    rows.loc[600:, "x"] += 4
    asked, looked = job(rows, window=40), list[int]()

    def made() -> simulation.DriftAlarm:
        if kind == "preset":
            return make_preset_alarm(asked, tmp_path / "kept.json")
        return backtest.make_calibrated_alarm(asked, 0.01, tmp_path / "kept.json", lambda: looked.append(1))

    assert [made()(10, 17), made()(10, 17)] == [True, True]
    if kind == "calibrated":
        assert len(looked) == 1
        assert not made()(10, 11)


def test_alarms_make_policies_of_their_names(tmp_path: Path) -> None:
    made = drifting(60, 15, seed=1)
    ringing = {"drift": lambda model, window: window % 5 == 0, "another": lambda model, window: False}
    found = backtest.compare_policies({"expanding": made}, 0.5, alarms={"expanding": ringing})
    played = {r.name: r.played.retrained for r in found.results}
    assert played["another"] == ()
    assert played["drift"][:2] == (16, 21)
    assert "drift" not in {r.name for r in backtest.compare_policies({"expanding": made}, 0.5).results}


def noisy(rows: pd.DataFrame, begin: int) -> pd.DataFrame:
    """From a row on everything but the time is noise."""
    rng, other = np.random.default_rng(9), rows.copy()
    later = len(rows) - begin
    other.loc[begin:, "x"] = rng.normal(5, 9, later)
    other.loc[begin:, "y"] = rng.normal(-3, 20, later)
    other.loc[begin:, "word"] = rng.choice(["c", "d", "e"], later)
    return other


@pytest.fixture(scope="module", params=["expanding", "trailing:6", "combined:6"])
def audited(request: pytest.FixtureRequest) -> tuple[LossMatrix, LossMatrix]:
    """The matrices of a table, and of one whose rows from window 20 on are noise: columns, classes of words and target."""
    rows = table(600)
    return loss_matrix.build_loss_matrix(job(rows, request.param), None, 1), loss_matrix.build_loss_matrix(
        job(noisy(rows, 400), request.param), None, 1
    )


@pytest.mark.parametrize("name", [*NAMED, "every 5"])
@pytest.mark.parametrize("cost", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("delay", [0, 2])
def test_a_table_whose_future_is_noise_is_decided_alike_up_to_then(
    audited: tuple[LossMatrix, LossMatrix], name: str, cost: float, delay: int
) -> None:
    policy = NAMED.get(name, simulation.RetrainingPolicy(simulation.make_periodic_advice(5)))

    def ringing(data: LossMatrix) -> simulation.DriftAlarm:
        return lambda model, window: bool(data.losses[model, window] > 0.5)

    one, two = (
        simulation.simulate_policy(m, policy, cost, delay=delay, fee=0.02, alarm=ringing(m)).decided for m in audited
    )
    until = [
        (a, b) for a, b in zip(one, two, strict=True) if a[0] <= 20 + (0 if policy.drift else delay)
    ]  # drift needs no labels
    assert len(until) >= 12 - delay
    assert all(a == b for a, b in until)


def test_the_two_tables_differ_after_that(audited: tuple[LossMatrix, LossMatrix]) -> None:
    one, two = audited
    np.testing.assert_array_equal(one.losses[:, :20], two.losses[:, :20])
    assert (one.losses[8, 20:] != two.losses[8, 20:]).all()


HEAD = """# mine
project: turning
problem: {kind: regression, target: y, time: t}   # what
data: {source: t.csv}
split: {strategy: time}
monitor:
  window: 20      # rows
retrain:
  policy: never   # for now
  cost: 0.5
"""


def test_apply_writes_what_is_recommended_and_says_so(tmp_path: Path) -> None:
    table(400).drop(columns="word").to_csv(tmp_path / "t.csv", index=False)
    path = tmp_path / "params.yaml"
    path.write_text(HEAD, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        plain = CliRunner().invoke(main, ["backtest", "--json"])
        assert path.read_text(encoding="utf-8") == HEAD
        done = CliRunner().invoke(main, ["backtest", "--apply", "--json"])
        again = CliRunner().invoke(main, ["backtest", "--apply", "--json", "--window", "20", "--cost", "0.5"])
    assert (plain.exit_code, done.exit_code, again.exit_code) == (0, 0, 0), done.output
    told = json.loads(done.stdout)
    assert told["recommended"] == json.loads(plain.stdout)["recommended"]
    assert told["recommended"]["policy"] != "never", "the slope turns half way"
    made, best = project_params.load_settings(path), told["recommended"]
    assert (made.retrain.policy, str(made.monitor.window)) == (best["policy"], best["window"])
    assert (made.retrain.history, made.retrain.cost) == (best["history"], pytest.approx(best["cost"], rel=1e-5))
    assert told["applied"]["retrain.policy"] == ["never", best["policy"]]
    assert "retrain.policy is" in done.stderr
    after = path.read_text(encoding="utf-8")
    assert "# for now" in after
    assert after.startswith(HEAD[: HEAD.index("monitor:")])
    assert json.loads(again.stdout)["applied"] == {}
    assert "nothing changed" in again.stderr
