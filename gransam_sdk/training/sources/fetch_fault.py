"""Why a download came to nothing."""

from __future__ import annotations


class FetchFault(Exception):
    """A request that came to nothing.

    Attributes:
        reason: ``url``, ``address``, ``redirect``, ``insecure``, ``status``, ``rate-limit``, ``timeout``,
            ``unreachable``, ``cut``, ``too-large`` or ``content-type``.
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
