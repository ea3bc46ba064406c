"""Wait, retrain, stop or roll back: a pure function of what was found, of what was done before, and of the limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf, isfinite, sqrt
from statistics import NormalDist, stdev

from windvane.ledger.decisions import ACKNOWLEDGED_NOTE, OPEN_DECISION_STATES
from windvane.monitoring.records import (
    LABELS_WOULD_DECIDE,
    Decision,
    DecisionHistory,
    DecisionLimits,
    LapDepth,
    PastDecision,
    PerformanceResult,
    PolicyAdvice,
    ProbationResult,
    Remedy,
    WindowAssessment,
)

# A diagnosis as sure as this stops training beside a quiet drift alarm too; nothing is called broken where drift's p is above 5 %.
# How often unchanged windows stop so: benchmarks/diagnosis.py --unchanged.
STOP_CERTAINTY = 0.95
# Windows between two laps, however often the gate has refused: a shift that comes meanwhile must not wait for ever.
_MAX_PAUSE_WINDOWS = 8


def decide_action(check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str) -> Decision:
    """What to do after a check, and why. `now`: the present in the events' own time, ledger text.

    Broken data comes first, then a champion that fails its probation, then the policy, then what forbids another lap.
    """
    known = [one.quality.known_until for one in (*history.assessments, check) if one.quality.known_until is not None]
    decision = (
        _stop_on_broken_data(check, history)
        or _roll_back_failed_probation(history.probation)
        or _apply_policy(check, history, limits, now)
    )
    if decision.action == "retrain":
        # What a lap would train on: a person decides, however sure the diagnosis is. The policy keeps its promise of false alarms.
        if is_called_broken(check, history):
            decision = _make_stop(check, f". Otherwise: {decision.reason}")
        elif (forbidden := _find_obstacle(check, history, limits, now)) is not None:
            decision = replace(decision, action="wait", reason=f"{forbidden}. Otherwise: {decision.reason}")
    return replace(decision, cost=limits.cost, known_until=max(known, default=None))


def is_called_broken(check: WindowAssessment, history: DecisionHistory) -> bool:
    """Whether the diagnosis calls the window's data broken, and no person has accepted those columns."""
    accepted = {
        column
        for one in history.made
        if one.action == "stop" and one.version == check.version and one.note == ACKNOWLEDGED_NOTE
        for column in one.columns
    }
    columns = set(check.diagnosis.columns)
    return check.diagnosis.change == "broken data" and not (columns and columns <= accepted)


def _is_surely_broken(check: WindowAssessment, history: DecisionHistory) -> bool:
    """The same, at a certainty that keeps the promise of false alarms: with drift's alarm, or by the diagnosis alone."""
    return (bool(check.drift.alarm) or check.diagnosis.sure >= STOP_CERTAINTY) and is_called_broken(check, history)


def _stop_on_broken_data(check: WindowAssessment, history: DecisionHistory) -> Decision | None:
    if _is_surely_broken(check, history):
        return _make_stop(check)
    stopped = [
        one
        for one in history.made
        if one.action == "stop" and one.version == check.version and one.state in OPEN_DECISION_STATES
    ]
    if stopped and check.drift.statistic is None:
        since = "too few rows have come since to decide" if check.drift.alarm is not None else str(check.drift.note)
        return Decision("wait", f"the data seemed broken {stopped[-1].at[:10]}, and {since}")
    return None


def _make_stop(check: WindowAssessment, more: str = "") -> Decision:
    diagnosis = check.diagnosis
    until = "No training on them until that is fixed, or accepted with `windvane monitor --acknowledge`"
    return Decision(
        "stop", f"the data seem broken ({diagnosis.sure:.0%} sure): {diagnosis.why}. {until}{more}", remedy="person"
    )


def _roll_back_failed_probation(probation: ProbationResult | None) -> Decision | None:
    if probation is None or probation.low is None or probation.low <= 0:
        return None
    assert probation.excess is not None
    return Decision(
        "rollback",
        f"in its probation it costs {probation.excess:.0%} more than version {probation.against} would have "
        f"({probation.how}, {probation.rows:,} labelled rows; at least {probation.low:.1%})",
    )


