"""Checks of the champion's windows, and the decision that each leads to. A check is in the ledger before anything follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from windvane.ledger import decisions, windows
from windvane.ledger.database import now_timestamp
from windvane.ledger.decisions import DecisionRecord, RetrainingAlreadyOpen
from windvane.ledger.windows import WindowRecord
from windvane.monitoring.policy.decision import decide_action
from windvane.monitoring.records import (
    CoverageResult,
    Decision,
    DecisionHistory,
    DecisionLimits,
    DriftResult,
    PastDecision,
    WindowAssessment,
    WindowExtent,
)
from windvane.monitoring.watch.production import Production, WindowCount, evidently_report_path
from windvane.monitoring.watch.windows import compute_check_level, is_check_due
from windvane.tasks.console import Console

if TYPE_CHECKING:
    import pandas as pd

    from windvane.monitoring.interval_coverage import StoredIntervals
    from windvane.monitoring.watch.assessment import AssessmentReference
    from windvane.monitoring.watch.challenger_losses import ChallengerLosses
    from windvane.monitoring.window_loss import LossModel
    from windvane.tasks.models.features import FeatureColumns
# What a recorded decision leads to at once; a retraining waits for its lap.
CheckCallback = Callable[[WindowRecord, WindowAssessment, DecisionRecord], None]
# Earlier windows whose state may come back.
_MAX_KNOWN_STATES = 36


class MonitoringPass:
    """One pass over a champion's windows, or several, of which each checks what is new since the one before.

    load_intervals: the champion's interval form; None: coverage is not measured.
    """

    def __init__(
        self,
        production: Production,
        console: Console,
        after: CheckCallback,
        load_intervals: Callable[[], StoredIntervals | None] | None = None,
    ) -> None:
        self._production, self._console, self._after = production, console, after
        self._load_intervals = load_intervals
        self._project = production.project
        self._engine, self._name = self._project.ledger, self._project.name
        self._limits = DecisionLimits.of(self._project.settings)
        self._models: dict[FeatureColumns, LossModel] = {}
        self._mine = self._kept()
        self._read: dict[str, tuple[WindowRecord, WindowAssessment]] = {}

    def again(self, production: Production) -> tuple[WindowRecord, DecisionRecord] | None:
        """Check the newer rows of the same champion."""
        self._production = production
        self.__dict__.pop("_challengers", None)  # they have seen the rows of the production before
        return self.run()

    def run(self) -> tuple[WindowRecord, DecisionRecord] | None:
        """Check what is new, in the order of time, and decide after each new check; the news of it. None: there are no rows."""
        places, version = self._production.places(), self._production.champion.version
        entries = list[DecisionRecord]()
        decided = {one.window for one in decisions.list_decisions(self._engine, self._name) if one.version == version}
        for place in places:
            self._console.working(f"window from {place.start[:10]}")
            count, before = self._production.count(place), self._mine.get(place.start)
            seen = self._check_if_due(count)
            if seen is None and place.start not in decided:  # a pass was killed between check and decision
                seen = self._mine.get(place.start)
            if seen is not None:
                # Late labels: decide as of now. A closed window that was not checked in time: decide as of its end.
                late = before is not None and before.closed
                entries.append(self._decide(seen, newest=late or place is places[-1]))
        known = self._mine
        if not known:
            return None
        newest = known[max(known)]
        last = decisions.find_last_decision(self._engine, self._name)
        if last is None or (last.version, last.window) != (newest.version, newest.start):
            last = self._decide(newest, newest=True)
        # What was decided about an earlier window of this pass is its news; what follows only waits for that. Else the newest
        # window with a result: one that has just started has too few rows.
        acted = next((e for e in reversed(entries) if e.action != "wait"), None)
        if acted is not None:
            return known.get(acted.window, newest), acted
        newest_first = (known[start] for start in sorted(known, reverse=True))
        seen = next((one for one in newest_first if _has_evidence(self._found(one))), newest)
        return seen, find_window_decision(self._engine, self._name, seen) or last

    def _kept(self) -> dict[str, WindowRecord]:
        """The champion's windows that were checked, by their start, in the order of time."""
        mine = windows.list_windows(self._engine, self._name, self._production.champion.version)
        return {seen.start: seen for seen in mine}

    def _earlier(self, start: str) -> list[WindowRecord]:
        """Those before the one that begins there."""
        return [seen for at, seen in sorted(self._mine.items()) if at < start]

    def _found(self, seen: WindowRecord) -> WindowAssessment:
        """What a check found, read from its record once."""
        known = self._read.get(seen.start)
        if known is None or known[0] is not seen:
            known = self._read[seen.start] = seen, WindowAssessment.from_json(seen.look)
        return known[1]

    def _check_if_due(self, count: WindowCount) -> WindowRecord | None:
        """The window after a check of it; None: it was checked as it is, or it is too early for another check.

        A check whose report failed is no check: the next pass tries again, and has nothing new to report where it fails as before.
        """
        place, before = count.place, self._mine.get(count.place.start)
        known = None if before is None else self._found(before).drift
        failed = known is not None and known.alarm is None
        if before is not None and not failed and before.mark == count.mark and before.closed == place.closed:
            return None
        due = (
            known is None
            or before is None
            or failed
            or is_check_due(before.looks, known.rows, count.rows, before.closed, place.closed)
        )
        # Labels that came late to an open window are read each time they have doubled, as rows are.
        if before is not None and not due and not place.closed and count.labelled < max(2 * before.labelled, 1):
            return None
        # Without new rows the drift of the check before counts: only labels have come, and its false alarms are spent.
        seen = self._check_window(count, before, None if due else known)
        if failed and before is not None and seen.rows < 2 * before.rows:
            one, other = ((self._found(s).drift.note, s.labelled, s.closed) for s in (before, seen))
            if one == other:  # as it failed before, and no more came than an open window is checked again for
                return None
        if not windows.save_window(self._engine, self._name, seen, before):
            self._mine = self._kept()  # another process was faster
            return None
        self._mine[seen.start] = seen
        return seen

    def _check_window(
        self, count: WindowCount, before: WindowRecord | None, drifted: DriftResult | None
    ) -> WindowRecord:
        from windvane.monitoring.watch import assessment

        place, settings, production = count.place, self._project.settings, self._production
        checks = production.looked if before is None else before.looks
        level = compute_check_level(settings.monitor.false_alarms, checks, place.closed)
        frame, version = production.frame(count), production.champion.version
        # Of a large window a sample was read: it has as many rows and labels as were counted.
        sampled, rows = len(frame) < count.rows, max(count.rows, len(frame))
        labelled = count.labelled if sampled else int(frame[settings.problem.target].notna().sum())
        report_to = (
            evidently_report_path(self._project, version, place.start) if production.measured_by_evidently else None
        )
        found, state = assessment.assess_window(
            frame,
            self._reference(place.start, production.columns(count.origin)),
            assessment.AssessmentRules(settings.problem, level, settings.split.seed, settings.monitor.cut),
            stretch=WindowExtent(place.start, place.end, rows, labelled, place.closed, sampled and count.estimated),
            drifted=drifted,
            report_to=report_to,
        )
        if (
            sampled and drifted is None
        ):  # when a check is due next follows from the window's rows, not from the sample's
            read = f"{found.drift.rows:,} of {rows:,} rows of the window were read"
            drift = replace(found.drift, rows=rows, note="; ".join([read, *filter(None, [found.drift.note])]))
            found = replace(found, drift=drift)
        found = replace(found, coverage=self._measure_coverage(frame, count, before))
        content = {**found.to_json(), "state": None if state is None else state.to_json()}
        # A report that failed has spent none of the window's false alarms.
        checks += drifted is None and found.drift.alarm is not None
        return WindowRecord(
            version,
            place.start,
            place.end,
            count.origin,
            rows,
            labelled,
            place.closed,
            checks,
            count.mark,
            content,
            now_timestamp(),
        )

    def _measure_coverage(
        self, frame: pd.DataFrame, count: WindowCount, before: WindowRecord | None
    ) -> CoverageResult | None:
        """How often the champion's intervals held the labels of a window, and the level that all windows together lead to."""
        settings, start = self._project.settings, count.place.start
        if not frame[settings.problem.target].notna().any() or (intervals := self._intervals) is None:
            return None
        from windvane.monitoring import interval_coverage

        readable = count.origin == "source" or not self._production.hidden
        monitor, last = settings.monitor, None if before is None else self._found(before).coverage
        rules = interval_coverage.CoverageRules(settings.problem, monitor.interval, monitor.false_alarms, readable)
        found = interval_coverage.measure_coverage(frame, self._production.record, intervals, rules, last)
        if found is None:
            return None
        all_windows = {at: self._found(seen).coverage for at, seen in self._mine.items()} | {start: found}
        return interval_coverage.adjust_watched_level(intervals, [all_windows[at] for at in sorted(all_windows)], found)

    @cached_property
    def _intervals(self) -> StoredIntervals | None:
        return None if self._load_intervals is None else self._load_intervals()

    def _reference(self, start: str, columns: FeatureColumns) -> AssessmentReference:
        from windvane.monitoring import window_loss
        from windvane.monitoring.diagnosis.window_states import WindowState
        from windvane.monitoring.watch.assessment import AssessmentReference
        from windvane.tasks.models import own_metrics

        record, settings = self._production.record, self._project.settings
        if columns not in self._models:  # of the record alone: the same for every window
            problem, seed = settings.problem, settings.split.seed
            kind = own_metrics.load_measured_problem_type(problem, problem.positive)
            self._models[columns] = window_loss.fit_loss_model(record, columns, kind, problem, seed)
        past = [s for s in self._earlier(start) if s.closed and s.end <= start]
        known = [WindowState.from_json(s.look["state"]) for s in select_known_states(past, self._found)]
        version, before = self._production.champion.version, self._production.before
        return AssessmentReference(version, columns, record, before, known, self._models[columns])

    def _decide(self, seen: WindowRecord, newest: bool) -> DecisionRecord:
        """Decide after a check, put it on record, and do at once what no lap has to do."""
        check, now = self._found(seen), self._production.now
        at = now if newest or not seen.closed else min(seen.end, now)
        if check.diagnosis.change != "broken data" and check.drift.statistic is not None:
            close_fixed_stops(self._engine, self._name, seen.start)
        entry = self._record(seen, check, decide_action(check, self._history(seen, at), self._limits, at), at)
        self._after(seen, check, entry)
        return entry

    def _record(self, seen: WindowRecord, check: WindowAssessment, decision: Decision, at: str) -> DecisionRecord:
        evidence: dict[str, Any] = {
            "columns": list(check.diagnosis.columns),
            "learned_from": _describe_training_rows(self._production),
        }
        if check.coverage is not None and check.coverage.adjusted is not None:
            # What `?interval` uses from now on, and the window that it came from: checks are replaced, decisions only added.
            evidence["interval"] = {"level": check.coverage.level, "adjusted": check.coverage.adjusted}
        entry = DecisionRecord(self._name, seen.version, seen.start, at, evidence=evidence, **asdict(decision))
        pending = decisions.find_pending_retraining(self._engine, self._name) if decision.action == "stop" else None
        if pending is not None:
            decisions.close_decision(self._engine, pending.id, "skipped", "the data seem broken")
        try:
            return decisions.record_decision(self._engine, entry)
        except RetrainingAlreadyOpen as e:
            other = {**vars(entry), "action": "wait", "reason": f"{e}. Otherwise: {entry.reason}", "depth": None}
            return decisions.record_decision(self._engine, DecisionRecord(**other))

    @cached_property
    def _errors(self) -> tuple[float | None, float | None]:
        from windvane.monitoring.watch import probation

        return probation.estimate_reference_errors(self._production)

    @cached_property
    def _challengers(self) -> ChallengerLosses:
        from windvane.monitoring.watch.challenger_losses import ChallengerLosses

        return ChallengerLosses(self._production, self._console)

    def _history(self, seen: WindowRecord, at: str) -> DecisionHistory:
        from windvane.monitoring.watch import probation

        earlier = self._earlier(seen.start)
        made = decisions.list_decisions(self._engine, self._name, acting=True)
        of_mean, of_window = self._errors
        timed = self._project.settings.problem.time is not None
        return DecisionHistory(
            assessments=tuple(self._found(s) for s in earlier),
            made=tuple(
                PastDecision(d.action, d.at, d.state, d.version, d.note, tuple(d.evidence.get("columns", ())))
                for d in made
            ),
            usual_rows=self._production.usual_rows([s.rows for s in earlier if s.closed]),
            reference_error=of_mean,
            window_error=of_window,
            probation=probation.compare_on_probation(self._production, seen, self._limits),
            new_rows=_has_new_rows(self._production, made),
            advice=self._challengers.advice(at) if self._limits.policy == "regret" and timed else None,
        )


