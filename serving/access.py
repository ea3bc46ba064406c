"""Who may ask: the names under which the service is asked, and the pages whose scripts may ask it.

A browser lets a page from anywhere send requests to this machine. Two headers give that away: `Host` names whom the browser
believes it asks (a stranger's name that points here: DNS rebinding), `Origin` the page that asks. Keys are serving/keys.py's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ANYWHERE = ("", "0.0.0.0", "::")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")
# Headers whose answer is kept: those of a service's clients are few.
_REMEMBERED = 512


class Names:
    """The service's own names: loopback's, the address it listens on, and `hosts` (serve.hosts).

    Where it listens on every address of the machine, also the address at which a connection arrived.
    """

    def __init__(self, address: str, hosts: Sequence[str] = ()) -> None:
        self._everywhere = address in _ANYWHERE
        self._named = frozenset(map(_plain, hosts))
        self._own = self._named.union(LOOPBACK, () if self._everywhere else (_plain(address),))
        self.known = lru_cache(_REMEMBERED)(self._known)
        self.own_page = lru_cache(_REMEMBERED)(self._own_page)

    def _known(self, host: bytes, arrived: str | None) -> bool:
        """Whether `host`, a Host header, is one of them; arrived: the local address of the connection."""
        name = _name(host)
        return name is not None and (
            name in self._own or (self._everywhere and arrived is not None and name == _plain(arrived))
        )

    def _own_page(self, origin: bytes, host: bytes) -> bool:
        """Whether `origin`, an Origin header, is a page of this service, which was asked under `host`."""
        try:
            parts = urlsplit(origin.decode("latin-1"))
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return False  # also `null`, which sandboxed pages and local files send
        at = parts.netloc.encode("latin-1")
        # A proxy in front may ask under another name than the browser did: serve.hosts then names the browser's.
        return at.lower() == host.lower() or _name(at) in self._named


def _name(host: bytes) -> str | None:
    """The name in a Host header, without its port; None: it is not one."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return None if found is None else _plain(found[1].strip("[]"))


def _plain(name: str) -> str:
    """One spelling of a name or an address."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".")
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
