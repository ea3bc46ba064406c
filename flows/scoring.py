"""Batch scoring: the champion's predictions for the rows of a file, a piece at a time, whole or not at all.

What a piece got is kept beside the ledger until all are through: after a kill, the same command goes on there. The engine that was
measured to be faster on large batches when the version was built predicts, and is named. It is the version's own, not this
run's: a file that is scored again gets the same to the last bit, and stands in the ledger once.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.flows.console import Console
from windvane.flows.deploying import champion_or_complain
from windvane.flows.project import Project
from windvane.tasks import pieces
from windvane.tasks.errors import InputError
from windvane.tasks.tables import read_frame_cache, write_parquet, write_whole

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from windvane.ledger.versions import Version
    from windvane.ledger.writer import Writer
    from windvane.serving.engine import Engine
    from windvane.serving.signature import Signature
    from windvane.tasks.problems import Predictions

PREDICTION, VERSION = "prediction", "model_version"


def score(project: Project, source: Path, target: Path, log: bool, console: Console) -> dict[str, Any]:
    """Write `target`: the rows of `source` with `prediction` and `model_version` behind; rows, version, seconds.

    log: every prediction is in the ledger before the file appears. Raises InputError, and Outage where the ledger fails.
    """
    began = time.monotonic()
    pieces.check(source, target)
    version = champion_or_complain(project)
    work = project.home / "scoring" / _mark(source, version, log)
    with ExitStack() as stack:
        writer = stack.enter_context(closing(_writer(project))) if log else None
        scorer = _Scorer(project, version, source, work, writer)

        def scored() -> Iterator[pa.Table]:
            for table in pieces.read(source):
                yield scorer.scored(table)
                console.working(f"{scorer.rows:,} rows scored")

        write_whole(target, lambda part: pieces.write(scored(), part, target.suffix.lower()))
    shutil.rmtree(work, ignore_errors=True)
    gone_on = f", {scorer.found:,} of them before it was stopped" if scorer.found else ""
    console.say(f"  {scorer.rows:,} rows scored with version {version.version} ({scorer.engine}){gone_on} -> {target}")
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

    def __init__(self, project: Project, version: Version, source: Path, work: Path, writer: Writer | None) -> None:
        from windvane.tasks import features

        self._problem, self._version, self._source = project.settings.problem, version, source
        self._work, self._writer = work, writer
        self.engine, self._ask = _engine(project, version)
        self._columns = features.Columns(**{k: tuple(v) for k, v in version.facts["columns"].items()})
        self._piece = self.rows = self.found = 0

    def scored(self, table: pa.Table) -> pa.Table:
        """The piece with its predictions behind."""
        import pyarrow as pa

        kept = self._work / f"{self._piece:06d}.parquet"
        found = read_frame_cache(kept)
        if found is not None and list(found) == [PREDICTION] and len(found) == table.num_rows:
            said = found[PREDICTION]
            self.found += len(said)
        else:
            said = self._predicted(table)
            write_parquet(said.to_frame(), kept)
        self._piece += 1
        self.rows += table.num_rows
        table = table.drop_columns([name for name in (PREDICTION, VERSION) if name in table.column_names])
        table = table.append_column(PREDICTION, pa.Array.from_pandas(said))
        return table.append_column(VERSION, pa.array([self._version.version] * table.num_rows, pa.int64()))

    def _predicted(self, table: pa.Table) -> pd.Series:
        import pandas as pd

        from windvane.tasks.features import conform

        said = self._ask(conform(table.to_pandas(), self._columns, str(self._source)))
        if self._writer is not None:
            self._record(table, said)
        return pd.Series(said.value, name=PREDICTION)

    def _record(self, table: pa.Table, said: Predictions) -> None:
        """Into the ledger, durably. Ids that the table does not give are made from the file and the row's place."""
        from windvane.ledger.predictions import BadPrediction, Prediction
        from windvane.ledger.writer import GROUP
        from windvane.serving.answering import outputs
        from windvane.serving.engine import Answer
        from windvane.tasks.statements import as_id

        problem, number = self._problem, self._version.version
        asked = [n for n in table.column_names if n in {*self._columns.names, problem.id, problem.time}]
        told = outputs(Answer(said.value.tolist(), said.proba), None if said.classes is None else said.classes.tolist())
        given = []
        for i, (row, output) in enumerate(zip(table.select(asked).to_pylist(), told, strict=True), self.rows):
            own = row.get(problem.id) if problem.id else None
            try:
                id = f"{self._work.name}-{i}" if own is None else as_id(own)
            except ValueError as e:
                raise InputError(f"{self._source}: row {i + 1}, column {problem.id!r}: {e}. Mend the file") from None
            given.append(Prediction(id, number, row, output, time=row.get(problem.time) if problem.time else None))
        assert self._writer is not None
        try:
            waiting = [self._writer.submit(given[at : at + GROUP]) for at in range(0, len(given), GROUP)]
        except BadPrediction as e:
            raise InputError(f"{self._source}: {e}. Mend the file") from None
        _durable(waiting)


def _engine(project: Project, version: Version) -> tuple[str, Callable[[pd.DataFrame], Predictions]]:
    """The engine that is faster on large batches of this version, by name, and what asks it about a conformed frame."""
    from windvane.tasks import artifacts, problems

    kind = problems.of(version.facts["kind"])
    bulk = version.facts.get("bulk") or {}
    if bulk.get("engine") == "compiled":
        from windvane.serving import stored

        folder = project.fetch(version.model_uri, version.manifest_sha256)
        form = stored.read(artifacts.verify(folder, version.manifest_sha256, stored.FILES))
        if form is not None and form.compiled is not None:
            return "compiled", partial(_compiled, form.compiled, form.signature)
    return "scikit-learn", partial(kind.predict, project.model(version))


def _compiled(engine: Engine, signature: Signature, frame: pd.DataFrame) -> Predictions:
    import numpy as np

    from windvane.serving.agreement import plain
    from windvane.tasks.problems import Predictions

    said = engine.predict(plain(frame, signature))
    classes = None if signature.classes is None else np.array(signature.classes)
    return Predictions(np.array(said.values), said.proba, classes)


def _durable(waiting: list[Any]) -> None:
    from windvane.ledger.writer import LedgerClosed, LedgerFailed, LedgerFull
    from windvane.tasks.errors import Outage

    try:
        for future in waiting:
            future.result()
    except (LedgerFailed, LedgerFull, LedgerClosed) as e:
        raise Outage(f"{e}. What was finished is kept; run the command again to go on") from e


def _writer(project: Project) -> Writer:
    from windvane.ledger.writer import Writer

    return Writer(project.ledger, project.name, project.privacy)


def _mark(source: Path, version: Version, log: bool) -> str:
    """Names this work: another file, a changed one or another version is other work."""
    at = source.stat()
    told = f"{source.resolve()}\0{at.st_size}\0{at.st_mtime_ns}\0{version.manifest_sha256}\0{log}"
    return hashlib.sha256(told.encode()).hexdigest()[:24]
