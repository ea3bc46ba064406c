"""What reasons and intervals cost, and whether intervals keep their promise. `python -m benchmarks.reasons [--requests 1000] [TABLE ...]`

Each table: half of its rows, at random, train a model of each candidate, a quarter is held out for the scores, a quarter is new.
Printed are the share of new rows within the interval or set at 0.9, the median width beside that of one width for all, and what a row
costs: the shap package beside ours, and over HTTP on one connection, recorded in the ledger. WINDVANE_DATA names the folder of the tables.
Each table is a cell that is kept (--kept FILE) with its commit and the hash of the code that it measures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import skops.io

from benchmarks.agreement import TABLES, read_table
from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from tests.support.served_models import Site, made_project, serving
from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.engine import CompiledEngine
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.stores import model_files

LEVEL, ROWS = 0.9, 20_000
QUERIES = ("", "?explain=5", "?interval=0.9", "?explain=5&interval=0.9")


def measure_median(work: Callable[[int], Any], times: int) -> float:
    """Milliseconds of one call in the middle."""
    taken = []
    for i in range(times):
        began = time.perf_counter()
        work(i)
        taken.append(1e3 * (time.perf_counter() - began))
    return float(np.median(taken))


def measure_shap(model: Any, engine: CompiledEngine, plain: Any) -> str:
    """Milliseconds a row of the shap package, of models of trees."""
    estimator = model.named_steps["model"]
    while hasattr(estimator, "regressor_"):
        estimator = estimator.regressor_
    if engine.form != "trees":
        return "-"
    import shap

    inputs = engine.matrix(plain)[:20]
    explainer = shap.TreeExplainer(estimator)
    one = measure_median(lambda i: explainer.shap_values(inputs[i : i + 1], check_additivity=False), len(inputs))
    return f"{one:.2f}"


def measure_service(
    folder: Path, files: dict[str, bytes], facts: dict[str, Any], rows: list[Any], requests: int
) -> str:
    """Milliseconds of a response of one row, for each query."""
    project = made_project(folder)
    site = Site(project.path / ".windvane")
    stored = site.root / "models" / "2"
    stored.mkdir(parents=True)
    for name, content in files.items():
        (stored / name).write_bytes(content)
    site.add(2, stored, **facts)
    site.promote(2)
    told = []
    with serving(project) as (_, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for query in QUERIES:

            def request(i: int, query: str = query) -> None:
                body = {"dataframe_records": [rows[i % len(rows)]]}
                client.post(f"/invocations{query}", json=body, timeout=60).raise_for_status()

            measure_median(request, 50)
            told.append(f"{measure_median(request, requests):.2f}")
    return " / ".join(told)


def measure_table(file: str, requests: int) -> None:
    """The rows of one table."""
    settings, kind, columns, frame = read_table(file)
    frame, target = frame.head(ROWS), settings.problem.target
    half, most = len(frame) // 2, len(frame) * 3 // 4
    train, held, new = frame[:half], frame[half:most], frame[most:]
    inputs, tried, fresh = (features.conform_frame(rows, columns, file) for rows in (train, held, new))
    for name in kind.candidates:
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, {}), kind, columns, train, FitOptions(target, 0, 2)
        )
        kept = (tried, kind.predict(model, tried), kind.truth(held[target]))
        compared = engine_files.ComparisonRows(inputs, tried, 0, 1_000, kept)
        files = engine_files.build_engine_files(model, kind, columns, compared)
        form = engine_files.read_engine_files(files)
        assert form is not None
        assert isinstance(form.compiled, CompiledEngine), form.why
        plain = agreement.convert_to_plain_columns(fresh, form.signature)
        said, intervals, explainer = (
            form.compiled.predict(plain),
            form.make_intervals(form.compiled),
            form.make_explainer(form.compiled),
        )
        assert intervals is not None
        found, truth = intervals.find_bounds(plain, said, LEVEL), kind.truth(new[target])
        if found.sets is None:
            inside = np.mean((found.low <= truth) & (truth <= found.high))
            one = np.quantile(np.abs(kept[2] - kept[1].value), LEVEL)
            width = f"{np.median(found.high - found.low) / (2 * one):.2f} of one width"
        else:
            inside = np.mean([y in names for y, names in zip(truth.tolist(), found.sets, strict=True)])
            width = f"{np.mean([len(names) for names in found.sets]):.2f} classes"
        row = [[[value] for value in values] for values in zip(*(column[:100] for column in plain), strict=True)]
        answers = [form.compiled.predict(one) for one in row]
        ours = measure_median(lambda i, r=row, a=answers, e=explainer: e.explain(r[i], a[i]), len(row))
        facts = {"kind": kind.name, "columns": asdict(columns), "target": target}
        sent = fresh.head(100).to_json(orient="records", date_format="iso")
        with TemporaryDirectory() as scratch:
            stored = {model_files.MODEL_FILE: skops.io.dumps(model), **files}
            http = measure_service(Path(scratch), stored, facts, json.loads(sent), requests)
        print(
            f"| {file} | {name} | {inside:.1%} | {width} | {ours:.2f} | {measure_shap(model, form.compiled, plain)} | {http} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "reasons.jsonl")
    chosen = parser.parse_args()
    kept, code = KeptCells(chosen.kept), hash_code(__file__, "serving", "tasks/models")
    print(
        "| table | candidate | new rows within, of 90 % | width | reasons, ms a row | shap | response, ms: plain, reasons, interval, both |"
    )
    print("|---|---|---|---|---|---|---|")
    for file in chosen.tables:
        kept.show(f"{file}, {chosen.requests} requests", code, lambda file=file: measure_table(file, chosen.requests))


if __name__ == "__main__":
    main()
