"""What one run of an ONNX graph costs, counted from its bytes: multiply-adds, and the numbers that they read and write.

Matrix products and convolutions are counted, nothing else: no softmax, no norm, no sum. What follows from weights alone
is not counted, because engines compute it once, when they load the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import onnx
from onnxscript.optimizer import fold_constants

from gransam_sdk.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCost:
    """One run.

    Attributes:
        multiply_adds: Of all counted nodes.
        by_operator: Of each kind of node that was found.
        touched_bytes: Inputs and outputs of the counted nodes, each node's by itself: what would go through memory if
            no node's output were still in a cache when the next one reads it.
    """

    multiply_adds: int
    by_operator: Mapping[str, int]
    touched_bytes: int


def graph_cost(data: bytes, sizes: Mapping[str, int]) -> GraphCost:
    """Counts one run of a graph.

    Args:
        data: The ONNX file.
        sizes: Size of each free axis of the inputs, by its letter.

    Raises:
        InputError: A free axis without a size, or a counted node whose shapes cannot be derived.
    """
    model = onnx.load_from_string(data)
    _fix_axes(model, sizes)
    fold_constants(model, onnx_shape_inference=True)  # sizes that the graph computes from its inputs' sizes
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes, widths = _known_shapes(model)
    at_run_time = _names_at_run_time(model)
    by_operator: dict[str, int] = {}
    touched = 0
    for node in model.graph.node:
        count = _COUNTED.get(node.op_type)
        if count is None or node.output[0] not in at_run_time:
            continue
        names = [name for name in chain(node.input, node.output) if name]
        if missing := [name for name in names if name not in shapes]:
            raise InputError(
                f"{node.op_type} {node.name}",
                expected="shapes that follow from those of the inputs",
                found=f"none for {', '.join(missing)}",
                do="give a size for every free axis",
            )
        read = [shapes[name] for name in node.input if name]
        by_operator[node.op_type] = by_operator.get(node.op_type, 0) + count(node, read, shapes[node.output[0]])
        touched += sum(math.prod(shapes[name]) * widths[name] for name in names)
    return GraphCost(multiply_adds=sum(by_operator.values()), by_operator=by_operator, touched_bytes=touched)


def _fix_axes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Puts numbers in the place of letters at the inputs, and drops the shapes that were declared of anything else."""
    weights = {initializer.name for initializer in model.graph.initializer}
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if value.name in weights or axis.HasField("dim_value"):
                continue
            if axis.dim_param not in sizes:
                raise InputError(
                    f"axis {axis.dim_param or 'without a name'} of {value.name}",
                    expected="a size for it",
                    found=f"sizes for {', '.join(sizes) or 'none'}",
                )
            axis.dim_value = sizes[axis.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _known_shapes(model: onnx.ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shape and bytes a number of every tensor whose axes are all known."""
    shapes: dict[str, Shape] = {}
    widths: dict[str, int] = {}
    for value in chain(model.graph.input, model.graph.output, model.graph.value_info):
        kind = value.type.tensor_type
        axes = kind.shape.dim
        if kind.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
            widths[value.name] = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    for weight in model.graph.initializer:
        shapes[weight.name] = tuple(weight.dims)
        widths[weight.name] = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
    return shapes, widths


def _names_at_run_time(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on an input."""
    weights = {initializer.name for initializer in model.graph.initializer}
    names = {value.name for value in model.graph.input} - weights
    for node in model.graph.node:  # in order of execution
        if names.intersection(node.input):
            names.update(node.output)
    return names


def _product(node: onnx.NodeProto, read: Sequence[Shape], written: Shape) -> int:
    """MatMul: each number written sums over the last axis of the left matrix."""
    return math.prod(written) * read[0][-1]


def _gemm(node: onnx.NodeProto, read: Sequence[Shape], written: Shape) -> int:
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(written) * read[0][0 if turned else 1]


def _convolution(node: onnx.NodeProto, read: Sequence[Shape], written: Shape) -> int:
    """Each number written sums over the kernel's pixels and the channels of one group: kernel (out,in/groups,...)."""
    return math.prod(written) * math.prod(read[1][1:])


def _transposed_convolution(node: onnx.NodeProto, read: Sequence[Shape], written: Shape) -> int:
    """Each number read is spread over the kernel's pixels and the channels of one group: kernel (in,out/groups,...)."""
    return math.prod(read[0]) * math.prod(read[1][1:])


def _einsum(node: onnx.NodeProto, read: Sequence[Shape], written: Shape) -> int:
    """One multiply-add for each setting of all letters, as if computed in one go; of one operand there is none."""
    equation = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if "..." in equation:
        raise InputError(f"Einsum {node.name}", expected="a letter for every axis", found=equation)
    size = {
        letter: axis for term, shape in zip(terms, read, strict=True) for letter, axis in zip(term, shape, strict=True)
    }
    return math.prod(size.values()) * (len(terms) - 1)


_COUNTED: Mapping[str, Callable[[onnx.NodeProto, Sequence[Shape], Shape], int]] = {
    "MatMul": _product,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Einsum": _einsum,
}
