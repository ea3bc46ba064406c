"""Wait, retrain, stop or roll back: what each policy makes of what was seen, and what forbids another lap."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from windvane.ledger.decisions import ACKNOWLEDGED_NOTE
from windvane.monitoring.policy.decision import compute_staleness, decide_action
from windvane.monitoring.records import (
    ChangeDiagnosis,
    DecisionHistory,
    DecisionLimits,
    DriftFinding,
    DriftResult,
    PastDecision,
    PerformanceResult,
    ProbationResult,
    WindowAssessment,
    WindowExtent,
)
from windvane.tasks.settings.monitoring_section import LapBudget

NOW = "2026-06-01T00:00:00.000000+00:00"


def month(n: int) -> str:
    return f"2026-{n:02d}-01T00:00:00.000000+00:00"


def quality(
    excess: float | None, spread: float = 0.02, estimated: bool = False, known: str | None = None
) -> PerformanceResult:
    """Loss 1 + excess against 1; `spread` is a standard error."""
    if excess is None:
        return PerformanceResult(None, 1.0, None, None, 0, estimated, "no labels", None)
    width = 1.959964 * spread
    return PerformanceResult(1 + excess, 1.0, excess - width, excess + width, 100, estimated, "labels", known)


def look(
    excess: float | None = 0.0,
    at: int = 5,
    *,
    alarm: bool = False,
    change: Any = "none",
    remedy: Any = "wait",
    estimate: PerformanceResult | None = None,
    rows: int = 100,
    closed: bool = True,
    spread: float = 0.02,
    columns: tuple[str, ...] = ("size",),
    few: bool = False,
    known: str | None = None,
    sure: float = 0.9,
) -> WindowAssessment:
    findings = tuple(DriftFinding(c, "numbers", 5.0 if alarm else 0.5, 3.0, alarm, "moved") for c in columns)
    drift = DriftResult(alarm, None if few else 5.0, None if few else 3.0, 0.5, 0.01, findings, 1000, rows)
    return WindowAssessment(
        1,
        WindowExtent(month(at), month(at + 1), rows, 0 if excess is None else rows, closed),
        drift,
        quality(excess, spread, known=known),
        estimate,
        ChangeDiagnosis(change, sure, columns if change != "none" else (), "its mean moved", remedy),
    )


def made(action: str = "retrain", state: str = "done", at: str = NOW, **more: Any) -> PastDecision:
    return PastDecision(action, at, state, **{"version": 1, **more})


LIMITS = DecisionLimits(policy="staleness", budget=LapBudget(4, timedelta(days=30)))


def test_nothing_moved_and_nothing_lost_waits() -> None:
    said = decide_action(look(), DecisionHistory(), LIMITS, NOW)
    assert (said.action, said.depth, said.cost) == ("wait", None, 0.5)
    assert "nothing moved" in said.reason


def test_staleness_adds_up_signed_over_windows_until_a_lap_is_worth_it() -> None:
    earlier = tuple(look(0.2, n) for n in (2, 3))
    assert decide_action(look(0.05, 4), DecisionHistory(earlier), LIMITS, NOW).action == "wait"
    said = decide_action(look(0.2, 4), DecisionHistory(earlier), LIMITS, NOW)
    assert (said.action, said.depth, said.remedy) == ("retrain", "refit", "refit")
    assert said.gain == pytest.approx(0.4)
    assert "+0.60 mean losses" in said.reason
    assert "since 2026-02-01" in said.reason


SURE = {"change": "broken data", "remedy": "person", "sure": 0.98}


@pytest.mark.parametrize("policy", ["staleness", "regret", "performance", "drift", "schedule", "never"])
def test_f1_data_that_are_surely_broken_stop_training_beside_a_quiet_alarm(policy: Any) -> None:
    said = decide_action(look(0.9, **SURE), DecisionHistory(), replace(LIMITS, policy=policy), NOW)
    assert (said.action, said.remedy) == ("stop", "person")
    assert "98% sure" in said.reason
    assert "--acknowledge" in said.reason


def test_f1_n1_a_lap_that_a_policy_wants_on_data_called_broken_is_a_stop_however_sure() -> None:
    unsure = look(0.9, change="broken data", remedy="person", sure=0.6)
    for policy in ("staleness", "performance", "schedule"):
        said = decide_action(unsure, DecisionHistory(), replace(LIMITS, policy=policy), NOW)
        assert said.action == "stop"
        assert "60% sure" in said.reason
        assert "Otherwise: " in said.reason
    assert decide_action(unsure, DecisionHistory(), replace(LIMITS, policy="never"), NOW).action == "wait"
    accepted = DecisionHistory(made=(made("stop", columns=("size",), note=ACKNOWLEDGED_NOTE, at=month(1)),))
    assert decide_action(unsure, accepted, LIMITS, NOW).action == "retrain"


def test_f1_n2_the_loss_of_broken_windows_is_not_the_champions_age() -> None:
    broken = tuple(look(2.0, n, **SURE) for n in (2, 3))
    fixed = decide_action(look(0.1, 4), DecisionHistory(broken), LIMITS, NOW)
    assert fixed.action == "wait"
    assert "+0.10 mean losses" in fixed.reason
    accepted = made("stop", columns=("size",), note=ACKNOWLEDGED_NOTE, at=month(1))
    assert decide_action(look(0.1, 4), DecisionHistory(broken, (accepted,)), LIMITS, NOW).action == "retrain"


def test_f3_a_champion_that_was_better_than_its_record_has_no_credit() -> None:
    better = tuple(look(-0.5, n) for n in (1, 2, 3))
    said = decide_action(look(0.8, 4), DecisionHistory(better), LIMITS, NOW)
    assert said.action == "retrain"
    assert "in 1 window since 2026-04-01" in said.reason
    assert "+0.80 mean losses" in said.reason


def test_f3_n1_the_sum_begins_where_it_is_largest() -> None:
    looks = tuple(look(x, n) for n, x in enumerate((0.4, -0.9, 0.3, -0.1, 0.4), 1))
    found = compute_staleness(looks, DecisionHistory(), LIMITS, NOW)
    assert found.total == pytest.approx(0.6)
    assert (found.windows, found.known, found.since) == (3, 5, month(3))


def test_f3_n2_a_champion_that_keeps_its_record_has_cost_nothing() -> None:
    looks = tuple(look(-0.2, n) for n in (1, 2, 3))
    found = compute_staleness(looks, DecisionHistory(), LIMITS, NOW)
    assert found.total == 0
    assert "+0.00 mean losses" in decide_action(looks[-1], DecisionHistory(looks[:-1]), LIMITS, NOW).reason


def test_f3_n3_windows_that_were_left_out_of_the_sum_still_count_as_tries() -> None:
    """The start was chosen among all windows: being sure of it takes as much as before."""
    earlier = tuple(look(-0.1, n, spread=0.25) for n in range(1, 4))
    assert decide_action(look(0.6, 4, spread=0.25), DecisionHistory(), LIMITS, NOW).action == "retrain"
    said = decide_action(look(0.6, 4, spread=0.25), DecisionHistory(earlier), LIMITS, NOW)
    assert said.action == "wait"
    assert "chance" in said.reason


SHORT = (
    "cannot tell a season from drift: temp moved, and the history before the window (40 days) is shorter than a year"
)


@pytest.mark.parametrize("policy", ["staleness", "performance", "drift", "never"])
def test_f2_a_history_too_short_for_seasons_is_no_window_in_which_nothing_moved(policy: Any) -> None:
    check = look(0.1)
    check = replace(check, drift=replace(check.drift, undecided=SHORT))
    said = decide_action(check, DecisionHistory(), replace(LIMITS, policy=policy), NOW)
    assert SHORT in said.reason
    assert "nothing moved" not in said.reason


@pytest.mark.parametrize("policy", ["staleness", "performance", "drift", "never"])
def test_f2_n1_without_labels_it_is_said_what_cannot_be_seen(policy: Any) -> None:
    said = decide_action(look(None), DecisionHistory(), replace(LIMITS, policy=policy), NOW)
    assert said.action == "wait"
    assert "without labels a concept drift cannot be seen" in said.reason
    assert "nothing moved" not in said.reason
    if policy in ("staleness", "performance"):
        assert "`windvane labels`" in said.reason, "what would decide"


def test_what_may_be_chance_is_not_acted_on() -> None:
    said = decide_action(look(0.6, spread=0.4), DecisionHistory(), LIMITS, NOW)
    assert said.action == "wait"
    assert "chance" in said.reason
    assert decide_action(look(0.6, spread=0.1), DecisionHistory(), LIMITS, NOW).action == "retrain"


def test_a_window_of_which_little_is_known_hides_no_other() -> None:
    """A change in mid-window makes that one's interval wide; the next, all of it dear, is sure by itself."""
    vague = look(1.0, 3, spread=5.6)
    assert decide_action(vague, DecisionHistory((look(0.0, 2),)), LIMITS, NOW).action == "wait"
    said = decide_action(look(8.0, 4, spread=0.2), DecisionHistory((look(0.0, 2), vague)), LIMITS, NOW)
    assert said.action == "retrain"
    assert "+9.00 mean losses" in said.reason