def _apply_policy(check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str) -> Decision:
    """What the policy wants, whatever forbids it."""
    if limits.policy == "never":
        return Decision("wait", f"retrain.policy is never; {_summarize_findings(check)}")
    if limits.policy == "schedule":
        return _decide_by_schedule(check, limits)
    if limits.policy == "regret":
        return _decide_by_regret(check, history, limits, now)
    if check.drift.alarm is None and (limits.policy == "drift" or check.quality.loss is None):
        return Decision("wait", _summarize_findings(check))
    if check.drift.statistic is None and check.quality.loss is None:
        few = f"{check.stretch.rows} rows, {check.stretch.labelled_text} of them labelled"
        return Decision("wait", f"too few rows to decide: {few}")
    decide = _decide_by_staleness if limits.policy == "staleness" else _decide_by_performance
    return _decide_by_drift(check) if limits.policy == "drift" else decide(check, history, limits, now)


def _decide_by_schedule(check: WindowAssessment, limits: DecisionLimits) -> Decision:
    if limits.scheduled:
        return Decision("wait", f"retrain.policy is schedule: schedule.train starts laps; {_summarize_findings(check)}")
    if not check.stretch.closed:
        return Decision("wait", "retrain.policy is schedule: the window is not over yet")
    reason = f"retrain.policy is schedule: a window is over; {_summarize_findings(check)}"
    return Decision("retrain", reason, *_choose_depth(check))


def _decide_by_regret(check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str) -> Decision:
    """What challengers show. It rests on windows that are over, so that few rows in the newest do not matter.

    Windows whose labels never came show nothing: of them `staleness` decides, which estimates without labels.
    """
    advice = history.advice or PolicyAdvice(False, "regret needs problem.time", blind_since="")
    if not advice.retrain and advice.blind_since is not None:
        blind = tuple(one for one in history.assessments if one.stretch.start >= advice.blind_since)
        missing = f"no labels to learn from since {advice.blind_since[:10]}" if advice.blind_since else advice.reason
        found = _apply_policy(check, replace(history, assessments=blind), replace(limits, policy="staleness"), now)
        return replace(found, reason=f"{missing}, so staleness decides: {found.reason}")
    if not advice.retrain:
        return Decision("wait", f"{_summarize_findings(check)}; {advice.reason}", gain=advice.gain)
    return Decision(
        "retrain", f"{advice.reason}; {_summarize_findings(check)}", *_choose_depth(check), gain=advice.gain
    )


def _decide_by_staleness(
    check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str
) -> Decision:
    found = compute_staleness((*history.assessments, check), history, limits, now)
    gain = found.pace * max(limits.probation, 1)  # of the windows that a new champion is judged on
    if not found.windows:
        return Decision("wait", f"{_summarize_findings(check)}, but {_explain_missing_performance(check, limits)}")
    without = f", {found.estimated} of them estimated without labels and confirmed by the drift alarm"
    reason = (
        f"in {found.windows} window{'s' * (found.windows > 1)} since {found.since[:10]}{without * (found.estimated > 0)} the "
        f"champion has cost {found.total:+.2f} mean losses of a window beyond its own record (a lap costs {limits.cost:g})"
    )
    if found.total <= limits.cost:
        missing = select_usable_performance(check, limits, now) is None
        more = f"; {_explain_missing_performance(check, limits)}" if missing else ""
        return Decision("wait", f"{_summarize_findings(check)}, but {reason}{more}", gain=gain)
    # Of as many sums as there are windows the largest counts: each gets its share of the level (Bonferroni).
    if found.z_score <= NormalDist().inv_cdf(1 - limits.false_alarms / found.known):
        return Decision("wait", f"{reason}, which may still be chance (standard error {found.error:.2f})", gain=gain)
    return Decision("retrain", f"{reason}; {_summarize_findings(check)}", *_choose_depth(check), gain=gain)


def _decide_by_performance(
    check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str
) -> Decision:
    quality = check.quality
    if quality.loss is None or select_usable_performance(check, limits, now) is not quality or quality.excess is None:
        return Decision("wait", f"{_summarize_findings(check)}, but {_explain_missing_performance(check, limits)}")
    share, error = quality.excess / quality.reference, compute_standard_error(quality, history) / quality.reference
    reason = f"the loss is {share:+.1%} against the champion's own record on {quality.rows:,} labelled rows"
    gain = share * compute_window_share(check, history.usual_rows) * max(limits.probation, 1)
    if share <= NormalDist().inv_cdf(1 - limits.false_alarms) * error:
        return Decision("wait", f"{reason}, which is within chance; {_summarize_findings(check)}", gain=gain)
    return Decision("retrain", f"{reason}; {_summarize_findings(check)}", *_choose_depth(check), gain=gain)


def _decide_by_drift(check: WindowAssessment) -> Decision:
    if not check.drift.alarm:
        return Decision("wait", _summarize_findings(check))
    if check.diagnosis.remedy == "wait":
        return Decision("wait", f"{_summarize_findings(check)}: {check.diagnosis.why}")
    return Decision("retrain", _summarize_findings(check), *_choose_depth(check))


