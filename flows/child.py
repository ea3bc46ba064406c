"""A child of `windvane up`: which services there are to run, and that each ends, with all that it started, when its parent does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from windvane.tasks import library_environment

# Seconds between the request to end and the end.
GRACE = 10
# In the environment of every child and of all that it starts: whose they are, by the project's home.
MARK = "WINDVANE_UP"


def follow_parent() -> None:
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
        time.sleep(GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="follow parent", daemon=True).start()


def main(role: str, *arguments: str) -> int:
    """Be one of the services, until told to stop."""
    follow_parent()
    library_environment.prepare()
    from windvane.flows.console import Console
    from windvane.flows.project import Project
    from windvane.tasks.errors import WindvaneError

    try:
        project = Project(Path.cwd())
        if role == "mlflow":
            # Opening the store first makes it, under its lock: the server's own start would race with others' for that.
            project.tracker.show("127.0.0.1", int(arguments[0]))
        elif role == "service":
            from windvane.flows import serving

            serving.serve(project, None, None, Console())
        elif role == "runner":
            from windvane.flows import schedule

            schedule.run(project, "events" if arguments == ("events",) else "wall")
        elif role == "lap":
            from windvane.flows import flying

            flying.fly(project, "owed", "search", Console(), decision=arguments[0])
    except WindvaneError as e:
        print(f"windvane: {e}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
