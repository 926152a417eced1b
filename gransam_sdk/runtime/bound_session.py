"""A graph of fixed shapes on ONNX Runtime whose inputs and outputs keep their places in the device's memory.

A plain run lets ONNX Runtime allocate every input and output on the device anew. Here each has one buffer there for as
long as the session is open: a run copies the inputs in, waits for the device once, and copies the outputs out once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle import Graph, Tensor
from ..errors import EnvironmentFault, InputError
from ..shapes import AnyArray
from .onnxruntime_session import OrtSession
from .session import check_feeds


class BoundSession(OrtSession):
    """One graph on ONNX Runtime with bound inputs and outputs; runs of several threads take turns.

    Args:
        data: As of ``OrtSession``.
        graph: Its declared inputs and outputs, every axis of a fixed size.
        device: As of ``OrtSession``.
        threads: As of ``OrtSession``.
        memory_limit: As of ``OrtSession``; the buffers, whose sizes are fixed, lie beside it.

    Raises:
        InputError: An axis is free.
        OutOfMemoryError: The device has no memory for weights or buffers.
    """

    def __init__(
        self,
        data: bytes,
        graph: Graph,
        *,
        device: str = "cpu",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if free := [tensor.name for tensor in (*graph.inputs, *graph.outputs) if _is_free(tensor)]:
            raise InputError(
                f"{graph.file} to bind", expected="fixed shapes", found=f"free axes in {', '.join(free)}", do="fuse it"
            )
        super().__init__(data, graph, device=device, threads=threads, memory_limit=memory_limit)
        self._lock = threading.Lock()
        self._place = device
        session: Any = self._session
        try:
            self._binding = session.io_binding()
            # A bound numpy array would be copied to the device when it is bound, and never again: hence these.
            self._held = {tensor.name: self._reserve(tensor) for tensor in graph.inputs}
            for name, value in self._held.items():
                self._binding.bind_ortvalue_input(name, value)
            for tensor in graph.outputs:
                self._binding.bind_ortvalue_output(tensor.name, self._reserve(tensor))
        except Exception as error:  # ONNX Runtime raises many kinds
            raise self._failed(error) from error

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the graph once (see ``Session.run``); the arrays belong to the caller."""
        check_feeds(self._graph, feeds)
        with self._lock:
            if self._session is None:
                raise EnvironmentFault(self._graph.file, expected="an open session", found="a closed one")
            try:
                for name, value in feeds.items():
                    self._held[name].update_inplace(np.ascontiguousarray(value))
                self._session.run_with_iobinding(self._binding)  # returns when the device is done
                values = self._binding.copy_outputs_to_cpu()
            except Exception as error:
                raise self._failed(error) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Frees buffers, graph and memory arena."""
        with self._lock:
            if self._session is not None:
                # In this order: buffers lie in the memory of the session's device.
                del self._binding, self._held
            super().close()

    def _reserve(self, tensor: Tensor) -> Any:
        """A buffer on the session's device."""
        from onnxruntime import OrtValue

        kind, _, index = self._place.partition(":")
        dtype = np.dtype(tensor.dtype).type
        return OrtValue.ortvalue_from_shape_and_type(list(tensor.axes), dtype, kind, int(index or 0))


def _is_free(tensor: Tensor) -> bool:
    return not all(isinstance(axis, int) for axis in tensor.axes)
