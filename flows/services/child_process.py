"""A child process of `windvane up`: the services it can run.

It ends, with all that it started, when its parent does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from windvane.serving.http import auth_middleware
from windvane.tasks import errors, io, process_environment
from windvane.tasks.console import Console
from windvane.tasks.errors import WindvaneError
from windvane.tasks.project import Project

# Seconds between the request to end and the end.
STOP_GRACE_SECONDS = 10
# In the environment of every child and of all that it starts: whose they are, by the project's home.
OWNER_VARIABLE = "WINDVANE_UP"
# And the secret that `up` was started with: `windvane secret --renew` counts from its next start on.
UP_SECRET_VARIABLE = "WINDVANE_UP_SECRET"


def end_group_with_parent() -> None:
    """End this process group once standard input closes: the parent holds its other end, and lets go however it ends.

    The process must lead a group of its own.
    """
    pipe = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        while os.read(pipe, 1024):
            pass
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(STOP_GRACE_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="follow parent", daemon=True).start()


def run_child_process(role: str, *arguments: str) -> int:
    """Be one of the services, until it is stopped. Those that listen are handed the number of a bound socket."""
    io.set_private_umask()
    end_group_with_parent()
    process_environment.set_library_environment()
    try:
        project = Project(Path.cwd())
        credentials = auth_middleware.Credentials.of(project.home, os.environ.get(UP_SECRET_VARIABLE))
        if role == "mlflow":
            listener = socket.socket(fileno=int(arguments[0]))
            # Opening the store first makes it, under its credentials: the server's own start would race with others' for that.
            pages = project.tracker.pages(project.home / "artifacts")
            guarded = auth_middleware.SecretMiddleware(
                pages, credentials, listener.getsockname()[1], open_paths=("/health",)
            )
            auth_middleware.make_uvicorn_server(guarded).run(sockets=[listener])
        elif role == "service":
            from windvane.flows.services import scoring_service

            inherited = socket.socket(fileno=int(arguments[0]))
            scoring_service.run_scoring_service(project, None, None, Console(), inherited, credentials)
        elif role == "runner":
            from windvane.flows.orchestration import deployments

            deployments.run_schedules(project, "events" if arguments == ("events",) else "wall")
        elif role == "lap":
            from windvane.flows.lap import lap_runner

            lap_runner.run_lap(project, "owed", "search", Console(), decision=arguments[0])
    except Exception as e:
        known = e if isinstance(e, WindvaneError) else errors.explain_disk_error(e, Path.cwd() / io.STATE_FOLDER)
        if known is None:
            raise
        print(f"windvane: {known}", file=sys.stderr)
        return known.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run_child_process(*sys.argv[1:]))
