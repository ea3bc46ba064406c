"""The context of one lap: its cause and depth, its lease, its decision, and where its work in progress lies.

Opens, claims, records and ends a lap. Also how its steps are called: as plain functions here, as tasks of Prefect in
flows/steps.py; their order is flows/training.py's. Imports nothing heavy.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import uuid4

from windvane.ledger import decisions, laps, predictions, versions
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.versions import Version
from windvane.monitoring.records import LapDepth
from windvane.monitoring.watch import notifications
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, WindvaneError
from windvane.tasks.lap_outcome import LapOutcome, describe_version_outcome
from windvane.tasks.project import EXPLORING_PREFIX, Project
from windvane.tasks.sources import fetch
from windvane.tasks.sources.fetch import FetchResult
from windvane.tasks.stores import dvc_pipeline, fingerprint

# Why a lap runs that nothing but schedule.train started.
SCHEDULED_CAUSE = "scheduled"


@dataclass(frozen=True, eq=False)
class LapContext:
    """A lap that holds the project's lease.

    decision: what it carries out, from the ledger. trial_runs: a run in MLflow for each trial. exploring: it ends with the search
    (flows/exploration.py). on_record: the ledger knows that it runs. started: by the monotonic clock, when it got its lease.
    """

    project: Project
    lease: laps.Lease
    cause: str
    depth: LapDepth
    console: Console
    id: str = field(default_factory=lambda: uuid4().hex)
    decision: DecisionRecord | None = None
    trial_runs: bool = False
    exploring: bool = False
    on_record: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the lap got its lease."""
        return round(time.monotonic() - self.started, 2)

    @property
    def remedy(self) -> str | None:
        """What the decision that this lap carries out wants done, where that is more than its depth implies."""
        return "labels" if self.decision is not None and self.decision.remedy == "labels" else None

    def folder(self, hashed: str) -> Path:
        """Work in progress on this fingerprint: survives a kill, is deleted when the lap ends well.

        An exploring lap has its own: a lap that goes on after a kill must keep the test rows that it opened.
        """
        return self.project.home / "laps" / (f"{EXPLORING_PREFIX}{hashed}" if self.exploring else hashed)


def compute_fingerprint(lap: LapContext, data_version: str) -> str:
    """The fingerprint of the version that this lap would make from a data version."""
    spec = None
    if lap.depth == "refit":
        champion = versions.find_champion(lap.project.ledger, lap.project.name)
        if champion is None:
            raise InputError("there is no champion whose configuration could be refitted. Run `windvane train` first")
        spec = champion.facts.spec
    return fingerprint.compute_fingerprint(lap.project.settings, data_version, lap.depth, spec, lap.remedy)


def clear(lap: LapContext, hashed: str) -> None:
    """Delete the work in progress: everything in it is now in MLflow and the ledger. With it what an exploring lap found."""
    for one in (lap, replace(lap, exploring=True)):
        shutil.rmtree(one.folder(hashed), ignore_errors=True)


@contextmanager
def open_lap(project: Project, cause: str, depth: LapDepth, console: Console) -> Iterator[LapContext]:
    """Wait for the lease and hold it; the holder is named on the screen."""
    engine, name = project.ledger, project.name
    with laps.hold_lease(engine, name, "windvane train", lambda held: console.print(f"waiting for {held}")) as lease:
        yield LapContext(project, lease, cause, depth, console)


def claim_lap_decision(lap: LapContext, decision: str | None) -> LapContext | None:
    """The lap with the decision made its own, with its depth and remedy; None: it has ended, and there is nothing to be done."""
    if decision is None:
        return _use_stored_code(lap)
    entry = decisions.claim_decision(lap.project.ledger, lap.lease, decision, lap.id)
    if entry is None:
        lap.console.print(f"  the decision {decision[:12]} was carried out already, or given up: nothing to do")
        return None
    cause = f"watch: {entry.reason.split('; ')[0]}"[:200]
    return _use_stored_code(
        replace(lap, decision=entry, cause=cause, depth="search" if entry.depth == "search" else "refit")
    )


def _use_stored_code(lap: LapContext) -> LapContext:
    """A refit takes what is gone of the user's own code from the text that the champion was stored with."""
    if lap.depth != "refit":
        return lap
    champion = versions.find_champion(lap.project.ledger, lap.project.name)
    settings = lap.project.refit_settings(champion)
    if champion is None or settings is lap.project.settings:
        return lap
    lap.console.print(
        f"  note: what is gone of the project's own code is used as version {champion.version} was stored with it"
    )
    return replace(lap, project=lap.project.with_settings(settings))


def find_stopped_outcome(lap: LapContext) -> LapOutcome | None:
    """The end of a schedule's lap that would train on data that monitoring has called broken; else None. A person's lap goes on."""
    engine, name = lap.project.ledger, lap.project.name
    stop = decisions.find_open_stop(engine, name) if lap.cause == SCHEDULED_CAUSE else None
    champion = None if stop is None else versions.find_champion(engine, name)
    if stop is None or champion is None:
        return None
    return _repeat_outcome(lap, champion, f"monitoring stopped scheduled laps: {stop.reason}", {})


