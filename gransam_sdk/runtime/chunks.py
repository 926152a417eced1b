"""How many prompts a run takes: as many as were asked for, or as many as the device's memory holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..errors import OutOfMemoryError

_T = TypeVar("_T")


class Chunks:
    """Rows of a graph's runs, and what was learnt of the device's memory for as long as a model is open.

    Each graph has a limit of its own: a mask needs other memory than a prompt.
    """

    def __init__(self) -> None:
        self._most: dict[str, int] = {}

    @property
    def reduced(self) -> dict[str, int]:
        """Rows that a run takes at most, of those graphs whose chunk had to be halved."""
        return dict(self._most)

    def run(self, graph: str, rows: int, chunk: int, part: Callable[[slice], _T]) -> Iterator[_T]:
        """Runs all rows, ``chunk`` at a time; where memory runs out the chunk is halved, down to 1, and stays so.

        Args:
            graph: Its name.
            rows: How many there are.
            chunk: Rows a run as asked for.
            part: Runs the given rows.

        Yields:
            What ``part`` returns, in order.

        Raises:
            OutOfMemoryError: There is no memory for a single row.
        """
        start, reason = 0, ""
        while start < rows:
            size = min(chunk, self._most.get(graph, chunk), rows - start)
            try:
                out = part(slice(start, start + size))
            except OutOfMemoryError as error:
                if size == 1:
                    raise
                self._most[graph] = min(size // 2, self._most.get(graph, size))
                reason = error.found
                continue
            if reason:  # said once it is known what fits
                warnings.warn(
                    f"{graph} graph: the device's memory does not hold {chunk} prompts at a time; from here on "
                    f"{self._most[graph]}. Results may differ by rounding. ({reason})",
                    RuntimeWarning,
                    stacklevel=2,
                )
                reason = ""
            yield out
            start += size
