"""The source's rows behind what the champion was taught, as the champion predicts them now. Read again only when it has changed."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.ledger.moments import moment
from windvane.ledger.versions import Version
from windvane.monitoring.windows import Place
from windvane.tasks.errors import InputError
from windvane.tasks.tables import read_cache, read_frame_cache, read_parquet, write_json, write_parquet

if TYPE_CHECKING:
    import pandas as pd

# Below .windvane: what the watch keeps for itself. All of it can be made again.
FOLDER = "watch"


def kept(path: Path) -> dict[str, Any] | None:
    """What the watch has kept there; None: nothing, or it is damaged, and is made again."""
    return read_cache(path, dict)


def record(project: Project, champion: Version) -> pd.DataFrame:
    """The champion's held-out rows with its predictions, read as the pipeline reads them. Raises InputError without any."""
    from windvane.monitoring import frames

    try:
        rows = project.record(champion)
    except FileNotFoundError:
        raise InputError(
            f"no reference: version {champion.version} has no held-out rows with its predictions. Run `windvane train`"
        ) from None
    return frames.as_record(rows, frames.columns_of(champion.facts, ()))


class Source:
    """Rows that are new to a champion: with a time they can be told."""

    def __init__(self, project: Project, champion: Version, console: Console) -> None:
        self.project, self.champion, self._console = project, champion, console

    @cached_property
    def mark(self) -> str | None:
        """What the source is now, without reading it; None: no rows of it can be told to be new."""
        from windvane.tasks import sources

        if self.project.settings.problem.time is None or self.champion.facts["taught_until"] is None:
            return None
        if not self.project.settings.data.local:
            self.fetch()
        told = [
            (str(p), (at := p.stat()).st_size, at.st_mtime_ns)
            for p in sources.files(self.project.root, self.project.settings.data)
            if p.exists()
        ]
        return hashlib.sha256(repr((told, self.champion.manifest_sha256)).encode()).hexdigest()[:16]

    def fetch(self) -> None:
        """The snapshot of a remote source, and of labels that came back, is brought up to date as a lap does it, and under its lease."""
        from windvane.flows import fetching
        from windvane.flows.lap import opened

        with opened(self.project, "watch", "refit", self._console) as lap:
            fetching.fetch(lap)

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
        path = self._folder / f"source-{self.champion.version}.json"
        if (known := kept(path)) is not None and known.get("mark") == self.mark and self._kept_rows is not None:
            return known
        made = self._predicted()
        problem = self.project.settings.problem
        times = sorted(moment(value) for value in made[problem.time].tolist())
        labelled = sorted(moment(value) for value in made.loc[made[problem.target].notna(), problem.time].tolist())
        write_parquet(made, path.with_suffix(".parquet"))
        told = {"mark": self.mark, "times": times, "labelled": labelled}
        write_json(told, path)
        return told

    @property
    def _kept_rows(self) -> pd.DataFrame | None:
        return read_frame_cache(self._folder / f"source-{self.champion.version}.parquet")

    @property
    def _folder(self) -> Path:
        return self.project.home / FOLDER

    def _predicted(self) -> pd.DataFrame:
        """The source's rows behind what the champion was taught, with what it says of them now."""
        import pandas as pd

        from windvane.monitoring import frames
        from windvane.tasks import ingest, problems

        settings, time, until = (
            self.project.settings,
            self.project.settings.problem.time,
            self.champion.facts["taught_until"],
        )
        with ingest.scratch(self.project.root) as folder:
            ingest.write(self.project.root, settings, folder / "table.parquet", folder)
            rows = read_parquet(folder / "table.parquet")
        limit = pd.Timestamp(until) if isinstance(until, str) else until
        new = rows[rows[time] > limit].sort_values(str(time), kind="stable")
        columns = frames.columns_of(self.champion.facts, ())
        kind = problems.of(self.champion.facts["kind"])
        model = self.project.model(self.champion) if len(new) else None
        missing = [n for n in columns.names if n not in new]
        return frames.of_source(
            new.assign(**dict.fromkeys(missing)), columns, record(self.project, self.champion), kind, model
        )

    def rows(self, place: Place) -> pd.DataFrame:
        """Those of a window, as monitoring/frames.py makes them."""
        import pandas as pd

        made = self._kept_rows
        assert made is not None  # places are made from what was described
        times = pd.Series([moment(v) for v in made[self.project.settings.problem.time].tolist()], index=made.index)
        return made[(times >= place.start) & (times < place.end)].reset_index(drop=True)
