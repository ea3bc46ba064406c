"""How well compiled forms agree with scikit-learn, and what they cost: every candidate, whole tables, held-out rows.

python benchmarks/agreement.py [TABLE ...]     # WINDVANE_DATA names the folder of the tables
Fitted on a random half of each table's rows (seed 0), asked about the other half and about 10,000 rows made up from it, in
batches; then every row of the other half once more as the service gets it: alone, in the body of a request.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# benchmarks/serving.py has the name of a package: the project's own comes first.
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import orjson

from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.compiler import compile_pipeline
from windvane.serving.compiled.engine import CompiledEngine, EnginePredictions
from windvane.serving.http import request_rows
from windvane.serving.signature import InputColumn, ModelSignature
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings import project_params
from windvane.tasks.validate import table_profile

TABLES: dict[str, dict[str, Any]] = {
    "king_county_houses.parquet": {"kind": "regression", "target": "price", "time": "ts"},
    "bikeshare_dc_hourly.parquet": {"kind": "regression", "target": "count", "time": "ts"},
    "census_income.parquet": {"kind": "classification", "target": "income", "ignore": ["instance_weight"]},
    "nycflights13.parquet": {
        "kind": "classification",
        "target": "late15",
        "time": "ts",
        "ignore": ["dep_delay", "air_time", "arr_delay", "cancelled"],
    },
}


def seconds(work: Callable[[], Any], at_least: float = 0.3) -> float:
    """Of one call: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < at_least / 5:
            work()
            calls += 1
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def read_table(file: str) -> tuple[Any, Any, Any, Any]:
    """Settings, problem type, columns and rows of a table, in an order of chance."""
    path = Path(os.environ["WINDVANE_DATA"]) / file
    chosen = project_params.parse_settings({"project": "p", "problem": TABLES[file], "data": {"source": str(path)}})
    problem, kind = chosen.problem, definitions.load_problem_type(chosen.problem.kind)
    with tempfile.TemporaryDirectory() as scratch:
        ingestion.write_table(Path(), chosen, Path(scratch) / "table", Path(scratch))
        frame = table_io.read_parquet(Path(scratch) / "table")
    frame = frame[frame[problem.target].notna()].sample(frac=1, random_state=0).reset_index(drop=True)
    return chosen, kind, features.select_feature_columns(chosen, table_profile.profile_table(frame)), frame


def table(file: str) -> None:
    chosen, kind, columns, frame = read_table(file)
    problem = chosen.problem
    half = len(frame) // 2
    held = features.conform_frame(frame.iloc[half:], columns, file)
    types = engine_files.list_input_types(columns)
    signature = ModelSignature(tuple(InputColumn(name, types[name], True) for name in columns.names))
    bent = agreement.make_synthetic_rows(held, signature, 10_000, seed=0)
    for name in kind.candidates:
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, {}),
            kind,
            columns,
            frame.iloc[:half],
            FitOptions(problem.target, 0, os.cpu_count() or 1),
        )
        made = compile_pipeline(model, columns.names)
        engine = CompiledEngine(
            made.recipe, made.trees, model.classes_.tolist() if hasattr(model, "classes_") else None
        )
        real = agreement.measure_agreement(engine, model, kind.predict, held, signature)
        fake = agreement.measure_agreement(engine, model, kind.predict, bent, signature)
        told = [_told(real), _told(alone(engine, model, kind, held, signature)), _told(fake)]
        told.append(_cost(engine, model, kind, held, signature))
        print(f"| {file.split('.', maxsplit=1)[0]} | {name} | {' | '.join(told)} |", flush=True)


def alone(
    engine: CompiledEngine, model: Any, kind: definitions.ProblemType, held: Any, signature: ModelSignature
) -> agreement.EngineAgreement:
    """Every row as a request of its own, from the bytes of its body to its answer, beside what scikit-learn says."""
    found = agreement.EngineAgreement(0, 0, 0, 0.0)
    for start in range(0, len(held), agreement.AGREEMENT_BATCH_ROWS):
        piece = held.iloc[start : start + agreement.AGREEMENT_BATCH_ROWS]
        sent = {name: [_sent(value) for value in piece[name].tolist()] for name in signature.names}
        answers = []
        for row in zip(*sent.values(), strict=True):
            body = orjson.dumps({"inputs": [dict(zip(sent, row, strict=True))]})
            answers.append(
                engine.predict(
                    request_rows.parse_invocation(
                        body, "application/json", signature, request_rows.IdTimeColumns()
                    ).plain
                )
            )
        values = [answer.values[0] for answer in answers]
        shares = [answer.proba for answer in answers if answer.proba is not None]
        together = EnginePredictions(values, np.concatenate(shares) if shares else None)
        found += agreement.compare_predictions(together, kind.predict(model, piece), engine.call)
    return found


def _sent(value: Any) -> Any:
    """A value of a frame as a client's JSON has it."""
    if value is None or value != value:  # noqa: PLR0124 (NaN, NaT)
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


def _told(found: agreement.EngineAgreement) -> str:
    return f"{found.differing} of {found.rows:,}, worst {found.worst:.0e}, {found.changed} classes"


def _cost(
    engine: CompiledEngine, model: Any, kind: definitions.ProblemType, held: Any, signature: ModelSignature
) -> str:
    told = []
    for rows in (1, 100, 10_000):
        some = held.head(rows)
        plain = agreement.convert_to_plain_columns(some, signature)
        ours = seconds(lambda plain=plain: engine.predict(plain))  # type: ignore[misc]
        theirs = seconds(lambda some=some: kind.predict(model, some))  # type: ignore[misc]
        told.append(f"{1e3 * ours:.3g} / {1e3 * theirs:.3g}")
    return " | ".join(told)


def main() -> None:
    print(
        "| table | candidate | held-out rows that differ, in batches | as single requests | made-up rows | ms, 1 row: ours / "
        "scikit-learn | 100 | 10,000 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for file in TABLES:
        if not sys.argv[1:] or file.split(".", maxsplit=1)[0] in sys.argv[1:]:
            table(file)


if __name__ == "__main__":
    main()
