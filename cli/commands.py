"""Commands whose work is more than one call of a room: init, check, promote, rollback, labels, erase."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from windvane.ledger import versions
from windvane.tasks import errors, project_secrets
from windvane.tasks import project as opening
from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, Outage, WindvaneError
from windvane.tasks.project import Project
from windvane.tasks.settings import project_params
from windvane.tasks.stores import mlflow_store

if TYPE_CHECKING:
    from windvane.flows.model_promotion import PromotionResult


def init_project(root: Path, table: str, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Propose settings for a table: write params.yaml, schema.yaml, and what DVC needs. A remote source is fetched, as a lap would."""
    from windvane.tasks import project_files
    from windvane.tasks.settings import code_examples, settings_proposal, yaml_files
    from windvane.tasks.settings.data_section import parse_format_options
    from windvane.tasks.sources import fetch
    from windvane.tasks.stores import dvc_pipeline
    from windvane.tasks.validate import table_schema

    form = {**parse_format_options(options.pop("format", ())), "dates": options.pop("dates")}
    chosen = settings_proposal.parse_table_address(
        table, options.pop("query"), options.pop("key"), options.pop("private"), form
    )
    with_code = options.pop("with_code", False)
    fetched = fetch.fetch_source(root, chosen, options["id"])
    if fetched.moved:
        console.print(f"  {fetched.text()}")
    proposal = settings_proposal.propose_settings(chosen, **options)
    with project_files.undo_on_failure(root):
        written = [
            yaml_files.write_user_file(root, table_schema.SCHEMA_FILE, proposal.schema),
            *dvc_pipeline.prepare_dvc_folder(root),
        ]
        written += [".gitignore"] if project_files.ignore_state_folder(root) else []
        written += code_examples.write_code_examples(root) if with_code else ()
        project_files.write_stage_inputs(root)
        fetch.declare_ingest_inputs(root, chosen, fetched.record)
        # Last: a folder with it is a project.
        written = [*yaml_files.write_params(proposal, root), *written]
    for line in proposal.assumptions:
        console.print(f"  assumed: {line}")
    console.print(f"  wrote {', '.join(str(name) for name in written)}; review them, then: windvane train")
    console.print(
        f"  commit them, and dvc.lock after a lap; .gitignore keeps {project_files.IGNORE_RULE} (data, models, secrets) out"
    )
    if project_files.is_state_tracked(root):
        console.print(f"  note: {project_files.explain_tracked_state(root)}")
    return {"kind": proposal.kind, "rows": proposal.rows, "columns": proposal.columns, "params": proposal.params}


def check_project(root: Path, console: Console) -> dict[str, Any]:
    """Everything that can be known to be wrong before a lap."""
    problems: list[str] = []
    try:
        project = Project(root)
    except WindvaneError as e:
        problems.append(str(e))
    else:
        for check in CHECKS:
            try:
                check(project, console)
            except Exception as e:
                known = e if isinstance(e, WindvaneError) else errors.explain_disk_error(e, project.home)
                if known is None:
                    raise
                problems.append(str(known))
            if problems and check is _check_disk:
                break  # any write would fail the same way
    problems = list(dict.fromkeys(problems))
    for problem in problems:
        console.print(f"  {problem}")
    console.print("  something to fix" if problems else "  all well; next: windvane train")
    return {"ok": not problems, "problems": problems}


def explore_candidates(
    project: Project, console: Console, *, depth: str, cause: str, trial_runs: bool
) -> dict[str, Any]:
    """`train --explore`: candidates and tuning on validation only."""
    if depth == "refit":
        raise InputError("train: --explore searches, and --depth refit does not. Leave one of them out")
    from windvane.flows import exploration

    cause = "explore" if cause == "manual" else cause
    return exploration.explore(project, cause, console, trial_runs=trial_runs).to_json()


def promote_version(project: Project, version: int, console: Console) -> dict[str, Any]:
    """Move the champion manually."""
    from windvane.flows import model_promotion

    moved = model_promotion.promote_manually(project, version, "manual")
    console.print(f"  version {moved.move.to_version} serves (before: {moved.move.from_version or 'none'})")
    return _report_promotion(moved, console)


def roll_back_version(project: Project, console: Console) -> dict[str, Any]:
    """Put back the champion before this one."""
    from windvane.flows import model_promotion

    moved = model_promotion.roll_back_manually(project)
    console.print(f"  version {moved.move.to_version} serves again (before: {moved.move.from_version})")
    return _report_promotion(moved, console)


def _report_promotion(moved: PromotionResult, console: Console) -> dict[str, Any]:
    """A promotion for --json; what could not be updated in MLflow is a note: the promotion is done."""
    if moved.note is not None:
        console.print(f"  note: {moved.note}")
    return {"from": moved.move.from_version, "to": moved.move.to_version}


def _check_git(project: Project, _: Console) -> None:
    """Whether git holds what it must not."""
    from windvane.tasks import project_files

    if project_files.is_state_tracked(project.root):
        raise project_files.explain_tracked_state(project.root)


def _check_params(project: Project, _: Console) -> None:
    project_params.require_recorded_sections(project.root / project_params.PARAMS_FILE)


def _check_search(project: Project, _: Console) -> None:
    """Hyperparameters that a person wrote, and all own code: names and values. Where there are none, no library is imported for it."""
    settings = project.settings
    if not (settings.search.method == "manual" or settings.search.grid or settings.own_names):
        return
    from windvane.tasks.models import own_code
    from windvane.tasks.search import search_plan

    kind = own_code.load_project_problem_type(settings)
    search_plan.plan_manual_trials(settings, kind)
    search_plan.plan_grid_trials(settings, kind)


