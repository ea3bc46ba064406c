"""The gate: what it accepts, refuses and says, and that it promotes wrongly no more often than it claims."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.projects import ROOT
from windvane.tasks.errors import WindvaneError
from windvane.tasks.gate.block_test import MIN_BLOCKS, bound_paired_difference, form_blocks
from windvane.tasks.gate.promotion_gate import (
    MIN_JUDGED_ROWS,
    GateEvidence,
    GateVerdict,
    ResolvedRule,
    judge_challenger,
    resolve_gate_rule,
)

RULES: tuple[ResolvedRule, ...] = ("superior", "not_worse")


def evidence(seed: int, n: int = 400, better: float = 0.0, kind: str = "row", **more: Any) -> GateEvidence:
    """Losses with a common part; the challenger is truly better by that share."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0.5, 1.5, n)
    champion, challenger = hard * rng.uniform(0.8, 1.2, n), hard * rng.uniform(0.8, 1.2, n) * (1 - better)
    time = np.arange(n) // 4 if kind in ("time", "both") else None
    group = np.array([f"g{k}" for k in rng.integers(0, 40, n)], dtype=object) if kind in ("group", "both") else None
    return GateEvidence(challenger, champion, rng.integers(-(2**62), 2**62, n), time, group, **more)


def ask(given: GateEvidence, rule: ResolvedRule = "superior", margin: float = 0.01) -> GateVerdict:
    return judge_challenger(given, rule, 0.95, margin)


KINDS = st.sampled_from(["row", "time", "group", "both"])
SEEDS = st.integers(0, 10_000)


# --- blocks


@given(st.lists(st.integers(0, 60), min_size=5, max_size=400))
def test_timestamps_never_straddle_blocks_and_blocks_follow_time(times: list[int]) -> None:
    stamps = np.array(times)
    (part,) = form_blocks(np.arange(len(stamps)), stamps)
    assert part.fine is not None
    for label in (part.label, part.fine):
        assert all(len(set(label[stamps == t])) == 1 for t in set(times))
        assert np.all(np.diff(label[np.argsort(stamps, kind="stable")]) >= 0)
        assert set(label) == set(range(int(label.max()) + 1))
    assert all(len(set(part.label[part.fine == f])) == 1 for f in set(part.fine)), "a stretch lies within one block"
    assert part.count <= 10


def test_time_is_cut_into_ten_even_blocks() -> None:
    (part,) = form_blocks(np.arange(1290), np.repeat(np.arange(30), 43))
    assert np.bincount(part.label).tolist() == [129] * 10


@given(st.lists(st.integers(0, 80), min_size=1, max_size=300))
def test_groups_stay_whole_and_bins_are_balanced(groups: list[int]) -> None:
    group = np.array(groups)
    (part,) = form_blocks(np.arange(len(group)), group=group)
    assert all(len(set(part.label[group == g])) == 1 for g in set(groups))
    assert part.count == min(30, len(set(groups)))
    sizes = np.bincount(part.label)
    assert sizes.max() - sizes.min() <= np.bincount(group).max(), "no bin is heavier by more than one group"


def test_a_large_group_has_its_bin_alone() -> None:
    (part,) = form_blocks(np.arange(117), group=np.array([0] * 59 + list(range(1, 59))))
    assert np.bincount(part.label).max() == 59


def test_equal_rows_share_a_block_and_keys_of_one_side_spread_evenly() -> None:
    keys = np.repeat(np.arange(500) * 2**40, 2)  # nothing but high bits differ
    (part,) = form_blocks(keys)
    assert np.array_equal(part.label[::2], part.label[1::2])
    assert part.count == 100
    assert np.bincount(part.label).max() <= 14
    assert np.corrcoef(part.label, np.arange(1000))[0, 1] < 0.2, "bins do not follow the order of keys"


def test_missing_time_or_group_is_one_unit() -> None:
    times = np.array(["2020-01-01", "NaT", "2020-01-02", "NaT"], dtype="datetime64[us]")
    (part,) = form_blocks(np.arange(4), times)
    assert part.label[1] == part.label[3]
    (part,) = form_blocks(np.arange(4), group=np.array(["a", None, "b", float("nan")], dtype=object))
    assert part.label[1] == part.label[3]


