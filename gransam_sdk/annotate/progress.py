"""How a run tells its caller how far it is."""

from __future__ import annotations

from typing import Literal, Protocol

PhotoStatus = Literal["new", "redone", "done", "failed"]
"""``new``: recorded now for the first time; ``redone``: recorded again, because the photo changed or its record was
damaged; ``done``: an earlier run recorded it; ``failed``: it cannot be read or annotated."""


class Progress(Protocol):
    """What a run calls as it goes, always from the thread that called it."""

    def start(self, total: int | None) -> None:
        """The loop begins.

        Args:
            total: Photos to come, already recorded ones included; None if that is not known.
        """
        ...

    def advance(self, key: str, status: PhotoStatus) -> None:
        """One photo is through."""
        ...

    def finish(self) -> None:
        """The loop has ended, however it ended."""
        ...


class NullProgress:
    """Says nothing."""

    def start(self, total: int | None) -> None:
        """Says nothing."""

    def advance(self, key: str, status: PhotoStatus) -> None:
        """Says nothing."""

    def finish(self) -> None:
        """Says nothing."""
