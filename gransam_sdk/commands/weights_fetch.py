"""Fetching weights: the store's unfinished downloads, completed by the downloader that ``crawl`` uses too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import EnvironmentFault
from ..version import __version__
from .step_progress import StepProgress

if TYPE_CHECKING:
    from ..models.part_file import PartFile
    from ..training.sources.download import Manners
    from ..training.sources.fetch_fault import FetchFault

USER_AGENT = f"gransam-sdk/{__version__} (fetches model weights)"


def patience() -> Manners:
    """How long a server is waited for: a download may take hours, but not 30 seconds without a byte."""
    from ..training.sources.download import Manners

    return Manners(timeout=30.0, deadline=math.inf)


def complete(part: PartFile, *, named_by_user: bool) -> None:
    """Fetches what is missing, in rounds of attempts, as long as each brings more bytes than were ever there.

    Args:
        part: The unfinished download.
        named_by_user: Whether the user named the host, which then may be on this machine or in a private network.

    Raises:
        EnvironmentFault: It could not be completed; says what is kept.
        OutputError: The disk refused.
    """
    from ..training.sources.download import Fetcher
    from ..training.sources.fetch_fault import FetchFault

    fetcher = Fetcher(patience())
    most = part.size
    begun_anew = False
    while part.size < part.expected:
        try:
            fetcher.read(
                part.url,
                part.take,
                interval=0.0,
                headers=lambda: {"User-Agent": USER_AGENT, **part.headers()},
                named_by_user=named_by_user,
            )
        except FetchFault as fault:
            if fault.status == 416 and part.size and not begun_anew:  # the server's file ends before what is here
                part.discard()
                begun_anew = True
            elif not fault.passing or part.size <= most:
                raise _given_up(part, fault) from fault
            most = max(most, part.size)


def _given_up(part: PartFile, fault: FetchFault) -> EnvironmentFault:
    kept = "nothing of it is here yet"
    if part.size:
        kept = f"{part.size:,} of {part.expected:,} bytes are kept, and the same command goes on from there"
    do = "check the network, and the proxy if there is one (HTTPS_PROXY)"
    if fault.reason in ("address", "insecure", "redirect", "url"):
        do = "it leads elsewhere: name another address with --mirror if you trust it"
    elif fault.status and not fault.passing:
        do = "check --mirror, or place the file by hand: gransam models pull --offline says where"
    return EnvironmentFault(
        f"download of {part.url}",
        expected=f"weights of {part.expected:,} bytes",
        found=f"{fault.reason}: {fault.found}",
        do=f"{do}; {kept}",
    )


def download_progress(name: str) -> StepProgress:
    """How far the download of some weights is."""

    def say(done: int, total: int) -> str:
        return f"{name}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB"

    return StepProgress(name, say, kept="what was downloaded is kept", in_bytes=True)
