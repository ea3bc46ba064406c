"""The state of `windvane up`: who runs it, its addresses and child processes, and how people and programs get in.

The lock beside the file shows whether it runs; `windvane secret` prints the way in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from windvane.ledger.laps import LeaseHolder
from windvane.monitoring.records import Clock
from windvane.serving.http.auth_middleware import BASIC_AUTH_USER, Credentials, check_identity
from windvane.tasks import project_secrets
from windvane.tasks.console import Console
from windvane.tasks.errors import Corrupted, InputError
from windvane.tasks.io import read_cache, write_json
from windvane.tasks.project import Project
from windvane.tasks.stores import mlflow_store

# What the runner writes every few seconds, below .windvane/up.
HEARTBEAT_FILE = "runner.json"
_STATE_FILE, _LOCK_FILE = "up.json", "up.lock"


@dataclass(frozen=True)
class UpState:
    """`holder` runs `up`. `prefect` is the API's address, and `starts_prefect` whether `up` runs it, behind the project's secret;
    `services` are addresses by name; `children` process and birth by name.
    """

    holder: LeaseHolder
    clock: Clock = "wall"
    prefect: str | None = None
    starts_prefect: bool = False
    services: Mapping[str, str | None] = field(default_factory=dict)
    children: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def read_up_state(home: Path) -> UpState | None:
    """What the last `up` of this project wrote, whether it still runs or not; None where there never was one, or it is damaged."""
    return read_cache(home / _STATE_FILE, TypeAdapter(UpState).validate_python)


def read_running_up(home: Path) -> UpState | None:
    """What is running now; None while no `up` of this project runs on this machine."""
    running = read_up_state(home)
    if running is None and (home / _STATE_FILE).exists():
        try:
            with FileLock(home / _LOCK_FILE).acquire(timeout=0):
                pass
        except Timeout:
            raise Corrupted(
                f"{home / _STATE_FILE}: is damaged while `windvane up` runs. Stop that with Ctrl-C and start it again"
            ) from None
    return running if running is not None and running.holder.alive() else None


def write_up_state(home: Path, running: UpState) -> None:
    """Record what is running, before other commands rely on it."""
    content = {**vars(running), "holder": vars(running.holder)}
    write_json(content, home / _STATE_FILE)


def clear_up_state(home: Path) -> None:
    """Record that nothing is running any more."""
    (home / _STATE_FILE).unlink(missing_ok=True)


@contextmanager
def hold_up_lock(home: Path) -> Iterator[None]:
    """Be the project's only `up` for as long as this lasts. Raises InputError, naming the other one."""
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = read_up_state(home)
        who = "another process" if other is None else str(other.holder)
        raise InputError(
            f"{who} has everything up already. See `windvane status`, or stop it there with Ctrl-C first"
        ) from None
    try:
        yield
    finally:
        lock.release()


_PAGE_NAMES = {"mlflow": "MLflow", "prefect": "Prefect"}


def make_page_links(project: Project, addresses: Mapping[str, str], credentials: Credentials) -> list[str]:
    """A line per page that a person may open: of MLflow the list of this project's runs, once there is one."""
    at = {name: credentials.link(address) for name, address in addresses.items()}
    experiment = mlflow_store.read_experiment_with_view(project.home / mlflow_store.MLFLOW_DATABASE, project.name)
    if "mlflow" in at and experiment is not None:
        # Without the workflow MLflow opens its pages for language models.
        view = f"workflowType=machine_learning&viewStateShareKey={mlflow_store.RUN_VIEW}"
        at["mlflow"] += f"#/experiments/{experiment}/runs?{view}"
    return [f"{_PAGE_NAMES[name]:<8} {link}" for name, link in at.items()]


def explain_outdated_secret(project: Project) -> str | None:
    """What to do where a running `windvane up` has another secret than the project by now; None where all is well."""
    up = read_running_up(project.home)
    address = None if up is None or not up.starts_prefect else up.services.get("prefect")
    if up is None or address is None or check_identity(address, Credentials.of(project.home)) is not False:
        return None
    return (
        f"`windvane up` (process {up.holder.pid}) still has the secret from before `windvane secret --renew`, and other commands "
        "cannot use its servers. Stop it with Ctrl-C and start it again"
    )


def show_secret(project: Project, renew: bool, console: Console) -> dict[str, Any]:
    """Print the secret and how it is used; with `renew` a new one takes its place first."""
    up = read_running_up(project.home)
    if renew:
        project_secrets.renew_project_secret(project.home)
        console.print("  the secret is new")
        if up is not None:
            console.print(
                f"  `windvane up` (process {up.holder.pid}) keeps the old one, and other commands cannot use its servers, "
                "until it is started again"
            )
    credentials = Credentials.of(project.home)
    old = None if renew else explain_outdated_secret(project)
    if old is not None:
        console.print(f"  note: {old}")
    if not console.json:
        if up is None:
            console.print("  no page is open: start `windvane up`")
        elif not renew and old is None:
            own = {n: a for n, a in up.services.items() if n in up.children and n in _PAGE_NAMES and a is not None}
            for line in make_page_links(project, own, credentials):
                console.print(f"  open {line}")
        console.print(f"  user {BASIC_AUTH_USER}, password {credentials.secret}")
        console.print(
            "  for programs: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; PREFECT_API_AUTH_STRING as user:password"
        )
        console.print("  anyone who has it can run code here: do not share it. A new one: windvane secret --renew")
    return {"secret": credentials.secret}
