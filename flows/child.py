"""A child of `windvane up`: which services there are to run, and that each ends, with all that it started, when its parent does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from windvane.tasks import faults, library_environment, places

# Seconds between the request to end and the end.
GRACE = 10
# In the environment of every child and of all that it starts: whose they are, by the project's home.
MARK = "WINDVANE_UP"
# And the secret that `up` was started with: `windvane secret --renew` counts from its next start on.
SECRET = "WINDVANE_UP_SECRET"


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
    """Be one of the services, until told to stop. Those that listen are handed the number of a bound socket."""
    places.keep_private()
    follow_parent()
    library_environment.prepare()
    from windvane.flows.console import Console
    from windvane.flows.project import Project
    from windvane.serving import guard
    from windvane.tasks.errors import WindvaneError

    try:
        project = Project(Path.cwd())
        lock = guard.Lock.of(project.home, os.environ.get(SECRET))
        if role == "mlflow":
            listener = socket.socket(fileno=int(arguments[0]))
            # Opening the store first makes it, under its lock: the server's own start would race with others' for that.
            pages = project.tracker.pages(project.home / "artifacts")
            guarded = guard.Guard(pages, lock, guard.port_of(listener), everyone=("/health",))
            guard.serving(guarded).run(sockets=[listener])
        elif role == "service":
            from windvane.flows import serving

            inherited = socket.socket(fileno=int(arguments[0]))
            serving.serve(project, None, None, Console(), inherited, lock)
        elif role == "runner":
            from windvane.flows import schedule

            schedule.run(project, "events" if arguments == ("events",) else "wall")
        elif role == "lap":
            from windvane.flows import flying

            flying.fly(project, "owed", "search", Console(), decision=arguments[0])
    except WindvaneError as e:
        print(f"windvane: {e}", file=sys.stderr)
        return e.exit_code
    except Exception as e:
        if (known := faults.explain(e, Path.cwd() / places.HOME)) is None:
            raise
        print(f"windvane: {known}", file=sys.stderr)
        return known.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
