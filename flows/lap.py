"""One lap's context: who runs it, under which lease, and where its work in progress lies.

Opened by the command line before Prefect is imported, or by the flow itself when a schedule starts it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal
from uuid import uuid4

from flows.console import Console
from flows.outcome import Outcome
from flows.project import Project
from ledger import laps, leases, retention, versions
from tasks import fingerprint, versioning
from tasks.errors import InputError

Depth = Literal["search", "refit"]
CURRENT: ContextVar[Lap | None] = ContextVar("CURRENT", default=None)


class Lap:
    """A lap that holds the project's lease."""

    def __init__(self, project: Project, lease: leases.Lease, cause: str, depth: Depth, console: Console) -> None:
        self.project = project
        self.lease = lease
        self.cause = cause
        self.depth: Depth = depth
        self.console = console
        self.id = uuid4().hex
        self.fits = 0
        self._counting = threading.Lock()
        self.run_id: str | None = None
        self.trial_runs = False
        self.fetched = False
        # Why the rows must not be learned from: found beside the search, which ends at its next trial.
        self.stopped: InputError | None = None
        self.steps: dict[str, float] = {}
        self._started = time.monotonic()

    def fitted(self, models: int) -> None:
        """Count fitted models; steps that run side by side both do."""
        with self._counting:
            self.fits += models

    @property
    def seconds(self) -> float:
        """Since the lap got its lease."""
        return round(time.monotonic() - self._started, 2)

    def fingerprint(self, data_version: str) -> str:
        """What the version that this lap would make is made from."""
        spec = None
        if self.depth == "refit":
            champion = versions.champion(self.project.ledger, self.project.name)
            if champion is None:
                raise InputError(
                    "there is no champion whose configuration could be refitted. Run `windvane train` first"
                )
            spec = champion.facts["spec"]
        return fingerprint.of(self.project.settings, data_version, self.depth, spec)

    def folder(self, mark: str) -> Path:
        """Work in progress on this fingerprint: survives a kill, is deleted when the lap ends well."""
        return self.project.home / "laps" / mark

    def clear(self, mark: str) -> None:
        """Delete the work in progress: everything in it is now in MLflow and the ledger."""
        shutil.rmtree(self.folder(mark), ignore_errors=True)


@contextmanager
def opened(project: Project, cause: str, depth: Depth, console: Console) -> Iterator[Lap]:
    """Wait for the lease and hold it; whoever is waited for is named on the screen."""

    def waiting(holder: leases.Holder) -> None:
        console.say(f"waiting for {holder}")

    with leases.hold(project.ledger, project.name, "windvane train", waiting) as lease:
        lap = Lap(project, lease, cause, depth, console)
        token = CURRENT.set(lap)
        try:
            yield lap
        finally:
            CURRENT.reset(token)


def unchanged(lap: Lap) -> Outcome | None:
    """The earlier outcome, when neither data, params, code nor gate have changed since; else None.

    A look at DVC and the ledger only: imports neither scikit-learn, MLflow nor Prefect.
    """
    engine, name = lap.project.ledger, lap.project.name
    last = versions.last_promotion(engine, name)
    if laps.abandoned(engine, lap.lease) or (last is not None and not last.told):
        return None
    with versioning.pipeline(lap.project.root) as stages:
        data_version = stages.version() if stages.clean() else None
    if data_version is None:
        return None
    version = versions.built_from(engine, name, lap.fingerprint(data_version))
    if version is None:
        return None
    judgement = versions.judged(engine, name, version.version, fingerprint.gate(lap.project.settings))
    if judgement is None:
        return None
    before = Outcome.from_json(judgement.verdict["outcome"])
    waited = f" Waited for {' and '.join(lap.lease.waited_for)}." if lap.lease.waited_for else ""
    reason = (
        f"data, params, code and gate are those of version {version.version} "
        f"({'promoted' if judgement.accepted else 'refused'} {judgement.judged[:19]}Z).{waited}"
    )
    serving = None if last is None else last.to_version
    return Outcome.from_json(
        {
            **before.to_json(),
            "verdict": "unchanged",
            "reason": reason,
            "champion": serving,
            "fits": 0,
            "steps": {},
            "seconds": lap.seconds,
        }
    )


@contextmanager
def recorded(lap: Lap) -> Iterator[None]:
    """Begin and end the lap in the ledger: finished, or failed with its error; a killed lap stays `running`."""
    engine = lap.project.ledger
    laps.start(engine, lap.lease, lap.id, lap.cause)
    try:
        yield
    except BaseException:
        laps.end(engine, lap.id, "failed")
        if lap.run_id is not None:
            lap.project.tracker.abandon(lap.id)
        raise


def finish(lap: Lap, outcome: Outcome) -> None:
    """Record that the lap ended well; then the ledger lets go of what it has kept long enough."""
    laps.end(lap.project.ledger, lap.id, "finished", outcome.to_json())
    if (keep := lap.project.settings.ledger.keeps) is not None:
        retention.expire(lap.project.ledger, lap.project.name, keep)