def select_known_states(
    past: Sequence[WindowRecord], found: Callable[[WindowRecord], WindowAssessment]
) -> list[WindowRecord]:
    """Of windows that are over (in the order of time) those whose state may come back; `found`: what their checks found.

    Changed windows up to now are one change that goes on: a state comes back only where another was between. Broken data are no state.
    """
    known = list(past)
    while known and found(known[-1]).changed:
        known.pop()
    known = known[-_MAX_KNOWN_STATES:]
    return [s for s in known if s.look["state"] is not None and found(s).diagnosis.change != "broken data"]


def close_fixed_stops(engine: sa.Engine, project: str, start: str) -> None:
    """End the stops that a window from `start` on shows to be fixed: not those of later windows, if only late labels came."""
    for one in decisions.list_decisions(engine, project, acting=True):
        if one.action == "stop" and one.open and start >= one.window:
            decisions.close_decision(engine, one.id, "done", "mended")


def find_window_decision(engine: sa.Engine, project: str, seen: WindowRecord) -> DecisionRecord | None:
    """The last decision about a window."""
    made = decisions.list_decisions(engine, project)
    return next((d for d in reversed(made) if (d.version, d.window) == (seen.version, seen.start)), None)


def _has_evidence(check: WindowAssessment) -> bool:
    """Whether a window had rows enough to report anything, about drift or by its labels; also that its report failed."""
    return check.drift.statistic is not None or check.drift.alarm is not False or check.quality.loss is not None


def _describe_training_rows(production: Production) -> list[Any]:
    """What there is to learn from: labels of the ledger, and the source."""
    return [copy_through_json(production.state["labels"]), production.state["source"]]


def _has_new_rows(production: Production, made: tuple[DecisionRecord, ...]) -> bool | None:
    """Whether anything has come since the last lap found nothing new; None: no lap has."""
    laps = [one for one in made if one.action == "retrain"]
    if not laps or laps[-1].state != "skipped" or not str(laps[-1].note).startswith("no new rows"):
        return None
    return laps[-1].evidence.get("learned_from") != _describe_training_rows(production)


def copy_through_json(content: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))
