"""The data steps of a lap: ingest, validate, split.

Each stage runs only if DVC finds that its inputs changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from windvane.flows.lap.context import LapContext, make_no_new_rows_outcome
from windvane.ledger import versions
from windvane.tasks import io, project_secrets
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.io import read_cache, read_record, write_json
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.settings import yaml_files
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.sources import snapshot
from windvane.tasks.split import data_split
from windvane.tasks.stores import dvc_pipeline
from windvane.tasks.validate import findings, table_profile, table_schema, table_validation
from windvane.tasks.validate.table_profile import (
    PROFILE_FILE,
    SUMMARY_FILE,
    TABLE_FILE,
    TableProfile,
    read_profile,
)


def run_ingest_step(lap: LapContext) -> None:
    """Source -> table.parquet. Where rows of production joined the source's, how many there are together is printed."""
    ran, root = _run_stage(lap, "ingest", ingestion.run_ingest), lap.project.root
    if ran and snapshot.count_labelled_rows(root):
        import polars as pl

        rows = int(table_io.scan_parquet(root / TABLE_FILE).select(pl.len()).collect().item())
        lap.console.print(
            f"  {rows:,} rows in all, those of {lap.project.settings.data.where} and of production together"
        )


def run_validate_step(lap: LapContext) -> None:
    """Refuse a table that cannot be trained on; warn of what seems odd."""
    root = lap.project.root
    proposed = _propose_contract(lap)
    with dvc_pipeline.open_dvc_pipeline(root) as stages:
        moved = stages.changed("validate")
    # Damaged, it counts as nothing: the ledger has it, and it is handed out again.
    before = read_cache(root / io.ACCEPTED_SUMMARY_FILE, lambda content: content)
    if moved:
        _write_stage_input(read_accepted_digest(lap.project), root / io.ACCEPTED_SUMMARY_FILE)
    try:
        _run_stage(lap, "validate", table_validation.run_validation)
    except InputError:
        # With the table of before back in its place, nothing will have changed; and a bad table is no model for good ones.
        write_json(before, root / io.ACCEPTED_SUMMARY_FILE)
        if proposed:
            (root / table_schema.SCHEMA_FILE).unlink()
        raise
    if proposed:
        lap.console.print(f"  note: wrote {table_schema.SCHEMA_FILE}, what later tables are held to; review it")
    profile = read_profile(root / PROFILE_FILE)
    for finding in findings.read_findings(root / findings.FINDINGS_FILE):
        if finding.level == "warn":
            lap.console.print(f"  note: {finding.message}")
    names = tuple(column.name for column in profile.columns)
    table_profile.require_slice_columns(lap.project.settings, names)
    project_secrets.check_private_columns(lap.project.settings, names)
    _refuse_missing_columns(lap, profile)


def run_split_step(lap: LapContext) -> str:
    """Report which rows train, validate and test; the data version."""
    with dvc_pipeline.open_dvc_pipeline(lap.project.root) as stages:
        moved = stages.changed("split")
    if moved:  # the same rows keep the splits they were judged on
        champion = versions.find_champion(lap.project.ledger, lap.project.name)
        until = {"taught_until": champion.facts.taught_until if champion else None}
        _write_stage_input(until, lap.project.root / io.TRAINED_UNTIL_FILE)
    _run_stage(lap, "split", data_split.run_split)
    with dvc_pipeline.open_dvc_pipeline(lap.project.root) as stages:
        version = stages.version()
    assert version is not None
    return version


def find_no_new_rows_outcome(lap: LapContext) -> LapOutcome | None:
    """For a lap that a decision of monitoring began: its end where no row is new to the champion; else None."""
    champion = versions.find_champion(lap.project.ledger, lap.project.name)
    if lap.decision is None or champion is None:
        return None
    try:
        known, _, table = read_record(lap.project.artifact(champion, "data/split.json"), _read_split_sizes)
    except FileNotFoundError:
        return None
    path = lap.project.root / data_split.SPLIT_FOLDER / data_split.SPLIT_RECORD_FILE
    rows, times, now = read_record(path, _read_split_sizes)
    until = champion.facts.taught_until
    same = now == table or (rows <= known and until is not None and times[-1] <= str(until))
    return make_no_new_rows_outcome(lap, champion) if same else None


def _read_split_sizes(record: Any) -> tuple[int, list[str], str]:
    """Of split.json: how many rows have a label, where each side ends in time, and the hash of the table."""
    sides = [record[name] for name in ("train", "validation", "test")]
    return sum(int(side["rows"]) for side in sides), sorted(str(side["to"]) for side in sides), record["table"]


def _propose_contract(lap: LapContext) -> bool:
    """The first lap of a project without schema.yaml writes one: a stage that writes its own dependency would not be pure."""
    root = lap.project.root
    if (root / table_schema.SCHEMA_FILE).exists():
        return False
    text = yaml_files.propose_schema(table_io.scan_parquet(root / TABLE_FILE), lap.project.settings.problem)
    yaml_files.write_user_file(root, table_schema.SCHEMA_FILE, text)
    return True


def read_accepted_digest(project: Project) -> Any:
    """The digest of the last accepted table, as its run keeps it: that of the newest registered version; None before."""
    newest = versions.find_newest_version(project.ledger, project.name)
    if newest is None or not newest.facts.digest:
        return None
    kept = "Restore it from a backup, or delete it: the next table is then compared with none"
    try:
        path = project.artifact(newest, f"data/{SUMMARY_FILE.name}")
        return read_record(path, lambda c: c if table_profile.parse_summary(c) else None, kept)
    except FileNotFoundError:
        return None


def _write_stage_input(content: Any, path: Path) -> None:
    """Hand a stage, as a file, what it is to know of earlier laps: what it read from a ledger would not be pure."""
    if read_cache(path, lambda known: (known,)) != (content,):
        write_json(content, path)


def _run_stage(lap: LapContext, name: str, work: Callable[[Path, Settings], None]) -> bool:
    """Run a stage if DVC finds that its inputs changed; whether it did."""
    lap.console.working(name)
    root, settings = lap.project.root, lap.project.settings
    with dvc_pipeline.open_dvc_pipeline(root) as stages:
        if not stages.changed(name):
            return False
        stages.run(name, lambda: work(root, settings))
        return True


def _refuse_missing_columns(lap: LapContext, profile: TableProfile) -> None:
    """A column that the champion learned from must be there, or be given up on purpose."""
    champion = versions.find_champion(lap.project.ledger, lap.project.name)
    if champion is None:
        return
    known = {column.name for column in profile.columns} | set(lap.project.settings.problem.ignore)
    for name in (name for names in champion.facts.columns.values() for name in names):
        if name not in known:
            raise InputError(
                f"data.source: column {name!r} is gone from {lap.project.settings.data.source} (version {champion.version}, which "
                f"serves, learned from it in data version {champion.data_version[:8]}). Restore it, or add it to problem.ignore"
            )
