"""Production since the champion was trained: its windows and the rows of each, from the ledger where it has predictions
and from the source elsewhere.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.ledger import labels, laps, predictions, windows
from windvane.ledger.database import to_timestamp
from windvane.ledger.versions import Promotion, Version
from windvane.monitoring.records import Clock
from windvane.monitoring.watch.windows import (
    WindowSpan,
    find_calendar_start,
    find_event_time,
    find_first_window_start,
    list_calendar_windows,
    list_row_windows,
)
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError
from windvane.tasks.io import read_cache, write_json
from windvane.tasks.project import Project
from windvane.tasks.sources import fetch, table_files

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.models.features import FeatureColumns

# Below .windvane: what monitoring keeps for itself. All of it can be made again.
WATCH_FOLDER = "watch"


@contextmanager
def write_source_table(project: Project) -> Iterator[Path]:
    """The rows of data.source as a lap reads them: a Parquet file that is gone afterwards."""
    from windvane.tasks.ingest import ingestion

    with ingestion.open_scratch_folder(project.root) as folder:
        ingestion.write_table(project.root, project.settings, folder / "table.parquet", folder)
        yield folder / "table.parquet"


def read_source_table(project: Project) -> pd.DataFrame:
    """The rows of data.source, as a lap reads them."""
    from windvane.tasks.ingest.table_io import read_parquet

    with write_source_table(project) as path:
        return read_parquet(path)


def read_champion_record(project: Project, champion: Version) -> pd.DataFrame:
    """The champion's held-out rows with its predictions, read as the pipeline reads them. Raises InputError without any."""
    from windvane.monitoring import window_frames

    try:
        rows = project.record(champion)
    except FileNotFoundError:
        raise InputError(
            f"no reference: version {champion.version} has no held-out rows with its predictions. Run `windvane train`"
        ) from None
    return window_frames.read_like_record(rows, window_frames.read_version_columns(champion.facts, ()))


class SourceRows:
    """Rows that are new to a champion: with a time they can be found."""

    def __init__(self, project: Project, champion: Version, console: Console) -> None:
        self.project, self.champion, self._console = project, champion, console

    @cached_property
    def mark(self) -> str | None:
        """What the source is now, without reading it; None: no rows of it can be shown to be new."""
        settings = self.project.settings
        if settings.problem.time is None or self.champion.facts.taught_until is None:
            return None
        if not settings.data.local:
            self.fetch()
        files = (path for path in table_files.list_table_files(self.project.root, settings.data) if path.exists())
        described = [(str(path), (at := path.stat()).st_size, at.st_mtime_ns) for path in files]
        return hashlib.sha256(repr((described, self.champion.manifest_sha256)).encode()).hexdigest()[:16]

    def fetch(self) -> None:
        """The snapshot of a remote source, and of labels that came back, is brought up to date as a lap does it, and under its lease."""

        def waiting(holder: laps.LeaseHolder) -> None:
            self._console.print(f"waiting for {holder}")

        with laps.hold_lease(self.project.ledger, self.project.name, "windvane train", waiting):
            fetch.update_source_snapshot(self.project, self._console)

    @cached_property
    def times(self) -> list[str]:
        """The times of its new rows, ledger text, in order."""
        return [] if self.mark is None else [str(m) for m in self._described["times"]]

    @cached_property
    def labelled(self) -> list[str]:
        """Those of them whose rows have a label."""
        return [] if self.mark is None else [str(m) for m in self._described["labelled"]]

    @cached_property
    def _described(self) -> dict[str, Any]:
        """The source's new rows in a few words: their times. Read from the table only when the source has changed."""
        from windvane.tasks.ingest.table_io import read_frame_cache, write_parquet

        path = self._kept_path.with_suffix(".json")
        known: dict[str, Any] = read_cache(path, dict) or {}
        if known.get("mark", "") == self.mark and read_frame_cache(self._kept_path) is not None:
            return known
        made, problem = self._predicted(), self.project.settings.problem
        times = made[problem.time].map(to_timestamp)
        labelled = times[made[problem.target].notna()]
        write_parquet(made, self._kept_path)
        described = {"mark": self.mark, "times": sorted(times), "labelled": sorted(labelled)}
        write_json(described, path)
        return described

    @property
    def _kept_path(self) -> Path:
        return self.project.home / WATCH_FOLDER / f"source-{self.champion.version}.parquet"

    def _predicted(self) -> pd.DataFrame:
        """The source's rows behind the champion's training data, with what it predicts for them now."""
        import pandas as pd

        from windvane.monitoring import window_frames
        from windvane.tasks.models.problem_types import definitions

        rows, facts = read_source_table(self.project), self.champion.facts
        time = str(self.project.settings.problem.time)
        limit = pd.Timestamp(facts.taught_until) if isinstance(facts.taught_until, str) else facts.taught_until
        new = rows[rows[time] > limit].sort_values(time, kind="stable")
        columns, kind = window_frames.read_version_columns(facts, ()), definitions.load_problem_type(facts.kind)
        model = self.project.model(self.champion) if len(new) else None
        whole = new.assign(**dict.fromkeys(n for n in columns.names if n not in new))
        record = read_champion_record(self.project, self.champion)
        return window_frames.build_source_frame(whole, columns, record, kind, model)

    def rows(self, place: WindowSpan) -> pd.DataFrame:
        """Those of a window, as monitoring/window_frames.py makes them."""
        from windvane.tasks.ingest.table_io import read_frame_cache

        made = read_frame_cache(self._kept_path)
        assert made is not None  # places are made from what was described
        times = made[self.project.settings.problem.time].map(to_timestamp)
        return made[(times >= place.start) & (times < place.end)].reset_index(drop=True)


