"""`windvane secret`: how people and programs get into the project's own MLflow and Prefect; and a new secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windvane.flows import standing
from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.serving.guard import USER, Lock
from windvane.tasks import secret

_NAMES = {"mlflow": "MLflow", "prefect": "Prefect"}


def links(addresses: Mapping[str, str], lock: Lock) -> list[str]:
    """A line per page that a person may open."""
    return [f"{_NAMES[name]:<8} {lock.link(address)}" for name, address in addresses.items()]


def show(project: Project, renew: bool, console: Console) -> dict[str, Any]:
    """Print the secret and how it is used; with `renew` a new one takes its place first."""
    up = standing.running(project.home)
    if renew:
        secret.renew(project.home)
        console.say("  the secret is new")
        if up is not None:
            console.say(
                f"  `windvane up` (process {up.holder.pid}) keeps the old one, and other commands cannot use its servers, "
                "until it is started again"
            )
    lock = Lock.of(project.home)
    if not console.json:
        own = {} if up is None or renew else {n: a for n, a in up.services.items() if n in up.children and n in _NAMES}
        for line in links({name: address for name, address in own.items() if address is not None}, lock):
            console.say(f"  open {line}")
        console.say(f"  user {USER}, password {lock.secret}")
        console.say(
            "  for programs: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; PREFECT_API_AUTH_STRING as user:password"
        )
        console.say("  whoever has it can run code here: share it with nobody. A new one: windvane secret --renew")
    return {"secret": lock.secret}
