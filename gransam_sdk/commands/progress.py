"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from ..errors import InputError
from .streams import narrate

if TYPE_CHECKING:
    from ..annotate.progress import PhotoStatus, Progress

HEARTBEAT_SECONDS = 10.0


def choose_progress(how: str) -> Progress:
    """The display for ``--progress``.

    Args:
        how: ``auto``, ``plain`` or ``none``.

    Raises:
        InputError: Another word.
    """
    if how == "auto":
        return Bar() if sys.stderr is not None and sys.stderr.isatty() else Heartbeat()
    if how == "plain":
        return Heartbeat()
    if how == "none":
        from ..annotate.progress import NullProgress

        return NullProgress()
    raise InputError("--progress", expected="auto, plain or none", found=repr(how))


class Tally:
    """Counts photos by status; the speed is that of photos annotated by this run.

    Args:
        total: Photos to come; None if that is not known.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.counts: Counter[PhotoStatus] = Counter()
        self.begun = time.monotonic()

    def text(self) -> str:
        """Such as ``12 of 360 photos, 6.1 a second, 1 failed``."""
        through = self.counts.total()
        of_total = "" if self.total is None else f" of {self.total}"
        parts = [f"{through}{of_total} photos"]
        annotated = self.counts["new"] + self.counts["redone"]
        if annotated:
            parts.append(f"{annotated / max(time.monotonic() - self.begun, 1e-9):.1f} a second")
        if self.counts["done"]:
            parts.append(f"{self.counts['done']} from before")
        if self.counts["failed"]:
            parts.append(f"{self.counts['failed']} failed")
        return ", ".join(parts)


class Heartbeat:
    """A line every ten seconds, and one at the end."""

    def start(self, total: int | None) -> None:
        """Begins to count."""
        self._tally = Tally(total)
        self._spoken = time.monotonic()
        narrate(f"annotating {'photos' if total is None else f'{total} photos'} ...")

    def advance(self, key: str, status: PhotoStatus) -> None:
        """Counts a photo, and says so if it is time."""
        self._tally.counts[status] += 1
        if time.monotonic() - self._spoken >= HEARTBEAT_SECONDS:
            self._spoken = time.monotonic()
            narrate(self._tally.text())

    def finish(self) -> None:
        """Says the last count."""
        narrate(self._tally.text())


class Bar:
    """Rich's bar, redrawn in place."""

    def start(self, total: int | None) -> None:
        """Draws the empty bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._tally = Tally(total)
        columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(self._tally.text(), total=total)
        self._bar.start()

    def advance(self, key: str, status: PhotoStatus) -> None:
        """Moves the bar by one photo."""
        self._tally.counts[status] += 1
        self._bar.update(self._task, advance=1, description=self._tally.text())

    def finish(self) -> None:
        """Leaves the bar where it stands."""
        self._bar.stop()
