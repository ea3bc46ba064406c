"""A history in the order in which its rows came, cut into windows; losses of models trained before window i on every window from i on."""

from __future__ import annotations

import hashlib
import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.ledger.database import format_timestamp, to_timestamp
from windvane.monitoring import window_frames
from windvane.monitoring.watch.windows import WindowSpan, find_calendar_start, list_calendar_windows, list_row_windows
from windvane.tasks import io
from windvane.tasks.errors import InputError
from windvane.tasks.models import features, model_pipeline, own_code, own_metrics
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.settings import monitoring_section
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import time_windows
from windvane.tasks.stores import fingerprint
from windvane.tasks.validate import table_profile

# So many windows at least: with fewer there is no first quarter to learn from and no history to play.
MIN_HISTORY_WINDOWS = 8


@dataclass(frozen=True)
class WindowedTable:
    """Rows in order of time, and where each window begins among them: window k is rows edges[k] to edges[k + 1] - 1.

    starts: the windows' first moments as text, for people. gaps: windows before which others without a row were left out.
    """

    rows: pd.DataFrame
    edges: NDArray[np.int64]
    starts: tuple[str, ...]
    gaps: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """How many windows."""
        return len(self.edges) - 1

    def window(self, k: int) -> pd.DataFrame:
        """The rows of window k."""
        return self.rows.iloc[self.edges[k] : self.edges[k + 1]]

    def before(self, k: int, windows: int | None) -> pd.DataFrame:
        """The rows of the `windows` windows before window k; None: of all."""
        first = 0 if windows is None else max(0, k - windows)
        return self.rows.iloc[self.edges[first] : self.edges[k]]

    def digests(self) -> tuple[str, ...]:
        """A hash of each window's rows, in their order: what a loss on it depends on."""
        hashes = pd.util.hash_pandas_object(self.rows, index=False).to_numpy()
        names = ",".join(f"{name}:{dtype}" for name, dtype in self.rows.dtypes.items()).encode()
        parts = (hashes[self.edges[k] : self.edges[k + 1]].tobytes() for k in range(self.count))
        return tuple(hashlib.sha256(names + part).hexdigest()[:16] for part in parts)


def cut_into_windows(rows: pd.DataFrame, time: str, window: str | int) -> WindowedTable:
    """Rows by windows of a duration (`7d`, `1mo`) or of a number of rows; a last window that is not, or may not be, full is left out.

    By duration, windows lie on the calendar as production's do (tasks/split/time_windows.py); those without a row are left out. By rows,
    rows of one moment may fall on both sides of an edge. Raises InputError if there are fewer than FEWEST.
    """
    try:
        size = monitoring_section.parse_window_length(window)
    except ValueError as e:
        raise InputError(f"monitor.window: {e}") from None
    ordered, gaps = rows.sort_values(time, kind="stable").reset_index(drop=True), frozenset[int]()
    if size.rows is not None:
        edges = np.arange(0, len(ordered) + 1, size.rows, dtype=np.int64)
    elif pd.api.types.is_datetime64_any_dtype(ordered[time]):
        steps = np.diff(time_windows.number_windows(ordered[time], size))
        edges = np.concatenate([[0], np.flatnonzero(steps) + 1]).astype(np.int64)
        gaps = frozenset((np.flatnonzero(steps[steps > 0] > 1) + 1).tolist())
    else:
        raise InputError(f"monitor.window: {window} is a duration, but problem.time is a number. Give a number of rows")
    if len(edges) - 1 < MIN_HISTORY_WINDOWS:
        raise InputError(
            f"monitor.window: {window} cuts the table into {max(len(edges) - 1, 0)} full windows, and fewer than "
            f"{MIN_HISTORY_WINDOWS} are no history. Name a shorter window"
        )
    starts = tuple(str(ordered[time].iloc[e]) for e in edges[:-1])
    return WindowedTable(ordered.iloc[: edges[-1]], edges, starts, gaps)


# The share of the windows that train the first champion, and of a champion's windows that are its held-out record.
FIRST_CHAMPION_SHARE, HELD_OUT_SHARE = 0.25, 0.15


@dataclass(frozen=True)
class LossMatrix:
    """losses[i, j] (W, W): mean loss per row on window j of the model trained on rows before window i; NaN where j < i and for
    models never needed. first: the first window that is played; its model is the first champion. trailing: windows that train
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
        """A champion's mean loss per window on its own held-out windows, which is known when it is trained."""
        return float(self.held_out(model).mean())

    def held_out(self, model: int) -> NDArray[np.float64]:
        """The losses on a champion's held-out windows: those at the end of its training data, scored by the same configuration
        trained on what lies before them.
        """
        held = count_held_out_windows(model, self.trailing)
        return self.losses[model - held, model - held : model]


@dataclass(frozen=True)
class MatrixJob:
    """What a row of the matrix needs: which rows train, with which configuration."""

    cut: WindowedTable
    settings: Settings
    spec: ModelConfiguration
    trailing: int | None


