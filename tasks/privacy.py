"""What of a request the ledger may keep, from params.yaml, and the key of its hashes. Leaves dropping and hashing to ledger/privacy.py."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from pathlib import Path

from windvane.ledger.privacy import Privacy
from windvane.tasks import secret
from windvane.tasks.errors import InputError
from windvane.tasks.settings import Settings

KEY = "WINDVANE_LEDGER_KEY"
_FILE = "ledger.key"
_LEAST = 16


def of(chosen: Settings, home: Path, columns: Collection[str] | None = None) -> Privacy:
    """The rules of `ledger` in params.yaml. `home` is .windvane/; `columns`, where known, are those of the table or of a request.

    The key comes from WINDVANE_LEDGER_KEY, else from a file in `home` that is made the first time. Raises InputError for a
    column that is not there, and for a shared ledger without a key that all share.
    """
    if columns is not None:
        check(chosen, columns)
    rules = chosen.ledger
    secret = _key(home) if rules.hash else b""
    return Privacy(frozenset(rules.drop), frozenset(rules.hash), rules.sample, secret)


def check(chosen: Settings, columns: Collection[str]) -> None:
    """Raise InputError for a private column that is none of the table's: a slip would store the real one in the open."""
    rules, problem = chosen.ledger, chosen.problem
    known = {*columns, *problem.ignore, problem.target, problem.group or problem.target}
    for key, names in (("drop", rules.drop), ("hash", rules.hash)):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else "Take it out of the list"
                raise InputError(f"ledger.{key}: the table has no column {name!r}. {hint}")


def _key(home: Path) -> bytes:
    if given := os.environ.get(KEY):
        if len(given.encode()) < _LEAST:
            raise InputError(f"{KEY}: is shorter than {_LEAST} characters. Make one: openssl rand -hex 32")
        return given.encode()
    if os.environ.get("WINDVANE_LEDGER_URL"):
        raise InputError(
            f"ledger.hash: whoever writes to a shared ledger must hash alike. Set {KEY} to the same secret everywhere: "
            "openssl rand -hex 32"
        )
    remedy = "Restore it from a backup: values hashed with it are found by no other"
    return bytes.fromhex(secret.kept(home / _FILE, remedy))
