"""A table as a lap would see it: read by ingest, looked at by validate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from windvane.tasks import features, ingest, settings, tables, validate


def labelled(chosen: settings.Settings) -> tuple[pd.DataFrame, features.Columns]:
    """The rows of data.source that have a label, and the columns that teach."""
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "table.parquet"
        ingest.write(Path(), chosen, table, Path(scratch))
        profile = validate.check(tables.scan(table), chosen).profile
        frame = tables.read_parquet(table)
    rows = frame[frame[chosen.problem.target].notna()].reset_index(drop=True)
    return rows, features.columns(chosen, profile)
