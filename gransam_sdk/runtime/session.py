"""The session protocol: the one interface behind which ONNX Runtime, other engines and the fake live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ..bundle import Graph, Tensor
from ..errors import InputError
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


def check_feeds(graph: Graph, feeds: Mapping[str, AnyArray]) -> None:
    """Compares feeds with a graph's declared inputs.

    Raises:
        InputError: A feed is missing, unknown, or of another dtype or shape.
    """
    declared = {tensor.name: tensor for tensor in graph.inputs}
    if declared.keys() != feeds.keys():
        raise InputError(f"inputs of {graph.file}", expected=_names(declared), found=_names(feeds))
    free: dict[str, int] = {}
    for name, value in feeds.items():
        if not _fits(declared[name], value, free):
            raise InputError(
                f"input {name} of {graph.file}",
                expected=f"{declared[name].dtype} {list(declared[name].axes)}",
                found=f"{value.dtype} {list(value.shape)}",
            )


def _fits(tensor: Tensor, value: AnyArray, free: dict[str, int]) -> bool:
    if value.dtype != np.dtype(tensor.dtype) or value.ndim != len(tensor.axes):
        return False
    return all(
        size == (free.setdefault(axis, size) if isinstance(axis, str) else axis)
        for axis, size in zip(tensor.axes, value.shape, strict=True)
    )


def _names(mapping: Mapping[str, object]) -> str:
    return ", ".join(sorted(mapping))
