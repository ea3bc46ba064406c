"""What each command does, apart from how it is typed (flows/cli.py). Imports a room only when its command runs."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from flows.console import Console
from flows.project import Project
from tasks.errors import InputError

# What a lap will need in any case: imported while the server boots.
HEAVY = ("mlflow.sklearn", "matplotlib.figure", "optuna", "skops.io")


def train(root: Path, cause: str, depth: str, trial_runs: bool, console: Console) -> dict[str, Any]:
    """One lap, under the lease: a look first, a Prefect run only if something changed."""
    from flows import fetching, sharing
    from flows import lap as laps

    project = Project(root)
    os.chdir(project.root)
    with laps.opened(project, cause, "refit" if depth == "refit" else "search", console) as lap:
        lap.trial_runs = trial_runs
        fetching.fetch(lap)
        outcome = laps.unchanged(lap)
        if outcome is not None:
            sharing.push(lap)
            console.say(f"  verdict: {outcome.verdict}: {outcome.reason}")
            return outcome.to_json()
        from flows import server

        with laps.recorded(lap), server.running(project.home / "prefect") as prefect:
            console.working("start")
            outcome = _fly(lap, prefect)
    console.say(outcome.text())
    store = project.tracking_uri or "sqlite:///.windvane/mlflow.db"
    console.say(f"  look: mlflow ui --backend-store-uri {store}")
    return outcome.to_json()


def _fly(lap: Any, prefect: Any) -> Any:
    """Run the flow. The server boots while everything heavy is imported."""
    from flows import quiet

    quiet.hush()
    import prefect as framework

    from flows import closing, training

    for name in HEAVY:
        importlib.import_module(name)
    _ = lap.project.tracker  # makes MLflow's store, the first time
    prefect.wait()
    try:
        with framework.tags(closing.tag(lap.id)):
            return training.lap(str(lap.project.root), lap.cause, lap.depth)
    finally:
        quiet.flush()
        if prefect.process is not None:
            closing.settle(lap.id)


def init(table: str, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Look at a table, write params.yaml, schema.yaml, and what DVC needs. A remote source is fetched, as a lap would."""
    from flows import data, fetching
    from tasks import contract, digest, fetch, initialise, template, versioning
    from tasks.tables import write_json

    root = Path.cwd()
    chosen = initialise.named(table, options.pop("query"), options.pop("key"))
    fetched = fetch.run(root, chosen, options["id"])
    if fetched.moved:
        console.say(f"  {fetched.text()}")
    proposal = initialise.propose(chosen, **options)
    written = [*initialise.write(proposal, root), template.place(root, contract.SCHEMA, proposal.schema)]
    written += versioning.prepare(root)
    for path, nothing in ((data.TAUGHT, {"taught_until": None}), (digest.ACCEPTED, None)):
        if not (root / path).exists():
            write_json(nothing, root / path)
    fetching.follow(root, chosen, fetched.record)
    for line in proposal.assumptions:
        console.say(f"  assumed: {line}")
    console.say(f"  wrote {', '.join(str(name) for name in written)}; look through them, then: windvane train")
    return {"kind": proposal.kind, "rows": proposal.rows, "columns": proposal.columns, "params": proposal.params}


def check(root: Path, console: Console) -> dict[str, Any]:
    """Everything that can be known to be wrong before a lap."""
    from tasks.errors import WindvaneError

    problems: list[str] = []
    try:
        project = Project(root)
    except WindvaneError as e:
        problems.append(str(e))
    else:
        for look in (_source, _services):
            try:
                look(project)
            except WindvaneError as e:
                problems.append(str(e))
    for problem in problems:
        console.say(f"  {problem}")
    console.say("  something to mend" if problems else "  all well; next: windvane train")
    return {"ok": not problems, "problems": problems}


def score(root: Path, source: Path, target: Path, log: bool, console: Console) -> dict[str, Any]:
    """The champion's predictions for a file."""
    from flows import scoring

    return scoring.score(Project(root), source, target, log, console)


def labels(root: Path, file: Path, console: Console) -> dict[str, Any]:
    """Ground truth for predictions, from a file."""
    from flows import labelling

    return labelling.labels(Project(root), file, console)


def serve(root: Path, host: str | None, port: int | None, console: Console) -> dict[str, Any]:
    """The scoring service, until it is stopped."""
    from flows import serving

    return serving.serve(Project(root), host, port, console)


def erase(root: Path, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Forget one subject."""
    from flows import erasing

    return erasing.erase(Project(root), ids, where, console)


def status(root: Path, console: Console) -> dict[str, Any]:
    """Champion, last lap, last promotion."""
    from flows import status

    return status.status(Project(root), console)


def promote(root: Path, version: int, console: Console) -> dict[str, Any]:
    """Move the champion by hand."""
    from flows import deploying

    move = deploying.by_hand(Project(root), version, "manual")
    console.say(f"  version {move.to_version} serves (before: {move.from_version or 'none'})")
    return {"from": move.from_version, "to": move.to_version}


def rollback(root: Path, console: Console) -> dict[str, Any]:
    """Put back the champion before this one."""
    from flows import deploying
    from ledger import versions

    project = Project(root)
    champion = deploying.champion_or_complain(project)
    earlier = versions.before(project.ledger, project.name, champion.version)
    if earlier is None:
        raise InputError(
            f"version {champion.version} was the first champion: there is none to go back to. Nothing was changed"
        )
    move = deploying.by_hand(project, earlier, "rollback")
    console.say(f"  version {move.to_version} serves again (before: {move.from_version})")
    return {"from": move.from_version, "to": move.to_version}


def _source(project: Project) -> None:
    """The first two stages, with nothing left behind."""
    from flows import data
    from tasks import contract, digest, fetch, ingest, tables, validate

    settings = project.settings
    if not settings.data.local:
        fetch.answers(project.root, settings.data)
        return
    agreed = contract.load(project.root / contract.SCHEMA)
    accepted = digest.from_json(data.accepted(project))
    with ingest.scratch(project.root) as folder:
        table = folder / "table.parquet"
        ingest.write(project.root, settings, table, folder)
        validate.check(tables.scan(table), settings, agreed, accepted)


def _services(project: Project) -> None:
    _ = project.ledger
    if project.tracking_uri is not None:
        _ = project.tracker
    if url := os.environ.get("PREFECT_API_URL"):
        from flows.server import Server

        Server(url.rstrip("/"), None, None).wait()


def backtest(root: Path, window: str, cost: float, delay: int, console: Console) -> dict[str, Any]:
    """Retraining policies over the table's own history."""
    from flows import backtest as playing
    from flows.teaching import cores

    project = Project(root)
    return playing.run(project, int(window) if window.isdecimal() else window, cost, delay, cores(), console)
