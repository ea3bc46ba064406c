"""Stage 2: may a model be trained on this table? Stops it with everything that is wrong at once, or describes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import polars as pl

from windvane.tasks import io
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.reports import data_report
from windvane.tasks.settings import project_params
from windvane.tasks.validate import findings, table_profile, table_schema, table_statistics
from windvane.tasks.validate.checks import column_checks, drift_checks, duplicate_checks, schema_checks, target_checks
from windvane.tasks.validate.findings import CheckFamily, CheckInput, TableFinding
from windvane.tasks.validate.table_profile import ColumnProfile, TableProfile, TableSummary

CHECK_FAMILIES = (
    CheckFamily(target_checks.TARGET_CHECKS, target_checks.find_target_faults),
    CheckFamily(column_checks.COLUMN_CHECKS, column_checks.find_column_faults),
    CheckFamily(column_checks.VALUE_CHECKS, column_checks.find_value_faults),
    CheckFamily(duplicate_checks.DUPLICATE_CHECKS, duplicate_checks.find_duplicates),
    CheckFamily(target_checks.LEAK_CHECKS, target_checks.find_leaks),
    CheckFamily(schema_checks.SCHEMA_CHECKS, schema_checks.find_schema_violations, "contract"),
    CheckFamily(drift_checks.DRIFT_CHECKS, drift_checks.find_table_drift, "past"),
)
# The page of a table that was refused: for people, and no output of the stage, which has none then.
STOPPED_PAGE_FILE = STATE_FOLDER / "stopped.html"
# So many newer rows are compared by themselves with the last accepted table.
MIN_NEW_ROWS = 500


@dataclass(frozen=True)
class ValidatedTable:
    """A table that was checked: what it is, what was found (worst first), and its evenly spaced rows."""

    profile: TableProfile
    digest: TableSummary
    findings: tuple[TableFinding, ...]
    sample: pl.DataFrame


def run_validation(root: Path, chosen: project_params.Settings) -> None:
    """Check table.parquet below `root` against schema.yaml and accepted.json; write what was seen.

    Raises one InputError that lists all that stops, and keeps the page of such a table at STOPPED_PAGE_FILE.
    """
    accepted, table = table_profile.read_summary(root / io.ACCEPTED_SUMMARY_FILE), root / table_profile.TABLE_FILE
    agreed = table_schema.load_schema(root / table_schema.SCHEMA_FILE)
    # Ingest writes no NaN: nothing need be made missing, and the file states what it holds.
    seen = _run_checks(_collect_check_input(table_io.scan_parquet(table), chosen, agreed, accepted, table))
    page = data_report.DataReport(chosen, seen.digest, accepted, seen.findings, seen.sample)
    try:
        findings.raise_for_stops(seen.findings, chosen.data.source)
    except InputError as e:
        data_report.write_data_report(page, root / STOPPED_PAGE_FILE)
        raise InputError(f"{e}. {STOPPED_PAGE_FILE} shows the table") from None
    (root / STOPPED_PAGE_FILE).unlink(missing_ok=True)
    io.write_json(seen.profile.to_json(), root / table_profile.PROFILE_FILE)
    table_profile.write_summary(seen.digest, root / table_profile.SUMMARY_FILE)
    findings.write_findings(seen.findings, root / findings.FINDINGS_FILE)
    data_report.write_data_report(page, root / data_report.DATA_REPORT_FILE)


def check_table(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame,
    chosen: project_params.Settings,
    agreed: table_schema.TableSchema | None = None,
    accepted: TableSummary | None = None,
) -> ValidatedTable:
    """inspect_table(), but what stops is raised as one InputError."""
    seen = inspect_table(frame, chosen, agreed, accepted)
    findings.raise_for_stops(seen.findings, chosen.data.source)
    return seen


def inspect_table(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame,
    chosen: project_params.Settings,
    agreed: table_schema.TableSchema | None = None,
    accepted: TableSummary | None = None,
) -> ValidatedTable:
    """All findings on a table with canonical types, given the contract and the digest of the last accepted table.

    A few streaming scans: memory does not grow with the rows. Raises InputError only where nothing can be checked.
    """
    return _run_checks(_collect_check_input(table_statistics.scan_frame(frame), chosen, agreed, accepted))


def _run_checks(e: CheckInput) -> ValidatedTable:
    """What all families find."""
    found = [finding for family in CHECK_FAMILIES for finding in family.find(e)]
    silent = {finding.column for finding in found if finding.check == "silent"}
    found = [finding for finding in found if finding.check != "constant" or finding.column not in silent]
    reported = {finding.check for finding in found}
    for family in CHECK_FAMILIES:
        if family.needs is None or getattr(e, family.needs) is not None:
            found += findings.list_passes(family.checks, reported)
    kept = findings.accept_findings(found, e.contract.accept if e.contract else ())
    profile = replace(e.profile, set_aside=target_checks.list_set_aside_classes(e))
    return ValidatedTable(profile, e.now, kept, e.sample)


def select_features(columns: dict[str, ColumnProfile], chosen: project_params.Settings) -> tuple[str, ...]:
    """Columns that a model may see: all but target, id, weight, ignored ones, and the group where splits are parted by it."""
    problem = chosen.problem
    hidden = {problem.target, problem.id, problem.weight, *problem.ignore}
    if chosen.split.strategy != "time":
        hidden.add(problem.group)
    return tuple(name for name in columns if name not in hidden)


def _collect_check_input(
    whole: pl.LazyFrame,
    chosen: project_params.Settings,
    agreed: table_schema.TableSchema | None,
    accepted: TableSummary | None,
    file: Path | None = None,
) -> CheckInput:
    """All that the checks read. `file`: where `whole` lies, if a stage wrote it."""
    problem, source = chosen.problem, chosen.data.source
    present = tuple(name for name in whole.collect_schema() if name != table_io.ROW_KEY)
    # Ignored columns that no frame can hold were left out by ingest.
    wanted = tuple((key, name) for key, name in table_profile.list_named_columns(problem) if key != "problem.ignore")
    table_profile.require_columns(wanted, present, source)

    target = pl.col(problem.target)
    rows, without = whole.select(pl.len().alias("rows"), target.null_count().alias("without")).collect().row(0)
    if rows == without:
        raise InputError(
            f"problem.target: {source}: column {problem.target!r} is empty in all {rows} rows. Name another "
            "column, or add the labels"
        )
    labelled = whole.filter(target.is_not_null()) if without else whole
    # Read once: what separates few values from many holds the sample of all other checks, and what shows copies.
    bucket = table_statistics.choose_comparable_rows(whole, [name for name in present if name != problem.id], rows)
    large = rows > table_statistics.EXACT_COUNT_ROWS
    most = table_statistics.DISTINCT_SAMPLE_ROWS if large else table_statistics.CHECK_SAMPLE_ROWS
    many, alike = table_statistics.sample_evenly_and_where(whole, rows, most, bucket)
    known = table_statistics.ScanFacts(rows - without, many.filter(target.is_not_null()), None if without else file)
    with ThreadPoolExecutor(1) as beside:
        compared = beside.submit(
            table_statistics.count_duplicate_rows, alike.filter(target.is_not_null()), known.rows, problem.id
        )
        labelled_rows, counts = table_statistics.count_columns(labelled, known)
        twins = compared.result()
    found = table_profile.profile_counts(labelled_rows, counts, table_profile.choose_key_columns(problem, present))
    seen = select_features({c.name: c for c in found.columns}, chosen)
    sampled = table_statistics.sample_evenly(many.lazy(), len(many))
    sample = sampled.filter(target.is_not_null())
    watched = tuple(c.name for c in found.columns if c.name not in problem.ignore and c.name != problem.id)
    named = {c.name: c for c in counts}
    notes = {duplicate_checks.NEAR_DUPLICATES_NOTE: twins.near}
    now = table_profile.summarize_table(found, sample, problem.time, watched, notes)
    new = table_profile.summarize_newer_rows(accepted, now, sample, problem.time, MIN_NEW_ROWS) if accepted else now
    return CheckInput(
        chosen, whole, labelled, rows, found, named, sample, sampled, seen, twins, agreed, accepted, now, new
    )
