"""Who may use the scoring service: its host names, the pages whose scripts may call it, and API keys with their scopes."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from windvane.tasks.errors import InputError

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
_ALL_ADDRESSES = ("", "0.0.0.0", "::")
_HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")


class HostNames:
    """The service's own names: loopback's, the address it listens on, and `hosts` (serve.hosts).

    Where it listens on every address of the machine, also the address at which a connection arrived.
    """

    def __init__(self, address: str, hosts: Sequence[str] = ()) -> None:
        self._everywhere = address in _ALL_ADDRESSES
        self._named = frozenset(map(_normalize_host, hosts))
        self._own = self._named.union(LOOPBACK_HOSTS, () if self._everywhere else (_normalize_host(address),))

    def known(self, host: bytes, arrived: str | None) -> bool:
        """Whether `host`, a Host header, is one of them; arrived: the local address of the connection."""
        name = _parse_host(host)
        return name is not None and (
            name in self._own or (self._everywhere and arrived is not None and name == _normalize_host(arrived))
        )

    def own_page(self, origin: bytes, host: bytes) -> bool:
        """Whether `origin`, an Origin header, is a page of this service, which was requested under `host`."""
        try:
            parts = urlsplit(origin.decode("latin-1"))
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return False  # also `null`, which sandboxed pages and local files send
        at = parts.netloc.encode("latin-1")
        # A proxy in front may send another name than the browser did: serve.hosts then names the browser's.
        return at.lower() == host.lower() or _parse_host(at) in self._named


@lru_cache(512)  # a service's clients send few different ones
def _parse_host(host: bytes) -> str | None:
    """The name in a Host header, without its port; None: it is not one."""
    found = _HOST_PATTERN.fullmatch(host.decode("latin-1"))
    return None if found is None else _normalize_host(found[1].strip("[]"))


def _normalize_host(name: str) -> str:
    """One spelling of a name or an address."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".")
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


KEY_SCOPES = ("score", "label", "admin")
API_KEYS_VARIABLE = "WINDVANE_API_KEYS"
_KEY_INSTRUCTIONS = (
    f"{API_KEYS_VARIABLE}: write {'|'.join(KEY_SCOPES)}:SHA256 per key, apart by commas; "
    "make a key with `openssl rand -hex 32` and its hash with `printf %s KEY | sha256sum`"
)


@dataclass(frozen=True)
class ApiKeys:
    """Hashes in hex with the scopes of their keys (WINDVANE_API_KEYS); the hash of the project's own secret, which opens everything."""

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
        return None if found is None else scope is None or scope in found or "admin" in found


def parse_api_keys(text: str | None, secret: str | None = None) -> ApiKeys:
    """Keys from the environment's text, and the project's secret. Raises InputError, without the text."""
    scopes: dict[str, frozenset[str]] = {}
    for entry in re.findall(r"[^,\s]+", text or ""):
        names, _, digest = entry.rpartition(":")
        wanted = frozenset(names.split("+"))
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest) or not wanted <= set(KEY_SCOPES):
            raise InputError(f"entry {len(scopes) + 1} cannot be read. {_KEY_INSTRUCTIONS}")
        scopes[digest.lower()] = scopes.get(digest.lower(), frozenset()) | wanted
    return ApiKeys(scopes, None if secret is None else hashlib.sha256(secret.encode()).hexdigest())


def require_keys(host: str, keys: ApiKeys) -> None:
    """Raise InputError where strangers could reach a service that requires no key."""
    if not keys.scopes and host != "localhost" and not is_loopback(host):
        raise InputError(
            f"serve.host: {host} can be reached by others, but there are no keys. {_KEY_INSTRUCTIONS}; or serve on 127.0.0.1"
        )


def is_loopback(address: str) -> bool:
    """Whether this is an address of loopback."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
