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
    from flows import lap as laps

    project = Project(root)
    os.chdir(project.root)
    with laps.opened(project, cause, "refit" if depth == "refit" else "search", console) as lap:
        lap.trial_runs = trial_runs
        outcome = laps.unchanged(lap)
        if outcome is not None:
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


def init(table: Path, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """Look at a table, write params.yaml, and what DVC needs."""
    from flows import data
    from tasks import initialise, versioning
    from tasks.tables import write_json

    proposal = initialise.propose(table, **options)
    root = Path.cwd()
    written = list(initialise.write(proposal, root))
    written += versioning.prepare(root)
    if not (root / data.TAUGHT).exists():
        write_json({"taught_until": None}, root / data.TAUGHT)
    for line in proposal.assumptions:
        console.say(f"  assumed: {line}")
    console.say(f"  wrote {', '.join(str(name) for name in written)}; look through params.yaml, then: windvane train")
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


def score(root: Path, source: Path, target: Path, console: Console) -> dict[str, Any]:
    """The champion's predictions for a file."""
    from flows import scoring

    return scoring.score(Project(root), source, target, console)


def labels(root: Path, file: Path, console: Console) -> dict[str, Any]:
    """Ground truth for predictions, from a file."""
    from flows import labelling

    return labelling.labels(Project(root), file, console)


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
    """The first two stages, with nothing written."""
    from tasks import ingest, sources, validate

    settings = project.settings
    source = sources.read(project.root / settings.data.source, settings.problem.ignore)
    validate.check(ingest.table(source, settings.problem), settings)


def _services(project: Project) -> None:
    _ = project.ledger
    if project.tracking_uri is not None:
        _ = project.tracker
    if url := os.environ.get("PREFECT_API_URL"):
        from flows.server import Server

        Server(url.rstrip("/"), None, None).wait()
