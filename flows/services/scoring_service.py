"""The scoring service of a project: gives serving/ what it needs from params.yaml and the environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from windvane.serving.http import access_control, auth_middleware, server
from windvane.serving.http.access_control import HostNames
from windvane.serving.http.auth_middleware import Credentials
from windvane.serving.http.request_rows import IdTimeColumns
from windvane.tasks import label_parsing
from windvane.tasks.console import Console
from windvane.tasks.errors import Outage
from windvane.tasks.project import Project

# Seconds that MLflow may take to record a rollback.
ALIAS_REPAIR_TIMEOUT_SECONDS = 120


def run_scoring_service(
    project: Project,
    host: str | None,
    port: int | None,
    console: Console,
    inherited: socket.socket | None = None,
    credentials: Credentials | None = None,
) -> dict[str, Any]:
    """Serve until stopped. Imports neither Prefect, DVC, MLflow, scikit-learn nor pandas while a compiled champion predicts.

    `windvane up` hands down a bound socket, and the credentials by which it knows the service again.
    """
    settings, problem = project.settings, project.settings.problem
    known = access_control.parse_api_keys(os.environ.get(access_control.API_KEYS_VARIABLE), project.secret)
    address = host or settings.serve.host
    listening = inherited or server.open_listening_socket(address, settings.serve.port if port is None else port, known)
    at, number = listening.getsockname()[:2]
    console.print(f"  serving {project.name} on http://{at}:{number}; Ctrl-C stops")
    served = server.ServedProject(
        project.ledger,
        project.name,
        project.home / "serving",
        project.fetch,
        IdTimeColumns(problem.id, problem.time),
        project.privacy,
        label_parsing.choose_label_rules(settings),
    )
    repair = partial(repair_aliases_elsewhere, project.root)
    rules = server.ServingRules(settings.serve.rolls_out, settings.ledger.keeps, settings.serve.most_memory, repair)
    names = HostNames(address, settings.serve.hosts)
    if credentials is None:
        server.run_service(served, rules, listening, known, names)
    else:
        front = partial(auth_middleware.add_identity_route, credentials=credentials)
        server.run_service(served, rules, listening, known, names, front=front)
    return {"host": at, "port": number}


def repair_aliases_elsewhere(root: Path) -> None:
    """Record in MLflow who serves, in a process of its own: MLflow's import would hold up responses for seconds.

    Raises WindvaneError where MLflow does not respond; the next lap updates it.
    """
    command = [sys.executable, "-P", "-m", "windvane.flows.model_promotion", str(root)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ALIAS_REPAIR_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Outage(
            f"MLflow was not updated within {ALIAS_REPAIR_TIMEOUT_SECONDS} seconds. The next lap updates it"
        ) from None
    if done.returncode != 0:
        raise Outage(f"MLflow was not updated: {done.stderr.strip()[-300:]}. The next lap updates it")
