"""How far one long step is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from .progress import HEARTBEAT_SECONDS
from .streams import narrate


class StepProgress:
    """For use in a ``with`` block.

    Args:
        name: Of the step, before the bar.
        say: From (done, total) makes the line that is said where there is no terminal.
        kept: Said after Ctrl-C or SIGTERM: what was not lost.
        in_bytes: Whether done and total are bytes, and shown as such, with the speed.
    """

    def __init__(self, name: str, say: Callable[[int, int], str], *, kept: str, in_bytes: bool = False) -> None:
        self._name, self._say, self._kept, self._in_bytes = name, say, kept, in_bytes
        self._spoken = time.monotonic()
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def advance(self, done: int, total: int) -> None:
        """Moves the bar, or says so if it is time."""
        if self._shown:
            self._bar.update(self._task, completed=done, total=total)
        elif done == total or time.monotonic() - self._spoken >= HEARTBEAT_SECONDS:
            self._spoken = time.monotonic()
            narrate(self._say(done, total))

    def __enter__(self) -> StepProgress:
        """Draws the empty bar."""
        if self._shown:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            counts = (DownloadColumn(), TransferSpeedColumn()) if self._in_bytes else (MofNCompleteColumn(),)
            self._bar = Progress(self._name, BarColumn(), *counts, TimeRemainingColumn(), console=Console(stderr=True))
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
            narrate(f"stopped; {self._kept}, and the same command goes on from there")
