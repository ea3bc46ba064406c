"""Trying candidates and tuning them within trials and seconds. Owns the search's loop and its result.

tasks/plan.py says what is tried next, tasks/bench.py how good it is, tasks/journal.py keeps it on disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import plan, remarks
from windvane.tasks.balance import AS_THEY_CAME, Balance
from windvane.tasks.bench import Bench, Scores, bench
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import Spec
from windvane.tasks.journal import Journal, Proposal, State, Trial
from windvane.tasks.plan import BASELINE, Try
from windvane.tasks.problems import Kind, Metric, Value
from windvane.tasks.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.features import Columns

# A configuration at which this many processes ended is not tried again: it is likely what ends them (memory).
_DEATHS = 5

Clock = Callable[[], float]


@dataclass(frozen=True)
class Progress:
    """A trial has finished: the `trial`-th configuration of at most `of` (0: the baseline), its state and score.

    validation: its headline metric, None unless complete; best: the best so far, baseline apart; left: seconds of
    search.timeout. resumed: it was found in the journal, not fitted now.
    """

    candidate: str
    trial: int
    of: int
    state: str
    validation: float | None
    best: float | None
    left: float
    resumed: bool


@dataclass(frozen=True)
class Result:
    """A candidate's best configuration, with every metric of the kind on both sides, and all its trials."""

    candidate: str
    spec: Spec
    validation: dict[str, float]
    train: dict[str, float]
    trials: tuple[Trial, ...]
    seconds: float
    note: str | None = None


@dataclass(frozen=True)
class Found:
    """results: baseline first, then the candidates in ladder order, those left out of which no trial succeeded.

    best: by the headline metric on validation, the simpler among equals, never the baseline. stopped: why the search
    ended early. fits: trials fitted by this call (not those found in the journal). notes: what people should know.
    """

    results: tuple[Result, ...]
    best: Result
    stopped: str | None
    fits: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Outcome:
    state: State
    scores: Scores | None
    note: str | None


@dataclass
class _Run:
    """A search under way."""

    settings: Settings
    bench: Bench
    clock: Clock
    of: int
    started: float
    balance: Balance
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    inherited: float = 0.0
    fits: int = 0

    @property
    def metric(self) -> Metric:
        return self.bench.metric

    @property
    def best(self) -> Trial | None:
        return plan.best([t for name, ts in self.trials.items() if name != BASELINE for t in ts], self.metric)

    @property
    def left(self) -> float:
        return self.settings.search.timeout - (self.clock() - self.started) - self.inherited

    def stop(self) -> str | None:
        """Why to try nothing more. Asked between fits; before one candidate has been judged, there is no reason."""
        best, goal = self.best, self.settings.problem.goal
        if best is None or best.validation is None:
            return None
        if goal is not None and not self.metric.better(goal, best.validation):
            return f"problem.goal {goal:g} met by {best.candidate}: {self.metric.name} {best.validation:.6g}"
        if self.left <= 0:
            return f"search.timeout: {self.settings.search.timeout:g} s are over"
        return None

    def spec(self, candidate: str, params: dict[str, Value]) -> Spec:
        """A configuration of this search; the baseline takes the classes as they are."""
        return Spec(candidate, params, AS_THEY_CAME if candidate == BASELINE else self.balance)

    def note(self, trial: Trial, resumed: bool) -> None:
        self.trials.setdefault(trial.candidate, []).append(trial)
        self.inherited += trial.seconds if resumed else 0.0
        self.fits += not resumed

    def progress(self, trial: Trial, resumed: bool) -> Progress:
        count = sum(len(ts) for name, ts in self.trials.items() if name != BASELINE)
        at = 0 if trial.candidate == BASELINE else count
        best = self.best.validation if self.best else None
        return Progress(trial.candidate, at, self.of, trial.state, trial.validation, best, max(0.0, self.left), resumed)


