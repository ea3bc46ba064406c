"""Stored challengers and their losses while production goes on: trained one by one, kept, and scored on what is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windvane.monitoring import window_frames
from windvane.monitoring.history import loss_matrix
from windvane.monitoring.history.loss_matrix import WindowedTable
from windvane.tasks import io
from windvane.tasks.models import own_code
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.models.problem_types.definitions import OwnCode
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.split import time_windows
from windvane.tasks.stores import fingerprint, model_files

# A challenger stands for what was known when it was trained. Where that has grown by more than this share since, it is retrained.
MAX_ROW_GROWTH_SHARE = 0.1


class ChallengerStore:
    """The challengers of one configuration, each named by the moment before which all labelled rows trained it.

    `folder` may be deleted: they are retrained. on_fit: called with the moment before each fit.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        spec: ModelConfiguration,
        on_fit: Callable[[str], None] = lambda start: None,
    ) -> None:
        self._settings, self._spec, self._on_fit = settings, spec, on_fit
        self._folder = folder / _hash_configuration(settings, spec)

    @cached_property
    def _own(self) -> tuple[OwnCode, ...]:
        """The user's own code that the configuration is made with."""
        return own_code.load_project_problem_type(self._settings).list_own_code(self._spec.candidate)

    def challenger(self, cut: WindowedTable, digests: Sequence[str], window: int) -> NDArray[np.float64]:
        """Mean loss per row of the challenger trained before a window, on each window of the cut: NaN before it, and where a
        window has no row. digests: cut.digests().
        """
        path = self._folder / f"{cut.starts[window].replace(':', '')}.json"
        rows, kept = int(cut.edges[window]), _read_kept_model(path)
        if not kept.get("rows", rows + 1) <= rows <= (1 + MAX_ROW_GROWTH_SHARE) * kept.get("rows", 0):
            kept = {}

        def model() -> tuple[Any, FeatureColumns]:
            stored = path.with_suffix(".skops")
            if kept:
                with suppress(LookupError):  # gone or damaged: retrained
                    pipeline = _load_challenger(stored, kept["sha256"], self._own)
                    return pipeline, FeatureColumns(**{k: tuple(v) for k, v in kept["columns"].items()})
            self._on_fit(cut.starts[window])
            train_rows = time_windows.select_recent_rows(cut.rows.iloc[:rows], self._settings)
            if self._settings.data.max_rows is not None:
                train_rows = train_rows.tail(self._settings.data.max_rows)
            pipeline, columns = loss_matrix.fit_configuration(self._settings, self._spec, train_rows)
            sha256 = model_files.save_pipeline(pipeline, stored, self._own)
            kept.clear()
            kept.update(rows=rows, sha256=sha256, columns=asdict(columns), losses={})
            return pipeline, columns

        return self._losses(path, cut, digests, window, kept, model)

    def champion(
        self,
        version: int,
        cut: WindowedTable,
        digests: Sequence[str],
        window: int,
        model: Callable[[], tuple[Any, FeatureColumns]],
    ) -> NDArray[np.float64]:
        """The same of a registered version, which `model` loads, on the windows from `window` on."""
        path = self._folder / f"version-{version}.json"
        return self._losses(path, cut, digests, window, _read_kept_model(path) or {"losses": {}}, model)

    def _losses(
        self,
        path: Path,
        cut: WindowedTable,
        digests: Sequence[str],
        window: int,
        kept: dict[str, Any],
        model: Callable[[], tuple[Any, FeatureColumns]],
    ) -> NDArray[np.float64]:
        """Losses by window: those that are kept, and the others from the model, which is read only then and may fill `kept` anew."""
        filled = [k for k in range(window, cut.count) if cut.edges[k] < cut.edges[k + 1]]
        known = kept.get("losses", {})
        if any(digests[k] not in known for k in filled):
            pipeline, columns = model()
            known = kept["losses"]  # of a retrained model nothing is known
            for k in [k for k in filled if digests[k] not in known]:
                rows = cut.window(k)
                losses = loss_matrix.compute_row_losses(self._settings, pipeline, columns, rows)
                known[digests[k]] = window_frames.average_losses(self._settings.problem, rows, losses)
            io.write_json(kept, path)
        found = np.full(cut.count, np.nan)
        found[filled] = [known[digests[k]] for k in filled]
        return found


@lru_cache(maxsize=64)
def _load_challenger(stored: Path, sha256: str, own: tuple[OwnCode, ...]) -> Any:
    """A stored challenger. Reading one costs more than all that it predicts, and where history is played each is used often.

    Raises LookupError, which is not remembered, where it is gone or damaged.
    """
    pipeline = model_files.load_pipeline(stored, sha256, own)
    if pipeline is None:
        raise LookupError(stored)
    return pipeline


def _hash_configuration(settings: Settings, spec: ModelConfiguration) -> str:
    """What all challengers of a configuration share: problem, history, code and libraries, as a hash."""
    history, code = settings.retrain.history, (Path(__file__), Path(loss_matrix.__file__))
    matters = {
        "spec": spec.to_json(),
        "problem": settings.problem.model_dump(),
        "seed": settings.split.seed,
        "max_rows": settings.data.max_rows,
        "history": (history, settings.monitor.window) if history != "expanding" else None,
        "code": [fingerprint.hash_model_code(), *(hashlib.sha256(path.read_bytes()).hexdigest() for path in code)],
        "own": fingerprint.hash_own_code(settings, spec.to_json()),
        "libraries": fingerprint.list_model_libraries(),
    }
    return hashlib.sha256(json.dumps(matters, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_kept_model(path: Path) -> dict[str, Any]:
    """What is kept of a model; {} if nothing is, or it is damaged, and is made again."""
    return io.read_cache(path, _parse_kept_model) or {}


def _parse_kept_model(content: Any) -> dict[str, Any]:
    losses = {str(window): float(loss) for window, loss in content["losses"].items()}
    if "sha256" not in content:
        return {"losses": losses}
    columns = {k: list(v) for k, v in content["columns"].items()}
    return {"rows": int(content["rows"]), "sha256": str(content["sha256"]), "columns": columns, "losses": losses}
