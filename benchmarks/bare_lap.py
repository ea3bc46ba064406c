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
from windvane.tasks import estimators, evaluation, features, partition, problems, settings
from windvane.tasks.evaluation_files import metrics, write_evaluation
from windvane.tasks.fingerprint import libraries
from windvane.tasks.search import search


def main() -> None:
    chosen = settings.load()
    problem, seed = chosen.problem, chosen.split.seed
    cores = len(os.sched_getaffinity(0))
    rows, columns = labelled(chosen)
    sides = partition.divide(rows, chosen, None)
    train, validation, test = (rows[s].reset_index(drop=True) for s in (sides.train, sides.validation, sides.test))
    kind = problems.of(problem.kind)

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment(f"{chosen.project}-bare")
    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        mlflow.log_params(
            {f"{s}.{k}": v for s, c in chosen.model_dump().items() if isinstance(c, dict) for k, v in c.items()}
        )
        found = search(chosen, kind, columns, train, validation, Path(folder) / "journal.log", cores, lambda _: None)
        spec = found.best.spec
        held = evaluation.held_out(chosen, kind, columns, spec, train, validation, lambda: test, cores)
        told = evaluation.evaluate(chosen, kind, columns, spec, train, validation, held.record, cores)
        model = estimators.fit(spec, kind, columns, rows, problem.target, seed, cores)
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
        mlflow.log_metrics(metrics(told))
        mlflow.log_artifacts(str(Path(folder) / "evaluation"), "evaluation")
        mlflow.log_artifact(str(Path(folder) / "record.parquet"))
        sample = features.conform(rows.tail(20), columns, "sample")
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=list(estimators.TRUSTED),
            signature=infer_signature(sample, model.predict(sample)),
            pip_requirements=[f"{name}=={version}" for name, version in libraries().items()],
            registered_model_name=f"{chosen.project}-bare",
        )


if __name__ == "__main__":
    main()
