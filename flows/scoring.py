"""Batch scoring: the champion's predictions for the rows of a file, piece by piece, all of them or none.

A killed run continues where it was, and the same file gets the same predictions to the last bit. CSV and Parquet are
read and written in pieces of bounded size.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from windvane.flows.model_promotion import require_champion
from windvane.ledger.prediction_writer import GROUP_ROWS, LedgerClosed, LedgerFailed, LedgerFull, PredictionWriter
from windvane.ledger.predictions import InvalidPrediction, Prediction
from windvane.ledger.versions import Version
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.agreement import convert_to_plain_columns
from windvane.serving.compiled.engine import EnginePredictions, PredictionEngine
from windvane.serving.http.invocations import make_recorded_outputs
from windvane.serving.signature import ModelSignature
from windvane.tasks import errors
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.ingest.table_io import read_frame_cache, write_parquet
from windvane.tasks.io import write_whole
from windvane.tasks.label_parsing import parse_label_id
from windvane.tasks.models import features
from windvane.tasks.models.features import conform_frame
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.project import Project
from windvane.tasks.stores import model_files

OUTPUT_PREDICTION_COLUMN, OUTPUT_VERSION_COLUMN = "prediction", "model_version"


def score_file(project: Project, source: Path, target: Path, log: bool, console: Console) -> dict[str, Any]:
    """Write `target`: the rows of `source` with `prediction` and `model_version` behind; rows, version, seconds.

    log: every prediction is in the ledger before the file appears. Raises InputError, and Outage where the ledger fails.
    """
    began = time.monotonic()
    check_piece_files(source, target)
    version = require_champion(project)
    work = project.home / "scoring" / _hash_work(source, version, log)
    with ExitStack() as stack:
        writer = None
        if log:
            writer = stack.enter_context(closing(PredictionWriter(project.ledger, project.name, project.privacy)))
        scorer = _Scorer(project, version, source, work, writer)

        def scored() -> Iterator[pa.Table]:
            for table in read_pieces(source):
                yield scorer.scored(table)
                console.working(f"{scorer.rows:,} rows scored")

        write_whole(target, lambda part: write_pieces(scored(), part, target.suffix.lower()))
    shutil.rmtree(work, ignore_errors=True)
    gone_on = f", {scorer.found:,} of them before it was stopped" if scorer.found else ""
    console.print(
        f"  {scorer.rows:,} rows scored with version {version.version} ({scorer.engine}){gone_on} -> {target}"
    )
    seconds = round(time.monotonic() - began, 2)
    return {
        "rows": scorer.rows,
        "version": version.version,
        "seconds": seconds,
        "engine": scorer.engine,
        "logged": log,
        "resumed": scorer.found,
    }


class _Scorer:
    """Predicts pieces in their order; a piece that an earlier run finished is read instead."""

    def __init__(
        self, project: Project, version: Version, source: Path, work: Path, writer: PredictionWriter | None
    ) -> None:
        self._problem, self._version, self._source = project.settings.problem, version, source
        self._work, self._writer = work, writer
        self.engine, self._ask = _choose_engine(project, version)
        self._columns = features.FeatureColumns(**{k: tuple(v) for k, v in version.facts.columns.items()})
        self._piece = self.rows = self.found = 0

    def scored(self, table: pa.Table) -> pa.Table:
        """The piece with its predictions behind."""
        kept = self._work / f"{self._piece:06d}.parquet"
        found = read_frame_cache(kept)
        if found is not None and list(found) == [OUTPUT_PREDICTION_COLUMN] and len(found) == table.num_rows:
            predictions = found[OUTPUT_PREDICTION_COLUMN]
            self.found += len(predictions)
        else:
            predictions = self._predicted(table)
            write_parquet(predictions.to_frame(), kept)
        self._piece += 1
        self.rows += table.num_rows
        table = table.drop_columns(
            [name for name in (OUTPUT_PREDICTION_COLUMN, OUTPUT_VERSION_COLUMN) if name in table.column_names]
        )
        table = table.append_column(OUTPUT_PREDICTION_COLUMN, pa.Array.from_pandas(predictions))
        return table.append_column(
            OUTPUT_VERSION_COLUMN, pa.array([self._version.version] * table.num_rows, pa.int64())
        )

    def _predicted(self, table: pa.Table) -> pd.Series:
        predictions = self._ask(conform_frame(table.to_pandas(), self._columns, str(self._source)))
        if self._writer is not None:
            self._record(table, predictions)
        return pd.Series(predictions.value, name=OUTPUT_PREDICTION_COLUMN)

    def _record(self, table: pa.Table, predictions: Predictions) -> None:
        """Into the ledger, durably. Ids that the table does not give are made from the file and the row's place."""
        problem, number = self._problem, self._version.version
        kept_names = [n for n in table.column_names if n in {*self._columns.names, problem.id, problem.time}]
        outputs = make_recorded_outputs(
            EnginePredictions(predictions.value.tolist(), predictions.proba),
            None if predictions.classes is None else predictions.classes.tolist(),
        )
        given = []
        for i, (row, output) in enumerate(zip(table.select(kept_names).to_pylist(), outputs, strict=True), self.rows):
            own = row.get(problem.id) if problem.id else None
            try:
                id = f"{self._work.name}-{i}" if own is None else parse_label_id(own)
            except ValueError as e:
                raise InputError(f"{self._source}: row {i + 1}, column {problem.id!r}: {e}. Fix the file") from None
            given.append(Prediction(id, number, row, output, time=row.get(problem.time) if problem.time else None))
        assert self._writer is not None
        try:
            for future in [self._writer.submit(given[at : at + GROUP_ROWS]) for at in range(0, len(given), GROUP_ROWS)]:
                future.result()
        except InvalidPrediction as e:
            raise InputError(f"{self._source}: {e}. Fix the file") from None
        except (LedgerFailed, LedgerFull, LedgerClosed) as e:
            raise Outage(f"{e}. What was finished is kept; run the command again to go on") from e


