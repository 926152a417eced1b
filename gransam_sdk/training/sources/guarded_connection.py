"""Connections that lead to the public internet only, and answers that end in time, however slowly they drip.

A link from a stranger's catalogue may point at this machine or at one beside it, which trusts whoever is inside. A name
is resolved once for each connection, and the addresses that were checked are those that are connected to: what the name
means a moment later does not matter. The end covers every byte: TLS, a proxy's answer, headers and body.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from .fetch_fault import FetchFault

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as networks without IPv4 see them, RFC 6052."""


@dataclass(slots=True, kw_only=True)
class Limits:
    """How long a request may take, redirects included.

    Attributes:
        silence: Seconds without a byte after which it is given up.
        end: Reading of ``time.monotonic`` at which it is given up; pauses that we make move it.
    """

    silence: float
    end: float

    def patience(self) -> float:
        """Seconds that the next step may take, above 0.

        Raises:
            TimeoutError: The time is up.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        return min(left, self.silence)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, whatever it is wrapped in."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def check_written(host: str) -> None:
    """Refuses a host that is not public as it is written: a number in any notation, or this machine's own name.

    That is all that can be known where a proxy resolves names.

    Raises:
        FetchFault: ``address``.
    """
    name = host.rstrip(".").lower()
    try:
        written = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        written = []
    own = name == "localhost" or name.endswith(".localhost")
    if own or any(not is_public(str(entry[4][0])) for entry in written):
        raise _refused(host, [str(entry[4][0]) for entry in written])


def open_socket(family: int, kind: int, protocol: int, target: Any, limits: Limits) -> socket.socket:
    """A socket that is connected to an address, which is final.

    Raises:
        OSError: Nobody answers there, in time.
    """
    made = socket.socket(family, kind, protocol)
    try:
        made.settimeout(limits.patience())
        made.connect(target)
        made.settimeout(limits.patience())  # of a TLS handshake
    except BaseException:
        made.close()
        raise
    return made


class GuardedConnection(http.client.HTTPConnection):
    """A connection within limits.

    Args:
        host: Host, and port if it is another than usual: the server's, or a proxy's.
        limits: Of the request.
        anywhere: Whether addresses that are not public may be connected to.
        settings: Those of ``HTTPConnection``.
    """

    def __init__(self, host: str, *, limits: Limits, anywhere: bool, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._limits, self._anywhere = limits, anywhere
        self._create_connection: Callable[..., socket.socket] = self._dial  # what connect() opens its socket with
        self.response_class = self._listen  # type: ignore[assignment]

    def _dial(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Connects to the first address of a host that may be connected to and answers.

        Raises:
            FetchFault: ``address``: the host has no public one.
            OSError: None answers.
        """
        host, port = address
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        allowed = [entry for entry in known if self._anywhere or is_public(str(entry[4][0]))]
        if not allowed:
            raise _refused(host, [str(entry[4][0]) for entry in known])
        refusal: OSError = OSError("no address")
        for family, kind, protocol, _name, target in allowed:
            try:
                return open_socket(family, kind, protocol, target, self._limits)
            except OSError as error:
                refusal = error
        raise refusal

    def _listen(self, sock: socket.socket, *arguments: Any, **settings: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Clocked(sock, self._limits), *arguments, **settings)  # type: ignore[arg-type]


class GuardedTlsConnection(GuardedConnection, http.client.HTTPSConnection):
    """The same with TLS; the certificate has to be the name's, not the address's."""


class _Clocked:
    """A socket as far as an answer needs one: something to read from."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock, self._limits = sock, limits

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_ClockedReader(self._sock, self._limits))


class _ClockedReader(io.RawIOBase):
    """The bytes of a socket, each awaited no longer than the limits allow."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock, self._limits = sock, limits
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until it is closed itself

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._limits.patience())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _refused(host: str, addresses: list[str]) -> FetchFault:
    where = f" ({', '.join(sorted(set(addresses) - {host}))})" if set(addresses) - {host} else ""
    return FetchFault("address", f"{host}{where} is not on the public internet")
