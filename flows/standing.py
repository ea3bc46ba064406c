"""What `windvane up` has standing: who runs it, where its services answer, and its children. Other commands read it here.

One file, `.windvane/up.json`, and one lock beside it: the lock says whether `up` runs (the system frees it however the process
ends), the file says who and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from windvane.ledger.leases import Holder
from windvane.tasks.errors import Corrupted, InputError
from windvane.tasks.tables import read_cache, write_json

_FILE, _LOCK = "up.json", "up.lock"
# Which clock the watch goes by: the wall's, or the newest moment among the events that the ledger has seen.
Clock = Literal["wall", "events"]


@dataclass(frozen=True)
class Standing:
    """`holder` runs `up`. `prefect` is the API's address, and `starts_prefect` whether `up` runs it, behind the project's secret;
    `services` are addresses by name; `children` process and birth by name.
    """

    holder: Holder
    clock: Clock = "wall"
    prefect: str | None = None
    starts_prefect: bool = False
    services: Mapping[str, str | None] = field(default_factory=dict)
    children: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def read(home: Path) -> Standing | None:
    """What the last `up` of this project wrote, whether it still runs or not; None where there never was one, or it is damaged."""
    return read_cache(home / _FILE, _standing)


def _standing(content: Any) -> Standing:
    children = {name: (int(pid), float(born)) for name, (pid, born) in content["children"].items()}
    services = {str(name): address for name, address in content["services"].items()}
    holder = Holder(**content["holder"])
    if not (isinstance(holder.pid, int) and isinstance(holder.born, int | float) and isinstance(holder.host, str)):
        raise TypeError("no process holds it")
    return Standing(**{**content, "holder": holder, "children": children, "services": services})


def running(home: Path) -> Standing | None:
    """What stands now; None while no `up` of this project runs on this machine."""
    standing = read(home)
    if standing is None and (home / _FILE).exists() and _held(home):
        raise Corrupted(
            f"{home / _FILE}: is damaged while `windvane up` runs. Stop that with Ctrl-C and start it again"
        )
    return standing if standing is not None and standing.holder.alive() else None


def _held(home: Path) -> bool:
    """Whether an `up` has the lock."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(home / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def write(home: Path, standing: Standing) -> None:
    """Say what stands, before anybody relies on it."""
    content = {**vars(standing), "holder": vars(standing.holder)}
    write_json(content, home / _FILE)


def clear(home: Path) -> None:
    """Say that nothing stands any more."""
    (home / _FILE).unlink(missing_ok=True)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the project's only `up` for as long as this lasts. Raises InputError, naming the other one."""
    from filelock import FileLock, Timeout

    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = read(home)
        who = "another process" if other is None else str(other.holder)
        raise InputError(
            f"{who} has everything up already. Look with `windvane status`, or stop it there with Ctrl-C first"
        ) from None
    try:
        yield
    finally:
        lock.release()
