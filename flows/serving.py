"""The scoring service of a project: what serving/server.py needs, from params.yaml and the environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.serving import guard
from windvane.serving.guard import Lock
from windvane.tasks.errors import Outage

# Seconds that MLflow may take to be told of a rollback.
TELLING = 120


def serve(
    project: Project,
    host: str | None,
    port: int | None,
    console: Console,
    inherited: socket.socket | None = None,
    lock: Lock | None = None,
) -> dict[str, Any]:
    """Serve until stopped. Imports neither Prefect, DVC, MLflow, scikit-learn nor pandas while a compiled champion answers.

    `windvane up` hands down a bound socket, and the lock by which it knows the service again.
    """
    from windvane.serving import keys, server
    from windvane.serving.access import Names
    from windvane.serving.asking import Roles
    from windvane.tasks.statements import statement

    settings = project.settings
    problem = settings.problem
    known = keys.read(os.environ.get(keys.VARIABLE), project.secret)
    address = host or settings.serve.host
    listening = inherited or server.listen(address, settings.serve.port if port is None else port, known)
    at, number = listening.getsockname()[:2]
    console.say(f"  serving {project.name} on http://{at}:{number}; Ctrl-C stops")
    server.run(
        project.ledger,
        project.name,
        project.home / "serving",
        project.fetch,
        listening,
        known,
        Names(address, settings.serve.hosts),
        Roles(problem.id, problem.time),
        project.privacy,
        partial(statement, problem.kind),
        settings.serve.rolls_out,
        settings.ledger.keeps,
        settings.serve.most_memory,
        partial(repair, project.root),
        front=(lambda service: service) if lock is None else partial(guard.proving, lock=lock),
    )
    return {"host": at, "port": number}


def repair(root: Path) -> None:
    """Tell MLflow who serves, in a process of its own: MLflow's import would hold up answers for seconds.

    Raises WindvaneError where MLflow does not answer; the next lap tells it then.
    """
    command = [sys.executable, "-P", "-m", "windvane.flows.aliases", str(root)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TELLING, check=False)
    except subprocess.TimeoutExpired:
        raise Outage(f"MLflow was not told within {TELLING} seconds. The next lap tells it") from None
    if done.returncode != 0:
        raise Outage(f"MLflow was not told: {done.stderr.strip()[-300:]}. The next lap tells it")
