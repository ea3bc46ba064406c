"""Secrets that a project makes once for itself, and the privacy rules of the ledger that need one: dropped and hashed columns."""

from __future__ import annotations

import difflib
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path

from windvane.ledger.predictions import PrivacyRules
from windvane.tasks.errors import InputError
from windvane.tasks.settings.project_params import Settings

SECRET_FILE = "secret"
_HEX = re.compile(r"[0-9a-f]{64}")


def read_project_secret(home: Path) -> str:
    """The project's secret, 64 hexadecimal digits; made when it is first needed. `home`: the project's .windvane."""
    return read_or_create_secret(home / SECRET_FILE, "Make a new one: windvane secret --renew")


def renew_project_secret(home: Path) -> str:
    """Replace the project's secret: what runs keeps the old one until it is started again."""
    path = home / SECRET_FILE
    os.replace(_write_new_secret(path), path)
    return path.read_text(encoding="ascii")


def read_or_create_secret(path: Path, remedy: str) -> str:
    """64 random hexadecimal digits, kept at `path`. Of several processes that make them at once, the first wins."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        part = _write_new_secret(path)
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            part.unlink()
        text = path.read_text(encoding="ascii").strip()
    except ValueError:
        text = ""
    if not _HEX.fullmatch(text):
        raise InputError(f"{path}: is not a secret that Windvane wrote. {remedy}")
    return text


def _write_new_secret(path: Path) -> Path:
    """A new secret in a file of its own beside `path`, on disk, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as f:
        f.write(secrets.token_hex(32))
        f.flush()
        os.fsync(f.fileno())
    return part


LEDGER_KEY_VARIABLE = "WINDVANE_LEDGER_KEY"
_LEDGER_KEY_FILE = "ledger.key"
_MIN_KEY_CHARACTERS = 16


def build_privacy_rules(chosen: Settings, home: Path, columns: Collection[str] | None = None) -> PrivacyRules:
    """The rules of `ledger` in params.yaml. `home` is .windvane/; `columns`, where known, are those of the table or of a request.

    The key comes from WINDVANE_LEDGER_KEY, else from a file in `home` that is made the first time. Raises InputError for a
    column that is not there, and for a shared ledger without a key that all share.
    """
    if columns is not None:
        check_private_columns(chosen, columns)
    rules = chosen.ledger
    secret = _read_ledger_key(home) if rules.hash else b""
    return PrivacyRules(frozenset(rules.drop), frozenset(rules.hash), rules.sample, secret)


def check_private_columns(chosen: Settings, columns: Collection[str]) -> None:
    """Raise InputError for a private column that is none of the table's: a slip would store the real one in the open."""
    rules, problem = chosen.ledger, chosen.problem
    known = {*columns, *problem.ignore, problem.target, problem.group or problem.target}
    for key, names in (("drop", rules.drop), ("hash", rules.hash)):
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
                hint = f"Did you mean {near[0]!r}?" if near else "Take it out of the list"
                raise InputError(f"ledger.{key}: the table has no column {name!r}. {hint}")


def _read_ledger_key(home: Path) -> bytes:
    if given := os.environ.get(LEDGER_KEY_VARIABLE):
        if len(given.encode()) < _MIN_KEY_CHARACTERS:
            raise InputError(
                f"{LEDGER_KEY_VARIABLE}: is shorter than {_MIN_KEY_CHARACTERS} characters. Make one: openssl rand -hex 32"
            )
        return given.encode()
    if os.environ.get("WINDVANE_LEDGER_URL"):
        raise InputError(
            f"ledger.hash: all writers to a shared ledger must hash alike. Set {LEDGER_KEY_VARIABLE} to the same secret everywhere: "
            "openssl rand -hex 32"
        )
    remedy = "Restore it from a backup: values hashed with it are found by no other"
    return bytes.fromhex(read_or_create_secret(home / _LEDGER_KEY_FILE, remedy))
