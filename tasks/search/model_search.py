"""Tries and tunes candidate models within trials and seconds. Owns the loop and its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from windvane.tasks import errors
from windvane.tasks.errors import InputError
from windvane.tasks.models.class_balance import UNBALANCED, ClassBalance
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types.definitions import (
    BASELINE_CANDIDATE,
    HyperparameterValue,
    Metric,
    OwnCodeError,
)
from windvane.tasks.search import search_plan
from windvane.tasks.search.cross_validation import ConfigurationScorer, ConfigurationScores, build_configuration_scorer
from windvane.tasks.search.search_plan import PlannedTrial, SearchTrial, SearchTrialState
from windvane.tasks.settings.project_params import Settings

if TYPE_CHECKING:
    from windvane.tasks.search.optuna_journal import OpenTrial

# A configuration at which this many processes ended is not tried again: it is likely what ends them (memory).
_MAX_PROCESS_DEATHS = 5

SecondsClock = Callable[[], float]


@dataclass(frozen=True)
class TrialProgress:
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
class CandidateResult:
    """A candidate's best configuration, with every metric of the problem type on both splits, and all its trials."""

    candidate: str
    spec: ModelConfiguration
    validation: dict[str, float]
    train: dict[str, float]
    trials: tuple[SearchTrial, ...]
    seconds: float
    note: str | None = None


@dataclass(frozen=True)
class SearchResult:
    """results: baseline first, then the candidates in ladder order, those left out of which no trial succeeded.

    best: by the headline metric on validation, the simpler among equals, never the baseline. stopped: why the search
    ended early; None: its plan was done. fits: trials fitted by this call (not those found in the journal). notes: what people should know.
    """

    results: tuple[CandidateResult, ...]
    best: CandidateResult
    stopped: str | None
    fits: int
    notes: tuple[str, ...] = ()

    @property
    def ended(self) -> str:
        """What ended the search, in words."""
        tried = sum(len(r.trials) for r in self.results if r.candidate != BASELINE_CANDIDATE)
        return f"the search tried {tried} configurations, {self.stopped or 'all that were planned'}"


@dataclass
class _RunningSearch:
    """A search under way."""

    settings: Settings
    bench: ConfigurationScorer
    clock: SecondsClock
    of: int
    started: float
    balance: ClassBalance
    trials: dict[str, list[SearchTrial]] = field(default_factory=dict)
    inherited: float = 0.0
    fits: int = 0

    @property
    def metric(self) -> Metric:
        return self.bench.metric

    @property
    def best(self) -> SearchTrial | None:
        return search_plan.find_best_trial(
            [t for name, ts in self.trials.items() if name != BASELINE_CANDIDATE for t in ts], self.metric
        )

    @property
    def left(self) -> float:
        return self.settings.search.timeout - (self.clock() - self.started) - self.inherited

    def stop(self) -> str | None:
        """Why to try nothing more. Called between fits; before one candidate has been judged, there is no reason."""
        best, goal = self.best, self.settings.problem.goal
        if best is None or best.validation is None:
            return None
        if goal is not None and not self.metric.better(goal, best.validation):
            return f"problem.goal {goal:g} met by {best.candidate}: {self.metric.name} {best.validation:.6g}"
        if self.left <= 0:
            return f"search.timeout: {self.settings.search.timeout:g} s are over"
        return None

    def spec(self, candidate: str, params: dict[str, HyperparameterValue]) -> ModelConfiguration:
        """A configuration of this search; the baseline takes the classes as they are."""
        return ModelConfiguration(candidate, params, UNBALANCED if candidate == BASELINE_CANDIDATE else self.balance)

    def record(self, trial: SearchTrial, resumed: bool) -> TrialProgress:
        """Count the trial among those tried; what to report of it."""
        self.trials.setdefault(trial.candidate, []).append(trial)
        self.inherited += trial.seconds if resumed else 0.0
        self.fits += not resumed
        count = sum(len(ts) for name, ts in self.trials.items() if name != BASELINE_CANDIDATE)
        at = 0 if trial.candidate == BASELINE_CANDIDATE else count
        best = self.best.validation if self.best else None
        return TrialProgress(
            trial.candidate, at, self.of, trial.state, trial.validation, best, max(0.0, self.left), resumed
        )


