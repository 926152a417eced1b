"""The session protocol: the one interface behind which ONNX Runtime, other engines and the fake live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..shapes import AnyArray


class Session(Protocol):
    """One loaded graph of a bundle.

    Attributes:
        provider: Where it runs, as the engine itself reports it after creation (``CPUExecutionProvider``, ...).
        threads: Threads that one run may use; 0 where that is not the host's business.
    """

    provider: str
    threads: int

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the graph once.

        Args:
            feeds: Every declared input by name, with the declared dtype and axes.

        Returns:
            Every declared output by name.

        Raises:
            InputError: A feed is missing, unknown, or of another dtype or shape than the manifest declares.
            EnvironmentFault: The engine failed.
        """
        ...

    def close(self) -> None:
        """Frees what the session holds; running it afterwards is an error."""
        ...
