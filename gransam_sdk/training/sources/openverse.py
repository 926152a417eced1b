"""Openverse's catalogue of openly licensed pictures: search results, page by page, checked before they are believed.

The API is described at https://api.openverse.org/v1/. Without a key it answers 20 results a page, about 240 a query,
20 requests a minute and 200 a day.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from ...errors import EnvironmentFault, InputError
from .download import Fetcher
from .fetch_fault import FetchFault

API = "https://api.openverse.org/v1/"
LICENCES = ("cc0", "pdm", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd")
"""Codes of the licences that can be asked for, the freest first."""
REUSABLE = LICENCES[:4]
"""Licences that allow reuse and modification for any purpose."""
SIZES = ("small", "medium", "large")

_MAX_ANSWER_BYTES = 8 << 20
_DECODED = ("jpg", "jpeg", "png", "webp", "bmp")
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_BEYOND_THE_END = (400, 401, 404)
"""How the API answers a page deeper than it lets callers go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A picture that the catalogue offers; texts are printable, links are web addresses, either may be empty.

    Attributes:
        id: The catalogue's id.
        url: Where the picture lies.
        licence: Code of its licence, one of those asked for.
        licence_version: Such as ``4.0``.
        licence_url: The licence's text.
        title: Its title.
        creator: Who made it.
        landing_page: The page that shows it.
        provider: The collection it belongs to, such as ``flickr``.
        attribution: The credit that the catalogue suggests.
        filetype: What the catalogue believes it to be.
    """

    id: str
    url: str
    licence: str
    licence_version: str
    licence_url: str
    title: str
    creator: str
    landing_page: str
    provider: str
    attribution: str
    filetype: str

    @property
    def is_decoded(self) -> bool:
        """Whether the file is worth fetching: of a kind that is decoded, or of none that is known."""
        return self.filetype in ("", *_DECODED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Openverse:
    """A catalogue and what to ask of it.

    Attributes:
        base: Address of the API, up to its version.
        licences: Licences that are wanted, of ``LICENCES``.
        sizes: Sizes that are wanted, of ``SIZES``, as the catalogue understands them.
        page_size: Results a page; 20 is the most that the official API gives without a key.
        interval: Seconds between two searches.
    """

    base: str = API
    licences: tuple[str, ...] = REUSABLE
    sizes: tuple[str, ...] = ("medium", "large")
    page_size: int = 20
    interval: float = 3.0

    def __post_init__(self) -> None:
        """Reject what the API would not understand."""
        if not _is_address(self.base):
            raise InputError("address of the picture search", expected=f"such as {API}", found=repr(self.base))
        for what, values, known in (("licence", self.licences, LICENCES), ("size", self.sizes, SIZES)):
            unknown = [value for value in values if value not in known]
            if unknown or not values:
                raise InputError(what, expected=f"some of: {', '.join(known)}", found=", ".join(unknown) or "none")
        if not 1 <= self.page_size <= 500:
            raise InputError("page size", expected="1 to 500", found=repr(self.page_size))

    def search(self, fetcher: Fetcher, query: str) -> Iterator[Offer | None]:
        """All results of a query, best first; None for one that makes no sense or has a licence nobody asked for.

        Raises:
            EnvironmentFault: The catalogue cannot be reached, refuses, or answers something else.
        """
        page = 0
        last = 1
        while page < last:
            page += 1
            answer = self._ask(fetcher, query, page)
            results, last = answer["results"], answer["page_count"]
            if not results:
                return
            yield from map(self._offer, results)

    def _ask(self, fetcher: Fetcher, query: str, page: int) -> dict[str, Any]:
        words = {"q": query, "license": ",".join(self.licences), "size": ",".join(self.sizes)}
        numbers = {"page_size": self.page_size, "page": page}
        url = f"{self.base.rstrip('/')}/images/?{urlencode(words | numbers)}"
        try:
            data = fetcher.get(url, max_bytes=_MAX_ANSWER_BYTES, interval=self.interval, named_by_user=True).data
        except FetchFault as fault:
            if page > 1 and fault.status in _BEYOND_THE_END:
                return {"results": [], "page_count": 0}
            self._give_up(fault)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        whole = isinstance(answer, dict) and isinstance(answer.get("results"), list)
        if not whole or type(answer.get("page_count")) is not int:
            raise EnvironmentFault(
                f"picture search at {self.base}",
                expected="Openverse's search results in JSON",
                found=f"{len(data)} bytes that begin with {data[:40]!r}",
                do="open it in a browser: a login page of the network may answer, or --api may not be the API's",
            )
        return dict(answer)

    def _give_up(self, fault: FetchFault) -> NoReturn:
        do = "check the network, and the proxy if there is one (HTTPS_PROXY); then run the same command again: it goes "
        do += "on where it stopped. Without a network, put your own pictures into class folders"
        if fault.reason == "rate-limit":
            later = f" {fault.retry_after / 60:.0f} minutes" if fault.retry_after >= 60 else " some minutes"
            do = f"run the same command again in{later}: it goes on where it stopped"
        elif fault.reason in ("address", "insecure"):
            do = "it redirects: find out where it is now, and give that to --api if you trust it"
        elif fault.status and not fault.passing:
            do = "check --api, and whether the class names are words that can be searched for"
        raise EnvironmentFault(
            f"picture search at {self.base}", expected="search results", found=f"{fault.reason}: {fault.found}", do=do
        ) from fault

    def _offer(self, result: object) -> Offer | None:
        if not isinstance(result, dict):
            return None
        name, licence = result.get("id"), _text(result.get("license")).lower()
        if not isinstance(name, str) or not _ID.fullmatch(name) or licence not in self.licences:
            return None
        return Offer(
            id=name,
            url=_link(result.get("url")),
            licence=licence,
            licence_version=_text(result.get("license_version")),
            licence_url=_link(result.get("license_url")),
            title=_text(result.get("title")),
            creator=_text(result.get("creator")),
            landing_page=_link(result.get("foreign_landing_url")),
            provider=_text(result.get("source")),
            attribution=_text(result.get("attribution"), 1000),
            filetype=_text(result.get("filetype")).lower(),
        )


def _is_address(base: str) -> bool:
    """Whether it is a web address to which a path can be added."""
    try:
        parts = urlsplit(base)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment


def _text(value: object, limit: int = 300) -> str:
    """A text that can be printed on one line: what cannot be seen becomes a blank."""
    if not isinstance(value, str):
        return ""
    seen = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in value[: 2 * limit])
    return " ".join(seen.split())[:limit]


def _link(value: object) -> str:
    """A web address, or nothing: what else a link may do on a click is nobody's wish."""
    text = value if isinstance(value, str) and len(value) <= 2000 else ""
    return text if text.isprintable() and re.fullmatch(r"https?://[^\s<>\"]+", text) else ""
