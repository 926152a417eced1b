"""TensorRT and the CUDA runtime without a GPU: they record every call, refuse wrong ones, and run plans on the CPU.

Names, parameters and enumerations are those of the vendor's bindings, versions 10.8 and 11.4;
``tests/export/test_engine_bindings.py`` compares them where those are installed. A plan holds the ONNX bytes and what
the builder was told, so an "engine" computes what the graph does, in memory that only ``cudaMalloc`` gives out.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from recording_cuda import World, cuda_runtime
from recording_types import (
    BuilderFlag,
    DataType,
    HardwareCompatibilityLevel,
    IBuilderConfig,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    MemoryPoolType,
    Severity,
    TensorIOMode,
    axes_of,
)

MAGIC = b"RECORDED PLAN\n"
TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}


def install(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> World:
    """Puts the fakes where ``import tensorrt`` and ``from cuda.bindings import runtime`` find them."""
    world = World(**settings)
    runtime = cuda_runtime(world)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    cuda = types.ModuleType("cuda")
    cuda.bindings = bindings  # type: ignore[attr-defined]
    modules = {
        "tensorrt": tensorrt(world),
        "cuda": cuda,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": runtime,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return world


def tensorrt(world: World) -> types.ModuleType:
    """The module, bound to one world."""
    flags = {} if world.strongly_typed is None else {"STRONGLY_TYPED": world.strongly_typed}
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            world.record("Builder")
            if world.no_builder:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            assert logger.made
            self.logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            world.record("create_network", flags)
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            world.record("create_builder_config")
            return IBuilderConfig(world)

        def create_optimization_profile(self) -> IOptimizationProfile:
            world.record("create_optimization_profile")
            return IOptimizationProfile(world)

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
            world.record("build_serialized_network")
            shapes = config.profiles[0].shapes if config.profiles else {}
            free = {tensor.name for tensor in network.inputs if -1 in tensor.shape}
            if world.no_plan or free != shapes.keys():
                self.logger.log(Severity.ERROR, "Network has dynamic or shape inputs, but no optimization profile")
                return None
            told = {
                "flags": network.flags,
                "tf32": BuilderFlag.TF32 in config.flags,
                "strict_nans": BuilderFlag.STRICT_NANS in config.flags,
                "hardware": int(config.hardware_compatibility_level),
                "level": config.builder_optimization_level,
                "workspace": config.pools.get(MemoryPoolType.WORKSPACE),
                "shapes": shapes,
                "gpu": world.gpu.decode(),
                "spoil": list(world.spoil),
            }
            return memoryview(MAGIC + json.dumps(told).encode() + b"\n" + network.onnx)  # a buffer, as IHostMemory is

    class ParserError:
        def __init__(self, text: str) -> None:
            self.text = text

        def desc(self) -> str:
            return self.text

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            world.record("OnnxParser")
            assert logger.made
            self.network = network

        def parse(self, model: bytes, path: str | None = None) -> bool:
            world.record("parse", len(model), path)
            if world.parse_errors:
                return False
            graph = onnx.load_from_string(model).graph
            self.network.onnx = bytes(model)
            self.network.inputs = [ITensor(value) for value in graph.input]
            self.network.outputs = [ITensor(value) for value in graph.output]
            return True

        @property
        def num_errors(self) -> int:
            return len(world.parse_errors)

        def get_error(self, index: int) -> ParserError:
            return ParserError(world.parse_errors[index])

    class IExecutionContext:
        def __init__(self, engine: Any) -> None:
            self.engine = engine
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            world.record("set_input_shape", name, shape)
            least, _, most = self.engine.told["shapes"].get(name, [list(self.engine.shapes[name])] * 3)
            assert isinstance(shape, tuple)
            if not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
                return False
            self.shapes[name] = shape
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            letters: dict[str, int] = {}
            for value in self.engine.graph.input:
                for axis, size in zip(value.type.tensor_type.shape.dim, self.shapes[value.name], strict=True):
                    letters[axis.dim_param] = size
            dims = next(v for v in self.engine.graph.output if v.name == name).type.tensor_type.shape.dim
            return tuple(letters[axis.dim_param] if axis.dim_param else axis.dim_value for axis in dims)

        def set_tensor_address(self, name: str, memory: int) -> bool:
            world.record("set_tensor_address", name)
            self.addresses[name] = memory
            return memory in world.memory

        def execute_async_v3(self, stream_handle: int) -> bool:
            world.record("execute_async_v3", stream_handle)
            feeds = {}
            for name, shape in self.shapes.items():
                dtype = np.dtype(self.engine.numpy_type(name))
                held = np.frombuffer(world.memory[self.addresses[name]], dtype)
                feeds[name] = held[: int(np.prod(shape))].reshape(shape)
            for name, value in zip(
                self.engine.outputs, self.engine.session.run(self.engine.outputs, feeds), strict=True
            ):
                wrong = value + 1 if name in self.engine.told["spoil"] else value
                data = np.ascontiguousarray(wrong.astype(value.dtype)).tobytes()
                buffer = world.memory[self.addresses[name]]
                assert len(buffer) >= len(data)
                ctypes.memmove(buffer, data, len(data))
            return True

    class ICudaEngine:
        def __init__(self, plan: bytes) -> None:
            told, _, self.onnx = plan.removeprefix(MAGIC).partition(b"\n")
            self.told = json.loads(told)
            self.graph = onnx.load_from_string(self.onnx).graph
            self.values = {value.name: value for value in (*self.graph.input, *self.graph.output)}
            self.shapes = {name: axes_of(value) for name, value in self.values.items()}
            self.outputs = [value.name for value in self.graph.output]
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(self.onnx, options, providers=["CPUExecutionProvider"])

        @property
        def num_io_tensors(self) -> int:
            return len(self.values)

        def get_tensor_name(self, index: int) -> str:
            return list(self.values)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return TensorIOMode.OUTPUT if name in self.outputs else TensorIOMode.INPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return DataType[TYPES[self.values[name].type.tensor_type.elem_type]]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self.shapes[name]

        def numpy_type(self, name: str) -> Any:
            return onnx.helper.tensor_dtype_to_np_dtype(self.values[name].type.tensor_type.elem_type)

        def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
            world.record("create_execution_context")
            return IExecutionContext(self)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            world.record("Runtime")
            assert logger.made
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            world.record("deserialize_cuda_engine", self.engine_host_code_allowed)
            if not bytes(serialized_engine).startswith(MAGIC):
                self.logger.log(Severity.ERROR, "Serialization assertion plan->header.magicTag failed")
                return None
            return ICudaEngine(bytes(serialized_engine))

    module = types.ModuleType("tensorrt")
    for value in (
        *(ILogger, INetworkDefinition, IOptimizationProfile, IBuilderConfig, ITensor, NetworkDefinitionCreationFlag),
        *(BuilderFlag, MemoryPoolType, HardwareCompatibilityLevel, TensorIOMode, DataType),
        *(Builder, ParserError, OnnxParser, IExecutionContext, ICudaEngine, Runtime),
    ):
        setattr(module, value.__name__, value)
    module.__version__ = world.version  # type: ignore[attr-defined]
    return module