def test_few_groups_beside_time_leave_time_alone() -> None:
    assert [p.kind for p in form_blocks(np.arange(60), np.arange(60), np.arange(60) % 3)] == ["time"]
    assert [p.kind for p in form_blocks(np.arange(60), np.arange(60), np.arange(60) % 6)] == ["time", "group"]


# --- the bound


def test_for_equal_blocks_it_is_the_t_test_on_block_means() -> None:
    from scipy.special import stdtrit

    d = np.concatenate([np.array([3.0, 5, 4, 6, 4, 5, 3, 6, 5, 4])[:, None] + [[-1, 0, 1]]]).ravel()
    (part,) = form_blocks(np.arange(30), group=np.repeat(np.arange(10), 3))
    means = d.reshape(10, 3).mean(axis=1)
    expected = means.mean() - stdtrit(9, 0.95) * means.std(ddof=1) / np.sqrt(10)
    found = bound_paired_difference(d, (part,), 0.95)
    assert float(found.mean) == pytest.approx(means.mean())
    assert float(found.low) == pytest.approx(expected), "symmetric blocks, so the skewness term is nothing"


def test_a_chance_of_disaster_widens_the_bound_and_its_mirror_does_not_tighten_it() -> None:
    d = np.ones(100)
    d[3] = -20
    parts = form_blocks(np.arange(100))
    disaster, mirror = bound_paired_difference(d, parts, 0.95), bound_paired_difference(-d, parts, 0.95)
    assert float(disaster.mean - disaster.low) > 1.2 * float(mirror.mean - mirror.low)


def test_long_runs_widen_the_bound() -> None:
    runs = np.repeat(np.sin(np.arange(30) / 4), 10)
    shuffled = np.random.default_rng(0).permutation(runs)
    bound, free = (
        bound_paired_difference(d, form_blocks(np.arange(300), np.arange(300)), 0.95) for d in (runs, shuffled)
    )
    assert float(bound.mean - bound.low) > 3 * float(free.mean - free.low)
    assert float(bound.independent) < MIN_BLOCKS < float(free.independent)


def test_the_mean_is_the_mean_over_rows_whatever_the_block_sizes() -> None:
    d, group = np.arange(50.0), np.repeat(np.arange(6), [1, 2, 3, 4, 10, 30])
    assert float(bound_paired_difference(d, form_blocks(np.arange(50), group=group), 0.95).mean) == pytest.approx(24.5)


# --- properties of verdicts


@given(SEEDS, KINDS, st.floats(-0.3, 0.3))
@settings(max_examples=60, deadline=None)
def test_two_models_are_never_both_superior(seed: int, kind: str, better: float) -> None:
    one = evidence(seed, better=better, kind=kind)
    other = replace(one, challenger=one.reference, reference=one.challenger)
    first, second = ask(one), ask(other)
    assert not (first.accepted and second.accepted)
    assert first.difference == pytest.approx(-(second.difference or 0))


@given(SEEDS, KINDS, st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int, kind: str, rule: ResolvedRule) -> None:
    one = evidence(seed, better=0.02, kind=kind, slices={"s": np.arange(400) % 3})
    order = np.random.default_rng(seed).permutation(400)

    def moved(x: Any) -> Any:
        return None if x is None else x[order]

    other = GateEvidence(
        moved(one.challenger), moved(one.reference), moved(one.keys), moved(one.time), moved(one.group),
        slices={"s": one.slices["s"][order]},
    )  # fmt: skip
    assert ask(one, rule).low == pytest.approx(ask(other, rule).low, abs=1e-9)
    assert [s.harmed for s in ask(one, rule).slices] == [s.harmed for s in ask(other, rule).slices]


@given(SEEDS, KINDS, st.sampled_from(RULES), st.floats(-0.05, 0.1), st.floats(0, 0.2))
@settings(max_examples=100, deadline=None)
def test_improving_every_row_never_turns_acceptance_into_refusal(
    seed: int, kind: str, rule: ResolvedRule, better: float, more: float
) -> None:
    before = evidence(seed, better=better, kind=kind)
    after = replace(before, challenger=before.challenger - more)
    assert ask(after, rule).accepted >= ask(before, rule).accepted
    assert (ask(after, rule).low or 0) == pytest.approx((ask(before, rule).low or 0) + more)