def _choose_engine(project: Project, version: Version) -> tuple[str, Callable[[pd.DataFrame], Predictions]]:
    """The engine that is faster on large batches of this version, by name, and what predicts a conformed frame with it."""
    kind = definitions.load_problem_type(version.facts.kind)
    bulk = version.facts.bulk or {}
    if bulk.get("engine") == "compiled":
        form = engine_files.read_engine_files(
            model_files.verify_folder(project.stored(version), version.manifest_sha256, engine_files.ENGINE_FILES)
        )
        if form is not None and form.compiled is not None:
            return "compiled", partial(_predict_compiled, form.compiled, form.signature)
    return "scikit-learn", partial(kind.predict, project.model(version))


def _predict_compiled(engine: PredictionEngine, signature: ModelSignature, frame: pd.DataFrame) -> Predictions:
    predictions = engine.predict(convert_to_plain_columns(frame, signature))
    classes = None if signature.classes is None else np.array(signature.classes)
    return Predictions(np.array(predictions.values), predictions.proba, classes)


def _hash_work(source: Path, version: Version, log: bool) -> str:
    """Names this work: another file, a changed one or another version is other work."""
    at = source.stat()
    outputs = f"{source.resolve()}\0{at.st_size}\0{at.st_mtime_ns}\0{version.manifest_sha256}\0{log}"
    return hashlib.sha256(outputs.encode()).hexdigest()[:24]


# Rows held in memory at a time.
PIECE_ROWS = 50_000
PIECE_FORMATS = (".csv", ".parquet")


def check_piece_files(source: Path, target: Path) -> None:
    """Raise InputError where a file is missing, or its name gives no format that is read and written here."""
    for path in (source, target):
        if path.suffix.lower() not in PIECE_FORMATS:
            raise InputError(f"{path}: is neither CSV nor Parquet. Let its name end in .csv or .parquet")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target}: is the file that is scored. Name another for the predictions")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}. Make it first, or name another place")
    if not source.exists():
        raise InputError(
            f"{source}: not found. Name a CSV or Parquet file with the columns that the model was trained on"
        )


def read_pieces(source: Path) -> Iterator[pa.Table]:
    """Pieces of a file, all of one schema: Parquet's own; CSV as text, as written. Raises InputError."""
    try:
        if source.suffix.lower() == ".csv":
            # Each column is read as the type that the model knows.
            for frame in pd.read_csv(
                source, chunksize=PIECE_ROWS, dtype="str", encoding="utf-8-sig", keep_default_na=True
            ):
                schema = pa.schema([(name, pa.string()) for name in frame.columns])
                yield pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        else:
            file = pq.ParquetFile(source)
            for batch in file.iter_batches(PIECE_ROWS):
                yield pa.Table.from_batches([batch])
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, pa.ArrowInvalid) as e:
        raise InputError(
            f"{source}: cannot be read ({errors.read_first_line(e)}). Write it anew as UTF-8 CSV or as Parquet"
        ) from e


def write_pieces(tables: Iterator[pa.Table], path: Path, suffix: str) -> None:
    """Write pieces of one schema to one file, each as it comes."""
    if suffix == ".csv":
        for i, table in enumerate(tables):
            table.to_pandas().to_csv(path, mode="a", header=i == 0, index=False)
        return
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)
