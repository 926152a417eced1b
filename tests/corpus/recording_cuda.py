"""The CUDA runtime without a GPU: host memory that only ``cudaMalloc`` gives out, and a record of every call.

Names and parameters are those of ``cuda.bindings.runtime`` 13.5, compared by ``tests/export/test_engine_bindings.py``.
"""

from __future__ import annotations

import ctypes
import enum
import types
from dataclasses import dataclass, field
from typing import Any


@dataclass
class World:
    """What the fakes record, and how they should misbehave."""

    version: str = "11.4.0.106"
    gpu: bytes = b"Fake GPU A"
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)
    parse_errors: tuple[str, ...] = ()
    no_builder: bool = False
    no_plan: bool = False
    bad_profile: bool = False
    spoil: tuple[str, ...] = ()
    """Graph outputs that a new plan gets wrong."""
    out_of_memory: bool = False
    devices: int = 1
    strongly_typed: int | None = 0
    """Value of that network flag: 0 in version 11, 1 in version 10, None once it is gone."""

    def record(self, name: str, *args: Any) -> None:
        self.calls.append((name, args))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of every call of that name."""
        return [args for called, args in self.calls if called == name]

    @property
    def order(self) -> list[str]:
        """Names of the calls, in order."""
        return [name for name, _ in self.calls]


cudaError_t = enum.IntEnum(
    "cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorInvalidDevice": 101}
)
cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
STREAM = 77


def cuda_runtime(world: World) -> types.ModuleType:
    """``cuda.bindings.runtime``: every call returns an error code first."""
    ok = cudaError_t.cudaSuccess

    def cudaSetDevice(device: int) -> tuple[Any, ...]:
        world.record("cudaSetDevice", device)
        return (ok if device < world.devices else cudaError_t.cudaErrorInvalidDevice,)

    def cudaGetDeviceProperties(device: int) -> tuple[Any, ...]:
        return ok, types.SimpleNamespace(name=world.gpu, major=9, minor=0)

    def cudaDriverGetVersion() -> tuple[Any, ...]:
        return ok, 13050

    def cudaRuntimeGetVersion() -> tuple[Any, ...]:
        return ok, 13000

    def cudaMalloc(size: int) -> tuple[Any, ...]:
        world.record("cudaMalloc", size)
        if world.out_of_memory:
            return cudaError_t.cudaErrorMemoryAllocation, None
        buffer = (ctypes.c_char * max(size, 1))()
        world.memory[ctypes.addressof(buffer)] = buffer
        return ok, ctypes.addressof(buffer)

    def cudaFree(devPtr: int) -> tuple[Any, ...]:
        world.record("cudaFree")
        del world.memory[devPtr]
        return (ok,)

    def cudaMemcpyAsync(dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any, ...]:
        world.record("cudaMemcpyAsync", cudaMemcpyKind(kind).name, count)
        device = dst if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else src
        assert count <= len(world.memory[device])
        ctypes.memmove(dst, src, count)
        return (ok,)

    def cudaStreamCreate() -> tuple[Any, ...]:
        world.record("cudaStreamCreate")
        return ok, STREAM

    def cudaStreamSynchronize(stream: Any) -> tuple[Any, ...]:
        world.record("cudaStreamSynchronize")
        return (ok,)

    def cudaStreamDestroy(stream: Any) -> tuple[Any, ...]:
        world.record("cudaStreamDestroy")
        return (ok,)

    module = types.ModuleType("cuda.bindings.runtime")
    for value in (
        *(cudaSetDevice, cudaGetDeviceProperties, cudaDriverGetVersion, cudaRuntimeGetVersion, cudaMalloc, cudaFree),
        *(cudaMemcpyAsync, cudaStreamCreate, cudaStreamSynchronize, cudaStreamDestroy, cudaError_t, cudaMemcpyKind),
    ):
        setattr(module, value.__name__, value)
    return module
