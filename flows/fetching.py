"""Bringing the snapshot of a remote source up to date, once a lap; and dvc.yaml's word on what ingest depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windvane.flows.lap import Lap
from windvane.ledger import feedback
from windvane.tasks import fetch as fetching
from windvane.tasks import raw, versioning
from windvane.tasks.data_settings import Data
from windvane.tasks.fetch import Fetched


def fetch(lap: Lap, known: Fetched | None = None) -> Fetched:
    """Source -> raw; `known`: how that ended where this lap did so already. Imports neither scikit-learn, MLflow nor Prefect."""
    if known is not None:
        return known
    project = lap.project

    def labelled(since: str | None) -> Iterator[Any]:
        return feedback.labelled_rows(project.ledger, project.name, since)

    lap.console.working("fetch")
    chosen = project.settings
    fetched = fetching.run(project.root, chosen.data, chosen.problem.id, labelled)
    if fetched.moved:
        lap.console.say(f"  {fetched.text()}")
    follow(project.root, chosen.data, fetched.record)
    return fetched


def follow(root: Path, data: Data, record: raw.Record | None) -> None:
    """Let the ingest stage depend on what it reads: the local source, the snapshot of another, or both."""
    wanted = ["${data.source}"] if data.local else []
    if not data.local or (record is not None and record.labelled):
        wanted.append(raw.FOLDER.as_posix())
    versioning.depend(root, wanted)
