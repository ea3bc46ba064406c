"""The stages of dvc.yaml by name, for `windvane stage NAME`: what `dvc repro` calls. A lap runs them in its own process."""

from __future__ import annotations

from pathlib import Path

from windvane.tasks import settings
from windvane.tasks.digest import ACCEPTED
from windvane.tasks.split import TAUGHT_UNTIL
from windvane.tasks.tables import write_json

# What a lap says to stages about earlier laps, as it stands before the first.
BEFORE_THE_FIRST_LAP = {TAUGHT_UNTIL: {"taught_until": None}, ACCEPTED: None}


def run(name: str, root: Path) -> None:
    """Do the work of a stage in this folder, as its params.yaml says. Raises WindvaneError."""
    from windvane.tasks import ingest, split, validate

    place_inputs(root)
    work = {"ingest": ingest.run, "validate": validate.run, "split": split.run}[name]
    work(root, settings.load(root / settings.PARAMS))


def place_inputs(root: Path) -> None:
    """Write the files through which laps speak to stages, where there are none yet."""
    for path, content in BEFORE_THE_FIRST_LAP.items():
        if not (root / path).exists():
            write_json(content, root / path)
