"""The push of the champion's data to the DVC remote. Imports nothing that an unchanged lap does without."""

from __future__ import annotations

from pydantic import BaseModel

from windvane.flows.lap.context import LapContext
from windvane.ledger import versions
from windvane.tasks.errors import Outage
from windvane.tasks.io import read_cache, write_json
from windvane.tasks.settings.data_section import expand_variables
from windvane.tasks.stores import dvc_pipeline

REMOTE_STATE_FILE = "remote.json"


class RemoteState(BaseModel):
    """What was pushed to which remote, and what is to be; made again without it: what is there already is passed over."""

    remote: str
    pushed: list[str] = []
    pending: dict[str, list[str]] = {}


def run_push_step(lap: LapContext, run_id: str | None) -> None:
    """Push the champion's data, and what earlier laps could not push. Costs a stat of a file when nothing is left to push.

    run_id: the lap's run in MLflow, which is updated; None: it has none.
    """
    remote, path = lap.project.settings.data.remote, lap.project.home / REMOTE_STATE_FILE
    if remote is None:
        return
    known = read_cache(path, RemoteState.model_validate)
    if known is None or known.remote != remote:
        known = RemoteState(remote=remote)
    champion = versions.find_champion(lap.project.ledger, lap.project.name)
    if champion is not None and champion.data_version not in known.pushed:
        with dvc_pipeline.open_dvc_pipeline(lap.project.root) as stages:
            if stages.version() == champion.data_version:
                known.pending[champion.data_version] = list(stages.hashes())
    if not known.pending:
        return
    write_json(known.model_dump(), path)
    lap.console.working("push")
    hashes = sorted({value for values in known.pending.values() for value in values})
    try:
        dvc_pipeline.push_outputs(lap.project.root, expand_variables(remote, "data.remote"), remote, hashes)
    except Outage as e:
        message = f"{e}. The next lap pushes what is missing"
        lap.console.print(f"  warning: {message}")
    else:
        message = f"pushed to {remote}"
        write_json(RemoteState(remote=remote, pushed=[*known.pushed, *known.pending]).model_dump(), path)
    if run_id is not None:
        lap.project.tracker.log(run_id, tags={"windvane.push": message})