def _check_source(project: Project, _: Console) -> None:
    """The first two stages, with nothing left behind."""
    from windvane.flows.lap import data_steps
    from windvane.tasks.ingest import ingestion, table_io
    from windvane.tasks.sources import fetch
    from windvane.tasks.validate import table_profile, table_schema, table_validation

    settings = project.settings
    if not settings.data.local:
        fetch.probe_source(project.root, settings.data)
        return
    agreed = table_schema.load_schema(project.root / table_schema.SCHEMA_FILE)
    accepted = table_profile.parse_summary(data_steps.read_accepted_digest(project))
    with ingestion.open_scratch_folder(project.root) as folder:
        table = folder / "table.parquet"
        ingestion.write_table(project.root, settings, table, folder)
        scan = table_io.scan_parquet(table)
        names = tuple(scan.collect_schema().names())
        table_profile.require_slice_columns(settings, names)
        project_secrets.check_private_columns(settings, names)
        table_validation.check_table(scan, settings, agreed, accepted)


def _check_disk(project: Project, _: Console) -> None:
    """Whether a lap may write what it writes, and has room for it."""
    errors.check_writable(project.root)
    errors.check_writable(project.home)


def _check_ledger(project: Project, _: Console) -> None:
    _engine = project.ledger
    opening.check_project_ledger(project)


def _check_champion(project: Project, _: Console) -> None:
    """Whether the files of the version that serves are those that were recorded; elsewhere than here they are not fetched for it."""
    from windvane.tasks.stores import model_files

    champion = versions.find_champion(project.ledger, project.name)
    folder = mlflow_store.find_local_path(project.absolute(champion.model_uri)) if champion is not None else None
    if champion is not None and folder is not None:
        model_files.verify_folder(folder, champion.manifest_sha256)


def _check_mlflow(project: Project, console: Console) -> None:
    """MLflow's store: a server is queried, the project's own is read without MLflow."""
    opening.refuse_missing_mlflow_store(project)
    if project.tracking_uri is None:
        mlflow_store.check_mlflow_store(project.home / mlflow_store.MLFLOW_DATABASE)
    elif (note := project.tracker.try_out()) is not None:
        console.print(f"  note: {note}")


def _check_prefect(_project: Project, _: Console) -> None:
    if url := os.environ.get("PREFECT_API_URL"):
        from windvane.flows.orchestration import server
        from windvane.flows.orchestration.server import PrefectServer

        PrefectServer(url.rstrip("/"), None, None).wait()
        server.check_prefect_access(url)


def _check_services(project: Project, _: Console) -> None:
    """Whether the scoring service may listen where it should, notices can be sent, and a running `windvane up` has the secret."""
    from windvane.flows.services import up_state
    from windvane.monitoring.watch import notifications
    from windvane.serving.http import access_control

    access_control.require_keys(
        project.settings.serve.host, access_control.parse_api_keys(os.environ.get(access_control.API_KEYS_VARIABLE))
    )
    notifications.check_webhook(project)
    if (wrong := up_state.explain_outdated_secret(project)) is not None:
        raise InputError(wrong)


CHECKS = (
    _check_disk,
    _check_git,
    _check_params,
    _check_search,
    _check_source,
    _check_ledger,
    _check_champion,
    _check_mlflow,
    _check_prefect,
    _check_services,
)


def import_labels(project: Project, file: Path, console: Console) -> dict[str, Any]:
    """Record the statements of `file`: matched, unmatched, duplicates, changed, and empty cells."""
    from windvane.ledger.labels import ContradictingLabels, record_labels
    from windvane.tasks import label_parsing

    console.working(f"reading {file}")
    given = label_parsing.read_label_file(file, label_parsing.choose_label_rules(project.settings))
    try:
        done = record_labels(project.ledger, project.name, given)
        done = replace(done, empty=given.empty)
    except ContradictingLabels as e:
        raise InputError(f"{file}: {e}. Nothing was recorded") from None
    except DBAPIError as e:
        raise Outage(
            f"the ledger did not take the labels ({e.orig}). Nothing of {file} was recorded: check the ledger's disk or "
            "server, then send it again"
        ) from e
    except sqlite3.Error as e:
        raise Outage(
            f"the labels could not be sorted in the temporary folder {tempfile.gettempdir()} ({e}). Nothing of {file} was "
            "recorded: make room there, then send it again"
        ) from e
    console.print(
        f"  {done.matched:,} labels for predictions, {done.unmatched:,} that wait for theirs, {done.duplicates:,} known already; "
        f"{done.changed:,} corrected what was known"
    )
    if done.empty:
        console.print(f"  {done.empty:,} rows have no label yet: send the file again when they have")
    return asdict(done)


def erase_from_ledger(project: Project, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Erase predictions and labels of these ids, or of every id whose input was so (`COLUMN=VALUE`); how many went."""
    if bool(ids) == bool(where):
        raise InputError("erase: name the rows: either --id ID (several times), or --where COLUMN=VALUE")
    from windvane.ledger import predictions
    from windvane.tasks import label_parsing

    try:
        if where is None:
            removed = predictions.erase_ids(
                project.ledger, project.name, [label_parsing.parse_label_id(id) for id in ids]
            )
        else:
            column, equals, value = where.partition("=")
            if not equals or not column:
                raise InputError(f"erase: --where {where!r} names no column and value. Write --where customer=7")
            removed = predictions.erase_subject(project.ledger, project.name, column, value, project.privacy)
    except ValueError as e:
        raise InputError(f"erase: {e}") from None
    except DBAPIError as e:
        raise Outage(f"the ledger erased nothing ({e.orig}). Check its disk or server, then run again") from e
    console.print(
        f"  erased {removed.predictions:,} predictions and {removed.labels:,} labels; the ledger keeps when, not whose"
    )
    return asdict(removed)
