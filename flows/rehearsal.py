"""Production as a table's own history has it: what was known at a moment, and a ledger that is thrown away afterwards.

Looks, decisions, laps and rollbacks find here what they find in production, so they need not know that history is played.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from windvane.flows.console import Console
from windvane.flows.production import Count, Production, mark
from windvane.flows.project import Project
from windvane.ledger import store, versions
from windvane.ledger.versions import Promotion, Version
from windvane.monitoring.history.stream import Stream
from windvane.monitoring.windows import Place
from windvane.tasks import fetch, ingest, tables

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.settings import Settings


class Rehearsal(Project):
    """A project whose present is `now`, which whoever plays moves on. Its models and records live in memory."""

    def __init__(self, project: Project, settings: Settings, stream: Stream, folder: Path) -> None:
        super().__init__(project.root, settings)
        self.home, self.stream, self.now = folder, stream, stream.times[0]
        self.models: dict[int, Any] = {}
        self.records: dict[int, pd.DataFrame] = {}
        self.judged: Counter[int] = Counter()
        self._answered: dict[tuple[int, str, str], pd.DataFrame] = {}
        self._references: dict[int, tuple[pd.DataFrame, pd.DataFrame | None]] = {}

    @cached_property
    def ledger(self) -> sa.Engine:
        """A ledger like any other, but for one thing: whatever becomes of it, nobody waits for the disk."""
        engine = store.connect(f"sqlite:///{self.home / 'ledger.db'}")
        engine.dispose()
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        return engine

    def model(self, version: Version) -> Any:
        """A version's fitted pipeline."""
        return self.models[version.version]

    def record(self, version: Version) -> pd.DataFrame:
        """A version's held-out rows with its predictions."""
        return self.records[version.version]

    def learned(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows that have come by now, and those of them whose label has."""
        (come, known), rows = self.stream.known_at(self.now), self.stream.rows
        return rows.iloc[:come], rows.iloc[:known][rows[self.settings.problem.target].iloc[:known].notna()]

    def champion(self) -> tuple[Version, Promotion]:
        """Which version serves, and how it came to."""
        champion, promotion = versions.champion(self.ledger, self.name), versions.last_promotion(self.ledger, self.name)
        assert champion is not None
        assert promotion is not None
        return champion, promotion

    def answered(self, version: Version, place: Place) -> pd.DataFrame:
        """A window's rows with what a version says of them, and with their labels, whenever these come."""
        from windvane.monitoring import frames
        from windvane.tasks import problems

        key = (version.version, place.start, place.end)
        if key not in self._answered:
            rows, kind = (
                self.stream.rows.iloc[self.stream.between(place.start, place.end)],
                problems.of(self.settings.problem.kind),
            )
            record, columns = self.reference(version)[0], frames.columns_of(version.facts, ())
            self._answered[key] = frames.of_source(rows, columns, record, kind, self.model(version))
        return self._answered[key]

    def loss(self, version: Version, place: Place) -> float:
        """A version's mean loss on a window's labelled rows; NaN without any."""
        from windvane.monitoring import answers
        from windvane.tasks import problems

        problem, frame = self.settings.problem, self.answered(version, place)
        frame = frame[answers.labelled(frame, problem.target)]
        if not len(frame):
            return float("nan")
        return float(answers.losses(frame, self.record(version), problems.of(problem.kind), problem).mean())

    def reference(self, version: Version) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """A version's record as looks want it, and the rows from before it."""
        from windvane.monitoring import frames

        if version.version not in self._references:
            columns, time = frames.columns_of(version.facts, ()), str(self.settings.problem.time)
            record = frames.as_record(self.record(version), columns)
            rows = self.stream.rows
            before = frames.as_record(rows[rows[time] < record[time].min()], columns)
            self._references[version.version] = record, before
        return self._references[version.version]


class Played(Production):
    """What production looks like at the rehearsal's present. Windows are looked at once they are over: of the looks at an open
    one, which production has spent half of its false alarms on by then, none is played.
    """

    looked = 1
    measured_by_evidently = False

    def __init__(self, past: Rehearsal, console: Console) -> None:
        self._past = past
        super().__init__(past, *past.champion(), "events", console)

    @cached_property
    def now(self) -> str:
        """The rehearsal's present."""
        return self._past.now

    @cached_property
    def state(self) -> dict[str, Any]:
        """What there is to learn from."""
        return {"labels": [], "source": list(self._past.stream.known_at(self.now))}

    def places(self) -> list[Place]:
        """The champion's windows that are over, in the order of time."""
        return self._past.stream.places(self.project.settings.monitor.cut, self.begin, self.now)

    def count(self, place: Place) -> Count:
        """How many rows a window has, and how many of them a label by now."""
        at, (_, known) = self._past.stream.between(place.start, place.end), self._past.stream.known_at(self.now)
        truth = self._past.stream.rows[self.project.settings.problem.target].iloc[
            at.start : min(at.stop, max(known, at.start))
        ]
        rows, labelled = at.stop - at.start, int(truth.notna().sum())
        return Count(place, "source", rows, labelled, mark(place, "source", rows, labelled))

    def frame(self, count: Count) -> pd.DataFrame:
        """A window's rows with the champion's answers, and the labels that have come."""
        import numpy as np

        frame, problem = self._past.answered(self.champion, count.place), self.project.settings.problem
        start = self._past.stream.between(count.place.start, count.place.end).start
        come = np.arange(start, start + len(frame)) < self._past.stream.known_at(self.now)[1]
        if come.all():
            return frame
        truth = frame[problem.target] if problem.kind == "regression" else frame[problem.target].astype(object)
        return frame.assign(**{problem.target: truth.where(come)})

    def learnable(self) -> pd.DataFrame:
        """The rows whose labels have come."""
        return self._past.learned()[1]

    @cached_property
    def record(self) -> pd.DataFrame:
        """The champion's held-out rows with its predictions."""
        return self._past.reference(self.champion)[0]

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """Rows from before the record."""
        return self._past.reference(self.champion)[1]


def read(project: Project) -> pd.DataFrame:
    """The rows of data.source, as a lap reads them."""
    fetch.run(project.root, project.settings.data, project.settings.problem.id)
    with ingest.scratch(project.root) as folder:
        ingest.write(project.root, project.settings, folder / "table.parquet", folder)
        return tables.read_parquet(folder / "table.parquet")
