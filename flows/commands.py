"""What each command does, apart from how it is typed (flows/cli.py). Imports a room only when its command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.tasks.errors import InputError, WindvaneError

if TYPE_CHECKING:
    from windvane.flows.deploying import Moved


def train(root: Path, cause: str, depth: str, trial_runs: bool, console: Console) -> dict[str, Any]:
    """One lap, by hand."""
    from windvane.flows import flying

    outcome = flying.fly(
        Project(root), cause, "refit" if depth == "refit" else "search", console, trial_runs=trial_runs
    )
    assert outcome is not None  # only a decision's lap may find that there is nothing to do
    return outcome.to_json()


def init(root: Path, table: str, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Look at a table, write params.yaml, schema.yaml, and what DVC needs. A remote source is fetched, as a lap would."""
    from windvane.flows import fetching
    from windvane.tasks import contract, fetch, initialise, project_files, stage, template, versioning

    chosen = initialise.named(table, options.pop("query"), options.pop("key"))
    fetched = fetch.run(root, chosen, options["id"])
    if fetched.moved:
        console.say(f"  {fetched.text()}")
    proposal = initialise.propose(chosen, **options)
    with project_files.all_or_nothing(root):
        written = [template.place(root, contract.SCHEMA, proposal.schema), *versioning.prepare(root)]
        written += [".gitignore"] if project_files.ignore(root) else []
        stage.place_inputs(root)
        fetching.follow(root, chosen, fetched.record)
        # Last: a folder with it is a project.
        written = [*initialise.write(proposal, root), *written]
    for line in proposal.assumptions:
        console.say(f"  assumed: {line}")
    console.say(f"  wrote {', '.join(str(name) for name in written)}; look through them, then: windvane train")
    console.say(
        f"  commit them, and dvc.lock after a lap; .gitignore keeps {project_files.IGNORED} (data, models, secrets) out"
    )
    if project_files.tracked(root):
        console.say(f"  note: {project_files.untrack(root)}")
    return {"kind": proposal.kind, "rows": proposal.rows, "columns": proposal.columns, "params": proposal.params}


def check(root: Path, console: Console) -> dict[str, Any]:
    """Everything that can be known to be wrong before a lap."""
    from windvane.tasks import faults

    problems: list[str] = []
    try:
        project = Project(root)
    except WindvaneError as e:
        problems.append(str(e))
    else:
        for look in (_disk, _files, _source, _ledger, _champion, _tracking, _orders, _up):
            try:
                look(project, console)
            except WindvaneError as e:
                problems.append(str(e))
            except Exception as e:
                if (known := faults.explain(e, project.home)) is None:
                    raise
                problems.append(str(known))
            if problems and look is _disk:
                break  # whatever writes would say the same
    problems = list(dict.fromkeys(problems))
    for problem in problems:
        console.say(f"  {problem}")
    console.say("  something to mend" if problems else "  all well; next: windvane train")
    return {"ok": not problems, "problems": problems}


def score(root: Path, source: Path, target: Path, log: bool, console: Console) -> dict[str, Any]:
    """The champion's predictions for a file."""
    from windvane.flows import scoring

    return scoring.score(Project(root), source, target, log, console)


def labels(root: Path, file: Path, console: Console) -> dict[str, Any]:
    """Ground truth for predictions, from a file."""
    from windvane.flows import labelling

    return labelling.labels(Project(root), file, console)


def monitor(root: Path, wait: bool, acknowledge: bool, console: Console) -> dict[str, Any]:
    """One look at production, and what follows from it."""
    from windvane.flows.watch import watch

    project = Project(root)
    os.chdir(project.root)
    return watch(project, console, wait=wait, acknowledge=acknowledge)


def serve(root: Path, host: str | None, port: int | None, console: Console) -> dict[str, Any]:
    """The scoring service, until it is stopped."""
    from windvane.flows import serving

    return serving.serve(Project(root), host, port, console)


def up(root: Path, clock: str, console: Console) -> None:
    """All services, until stopped."""
    from windvane.flows import up

    up.up(Project(root), "events" if clock == "events" else "wall", console)


def secret(root: Path, renew: bool, console: Console) -> dict[str, Any]:
    """Who may use the servers that run here."""
    from windvane.flows import access

    return access.show(Project(root), renew, console)


