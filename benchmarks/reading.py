"""A table as a lap would see it: read by ingest, looked at by validate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.models import features
from windvane.tasks.settings import project_params
from windvane.tasks.validate import table_validation


def labelled(chosen: project_params.Settings) -> tuple[pd.DataFrame, features.FeatureColumns]:
    """The rows of data.source that have a label, and the columns that teach."""
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "table.parquet"
        ingestion.write_table(Path(), chosen, table, Path(scratch))
        profile = table_validation.check_table(table_io.scan_parquet(table), chosen).profile
        frame = table_io.read_parquet(table)
    rows = frame[frame[chosen.problem.target].notna()].reset_index(drop=True)
    return rows, features.select_feature_columns(chosen, profile)
