"""Fetching from the web with manners: one request at a time, pauses, patience that ends, and limits on what comes back.

Only ``http`` and ``https`` are spoken, after redirects too, and never the first after the second; no handler for
anything else is there. The proxies of the environment (``HTTPS_PROXY``, ``NO_PROXY``) are used as Python's standard
library does; a proxy resolves names itself, so of what it connects to only the address as written is checked here.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib import request
from urllib.error import HTTPError, URLError

from ...errors import InputError
from .fetch_fault import FetchFault
from .guarded_connection import Limits
from .guarded_requests import USER_AGENT, Asked, Plain, Tls, WebRedirects, host_of

__all__ = ["USER_AGENT", "Answer", "Fetcher", "Manners"]

_PIECE = 1 << 16
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may succeed later."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How servers are treated.

    Attributes:
        timeout: Seconds without a byte after which an answer is given up.
        deadline: Seconds that a whole answer may take, from the first connection over redirects to the last byte.
            Looking up names has the system's own limit; our pauses do not count.
        attempts: Times that a request is tried when it fails for a reason that may pass.
        backoff: Seconds before the second attempt; they double each time, and up to half is added at random.
        max_wait: Longest pause in seconds that a server may ask for (``Retry-After``) before it is given up.
        seed: Of the random part of the pauses.
    """

    timeout: float = 20.0
    deadline: float = 120.0
    attempts: int = 4
    backoff: float = 1.0
    max_wait: float = 90.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values that mean nothing."""
        if self.attempts < 1:
            raise InputError("attempts", expected="from 1", found=repr(self.attempts))
        for name in ("timeout", "deadline"):
            if not getattr(self, name) > 0:
                raise InputError(name, expected="seconds above 0", found=repr(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent: the body, and what it calls it (``image/jpeg``; empty if it does not say)."""

    data: bytes
    content_type: str


class Fetcher:
    """Sends requests, never two at once, and none sooner after the last one to the same host than agreed.

    Args:
        manners: How servers are treated.
        allow_private: Whether links may lead to this machine and to private networks.
    """

    def __init__(self, manners: Manners, *, allow_private: bool = False) -> None:
        """Nothing is sent yet."""
        self._manners = manners
        self._allow_private = allow_private
        self._random = random.Random(manners.seed)  # noqa: S311 (spreads pauses, guards nothing)
        self._free_from: dict[str, float] = {}
        self._opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler(),
            Plain(),
            Tls(),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
            request.UnknownHandler(),
            WebRedirects(self._take_turn),
        ):
            self._opener.add_handler(handler)

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        interval: float,
        accept: Callable[[str], bool] = lambda kind: True,
        named_by_user: bool = False,
    ) -> Answer:
        """Fetches one address, again if it fails for a reason that may pass.

        Args:
            url: Its address.
            max_bytes: Longest body that is taken.
            interval: Seconds between two requests to a host: this one, and those that it redirects to.
            accept: Whether a body of this content type is wanted; asked before the body is read.
            named_by_user: Whether the user, and not a stranger's answer, named this host: then it may be private.

        Raises:
            FetchFault: It came to nothing.
        """

        def take(response: http.client.HTTPResponse) -> Answer:
            kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
            if not accept(kind):
                raise FetchFault("content-type", kind)
            return Answer(_read(response, max_bytes), kind)

        return self.read(url, take, interval=interval, named_by_user=named_by_user)

    def read(
        self,
        url: str,
        take: Callable[[http.client.HTTPResponse], _T],
        *,
        interval: float,
        headers: Callable[[], Mapping[str, str]] = dict,
        named_by_user: bool = False,
    ) -> _T:
        """Fetches one address as ``get`` does, and leaves the body to somebody else.

        Args:
            url: Its address.
            take: Reads an answer's body; ``http.client.IncompleteRead`` from it means that the rest is to be fetched.
            interval: Seconds between two requests to a host.
            headers: Asked before each attempt for what it sends along, redirects included.
            named_by_user: Whether the user named this host.

        Raises:
            FetchFault: It came to nothing.
        """
        host = host_of(url)
        trusted = host if named_by_user else ""
        left = self._manners.attempts
        pause = self._manners.backoff
        while True:
            self._take_turn(host, interval)
            left -= 1
            try:
                return self._try_once(url, take, interval, headers(), trusted)
            except FetchFault as fault:
                if not left or not fault.passing or fault.retry_after > self._manners.max_wait:
                    raise
                wait(max(pause * (1 + self._random.random() / 2), fault.retry_after))
                pause *= 2

    def _take_turn(self, host: str, interval: float) -> float:
        """Waits until a host may be asked; returns how long that was, in seconds."""
        now = time.monotonic()
        turn = max(now, self._free_from.get(host, now))
        self._free_from[host] = turn + interval
        if turn > now:
            wait(turn - now)
        return turn - now

    def _try_once(
        self,
        url: str,
        take: Callable[[http.client.HTTPResponse], _T],
        interval: float,
        headers: Mapping[str, str],
        trusted: str,
    ) -> _T:
        manners = self._manners
        limits = Limits(silence=manners.timeout, end=time.monotonic() + manners.deadline)
        try:
            asked = Asked(url, headers, limits, interval=interval, trusted=trusted, allow_private=self._allow_private)
            with self._opener.open(asked, timeout=manners.timeout) as response:
                return take(response)
        except HTTPError as error:
            error.close()  # not by "with", which a body that a redirect has closed refuses
            raise _refusal(error) from error
        except (http.client.InvalidURL, ValueError) as error:  # the second of an address, or of one redirected to
            raise FetchFault("url", str(error)) from error
        except http.client.IncompleteRead as error:
            raise FetchFault("cut", "a body without its end", passing=True) from error
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, TimeoutError):
                late = time.monotonic() >= limits.end
                found = f"not all there after {manners.deadline:g} s" if late else f"no byte for {manners.timeout:g} s"
                raise FetchFault("timeout", found, passing=True) from error
            raise FetchFault("unreachable", str(cause) or type(cause).__name__, passing=True) from error


def wait(seconds: float) -> None:
    """The single place where this module sleeps."""
    time.sleep(seconds)


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body, as far as it is honest about its length and short enough."""
    claimed = response.length  # None for chunks, or when the connection's end is the body's
    if claimed is not None and claimed > max_bytes:
        raise FetchFault("too-large", f"{claimed} bytes, more than {max_bytes}")
    pieces = []
    size = 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise FetchFault("too-large", f"more than {max_bytes} bytes")
    if claimed is not None and size < claimed:
        raise FetchFault("cut", f"{size} bytes of {claimed}", passing=True)
    return b"".join(pieces)


def _refusal(error: HTTPError) -> FetchFault:
    found = f"HTTP status {error.code}"
    if 300 <= error.code < 400:
        return FetchFault("redirect", f"{found}: redirected too often, or not to a web address", status=error.code)
    pause = _seconds(error.headers.get("Retry-After", "")) if error.headers else 0.0
    reason = "rate-limit" if error.code == 429 else "status"
    return FetchFault(reason, found, status=error.code, retry_after=pause, passing=error.code in _PASSING)


def _seconds(text: str) -> float:
    """The value of ``Retry-After``, RFC 9110 10.2.3: seconds or a date; 0 for anything else."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, moment - time.time())
