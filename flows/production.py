"""What production looks like since the champion was taught: its windows, and the rows of each, from ledger and source.

Where the ledger has predictions of a window, these count; elsewhere the source's rows, which the champion predicts now. Owns
which rows those are; leaves how windows are cut to monitoring/windows.py, and frames to monitoring/frames.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.flows.source import FOLDER, Source, record
from windvane.flows.standing import Clock
from windvane.ledger import labels, predictions, windows
from windvane.ledger.moments import moment
from windvane.ledger.versions import Promotion, Version
from windvane.monitoring.windows import Place, after, by_rows, present, spans
from windvane.tasks.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.features import Columns

# With fewer rows of a window in the ledger, the source's are taken if it has more: a few trials are no traffic.
_FEW = 20


@dataclass(frozen=True)
class Count:
    """A window's rows, from where, how many have a label, and a mark that changes with them."""

    place: Place
    origin: str
    rows: int
    labelled: int
    mark: str


class Production:
    """Rows since the champion was taught. Imports pandas only where rows are asked for. `looked`: so many looks a window has had
    that nobody remembers. `measured_by_evidently`: whether the drift alarm is read from Evidently's report, or from our own distances.
    """

    looked = 0
    measured_by_evidently = True

    def __init__(
        self, project: Project, champion: Version, promotion: Promotion, clock: Clock, console: Console
    ) -> None:
        self.project, self.champion, self._clock = project, champion, clock
        taught = champion.facts["taught_until"]
        self.begin = after(taught, promotion.promoted)
        self.source = Source(project, champion, console)
        self._traffic = windows.traffic(project.ledger, project.name, champion.version, self.begin)

    @cached_property
    def state(self) -> dict[str, Any]:
        """All that a look depends on, but the clock: the same again is no new look."""
        params = self.project.settings
        told = params.model_dump_json(include={"problem", "monitor", "retrain", "ledger", "data"})
        return {
            "version": self.champion.version,
            "traffic": vars(self._traffic),
            "labels": list(windows.stated(self.project.ledger, self.project.name)),
            "source": self.source.mark,
            "params": hashlib.sha256(told.encode()).hexdigest()[:16],
        }

    @cached_property
    def now(self) -> str:
        """The present in the events' own time, ledger text."""
        if self._clock == "events" and (newest := predictions.newest(self.project.ledger, self.project.name)):
            return newest
        window, wall = self.project.settings.monitor.cut, datetime.now(UTC)
        if self._traffic.rows:
            return present(self._traffic.live, self._traffic.received, wall, window)
        return present(self.source.times[-1] if self.source.times else None, None, wall, window)

    def places(self) -> list[Place]:
        """The champion's windows that have rows, in the order of time."""
        window, engine, name = self.project.settings.monitor.cut, self.project.ledger, self.project.name
        version = self.champion.version
        if window.rows is None:
            ends = [t for t in (self._traffic.first, self._traffic.newest) if t is not None]
            times = ends + self.source.times
            if not times:
                return []
            found = spans(min(times), max(times), window, self.begin, self.now)
            return [place for place in found if self._any(place)]
        done = [seen for seen in windows.of(engine, name, version) if seen.closed]
        start = done[-1].end if done else self.begin
        mine = windows.times(engine, name, version, start)
        new = [t for t in self.source.times if t >= start]
        known = [Place(seen.start, seen.end, True) for seen in done]
        return known + by_rows(mine if len(mine) >= min(_FEW, len(new)) else new, window.rows, start)

    def _any(self, place: Place) -> bool:
        return self.count(place).rows > 0

    def count(self, place: Place) -> Count:
        """How many rows a window has, and from where they are taken."""
        engine, name = self.project.ledger, self.project.name
        rows, labelled, known = windows.counted(engine, name, self.champion.version, place.start, place.end)
        inside = sum(place.start <= t < place.end for t in self.source.times)
        if rows < _FEW and inside > rows:
            known_now = sum(place.start <= t < place.end for t in self.source.labelled)
            return Count(place, "source", inside, known_now, mark(place, "source", inside, known_now))
        return Count(place, "ledger", rows, labelled, mark(place, "ledger", rows, labelled, known))

    def frame(self, count: Count) -> pd.DataFrame:
        """A window's rows, with the record's columns (monitoring/frames.py)."""
        from windvane.monitoring import frames

        place, problem = count.place, self.project.settings.problem
        if count.origin == "ledger":
            engine, name = self.project.ledger, self.project.name
            rows = labels.resolved(engine, name, place.end, place.start, version=self.champion.version, unlabelled=True)
            return frames.of_ledger(rows, self.columns("ledger"), self.record, problem)
        return self.source.rows(place)

    def columns(self, origin: str) -> Columns:
        """The columns that can be compared: those that the ledger drops or hashes cannot."""
        from windvane.monitoring import frames

        return frames.columns_of(self.champion.facts, self.hidden if origin == "ledger" else ())

    @property
    def hidden(self) -> tuple[str, ...]:
        """Inputs that the ledger does not keep as they are."""
        kept = self.project.settings.ledger
        learned = {name for names in self.champion.facts["columns"].values() for name in names}
        return tuple(name for name in (*kept.drop, *kept.hash) if name in learned)

    @cached_property
    def record(self) -> pd.DataFrame:
        """The champion's held-out rows with its predictions. Raises InputError where it has none."""
        return record(self.project, self.champion)

    def learnable(self) -> pd.DataFrame:
        """The labelled rows that a lap would learn from now, those whose labels came back among them."""
        from windvane.tasks import ingest

        settings = self.project.settings
        if not settings.data.local or (settings.data.feedback and self.state["labels"][0]):
            self.source.fetch()
        with ingest.scratch(self.project.root) as folder:
            ingest.write(self.project.root, settings, folder / "table.parquet", folder)
            frame = read_parquet(folder / "table.parquet")
        return frame[frame[settings.problem.target].notna()]

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """Rows of the table from before the record: what seasons do. None where there is no time, or no table."""
        from windvane.monitoring import frames
        from windvane.tasks.profile import TABLE

        time, path = self.project.settings.problem.time, self.project.root / TABLE
        if time is None or not path.exists() or time not in self.record:
            return None
        table = read_parquet(path)
        columns = frames.columns_of(self.champion.facts, ())
        if (
            time not in table
            or not set(columns.names) <= set(table)
            or table[time].dtype.kind != self.record[time].dtype.kind
        ):
            return None
        return frames.as_record(table[table[time] < self.record[time].min()].sort_values(time, kind="stable"), columns)

    def usual_rows(self, closed: Sequence[int]) -> float | None:
        """Rows of a usual window, from those of closed ones before it; else from the record, where windows lie on the calendar."""
        cut, time = self.project.settings.monitor.cut, self.project.settings.problem.time
        if cut.rows is not None:
            return float(cut.rows)
        done = sorted(closed)
        if len(done) >= 2:
            return float(done[len(done) // 2])
        if time is None:
            return None
        from windvane.tasks import history

        counts: dict[str, int] = {}
        for value in self.record[time].tolist():
            start = history.begin(datetime.fromisoformat(moment(value)), cut).isoformat()
            counts[start] = counts.get(start, 0) + 1
        whole = sorted(counts[key] for key in sorted(counts)[1:-1] or sorted(counts))
        return float(whole[len(whole) // 2]) if whole else None


def page_path(project: Project, version: int, start: str) -> Path:
    """Where the page of a version's window lies."""
    return project.home / FOLDER / "reports" / f"{version}-{start[:19].replace(':', '')}.html"


def report_path(project: Project, version: int, start: str) -> Path:
    """Where Evidently's report of it is kept, for whenever the page is written again."""
    return page_path(project, version, start).with_suffix(".report.gz")


def mark(place: Place, *facts: Any) -> str:
    """What changes with a window's rows and labels."""
    return hashlib.sha256(repr((place, facts)).encode()).hexdigest()[:32]
