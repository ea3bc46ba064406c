"""What reasons and intervals cost, and whether intervals keep their promise. `python -m benchmarks.reasons [--seconds 2] [TABLE ...]`

Each table: half of its rows, at random, train a model of each candidate, a quarter is held out for the scores, a quarter is new.
Printed are the share of new rows within the interval or set at 0.9, the median width beside that of one width for all, and what a row
costs: the shap package beside ours, and over HTTP on one connection (benchmarks/load.py), recorded in the ledger. WINDVANE_DATA names
the folder of the tables.
--shift prints another table: the new rows come in windows, whose labels are known when the next begins. From the sixth window on errors of
numbers are 1.6 times as large, and 30 % of the classes are drawn anew. Printed is the share within: by plain split conformal, by adaptive
conformal inference label by label (Gibbs & Candes, 2021, the same step), and by the step of whole windows that the service uses.
Each table is a cell that is kept (--kept FILE) with its commit and the hash of the code that it measures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import skops.io

from benchmarks import load
from benchmarks.agreement import TABLES, read_table
from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from tests.support.served_models import Site, made_project, serving
from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.engine import CompiledEngine
from windvane.tasks.evaluation.adaptive_levels import STEP, LevelHistory, count_by_level
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.stores import model_files

LEVEL, ROWS = 0.9, 20_000
QUERIES = ("", "?explain=5", "?interval=0.9", "?explain=5&interval=0.9")


# Rows of a window, windows before the shift, by how much errors grow, which share of classes is drawn anew.
WINDOW, BEFORE, SHIFT, SWAPPED = 250, 5, 1.6, 0.3


@dataclass(frozen=True)
class Split:
    """Held-out rows with predictions and truth, new rows and their truth, and what is stored about the version."""

    kept: tuple[Any, Predictions, Any]
    fresh: Any
    truth: Any
    facts: dict[str, Any]


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
    folder: Path, files: dict[str, bytes], facts: dict[str, Any], rows: list[Any], seconds: float
) -> str:
    """Milliseconds of the response of one row in the middle, for each query."""
    project = made_project(folder)
    site = Site(project.path / ".windvane")
    stored = site.root / "models" / "2"
    stored.mkdir(parents=True)
    for name, content in files.items():
        (stored / name).write_bytes(content)
    site.add(2, stored, **facts)
    site.promote(2)
    found = []
    with serving(project) as (_, port):
        for query in QUERIES:
            bodies = [json.dumps({"dataframe_records": [row]}).encode() for row in rows]
            measured = load.run(port, [load.request(f"/invocations{query}", body) for body in bodies], 1, seconds)
            if measured.failed:
                raise RuntimeError(f"{measured.failed} requests with {query!r} failed")
            found.append(f"{measured.p50:.2f}")
    return " / ".join(found)


def store_candidates(
    file: str, candidates: Sequence[str] = ()
) -> Iterator[tuple[str, Any, dict[str, bytes], engine_files.StoredEngine, Split]]:
    """Each candidate (none named: all of the problem type) trained on half of a table: its name, model, files, what they hold."""
    settings, kind, columns, frame = read_table(file)
    frame, target = frame.head(ROWS), settings.problem.target
    half, most = len(frame) // 2, len(frame) * 3 // 4
    train, held, new = frame[:half], frame[half:most], frame[most:]
    inputs, tried, fresh = (features.conform_frame(rows, columns, file) for rows in (train, held, new))
    for name in candidates or kind.candidates:
        model = model_pipeline.fit_pipeline(
            ModelConfiguration(name, {}), kind, columns, train, FitOptions(target, 0, 2)
        )
        kept = (tried, kind.predict(model, tried), kind.truth(held[target]))
        compared = engine_files.ComparisonRows(inputs, tried, 0, 1_000, kept)
        files = engine_files.build_engine_files(model, kind, columns, compared)
        form = engine_files.read_engine_files(files)
        assert form is not None
        assert isinstance(form.compiled, CompiledEngine), form.why
        facts = {"kind": kind.name, "columns": asdict(columns), "target": target}
        yield name, model, files, form, Split(kept, fresh, kind.truth(new[target]), facts)


def measure_shift(file: str) -> None:
    """The rows of one table, of two candidates, under an injected shift."""
    for name, _, _, form, split in store_candidates(file, ("linear", "boosting")):
        plain, rng = agreement.convert_to_plain_columns(split.fresh, form.signature), np.random.default_rng(0)
        said, intervals = form.compiled.predict(plain), form.make_intervals(form.compiled)
        classes = None if form.signature.classes is None else np.array(form.signature.classes)
        predictions = Predictions(np.array(said.values), said.proba, classes)
        truth, shifted = split.truth.copy(), np.arange(len(split.truth)) >= BEFORE * WINDOW
        if classes is None:
            truth = np.where(shifted, predictions.value + SHIFT * (truth - predictions.value), truth)
        else:
            truth = np.where(shifted & (rng.random(len(truth)) < SWAPPED), rng.choice(classes, len(truth)), truth)
        found = intervals.measure_labels(plain, predictions, truth, LEVEL)
        called = np.zeros(len(truth), dtype=bool) if classes is None else truth == predictions.value
        most, seen, one_by_one = found.scores / (found.scores + 1), list[tuple[int, ...]](), LEVEL
        kept = list[tuple[float, float, float]]()
        for start in range(0, len(truth) - WINDOW + 1, WINDOW):
            needed, right = found.needed[start : start + WINDOW], called[start : start + WINDOW]
            levels = LEVEL, one_by_one, LevelHistory.of(seen).adjust(LEVEL, most)
            kept.append(tuple(float(np.mean((needed < level) | right)) for level in levels))
            seen.append(count_by_level(needed))
            for one in needed:
                one_by_one = min(max(one_by_one + STEP * (LEVEL - (one < one_by_one)), 0.0), most)
        shares = np.array(kept)
        parts = shares[:BEFORE], shares[BEFORE : BEFORE + 1], shares[BEFORE + 1 : BEFORE + 6], shares[BEFORE + 6 :]
        for i, way in enumerate(("split conformal", "label by label", "window by window")):
            print(
                f"| {file} | {name} | {way} | {' | '.join(f'{part[:, i].mean():.1%}' for part in parts)} |", flush=True
            )


def measure_table(file: str, seconds: float) -> None:
    """The rows of one table."""
    for name, model, files, form, split in store_candidates(file):
        kept, fresh, truth = split.kept, split.fresh, split.truth
        plain = agreement.convert_to_plain_columns(fresh, form.signature)
        said, intervals, explainer = (
            form.compiled.predict(plain),
            form.make_intervals(form.compiled),
            form.make_explainer(form.compiled),
        )
        assert intervals is not None
        found = intervals.find_bounds(plain, said, LEVEL)
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
        sent = fresh.head(100).to_json(orient="records", date_format="iso")
        with TemporaryDirectory() as scratch:
            stored = {model_files.MODEL_FILE: skops.io.dumps(model), **files}
            http = measure_service(Path(scratch), stored, split.facts, json.loads(sent), seconds)
        print(
            f"| {file} | {name} | {inside:.1%} | {width} | {ours:.2f} | {measure_shap(model, form.compiled, plain)} | {http} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    parser.add_argument("--seconds", type=float, default=2.0, help="of load per query")
    parser.add_argument("--shift", action="store_true")
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "reasons.jsonl")
    chosen = parser.parse_args()
    kept, code = (
        KeptCells(chosen.kept),
        hash_code(__file__, "serving", "tasks/models", "tasks/evaluation/adaptive_levels.py"),
    )
    if chosen.shift:
        print(
            "| table | candidate | level | before the shift | first window | next five | later |\n|---|---|---|---|---|---|---|"
        )
        for file in chosen.tables:
            kept.show(f"{file}, shift", code, lambda file=file: measure_shift(file))
        return
    print(
        "| table | candidate | new rows within, of 90 % | width | reasons, ms a row | shap | response, ms: plain, reasons, interval, both |"
    )
    print("|---|---|---|---|---|---|---|")
    for file in chosen.tables:
        kept.show(f"{file}, {chosen.seconds:g} s", code, lambda file=file: measure_table(file, chosen.seconds))


if __name__ == "__main__":
    main()
