"""The parts of recorded TensorRT that a network and its configuration are made of (see ``recording_tensorrt``)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import onnx
from recording_cuda import World


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    """Base of loggers; it has to be initialised."""

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 6, "STRICT_NANS": 23})
MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
HardwareCompatibilityLevel = enum.IntEnum("HardwareCompatibilityLevel", {"NONE": 0, "AMPERE_PLUS": 1})
TensorIOMode = enum.IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8", "BF16"])


def axes_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """-1 for a free axis."""
    return tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in value.type.tensor_type.shape.dim)


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name, self.shape = value.name, axes_of(value)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.onnx = b""
        self.inputs: list[ITensor] = []
        self.outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self.outputs[index]


class IOptimizationProfile:
    def __init__(self, world: World) -> None:
        self.world = world
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self.world.record("set_shape", input, min, opt, max)
        if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise ValueError("Shape provided for min is inconsistent with other shapes")
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self, world: World) -> None:
        self.world = world
        self.flags = {BuilderFlag.TF32}
        self.pools: dict[Any, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.hardware_compatibility_level: Any = HardwareCompatibilityLevel.NONE
        self.builder_optimization_level = 3

    def set_flag(self, flag: Any) -> None:
        self.world.record("set_flag", BuilderFlag(flag))
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.world.record("clear_flag", BuilderFlag(flag))
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.world.record("set_memory_pool_limit", MemoryPoolType(pool), pool_size)
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.world.record("add_optimization_profile")
        if self.world.bad_profile:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1
