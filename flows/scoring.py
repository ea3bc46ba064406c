"""Batch scoring: the champion's predictions for the rows of a file, a piece at a time, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.console import Console
from flows.deploying import champion_or_complain
from flows.project import Project
from tasks.errors import InputError
from tasks.tables import write_whole

if TYPE_CHECKING:
    import pandas as pd

# Rows held in memory at a time.
PIECE = 50_000
PREDICTION = "prediction"
FORMATS = (".csv", ".parquet")


def score(project: Project, source: Path, target: Path, console: Console) -> dict[str, Any]:
    """Write `target`: the rows of `source` with `prediction` and `model_version` behind; rows, version, seconds."""
    began = time.monotonic()
    for path in (source, target):
        if path.suffix.lower() not in FORMATS:
            raise InputError(f"{path}: is neither CSV nor Parquet. Let its name end in .csv or .parquet")
    if not source.exists():
        raise InputError(
            f"{source}: not found. Name a CSV or Parquet file with the columns that the model was taught on"
        )
    version = champion_or_complain(project)
    from tasks import features, problems

    model = project.model(version)
    columns = features.Columns(**{k: tuple(v) for k, v in version.facts["columns"].items()})
    kind = problems.of(version.facts["kind"])
    rows = 0

    def scored() -> Iterator[pd.DataFrame]:
        nonlocal rows
        for piece in _pieces(source):
            said = kind.predict(model, features.conform(piece, columns, str(source)))
            rows += len(piece)
            console.working(f"{rows:,} rows scored")
            yield piece.assign(**{PREDICTION: said.value, "model_version": version.version})

    write_whole(target, lambda part: _write(scored(), part, target.suffix.lower()))
    console.say(f"  {rows:,} rows scored with version {version.version} -> {target}")
    return {"rows": rows, "version": version.version, "seconds": round(time.monotonic() - began, 2)}


def _pieces(source: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowInvalid

    try:
        if source.suffix.lower() == ".csv":
            # Text as written: conform() reads each column as the type it was taught as.
            yield from pd.read_csv(source, chunksize=PIECE, dtype="str", encoding="utf-8-sig", keep_default_na=True)
        else:
            for batch in pq.ParquetFile(source).iter_batches(PIECE):
                yield batch.to_pandas()
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, ArrowInvalid) as e:
        raise InputError(
            f"{source}: cannot be read ({str(e).splitlines()[0]}). Write it anew as UTF-8 CSV or as Parquet"
        ) from e


def _write(pieces: Iterator[pd.DataFrame], part: Path, suffix: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if suffix == ".csv":
        for i, piece in enumerate(pieces):
            piece.to_csv(part, mode="a", header=i == 0, index=False)
        return
    writer = None
    for piece in pieces:
        table = pa.Table.from_pandas(piece, preserve_index=False, schema=writer.schema if writer else None)
        writer = writer or pq.ParquetWriter(part, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