def _find_obstacle(check: WindowAssessment, history: DecisionHistory, limits: DecisionLimits, now: str) -> str | None:
    """Why there may be no lap now, or None."""
    laps = [one for one in history.made if one.action == "retrain"]
    if any(one.state in OPEN_DECISION_STATES for one in laps):
        return f"a retraining decided {laps[-1].at[:16]}Z is under way"
    if history.new_rows is False:
        return f"nothing new to learn from since the last lap ({laps[-1].note if laps else 'skipped: no new rows'})"
    done = [one.at for one in history.made if one.action in ("retrain", "rollback") and one.state != "skipped"]
    if done and _measure_span(max(done), now) < limits.cooldown:
        return f"cool-down: the last retraining was decided {max(done)[:16]}Z (retrain.cooldown)"
    if limits.budget is not None:
        counted = [one.at for one in laps if one.state != "skipped"]
        spent = [at for at in counted if _measure_span(at, now) < limits.budget.span]
        if len(spent) >= limits.budget.laps:
            return f"budget: {len(spent)} retrainings since {min(spent)[:10]} (retrain.budget)"
    return _find_refusal_pause(check, history, laps)


def _find_refusal_pause(check: WindowAssessment, history: DecisionHistory, laps: list[PastDecision]) -> str | None:
    """Each lap that the gate refuses doubles the windows until the next: hardly more rows would be judged again, and refused again,
    or pass at last because they were tried so often (exponential back-off).
    """
    # The champion is the same as before: a lap that finished was refused.
    refused = [one.at for one in laps if one.state == "done" and one.version == check.version]
    if len(refused) < 2:
        return None
    pause = min(2 ** (len(refused) - 1), _MAX_PAUSE_WINDOWS)
    since = sum(seen.stretch.end > refused[-1] for seen in (*history.assessments, check))
    if since >= pause:
        return None
    return (
        f"the gate has refused {len(refused)} laps of this champion's, the last on {refused[-1][:10]}: the next comes "
        f"{pause} windows after it"
    )


def _summarize_findings(check: WindowAssessment) -> str:
    """What the check found, in a few words."""
    drift, diagnosis = check.drift, check.diagnosis
    if drift.statistic is None:
        return drift.note or "too few rows to look for drift"
    if not drift.alarm:
        if diagnosis.change != "none":
            return f"{diagnosis.change}: {diagnosis.why}"
        blind = "no input moved, and without labels a concept drift cannot be seen"
        return drift.unknown or (blind if check.quality.loss is None else "nothing moved")
    names = ", ".join(drift.columns[:3]) + (f" and {len(drift.columns) - 3} more" if len(drift.columns) > 3 else "")
    kind = "drift" if diagnosis.change == "none" else diagnosis.change
    text = f"{kind} in {names}" if names else kind
    return text if drift.undecided is None else f"{text}; {drift.undecided}"


def _explain_missing_performance(check: WindowAssessment, limits: DecisionLimits) -> str:
    """Why the window's quality does not count."""
    if check.quality.loss is not None:
        return f"its labels may still be incomplete (monitor.label_delay {limits.label_delay})"
    missing, estimate = "its labels have not come", check.estimate
    if check.stretch.labelled:
        missing = f"only {check.stretch.labelled_text} rows are labelled"
    if estimate is None or estimate.loss is None:
        missing += ", and without them quality cannot be estimated" + (f" ({estimate.how})" if estimate else "")
    elif not check.drift.alarm:
        missing += ", and no drift alarm confirms an estimate"
    return f"{missing}: {LABELS_WOULD_DECIDE}"


def _choose_depth(check: WindowAssessment) -> tuple[LapDepth, Remedy]:
    remedy = check.diagnosis.remedy
    return ("search", "search") if remedy == "search" else ("refit", "labels" if remedy == "labels" else "refit")


# Quality's interval is one of 95 %.
_INTERVAL_STANDARD_ERRORS = 2 * NormalDist().inv_cdf(0.975)
# A window's weight, its excess loss and that one's error as shares of the reference, whether estimated, and its start.
_CountedWindow = tuple[float, float, float, bool, str]
# From so many windows on, their spread shows how sure a mean of them is.
_MIN_SPREAD_WINDOWS = 3
# Windows whose mean estimates the next ones' cost.
_RECENT_WINDOWS = 3


