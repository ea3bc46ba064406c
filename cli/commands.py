"""What each command does, apart from how it is typed (cli/main.py). Imports a room only when its command runs."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.console import Console
from windvane.tasks.errors import InputError, Outage, WindvaneError
from windvane.tasks.project import Project

if TYPE_CHECKING:
    from windvane.flows.model_promotion import PromotionResult


def run_train_command(root: Path, cause: str, depth: str, trial_runs: bool, console: Console) -> dict[str, Any]:
    """One lap, by hand."""
    from windvane.flows.lap import lap_runner

    outcome = lap_runner.run_lap(
        Project(root), cause, "refit" if depth == "refit" else "search", console, trial_runs=trial_runs
    )
    assert outcome is not None  # only a decision's lap may find that there is nothing to do
    return outcome.to_json()


def run_init_command(root: Path, table: str, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Look at a table, write params.yaml, schema.yaml, and what DVC needs. A remote source is fetched, as a lap would."""
    from windvane.tasks import project_files
    from windvane.tasks.settings import settings_proposal, yaml_files
    from windvane.tasks.sources import fetch
    from windvane.tasks.stores import dvc_pipeline
    from windvane.tasks.validate import table_schema

    chosen = settings_proposal.parse_table_address(table, options.pop("query"), options.pop("key"))
    fetched = fetch.fetch_source(root, chosen, options["id"])
    if fetched.moved:
        console.say(f"  {fetched.text()}")
    proposal = settings_proposal.propose_settings(chosen, **options)
    with project_files.undo_on_failure(root):
        written = [
            yaml_files.write_user_file(root, table_schema.SCHEMA_FILE, proposal.schema),
            *dvc_pipeline.prepare_dvc_folder(root),
        ]
        written += [".gitignore"] if project_files.ignore_state_folder(root) else []
        project_files.write_stage_inputs(root)
        fetch.declare_ingest_inputs(root, chosen, fetched.record)
        # Last: a folder with it is a project.
        written = [*yaml_files.write_params(proposal, root), *written]
    for line in proposal.assumptions:
        console.say(f"  assumed: {line}")
    console.say(f"  wrote {', '.join(str(name) for name in written)}; look through them, then: windvane train")
    console.say(
        f"  commit them, and dvc.lock after a lap; .gitignore keeps {project_files.IGNORE_RULE} (data, models, secrets) out"
    )
    if project_files.is_state_tracked(root):
        console.say(f"  note: {project_files.explain_tracked_state(root)}")
    return {"kind": proposal.kind, "rows": proposal.rows, "columns": proposal.columns, "params": proposal.params}


def run_check_command(root: Path, console: Console) -> dict[str, Any]:
    """Everything that can be known to be wrong before a lap."""
    from windvane.tasks import errors

    problems: list[str] = []
    try:
        project = Project(root)
    except WindvaneError as e:
        problems.append(str(e))
    else:
        for look in (
            _check_disk,
            _check_git,
            _check_source,
            _check_ledger,
            _check_champion,
            _check_mlflow,
            _check_prefect,
            _check_services,
        ):
            try:
                look(project, console)
            except WindvaneError as e:
                problems.append(str(e))
            except Exception as e:
                if (known := errors.explain_disk_error(e, project.home)) is None:
                    raise
                problems.append(str(known))
            if problems and look is _check_disk:
                break  # whatever writes would say the same
    problems = list(dict.fromkeys(problems))
    for problem in problems:
        console.say(f"  {problem}")
    console.say("  something to mend" if problems else "  all well; next: windvane train")
    return {"ok": not problems, "problems": problems}


def run_score_command(root: Path, source: Path, target: Path, log: bool, console: Console) -> dict[str, Any]:
    """The champion's predictions for a file."""
    from windvane.flows import scoring

    return scoring.score_file(Project(root), source, target, log, console)


def run_labels_command(root: Path, file: Path, console: Console) -> dict[str, Any]:
    """Ground truth for predictions, from a file."""

    return import_labels(Project(root), file, console)