def test_many_windows_must_be_surer_than_one() -> None:
    earlier = tuple(look(0.0, n, spread=0.25) for n in range(1, 4))
    assert decide_action(look(0.6, 4, spread=0.25), DecisionHistory(), LIMITS, NOW).action == "retrain"
    assert decide_action(look(0.6, 4, spread=0.25), DecisionHistory(earlier), LIMITS, NOW).action == "wait"


def test_the_references_own_error_adds_up_over_windows_a_windows_own_evens_out() -> None:
    looks = tuple(look(0.1, n, spread=0.05) for n in range(1, 5))
    alone = compute_staleness(looks, DecisionHistory(), LIMITS, NOW)
    shared = compute_staleness(looks, DecisionHistory(reference_error=0.05), LIMITS, NOW)
    assert alone.error == pytest.approx(0.1, rel=1e-3)
    assert shared.error == pytest.approx(0.2, rel=1e-3)
    assert alone.total == shared.total == pytest.approx(0.4)


def test_a_window_without_an_interval_is_as_sure_as_windows_are_in_the_record_or_among_themselves() -> None:
    def without(one: WindowAssessment) -> WindowAssessment:
        return replace(one, quality=replace(one.quality, low=None, high=None))

    looks = tuple(without(look(x, n)) for n, x in enumerate((0.3, 0.2, 0.4), 1))
    assert compute_staleness(looks[:2], DecisionHistory(), LIMITS, NOW).error == float("inf")
    assert compute_staleness(looks[:2], DecisionHistory(window_error=0.2), LIMITS, NOW).error == pytest.approx(
        0.2 * 2**0.5
    )
    assert compute_staleness(looks, DecisionHistory(), LIMITS, NOW).error == pytest.approx(0.1 * 3**0.5)


