"""Batch scoring as a Prefect flow, for whoever schedules it; `windvane score` does the same without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from windvane.flows import scoring
from windvane.flows.console import Console
from windvane.flows.project import Project


@flow(name="score", flow_run_name="{target}", persist_result=False, retries=2, retry_delay_seconds=60)
def score(root: str, source: str, target: str, log: bool = False) -> dict[str, Any]:
    """Predictions for a file; what a failed try finished is not done again."""
    return scoring.score(Project(Path(root)), Path(root) / source, Path(root) / target, log, Console())