def find_unchanged_outcome(lap: LapContext) -> LapOutcome | None:
    """The earlier outcome, when neither data, params, code nor gate have changed since; else None.

    Reads DVC and the ledger only: imports neither scikit-learn, MLflow nor Prefect.
    """
    engine, name = lap.project.ledger, lap.project.name
    last = versions.find_last_promotion(engine, name)
    if laps.list_abandoned_laps(engine, lap.lease) or (last is not None and not last.told):
        return None
    with dvc_pipeline.open_dvc_pipeline(lap.project.root) as stages:
        data_version = stages.version() if stages.clean() else None
    if data_version is None:
        return None
    champion = versions.find_champion(engine, name)
    if lap.decision is not None and champion is not None and champion.data_version == data_version:
        return make_no_new_rows_outcome(lap, champion)
    version = versions.find_version_by_fingerprint(engine, name, compute_fingerprint(lap, data_version))
    if version is None:
        return None
    gate = fingerprint.hash_gate_settings(lap.project.settings)
    judgement = versions.find_judgement(engine, name, version.version, gate)
    if judgement is None:
        return None
    waited = f" Waited for {' and '.join(lap.lease.waited_for)}." if lap.lease.waited_for else ""
    reason = (
        f"data, params, code and gate are those of version {version.version} "
        f"({'promoted' if judgement.accepted else 'refused'} {judgement.judged[:19]}Z).{waited}"
    )
    return _repeat_outcome(lap, version, reason, judgement.verdict["outcome"])


def make_no_new_rows_outcome(lap: LapContext, champion: Version) -> LapOutcome:
    """The end of a lap that was to learn from what is new, where nothing is."""
    reason = f"no new rows since version {champion.version} was trained"
    return _repeat_outcome(lap, champion, reason, {})


def _repeat_outcome(lap: LapContext, version: Version, reason: str, more: dict[str, Any]) -> LapOutcome:
    """What a version's own lap came to, with nothing done now."""
    last = versions.find_last_promotion(lap.project.ledger, lap.project.name)
    values = {**describe_version_outcome(version), "depth": lap.depth, "judgement": 0, **more}
    now = {"fits": 0, "steps": {}, "seconds": lap.seconds, "champion": None if last is None else last.to_version}
    return LapOutcome.from_json({**values, **now, "verdict": "unchanged", "reason": reason})


@contextmanager
def track_lap(lap: LapContext) -> Iterator[LapContext]:
    """The lap on record: started in the ledger, and ended there as failed with its error; a killed one stays `running`."""
    if lap.on_record:  # a decision's lap is on record since its first check
        yield lap
        return
    engine = lap.project.ledger
    laps.record_lap_start(engine, lap.lease, lap.id, lap.cause)
    try:
        yield replace(lap, on_record=True)
    except BaseException as e:
        if isinstance(e, InputError):  # a retry fixes no table: the decision ends here, and a person is notified
            decisions.finish_claimed_decision(engine, lap.lease, lap.id, "skipped", f"the lap stopped: {e}")
        known = laps.find_running_lap(engine, lap.project.name, lap.lease.token)
        if known is None or known.mlflow_run is None or _close_runs(lap):
            laps.record_lap_end(engine, lap.id, "failed")
        raise


def _close_runs(lap: LapContext) -> bool:
    """Whether the lap's runs in MLflow could be closed. False: it no longer responds, and the next lap closes this one and them."""
    try:
        lap.project.tracker.abandon(lap.id)
    except WindvaneError:
        return False
    return True


def finish_lap(lap: LapContext, outcome: LapOutcome) -> None:
    """Record that the lap ended well, and first what came of its decision; then the ledger lets go of what is old enough."""
    engine, keep = lap.project.ledger, lap.project.settings.ledger.keeps
    if lap.decision is not None:
        decisions.finish_claimed_decision(engine, lap.lease, lap.id, "skipped", f"no new rows: {outcome.reason}")
    laps.record_lap_end(engine, lap.id, "finished", outcome.to_json())
    if lap.decision is not None or outcome.verdict in ("promoted", "refused"):
        notifications.notify_of_lap(lap.project, outcome)
    if keep is not None:
        predictions.expire_predictions(engine, lap.project.name, keep)
    if (versions_kept := lap.project.settings.retention.versions) is not None:
        from windvane.flows import cleanup

        cleanup.clean_after_lap(lap.project, lap.lease, versions_kept, lap.console)


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Running(Protocol[R_co]):
    """A step that was started and may run beside others."""

    def result(self) -> R_co:
        """Wait for its end; what it returned. Raises what it raised."""


class Runner(ABC):
    """Calls steps; `seconds`: how long those took that are timed, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @abstractmethod
    def __call__(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do a step and return what it returns."""

    @abstractmethod
    def submit(self, step: Callable[..., R], *args: Any) -> Running[R]:
        """Begin a step; where an argument is a step that runs, it is given that one's result."""


class DirectRunner(Runner):
    """One after the other, in this thread.

    instead: what replaces each step where a lap is simulated; a step that is not in it is a KeyError. None: the steps themselves.
    """

    def __init__(self, instead: Mapping[Callable[..., Any], Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self._instead = instead

    def __call__(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""
        work: Callable[..., R] = step if self._instead is None else self._instead[step]
        return work(*args, **kwargs)

    def submit(self, step: Callable[..., R], *args: Any) -> Running[R]:
        """Call it now: a failure is raised here, before whatever would have run beside it."""
        ended: Future[R] = Future()
        ended.set_result(self(step, *(a.result() if isinstance(a, Future) else a for a in args)))
        return ended


def run_fetch_step(lap: LapContext, known: FetchResult | None = None) -> FetchResult:
    """Source -> snapshot; `known`: how that ended where this lap did so already."""
    return fetch.update_source_snapshot(lap.project, lap.console) if known is None else known
