"""Losses of models taught before window i on every window j from i on. Fits and scores; plays no policy.

After the cost matrix of Mahadevan & Mathioudakis, "Cost-aware retraining for machine learning", Knowledge-Based Systems 293
(2024): whoever holds it can play any schedule of retraining in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring.history.windows import Cut
from windvane.tasks import estimators, features, fingerprint, problems, profile, tables
from windvane.tasks.estimators import Spec
from windvane.tasks.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.features import Columns

# The share of the windows that teach the first champion, and of a champion's windows that are its held-out record.
FIRST, HELD_OUT = 0.25, 0.15


@dataclass(frozen=True)
class Matrix:
    """losses[i, j] (W, W): mean loss per row on window j of the model taught on rows before window i; NaN where j < i and for
    models never needed. first: the first window that is played; its model is the first champion. trailing: windows that teach
    (None: all before).
    """

    losses: NDArray[np.float64]
    first: int
    trailing: int | None

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.losses)

    def record(self, model: int) -> float:
        """A champion's mean loss per window on its own held-out windows: those at the end of what taught it, scored by the same
        configuration taught on what lies before them. It is known when the model is taught.
        """
        return float(self.held_out(model).mean())

    def held_out(self, model: int) -> NDArray[np.float64]:
        """The losses that record() averages, one for each held-out window."""
        held = held_out(model, self.trailing)
        return self.losses[model - held, model - held : model]


@dataclass(frozen=True)
class Job:
    """What a row of the matrix needs: which rows teach, with which configuration. See job()."""

    cut: Cut
    settings: Settings
    spec: Spec
    trailing: int | None
    sample: int | None = None


def job(cut: Cut, settings: Settings, spec: Spec, window: str | int, history: str) -> Job:
    """By windows as the rows were cut, and a history as retrain.history has it, whatever `settings` say. Raises ValueError."""
    monitor = settings.monitor.model_copy(update={"window": window})
    retrain = settings.retrain.model_copy(update={"history": history})
    return Job(cut, settings.model_copy(update={"monitor": monitor, "retrain": retrain}), spec, retrain.trailing)


def first_window(windows: int) -> int:
    """The first window that is played: a quarter of them lie before it."""
    return max(2, round(FIRST * windows))


def held_out(model: int, trailing: int | None) -> int:
    """How many windows before `model` are its held-out record."""
    taught = model if trailing is None else min(model, trailing)
    return max(1, min(round(HELD_OUT * taught), model - 1))


def build(
    job: Job, kept: Path | None, cores: int, report: Callable[[int, int], None] = lambda done, of: None
) -> Matrix:
    """The matrix of a history; rows found in the folder `kept` under their fingerprints are not fitted again.

    Same arguments, same losses, whatever `cores` and `kept`. `report` is told (models done, of all) after each.
    """
    count, first = job.cut.count, first_window(job.cut.count)
    models = range(first - held_out(first, job.trailing), count)
    digests = job.cut.digests()
    names = {i: _name(job, digests, i) for i in models}
    losses = np.full((count, count), np.nan)
    missing = []
    for i in models:
        known = _read(kept, names[i])
        if all(d in known for d in digests[i:]):
            losses[i, i:] = [known[d] for d in digests[i:]]
        else:
            missing.append(i)
    done = len(models) - len(missing)
    for i, row in _rows(job, missing, cores):
        losses[i, i:] = row
        if kept is not None:
            known = _read(kept, names[i]) | dict(zip(digests[i:], (float(v) for v in row), strict=True))
            tables.write_json(known, kept / f"{names[i]}.json")
        done += 1
        report(done, len(models))
    return Matrix(losses, first, job.trailing)


def row(job: Job, model: int) -> NDArray[np.float64]:
    """Mean loss per row of the model taught before window `model`, on each window from it on: (W - model,)."""
    taught = job.cut.before(model, job.trailing)
    if job.sample is not None and len(taught) > job.sample:
        drawn = np.random.default_rng([job.settings.split.seed, model]).choice(len(taught), job.sample, replace=False)
        taught = taught.iloc[np.sort(drawn)]
    pipeline, columns = teach(job.settings, job.spec, taught)
    loss = losses(job.settings, pipeline, columns, job.cut.rows.iloc[job.cut.edges[model] :])
    edges = job.cut.edges[model:] - job.cut.edges[model]
    return np.asarray(np.add.reduceat(loss, edges[:-1]) / np.diff(edges))


def teach(settings: Settings, spec: Spec, rows: pd.DataFrame) -> tuple[Any, Columns]:
    """The configuration's pipeline fitted on labelled rows, and the columns that it reads."""
    # Which columns teach is decided from the rows that teach alone: what comes later may not be known.
    columns = features.columns(settings, profile.of(rows))
    return estimators.taught(settings, spec, problems.of(settings.problem.kind), columns, rows, 1), columns


def losses(settings: Settings, pipeline: Any, columns: Columns, rows: pd.DataFrame) -> NDArray[np.float64]:
    """A fitted pipeline's loss on each of some labelled rows (n,)."""
    kind = problems.of(settings.problem.kind)
    with estimators.one_thread():
        said = kind.predict(pipeline, features.conform(rows, columns, "the table"))
    return kind.loss(kind.truth(rows[settings.problem.target]), said, settings.problem.headline)


def _rows(job: Job, models: Sequence[int], cores: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(model, its row) as they get done; the longest fits first, so that no core waits for one at the end."""
    if cores < 2 or len(models) < 2:
        yield from ((i, row(job, i)) for i in models)
        return
    # Processes of their own: fits hold the interpreter's lock for most of their time on tables of this size.
    with ProcessPoolExecutor(min(cores, len(models)), get_context("spawn"), _take, (job,)) as pool:
        pending = {pool.submit(_row, i): i for i in sorted(models, reverse=job.trailing is None)}
        for done in as_completed(pending):
            yield pending[done], done.result()


_job: Job | None = None


def _take(job: Job) -> None:
    """In a worker: what all of its fits share, told once."""
    global _job  # noqa: PLW0603
    _job = job


def _row(model: int) -> NDArray[np.float64]:
    assert _job is not None
    return row(_job, model)


def _name(job: Job, digests: Sequence[str], model: int) -> str:
    """Fingerprint of a fitted model: the rows that teach it, configuration, problem, code and libraries."""
    first = 0 if job.trailing is None else max(0, model - job.trailing)
    matters = {
        "rows": digests[first:model],
        "spec": job.spec.to_json(),
        "problem": job.settings.problem.model_dump(),
        "seed": job.settings.split.seed,
        "combined": job.settings.retrain.combined and [job.settings.retrain.combined, job.settings.monitor.window],
        "sample": job.sample and [job.sample, model],
        "code": [fingerprint.code(), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()],
        "libraries": fingerprint.libraries(),
    }
    return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _read(kept: Path | None, name: str) -> dict[str, Any]:
    """Losses by window digest, {} if none are kept, or they are damaged."""
    if kept is None:
        return {}
    return tables.read_cache(kept / f"{name}.json", lambda c: {str(k): float(v) for k, v in c.items()}) or {}