def erase(root: Path, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Forget one subject."""
    from windvane.flows import erasing

    return erasing.erase(Project(root), ids, where, console)


def replay(root: Path, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """The table's own history through the whole loop."""
    from windvane.flows import replay

    return replay.run(Project(root), replay.Asked(**options), console)


def status(root: Path, console: Console) -> dict[str, Any]:
    """Champion, last lap, last promotion."""
    from windvane.flows import status

    return status.status(Project(root), console)


def versions(root: Path, console: Console) -> dict[str, Any]:
    """Every version, and who serves."""
    from windvane.flows import version_list

    return version_list.list_versions(Project(root), console)


def clean(root: Path, keep: int | None, dry_run: bool, console: Console) -> dict[str, Any]:
    """Delete what old versions left behind."""
    from windvane.flows import cleaning, quiet

    quiet.mute()
    return cleaning.clean(Project(root), keep, dry_run, console)


def promote(root: Path, version: int, console: Console) -> dict[str, Any]:
    """Move the champion by hand."""
    from windvane.flows import deploying

    moved = deploying.by_hand(Project(root), version, "manual")
    console.say(f"  version {moved.move.to_version} serves (before: {moved.move.from_version or 'none'})")
    return _moved(moved, console)


def rollback(root: Path, console: Console) -> dict[str, Any]:
    """Put back the champion before this one."""
    from windvane.flows import deploying

    moved = deploying.back(Project(root))
    console.say(f"  version {moved.move.to_version} serves again (before: {moved.move.from_version})")
    return _moved(moved, console)


def _moved(moved: Moved, console: Console) -> dict[str, Any]:
    """A promotion for --json; what MLflow could not be told is a note: the promotion is done."""
    if moved.note is not None:
        console.say(f"  note: {moved.note}")
    return {"from": moved.move.from_version, "to": moved.move.to_version}


def _files(project: Project, _: Console) -> None:
    """Whether git holds what it must not."""
    from windvane.tasks import project_files

    if project_files.tracked(project.root):
        raise project_files.untrack(project.root)


def _source(project: Project, _: Console) -> None:
    """The first two stages, with nothing left behind."""
    from windvane.flows import data
    from windvane.tasks import contract, digest, fetch, ingest, privacy, tables, validate

    settings = project.settings
    if not settings.data.local:
        fetch.answers(project.root, settings.data)
        return
    agreed = contract.load(project.root / contract.SCHEMA)
    accepted = digest.from_json(data.accepted(project))
    with ingest.scratch(project.root) as folder:
        table = folder / "table.parquet"
        ingest.write(project.root, settings, table, folder)
        scan = tables.scan(table)
        privacy.check(settings, scan.collect_schema().names())
        validate.check(scan, settings, agreed, accepted)


def _disk(project: Project, _: Console) -> None:
    """Whether a lap may write what it writes, and has room for it."""
    from windvane.tasks import faults

    faults.writable(project.root)
    faults.writable(project.home)


def _ledger(project: Project, _: Console) -> None:
    from windvane.flows import opening

    _engine = project.ledger
    opening.sound(project)


def _champion(project: Project, _: Console) -> None:
    """Whether the files of the version that serves are those that were recorded; elsewhere than here they are not fetched for it."""
    from windvane.ledger import versions
    from windvane.tasks import addresses, artifacts

    champion = versions.champion(project.ledger, project.name)
    if champion is not None and (folder := addresses.on_disk(project.absolute(champion.model_uri))) is not None:
        artifacts.verify(folder, champion.manifest_sha256)


def _tracking(project: Project, console: Console) -> None:
    """MLflow's store: a server is asked, the project's own is read without MLflow."""
    from windvane.flows import opening
    from windvane.tasks import mlflow_store

    opening.no_store_is_missed(project)
    if project.tracking_uri is None:
        mlflow_store.sound(project.home / mlflow_store.FILE)
    elif (note := project.tracker.try_out()) is not None:
        console.say(f"  note: {note}")


def _orders(_project: Project, _: Console) -> None:
    if url := os.environ.get("PREFECT_API_URL"):
        from windvane.flows import admission
        from windvane.flows.server import Server

        Server(url.rstrip("/"), None, None).wait()
        admission.ask(url)


def _up(project: Project, _: Console) -> None:
    """Whether the scoring service may listen where it should, and a running `windvane up` has the project's secret."""
    from windvane.flows import access
    from windvane.serving import keys

    keys.guard(project.settings.serve.host, keys.read(os.environ.get(keys.VARIABLE)))
    if (wrong := access.outdated(project)) is not None:
        raise InputError(wrong)


def backtest(
    root: Path, window: str | None, cost: float | None, delay: int | None, apply: bool, drift: bool, console: Console
) -> dict[str, Any]:
    """Retraining policies over the table's own history."""
    from windvane.flows import backtest as playing
    from windvane.flows.teaching import cores

    project = Project(root)
    return playing.run(project, window, cost, delay, apply, drift, cores(), console)
