"""A case through the real gate (ingest, validate, split), and what it left behind. Judges nothing itself."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.hostile.case import Case, Verdict
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.reports import data_report
from windvane.tasks.settings import project_params, yaml_files
from windvane.tasks.split import data_split
from windvane.tasks.validate import findings, table_profile, table_schema, table_validation

if TYPE_CHECKING:
    import pandas as pd

# What the gate may write, each whole; nothing of the lap: no ledger, no run, no model.
OUTPUTS = (table_profile.PROFILE_FILE, table_profile.SUMMARY_FILE, findings.FINDINGS_FILE, data_report.DATA_REPORT_FILE)
MADE = (
    table_profile.TABLE_FILE,
    Path(table_schema.SCHEMA_FILE),
    *OUTPUTS,
    table_validation.STOPPED_PAGE_FILE,
    data_split.SPLIT_FOLDER,
)


@dataclass(frozen=True)
class Judged:
    """How the gate decided, in its own words; `table`: what ingest wrote, None after a stop there."""

    verdict: Verdict
    said: tuple[str, ...]
    table: pd.DataFrame | None


def params(case: Case) -> dict[str, Any]:
    """params.yaml as its user would write it for a case: a name that looks like ${NAME} gets a second dollar."""

    def written(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("${", "$${")
        return [written(v) for v in value] if isinstance(value, list) else value

    problem = {"kind": "regression", "target": "price", **case.problem}
    return {
        "project": "hostile",
        "problem": {key: written(value) for key, value in problem.items()},
        "data": {"source": written(case.file), "format": dict(case.format)},
        "split": dict(case.split),
    }


def judged(root: Path, content: Mapping[str, Any]) -> Judged:
    """The gate's verdict under params.yaml's content. Anything but InputError goes through: it is a fault of ours."""
    import polars as pl

    chosen = project_params.parse_settings(dict(content))
    try:
        ingestion.run_ingest(root, chosen)
        if not (root / table_schema.SCHEMA_FILE).exists():  # as the first lap does
            proposed = yaml_files.propose_schema(pl.scan_parquet(root / table_profile.TABLE_FILE), chosen.problem)
            yaml_files.write_user_file(root, table_schema.SCHEMA_FILE, proposed)
        table_validation.run_validation(root, chosen)
        data_split.run_split(root, chosen)
    except InputError as stop:
        return Judged("stop", (str(stop),), None)
    warnings = tuple(f.message for f in findings.read_findings(root / findings.FINDINGS_FILE) if f.level == "warn")
    return Judged("warn" if warnings else "pass", warnings, table_io.read_parquet(root / table_profile.TABLE_FILE))


def shown(table: pd.DataFrame, name: str, count: int) -> tuple[Any, ...]:
    """A column's first cells as plain values: dates as ISO 8601, None for missing."""

    def plain(value: Any) -> Any:
        return value.isoformat() if hasattr(value, "isoformat") else value

    cells = table[name].head(count)
    return tuple(None if gone else plain(value) for value, gone in zip(cells.tolist(), cells.isna(), strict=True))


def lying(root: Path) -> dict[str, str]:
    """Everything below `root`: path -> what it is, with the hash of its bytes. Links are not followed."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            what = oct(stat.S_IFMT(mode))
            found[str(path.relative_to(root))] = (
                hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else what
            )
    return found


def write(root: Path, case: Case) -> None:
    """params.yaml on disk."""
    (root / project_params.PARAMS_FILE).write_text(yaml.safe_dump(params(case), allow_unicode=True), encoding="utf-8")