@dataclass(frozen=True)
class Staleness:
    """Accumulated excess loss over the champion's own record, and its standard error, in mean losses of one window.

    total: a sum of signed excesses that never falls below zero; windows: how many it is of, of which so many are `estimated`, without
    labels; since: the start of the first. z_score: how sure it is that the newest windows, or more of them, cost too much: the largest
    sum from any window to the last in its own standard errors. pace: the excess of one window lately. known: all windows that count.
    """

    total: float
    error: float
    z_score: float
    pace: float
    windows: int
    estimated: int
    since: str
    known: int


def compute_staleness(
    checks: tuple[WindowAssessment, ...], history: DecisionHistory, limits: DecisionLimits, now: str
) -> Staleness:
    """What the champion has cost since it began to serve, beyond what it promised on its own held-out rows.

    A window counts by its labels, where these have had their time to come; else by the estimate, if the drift alarm confirms it.
    One whose data are surely broken counts for nothing: its loss is not the champion's age.
    """
    counted: list[_CountedWindow] = []
    for check in checks:
        if _is_surely_broken(check, history):
            continue
        quality = select_usable_performance(check, limits, now)
        weight = compute_window_share(check, history.usual_rows)
        if quality is None or quality.excess is None or not quality.reference > 0 or weight == 0:
            continue
        error = compute_standard_error(quality, history) / quality.reference
        counted.append((weight, quality.excess / quality.reference, error, quality.estimated, check.stretch.start))
    if not counted:
        return Staleness(0.0, 0.0, 0.0, 0.0, 0, 0, "", 0)
    counted = _fill_unknown_errors(counted)
    reference = checks[-1].quality.reference
    shared = 0.0 if history.reference_error is None or not reference else history.reference_error / reference
    recent = counted[-_RECENT_WINDOWS:]
    pace = sum(w * x for w, x, *_ in recent) / len(recent)
    total = own_variance = weights = 0.0
    estimated, found = 0, list[Staleness]()
    for n, (weight, excess, each, guessed, since) in enumerate(reversed(counted), 1):
        # The reference's own error is the same in every window, and adds up; what is a window's own evens out.
        total, weights = total + weight * excess, weights + weight
        own_variance += (weight * sqrt(max(each * each - shared * shared, 0.0))) ** 2
        error = sqrt(own_variance + (weights * shared) ** 2)
        z_score = total / error if error else inf * total if total else 0.0
        estimated += guessed
        found.append(Staleness(total, error, z_score, pace, n, estimated, since, len(counted)))
    # The sum that begins where it is largest is the one that never falls below zero (Page, Biometrika 41, 1954): windows in which
    # the champion was better than its record are no credit for later ones.
    largest = max(found, key=lambda one: one.total)
    # One window of which little is known must not hide the others.
    return replace(largest, total=max(largest.total, 0.0), z_score=max(one.z_score for one in found))


def select_usable_performance(check: WindowAssessment, limits: DecisionLimits, now: str) -> PerformanceResult | None:
    """The quality that counts: by labels if their delay is over; else the estimate if the window's alarm confirms it."""
    young = limits.label_delay and _measure_span(check.stretch.end, now) < limits.label_delay
    if check.quality.loss is not None and not young:
        return check.quality
    estimate = check.estimate
    return estimate if estimate is not None and estimate.loss is not None and check.drift.alarm else None


def _measure_span(start: str, end: str) -> timedelta:
    """From one moment to another, both ledger text."""
    return datetime.fromisoformat(end) - datetime.fromisoformat(start)


def compute_window_share(check: WindowAssessment, usual: float | None) -> float:
    """How much of a usual window this one is. Of an open one it is not known where no window is usual yet: it waits."""
    if usual:
        return check.stretch.rows / usual
    return 1.0 if check.stretch.closed else 0.0


def compute_standard_error(quality: PerformanceResult, history: DecisionHistory) -> float:
    """Standard error of a difference: from its interval, else as windows differ in the record; without either it is unknown."""
    if quality.low is None or quality.high is None:
        return float("inf") if history.window_error is None else history.window_error
    return (quality.high - quality.low) / _INTERVAL_STANDARD_ERRORS


def _fill_unknown_errors(counted: list[_CountedWindow]) -> list[_CountedWindow]:
    """Unknown errors replaced by what the windows themselves differ by, where they are enough."""
    if len(counted) < _MIN_SPREAD_WINDOWS or all(isfinite(c[2]) for c in counted):
        return counted
    usual_error = stdev(c[1] for c in counted)
    return [c if isfinite(c[2]) else (c[0], c[1], usual_error, c[3], c[4]) for c in counted]