def run_monitor_command(root: Path, wait: bool, acknowledge: bool, console: Console) -> dict[str, Any]:
    """One look at production, and what follows from it."""
    from windvane.flows.monitoring import monitor_production

    project = Project(root)
    os.chdir(project.root)
    return monitor_production(project, console, wait=wait, acknowledge=acknowledge)


def run_serve_command(root: Path, host: str | None, port: int | None, console: Console) -> dict[str, Any]:
    """The scoring service, until it is stopped."""
    from windvane.flows.services import scoring_service

    return scoring_service.run_scoring_service(Project(root), host, port, console)


def run_up_command(root: Path, clock: str, console: Console) -> None:
    """All services, until stopped."""
    from windvane.flows.services import up

    up.run_all_services(Project(root), "events" if clock == "events" else "wall", console)


def run_secret_command(root: Path, renew: bool, console: Console) -> dict[str, Any]:
    """Who may use the servers that run here."""
    from windvane.flows.services import up_state

    return up_state.show_secret(Project(root), renew, console)


def run_erase_command(root: Path, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Forget one subject."""

    return erase_from_ledger(Project(root), ids, where, console)


def run_replay_command(root: Path, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """The table's own history through the whole loop."""
    from windvane.flows.replay import history_replay

    return history_replay.replay_and_report(Project(root), history_replay.ReplayOptions(**options), console)


def run_status_command(root: Path, console: Console) -> dict[str, Any]:
    """Champion, last lap, last promotion."""
    from windvane.cli import status

    return status.show_status(Project(root), console)


def run_versions_command(root: Path, console: Console) -> dict[str, Any]:
    """Every version, and who serves."""
    from windvane.cli import status

    return status.show_versions(Project(root), console)


def run_clean_command(root: Path, keep: int | None, dry_run: bool, console: Console) -> dict[str, Any]:
    """Delete what old versions left behind."""
    from windvane.flows import cleanup
    from windvane.flows.orchestration import libraries

    libraries.silence_libraries()
    return cleanup.clean_project(Project(root), keep, dry_run, console)


def run_promote_command(root: Path, version: int, console: Console) -> dict[str, Any]:
    """Move the champion by hand."""
    from windvane.flows import model_promotion

    moved = model_promotion.promote_manually(Project(root), version, "manual")
    console.say(f"  version {moved.move.to_version} serves (before: {moved.move.from_version or 'none'})")
    return _report_promotion(moved, console)


def run_rollback_command(root: Path, console: Console) -> dict[str, Any]:
    """Put back the champion before this one."""
    from windvane.flows import model_promotion

    moved = model_promotion.roll_back_manually(Project(root))
    console.say(f"  version {moved.move.to_version} serves again (before: {moved.move.from_version})")
    return _report_promotion(moved, console)


def _report_promotion(moved: PromotionResult, console: Console) -> dict[str, Any]:
    """A promotion for --json; what MLflow could not be told is a note: the promotion is done."""
    if moved.note is not None:
        console.say(f"  note: {moved.note}")
    return {"from": moved.move.from_version, "to": moved.move.to_version}


def _check_git(project: Project, _: Console) -> None:
    """Whether git holds what it must not."""
    from windvane.tasks import project_files

    if project_files.is_state_tracked(project.root):
        raise project_files.explain_tracked_state(project.root)


def _check_source(project: Project, _: Console) -> None:
    """The first two stages, with nothing left behind."""
    from windvane.flows.lap import data_steps
    from windvane.tasks import io, project_secrets
    from windvane.tasks.ingest import ingestion
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
        scan = io.scan_parquet(table)
        project_secrets.check_private_columns(settings, scan.collect_schema().names())
        table_validation.check_table(scan, settings, agreed, accepted)


def _check_disk(project: Project, _: Console) -> None:
    """Whether a lap may write what it writes, and has room for it."""
    from windvane.tasks import errors

    errors.check_writable(project.root)
    errors.check_writable(project.home)


def _check_ledger(project: Project, _: Console) -> None:
    from windvane.tasks import project as opening

    _engine = project.ledger
    opening.check_project_ledger(project)


def _check_champion(project: Project, _: Console) -> None:
    """Whether the files of the version that serves are those that were recorded; elsewhere than here they are not fetched for it."""
    from windvane.ledger import versions
    from windvane.tasks.stores import mlflow_store, model_files

    champion = versions.find_champion(project.ledger, project.name)
    if (
        champion is not None
        and (folder := mlflow_store.find_local_path(project.absolute(champion.model_uri))) is not None
    ):
        model_files.verify_folder(folder, champion.manifest_sha256)


def _check_mlflow(project: Project, console: Console) -> None:
    """MLflow's store: a server is asked, the project's own is read without MLflow."""
    from windvane.tasks import project as opening
    from windvane.tasks.stores import mlflow_store

    opening.refuse_missing_mlflow_store(project)
    if project.tracking_uri is None:
        mlflow_store.check_mlflow_store(project.home / mlflow_store.MLFLOW_DATABASE)
    elif (note := project.tracker.try_out()) is not None:
        console.say(f"  note: {note}")


def _check_prefect(_project: Project, _: Console) -> None:
    if url := os.environ.get("PREFECT_API_URL"):
        from windvane.flows.orchestration import server
        from windvane.flows.orchestration.server import PrefectServer

        PrefectServer(url.rstrip("/"), None, None).wait()
        server.check_prefect_access(url)


def _check_services(project: Project, _: Console) -> None:
    """Whether the scoring service may listen where it should, and a running `windvane up` has the project's secret."""
    from windvane.flows.services import up_state
    from windvane.serving.http import access_control

    access_control.require_keys(
        project.settings.serve.host, access_control.parse_api_keys(os.environ.get(access_control.API_KEYS_VARIABLE))
    )
    if (wrong := up_state.explain_outdated_secret(project)) is not None:
        raise InputError(wrong)


def run_backtest_command(
    root: Path, window: str | None, cost: float | None, delay: int | None, apply: bool, drift: bool, console: Console
) -> dict[str, Any]:
    """Retraining policies over the table's own history."""
    from windvane.flows.lap.model_steps import count_cores
    from windvane.flows.replay import policy_backtest as playing

    project = Project(root)
    return playing.backtest_table(project, window, cost, delay, apply, drift, count_cores(), console)


def import_labels(project: Project, file: Path, console: Console) -> dict[str, Any]:
    """Record the statements of `file`: matched, unmatched, duplicates, changed."""
    from sqlalchemy.exc import DBAPIError

    from windvane.ledger.labels import record_labels
    from windvane.tasks import label_parsing

    console.working(f"reading {file}")
    statements = label_parsing.read_label_file(file, project.settings.problem.kind)
    console.working(f"{len(statements):,} labels")
    try:
        done = record_labels(project.ledger, project.name, statements)
    except DBAPIError as e:
        raise Outage(
            f"the ledger did not take the labels ({e.orig}). Nothing of {file} was handed in: look at the ledger's disk or "
            "server, then hand it in again"
        ) from e
    console.say(
        f"  {done.matched:,} labels for predictions, {done.unmatched:,} that wait for theirs, {done.duplicates:,} known already; "
        f"{done.changed:,} corrected what was known"
    )
    return asdict(done)


def erase_from_ledger(project: Project, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Erase predictions and labels of these ids, or of every id whose input was so (`COLUMN=VALUE`); how many went."""
    if bool(ids) == bool(where):
        raise InputError("erase: say whose rows: either --id ID (several times), or --where COLUMN=VALUE")
    from sqlalchemy.exc import DBAPIError

    from windvane.ledger import retention
    from windvane.tasks import label_parsing

    try:
        if where is None:
            removed = retention.erase_ids(
                project.ledger, project.name, [label_parsing.parse_label_id(id) for id in ids]
            )
        else:
            column, equals, value = where.partition("=")
            if not equals or not column:
                raise InputError(f"erase: --where {where!r} names no column and value. Write --where customer=7")
            removed = retention.erase_subject(project.ledger, project.name, column, value, project.privacy)
    except ValueError as e:
        raise InputError(f"erase: {e}") from None
    except DBAPIError as e:
        raise Outage(f"the ledger erased nothing ({e.orig}). Look at its disk or server, then run again") from e
    console.say(
        f"  erased {removed.predictions:,} predictions and {removed.labels:,} labels; the ledger says when, not whose"
    )
    return asdict(removed)