def make_matrix_job(
    cut: WindowedTable, settings: Settings, spec: ModelConfiguration, window: str | int, history: str
) -> MatrixJob:
    """By windows as the rows were cut, and a history as retrain.history has it, whatever `settings` hold. Raises ValueError."""
    monitor = settings.monitor.model_copy(update={"window": window})
    retrain = settings.retrain.model_copy(update={"history": history})
    return MatrixJob(cut, settings.model_copy(update={"monitor": monitor, "retrain": retrain}), spec, retrain.trailing)


def find_first_window(windows: int) -> int:
    """The first window that is played: a quarter of them lie before it."""
    return max(2, round(FIRST_CHAMPION_SHARE * windows))


def count_held_out_windows(model: int, trailing: int | None) -> int:
    """How many windows before `model` are its held-out record."""
    trained = model if trailing is None else min(model, trailing)
    return max(1, min(round(HELD_OUT_SHARE * trained), model - 1))


def build_loss_matrix(
    job: MatrixJob, kept: Path | None, cores: int, report: Callable[[int, int], None] = lambda done, of: None
) -> LossMatrix:
    """The matrix of a history; rows found in the folder `kept` under their fingerprints are not fitted again.

    Same arguments, same losses, whatever `cores` and `kept`. `report` is called with (models done, of all) after each.
    """
    models, rows = _list_models(job), _KeptRows(job, kept)
    losses = np.full((job.cut.count, job.cut.count), np.nan)
    missing = []
    for i in models:
        if (row := rows.read(i)) is not None:
            losses[i, i:] = row
        else:
            missing.append(i)
    for done, (i, computed) in enumerate(_compute_rows(job, missing, cores), len(models) - len(missing) + 1):
        losses[i, i:] = computed
        rows.write(i, computed)
        report(done, len(models))
    return LossMatrix(losses, find_first_window(job.cut.count), job.trailing)