@given(SEEDS, KINDS, st.floats(0, 0.1), st.floats(0, 0.2))
@settings(max_examples=60, deadline=None)
def test_more_margin_and_less_confidence_accept_no_less(seed: int, kind: str, margin: float, more: float) -> None:
    one = evidence(seed, better=-0.02, kind=kind)
    assert ask(one, "not_worse", margin + more).accepted >= ask(one, "not_worse", margin).accepted
    assert judge_challenger(one, "superior", 0.8, 0).accepted >= judge_challenger(one, "superior", 0.95, 0).accepted


# --- verdicts


def test_a_clear_gain_is_accepted_and_said_in_numbers() -> None:
    verdict = ask(evidence(1, 1290, better=0.1, kind="time", loss="absolute error"))
    assert verdict.accepted
    assert (verdict.rows, verdict.blocks) == (1290, 10)
    assert verdict.reason.startswith("absolute error ")
    for part in ("against champion", "% better (95 % bound", "on 1,290 rows in 10 time blocks"):
        assert part in verdict.reason
    assert json.loads(json.dumps(verdict.to_json()))["difference"] == pytest.approx(verdict.difference)


@pytest.mark.parametrize("kind", ["row", "time", "group", "both"])
def test_equal_losses_are_not_superior_and_not_worse(kind: str) -> None:
    same = evidence(0, kind=kind)
    same = replace(same, challenger=same.reference.copy())
    assert not ask(same).accepted
    assert ask(same, "not_worse").accepted
    assert ask(same, "not_worse", margin=0.0).accepted


@pytest.mark.parametrize("rule", RULES)
def test_losses_of_zero_do_not_divide_by_zero(rule: ResolvedRule) -> None:
    nothing = GateEvidence(np.zeros(50), np.zeros(50), np.arange(50), np.arange(50))
    with np.errstate(all="raise"):
        assert ask(nothing, rule).accepted == (rule == "not_worse")


def test_the_same_model_is_not_worse_even_where_its_own_loss_is_unsteady() -> None:
    loss = np.exp(np.linspace(0, 8, 300))
    same = GateEvidence(loss, loss, np.arange(300), np.arange(300))
    assert float(bound_paired_difference(loss, form_blocks(same.keys, same.time), 0.95).low) < 0, (
        "its mean is not known to be above 0"
    )
    assert ask(same, "not_worse").accepted


def test_long_runs_and_few_points_in_time_are_said() -> None:
    loss = np.ones(300)
    runs = GateEvidence(loss - np.repeat(np.sin(np.arange(30) / 4), 10), loss, np.arange(300), np.arange(300))
    assert "because the difference comes in long runs" in ask(runs).reason
    assert "100 points in time" in ask(evidence(0, kind="time")).reason
    assert "points in time" not in ask(evidence(0, 1200, kind="time")).reason


def test_few_rows_in_time_are_judged_more_strictly_and_say_so() -> None:
    few, many = ask(evidence(0, 150, kind="time")), ask(evidence(0, 600, kind="time"))
    assert (few.confidence, many.confidence) == (pytest.approx(0.975), 0.95)
    assert "97.5 % bound" in few.reason
    assert "judged more strictly" in few.reason
    assert "more strictly" not in many.reason
    assert ask(evidence(0, 150)).confidence == 0.95, "rows without an order have no long runs"


def test_a_constant_gain_on_every_row_is_superior() -> None:
    one = evidence(0)
    assert ask(replace(one, challenger=one.reference - 0.01)).accepted


@pytest.mark.parametrize("worse", [0.005, 0.05])
def test_not_worse_draws_its_line_at_the_margin(worse: float) -> None:
    one = evidence(3, 4000)
    close = one.reference * np.random.default_rng(0).uniform(0.99, 1.01, 4000) * (1 + worse)
    assert ask(replace(one, challenger=close), "not_worse").accepted == (worse < 0.01)
    assert not ask(replace(one, challenger=close), "superior").accepted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["challenger", "reference"])
def test_losses_that_are_not_finite_are_an_error(bad: float, side: str) -> None:
    one = evidence(0, better=0.5)
    losses = getattr(one, side).copy()
    losses[7] = bad
    with pytest.raises(WindvaneError, match="1 of 400 losses of the"):
        ask(replace(one, **{side: losses}))


