"""Wait, retrain, stop or roll back: a pure function of what was seen, of what was done before, and of the limits set.

No clock, no files, no frames: history that is played decides as production does.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

from windvane.monitoring.evidence import Decision, Depth, Look, Remedy
from windvane.monitoring.limits import History, Limits, Made, Probation
from windvane.monitoring.staleness import moment, share_of_window, staleness, standard_error, usable

OPEN = ("recorded", "told", "claimed")
ACKNOWLEDGED = "acknowledged"
# Windows between two laps, however often the gate has refused: a shift that comes meanwhile must not wait for ever.
_LONGEST_PAUSE = 8


def decide(look: Look, history: History, limits: Limits, now: str) -> Decision:
    """What to do after a look, and why. `now`: the present in the events' own time, ledger text.

    Broken data comes first, then a champion that fails its probation, then the policy, then what forbids another lap.
    """
    known = _known_until((*history.looks, look))
    decision = _broken(look, history) or _failed(history.probation) or _wish(look, history, limits, now)
    if decision.action == "retrain" and (forbidden := _forbidden(look, history, limits, now)) is not None:
        decision = replace(decision, action="wait", reason=f"{forbidden}. Otherwise: {decision.reason}")
    return replace(decision, cost=limits.cost, known_until=known)


def _broken(look: Look, history: History) -> Decision | None:
    diagnosis = look.diagnosis
    accepted = {
        column
        for one in history.made
        if one.action == "stop" and one.note == ACKNOWLEDGED and one.version == look.version
        for column in one.columns
    }
    # The alarm keeps its promise; what only looks odd beside it stops nobody.
    if (
        look.drift.alarm
        and diagnosis.change == "broken data"
        and not (diagnosis.columns and set(diagnosis.columns) <= accepted)
    ):
        return Decision(
            "stop",
            f"the data look broken: {diagnosis.why}. Nothing is learned from them until that is mended, or accepted with "
            "`windvane monitor --acknowledge`",
            remedy="person",
        )
    stopped = [
        one for one in history.made if one.action == "stop" and one.state in OPEN and one.version == look.version
    ]
    if stopped and look.drift.statistic is None:
        since = "too few rows have come since to say more" if look.drift.alarm is not None else str(look.drift.note)
        return Decision("wait", f"the data looked broken {stopped[-1].at[:10]}, and {since}")
    return None


def _failed(probation: Probation | None) -> Decision | None:
    if probation is None or probation.low is None or probation.low <= 0:
        return None
    assert probation.excess is not None
    return Decision(
        "rollback",
        f"in its probation it costs {probation.excess:.0%} more than version {probation.against} would have "
        f"({probation.how}, {probation.rows:,} labelled rows; at least {probation.low:.1%})",
    )


def _wish(look: Look, history: History, limits: Limits, now: str) -> Decision:
    """What the policy wants, whatever forbids it."""
    if limits.policy == "never":
        return Decision("wait", f"retrain.policy is never; {_seen(look)}")
    if limits.policy == "schedule":
        return _on_schedule(look, limits)
    if limits.policy == "regret":
        return _regretted(look, history)
    if look.drift.alarm is None and (limits.policy == "drift" or look.quality.loss is None):
        return Decision("wait", _seen(look))
    if look.drift.statistic is None and look.quality.loss is None:
        return Decision(
            "wait", f"too few rows to say: {look.stretch.rows} rows, {look.stretch.labelled} of them labelled"
        )
    policy = {"staleness": _stale, "performance": _worse, "drift": _moved}[limits.policy]
    return policy(look, history, limits, now)


def _on_schedule(look: Look, limits: Limits) -> Decision:
    if limits.scheduled:
        return Decision("wait", f"retrain.policy is schedule: schedule.train starts laps; {_seen(look)}")
    if not look.stretch.closed:
        return Decision("wait", "retrain.policy is schedule: the window is not over yet")
    return Decision("retrain", f"retrain.policy is schedule: a window is over; {_seen(look)}", *_how(look))


def _regretted(look: Look, history: History) -> Decision:
    """What challengers show. It stands on windows that are over, so that few rows in the newest do not matter."""
    advice = history.advice
    if advice is None:
        return Decision("wait", f"{_seen(look)}, but no challenger was asked")
    if not advice.retrain:
        return Decision("wait", f"{_seen(look)}; {advice.reason}", gain=advice.gain)
    return Decision("retrain", f"{advice.reason}; {_seen(look)}", *_how(look), gain=advice.gain)


def _stale(look: Look, history: History, limits: Limits, now: str) -> Decision:
    found = staleness((*history.looks, look), history, limits, now)
    gain = found.pace * max(limits.probation, 1)
    if not found.windows:
        return Decision("wait", f"{_seen(look)}, but {_unmeasured(look, limits, now)}")
    without = (
        f", {found.estimated} of them estimated without labels and confirmed by the drift alarm"
        if found.estimated
        else ""
    )
    said = (
        f"in {found.windows} window{'s' * (found.windows > 1)} since {_day(found.since)}{without} the champion has cost "
        f"{found.total:+.2f} mean losses of a window beyond its own record (a lap costs {limits.cost:g})"
    )
    if found.total <= limits.cost:
        more = f"; {_unmeasured(look, limits, now)}" if usable(look, limits, now) is None else ""
        return Decision("wait", f"{_seen(look)}, but {said}{more}", gain=gain)
    # Of as many sums as there are windows the largest counts: each gets its share of the level (Bonferroni).
    if found.certainty <= NormalDist().inv_cdf(1 - limits.false_alarms / found.windows):
        return Decision("wait", f"{said}, which may still be chance (standard error {found.error:.2f})", gain=gain)
    return Decision("retrain", f"{said}; {_seen(look)}", *_how(look), gain=gain)


def _worse(look: Look, history: History, limits: Limits, now: str) -> Decision:
    quality = look.quality
    if quality.loss is None or usable(look, limits, now) is not quality or quality.excess is None:
        return Decision("wait", f"{_seen(look)}, but {_unmeasured(look, limits, now)}")
    share, error = quality.excess / quality.reference, standard_error(quality, history) / quality.reference
    said = f"the loss is {share:+.1%} against the champion's own record on {quality.rows:,} labelled rows"
    gain = share * share_of_window(look, history.usual_rows) * max(limits.probation, 1)
    if share <= NormalDist().inv_cdf(1 - limits.false_alarms) * error:
        return Decision("wait", f"{said}, which is within chance; {_seen(look)}", gain=gain)
    return Decision("retrain", f"{said}; {_seen(look)}", *_how(look), gain=gain)


def _moved(look: Look, history: History, limits: Limits, now: str) -> Decision:
    if not look.drift.alarm:
        return Decision("wait", _seen(look))
    if look.diagnosis.remedy == "wait":
        return Decision("wait", f"{_seen(look)}: {look.diagnosis.why}")
    return Decision("retrain", _seen(look), *_how(look))


def _forbidden(look: Look, history: History, limits: Limits, now: str) -> str | None:
    """Why there may be no lap now, or None."""
    laps = [one for one in history.made if one.action == "retrain"]
    if any(one.state in OPEN for one in laps):
        return f"a retraining decided {laps[-1].at[:16]}Z is under way"
    if history.new_rows is False:
        return f"nothing new to learn from since the last lap ({laps[-1].note if laps else 'skipped: no new rows'})"
    done = [one.at for one in history.made if one.action in ("retrain", "rollback") and one.state != "skipped"]
    if done and moment(now) - moment(max(done)) < limits.cooldown:
        return f"cool-down: the last retraining was decided {max(done)[:16]}Z (retrain.cooldown)"
    if limits.budget is not None:
        spent = [
            at
            for one in laps
            if one.state != "skipped" and (at := one.at) and moment(now) - moment(at) < limits.budget.span
        ]
        if len(spent) >= limits.budget.laps:
            return f"budget: {len(spent)} retrainings since {min(spent)[:10]} (retrain.budget)"
    return _after_refusals(look, history, laps)


def _after_refusals(look: Look, history: History, laps: list[Made]) -> str | None:
    """Each lap that the gate refuses doubles the windows until the next: hardly more rows would be judged again, and refused again,
    or pass at last because they were asked so often (exponential back-off).
    """
    refused = [one.at for one in laps if one.state == "done" and one.version == look.version]
    if len(refused) < 2:
        return None
    pause = min(2 ** (len(refused) - 1), _LONGEST_PAUSE)
    since = sum(seen.stretch.end > refused[-1] for seen in (*history.looks, look))
    if since >= pause:
        return None
    return (
        f"the gate has refused {len(refused)} laps of this champion's, the last on {refused[-1][:10]}: the next comes "
        f"{pause} windows after it"
    )


def _seen(look: Look) -> str:
    """What the look found, in a few words."""
    drift, diagnosis = look.drift, look.diagnosis
    if drift.statistic is None:
        return drift.note or "too few rows to look for drift"
    if not drift.alarm:
        return "nothing moved" if diagnosis.change == "none" else f"{diagnosis.change}: {diagnosis.why}"
    names = ", ".join(drift.columns[:3]) + (f" and {len(drift.columns) - 3} more" if len(drift.columns) > 3 else "")
    kind = "drift" if diagnosis.change == "none" else diagnosis.change
    return f"{kind} in {names}" if names else kind


def _unmeasured(look: Look, limits: Limits, now: str) -> str:
    """Why the window's quality does not count."""
    if look.quality.loss is not None:
        return f"its labels may still be incomplete (monitor.label_delay {limits.label_delay})"
    missing = (
        "its labels have not come" if not look.stretch.labelled else f"only {look.stretch.labelled} rows are labelled"
    )
    estimate = look.estimate
    if estimate is None or estimate.loss is None:
        return f"{missing}, and without them quality cannot be estimated" + (f" ({estimate.how})" if estimate else "")
    if not look.drift.alarm:
        return f"{missing}, and no drift alarm confirms an estimate"
    return missing


def _how(look: Look) -> tuple[Depth, Remedy]:
    remedy = look.diagnosis.remedy
    return ("search", "search") if remedy == "search" else ("refit", "labels" if remedy == "labels" else "refit")


def _known_until(looks: tuple[Look, ...]) -> str | None:
    known = [look.quality.known_until for look in looks if look.quality.known_until is not None]
    return max(known, default=None)


def _day(text: str | None) -> str:
    return "ever" if text is None else text[:10]
