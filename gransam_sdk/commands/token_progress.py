"""How far the token cache is, on stderr: what it will take, then a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from .progress import HEARTBEAT_SECONDS
from .streams import narrate

if TYPE_CHECKING:
    from ..training.token_cache import CachePlan


class TokenProgress:
    """Says what the cache will do and how far it is; for use in a ``with`` block."""

    def __init__(self) -> None:
        self._spoken, self._all_there = time.monotonic(), False
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def announce(self, plan: CachePlan) -> None:
        """Says the size of the work before it starts."""
        missing = plan.pictures - plan.cached
        if plan.freed:
            narrate(
                f"deleted {plan.freed / 1e6:,.1f} MB of tokens in {plan.folder.parent} that were not used for 30 days"
            )
        self._all_there = not missing
        if self._all_there:
            narrate(f"tokens of all {plan.pictures} {plan.what} are in {plan.folder}")
            return
        narrate(
            f"tokens of {missing} of {plan.pictures} {plan.what}: {plan.bytes / 1e6:,.1f} MB into {plan.folder} "
            f"({plan.free / 1e9:,.1f} GB free)"
        )

    def advance(self, done: int, total: int) -> None:
        """Moves the bar, or says so if it is time; not again that all are there."""
        if self._shown:
            self._bar.update(self._task, completed=done, total=total)
        elif not self._all_there and (done == total or time.monotonic() - self._spoken >= HEARTBEAT_SECONDS):
            self._spoken = time.monotonic()
            narrate(f"tokens of {done} of {total}")

    def __enter__(self) -> TokenProgress:
        """Draws the empty bar."""
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = ("tokens", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("tokens", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar where it stands; after Ctrl-C or SIGTERM (SystemExit), says what is kept."""
        if self._shown:
            self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            narrate("stopped; the tokens up to the last half minute are kept, and the same command goes on from there")
