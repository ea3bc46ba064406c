"""MLflow's aliases put right by a process of its own: `python -m windvane.flows.aliases ROOT`. The ledger knows already."""

from __future__ import annotations

import sys
from pathlib import Path

from windvane.flows.deploying import tell_last
from windvane.flows.project import Project
from windvane.tasks import library_environment
from windvane.tasks.errors import WindvaneError
from windvane.tasks.places import keep_private


def main() -> int:
    """Tell MLflow of the project's last promotion; 1, and why on standard error, where that fails."""
    keep_private()
    library_environment.prepare()
    try:
        tell_last(Project(Path(sys.argv[1])))
    except WindvaneError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