def search(
    settings: Settings,
    kind: Kind,
    columns: Columns,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    journal: Path,
    cores: int,
    report: Callable[[Progress], None],
    clock: Clock = time.monotonic,
) -> Found:
    """The baseline, every candidate at its defaults, then tuning: see plan.steps(). At most `cores` threads at a time.

    Trials run one after another, each with all cores: the sampler then sees the same past in every run, and the same
    arguments give the same result (unless the clock cuts it short). search.timeout bounds the whole search, earlier
    attempts in the journal counted; it is looked at between fits (folds, a first look), so the last one may overrun it.
    `journal` belongs to these data, settings and this code alone; trials in it are not done again. Nobody else may use
    it at the same time. Raises InputError if settings do not fit the table, or if no candidate can be judged.
    """
    started = clock()
    balance = Balance(settings.search.imbalance, settings.search.threshold)
    measured = bench(settings, kind, columns, train, validation, cores)
    run = _Run(settings, measured, clock, plan.total(settings, kind), started, balance)
    log = kind.log_target(measured.truth)
    remarks.refuse_log(settings, kind, measured)
    candidates = plan.spaces(kind, log)
    book = Journal(journal, run.metric, settings.search.method, settings.split.seed)
    stopped = None
    for step in plan.steps(settings, kind, log, run.trials):
        past, taken = book.finished(step.candidate), len(run.trials.get(step.candidate, ()))
        resumed = taken < len(past)
        if not resumed and step.candidate != BASELINE and (stopped := run.stop()):
            break
        space = candidates[step.candidate].space
        trial = past[taken] if resumed else _try(run, step, book.propose(step.candidate, space, step.params))
        run.note(trial, resumed)
        report(run.progress(trial, resumed))
    return _found(run, (BASELINE, *plan.ladder_names(settings, kind)), stopped, log)


def only(
    spec: Spec,
    settings: Settings,
    kind: Kind,
    columns: Columns,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    cores: int,
    report: Callable[[Progress], None],
    clock: Clock = time.monotonic,
) -> Found:
    """The baseline and the given configuration, nothing tuned and nothing kept on disk: the depth `refit`."""
    measured = bench(settings, kind, columns, train, validation, cores)
    run = _Run(settings, measured, clock, 1, clock(), spec.balance)
    for step in (*plan.baseline(kind), Try(spec.candidate, spec.params)):
        trial = _try(run, step, None)
        run.note(trial, resumed=False)
        report(run.progress(trial, resumed=False))
    return _found(run, (BASELINE, spec.candidate), None, log=False)


def _try(run: _Run, step: Try, proposal: Proposal | None) -> Trial:
    """Fit and score one configuration; a proposal's outcome goes to the journal before anyone hears of it."""
    params = proposal.params if proposal else dict(step.params or {})
    number = proposal.number if proposal else len(run.trials.get(step.candidate, ()))
    began = run.clock()
    outcome = _judge(run, run.spec(step.candidate, params), proposal)
    scores = outcome.scores
    trial = Trial(
        step.candidate,
        number,
        params,
        outcome.state,
        scores.validation[run.metric.name] if scores else None,
        scores.train[run.metric.name] if scores else None,
        run.clock() - began,
        {"validation": scores.validation, "train": scores.train} if scores else {},
        outcome.note,
    )
    if proposal:
        proposal.finish(trial)
    return trial


def _judge(run: _Run, spec: Spec, proposal: Proposal | None) -> _Outcome:
    if proposal and proposal.deaths >= _DEATHS:
        return _Outcome("failed", None, f"{proposal.deaths} processes ended while fitting it: too little memory?")
    try:
        for step, scores in enumerate(run.bench.score(spec, look=proposal is not None and spec.candidate != BASELINE)):
            value = scores.validation[run.metric.name]
            if scores.final:
                break
            if over := run.stop():
                return _Outcome("pruned", None, f"ended at first look: {over}")
            if proposal and proposal.hopeless(value, step):
                return _Outcome("pruned", None, f"{run.metric.name} {value:.6g} at first look, worse than the median")
    except ValueError as e:
        # scikit-learn's word for rows that an algorithm cannot take; the others may.
        return _Outcome("failed", None, str(e).strip().splitlines()[0])
    if not math.isfinite(value):
        return _Outcome("failed", None, f"{run.metric.name} is not a number on the validation side")
    return _Outcome("complete", scores, scores.note)


def _found(run: _Run, names: tuple[str, ...], stopped: str | None, log: bool) -> Found:
    results = tuple(r for name in names if (r := _result(name, run)))
    rivals = {r.candidate: r for r in results if r.candidate != BASELINE}
    if BASELINE not in {r.candidate for r in results} or not rivals:
        why = next((t.note for ts in reversed(run.trials.values()) for t in ts if t.note), "nothing was tried")
        raise InputError(f"search: nothing could be judged by {run.metric.name}: {why}. See problem.metric and split")
    leader = plan.ranked([n for n in names if n in rivals], run.trials, run.metric)[0]
    told = remarks.told(run.settings, run.bench, rivals[leader].spec.balance, run.trials, log)
    notes = (*told, *(f"{r.candidate}: {r.note}" for r in rivals.values() if r.note))
    return Found(results, rivals[leader], stopped, run.fits, notes)


def _result(name: str, run: _Run) -> Result | None:
    trials = tuple(run.trials.get(name, ()))
    top = plan.best(trials, run.metric)
    if top is None:
        return None
    scores = top.scores
    spent = sum(t.seconds for t in trials)
    return Result(name, run.spec(name, top.params), scores["validation"], scores["train"], trials, spent, top.note)
