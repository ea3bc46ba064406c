"""The scoring service of a project: what serving/server.py needs, from params.yaml and the environment."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from flows.console import Console
from flows.project import Project


def serve(project: Project, host: str | None, port: int | None, console: Console) -> dict[str, Any]:
    """Serve until stopped. Imports neither Prefect, DVC, MLflow, scikit-learn nor pandas while a compiled champion answers."""
    from serving import keys, server
    from serving.asking import Roles
    from tasks import privacy
    from tasks.statements import statement

    settings = project.settings
    problem = settings.problem
    known = keys.read(os.environ.get(keys.VARIABLE))
    listening = server.listen(host or settings.serve.host, settings.serve.port if port is None else port, known)
    at, number = listening.getsockname()[:2]
    console.say(f"  serving {project.name} on http://{at}:{number}; Ctrl-C stops")
    server.run(
        project.ledger,
        project.name,
        project.home / "serving",
        project.fetch,
        listening,
        known,
        Roles(problem.id, problem.time),
        privacy.of(settings, project.home),
        partial(statement, problem.kind),
        settings.serve.rolls_out,
    )
    return {"host": at, "port": number}
