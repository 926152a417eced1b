"""What the token cache will take, said before it starts, and how far it is."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from .step_progress import StepProgress
from .streams import narrate

if TYPE_CHECKING:
    from ..training.token_cache import CachePlan


class TokenProgress:
    """Says what the cache will do and how far it is; for use in a ``with`` block."""

    def __init__(self) -> None:
        kept = "the tokens up to the last half minute are kept"
        self._step = StepProgress("tokens", lambda done, total: f"tokens of {done} of {total}", kept=kept)
        self._all_there = False

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
        """Moves on; does not say again that all are there."""
        if not self._all_there:
            self._step.advance(done, total)

    def __enter__(self) -> TokenProgress:
        """Draws the empty bar."""
        self._step.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar where it stands."""
        self._step.__exit__(kind, error, trace)
