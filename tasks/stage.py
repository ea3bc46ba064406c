"""A stage of dvc.yaml as a command of its own, such as `python -m tasks.ingest`. Owns its exit status; knows no stage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tasks import settings
from tasks.errors import WindvaneError


def main(work: Callable[[Path, settings.Settings], None]) -> None:
    """Do the work of a stage in this folder, as its params.yaml says; whatever is wrong goes to standard error, in words."""
    try:
        work(Path(), settings.load())
    except WindvaneError as e:
        print(e, file=sys.stderr)
        raise SystemExit(e.exit_code) from None