def test_what_may_be_broken_beside_no_alarm_stops_nobody_while_no_lap_is_wanted() -> None:
    assert decide_action(look(change="broken data", remedy="person"), DecisionHistory(), LIMITS, NOW).action == "wait"


def test_a_window_counts_by_its_size_and_an_open_one_only_where_a_usual_one_is_known() -> None:
    half = look(0.8, rows=50, closed=False)
    assert compute_staleness((half,), DecisionHistory(), LIMITS, NOW).windows == 0
    assert compute_staleness((half,), DecisionHistory(usual_rows=100), LIMITS, NOW).total == pytest.approx(0.4)
    assert (
        compute_staleness(
            (replace(half, stretch=replace(half.stretch, closed=True)),), DecisionHistory(), LIMITS, NOW
        ).total
        == 0.8
    )


def test_without_labels_the_estimate_counts_only_where_the_alarm_confirms_it() -> None:
    guess = quality(0.9, 0.1, estimated=True)
    confirmed = decide_action(look(None, alarm=True, estimate=guess), DecisionHistory(), LIMITS, NOW)
    assert confirmed.action == "retrain"
    assert "estimated without labels" in confirmed.reason
    alone = decide_action(look(None, estimate=guess), DecisionHistory(), LIMITS, NOW)
    assert alone.action == "wait"
    assert "labels have not come" in alone.reason


@pytest.mark.parametrize("estimate", [None, quality(0.1, 0.05, estimated=True)])
def test_an_alarm_without_labels_waits_for_a_reason_that_is_named(estimate: PerformanceResult | None) -> None:
    said = decide_action(
        look(None, alarm=True, change="data drift", remedy="refit", estimate=estimate), DecisionHistory(), LIMITS, NOW
    )
    assert said.action == "wait"
    assert "data drift in size" in said.reason
    assert ("cannot be estimated" if estimate is None else "a lap costs 0.5") in said.reason


