"""Batch scoring: the champion's predictions for the rows of a file, piece by piece, all of them or none.

A killed run continues where it was, and the same file gets the same predictions to the last bit. Cells are read as those of
a request (serving/signature.py), files in pieces of bounded size.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as at

from windvane.flows.model_promotion import require_champion
from windvane.flows.score_files import RowPiece, check_score_files, open_scored_file, read_pieces, write_pieces
from windvane.ledger import windows
from windvane.ledger.prediction_writer import GROUP_ROWS, LedgerClosed, LedgerFailed, LedgerFull, PredictionWriter
from windvane.ledger.predictions import InvalidPrediction, Prediction
from windvane.ledger.versions import Version
from windvane.ledger.windows import CoverageState
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.engine import EnginePredictions, PlainColumns
from windvane.serving.compiled.explanations import PredictionExplainer
from windvane.serving.compiled.intervals import TooFewScores
from windvane.serving.http.invocations import make_recorded_outputs
from windvane.serving.http.request_rows import choose_recorded_values
from windvane.serving.model_cache import make_signature_from_facts
from windvane.serving.signature import CellRefused, InputReader, ModelSignature, PlainValue
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.evaluation.adaptive_levels import LevelHistory
from windvane.tasks.ingest.cell_reading import call_column
from windvane.tasks.ingest.table_io import read_frame_cache, write_parquet
from windvane.tasks.io import write_whole
from windvane.tasks.label_parsing import parse_label_id
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.project import Project
from windvane.tasks.stores import model_files

OUTPUT_PREDICTION_COLUMN, OUTPUT_VERSION_COLUMN = "prediction", "model_version"
OUTPUT_PROBABILITY_PREFIX = "probability_"
# The column with the ids that were made for the ledger, and how it is called where the file has such a column of its own.
OUTPUT_ID_COLUMNS = ("id", "prediction_id")
ColumnAdder = Callable[[PlainColumns, EnginePredictions], dict[str, Any]]
# Rows that are explained at a time.
EXPLAINED_ROWS = 500
# No value, as the word inf in a text table is none.
_INFINITE = (math.inf, -math.inf)


@dataclass(frozen=True)
class ScoringOptions:
    """log: every prediction is in the ledger before the file appears. explain: so many columns with the largest effects are named.
    interval: the level at which the file has what may be true; None: it has not. levels: late labels, by which it is adjusted.
    """

    log: bool = False
    explain: int = 0
    interval: float | None = None
    levels: LevelHistory = field(default_factory=LevelHistory)

    @property
    def suffix(self) -> str:
        """What finished pieces hold beside predictions, as a part of their folder's name. Other labels are other pieces."""
        if not self.explain and self.interval is None:
            return ""
        labels = hashlib.sha256(repr(self.levels.windows).encode()).hexdigest()[:8]
        return f"-{self.explain}-{self.interval}" + (f"-{labels}" if self.levels.windows else "")


def score_file(
    project: Project, source: Path, target: Path, options: ScoringOptions, console: Console
) -> dict[str, Any]:
    """Write `target`: the rows of `source` with what _Scorer.scored() adds behind; rows, version, seconds.

    Raises InputError, and Outage where the ledger fails.
    """
    began = time.monotonic()
    check_score_files(source, target)
    version = require_champion(project)
    if options.interval is not None:
        found = windows.read_coverage(project.ledger, project.name, version.version, CoverageState())
        options = replace(options, levels=LevelHistory.of(one["counts"] for one in found.windows))
    name = _hash_work(source, version, options.log)
    work = project.home / "scoring" / f"{name}{options.suffix}"
    with ExitStack() as stack:
        writer = None
        if options.log:
            writer = stack.enter_context(closing(PredictionWriter(project.ledger, project.name, project.privacy)))
        work.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(TemporaryDirectory(dir=work)))
        file = open_scored_file(source, scratch, project.settings.data.format)
        scorer = _Scorer(project, version, source, work, writer, options, console)

        def scored() -> Iterator[tuple[RowPiece, pa.Table]]:
            for piece in read_pieces(file, scratch):
                yield piece, scorer.scored(piece.table)
                console.working(f"{scorer.rows:,} rows scored")

        write_whole(target, lambda part: write_pieces(file, scored(), part, target))
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
        "logged": options.log,
        "resumed": scorer.found,
    }


