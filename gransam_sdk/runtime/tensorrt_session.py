"""One graph on TensorRT: a deserialised plan, its execution context, and the device memory of its tensors.

Every run copies inputs to the GPU and outputs back. That is what the session protocol asks for and what the canary and
parity need; for speed the fused graph keeps everything between photo and masks on the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import EnvironmentFault, InputError
from ..shapes import AnyArray
from .engine_spec import EngineSpec
from .out_of_memory import out_of_memory
from .session import check_feeds
from .tensorrt_library import (
    check_cuda,
    construct,
    device_index,
    import_cuda,
    import_tensorrt,
    last_line,
    make_logger,
    memory_line,
)

_DTYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
    "uint8": "UINT8",
}
"""numpy's name to TensorRT's ``DataType``."""


class EngineRefused(EnvironmentFault):
    """TensorRT does not take a plan, or the plan is not of the graph: build it again."""


class DeviceBuffers:
    """Device memory by tensor name, grown when a run needs more.

    Args:
        index: Number of the GPU.
    """

    def __init__(self, index: int) -> None:
        """Makes the device current and a stream on it."""
        self._cuda, self._index = import_cuda(), index
        self._held: dict[str, tuple[int, int]] = {}
        self.activate()
        self._stream = check_cuda(self._cuda.cudaStreamCreate(), "CUDA stream")

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    def activate(self) -> None:
        """Makes the device current for the calling thread: CUDA keeps that by thread."""
        check_cuda(self._cuda.cudaSetDevice(self._index), f"device cuda:{self._index}")

    def reserve(self, name: str, size: int) -> int:
        """Address of at least ``size`` bytes for a tensor.

        Raises:
            DeviceError: The GPU has no more memory.
        """
        address, held = self._held.get(name, (0, 0))
        if held < size:
            self._free(name)
            address = int(check_cuda(self._cuda.cudaMalloc(size), f"{size:,} bytes of GPU memory for {name}"))
            self._held[name] = (address, size)
        return address

    def upload(self, name: str, value: AnyArray) -> int:
        """Queues a contiguous array, which must stay as it is until ``wait``; returns its address on the device."""
        address = self.reserve(name, value.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        answer = self._cuda.cudaMemcpyAsync(address, value.ctypes.data, value.nbytes, kind, self._stream)
        check_cuda(answer, f"input {name} to the GPU")
        return address

    def download(self, name: str, value: AnyArray) -> None:
        """Queues a tensor for the host; ``value`` holds it after ``wait``."""
        address, _ = self._held[name]
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        answer = self._cuda.cudaMemcpyAsync(value.ctypes.data, address, value.nbytes, kind, self._stream)
        check_cuda(answer, f"output {name} from the GPU")

    def wait(self) -> None:
        """Until everything that was queued is done.

        Raises:
            DeviceError: Something of it failed.
        """
        check_cuda(self._cuda.cudaStreamSynchronize(self._stream), "work on the GPU")

    def close(self) -> None:
        """Frees all of it."""
        self.activate()
        for name in list(self._held):
            self._free(name)
        check_cuda(self._cuda.cudaStreamDestroy(self._stream), "CUDA stream")

    def _free(self, name: str) -> None:
        address, _ = self._held.pop(name, (0, 0))
        if address:
            check_cuda(self._cuda.cudaFree(address), f"GPU memory of {name}")


class TensorRTSession:
    """One graph on TensorRT; one run at a time.

    Args:
        plan: From the engine cache, and from nowhere else.
        spec: What the plan was built of.
        device: ``auto``, ``cuda`` or ``cuda:N``.

    Raises:
        EngineRefused: TensorRT cannot read the plan, or its tensors are not the graph's.
        OutOfMemoryError: The GPU has no memory for the engine.
        DeviceError: The GPU cannot be had.
    """

    provider = "TensorRT"
    threads = 0

    def __init__(self, plan: bytes, spec: EngineSpec, *, device: str = "cuda") -> None:
        trt = import_tensorrt()
        self._spec, self._lock = spec, threading.Lock()
        self._outputs = {tensor.name: np.dtype(tensor.dtype) for tensor in spec.graph.outputs}
        self._buffers: DeviceBuffers | None = DeviceBuffers(device_index(device))
        try:
            self._logger = make_logger(trt)  # TensorRT keeps only a pointer to it
            self._runtime = construct(trt.Runtime, self._logger)
            self._runtime.engine_host_code_allowed = False
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise self._unusable("a plan that TensorRT reads")
            _check_tensors(trt, self._engine, spec)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise self._unusable("an execution context")
        except BaseException:
            self._buffers.close()
            raise

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Runs the graph once (see ``Session.run``)."""
        check_feeds(self._spec.graph, feeds)
        _check_sizes(self._spec, feeds)
        with self._lock:
            if self._buffers is None:
                raise EnvironmentFault(self._spec.title, expected="an open session", found="a closed one")
            self._buffers.activate()
            return self._run(self._buffers, {name: np.ascontiguousarray(value) for name, value in feeds.items()})

    def close(self) -> None:
        """Frees engine and device memory."""
        with self._lock:
            if self._buffers is None:
                return
            # In this order: a context must not outlive its engine, nor an engine its runtime.
            del self._context, self._engine, self._runtime
            self._buffers.close()
            self._buffers = None

    def _run(self, buffers: DeviceBuffers, feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        context = self._context
        self._logger.lines.clear()  # of earlier runs
        for name, value in feeds.items():
            address = buffers.upload(name, value)
            if not context.set_input_shape(name, tuple(value.shape)) or not context.set_tensor_address(name, address):
                raise self._failed(f"input {name} of shape {list(value.shape)}")
        outputs = {}
        for name, dtype in self._outputs.items():
            shape = tuple(int(size) for size in context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise self._failed(f"a shape of output {name}")
            outputs[name] = np.empty(shape, dtype)
            if not context.set_tensor_address(name, buffers.reserve(name, outputs[name].nbytes)):
                raise self._failed(f"an address of output {name}")
        if not context.execute_async_v3(buffers.stream):
            raise self._failed("a run")
        for name, value in outputs.items():
            buffers.download(name, value)
        buffers.wait()
        return outputs

    def _unusable(self, expected: str) -> EnvironmentFault:
        """The plan's fault, and then it is built again; but for want of memory another plan would be no better."""
        if line := memory_line(self._logger):
            return out_of_memory(f"engine {self._spec.title}", line)
        return _refused(self._spec, expected, last_line(self._logger, "no reason given"))

    def _failed(self, expected: str) -> EnvironmentFault:
        what = f"engine {self._spec.title}"
        if line := memory_line(self._logger):
            return out_of_memory(what, line)
        return EnvironmentFault(what, expected=expected, found=last_line(self._logger, "no reason given"))


def _check_tensors(trt: Any, engine: Any, spec: EngineSpec) -> None:
    """The tensors of an engine are those of its graph: names, directions, dtypes, and free axes at the same places."""
    modes = {tensor.name: trt.TensorIOMode.INPUT for tensor in spec.graph.inputs}
    modes |= {tensor.name: trt.TensorIOMode.OUTPUT for tensor in spec.graph.outputs}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if sorted(names) != sorted(modes):
        raise _refused(spec, ", ".join(sorted(modes)), ", ".join(sorted(names)))
    for tensor in (*spec.graph.inputs, *spec.graph.outputs):
        dtype, mode = getattr(trt.DataType, _DTYPES[tensor.dtype]), modes[tensor.name]
        found = (engine.get_tensor_dtype(tensor.name), engine.get_tensor_mode(tensor.name))
        shape = tuple(int(size) for size in engine.get_tensor_shape(tensor.name))
        fits = len(shape) == len(tensor.axes) and all(
            isinstance(axis, str) or size in (axis, -1) for axis, size in zip(tensor.axes, shape, strict=True)
        )
        if found != (dtype, mode) or not fits:
            raise _refused(spec, str(tensor), f"{found[1]} {found[0]} {list(shape)}")


def _check_sizes(spec: EngineSpec, feeds: Mapping[str, AnyArray]) -> None:
    for tensor in spec.graph.inputs:
        for axis, size in zip(tensor.axes, feeds[tensor.name].shape, strict=True):
            if isinstance(axis, str) and not spec.ranges[axis].least <= size <= spec.ranges[axis].most:
                raise InputError(
                    f"input {tensor.name} of engine {spec.title}",
                    expected=f"{spec.ranges[axis].least} to {spec.ranges[axis].most} along {axis}",
                    found=str(size),
                    do="build the engine for larger chunks: gransam engine --chunk N",
                )


def _refused(spec: EngineSpec, expected: str, found: str) -> EngineRefused:
    return EngineRefused(
        f"engine {spec.title}", expected=expected, found=found, do=f"build it again: gransam engine {spec.bundle}"
    )
