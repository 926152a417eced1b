"""Requests that keep to the web: what each may lead to, what it is redirected to, and never from https back to http."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from email.message import Message
from functools import partial
from typing import IO, Any
from urllib import request
from urllib.parse import quote, urlsplit

from ...version import __version__
from .fetch_fault import FetchFault
from .guarded_connection import GuardedConnection, GuardedTlsConnection, Limits, check_written

USER_AGENT = f"gransam-sdk/{__version__} (collects openly licensed example pictures)"

_RESERVED = "%/:=&?~#+!$,;'@()*[]"


class Asked(request.Request):
    """A request that knows what holds for it and for those that it is redirected to.

    Args:
        url: A web address.
        headers: What is sent along; may name another user agent.
        limits: Of the whole download.
        interval: Seconds between two requests to a host.
        trusted: Host that may be private; empty for none.
        allow_private: Whether every host may be.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        limits: Limits,
        *,
        interval: float,
        trusted: str,
        allow_private: bool,
    ) -> None:
        super().__init__(quote(url, safe=_RESERVED), headers={"User-Agent": USER_AGENT, **headers})
        self._sent = headers
        self.limits, self.interval, self.trusted, self.allow_private = limits, interval, trusted, allow_private
        self._server = self.host

    def redirected(self, url: str) -> Asked:
        """The next request of the same download."""
        return Asked(
            url,
            self._sent,
            self.limits,
            interval=self.interval,
            trusted=self.trusted,
            allow_private=self.allow_private,
        )

    def open(self, kind: type[GuardedConnection]) -> Callable[..., GuardedConnection]:
        """What makes the connection, to the server or to the proxy that urllib has put in its place by now.

        Raises:
            FetchFault: ``address``: the server is not public, as far as can be known before its name is resolved.
        """
        host = host_of(self.full_url)
        may_be_private = self.allow_private or host == self.trusted
        if not may_be_private:
            check_written(host)
        return partial(kind, limits=self.limits, anywhere=may_be_private or self.host != self._server)


class Plain(request.HTTPHandler):
    """``http``, through guarded connections."""

    def http_open(self, req: Any) -> http.client.HTTPResponse:
        """What urllib calls."""
        return self.do_open(req.open(GuardedConnection), req)


class Tls(request.HTTPSHandler):
    """``https``, through guarded connections."""

    def https_open(self, req: Any) -> http.client.HTTPResponse:
        """What urllib calls."""
        return self.do_open(req.open(GuardedTlsConnection), req)


class WebRedirects(request.HTTPRedirectHandler):
    """Follows a few redirects, to web addresses only, each host in its turn.

    Args:
        take_turn: Of the fetcher.
    """

    max_redirections = 5

    def __init__(self, take_turn: Callable[[str, float], float]) -> None:
        self._take_turn = take_turn

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> request.Request | None:
        """The next request, or a refusal."""
        fp.close()  # its body would be read to the end, however long
        host = host_of(newurl)
        if (urlsplit(req.full_url).scheme, urlsplit(newurl).scheme) == ("https", "http"):
            raise FetchFault("insecure", f"redirected from https to http, at {host}")
        req.limits.end += self._take_turn(host, req.interval)
        after: Asked = req.redirected(newurl)
        return after


def host_of(url: str) -> str:
    """The host of a web address.

    Raises:
        FetchFault: It is none.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise FetchFault("url", str(error)) from error
    if parts.scheme not in ("http", "https") or not host:
        raise FetchFault("url", f"{url[:80]!r} is no http(s) address")
    return host
