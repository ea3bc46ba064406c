"""`windvane secret`: how people and programs get into the project's own MLflow and Prefect; and a new secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windvane.flows import standing
from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.serving.guard import USER, Credentials, check_identity
from windvane.tasks import secret

_NAMES = {"mlflow": "MLflow", "prefect": "Prefect"}


def links(addresses: Mapping[str, str], credentials: Credentials) -> list[str]:
    """A line per page that a person may open."""
    return [f"{_NAMES[name]:<8} {credentials.link(address)}" for name, address in addresses.items()]


def outdated(project: Project) -> str | None:
    """What to do where a running `windvane up` has another secret than the project by now; None where all is well."""
    up = standing.running(project.home)
    address = None if up is None or not up.starts_prefect else up.services.get("prefect")
    if up is None or address is None or check_identity(address, Credentials.of(project.home)) is not False:
        return None
    return (
        f"`windvane up` (process {up.holder.pid}) still has the secret from before `windvane secret --renew`, and other commands "
        "cannot use its servers. Stop it with Ctrl-C and start it again"
    )


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
    credentials = Credentials.of(project.home)
    old = None if renew else outdated(project)
    if old is not None:
        console.say(f"  note: {old}")
    if not console.json:
        if up is None:
            console.say("  no page is open: start `windvane up`")
        own = (
            {}
            if up is None or renew or old is not None
            else {n: a for n, a in up.services.items() if n in up.children and n in _NAMES}
        )
        for line in links({name: address for name, address in own.items() if address is not None}, credentials):
            console.say(f"  open {line}")
        console.say(f"  user {USER}, password {credentials.secret}")
        console.say(
            "  for programs: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; PREFECT_API_AUTH_STRING as user:password"
        )
        console.say("  whoever has it can run code here: share it with nobody. A new one: windvane secret --renew")
    return {"secret": credentials.secret}
