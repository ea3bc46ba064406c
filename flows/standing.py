"""What `windvane up` has standing: who runs it, where its services answer, and its children. Other commands read it here.

One file, `.windvane/up.json`, and one lock beside it: the lock says whether `up` runs (the system frees it however the process
ends), the file says who and where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from windvane.ledger.leases import Holder
from windvane.tasks.errors import InputError
from windvane.tasks.tables import write_json

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
    """What the last `up` of this project wrote, whether it still runs or not; None where there never was one.

    Raises InputError where the file holds something else.
    """
    path = home / _FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        children = {name: (int(pid), float(born)) for name, (pid, born) in content["children"].items()}
        return Standing(**{**content, "holder": Holder(**content["holder"]), "children": children})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{path}: is not what `windvane up` of this version wrote. Stop `windvane up` if it runs, and delete the file"
        ) from None


def running(home: Path) -> Standing | None:
    """What stands now; None while no `up` of this project runs on this machine."""
    standing = read(home)
    return standing if standing is not None and standing.holder.alive() else None


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