def test_windows_younger_than_the_label_delay_count_as_unlabelled() -> None:
    slow = replace(LIMITS, label_delay=timedelta(days=40))
    young = decide_action(look(0.9), DecisionHistory(), slow, NOW)
    assert young.action == "wait"
    assert "label_delay" in young.reason
    assert decide_action(look(0.9), DecisionHistory(), slow, "2026-07-20T00:00:00.000000+00:00").action == "retrain"


def test_a_decision_says_up_to_when_labels_were_known() -> None:
    earlier = (look(0.1, 2, known="2026-05-03"), look(0.1, 3, known="2026-05-20"))
    assert (
        decide_action(look(0.0, 4, known="2026-05-11"), DecisionHistory(earlier), LIMITS, NOW).known_until
        == "2026-05-20"
    )
    assert decide_action(look(None), DecisionHistory(), LIMITS, NOW).known_until is None


def test_performance_asks_for_a_drop_that_is_no_chance() -> None:
    limits = replace(LIMITS, policy="performance")
    assert decide_action(look(0.1, spread=0.02), DecisionHistory(), limits, NOW).action == "retrain"
    assert "within chance" in decide_action(look(0.1, spread=0.08), DecisionHistory(), limits, NOW).reason
    assert decide_action(look(None, alarm=True), DecisionHistory(), limits, NOW).action == "wait"


def test_drift_asks_for_the_alarm_and_waits_for_a_state_that_is_known() -> None:
    limits = replace(LIMITS, policy="drift")
    assert decide_action(look(), DecisionHistory(), limits, NOW).action == "wait"
    assert decide_action(look(alarm=True, remedy="refit"), DecisionHistory(), limits, NOW).action == "retrain"
    assert (
        decide_action(look(alarm=True, change="seasonal return", remedy="wait"), DecisionHistory(), limits, NOW).action
        == "wait"
    )


def test_schedule_teaches_after_each_window_unless_a_cron_does_and_never_never() -> None:
    limits = replace(LIMITS, policy="schedule")
    assert decide_action(look(), DecisionHistory(), limits, NOW).action == "retrain"
    assert decide_action(look(closed=False), DecisionHistory(), limits, NOW).action == "wait"
    assert decide_action(look(), DecisionHistory(), replace(limits, scheduled=True), NOW).action == "wait"
    assert (
        decide_action(look(0.9, alarm=True), DecisionHistory(), replace(limits, policy="never"), NOW).action == "wait"
    )


@pytest.mark.parametrize(("remedy", "how"), [("search", ("search", "search")), ("labels", ("refit", "labels"))])
def test_the_depth_follows_the_diagnosis(remedy: str, how: tuple[str, str]) -> None:
    said = decide_action(look(0.9, alarm=True, change="concept drift", remedy=remedy), DecisionHistory(), LIMITS, NOW)
    assert (said.action, said.depth, said.remedy) == ("retrain", *how)


@pytest.mark.parametrize("policy", ["staleness", "regret", "performance", "drift", "schedule", "never"])
def test_broken_data_stop_everything_until_mended_or_acknowledged(policy: Any) -> None:
    limits = replace(LIMITS, policy=policy)
    broken = look(0.9, alarm=True, change="broken data", remedy="person")
    said = decide_action(broken, DecisionHistory(), limits, NOW)
    assert (said.action, said.remedy) == ("stop", "person")
    assert "--acknowledge" in said.reason
    known = DecisionHistory(made=(made("stop", columns=("size",), note=ACKNOWLEDGED_NOTE, at=month(1)),))
    assert decide_action(broken, known, limits, NOW).action != "stop"
    other = look(0.9, alarm=True, change="broken data", remedy="person", columns=("town",))
    assert decide_action(other, known, limits, NOW).action == "stop"


def test_a_stop_holds_while_too_few_rows_have_come_to_say_more() -> None:
    stopped = DecisionHistory(made=(made("stop", "told", at=month(4)),))
    assert "seemed broken" in decide_action(look(0.9, few=True), stopped, LIMITS, NOW).reason
    assert decide_action(look(0.9), stopped, LIMITS, NOW).action == "retrain"  # fixed


