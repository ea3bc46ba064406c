"""The evidence for the policy `regret`: losses of the champion and of challengers trained since, on labelled rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.ledger import versions, windows
from windvane.monitoring import window_frames
from windvane.monitoring.history.challenger_store import ChallengerStore
from windvane.monitoring.history.loss_matrix import WindowedTable
from windvane.monitoring.policy import regret
from windvane.monitoring.policy.regret import PolicyInput
from windvane.monitoring.records import PolicyAdvice
from windvane.monitoring.watch.production import Production
from windvane.tasks.console import Console
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.ingest import table_io
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.settings.project_params import Settings

# So many challengers are scored on each new window; older ones add nothing about the champion.
MAX_CHALLENGERS = 60


class ChallengerLosses:
    """Of one pass over a champion's windows. Rows are read and models trained when the first advice is requested."""

    def __init__(self, production: Production, console: Console) -> None:
        self._production, self._console = production, console
        self._project, self._champion = production.project, production.champion
        self._losses: dict[int, NDArray[np.float64]] = {}

    def advice(self, at: str) -> PolicyAdvice:
        """What is known at a moment (ledger text): of windows that are over by then, their labels' delay too. Losses and gain in the
        champion's mean losses per window on its own held-out rows.
        """
        retrain, late = self._project.settings.retrain, self._project.settings.monitor.delay
        over = sum(datetime.fromisoformat(end) + late <= datetime.fromisoformat(at) for _, end in self._places)
        # No row is read for a champion that has no window behind it.
        labelled = np.flatnonzero(np.diff(self._cut.edges[: over + 1]) > 0) if over > self._born else np.array([])
        if not (labelled >= self._born).any():
            since = f"since version {self._champion.version} was trained"
            return PolicyAdvice(False, f"no labelled rows of a whole window {since}", blind_since="")
        record = self._production.record
        reference = window_frames.average_losses(self._project.settings.problem, record, record[LOSS_COLUMN].to_numpy())
        if not reference > 0:
            return PolicyAdvice(False, "the champion's own record has no loss, and a lap no price")
        # Each champion had a challenger every so many windows; those of the earlier ones stand for the past.
        every, models, begin = regret.choose_challenger_interval(retrain.cost), list[int](), 0
        for group in self._lineage:
            models += range(begin + every, begin + len(group), every)
            begin += len(group)
        models = [k for k in models if k <= labelled[-1]][-MAX_CHALLENGERS:]
        # By the number of labelled windows before it: of several the newest, and the champion before all.
        trained = {int(np.searchsorted(labelled, k)): k for k in [*models, self._born]}
        order = sorted(trained)
        losses = np.array([self._of(trained[k])[labelled] for k in order]) / reference
        serving = order.index(int(np.searchsorted(labelled, self._born)))
        past = PolicyInput(np.array(order), losses, serving, order[serving], np.ones(1), retrain.cost, len(labelled))
        advice, seen = regret.advise_by_regret(past), int(labelled[-1]) + 1
        return advice if seen == over else replace(advice, blind_since=self._places[seen][0])

    def _of(self, window: int) -> NDArray[np.float64]:
        """Losses of the model trained before a window, by window; the champion's if that is its first."""
        if window in self._losses:
            return self._losses[window]
        if window == self._born:
            version = self._champion.version
            found = self._shelf.champion(version, self._cut, self._digests, window, self._model)
        else:
            found = self._shelf.challenger(self._cut, self._digests, window)
        self._losses[window] = found
        return found

    def _model(self) -> tuple[Any, FeatureColumns]:
        return self._project.model(self._champion), window_frames.read_version_columns(self._champion.facts, ())

    @cached_property
    def _shelf(self) -> ChallengerStore:
        spec = ModelConfiguration.from_json(self._champion.facts.spec)
        folder, working = self._project.home / "history" / "challengers", self._console.working
        # Challengers of another share of the rows are others: what is kept of them goes by these settings.
        settings = scale_row_limits(self._project.settings, self._learnable[1])
        return ChallengerStore(folder, settings, spec, lambda at: working(f"challenger before {at[:10]}"))

    @cached_property
    def _learnable(self) -> tuple[pd.DataFrame, float]:
        return self._production.learnable()

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """The labelled rows that a lap would learn from now, or their sample, in the order of time."""
        frame = self._learnable[0].drop(columns=table_io.ROW_KEY, errors="ignore")
        return frame.sort_values(str(self._project.settings.problem.time), kind="stable").reset_index(drop=True)

    @cached_property
    def _lineage(self) -> list[list[tuple[str, str]]]:
        """Start and end of closed windows: the champion's last, before them those of the versions that it followed with the same
        configuration, each up to where the next one's begin.
        """
        engine, name = self._project.ledger, self._project.name
        found = [[(p.start, p.end) for p in self._production.places() if p.closed]]
        begin, seen, number = self._production.begin, set[int](), self._champion.version
        while True:
            seen.add(number)
            before = versions.find_previous_champion(engine, name, number)
            earlier = None if before is None or before in seen else versions.find_version(engine, name, before)
            if earlier is None or earlier.facts.spec != self._champion.facts.spec:
                return found
            number = earlier.version
            checked = [
                (s.start, min(s.end, begin)) for s in windows.list_windows(engine, name, number) if s.start < begin
            ]
            found.insert(0, checked)
            begin = checked[0][0] if checked else begin

    @property
    def _places(self) -> list[tuple[str, str]]:
        return [place for group in self._lineage for place in group]

    @property
    def _born(self) -> int:
        """The champion's first window."""
        return len(self._places) - len(self._lineage[-1])

    @cached_property
    def _cut(self) -> WindowedTable:
        """All labelled rows, and where the windows begin among them; the rows before the first window only train."""
        times = self._rows[str(self._project.settings.problem.time)]
        starts, last = tuple(start for start, _ in self._places), [end for _, end in self._places[-1:]]
        moments = [pd.Timestamp(text) for text in (*starts, *last)]
        dated = pd.api.types.is_datetime64_any_dtype(times)
        edges = times.searchsorted([m.tz_localize(None) if dated else m.timestamp() for m in moments])
        return WindowedTable(self._rows, edges.astype(np.int64), starts)

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        return self._cut.digests()


def scale_row_limits(settings: Settings, share: float) -> Settings:
    """The same settings for a sample of this share: what they count in rows are the sample's."""
    if share == 1:
        return settings
    data, monitor = settings.data, settings.monitor
    if data.max_rows is not None:
        data = data.model_copy(update={"max_rows": round(data.max_rows * share)})
    if monitor.cut.rows is not None:
        monitor = monitor.model_copy(update={"window": max(1, round(monitor.cut.rows * share))})
    return settings.model_copy(update={"data": data, "monitor": monitor})
