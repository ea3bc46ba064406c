"""Data of promoted laps on its way to the DVC remote of data.remote. A remote that is away never stops a lap."""

from __future__ import annotations

from typing import Any

from windvane.flows.lap import Lap
from windvane.ledger import versions
from windvane.tasks import versioning
from windvane.tasks.data_settings import expand
from windvane.tasks.errors import Outage
from windvane.tasks.tables import read_cache, write_json

STATE = "remote.json"


def _state(content: Any) -> dict[str, Any]:
    """What was pushed, and what is to be; made again without it: what is there already is passed over."""
    remote, pushed, pending = (content[name] for name in ("remote", "pushed", "pending"))
    return {
        "remote": str(remote),
        "pushed": [str(v) for v in pushed],
        "pending": {k: list(v) for k, v in pending.items()},
    }


def push(lap: Lap, run_id: str | None) -> None:
    """Push the champion's data, and what earlier laps could not push. Costs a look at a file when nothing is left to push.

    run_id: the lap's run in MLflow, which is told; None: it has none.
    """
    remote, path = lap.project.settings.data.remote, lap.project.home / STATE
    if remote is None:
        return
    known = read_cache(path, _state) or {}
    if known.get("remote") != remote:
        known = {"remote": remote, "pushed": [], "pending": {}}
    pushed: list[str] = known["pushed"]
    pending: dict[str, Any] = known["pending"]
    champion = versions.champion(lap.project.ledger, lap.project.name)
    if champion is not None and champion.data_version not in pushed:
        with versioning.pipeline(lap.project.root) as stages:
            if stages.version() == champion.data_version:
                pending[champion.data_version] = stages.hashes()
    if not pending:
        return
    write_json(known, path)
    lap.console.working("push")
    hashes = sorted({value for values in pending.values() for value in values})
    try:
        versioning.push(lap.project.root, expand(remote, "data.remote"), remote, hashes)
    except Outage as e:
        said = f"{e}. The next lap pushes what is missing"
        lap.console.say(f"  warning: {said}")
    else:
        said = f"pushed to {remote}"
        write_json({**known, "pushed": [*pushed, *pending], "pending": {}}, path)
    if run_id is not None:
        lap.project.tracker.log(run_id, tags={"windvane.push": said})
