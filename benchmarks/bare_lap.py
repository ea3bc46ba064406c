"""The alternative that benchmarks/lap.py measures against: one script, the same fits, the same MLflow calls, nothing else.

No orchestration, no data versions, no lease, no ledger, no gate, no manifest, no smoke test. Run in a project's folder:
`python benchmarks/bare_lap.py`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow
import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature

from benchmarks.reading import labelled
from windvane.tasks.evaluation import model_evaluation
from windvane.tasks.evaluation.evaluation_files import flatten_metrics, write_evaluation
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import FitOptions, ModelTask
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.search.model_search import search_models
from windvane.tasks.settings import project_params
from windvane.tasks.split import strategies
from windvane.tasks.stores.fingerprint import list_model_libraries


def main() -> None:
    chosen = project_params.load_settings()
    problem, seed = chosen.problem, chosen.split.seed
    cores = len(os.sched_getaffinity(0))
    rows, columns = labelled(chosen)
    sides = strategies.split_rows(rows, chosen, None)
    train, validation, test = (rows[s].reset_index(drop=True) for s in (sides.train, sides.validation, sides.test))
    kind = definitions.load_problem_type(problem.kind)

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment(f"{chosen.project}-bare")
    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        mlflow.log_params(
            {f"{s}.{k}": v for s, c in chosen.model_dump().items() if isinstance(c, dict) for k, v in c.items()}
        )
        found = search_models(
            ModelTask(chosen, kind, columns, cores), train, validation, Path(folder) / "journal.log", lambda _: None
        )
        spec = found.best.spec
        held = model_evaluation.predict_held_out(
            ModelTask(chosen, kind, columns, cores), spec, train, validation, lambda: test
        )
        told = model_evaluation.evaluate_model(
            ModelTask(chosen, kind, columns, cores), spec, train, validation, held.record
        )
        model = model_pipeline.fit_pipeline(spec, kind, columns, rows, FitOptions(problem.target, seed, cores))
        write_evaluation(Path(folder) / "evaluation", chosen, kind, told, held.record, found)
        held.record.to_parquet(Path(folder) / "record.parquet")
        for result in found.results:
            with mlflow.start_run(run_name=result.candidate, nested=True):
                mlflow.log_params(result.spec.params)
                mlflow.log_metrics({f"validation_{k}": v for k, v in result.validation.items()})
                mlflow.log_metrics({f"train_{k}": v for k, v in result.train.items()})
                trials = Path(folder) / "trials.csv"
                pd.DataFrame([t.params | {"validation": t.validation} for t in result.trials]).to_csv(trials)
                mlflow.log_artifact(str(trials))
        mlflow.log_metrics(flatten_metrics(told))
        mlflow.log_artifacts(str(Path(folder) / "evaluation"), "evaluation")
        mlflow.log_artifact(str(Path(folder) / "record.parquet"))
        sample = features.conform_frame(rows.tail(20), columns, "sample")
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(model_pipeline.TRUSTED_TYPES),
            signature=infer_signature(sample, model.predict(sample)),
            pip_requirements=[f"{name}=={version}" for name, version in list_model_libraries().items()],
            registered_model_name=f"{chosen.project}-bare",
        )


if __name__ == "__main__":
    main()
