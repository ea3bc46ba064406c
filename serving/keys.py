"""Keys: WINDVANE_API_KEYS holds their hashes with their scopes, so that whoever reads it cannot ask.

`scope[+scope]:sha256`, several apart by commas or blanks. Keys are long and drawn by chance, so a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass

from windvane.tasks.errors import InputError

SCOPES = ("score", "label", "admin")
VARIABLE = "WINDVANE_API_KEYS"
_HOW = (
    f"{VARIABLE}: write {'|'.join(SCOPES)}:SHA256 per key, apart by commas; "
    "make a key with `openssl rand -hex 32` and its hash with `printf %s KEY | sha256sum`"
)


@dataclass(frozen=True)
class Keys:
    """Hashes in hex, each with the scopes of its key, as WINDVANE_API_KEYS has them; and the hash of the project's own secret,
    which opens everything.
    """

    scopes: dict[str, frozenset[str]]
    own: str | None = None

    def allows(self, key: str | None, scope: str | None) -> bool | None:
        """Whether this key may do what needs `scope` (None: any key will do); None: the key is not known."""
        if not key:
            return None
        digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        if self.own is not None and hmac.compare_digest(self.own, digest):
            return True
        found = None
        for known, scopes in self.scopes.items():
            if hmac.compare_digest(known, digest):
                found = scopes
        if found is None:
            return None
        return scope is None or scope in found or "admin" in found


def read(text: str | None, secret: str | None = None) -> Keys:
    """Keys from the environment's text, and the project's secret. Raises InputError, without the text."""
    scopes: dict[str, frozenset[str]] = {}
    for entry in re.split(r"[,\s]+", (text or "").strip()):
        if not entry:
            continue
        names, _, digest = entry.rpartition(":")
        wanted = frozenset(names.split("+"))
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest) or not wanted <= set(SCOPES):
            raise InputError(f"entry {len(scopes) + 1} cannot be read. {_HOW}")
        scopes[digest.lower()] = scopes.get(digest.lower(), frozenset()) | wanted
    return Keys(scopes, None if secret is None else hashlib.sha256(secret.encode()).hexdigest())


def guard(host: str, keys: Keys) -> None:
    """Raise InputError where strangers could reach a service that asks nobody for a key."""
    if not keys.scopes and not _loopback(host):
        raise InputError(
            f"serve.host: {host} can be reached by others, but there are no keys. {_HOW}; or serve on 127.0.0.1"
        )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