class _Scorer:
    """Predicts pieces in their order; a piece that an earlier run finished is read instead."""

    def __init__(
        self,
        project: Project,
        version: Version,
        source: Path,
        work: Path,
        writer: PredictionWriter | None,
        options: ScoringOptions,
        console: Console,
    ) -> None:
        self._problem, self._version, self._source = project.settings.problem, version, source
        self._work, self._writer = work, writer
        content = model_files.verify_folder(project.stored(version), version.manifest_sha256, engine_files.ENGINE_FILES)
        form = engine_files.read_engine_files(content)
        self.engine, self._signature, self._predict = _choose_engine(project, version, form)
        self._adders = _load_adders(project, version, form, options, console)
        self._piece = self.rows = self.found = 0

    def scored(self, table: pa.Table) -> pa.Table:
        """What is added to a piece: its predictions, the version, of classes the probabilities, the columns with the largest effects
        where they are wanted, and with `log` the ids under which they are recorded, unless problem.id is a column of the file.
        """
        names = self._find_columns(table)
        kept = self._work / f"{self._piece:06d}.parquet"
        found = read_frame_cache(kept)
        if found is not None and OUTPUT_PREDICTION_COLUMN in found and len(found) == table.num_rows:
            self.found += len(found)
        else:
            found = self._predicted(table, names)
            write_parquet(found, kept)
        added = pa.table(
            {
                OUTPUT_PREDICTION_COLUMN: pa.Array.from_pandas(found[OUTPUT_PREDICTION_COLUMN]),
                OUTPUT_VERSION_COLUMN: pa.array([self._version.version] * table.num_rows, pa.int64()),
                **{name: pa.Array.from_pandas(found[name]) for name in list(found)[1:]},
            }
        )
        if self._writer is not None and self._problem.id not in names:
            free = next(name for name in OUTPUT_ID_COLUMNS if name not in names or name == OUTPUT_ID_COLUMNS[-1])
            added = added.append_column(free, pa.array(self._make_ids(table.num_rows)))
        self._piece += 1
        self.rows += table.num_rows
        return added

    def _find_columns(self, table: pa.Table) -> dict[str, str]:
        """What each column is called in the file: blanks around a name mean nothing. Raises InputError for one that is not there."""
        names = {call_column(name): name for name in table.column_names}
        if len(names) < len(table.column_names):
            twice = next(name for name, count in Counter(map(call_column, table.column_names)).items() if count > 1)
            raise InputError(f"{self._source}: column {twice!r} appears twice. Rename or drop one")
        if absent := [repr(column.name) for column in self._signature.inputs if column.name not in names]:
            raise InputError(
                f"{self._source}: column {', '.join(absent)} is missing. Add it; leave its values empty where unknown"
            )
        return names

    def _make_ids(self, rows: int) -> list[str]:
        """Made from the file and the rows' places, so that the same file has the same ids, with reasons and without."""
        name = self._work.name.partition("-")[0]
        return [f"{name}-{i}" for i in range(self.rows, self.rows + rows)]

    def _predicted(self, table: pa.Table, names: dict[str, str]) -> pd.DataFrame:
        signature, rows = self._signature, self.rows
        try:
            plain = [
                _read_cells(table.column(names[typed.column.name]), text, typed)
                for text, typed in zip(signature.from_text, signature.from_json, strict=True)
            ]
        except CellRefused as e:
            raise InputError(
                f"{self._source}: column {e.column!r}, row {rows + e.row}: {e.reason}. Fix the file, or leave the row out"
            ) from None
        predictions = self._predict(plain)
        if self._writer is not None:
            self._record(self._writer, table, names, plain, predictions)
        found: dict[str, Any] = {OUTPUT_PREDICTION_COLUMN: predictions.values}
        if predictions.proba is not None and signature.classes is not None:
            found |= {
                f"{OUTPUT_PROBABILITY_PREFIX}{name}": predictions.proba[:, i]
                for i, name in enumerate(signature.classes)
            }
        for add in self._adders:
            found |= add(plain, predictions)
        return pd.DataFrame(found)

    def _record(
        self,
        writer: PredictionWriter,
        table: pa.Table,
        names: dict[str, str],
        plain: list[list[PlainValue]],
        predictions: EnginePredictions,
    ) -> None:
        """Into the ledger, durably. Ids that the table does not give are made."""
        problem, inputs = self._problem, self._signature.inputs
        wanted = dict.fromkeys([c.name for c in inputs] + [n for n in (problem.id, problem.time) if n in names])
        given: dict[str, Sequence[Any]] = {name: table.column(names[name]).to_pylist() for name in wanted if name}
        for column, values in zip(inputs, plain, strict=True):
            given[column.name] = choose_recorded_values(column, given[column.name], values)
        ids, times = self._make_ids(table.num_rows), given.get(problem.time or "", [None] * table.num_rows)
        if problem.id in names:
            ids = [self._parse_id(own, i) for i, own in enumerate(given[str(problem.id)], self.rows + 1)]
        records = (dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True))
        outputs = make_recorded_outputs(predictions, self._signature.classes)
        rows = [
            Prediction(id, self._version.version, record, output, time=at)
            for id, record, output, at in zip(ids, records, outputs, times, strict=True)
        ]
        try:
            for future in [writer.submit(rows[at : at + GROUP_ROWS]) for at in range(0, len(rows), GROUP_ROWS)]:
                future.result()
        except InvalidPrediction as e:
            raise InputError(f"{self._source}: {e}. Fix the file") from None
        except (LedgerFailed, LedgerFull, LedgerClosed) as e:
            raise Outage(f"{e}. What was finished is kept; run the command again to go on") from e

    def _parse_id(self, own: Any, row: int) -> str:
        try:
            return parse_label_id(own)
        except ValueError as e:
            raise InputError(f"{self._source}: row {row}, column {self._problem.id!r}: {e}. Fix the file") from None


