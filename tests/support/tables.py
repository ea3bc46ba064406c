"""Small tables and settings that several tests share."""

from __future__ import annotations

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params


def chosen(source: str = "table.csv", split: dict[str, Any] | None = None, **problem: Any) -> project_params.Settings:
    """Settings for `source`: regression on "price" unless `problem` says otherwise."""
    whole = {"kind": "regression", "target": "price", **problem}
    return project_params.parse_settings(
        {"project": "p", "problem": whole, "data": {"source": source}, "split": split or {}}
    )


def houses(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """A well-behaved table: a price, a size, a town, and a day that rises."""
    rng = np.random.default_rng(seed)
    size = rng.normal(100, 20, rows).round(3)
    return pd.DataFrame(
        {
            "day": pd.date_range("2020-01-01", periods=rows, freq="D").as_unit("us"),
            "size": size,
            "town": rng.choice(["Ulm", "Bonn", "Kiel"], rows),
            "price": (size * 3 + rng.normal(0, 20, rows)).round(2),
        }
    )


def ingested(path: Path, **problem: Any) -> pd.DataFrame:
    """A file as ingest makes it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "table"
        ingestion.write_table(Path(), chosen(str(path), **problem), target, Path(folder))
        return table_io.read_parquet(target)


def every_type(path: Path, rows: int = 240) -> Path:
    """A Parquet file with every column type that a file can hold, readable or not; target "price"."""
    rng = np.random.default_rng(1)
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=i) for i in range(rows)]
    noon = [dt.datetime(2020, 1, 1, 12) + dt.timedelta(hours=i) for i in range(rows)]
    zone = dt.timezone(dt.timedelta(hours=2))
    size = rng.normal(100, 20, rows)

    def gaps(values: list[Any]) -> list[Any]:
        return [None if i % 7 == 0 else v for i, v in enumerate(values)]

    columns: dict[str, pa.Array] = {
        "price": pa.array(size * 3 + rng.normal(0, 20, rows)),
        "float": pa.array(size),
        "float32": pa.array(gaps(list(size)), pa.float32()),
        "int": pa.array(range(rows)),
        "int8 gaps": pa.array(gaps([i % 100 for i in range(rows)]), pa.int8()),
        "unsigned": pa.array([2**64 - 1 - i for i in range(rows)], pa.uint64()),
        "decimal": pa.array([Decimal(i) / 4 for i in range(rows)], pa.decimal128(10, 2)),
        "bool": pa.array([i % 2 == 0 for i in range(rows)]),
        "bool gaps": pa.array(gaps([i % 3 == 0 for i in range(rows)])),
        "words": pa.array(gaps([f"w{i % 5}" for i in range(rows)])),
        "dictionary": pa.array([f"d{i % 4}" for i in range(rows)]).dictionary_encode(),
        "Größe: 'é', \"x\"": pa.array([f"v{i % 3}" for i in range(rows)], pa.large_string()),
        "iso text": pa.array([d.isoformat() for d in days]),
        "date": pa.array(days),
        "seen at": pa.array(noon, pa.timestamp("ns")),
        "zoned": pa.array([t.replace(tzinfo=zone) for t in noon], pa.timestamp("us", tz="Europe/Berlin")),
        "time": pa.array([t.time() for t in noon]),
        "span": pa.array(gaps([dt.timedelta(minutes=i) for i in range(rows)])),
        "text": pa.array([f"the house number {i} in some street stands on a hill" for i in range(rows)]),
        "no": pa.nulls(rows),
        "constant": pa.array(["same"] * rows),
        "list": pa.array([[i, i + 1] for i in range(rows)]),
        "struct": pa.array([{"a": i} for i in range(rows)]),
        "bytes": pa.array([b"x"] * rows),
    }
    pq.write_table(pa.table(columns), path)
    return path
