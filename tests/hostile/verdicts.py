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
from windvane.tasks import (
    contract,
    contract_template,
    digest,
    findings,
    ingest,
    profile,
    report,
    settings,
    split,
    tables,
    template,
    validate,
)
from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

# What the gate may write, each whole; nothing of the lap: no ledger, no run, no model.
OUTPUTS = (profile.PROFILE, digest.DIGEST, findings.FINDINGS, report.REPORT)
MADE = (profile.TABLE, Path(contract.SCHEMA), *OUTPUTS, validate.STOPPED, split.SPLIT)


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
        "data": {"source": written(case.file)},
        "split": dict(case.split),
    }


def judged(root: Path, content: Mapping[str, Any]) -> Judged:
    """The gate's verdict under params.yaml's content. Anything but InputError goes through: it is a fault of ours."""
    import polars as pl

    chosen = settings.parse(dict(content))
    try:
        ingest.run(root, chosen)
        if not (root / contract.SCHEMA).exists():  # as the first lap does
            proposed = contract_template.propose(pl.scan_parquet(root / profile.TABLE), chosen.problem)
            template.place(root, contract.SCHEMA, proposed)
        validate.run(root, chosen)
        split.run(root, chosen)
    except InputError as stop:
        return Judged("stop", (str(stop),), None)
    warnings = tuple(f.message for f in findings.read(root / findings.FINDINGS) if f.level == "warn")
    return Judged("warn" if warnings else "pass", warnings, tables.read_parquet(root / profile.TABLE))


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
    (root / settings.PARAMS).write_text(yaml.safe_dump(params(case), allow_unicode=True), encoding="utf-8")