# More predictions of a window are not read, but so many of them: those that come first in the ledger's fixed random order.
MAX_WINDOW_ROWS = 20_000
# Of more labelled rows challengers are trained and scored on a sample. Another seed than the split's: a hash must not choose twice.
MAX_LEARNABLE_ROWS = 200_000
# With fewer rows of a window in the ledger, the source's are taken if it has more: a few trials are no traffic.
_MIN_LEDGER_ROWS = 20


@dataclass(frozen=True)
class WindowCount:
    """A window's rows, from where, how many have a label, and a hash that changes with them. estimated, ids: as in StretchCount."""

    place: WindowSpan
    origin: str
    rows: int
    labelled: int
    mark: str
    estimated: bool = False
    ids: tuple[str, ...] | None = None


class Production:
    """Rows since the champion was trained. Imports pandas only where rows are requested. `looked`: so many checks a window has had
    that were not recorded. `measured_by_evidently`: whether the drift alarm is read from Evidently's report, or from our own distances.
    """

    looked = 0
    measured_by_evidently = True

    def __init__(
        self, project: Project, champion: Version, promotion: Promotion, clock: Clock, console: Console
    ) -> None:
        self.project, self.champion, self._clock = project, champion, clock
        self.begin = find_first_window_start(champion.facts.taught_until, promotion.promoted)
        self.source = SourceRows(project, champion, console)
        self._counts: dict[WindowSpan, WindowCount] = {}
        self._traffic = windows.read_traffic(project.ledger, project.name, champion.version, self.begin)

    @cached_property
    def state(self) -> dict[str, Any]:
        """All that a check depends on, but the clock: the same again is no new check."""
        params = self.project.settings
        described = params.model_dump_json(include={"problem", "monitor", "retrain", "ledger", "data"})
        return {
            "version": self.champion.version,
            "traffic": vars(self._traffic),
            "labels": windows.count_labels(self.project.ledger, self.project.name),
            "source": self.source.mark,
            "params": hashlib.sha256(described.encode()).hexdigest()[:16],
        }

    @cached_property
    def now(self) -> str:
        """The present in the events' own time, ledger text."""
        if self._clock == "events" and (
            newest := predictions.find_newest_prediction_time(self.project.ledger, self.project.name)
        ):
            return newest
        window, wall = self.project.settings.monitor.cut, datetime.now(UTC)
        if self._traffic.rows:
            return find_event_time(self._traffic.live, self._traffic.received, wall, window)
        return find_event_time(self.source.times[-1] if self.source.times else None, None, wall, window)

    def places(self) -> list[WindowSpan]:
        """The champion's windows that have rows, in the order of time."""
        window, engine, name = self.project.settings.monitor.cut, self.project.ledger, self.project.name
        version = self.champion.version
        if window.rows is None:
            times = [t for t in (self._traffic.first, self._traffic.newest, *self.source.times) if t is not None]
            if not times:
                return []
            found = list_calendar_windows(min(times), max(times), window, self.begin, self.now)
            return [place for place in found if self.count(place).rows]
        done = [seen for seen in windows.list_windows(engine, name, version) if seen.closed]
        start = done[-1].end if done else self.begin
        mine = windows.read_prediction_times(engine, name, version, start)
        new = [t for t in self.source.times if t >= start]
        times = mine if len(mine) >= min(_MIN_LEDGER_ROWS, len(new)) else new
        return [WindowSpan(seen.start, seen.end, True) for seen in done] + list_row_windows(times, window.rows, start)

    def count(self, place: WindowSpan) -> WindowCount:
        """How many rows a window has, and from where they are taken. Counted once."""
        if place not in self._counts:
            self._counts[place] = self._count(place)
        return self._counts[place]

    def _count(self, place: WindowSpan) -> WindowCount:
        engine, name = self.project.ledger, self.project.name
        found = windows.count_window_rows(engine, name, self.champion.version, place.start, place.end)
        rows, labelled = found.rows, found.labelled
        inside = sum(place.start <= t < place.end for t in self.source.times)
        if rows < _MIN_LEDGER_ROWS and inside > rows:
            return count_source_rows(place, inside, sum(place.start <= t < place.end for t in self.source.labelled))
        mark = hash_window_state(place, "ledger", rows, labelled, found.known)
        return WindowCount(place, "ledger", rows, labelled, mark, found.estimated, found.ids)

    def frame(self, count: WindowCount) -> pd.DataFrame:
        """A window's rows, with the record's columns (monitoring/window_frames.py): of a large window of the ledger a sample."""
        import numpy as np

        from windvane.monitoring import window_frames

        place, project, version = count.place, self.project, self.champion.version
        if count.origin == "source":
            return self.source.rows(place)
        tier = predictions.find_sample_tier(count.rows, MAX_WINDOW_ROWS)
        query = labels.PredictionQuery(place.end, place.start, version=version, unlabelled=True, tier=tier)
        query = replace(query, at_most=MAX_WINDOW_ROWS)
        rows = list(labels.read_labelled_predictions(project.ledger, project.name, query))
        even = len(rows)
        if even < count.rows and 0 < count.labelled < count.rows / 2:  # few labels must not be lost among many rows
            chosen = {row.id for row in rows}
            tier = predictions.find_sample_tier(count.labelled, MAX_WINDOW_ROWS)
            tier = max(tier, predictions.find_sample_tier(count.rows, windows.MAX_COUNTED_ROWS))
            query = replace(query, unlabelled=False, tier=tier, ids=count.ids)
            more = labels.read_labelled_predictions(project.ledger, project.name, query)
            rows += [row for row in more if row.id not in chosen]
        columns = self.columns("ledger")
        frame = window_frames.build_ledger_frame(rows, columns, self.record, project.settings.problem)
        frame[window_frames.LABEL_ALONE_COLUMN] = np.arange(len(frame)) >= even
        return frame

    def columns(self, origin: str) -> FeatureColumns:
        """The columns that can be compared: those that the ledger drops or hashes cannot."""
        from windvane.monitoring import window_frames

        return window_frames.read_version_columns(self.champion.facts, self.hidden if origin == "ledger" else ())

    @property
    def hidden(self) -> tuple[str, ...]:
        """Inputs that the ledger does not keep as they are."""
        kept = self.project.settings.ledger
        learned = self.champion.facts.column_names
        return tuple(name for name in (*kept.drop, *kept.hash) if name in learned)

    @cached_property
    def record(self) -> pd.DataFrame:
        """The champion's held-out rows with its predictions. Raises InputError where it has none."""
        return read_champion_record(self.project, self.champion)

    def learnable(self) -> tuple[pd.DataFrame, float]:
        """The labelled rows that a lap would learn from now, those whose labels came back among them; of many a sample, with its share."""
        from windvane.monitoring.window_frames import read_labelled_sample

        settings = self.project.settings
        if not settings.data.local or (settings.data.feedback and self.state["labels"]):
            self.source.fetch()
        with write_source_table(self.project) as path:
            return read_labelled_sample(path, settings.problem.target, MAX_LEARNABLE_ROWS, settings.split.seed + 1)

    @cached_property
    def before(self) -> pd.DataFrame | None:
        """Rows of the table from before the record: what seasons do. None where there is no time, or no table."""
        from windvane.monitoring import window_frames
        from windvane.tasks.ingest.table_io import read_parquet
        from windvane.tasks.validate.table_profile import TABLE_FILE

        time, path = self.project.settings.problem.time, self.project.root / TABLE_FILE
        if time is None or not path.exists() or time not in self.record:
            return None
        table, columns = read_parquet(path), window_frames.read_version_columns(self.champion.facts, ())
        if not {time, *columns.names} <= set(table) or table[time].dtype.kind != self.record[time].dtype.kind:
            return None
        earlier = table[table[time] < self.record[time].min()].sort_values(time, kind="stable")
        return window_frames.read_like_record(earlier, columns)

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
        counts = Counter(find_calendar_start(value, cut) for value in self.record[time].tolist())
        whole = sorted(counts[key] for key in sorted(counts)[1:-1] or sorted(counts))
        return float(whole[len(whole) // 2]) if whole else None


def page_path(project: Project, version: int, start: str) -> Path:
    """Where the page of a version's window lies."""
    return project.home / WATCH_FOLDER / "reports" / f"{version}-{start[:19].replace(':', '')}.html"


def evidently_report_path(project: Project, version: int, start: str) -> Path:
    """Where Evidently's report of it is kept, for whenever the page is written again."""
    return page_path(project, version, start).with_suffix(".report.gz")


def hash_window_state(place: WindowSpan, *facts: Any) -> str:
    """What changes with a window's rows and labels."""
    return hashlib.sha256(repr((place, facts)).encode()).hexdigest()[:32]


def count_source_rows(place: WindowSpan, rows: int, labelled: int) -> WindowCount:
    """The count of a window whose rows are those of the source."""
    return WindowCount(place, "source", rows, labelled, hash_window_state(place, "source", rows, labelled))