def measure_missing_models(job: MatrixJob, kept: Path) -> tuple[int, float]:
    """How many models of the matrix are still to be fitted, and how many seconds the middle one of them took, which is kept."""
    rows = _KeptRows(job, kept)
    missing = [i for i in _list_models(job) if rows.read(i) is None]
    if not missing:
        return 0, 0.0
    began, middle = time.monotonic(), missing[len(missing) // 2]
    rows.write(middle, compute_matrix_row(job, middle))
    return len(missing) - 1, time.monotonic() - began


def _list_models(job: MatrixJob) -> range:
    """The models that are needed, by the window before which they are trained."""
    first = find_first_window(job.cut.count)
    return range(first - count_held_out_windows(first, job.trailing), job.cut.count)


class _KeptRows:
    """Rows of the matrix that were computed before, in a folder; None: nothing is kept."""

    def __init__(self, job: MatrixJob, kept: Path | None) -> None:
        self._kept, self._digests = kept, job.cut.digests()
        self._names = {i: _hash_model(job, self._digests, i) for i in _list_models(job)}

    def read(self, model: int) -> list[float] | None:
        known, wanted = _read_kept_losses(self._kept, self._names[model]), self._digests[model:]
        return [known[d] for d in wanted] if all(d in known for d in wanted) else None

    def write(self, model: int, row: NDArray[np.float64]) -> None:
        if self._kept is not None:
            name = self._names[model]
            known = _read_kept_losses(self._kept, name) | dict(zip(self._digests[model:], row.tolist(), strict=True))
            io.write_json(known, self._kept / f"{name}.json")


def compute_matrix_row(job: MatrixJob, model: int) -> NDArray[np.float64]:
    """Mean loss per row of the model trained before window `model`, on each window from it on: (W - model,)."""
    pipeline, columns = fit_configuration(job.settings, job.spec, job.cut.before(model, job.trailing))
    rows = job.cut.rows.iloc[job.cut.edges[model] :]
    loss = compute_row_losses(job.settings, pipeline, columns, rows)
    pieces = pairwise(job.cut.edges[model:] - job.cut.edges[model])
    problem = job.settings.problem
    return np.array([window_frames.average_losses(problem, rows.iloc[a:b], loss[a:b]) for a, b in pieces])


def fit_configuration(settings: Settings, spec: ModelConfiguration, rows: pd.DataFrame) -> tuple[Any, FeatureColumns]:
    """The configuration's pipeline fitted on labelled rows, and the columns that it reads."""
    # Training columns are decided from the training rows alone: what comes later may not be known.
    columns = features.select_feature_columns(settings, table_profile.profile_table(rows))
    task = ModelTask(settings, own_code.load_project_problem_type(settings, settings.problem.positive), columns, 1)
    return model_pipeline.fit_with_settings(task, spec, rows), columns


def compute_row_losses(
    settings: Settings, pipeline: Any, columns: FeatureColumns, rows: pd.DataFrame
) -> NDArray[np.float64]:
    """A fitted pipeline's loss on each of some labelled rows (n,)."""
    kind = own_metrics.load_measured_problem_type(settings.problem, settings.problem.positive)
    with model_pipeline.limit_to_one_thread():
        predictions = kind.predict(pipeline, features.conform_frame(rows, columns, "the table"))
    return kind.loss(kind.truth(rows[settings.problem.target]), predictions, settings.problem.headline)


def _compute_rows(job: MatrixJob, models: Sequence[int], cores: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(model, its row) as they get done; the longest fits first, so that no core waits for one at the end."""
    if cores < 2 or len(models) < 2:
        yield from ((i, compute_matrix_row(job, i)) for i in models)
        return
    # Processes of their own: fits hold the interpreter's lock for most of their time on tables of this size.
    with ProcessPoolExecutor(min(cores, len(models)), get_context("spawn"), _set_worker_job, (job,)) as pool:
        pending = {pool.submit(_compute_worker_row, i): i for i in sorted(models, reverse=job.trailing is None)}
        for done in as_completed(pending):
            yield pending[done], done.result()


_worker_job: MatrixJob | None = None


def _set_worker_job(job: MatrixJob) -> None:
    """In a worker: what all of its fits share, sent once."""
    global _worker_job  # noqa: PLW0603
    _worker_job = job


def _compute_worker_row(model: int) -> NDArray[np.float64]:
    assert _worker_job is not None
    return compute_matrix_row(_worker_job, model)


def _hash_model(job: MatrixJob, digests: Sequence[str], model: int) -> str:
    """Fingerprint of a fitted model: the training rows, configuration, problem, code and libraries."""
    first = 0 if job.trailing is None else max(0, model - job.trailing)
    matters = {
        "rows": digests[first:model],
        "spec": job.spec.to_json(),
        "problem": job.settings.problem.model_dump(),
        "seed": job.settings.split.seed,
        "combined": job.settings.retrain.combined and [job.settings.retrain.combined, job.settings.monitor.window],
        "code": [fingerprint.hash_model_code(), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()],
        "own": fingerprint.hash_own_code(job.settings, job.spec.to_json()),
        "libraries": fingerprint.list_model_libraries(),
    }
    return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _read_kept_losses(kept: Path | None, name: str) -> dict[str, Any]:
    """Losses by window digest, {} if none are kept, or they are damaged."""
    if kept is None:
        return {}
    return io.read_cache(kept / f"{name}.json", lambda c: {str(k): float(v) for k, v in c.items()}) or {}


@dataclass(frozen=True)
class RowArrivals:
    """A table's rows in the order of time, and when each came (ledger text). Labels come so much later than their rows."""

    rows: pd.DataFrame
    times: list[str]
    delay: timedelta

    def known_at(self, now: str) -> tuple[int, int]:
        """How many rows had come before a moment, and how many of them could have their label."""
        come = bisect_left(self.times, now)
        late = format_timestamp(datetime.fromisoformat(now) - self.delay)
        return come, min(come, bisect_right(self.times, late))

    def between(self, start: str, end: str) -> slice:
        """Where the rows from a moment (included) to another (not) are."""
        return slice(bisect_left(self.times, start), bisect_left(self.times, end))

    def places(self, window: WindowLength, begin: str, now: str) -> list[WindowSpan]:
        """The windows from `begin` on that are over at `now` and have rows."""
        # The first row after it shows that a window of rows is full.
        new = self.times[bisect_left(self.times, begin) : bisect_left(self.times, now) + 1]
        if not new:
            return []
        if window.rows is None:
            found = list_calendar_windows(new[0], new[-1], window, begin, now)
        else:
            found = list_row_windows(new, window.rows, begin)
        filled = ((place, self.between(place.start, place.end)) for place in found if place.closed and place.end <= now)
        return [place for place, at in filled if at.stop > at.start]


def order_arrivals(rows: pd.DataFrame, time: str, delay: timedelta) -> RowArrivals:
    """A table's rows as they came."""
    ordered = rows.sort_values(time, kind="stable").reset_index(drop=True)
    return RowArrivals(ordered, [to_timestamp(value) for value in ordered[time].tolist()], delay)


def find_replay_start(known: RowArrivals, settings: Settings, since: str | None) -> str:
    """Where play begins, ledger text: at the first window after the first quarter of them, or with the one that holds the first
    row from `since` on. Raises InputError.
    """
    time, window = str(settings.problem.time), settings.monitor.window
    cut = cut_into_windows(known.rows, time, window)
    at = int(cut.edges[find_first_window(cut.count)])
    if since is not None:
        try:
            at = bisect_left(known.times, to_timestamp(since))
        except ValueError as e:
            raise InputError(f"--from: {e}") from None
        if not known.times[0] < known.times[min(at, len(known.times) - 1)] or at == len(known.times):
            raise InputError(
                f"--from: {since} leaves no rows before it to train on, or none after it to play: the table goes from "
                f"{known.times[0][:10]} to {known.times[-1][:10]}. Name a date in between"
            )
    if settings.monitor.cut.rows is not None:
        return known.times[at]
    return format_timestamp(find_calendar_start(known.times[at], settings.monitor.cut))
