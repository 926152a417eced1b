"""Fetching weights: the store's unfinished downloads, completed by the downloader that ``crawl`` uses too."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import EnvironmentFault
from ..version import __version__
from .progress import HEARTBEAT_SECONDS
from .streams import narrate

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


class DownloadProgress:
    """How far a download is, on stderr: a bar on a terminal, a line now and then elsewhere; for a ``with`` block.

    Args:
        name: Of the weights.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._spoken = time.monotonic()
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def advance(self, done: int, total: int) -> None:
        """Moves the bar, or says so if it is time."""
        if self._shown:
            self._bar.update(self._task, completed=done, total=total)
        elif done == total or time.monotonic() - self._spoken >= HEARTBEAT_SECONDS:
            self._spoken = time.monotonic()
            narrate(f"{self._name}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

    def __enter__(self) -> DownloadProgress:
        """Draws the empty bar."""
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

            columns = (self._name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self._name, total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar where it stands; after Ctrl-C or SIGTERM (SystemExit), says what is kept."""
        if self._shown:
            self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            narrate("stopped; what was downloaded is kept, and the same command goes on from there")
