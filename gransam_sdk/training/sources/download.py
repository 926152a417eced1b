"""Fetching from the web with manners: one request at a time, pauses, patience that ends, and limits on what comes back.

Only ``http`` and ``https`` are spoken, after redirects too; no handler for anything else is there. The proxies of the
environment (``HTTPS_PROXY``, ``NO_PROXY``) are used as Python's standard library does.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from ...errors import InputError
from ...version import __version__

USER_AGENT = f"gransam-sdk/{__version__} (collects openly licensed example pictures)"

_PIECE = 1 << 16
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may succeed later."""
_RESERVED = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How servers are treated.

    Attributes:
        timeout: Seconds without a byte after which an answer is given up.
        deadline: Seconds that a whole answer may take.
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


class FetchFault(Exception):
    """A request that came to nothing.

    Attributes:
        reason: ``url``, ``redirect``, ``status``, ``rate-limit``, ``timeout``, ``unreachable``, ``cut``,
            ``too-large`` or ``content-type``.
        found: The reason in words.
        status: The HTTP status, 0 if there was none.
        retry_after: Seconds that the server asked to wait.
        passing: Whether another attempt may succeed.
    """

    def __init__(
        self, reason: str, found: str, *, status: int = 0, retry_after: float = 0.0, passing: bool = False
    ) -> None:
        super().__init__(f"{reason}: {found}")
        self.reason, self.found, self.status = reason, found, status
        self.retry_after, self.passing = retry_after, passing


class Fetcher:
    """Sends requests, never two at once, and none sooner after the last one to the same host than agreed."""

    def __init__(self, manners: Manners) -> None:
        """Nothing is sent yet."""
        self._manners = manners
        self._random = random.Random(manners.seed)  # noqa: S311 (spreads pauses, guards nothing)
        self._free_from: dict[str, float] = {}
        self._opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler(),
            request.HTTPHandler(),
            request.HTTPSHandler(),
            request.HTTPDefaultErrorHandler(),
            request.HTTPErrorProcessor(),
            request.UnknownHandler(),
            _WebRedirects(),
        ):
            self._opener.add_handler(handler)

    def get(
        self, url: str, *, max_bytes: int, interval: float, accept: Callable[[str], bool] = lambda kind: True
    ) -> Answer:
        """Fetches one address, again if it fails for a reason that may pass.

        Args:
            url: Its address.
            max_bytes: Longest body that is taken.
            interval: Seconds between two requests to this host.
            accept: Whether a body of this content type is wanted; asked before the body is read.

        Raises:
            FetchFault: It came to nothing.
        """
        host = _check_url(url)
        left = self._manners.attempts
        pause = self._manners.backoff
        while True:
            self._take_turn(host, interval)
            left -= 1
            try:
                return self._try_once(url, max_bytes, accept)
            except FetchFault as fault:
                if not left or not fault.passing or fault.retry_after > self._manners.max_wait:
                    raise
                wait(max(pause * (1 + self._random.random() / 2), fault.retry_after))
                pause *= 2

    def _take_turn(self, host: str, interval: float) -> None:
        now = time.monotonic()
        turn = max(now, self._free_from.get(host, now))
        self._free_from[host] = turn + interval
        if turn > now:
            wait(turn - now)

    def _try_once(self, url: str, max_bytes: int, accept: Callable[[str], bool]) -> Answer:
        end = time.monotonic() + self._manners.deadline
        try:
            asked = request.Request(quote(url, safe=_RESERVED), headers={"User-Agent": USER_AGENT})  # noqa: S310
            with self._opener.open(asked, timeout=self._manners.timeout) as response:
                kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
                if not accept(kind):
                    raise FetchFault("content-type", kind)
                return Answer(_read(response, max_bytes, end), kind)
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
                raise FetchFault("timeout", f"no byte for {self._manners.timeout:g} s", passing=True) from error
            raise FetchFault("unreachable", str(cause) or type(cause).__name__, passing=True) from error


class _WebRedirects(request.HTTPRedirectHandler):
    """Follows a few redirects, to web addresses only."""

    max_redirections = 5

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> request.Request | None:
        fp.close()  # its body would be read to the end, however long
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def wait(seconds: float) -> None:
    """The single place where this module sleeps."""
    time.sleep(seconds)


def _check_url(url: str) -> str:
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


def _read(response: http.client.HTTPResponse, max_bytes: int, end: float) -> bytes:
    """The body, as far as it is honest about its length, short enough and in time."""
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
        if time.monotonic() > end:
            raise FetchFault("timeout", f"{size} bytes so far when the time was up", passing=True)
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