def test_a_champion_that_fails_its_probation_is_rolled_back_whatever_the_policy() -> None:
    worse = ProbationResult(against=3, rows=400, excess=0.2, low=0.05, how="on the same inputs")
    said = decide_action(look(), DecisionHistory(probation=worse), replace(LIMITS, policy="never"), NOW)
    assert said.action == "rollback"
    assert "20% more than version 3" in said.reason
    for unproven in (replace(worse, low=-0.01), replace(worse, low=None, excess=None)):
        assert decide_action(look(), DecisionHistory(probation=unproven), LIMITS, NOW).action == "wait"


FORBIDDEN = {
    "under way": DecisionHistory(made=(made(state="claimed", at=month(1)),)),
    "cool-down": DecisionHistory(made=(made(at="2026-05-31T12:00:00.000000+00:00"),)),
    "cool-down: ": DecisionHistory(made=(made("rollback", at="2026-05-31T12:00:00.000000+00:00"),)),
    "budget": DecisionHistory(made=tuple(made(at=f"2026-05-{d:02d}T00:00:00.000000+00:00") for d in (10, 12, 14, 16))),
    "nothing new to learn from": DecisionHistory(
        made=(made(state="skipped", note="no new rows", at=month(1)),), new_rows=False
    ),
}


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_what_forbids_a_lap_is_named_beside_what_asks_for_it(reason: str) -> None:
    said = decide_action(look(0.9), FORBIDDEN[reason], LIMITS, NOW)
    assert said.action == "wait"
    assert reason in said.reason
    assert "Otherwise: in 1 window" in said.reason


def test_skipped_laps_cost_neither_budget_nor_rest() -> None:
    skipped = tuple(made(state="skipped", at=f"2026-05-{d:02d}T00:00:00.000000+00:00") for d in (10, 12, 14, 31))
    assert decide_action(look(0.9), DecisionHistory(made=skipped), LIMITS, NOW).action == "retrain"


@pytest.mark.parametrize(("refused", "pause"), [(1, 1), (2, 2), (3, 4), (4, 8), (6, 8)])
def test_each_refused_lap_doubles_the_windows_until_the_next(refused: int, pause: int) -> None:
    laps = tuple(made(at=month(1)) for _ in range(refused))
    for windows in range(1, pause + 2):
        seen = tuple(look(0.9, 1, closed=True) for _ in range(windows - 1))
        said = decide_action(look(0.9, 1), DecisionHistory(seen, laps), LIMITS, NOW)
        assert said.action == ("wait" if windows < pause else "retrain")
        assert (f"refused {refused} laps" in said.reason) == (windows < pause)


def test_laps_of_another_champion_ask_for_no_pause() -> None:
    laps = tuple(made(at=month(1), version=7) for _ in range(5))
    assert decide_action(look(0.9, 1), DecisionHistory(made=laps), LIMITS, NOW).action == "retrain"


def test_the_same_evidence_gives_the_same_decision() -> None:
    one = decide_action(look(0.9, alarm=True), DecisionHistory((look(0.2, 3),)), LIMITS, NOW)
    assert one == decide_action(look(0.9, alarm=True), DecisionHistory((look(0.2, 3),)), LIMITS, NOW)


def test_too_few_rows_is_an_answer() -> None:
    assert "too few rows" in decide_action(look(None, few=True, rows=3), DecisionHistory(), LIMITS, NOW).reason


def test_a_decision_needs_no_heavy_import() -> None:
    import subprocess
    import sys

    rooms = "windvane.monitoring.policy.decision"
    code = f"import {rooms}, sys; print([m for m in ('pandas', 'numpy', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['sqlalchemy']")  # ledger's text of moments comes from beside its store


def test_an_assessment_comes_back_from_json_as_it_was() -> None:
    one = look(0.9, alarm=True)
    found = DriftFinding("size", "numbers", 5.0, 4.0, True, "moved")
    one = replace(one, drift=replace(one.drift, findings=(found,)))
    for seen in (one, replace(one, estimate=replace(one.quality, estimated=True))):
        assert WindowAssessment.from_json(json.loads(json.dumps({**seen.to_json(), "state": None}))) == seen