def search_models(
    task: ModelTask,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    journal: Path,
    report: Callable[[TrialProgress], None],
    clock: SecondsClock = time.monotonic,
) -> SearchResult:
    """The baseline, every candidate at its defaults, then tuning: see plan_trials(). At most `cores` threads at a time.

    Trials run one after another, each with all cores: the sampler then sees the same past in every run, and the same
    arguments give the same result (unless the clock cuts it short). search.timeout bounds the whole search, earlier
    attempts in the journal counted; it is checked between fits (folds, a first evaluation), so the last one may overrun it.
    `journal` belongs to these data, settings and this code alone; trials in it are not done again. No other process may use
    it at the same time. Raises InputError if settings do not fit the table, or if no candidate can be judged.
    """
    started, settings, kind = clock(), task.settings, task.problem_type
    balance = ClassBalance(settings.search.imbalance, settings.search.threshold)
    measured = build_configuration_scorer(task, train, validation)
    run = _RunningSearch(settings, measured, clock, search_plan.count_planned_trials(settings, kind), started, balance)
    log = kind.log_target(measured.truth)
    search_plan.refuse_log_candidates(settings, kind, measured)
    candidates = search_plan.select_search_spaces(kind, log, settings.problem.headline)
    from windvane.tasks.search.optuna_journal import (
        TrialJournal,  # Optuna takes a second: a lap that stops at its data does without
    )

    book = TrialJournal(journal, run.metric, settings.search.method, settings.split.seed)
    stopped = None
    for step in search_plan.plan_trials(settings, kind, log, run.trials):
        past, taken = book.finished(step.candidate), len(run.trials.get(step.candidate, ()))
        resumed = taken < len(past)
        if not resumed and step.candidate != BASELINE_CANDIDATE and (stopped := run.stop()):
            break
        space = candidates[step.candidate].space
        trial = past[taken] if resumed else _run_trial(run, step, book.propose(step.candidate, space, step.params))
        report(run.record(trial, resumed))
    return _collect_search_result(run, (BASELINE_CANDIDATE, *search_plan.list_candidates(settings, kind)), stopped, log)


def score_single_configuration(
    task: ModelTask,
    spec: ModelConfiguration,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    report: Callable[[TrialProgress], None],
    clock: SecondsClock = time.monotonic,
) -> SearchResult:
    """The baseline and the given configuration, nothing tuned and nothing kept on disk: the depth `refit`."""
    measured = build_configuration_scorer(task, train, validation)
    run = _RunningSearch(task.settings, measured, clock, 1, clock(), spec.balance)
    for step in (*search_plan.plan_baseline_trials(task.problem_type), PlannedTrial(spec.candidate, spec.params)):
        report(run.record(_run_trial(run, step, None), resumed=False))
    return _collect_search_result(run, (BASELINE_CANDIDATE, spec.candidate), None, log=False)


def _run_trial(run: _RunningSearch, step: PlannedTrial, proposal: OpenTrial | None) -> SearchTrial:
    """Fit and score one configuration; a proposal's outcome goes to the journal before anyone hears of it."""
    params = proposal.params if proposal else dict(step.params or {})
    number = proposal.number if proposal else len(run.trials.get(step.candidate, ()))
    started_at = run.clock()
    state, scores, note = _score_trial(run, run.spec(step.candidate, params), proposal)
    sides = {"validation": scores.validation, "train": scores.train} if scores else {}
    headline = {side: metrics[run.metric.name] for side, metrics in sides.items()}
    seconds = run.clock() - started_at
    trial = SearchTrial(
        step.candidate, number, params, state, headline.get("validation"), headline.get("train"), seconds, sides, note
    )
    if proposal:
        proposal.finish(trial)
    return trial


def _score_trial(
    run: _RunningSearch, spec: ModelConfiguration, proposal: OpenTrial | None
) -> tuple[SearchTrialState, ConfigurationScores | None, str | None]:
    """State, scores unless it failed or was given up, and what to know of it."""
    if proposal and proposal.deaths >= _MAX_PROCESS_DEATHS:
        return "failed", None, f"{proposal.deaths} processes ended while fitting it: too little memory?"
    name, quick_first = run.metric.name, proposal is not None and spec.candidate != BASELINE_CANDIDATE
    try:
        for step, scores in enumerate(run.bench.score(spec, quick_first)):
            value = scores.validation[name]
            if scores.final:
                break
            if over := run.stop():
                return "pruned", None, f"ended at the first evaluation: {over}"
            if proposal and proposal.hopeless(value, step):
                return "pruned", None, f"{name} {value:.6g} at the first evaluation, worse than the median"
    except (ValueError, OwnCodeError) as e:
        # scikit-learn's word for rows that an algorithm cannot take; the others may.
        return "failed", None, errors.read_first_line(e)
    if not math.isfinite(value):
        return "failed", None, f"{name} is not a number on the validation split"
    return "complete", scores, scores.note


def _collect_search_result(run: _RunningSearch, names: tuple[str, ...], stopped: str | None, log: bool) -> SearchResult:
    results = tuple(r for name in names if (r := _collect_candidate_result(name, run)))
    rivals = {r.candidate: r for r in results if r.candidate != BASELINE_CANDIDATE}
    if BASELINE_CANDIDATE not in {r.candidate for r in results} or not rivals:
        why = next((t.note for ts in reversed(run.trials.values()) for t in ts if t.note), "nothing was tried")
        raise InputError(f"search: nothing could be judged by {run.metric.name}: {why}. See problem.metric and split")
    leader = search_plan.rank_candidates([n for n in names if n in rivals], run.trials, run.metric)[0]
    remarks = search_plan.describe_search(run.settings, run.bench, rivals[leader].spec.balance, run.trials, log)
    notes = (*remarks, *(f"{r.candidate}: {r.note}" for r in rivals.values() if r.note))
    return SearchResult(results, rivals[leader], stopped, run.fits, notes)


def _collect_candidate_result(name: str, run: _RunningSearch) -> CandidateResult | None:
    trials = tuple(run.trials.get(name, ()))
    top = search_plan.find_best_trial(trials, run.metric)
    if top is None:
        return None
    spec, spent = run.spec(name, top.params), sum(t.seconds for t in trials)
    return CandidateResult(name, spec, top.scores["validation"], top.scores["train"], trials, spent, top.note)
