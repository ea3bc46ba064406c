"""The stages of dvc.yaml by name, for `windvane stage NAME`: what `dvc repro` calls. A lap runs them in its own process."""

from __future__ import annotations

from pathlib import Path

from windvane.tasks import settings

NAMES = ("ingest", "validate", "split")


def run(name: str, root: Path) -> None:
    """Do the work of a stage in this folder, as its params.yaml says. Raises WindvaneError."""
    from windvane.tasks import ingest, split, validate

    work = {"ingest": ingest.run, "validate": validate.run, "split": split.run}[name]
    work(root, settings.load(root / settings.PARAMS))
