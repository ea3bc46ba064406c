"""Addresses of artifacts, as MLflow writes them and the ledger keeps them: which lie on this disk, and what lies beside them.

a path, absolute or below the project      file:///a%20b
mlflow-artifacts:/1/RUN/artifacts/model    mlflow-artifacts://host:5000/1/...    (a server passes them on)
s3://bucket/1/RUN/artifacts/model          runs:/RUN/model    models:/NAME/1     and any other scheme
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

# At least two letters before the colon, so that C:/models is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?=/)")
# The end of an address without its query and fragment, which some stores use for settings.
_TAIL = re.compile(r"[?#]")


def scheme(address: str) -> str:
    """The scheme in small letters; empty for a path."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def on_disk(address: str) -> Path | None:
    """The path that an address means on this machine; None: it is elsewhere, and must be downloaded."""
    kind = scheme(address)
    if kind == "":
        return Path(address)
    return Path(unquote(urlsplit(address).path)) if kind == "file" else None


def join(address: str, name: str) -> str:
    """The address of `name` (a relative path with slashes) below an address."""
    base, tail = _cut(address)
    return f"{base.rstrip('/')}/{quote(name) if scheme(address) == 'file' else name}{tail}"


def parent(address: str) -> str:
    """The address one step up."""
    base, tail = _cut(address)
    return posixpath.dirname(base.rstrip("/")) + tail


def shown(address: str) -> str:
    """An address for people and logs: without a password that stands in it."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=place, query="")) if place else address


def _cut(address: str) -> tuple[str, str]:
    """An address and its query; a path may hold any sign, and has none."""
    if scheme(address) in ("", "file"):
        return address, ""
    found = _TAIL.search(address)
    return (address, "") if found is None else (address[: found.start()], address[found.start() :])
