"""Whether every shape in an ONNX graph is known before it runs."""

from __future__ import annotations

import math

import onnx
from onnx import helper

from gransam_sdk.errors import BundleError

_AGAIN = "export the bundle again"
_SMALL = 1024
"""Stored tensors up to this many elements may be shapes and indices, whose values shape inference reads."""


def check_static(model: onnx.ModelProto) -> None:
    """Checks a model against ONNX's rules, and that every value in it has sizes, not letters.

    Raises:
        BundleError: A broken rule, or the first value whose shape depends on what the graph is fed.
    """
    try:
        onnx.checker.check_model(_outline(model))
        shapes = value_shapes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        found = str(error).strip().splitlines()[0][:400]
        raise BundleError("fused graph", expected="graphs that fit together", found=found, do=_AGAIN) from error
    for name, axes in shapes.items():
        if axes is None:
            raise BundleError(
                f"value {name} of the fused graph",
                expected="a shape that follows from the graph's inputs",
                found="one that is known only when it runs",
                do=_AGAIN,
            )


def value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...] | None]:
    """The shape of every value that a node makes, by ONNX's own shape inference; None where a size is unknown."""
    inferred = onnx.shape_inference.infer_shapes(_outline(model), check_type=True, strict_mode=True, data_prop=True)
    known = {value.name: value.type.tensor_type for value in [*inferred.graph.value_info, *inferred.graph.output]}
    names = [name for node in model.graph.node for name in node.output if name]
    return {name: _sizes(known[name]) if name in known else None for name in names}


def _sizes(tensor: onnx.TypeProto.Tensor) -> tuple[int, ...] | None:
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large stored tensors declared as inputs: no shape depends on them, and they may fill memory."""
    outline, graph = onnx.ModelProto(), model.graph
    outline.ir_version = model.ir_version
    outline.opset_import.extend(model.opset_import)
    outline.graph.name = graph.name
    outline.graph.node.extend(graph.node)
    outline.graph.input.extend(graph.input)
    outline.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            outline.graph.initializer.append(tensor)
        else:
            outline.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return outline
