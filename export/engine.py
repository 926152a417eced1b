"""An ONNX graph to a TensorRT plan for this GPU, through the ONNX parser and a strongly typed network.

Precision is what the graph says: no precision flag is set (TensorRT 11 has none), and TF32, which is on unless it is
cleared, is cleared. No plugins, no compatibility with other GPUs or versions, and nothing around the plan: ``trtexec``
loads it.

Source: NVIDIA TensorRT Python API reference, versions 10 and 11.
"""

from __future__ import annotations

from typing import Any

from gransam_sdk.errors import EnvironmentFault
from gransam_sdk.onnx_model import Tensor
from gransam_sdk.runtime.engine_spec import EngineSpec
from gransam_sdk.runtime.tensorrt_library import construct, import_tensorrt, last_line, make_logger

_REPORT = "report this with the TensorRT version; the ONNX graphs of the bundle run on ONNX Runtime"


def build_plan(spec: EngineSpec) -> bytes:
    """Builds an engine on the current CUDA device; takes from seconds to many minutes.

    Args:
        spec: Graph, shapes and options; its ONNX bytes are an opened bundle's, or were made of one.

    Returns:
        The serialised engine.

    Raises:
        MissingExtraError: TensorRT is not installed.
        EnvironmentFault: TensorRT cannot read the graph, or cannot build it.
    """
    trt = import_tensorrt()
    logger = make_logger(trt)
    builder = construct(trt.Builder, logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, logger, spec)
    config = _configure(trt, builder, spec)
    if any(isinstance(axis, str) for tensor in spec.graph.inputs for axis in tensor.axes):
        _add_profile(builder, config, spec)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _fault(spec, "an engine", last_line(logger, "no reason given"))
    return bytes(plan)


def _network_flags(trt: Any) -> int:
    """Strong typing has to be asked for in version 10 and is what there is from 11 on, where the flag may go."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(trt: Any, network: Any, logger: Any, spec: EngineSpec) -> None:
    """Reads the graph from memory: it is self-contained, so the parser has no file to look for.

    Raises:
        EnvironmentFault: It cannot, or the network's inputs or outputs are not the declared ones.
    """
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(spec.onnx):
        errors = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise _fault(spec, "a graph that TensorRT's parser reads", errors[:600] or last_line(logger, "no reason given"))
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for declared, found in ((spec.graph.inputs, inputs), (spec.graph.outputs, outputs)):
        expected = sorted(f"{tensor.name} {_sizes(tensor)}" for tensor in declared)
        there = sorted(f"{tensor.name} {[int(size) for size in tensor.shape]}" for tensor in found)
        # An output's sizes are what the parser could infer: its rank may be all that it knows.
        if there != expected and (found is inputs or _names(there) != _names(expected)):
            raise _fault(spec, ", ".join(expected), ", ".join(there))


def _sizes(tensor: Tensor) -> list[int]:
    """As TensorRT writes them: -1 for a free axis."""
    return [-1 if isinstance(axis, str) else axis for axis in tensor.axes]


def _names(shown: list[str]) -> list[str]:
    return [text.partition(" ")[0] for text in shown]


def _configure(trt: Any, builder: Any, spec: EngineSpec) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    # Without it TensorRT may take x - x for 0, and an overflow would no longer show as NaN in what comes out.
    config.set_flag(trt.BuilderFlag.STRICT_NANS)
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
    config.builder_optimization_level = spec.options.optimization_level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.options.workspace_bytes)
    return config


def _add_profile(builder: Any, config: Any, spec: EngineSpec) -> None:
    """One optimisation profile: the sizes that every input may have.

    Raises:
        EnvironmentFault: TensorRT takes the sizes for inconsistent.
    """
    profile = builder.create_optimization_profile()
    for tensor in spec.graph.inputs:
        if any(isinstance(axis, str) for axis in tensor.axes):
            least, best, most = spec.shapes(tensor)
            profile.set_shape(tensor.name, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise _fault(spec, "a consistent optimisation profile", str(dict(spec.ranges)))


def _fault(spec: EngineSpec, expected: str, found: str) -> EnvironmentFault:
    return EnvironmentFault(f"engine for {spec.title}", expected=expected, found=found, do=_REPORT)