def _read_cells(cells: pa.ChunkedArray, text: InputReader, typed: InputReader) -> list[PlainValue]:
    """A file's column as a request with the same values would be read: words as the cells of a text table. Raises CellRefused."""
    kind = cells.type
    if at.is_dictionary(kind):
        cells, kind = cells.cast(kind.value_type), kind.value_type
    if at.is_string(kind) or at.is_large_string(kind):
        return text.read(["" if word is None else word for word in cells.to_pylist()])
    if typed.column.type == "date" and (at.is_timestamp(kind) or at.is_date(kind)):
        moments = cells.cast(pa.timestamp("us", kind.tz if at.is_timestamp(kind) else None), safe=False)
        return typed.require_values(moments.cast(pa.int64()).to_pylist())
    if at.is_time(kind) or at.is_duration(kind):  # in seconds, as ingest reads them
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        cells = pc.divide(cells.cast(pa.int32() if at.is_time32(kind) else pa.int64()).cast(pa.float64()), unit)
    elif typed.column.type == "number" and (at.is_integer(kind) or at.is_floating(kind) or at.is_decimal(kind)):
        cells = cells.cast(pa.float64(), safe=False)
    return typed.read([None if value in _INFINITE else value for value in cells.to_pylist()])


def _choose_engine(
    project: Project, version: Version, form: engine_files.StoredEngine | None
) -> tuple[str, ModelSignature, Callable[[PlainColumns], EnginePredictions]]:
    """The engine that is faster on large batches of this version, by name, the version's signature, and what predicts with it."""
    if form is not None and form.compiled is not None and (version.facts.bulk or {}).get("engine") == "compiled":
        return "compiled", form.signature, form.compiled.predict
    signature = make_signature_from_facts(version) if form is None else form.signature
    kind, model = definitions.load_problem_type(version.facts.kind), project.model(version)

    def predict(columns: PlainColumns) -> EnginePredictions:
        predictions = kind.predict(model, engine_files.build_plain_frame(columns, signature))
        return EnginePredictions(predictions.value.tolist(), predictions.proba)

    return "scikit-learn", signature, predict


def _load_adders(
    project: Project,
    version: Version,
    form: engine_files.StoredEngine | None,
    options: ScoringOptions,
    console: Console,
) -> list[ColumnAdder]:
    """What adds columns to predictions: reasons and intervals. Raises InputError for a version that was stored without them."""
    if not options.explain and options.interval is None:
        return []
    lacks = f"version {version.version} was stored without what it needs. Train again with `windvane train`"
    if form is None:
        raise InputError(f"--explain, --interval: {lacks}")
    kind, adders = version.facts.kind, list[ColumnAdder]()
    folder, digest = project.stored(version), version.manifest_sha256
    engine = form.compiled or engine_files.ScikitLearnEngine(folder, digest, kind, form.signature)
    if options.explain:
        adders.append(_make_reason_adder(form.make_explainer(engine), options.explain, console))
    if (level := options.interval) is not None:
        if (intervals := form.make_intervals(engine)) is None:
            raise InputError(f"--interval: {lacks}")
        try:
            intervals.find_limit(level)
        except TooFewScores as e:
            raise InputError(f"--interval: {e}. Choose a lower level") from None
        levels = options.levels
        if (adjusted := intervals.adjust_level(level, levels)) is not None:
            console.print(f"  by the labels of {len(levels.windows)} windows {level:g} needs the level {adjusted:.4g}")
        adders.append(lambda plain, said: intervals.find_bounds(plain, said, level, levels).list_columns())
    return adders


def _make_reason_adder(explainer: PredictionExplainer, count: int, console: Console) -> ColumnAdder:
    """Explains some rows at a time: they take milliseconds each, and people see how far it is."""

    def add(plain: PlainColumns, predictions: EnginePredictions) -> dict[str, Any]:
        parts, rows = list[dict[str, Any]](), len(predictions.values)
        for start in range(0, rows, EXPLAINED_ROWS):
            piece = slice(start, start + EXPLAINED_ROWS)
            proba = None if predictions.proba is None else predictions.proba[piece]
            some = EnginePredictions(predictions.values[piece], proba)
            parts.append(explainer.explain([values[piece] for values in plain], some).list_columns(count))
            console.working(f"{min(start + EXPLAINED_ROWS, rows):,} of {rows:,} rows of a piece explained")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return add


def _hash_work(source: Path, version: Version, log: bool) -> str:
    """Names this work: another file, a changed one or another version is other work."""
    at = source.stat()
    outputs = f"{source.resolve()}\0{at.st_size}\0{at.st_mtime_ns}\0{version.manifest_sha256}\0{log}"
    return hashlib.sha256(outputs.encode()).hexdigest()[:24]
