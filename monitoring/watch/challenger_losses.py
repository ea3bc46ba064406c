"""The evidence for the policy `regret`: losses of the champion against those of challengers trained since, on labelled
rows. Imported only where that is the policy.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from windvane.ledger import versions, windows
from windvane.monitoring import window_frames
from windvane.monitoring.history.challenger_store import ChallengerStore
from windvane.monitoring.history.loss_matrix import WindowedTable
from windvane.monitoring.policy import regret
from windvane.monitoring.records import PolicyAdvice, PolicyInput
from windvane.monitoring.watch.production import Production
from windvane.tasks import io
from windvane.tasks.console import Console
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.models.model_pipeline import ModelConfiguration

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So many challengers are scored on each new window; older ones can say no more about the champion.
MAX_CHALLENGERS = 60


class ChallengerLosses:
    """Of one pass over a champion's windows. Rows are read and models taught when the first advice is asked for."""

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
            return PolicyAdvice(
                False, f"no labelled rows of a whole window since version {self._champion.version} was taught"
            )
        reference = float(self._production.record[LOSS_COLUMN].mean())
        if not reference > 0:
            return PolicyAdvice(False, "the champion's own record has no loss, and a lap no price")
        # Each champion had a challenger every so many windows; those of the earlier ones stand for the past.
        every, models, begin = regret.choose_challenger_interval(retrain.cost), list[int](), 0
        for group in self._lineage:
            models += range(begin + every, begin + len(group), every)
            begin += len(group)
        models = [k for k in models if k <= labelled[-1]][-MAX_CHALLENGERS:]
        # By the number of labelled windows before it: of several the newest, and the champion before all.
        taught = {int(np.searchsorted(labelled, k)): k for k in [*models, self._born]}
        order = sorted(taught)
        losses = np.array([self._of(taught[k])[labelled] for k in order]) / reference
        serving = order.index(int(np.searchsorted(labelled, self._born)))
        past = PolicyInput(np.array(order), losses, serving, order[serving], np.ones(1), retrain.cost, len(labelled))
        return regret.advise_by_regret(past)

    def _of(self, window: int) -> NDArray[np.float64]:
        """Losses of the model taught before a window, by window; the champion's if that is its first."""
        if window not in self._losses:
            self._losses[window] = (
                self._shelf.champion(self._champion.version, self._cut, self._digests, window, self._model)
                if window == self._born
                else self._shelf.challenger(self._cut, self._digests, window)
            )
        return self._losses[window]

    def _model(self) -> tuple[Any, Any]:
        return self._project.model(self._champion), window_frames.read_version_columns(self._champion.facts, ())

    @cached_property
    def _shelf(self) -> ChallengerStore:
        spec, folder = (
            ModelConfiguration.from_json(self._champion.facts["spec"]),
            self._project.home / "history" / "challengers",
        )
        teaching = self._console.working
        return ChallengerStore(
            folder, self._project.settings, spec, lambda start: teaching(f"challenger before {start[:10]}")
        )

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """The labelled rows that a lap would learn from now, in the order of time."""
        frame = self._production.learnable().drop(columns=io.ROW_KEY, errors="ignore")
        return frame.sort_values(str(self._project.settings.problem.time), kind="stable").reset_index(drop=True)

    @cached_property
    def _lineage(self) -> list[list[tuple[str, str]]]:
        """Start and end of closed windows: the champion's last, before them those of the versions that it followed with the same
        configuration, each up to where the next one's begin.
        """
        engine, name = self._project.ledger, self._project.name
        found = [[(p.start, p.end) for p in self._production.places() if p.closed]]
        begin, seen, version = self._production.begin, {self._champion.version}, self._champion
        while (
            number := versions.find_previous_champion(engine, name, version.version)
        ) is not None and number not in seen:
            earlier = versions.find_version(engine, name, number)
            if earlier is None or earlier.facts["spec"] != self._champion.facts["spec"]:
                break
            looked = [
                (s.start, min(s.end, begin)) for s in windows.list_windows(engine, name, number) if s.start < begin
            ]
            found.insert(0, looked)
            begin, version = looked[0][0] if looked else begin, earlier
            seen.add(number)
        return found

    @property
    def _places(self) -> list[tuple[str, str]]:
        return list(itertools.chain.from_iterable(self._lineage))

    @property
    def _born(self) -> int:
        """The champion's first window."""
        return len(self._places) - len(self._lineage[-1])

    @cached_property
    def _cut(self) -> WindowedTable:
        """All labelled rows, and where the windows begin among them; the rows before the first window only teach."""
        times = self._rows[str(self._project.settings.problem.time)]
        moments = [pd.Timestamp(text) for pair in self._places for text in (pair[0], pair[1])]
        dated = pd.api.types.is_datetime64_any_dtype(times)
        edges = times.searchsorted([m.tz_localize(None) if dated else m.timestamp() for m in moments])
        starts = edges[::2]
        return WindowedTable(
            self._rows, np.append(starts, edges[-1:]).astype(np.int64), tuple(p[0] for p in self._places)
        )

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        return self._cut.digests()
