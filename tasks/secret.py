"""Secrets that a project makes for itself, once: files below .windvane that only their owner can read.

`of` is the project's own secret: whoever has it may use every server that Windvane starts for the project.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from windvane.tasks.errors import InputError

FILE = "secret"
_HEX = re.compile(r"[0-9a-f]{64}")


def of(home: Path) -> str:
    """The project's secret, 64 hexadecimal digits; made when it is first asked for. `home`: the project's .windvane."""
    return kept(home / FILE, "Make a new one: windvane secret --renew")


def renew(home: Path) -> str:
    """Replace the project's secret: what runs keeps the old one until it is started again."""
    path = home / FILE
    part = _written(path)
    os.replace(part, path)
    return path.read_text(encoding="ascii")


def kept(path: Path, remedy: str) -> str:
    """64 random hexadecimal digits, kept at `path`. Of several processes that make them at once, the first wins."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        part = _written(path)
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


def _written(path: Path) -> Path:
    """A new secret in a file of its own beside `path`, on disk, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as f:
        f.write(secrets.token_hex(32))
        f.flush()
        os.fsync(f.fileno())
    return part
