"""Handing in ground truth that arrived later: a file of labels into the ledger, all of it or nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.tasks.errors import Outage


def labels(project: Project, file: Path, console: Console) -> dict[str, Any]:
    """Record the statements of `file`: matched, unmatched, duplicates, changed."""
    from sqlalchemy.exc import DBAPIError

    from windvane.ledger.labels import hand_in
    from windvane.tasks import label_files

    console.working(f"reading {file}")
    statements = label_files.read(file, project.settings.problem.kind)
    console.working(f"{len(statements):,} labels")
    try:
        done = hand_in(project.ledger, project.name, statements)
    except DBAPIError as e:
        raise Outage(
            f"the ledger did not take the labels ({e.orig}). Nothing of {file} was handed in: look at the ledger's disk or "
            "server, then hand it in again"
        ) from e
    console.say(
        f"  {done.matched:,} labels for predictions, {done.unmatched:,} that wait for theirs, {done.duplicates:,} known already; "
        f"{done.changed:,} corrected what was known"
    )
    return asdict(done)
