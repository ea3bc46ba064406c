"""One HTTP answer: allowed hosts and addresses, retries with back-off, a bounded body. Leaves its meaning to tasks/origins/web.py.

The address that a connection really has is looked at before a byte is sent: whatever a name resolved to earlier does not
count. Redirects are followed to the same host only.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from windvane.tasks.data_settings import Revealed
from windvane.tasks.errors import InputError, Outage

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

T = TypeVar("T")
ATTEMPTS = 5
_REDIRECTS = 5
_LONGEST_WAIT = 60.0
_CHUNK = 1 << 16
# What clouds tell their machines about themselves, beside the link-local addresses.
_METADATA = tuple(map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")))


class _Passing(Outage):
    """An answer, or a lack of one, that may be different in a moment; `after`: seconds that the server asks for."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class Network:
    """A client for one source. Counts bytes over all of its answers against data.http.megabytes."""

    def __init__(self, source: Revealed) -> None:
        import httpx

        assert source.data.http is not None
        self._source, self._http = source, source.data.http
        self._left = self._http.megabytes * 1_000_000
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, and what is secret in them
        # A proxy from the environment would connect in our place, to addresses that nobody looks at.
        self._client = httpx.Client(timeout=source.data.timeout, trust_env=False, follow_redirects=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(self, url: str, use: Callable[[httpx.Response], T], headers: dict[str, str] | None = None) -> T:
        """What `use` makes of the answer, whose body it reads through `body`. It is called anew at each attempt.

        Raises Outage when no attempt succeeds (connection errors, 429, 5xx), InputError for any other refusal.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS), wait=pause, retry=retry_if_exception_type(_Passing), reraise=True
        )
        left = self._left

        def attempt() -> T:
            self._left = left
            return self._once(url, use, {**self._http.headers, **(headers or {})})

        return retrying(attempt)

    def body(self, response: httpx.Response) -> Iterator[bytes]:
        """The answer's bytes in pieces, unpacked, as long as the source stays within data.http.megabytes."""
        for piece in response.iter_bytes(_CHUNK):
            self._left -= len(piece)
            if self._left < 0:
                raise InputError(
                    f"data.http.megabytes: {self._source.where}: sends more than {self._http.megabytes} MB. Ask for less, or raise it"
                )
            yield piece

    def joined(self, base: str, link: str) -> str:
        """The absolute address of a link in an answer; raises InputError when it leads to another host."""
        import httpx

        here = httpx.URL(base)
        there = here.join(link)
        upgrade = (here.scheme, there.scheme) == ("http", "https")
        if there.host != here.host or not (upgrade or (there.scheme, there.port) == (here.scheme, here.port)):
            raise InputError(
                f"data.source: {self._source.where}: sends us on to another place ({there.scheme}://{there.host}). "
                "Name that address in data.source, if it is meant, and its host in data.http.hosts"
            )
        return str(there)

    def _once(self, url: str, use: Callable[[httpx.Response], T], headers: dict[str, str]) -> T:
        import httpx

        where = self._source.where
        try:
            for _ in range(_REDIRECTS):
                guard = {"trace": self._look}
                with self._client.stream("GET", url, headers=headers, extensions=guard) as response:
                    if not response.has_redirect_location:
                        self._check(response)
                        return use(response)
                    url = self.joined(url, response.headers["location"])
        except (httpx.TransportError, httpx.DecodingError) as e:
            words = self._source.hide(str(e)).rstrip(".") or type(e).__name__
            raise _Passing(
                f"data.source: {where}: does not answer, or breaks off ({words}). Start the server, or mend the address"
            ) from None
        except httpx.InvalidURL:
            raise InputError(f"data.source: {where}: is no address. Write https://host/path") from None
        raise InputError(f"data.source: {where}: redirects more than {_REDIRECTS} times. Name the last address itself")

    def _check(self, response: httpx.Response) -> None:
        status, where = response.status_code, self._source.where
        if status == 429 or status >= 500:
            raise _Passing(
                f"data.source: {where}: answers {status} {response.reason_phrase}, also after {ATTEMPTS} attempts. "
                "Wait until the server is well again",
                seconds(response.headers.get("retry-after"), datetime.now(UTC)),
            )
        if status >= 400:
            what = "Mend data.http.headers" if status in (401, 403) else "Mend the address"
            raise InputError(f"data.source: {where}: answers {status} {response.reason_phrase}. {what}")

    def _look(self, event: str, info: dict[str, Any]) -> None:
        """Called by the connection pool as it works: right after connecting, before anything is sent."""
        if event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        address = stream.get_extra_info("server_addr")[0]
        if reason := refused(address, self._http.private):
            stream.close()
            raise InputError(f"data.source: {self._source.where}: leads to {address}, {reason}")


def refused(address: str, private: bool) -> str | None:
    """Why an address may not be asked, with what to do; None when it may."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    for inner in (getattr(ip, "ipv4_mapped", None), getattr(ip, "sixtofour", None)):
        ip = inner or ip
    if ip.is_link_local or ip in _METADATA or ip.is_multicast or ip.is_unspecified:
        return "an address of the machine's own surroundings, which is never asked. Name another host"
    if not ip.is_global and not private:
        return "a private address. If it is meant, add to data.http: private: true"
    return None


def seconds(header: str | None, now: datetime) -> float | None:
    """What a Retry-After header asks for, in seconds: a number, or a date (RFC 9110, 10.2.3); None when it says nothing."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the server asks for, else 0.5, 1, 2, 4; never more than a minute."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _Passing) else None
    return min(_LONGEST_WAIT, asked if asked is not None else 0.5 * 2 ** (state.attempt_number - 1))