def test_arrays_of_different_length_are_an_error() -> None:
    with pytest.raises(WindvaneError, match="time has 3 rows"):
        ask(replace(evidence(0), time=np.arange(3)))


@pytest.mark.parametrize(
    ("n", "time"), [(0, None), (MIN_JUDGED_ROWS - 1, None), (400, np.arange(400) // 100), (400, np.zeros(400))]
)
def test_too_few_rows_or_blocks_is_a_verdict_of_its_own(n: int, time: Any) -> None:
    one = replace(evidence(0, n, better=0.9), time=time)
    verdict = ask(one)
    assert (verdict.accepted, verdict.too_few) == (False, True)
    assert verdict.reason.startswith("refused: too few common rows")
    assert "NaN" not in json.dumps(verdict.to_json())
    assert not ask(evidence(0, MIN_JUDGED_ROWS, better=0.9)).too_few


def test_without_a_champion_the_baseline_must_be_beaten_whatever_the_rule() -> None:
    same = evidence(0, champion=False)
    verdict = ask(replace(same, challenger=same.reference), "not_worse")
    assert (verdict.accepted, verdict.rule) == (False, "superior")
    assert "against baseline" in verdict.reason
    assert ask(evidence(0, better=0.2, champion=False), "not_worse").accepted


def test_auto_means_superior_after_a_search_and_not_worse_after_a_refit() -> None:
    assert [resolve_gate_rule("auto", d) for d in ("search", "refit")] == ["superior", "not_worse"]
    assert resolve_gate_rule("superior", "refit") == "superior"


# --- slices


def hidden_harm(column: Any, where: Any, **more: Any) -> GateEvidence:
    one = evidence(5, 3000, better=0.2, slices={"city": column}, **more)
    return replace(one, challenger=np.where(where, one.reference * 1.3, one.challenger))


def test_a_harmed_slice_refuses_though_the_whole_is_better() -> None:
    city = np.array(["north", "south", "west", None], dtype=object)[np.arange(3000) % 4]
    for name, value in (("west", "west"), ("missing", None)):
        given = hidden_harm(city, np.array([c == value for c in city]))
        verdict = ask(given)
        assert not verdict.accepted
        assert f"clearly worse where city is {name}" in verdict.reason
        assert [s.value for s in verdict.slices if s.harmed] == [name]
        assert ask(replace(given, slices={})).accepted


def test_numbers_are_sliced_at_quartiles() -> None:
    size = np.random.default_rng(0).normal(size=3000)
    verdict = ask(hidden_harm(size, size > np.quantile(size, 0.75)))
    assert not verdict.accepted
    assert [s.value.startswith("from ") and s.value.endswith(" up") for s in verdict.slices if s.harmed] == [True]
    assert [s.rows for s in verdict.slices] == [750] * 4


def test_rare_values_are_pooled_or_said_to_be_too_few() -> None:
    city = np.array(["common"] * 2900 + [f"rare{k}" for k in range(100)], dtype=object)
    verdict = ask(hidden_harm(city, np.char.startswith(city.astype(str), "rare")))
    assert [(s.value, s.rows, s.harmed) for s in verdict.slices] == [
        ("common", 2900, False),
        ("other values", 100, True),
    ]
    city[:-10] = "common"
    verdict = ask(hidden_harm(city, np.arange(3000) >= 2990))
    assert verdict.accepted
    assert "10 rows of rare values of city are too few to be judged apart" in verdict.reason


def test_without_a_champion_slices_only_report() -> None:
    digit = np.arange(3000) % 10
    verdict = ask(hidden_harm(digit.astype(str), digit == 1, champion=False))
    assert verdict.accepted
    assert [s.value for s in verdict.slices if s.harmed] == ["1"]


def test_equal_models_harm_no_slice_more_often_than_promised() -> None:
    many = {"s": np.arange(400) % 10}
    harmed = sum(any(s.harmed for s in ask(evidence(seed, slices=many), margin=0.0).slices) for seed in range(200))
    assert harmed <= 19, "binomial(200, 0.05) stays at or below 19 with probability 0.998"


# --- calibration, by the benchmark's own functions


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gate", ROOT / "benchmarks" / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rows", [0, 300])
@pytest.mark.parametrize("number", range(8))
def test_wrong_promotions_stay_below_alpha(bench: ModuleType, number: int, rows: int) -> None:
    world = bench.worlds()[number]
    line = bench.wrong(world, max(rows, world.sizes[0]), 400, np.random.default_rng(number))
    assert bench.breaches(line) == []
    assert line.same_naive.count > 140, "the simulation can tell a gate from none"


def test_the_simulation_catches_a_test_that_ignores_time(bench: ModuleType) -> None:
    world = next(w for w in bench.worlds() if w.name == "time, AR(1) 0.9")
    line = bench.wrong(world, 300, 400, np.random.default_rng(0))
    assert line.same_t.above(0.05)


def test_true_gains_are_promoted(bench: ModuleType) -> None:
    line = bench.power(bench.worlds()[0], 1000, 200, np.random.default_rng(0))
    assert line.by_10.count >= 190
    assert line.by_1.count < line.by_5.count


@pytest.mark.long
def test_the_benchmark_runs_as_named() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gate.py"), "--trials", "4", "--quick"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("### ") == 8


# --- the first champion


def accepted_first(draw: Any, model: Any, draws: int = 200, n: int = 1_500, timed: bool = False) -> int:
    """How many of so many draws the gate accepts as the first champion; `draw`, `model`: the dummy's losses, and the model's."""
    accepted = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        loss = draw(rng, 1, n)[0]
        time = np.arange(n) if timed else None
        given = GateEvidence(model(rng, loss), loss, np.arange(n), time, champion=False)
        accepted += ask(given).accepted
    return accepted


def test_e1_a_model_that_is_better_on_each_loss_serves_however_heavy_their_tail(bench: ModuleType) -> None:
    assert accepted_first(bench._spiked, lambda _, loss: 0.1 * loss) == 200


def test_e1_n1_gains_that_come_with_the_season_are_gains(bench: ModuleType) -> None:
    def better(rng: np.random.Generator, loss: Any) -> Any:
        return loss * 0.2 * rng.lognormal(-0.125, 0.5, len(loss))

    assert accepted_first(bench._seasonal, better, timed=True) >= 195


def test_e1_n2_a_table_that_is_mostly_zero_is_judged_by_what_is_not() -> None:
    def mostly_zero(rng: np.random.Generator, trials: int, n: int) -> Any:
        return np.where(rng.random((trials, n)) < 0.02, rng.lognormal(0, 2, (trials, n)), 0.0)

    assert accepted_first(mostly_zero, lambda _, loss: 0.1 * loss) >= 198


def test_e1_n3_a_model_that_is_ruinous_on_some_rows_is_refused_as_before(bench: ModuleType) -> None:
    """As bad as the dummy on average, better on 95 rows of 100: a sign or rank test would take it."""

    def ruinous(rng: np.random.Generator, loss: Any) -> Any:
        return loss * np.where(rng.random(len(loss)) < 0.05, 1 + 0.5 * 0.95 / 0.05, 0.5)

    assert accepted_first(lambda rng, _, n: np.abs(rng.standard_normal((1, n))), ruinous) <= 19


def test_e1_the_comparison_with_a_champion_is_as_it_was(bench: ModuleType) -> None:
    loss = bench._spiked(np.random.default_rng(3), 1, 1_500)[0]
    found = [
        judge_challenger(GateEvidence(0.1 * loss, loss, np.arange(1_500), champion=champion), "superior", 0.95, 0.0)
        for champion in (True, False)
    ]
    (row,) = form_blocks(np.arange(1_500))
    assert found[0].low == float(bound_paired_difference(0.9 * loss, (row,), 0.95).low)
    assert found[1].low is not None
    assert found[1].low >= found[0].low


def test_d6_rows_that_share_a_model_are_one_block() -> None:
    fold = np.arange(150) % 6
    given = replace(evidence(0, n=150, better=0.5), fold=fold, champion=False)
    verdict = ask(given)
    assert verdict.accepted
    assert verdict.blocks == 6
    assert "6 fold blocks" in verdict.reason
    assert not ask(replace(given, fold=np.arange(150) % 4)).accepted
